//! `export` and `import`: between logs, and to other tools and back.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{Place, fail, numbered_lines, spawn, succeed, tool};
use kaelix_wal::{Batch, Options, Position, ProducerId, Wal};
use serde_json::Value;

/// A log with a record of every shape.
fn varied() -> Place {
    let place = Place::with_small_log();
    let wal = Wal::open(&place.log, Options::new()).unwrap();
    let plain = wal.stream("plain").unwrap();
    let versioned = wal.versioned_stream("prix-en-€").unwrap();
    wal.append(b"of no stream").unwrap();
    wal.append(b"\xff\xfe not UTF-8").unwrap();
    wal.append("\u{0}\"\\\u{7f}\n\u{2028}".as_bytes()).unwrap();
    wal.append(b"").unwrap();
    plain.append(b"apples").unwrap();
    let mut transaction = wal.begin();
    transaction.expect(&versioned, None).unwrap();
    transaction.append(&versioned, b"-10").unwrap();
    transaction.append(&plain, b"+10").unwrap();
    transaction.commit().unwrap();
    wal.append_batch(["a batch of one"]).unwrap();
    let producer = wal.idempotent(ProducerId::new(7)).unwrap();
    producer.append(3, b"stamped").unwrap();
    producer.append(5, (plain.id(), b"stamped, of a stream")).unwrap();
    producer.append_batch(9, Batch::from_iter([b"one", b"two"]).iter()).unwrap();
    wal.close().unwrap();
    place
}

/// What the records say, but for where they are.
fn records(log: &str) -> Vec<Value> {
    let export = succeed(&["export", log], b"");
    let lines = export.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert!(lines.remove(0)["log_id"].is_string());
    let end = lines.pop().unwrap();
    assert_eq!((&end["end"], &end["records"]), (&Value::from(true), &Value::from(lines.len())));
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        assert!(line.remove("lsn").is_some() && line.remove("epoch").is_some());
    }
    lines
}

#[test]
fn a_copy_has_the_same_records_in_either_form() {
    let from = varied();
    for format in ["json", "binary"] {
        let to = Place::new();
        let export = succeed(&["export", &from.log, "--format", format], b"");
        let size = ["--size", "8MiB", "--segment-size", "1MiB"];
        let report = succeed(&[&["import", &to.log][..], &size].concat(), &export);
        assert!(String::from_utf8(report).unwrap().contains("10 records"), "{format}");
        assert_eq!(records(&to.log), records(&from.log), "{format}");

        let wal = Wal::open(&to.log, Options::new()).unwrap();
        let mut reader = wal.reader(Position::Oldest).unwrap();
        let mut entries = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            entries.push(record.entries().count());
        }
        assert_eq!(entries, [1, 1, 1, 1, 1, 2, 1, 1, 1, 2], "{format}: batches are records");
        assert!(wal.versioned_stream("prix-en-€").unwrap().is_versioned());
        // The stamps came along: the next append of the producer is known.
        let producer = wal.idempotent(ProducerId::new(7)).unwrap();
        assert_eq!(producer.last_sequence(), Some(9));
    }
}

#[test]
fn a_log_is_piped_into_another() {
    let (from, to) = (Place::with_small_log(), Place::with_small_log());
    let input = numbered_lines(3 << 20);
    succeed(&["ingest", &from.log, "--sync", "none"], &input);
    for format in ["json", "binary"] {
        let mut export = tool(&["export", &from.log, "--format", format])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let import = tool(&["import", &to.log, "--overwrite"])
            .stdin(export.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(export.wait().unwrap().success());
        assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
        let copy = succeed(&["cat", &to.log], b"");
        assert!(copy.ends_with(&input), "{format}");
    }
}

#[test]
fn an_import_that_is_run_again_appends_what_is_missing() {
    let (from, to) = (varied(), Place::with_small_log());
    let export = succeed(&["export", &from.log], b"");
    let lines: Vec<&[u8]> = export.split_inclusive(|byte| *byte == b'\n').collect();

    // It breaks off within a line, and then behind one.
    let cut = [&lines[..4].concat(), &lines[4][..9]].concat();
    let words = fail(&["import", &to.log, "--once"], &cut, 1);
    assert!(words.contains("line 5"), "{words}");
    let words = fail(&["import", &to.log, "--once"], &lines[..6].concat(), 1);
    assert!(words.contains("breaks off"), "{words}");
    let report = String::from_utf8(succeed(&["import", &to.log, "--once"], &export)).unwrap();
    assert!(report.contains("5 records"), "{report}");
    let report = String::from_utf8(succeed(&["import", &to.log, "--once"], &export)).unwrap();
    assert!(report.contains("0 records") && report.contains("10"), "{report}");

    // What a producer has appended is taken once anyway; the rest comes again.
    let report = String::from_utf8(succeed(&["import", &to.log], &export)).unwrap();
    assert!(report.contains("7 records"), "{report}");
}

#[test]
fn what_was_imported_and_released_is_not_taken_for_missing() {
    let (from, to) = (Place::with_small_log(), Place::with_log("256KiB", "64KiB"));
    let input = numbered_lines(400_000);
    succeed(&["ingest", &from.log], &input);
    let export = succeed(&["export", &from.log, "--format", "binary"], b"");
    succeed(&["import", &to.log, "--once", "--overwrite"], &export);
    let kept = succeed(&["cat", &to.log], b"");
    let words = fail(&["import", &to.log, "--once", "--overwrite"], &export, 1);
    assert!(words.contains("it was imported and released since"), "{words}");
    assert_eq!(succeed(&["cat", &to.log], b""), kept);
}

#[test]
fn lines_that_were_written_by_hand_are_imported() {
    let place = Place::with_small_log();
    let lines = b"{\"text\":\"one\"}\n{\"stream\":\"s\",\"text\":\"two\",\"more\":[1]}\n";
    succeed(&["import", &place.log, "-"], lines);
    assert_eq!(succeed(&["cat", &place.log, "--stream", "s"], b""), b"two\n");
    let words = fail(&["import", &place.log, "--once"], lines, 1);
    assert!(words.contains("--once needs an export"), "{words}");
    let words = fail(&["import", &place.log], b"{\"text\":\"three\"}\nnonsense\n", 1);
    assert!(words.contains("line 2"), "{words}");
    assert_eq!(succeed(&["cat", &place.log], b""), b"one\ntwo\nthree\n");
}

#[test]
fn a_selection_is_exported_with_whole_batches_of_it() {
    let place = varied();
    let export = succeed(&["export", &place.log, "--stream", "plain"], b"");
    let text = String::from_utf8(export).unwrap();
    assert_eq!(text.lines().count(), 2 + 3, "{text}");
    let batch: Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
    assert_eq!(batch["entries"].as_array().unwrap().len(), 1, "{text}");
    let words = fail(&["export", &place.log, "--stream", "nowhere"], b"", 1);
    assert!(words.contains("no stream \"nowhere\""), "{words}");

    let lsn = batch["lsn"].to_string();
    let from = succeed(&["export", &place.log, "--from", &lsn], b"");
    assert_eq!(String::from_utf8(from).unwrap().lines().count(), 2 + 5);
    let inside = (lsn.parse::<u64>().unwrap() - 15).to_string();
    let since = succeed(&["export", &place.log, "--since", &inside], b"");
    assert_eq!(String::from_utf8(since).unwrap().lines().count(), 2 + 5);
}

#[test]
fn an_export_that_is_overtaken_fails_and_has_no_end() {
    let place = Place::with_log("1MiB", "64KiB");
    succeed(&["ingest", &place.log], &numbered_lines(800_000));
    // Nobody takes the export's output for a while, so the writer laps it.
    let mut export = spawn(&["export", &place.log]);
    let mut stdout = export.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    succeed(&["ingest", &place.log, "--on-full", "overwrite"], &numbered_lines(4 << 20));
    let stdout = common::collect(stdout);
    let stderr = common::collect(export.stderr.take().unwrap());
    assert_eq!(export.wait().unwrap().code(), Some(1));
    let words = String::from_utf8(stderr.join().unwrap()).unwrap();
    assert!(words.contains("the export breaks off at LSN"), "{words}");
    let cut = [first.to_vec(), stdout.join().unwrap()].concat();
    let copy = Place::with_log("2MiB", "64KiB");
    let words = fail(&["import", &copy.log], &cut, 1);
    assert!(words.contains("breaks off") || words.contains("not a record"), "{words}");
}
