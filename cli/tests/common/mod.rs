//! What the tests of the command-line tool share: running it, and lines to feed it with.
#![allow(dead_code, reason = "each test program uses its own part of this file")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here takes, so that a hang is a failure and not an endless run.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn tool(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kaelix-wal"));
    command.args(args);
    command
}

/// A directory that goes away with the test, and the path of a log in it.
pub struct Place {
    pub dir: TempDir,
    pub log: String,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log").to_str().unwrap().to_owned();
        Self { dir, log }
    }

    /// A place with an empty log in it.
    pub fn with_log(size: &str, segment_size: &str) -> Self {
        let place = Self::new();
        succeed(&["create", &place.log, "--size", size, "--segment-size", segment_size], b"");
        place
    }

    /// A small log, so that the tests write little.
    pub fn with_small_log() -> Self {
        Self::with_log("8MiB", "1MiB")
    }
}

/// Runs the tool to its end.
pub fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = spawn(args);
    let feeder = feed(child.stdin.take().unwrap(), input.to_vec());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

/// Runs the tool, which must succeed, and returns what it printed.
#[track_caller]
pub fn succeed(args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(args, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {errors}", output.status);
    output.stdout
}

/// Runs the tool, which must fail with `status`, and returns its words on standard error.
#[track_caller]
pub fn fail(args: &[&str], input: &[u8], status: i32) -> String {
    let output = run(args, input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
    assert!(errors.starts_with("error: "), "{args:?}: {errors}");
    errors
}

/// Starts the tool with pipes on all its streams.
pub fn spawn(args: &[&str]) -> Child {
    tool(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Writes `input` from a thread of its own, then closes the pipe. A tool that stops reading is
/// some tests' purpose, so a broken pipe is no failure here.
pub fn feed(mut stdin: ChildStdin, input: Vec<u8>) -> JoinHandle<()> {
    thread::spawn(move || {
        let _ = stdin.write_all(&input);
    })
}

/// Reads to the end from a thread of its own.
pub fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Looks again and again until `look` is true.
#[track_caller]
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The 20,000 flights of `data/flights-sample.csv.gz`, a row each.
pub fn sample() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights-sample.csv.gz");
    let mut sample = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut sample).unwrap();
    sample
}

/// At least `len` bytes of numbered lines, no two of them alike: flights, over and over.
pub fn numbered_lines(len: usize) -> Vec<u8> {
    let sample = sample();
    let mut lines = Vec::with_capacity(len + 256);
    for (number, line) in sample.lines().cycle().enumerate() {
        if lines.len() >= len {
            break;
        }
        writeln!(lines, "{number}\t{line}").unwrap();
    }
    lines
}

/// The number at the beginning of a numbered line.
pub fn number_of(line: &[u8]) -> usize {
    let digits = line.split(|byte| *byte == b'\t').next().unwrap();
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}
