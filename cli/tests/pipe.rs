//! `pipe`: byte for byte the same, also across a kill, and in bounded memory.

mod common;

use std::io::{Read, Write};
use std::process::{Child, ChildStdout};
use std::thread;
use std::time::{Duration, Instant};

use common::{Place, collect, fail, feed, number_of, numbered_lines, run, spawn, succeed};

const RING: usize = 4 << 20;

fn start(place: &Place) -> Child {
    spawn(&["pipe", &place.log, "--size", "4MiB", "--segment-size", "256KiB"])
}

/// The largest resident memory of a running process so far, in bytes.
fn memory_max(child: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[track_caller]
fn assert_same(output: &[u8], input: &[u8]) {
    let same = output.iter().zip(input).take_while(|(a, b)| a == b).count();
    assert!(
        output == input,
        "{} bytes in, {} bytes out, alike up to byte {same}",
        input.len(),
        output.len()
    );
}

/// Where in `input` the whole lines of `output` begin.
fn position_in(input: &[u8], output: &[u8]) -> usize {
    let number = number_of(output);
    input.split_inclusive(|byte| *byte == b'\n').take(number).map(<[u8]>::len).sum()
}

#[test]
fn a_fast_consumer_gets_the_input() {
    let place = Place::new();
    let input = numbered_lines(24 << 20);
    let mut pipe = start(&place);
    let feeder = feed(pipe.stdin.take().unwrap(), input.clone());
    let mut stdout = pipe.stdout.take().unwrap();
    let mut output = vec![0; input.len() - 1];
    stdout.read_exact(&mut output).unwrap();
    // Before the last byte is taken, the process is still there to be asked.
    let memory = memory_max(&pipe);
    stdout.read_to_end(&mut output).unwrap();
    feeder.join().unwrap();
    assert!(pipe.wait_with_output().unwrap().status.success());
    assert_same(&output, &input);
    assert!(memory < RING + (48 << 20), "{memory} bytes of memory for a ring of {RING}");
    assert_eq!(succeed(&["pipe", &place.log], b""), b"", "something was left behind");
}

#[test]
fn a_slow_consumer_gets_the_input_in_bounded_memory() {
    let place = Place::new();
    let input = numbered_lines(20 << 20);
    let mut pipe = start(&place);
    let feeder = feed(pipe.stdin.take().unwrap(), input.clone());
    let mut stdout = pipe.stdout.take().unwrap();
    let mut output = Vec::new();
    let mut memory = 0;
    let mut chunk = vec![0; 64 << 10];
    for round in 0.. {
        let len = stdout.read(&mut chunk).unwrap();
        if len == 0 {
            break;
        }
        output.extend_from_slice(&chunk[..len]);
        thread::sleep(Duration::from_millis(2));
        if round % 16 == 0 && output.len() < input.len() {
            memory = memory_max(&pipe);
        }
    }
    feeder.join().unwrap();
    assert!(pipe.wait_with_output().unwrap().status.success());
    assert_same(&output, &input);
    assert!(memory < RING + (48 << 20), "{memory} bytes of memory for a ring of {RING}");
}

#[test]
fn odd_input_comes_out_as_it_went_in() {
    let mut long = b"short\r\n\r\n\n\n".to_vec();
    long.resize(long.len() + 300_000, b'x');
    long.extend_from_slice(b"\n\0\0\n\xff\n");
    long.resize(long.len() + 1_000_000, b'y');
    let inputs: [&[u8]; 7] = [b"", b"\n", b"no newline", b"\0", b"\r\n\r", b"a\n\nb", &long];
    let place = Place::new();
    for input in inputs {
        let args = ["pipe", &place.log, "--size", "1MiB", "--segment-size", "64KiB"];
        assert_same(&succeed(&args, input), input);
    }
}

#[test]
fn a_line_comes_out_while_the_input_pauses() {
    let place = Place::new();
    let mut pipe = start(&place);
    let mut stdin = pipe.stdin.take().unwrap();
    let mut stdout = pipe.stdout.take().unwrap();
    let mut take = |expected: &[u8]| {
        let mut output = vec![0; expected.len()];
        stdout.read_exact(&mut output).unwrap();
        assert_eq!(output, expected);
    };
    stdin.write_all(b"one\n").unwrap();
    take(b"one\n");
    stdin.write_all(b"two\nthr").unwrap();
    take(b"two\n");
    let started = Instant::now();
    stdin.write_all(b"ee\n").unwrap();
    take(b"three\n");
    assert!(started.elapsed() < Duration::from_secs(5));
    stdin.write_all(b"rest").unwrap();
    drop(stdin);
    take(b"rest");
    assert!(pipe.wait_with_output().unwrap().status.success());
}

/// The log holds all of the first half when the kill comes, so nothing of it may be missing.
#[test]
fn after_a_kill_the_next_run_delivers_the_rest() {
    let place = Place::new();
    let input = numbered_lines(12 << 20);
    let half = (2 << 20) + input[2 << 20..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut pipe = start(&place);
    let mut stdin = pipe.stdin.take().unwrap();
    let mut stdout = pipe.stdout.take().unwrap();
    let first_half = input[..half].to_vec();
    let feeder = thread::spawn(move || {
        stdin.write_all(&first_half).unwrap();
        stdin
    });
    let mut output = vec![0; 700_000];
    stdout.read_exact(&mut output).unwrap();
    let stdin = feeder.join().unwrap();
    let last_line = input[..half].split_inclusive(|byte| *byte == b'\n').next_back().unwrap();
    common::wait_until("the first half is in the log", || {
        succeed(&["tail", &place.log, "-n", "1"], b"") == last_line
    });
    pipe.kill().unwrap();
    pipe.wait().unwrap();
    drop(stdin);
    stdout.read_to_end(&mut output).unwrap();
    assert_same(&output, &input[..output.len()]);
    assert!(output.len() < half, "the kill came too late to prove anything");

    let rest = succeed(&["pipe", &place.log], &input[half..]);
    let start = input.len() - rest.len();
    assert!(start <= output.len(), "bytes {} to {start} are missing", output.len());
    assert_same(&rest, &input[start..]);
}

/// Killed at any moment: what the two runs deliver is one piece of the input, without a gap.
#[test]
fn a_kill_at_any_moment_leaves_no_gap() {
    let input = numbered_lines(16 << 20);
    for round in 0..6 {
        let place = Place::with_log("4MiB", "256KiB");
        let mut pipe = start(&place);
        let feeder = feed(pipe.stdin.take().unwrap(), input.clone());
        let output = collect(pipe.stdout.take().unwrap());
        thread::sleep(Duration::from_millis(10 + 25 * round));
        pipe.kill().unwrap();
        pipe.wait().unwrap();
        feeder.join().unwrap();
        let output = output.join().unwrap();
        assert_same(&output, &input[..output.len()]);

        let rest = succeed(&["pipe", &place.log], b"");
        if !rest.is_empty() {
            let start = position_in(&input, &rest);
            assert!(start <= output.len(), "round {round}: a gap of {}", start - output.len());
            assert!(start + rest.len() >= output.len(), "round {round}: the log is behind");
            assert_same(&rest, &input[start..start + rest.len()]);
        }
        assert_eq!(succeed(&["pipe", &place.log], b""), b"", "round {round}: delivered again");
    }
}

fn take_some_and_leave(pipe: &mut Child, len: usize) -> Vec<u8> {
    let mut stdout: ChildStdout = pipe.stdout.take().unwrap();
    let mut output = vec![0; len];
    stdout.read_exact(&mut output).unwrap();
    output
}

#[test]
fn a_consumer_that_leaves_early_loses_nothing() {
    let place = Place::new();
    let input = numbered_lines(2 << 20);
    let mut pipe = start(&place);
    let feeder = feed(pipe.stdin.take().unwrap(), input.clone());
    let output = take_some_and_leave(&mut pipe, 300_000);
    feeder.join().unwrap();
    let ended = pipe.wait_with_output().unwrap();
    let words = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{words}");
    assert!(words.contains("standard output was closed"), "{words}");
    let rest = succeed(&["pipe", &place.log], b"");
    // The feeder may have been stopped before it had read everything, but what it took is there.
    let start = position_in(&input, &rest);
    assert!(start <= output.len(), "bytes {} to {start} are missing", output.len());
    assert_same(&rest, &input[start..start + rest.len()]);
}

#[test]
fn a_consumer_that_leaves_a_quiet_pipe_ends_it() {
    let place = Place::new();
    let mut pipe = start(&place);
    let mut stdin = pipe.stdin.take().unwrap();
    stdin.write_all(b"taken\nunfinished").unwrap();
    let output = take_some_and_leave(&mut pipe, 6);
    assert_eq!(output, b"taken\n");
    let ended = pipe.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    drop(stdin);
    // The reader may be gone before the first line's checkpoint: then that line comes again.
    let rest = succeed(&["pipe", &place.log], b"");
    assert!([&b"unfinished"[..], b"taken\nunfinished"].contains(&&rest[..]), "{rest:?}");
}

#[test]
fn what_was_ingested_is_delivered() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"from before");
    let output = run(&["pipe", &place.log], b"from now\n");
    assert!(output.status.success());
    assert_eq!(output.stdout, b"from beforefrom now\n");
    let words = fail(&["pipe", "/dev/null"], b"", 1);
    assert!(words.contains("/dev/null"), "{words}");
}
