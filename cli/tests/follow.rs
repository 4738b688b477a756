//! `tail --follow` beside a writer in another process.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use common::{PATIENCE, Place, numbered_lines, spawn, succeed};

/// A running `tail --follow`, ended with the test.
struct Follower {
    child: Child,
    lines: Receiver<Vec<u8>>,
}

impl Follower {
    fn start(args: &[&str]) -> Self {
        let mut child = spawn(args);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.split(b'\n') {
                if sender.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next(&mut self) -> Vec<u8> {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let _ = self.child.kill();
            let mut words = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
            panic!("no line came: {error}: {words}");
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_follower_sees_every_line_of_a_live_writer() {
    let place = Place::with_small_log();
    let mut follower = Follower::start(&["tail", &place.log, "--follow"]);
    let mut writer = spawn(&["ingest", &place.log, "--sync", "none"]);
    let mut stdin = writer.stdin.take().unwrap();

    // While the writer is open and idle, what it took must come out.
    stdin.write_all(b"first\n").unwrap();
    assert_eq!(follower.next(), b"first");

    let input = numbered_lines(4 << 20);
    stdin.write_all(&input).unwrap();
    drop(stdin);
    for expected in input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        assert!(follower.next() == expected);
    }
    assert!(writer.wait_with_output().unwrap().status.success());

    // The next writer begins a new epoch; the follower goes on with it.
    succeed(&["ingest", &place.log], b"of the next writer\n");
    assert_eq!(follower.next(), b"of the next writer");
}

#[test]
fn a_follower_begins_with_the_newest_lines() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"1\n2\n3\n");
    let mut follower = Follower::start(&["tail", &place.log, "--follow", "-n", "2", "--json"]);
    let mut next_is = |text: &str| {
        let record: serde_json::Value = serde_json::from_slice(&follower.next()).unwrap();
        assert_eq!(record["text"], text);
    };
    next_is("2");
    next_is("3");
    succeed(&["ingest", &place.log], b"4\n");
    next_is("4");
}

#[test]
fn a_follower_that_is_overrun_says_so_and_goes_on() {
    let place = Place::with_log("1MiB", "64KiB");
    let mut follower = spawn(&["tail", &place.log, "--follow"]);
    let mut stdout = BufReader::new(follower.stdout.take().unwrap());
    let stderr = common::collect(follower.stderr.take().unwrap());
    succeed(&["ingest", &place.log, "--sync", "none"], b"begin\n");
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "begin\n");

    // Nobody takes the follower's output for a while, so the writer laps it.
    let mut input = numbered_lines(8 << 20);
    input.extend_from_slice(b"end\n");
    succeed(&["ingest", &place.log, "--sync", "none", "--on-full", "overwrite"], &input);
    while line != "end\n" {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0);
        let whole = line == "end\n" || line.matches('\t').count() == 1;
        assert!(whole, "not a whole line: {line}");
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    let words = String::from_utf8(stderr.join().unwrap()).unwrap();
    assert!(words.contains("warning: the writer overwrote the records from LSN"), "{words}");
}

#[test]
fn a_follower_ends_when_its_reader_leaves_a_quiet_log() {
    let place = Place::with_small_log();
    let mut follower = spawn(&["tail", &place.log, "--follow"]);
    succeed(&["ingest", &place.log], b"only\n");
    let mut stdout = follower.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 5]).unwrap();
    drop(stdout);
    common::wait_until("the follower ends", || {
        thread::sleep(Duration::from_millis(10));
        follower.try_wait().unwrap().is_some()
    });
    assert!(follower.wait().unwrap().success());
}
