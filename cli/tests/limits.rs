//! What the tool refuses, and how it says so.

mod common;

use std::time::{Duration, Instant};

use common::{Place, fail, numbered_lines, run, succeed};

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn wrong_usage_is_status_2() {
    let wrong: [&[&str]; 10] = [
        &[],
        &["no-such-command"],
        &["create"],
        &["create", "x", "--size", "many"],
        &["create", "x", "--size", "100"],
        &["create", "x", "--size", "1MiB", "--segment-size", "1000"],
        &["ingest", "x", "--producers", "0"],
        &["ingest", "x", "--sync", "sometimes"],
        &["cat", "x", "--from", "here"],
        &["tail", "x", "--from", "64", "-n", "3"],
    ];
    for args in wrong {
        let output = run(args, b"");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert!(!std::path::Path::new("x").exists());
}

#[test]
fn help_and_version_are_status_0() {
    let commands = ["create", "ingest", "cat", "tail", "pipe", "stat", "streams", "demo"];
    let help = String::from_utf8(succeed(&["--help"], b"")).unwrap();
    for command in commands {
        assert!(help.contains(command));
        assert!(!succeed(&[command, "--help"], b"").is_empty());
    }
    assert!(!help.contains("demo-writer"));
    let version = String::from_utf8(succeed(&["--version"], b"")).unwrap();
    assert_eq!(version.trim(), concat!("kaelix-wal ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_missing_log_is_named() {
    let place = Place::new();
    for command in ["cat", "tail", "stat", "streams"] {
        let words = fail(&[command, &place.log], b"", 1);
        assert!(words.contains(&place.log) && words.contains("no log"), "{words}");
    }
    assert!(!std::path::Path::new(&place.log).exists());
}

#[test]
fn a_missing_input_leaves_no_log_behind() {
    let place = Place::new();
    let words = fail(&["ingest", &place.log, "/no/such/file"], b"", 1);
    assert!(words.contains("/no/such/file"), "{words}");
    assert!(!std::path::Path::new(&place.log).exists());
}

#[test]
fn an_input_that_cannot_be_read_is_reported_with_what_was_appended() {
    let place = Place::with_small_log();
    let directory = place.dir.path().to_str().unwrap().to_owned();
    let words = fail(&["ingest", &place.log, &directory], b"", 1);
    assert!(words.contains("0 lines"), "{words}");
}

#[test]
fn a_line_longer_than_the_largest_record_is_named() {
    let place = Place::with_log("1MiB", "64KiB");
    let mut input = b"one\ntwo\n".to_vec();
    input.resize(input.len() + 70_000, b'x');
    input.extend_from_slice(b"\nfour\n");
    for tail in [&b""[..], b"five\n"] {
        input.extend_from_slice(tail);
        let words = fail(&["ingest", &place.log], &input, 1);
        assert!(words.contains("line 3 is longer"), "{words}");
        assert!(words.contains("2 lines are in the log"), "{words}");
        assert!(words.contains("--segment-size"), "{words}");
    }
    assert_eq!(succeed(&["cat", &place.log], b""), b"one\ntwo\none\ntwo\n");
}

#[test]
fn the_largest_record_is_taken() {
    let place = Place::with_log("1MiB", "64KiB");
    // A segment of 64 KiB without its header, its footer page and the record's own header.
    let len_max = (64 << 10) - 64 - 4096 - 16;
    let mut input = vec![b'x'; len_max];
    succeed(&["ingest", &place.log], &input);
    input.push(b'\n');
    assert_eq!(succeed(&["cat", &place.log], b""), input);
    input.insert(0, b'x');
    let words = fail(&["ingest", &place.log], &input, 1);
    assert!(words.contains(&len_max.to_string()), "{words}");
}

#[test]
fn a_full_ring_stops_the_ingest_at_a_named_line() {
    let input = numbered_lines(3 << 20);
    for (policy, words_expected) in [("fail", "the log is full"), ("wait", "within 5 s")] {
        let place = Place::with_log("1MiB", "64KiB");
        let started = Instant::now();
        let words = fail(&["ingest", &place.log, "--on-full", policy], &input, 1);
        assert_eq!(started.elapsed() >= Duration::from_secs(5), policy == "wait", "{policy}");
        assert!(words.contains(words_expected) && words.contains("--on-full overwrite"), "{words}");
        let output = succeed(&["cat", &place.log], b"");
        let count = count_lines(&output);
        assert!(output.len() > 400 << 10, "only {} bytes fitted", output.len());
        assert!(input.starts_with(&output), "the log holds something else than the first lines");
        let line = format!("line {} does not fit", count + 1);
        let plain = words.replace(',', "");
        assert!(plain.contains(&line), "{line}: {words}");
        assert!(plain.contains(&format!("{count} lines are in the log")), "{count}: {words}");
    }
}

#[test]
fn overwrite_keeps_the_newest_and_says_what_went() {
    let input = numbered_lines(5 << 20);
    for producers in ["1", "4"] {
        let place = Place::with_log("1MiB", "64KiB");
        let args = ["ingest", &place.log, "--on-full", "overwrite", "--producers", producers];
        let report = String::from_utf8(succeed(&args, &input)).unwrap();
        assert!(report.contains(&format!("{} records", grouped(count_lines(&input)))), "{report}");
        let displaced = report.lines().find(|line| line.contains("displaced")).unwrap();
        assert!(displaced.contains("MiB of the oldest log"), "{report}");
        let output = succeed(&["cat", &place.log], b"");
        if producers == "1" {
            assert!(input.ends_with(&output), "the log holds something else than the last lines");
        }
        assert!(output.len() > 150 << 10, "only {} bytes are left", output.len());
    }
}

/// A number as the tool prints it: 12,345.
fn grouped(count: usize) -> String {
    indicatif::HumanCount(count as u64).to_string()
}

#[test]
fn a_pipe_refuses_sizes_that_the_log_does_not_have() {
    let place = Place::with_log("1MiB", "64KiB");
    let words = fail(&["pipe", &place.log, "--size", "2MiB", "--segment-size", "64KiB"], b"x\n", 1);
    assert!(words.contains("1 MiB in segments of 64 KiB"), "{words}");
    let output =
        succeed(&["pipe", &place.log, "--size", "1MiB", "--segment-size", "64KiB"], b"y\n");
    assert_eq!(output, b"y\n");
}
