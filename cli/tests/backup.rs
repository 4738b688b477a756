//! `backup` of a log that is being written, and `resize`.

mod common;

use std::io::Write;

use common::{Place, fail, numbered_lines, spawn, succeed, wait_until};

#[test]
fn a_log_that_is_being_written_is_backed_up_and_restored() {
    let place = Place::with_small_log();
    let copy = place.dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    let mut writer = spawn(&["ingest", &place.log, "--sync", "none"]);
    let mut stdin = writer.stdin.take().unwrap();
    let input = numbered_lines(1 << 20);
    stdin.write_all(&input).unwrap();
    stdin.flush().unwrap();
    wait_until("some lines are in the log", || succeed(&["cat", &place.log], b"").len() > 1000);
    let report = String::from_utf8(succeed(&["backup", &place.log, copy], b"")).unwrap();
    assert!(report.contains("each read back"), "{report}");
    let lines = succeed(&["cat", copy], b"");
    assert!(lines.len() > 1000 && input.starts_with(&lines), "a prefix");
    let words = fail(&["backup", &place.log, copy], b"", 1);
    assert!(words.contains("holds a log already"), "{words}");
    // It is a log like any other, of its own from here on.
    succeed(&["ingest", copy], b"of the copy\n");
    assert!(succeed(&["cat", copy], b"").ends_with(b"of the copy\n"));
    drop(stdin);
    assert!(writer.wait().unwrap().success());
    assert_eq!(succeed(&["cat", &place.log], b""), input);
}

#[test]
fn a_ring_is_resized_and_an_open_one_is_not() {
    let place = Place::with_log("1MiB", "64KiB");
    let input = numbered_lines(300_000);
    succeed(&["ingest", &place.log], &input);
    let said = succeed(&["resize", &place.log, "--size", "4MiB"], b"");
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("the ring has 4 MiB now, and had 1 MiB"), "{said}");
    assert_eq!(succeed(&["cat", &place.log], b""), input);
    let words = fail(&["resize", &place.log, "--size", "256KiB"], b"", 1);
    assert!(words.contains("segments are retained"), "{words}");
    fail(&["resize", &place.log, "--size", "100000"], b"", 2);
    assert_eq!(succeed(&["cat", &place.log], b""), input);
    succeed(&["trim", &place.log, "--to", "end"], b"");
    succeed(&["resize", &place.log, "--size", "256KiB"], b"");

    let mut writer = spawn(&["ingest", &place.log, "--sync", "none"]);
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    wait_until("the writer has it open", || succeed(&["cat", &place.log], b"") == b"one\n");
    let words = fail(&["resize", &place.log, "--size", "1MiB"], b"", 1);
    assert!(words.contains("already open"), "{words}");
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}
