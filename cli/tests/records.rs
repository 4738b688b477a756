//! Lines in, the same lines out: `create`, `ingest`, `cat` and `tail` without `--follow`.

mod common;

use common::{Place, fail, number_of, numbered_lines, run, spawn, succeed};
use std::io::Read;

/// Lines that are easily lost or changed.
const ODD_LINES: &[u8] =
    b"first\n\n\n\r\nwith CR\r\nNUL \0 inside\n\xc3\xa4\xf0\x9f\xa6\x80 UTF-8\n\
    \xff\xfe not UTF-8\n \nlast";

#[test]
fn odd_lines_come_back_as_they_were() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log, "-"], ODD_LINES);
    let mut expected = ODD_LINES.to_vec();
    expected.push(b'\n');
    assert_eq!(succeed(&["cat", &place.log], b""), expected);
}

#[test]
fn odd_lines_survive_several_producers() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log, "-", "--producers", "3"], ODD_LINES);
    let output = succeed(&["cat", &place.log], b"");
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> =
            bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(output.strip_suffix(b"\n").unwrap()), sorted(ODD_LINES));
}

#[test]
fn every_sync_policy_keeps_every_line() {
    let input = numbered_lines(20_000);
    for sync in ["each", "group", "end", "none"] {
        let place = Place::with_small_log();
        let report = succeed(&["ingest", &place.log, "--sync", sync], &input);
        let report = String::from_utf8(report).unwrap();
        let count = input.iter().filter(|byte| **byte == b'\n').count();
        assert!(report.replace(',', "").contains(&format!("{count} records")), "{report}");
        for name in ["appended", "first LSN", "last LSN", "durable up to LSN", "took"] {
            assert!(report.contains(name), "{name} is missing: {report}");
        }
        assert_eq!(succeed(&["cat", &place.log], b""), input, "--sync {sync}");
    }
}

#[test]
fn a_file_is_ingested_and_a_second_one_is_appended() {
    let place = Place::with_small_log();
    let file = place.dir.path().join("input");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    let file = file.to_str().unwrap();
    succeed(&["ingest", &place.log, file], b"");
    succeed(&["ingest", &place.log, file], b"");
    succeed(&["ingest", &place.log, "-"], b"three");
    assert_eq!(succeed(&["cat", &place.log], b""), b"one\ntwo\none\ntwo\nthree\n");
}

#[test]
fn an_empty_input_appends_nothing() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"");
    assert_eq!(succeed(&["cat", &place.log], b""), b"");
    assert_eq!(succeed(&["tail", &place.log], b""), b"");
}

/// Four producers mix their lines, but each keeps its order. So the numbers in the log must split
/// into four increasing sequences, which is to say that no decreasing one is longer than four.
#[test]
fn four_producers_lose_nothing_and_each_keeps_its_order() {
    let input = numbered_lines(5 << 20);
    let place = Place::with_log("16MiB", "1MiB");
    succeed(&["ingest", &place.log, "--producers", "4"], &input);
    let output = succeed(&["cat", &place.log], b"");
    let lines: Vec<&[u8]> = output.split_inclusive(|byte| *byte == b'\n').collect();
    // `tops` holds the last number of each increasing sequence, the largest first.
    let mut tops: Vec<usize> = Vec::new();
    for number in lines.iter().map(|line| number_of(line)) {
        match tops.iter().position(|top| *top < number) {
            Some(sequence) => tops[sequence] = number,
            None => tops.push(number),
        }
    }
    assert!(tops.len() <= 4, "the log needs {} sequences", tops.len());
    let mut sorted = lines;
    sorted.sort_by_key(|line| number_of(line));
    assert!(sorted.concat() == input, "the log does not hold the lines of the input");
}

#[test]
fn json_says_what_and_where() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"plain\n\nquote \" and \xc3\xa4\n\xff\x00\n");
    let output = succeed(&["cat", &place.log, "--json"], b"");
    let records: Vec<serde_json::Value> = output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let field = |name: &str| records.iter().map(|record| record[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("len"), [5, 0, 14, 2]);
    assert_eq!(field("stream"), [0, 0, 0, 0]);
    assert_eq!(records[0]["text"], "plain");
    assert_eq!(records[1]["text"], "");
    assert_eq!(records[2]["text"], "quote \" and \u{e4}");
    assert_eq!(records[3]["base64"], "/wA=");
    assert!(records[3].get("text").is_none());
    let lsns: Vec<u64> = field("lsn").iter().map(|lsn| lsn.as_u64().unwrap()).collect();
    assert!(lsns.is_sorted_by(|a, b| a < b), "{lsns:?}");

    let third = lsns[2].to_string();
    let rest = succeed(&["cat", &place.log, "--from", &third], b"");
    assert_eq!(rest, b"quote \" and \xc3\xa4\n\xff\x00\n");
    let rest = succeed(&["tail", &place.log, "--from", &third, "--json"], b"");
    assert_eq!(rest.iter().filter(|byte| **byte == b'\n').count(), 2);
    let inside = (lsns[2] + 16).to_string();
    let words = fail(&["cat", &place.log, "--from", &inside], b"", 1);
    assert!(words.contains(&inside), "{words}");
}

#[test]
fn tail_prints_the_newest() {
    let place = Place::with_small_log();
    let input: String = (1..=25).map(|number| format!("{number}\n")).collect();
    succeed(&["ingest", &place.log], input.as_bytes());
    let lines = |from: u32| (from..=25).map(|number| format!("{number}\n")).collect::<String>();
    assert_eq!(succeed(&["tail", &place.log], b""), lines(16).as_bytes());
    assert_eq!(succeed(&["tail", &place.log, "-n", "3"], b""), lines(23).as_bytes());
    assert_eq!(succeed(&["tail", &place.log, "-n", "0"], b""), b"");
    assert_eq!(succeed(&["tail", &place.log, "--lines", "99"], b""), lines(1).as_bytes());
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], &numbered_lines(2 << 20));
    let mut child = spawn(&["cat", &place.log]);
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn create_refuses_a_log_that_is_there() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"precious\n");
    let words = fail(&["create", &place.log], b"", 1);
    assert!(words.contains("holds a log already"), "{words}");
    assert_eq!(succeed(&["cat", &place.log], b""), b"precious\n");
}

#[test]
fn a_log_with_a_writer_is_read_but_not_written() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"before\n");
    let mut writer = spawn(&["ingest", &place.log]);
    common::wait_until("the writer has the log open", || {
        let stat = succeed(&["stat", &place.log, "--json"], b"");
        let stat: serde_json::Value = serde_json::from_slice(&stat).unwrap();
        stat["writer"] == writer.id()
    });
    assert_eq!(succeed(&["cat", &place.log], b""), b"before\n");
    let words = fail(&["ingest", &place.log], b"x\n", 1);
    assert!(words.contains("already open for writing"), "{words}");
    drop(writer.stdin.take());
    assert!(writer.wait_with_output().unwrap().status.success());
    assert!(run(&["ingest", &place.log], b"after\n").status.success());
}
