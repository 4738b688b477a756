//! Rows sorted into streams, and streams read by their names.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Place, fail, run, sample, spawn, succeed, wait_until};
use serde_json::Value;

const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,\
    arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour\n";

/// The objects that a command with `--json` prints, one a line.
fn objects(output: &[u8]) -> Vec<Value> {
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn streams(place: &Place) -> Vec<Value> {
    serde_json::from_slice(&succeed(&["streams", &place.log, "--json"], b"")).unwrap()
}

/// The rows of each tail number, in the order of the input.
fn rows_by_tail_number(rows: &str) -> BTreeMap<&str, String> {
    let mut by_tail_number: BTreeMap<&str, String> = BTreeMap::new();
    for row in rows.split_inclusive('\n') {
        let tail_number = row.split(',').nth(11).unwrap();
        by_tail_number.entry(tail_number).or_default().push_str(row);
    }
    by_tail_number
}

/// How many additions the catalog took: each is synced on its own.
fn additions(log: &str) -> usize {
    let bytes = std::fs::read(Path::new(log).join("streams.a")).unwrap();
    let (mut at, mut additions) = (64, 0);
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        additions += usize::from(bytes[at + 14] & 1);
        at += len.next_multiple_of(8);
    }
    additions
}

#[test]
fn each_flight_is_in_the_stream_of_its_tail_number_in_the_order_of_the_input() {
    let place = Place::with_small_log();
    let rows = sample();
    let file = place.dir.path().join("flights.csv");
    std::fs::write(&file, [HEADER, &rows].concat()).unwrap();
    let args = ["ingest", &place.log, file.to_str().unwrap(), "--stream-by", "tailnum"];
    let report = String::from_utf8(succeed(&args, b"")).unwrap();
    assert!(report.contains("20,000 records"), "{report}");
    assert!(report.contains("3,004 in the log, 3,004 new"), "{report}");
    // A block of the input is 128 KiB.
    assert!(additions(&place.log) <= rows.len() / (128 << 10) + 2);

    // All streams, by a walk over the log and by the list.
    let want = rows_by_tail_number(&rows);
    let listed = streams(&place);
    assert_eq!(listed.len(), want.len());
    let mut found: BTreeMap<u64, String> = BTreeMap::new();
    for entry in objects(&succeed(&["cat", &place.log, "--json"], b"")) {
        let rows = found.entry(entry["stream"].as_u64().unwrap()).or_default();
        rows.push_str(entry["text"].as_str().unwrap());
        rows.push('\n');
    }
    for stream in &listed {
        let want = &want[stream["name"].as_str().unwrap()];
        let id = stream["id"].as_u64().unwrap();
        assert_eq!(&found[&id], want, "{stream}");
        assert_eq!(stream["entries"], want.lines().count(), "{stream}");
        assert_eq!(stream["bytes"], want.len() - want.lines().count(), "{stream}");
        assert!(stream["first_lsn"].as_u64() <= stream["last_lsn"].as_u64(), "{stream}");
    }
    // Some of them, by their names.
    for (name, want) in want.iter().step_by(20).chain(want.get_key_value("NA")) {
        let output = succeed(&["cat", &place.log, "--stream", name], b"");
        assert_eq!(String::from_utf8(output).unwrap(), *want, "{name}");
    }

    // What is there already is not created again.
    let before = additions(&place.log);
    let report = String::from_utf8(succeed(&args, b"")).unwrap();
    assert!(report.contains("3,004 in the log, 0 new"), "{report}");
    assert_eq!(additions(&place.log), before);
    let twice = ["cat", &place.log, "--stream", "N14228"];
    assert_eq!(succeed(&twice, b""), want["N14228"].repeat(2).as_bytes());
}

#[test]
fn several_producers_lose_no_row_and_put_none_into_another_stream() {
    let place = Place::with_small_log();
    let rows = sample();
    let args = ["ingest", &place.log, "--stream-by", "tailnum", "--producers", "4"];
    succeed(&args, [HEADER, &rows].concat().as_bytes());
    let names: BTreeMap<u64, String> = streams(&place)
        .iter()
        .map(|stream| (stream["id"].as_u64().unwrap(), stream["name"].as_str().unwrap().to_owned()))
        .collect();
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in objects(&succeed(&["cat", &place.log, "--json"], b"")) {
        let name = &names[&entry["stream"].as_u64().unwrap()];
        found.entry(name).or_default().push(entry["text"].as_str().unwrap().to_owned());
    }
    let want = rows_by_tail_number(&rows);
    assert!(found.keys().eq(want.keys()));
    for (name, mut rows) in found {
        rows.sort();
        let mut want: Vec<_> = want[name].lines().collect();
        want.sort_unstable();
        assert_eq!(rows, want, "{name}");
    }
}

#[test]
fn quoted_rows_are_kept_byte_for_byte_and_sorted_by_what_they_mean() {
    let place = Place::with_small_log();
    let rows: [(&str, &str); 7] = [
        ("plain", "1,plain,x\n"),
        ("a,b", "2,\"a,b\",x\n"),
        ("say \"a\"", "3,\"say \"\"a\"\"\",x\r\n"),
        ("two\nlines", "4,\"two\nlines\",x\n"),
        ("plain", "5,\"plain\",\"x\ny\"\n"),
        ("", "6,,x\n"),
        ("plain", "7,plain,x"),
    ];
    let input: String = rows.iter().map(|(_, row)| *row).collect();
    let input = format!("number,\"the, name\",other\n\n{input}");
    let args = ["ingest", &place.log, "--stream-by", "the, name", "--sync", "each"];
    let report = String::from_utf8(succeed(&args, input.as_bytes())).unwrap();
    assert!(report.contains("7 records") && report.contains("4 in the log, 4 new"), "{report}");
    let unnamed = report.lines().find(|line| line.contains("of no stream")).unwrap();
    assert!(unnamed.ends_with("1 record"), "{report}");
    for name in ["plain", "a,b", "say \"a\"", "two\nlines"] {
        let want: String = rows.iter().filter(|(of, _)| *of == name).map(|(_, row)| *row).collect();
        let output = succeed(&["cat", &place.log, "--stream", name], b"");
        assert_eq!(String::from_utf8(output).unwrap().trim_end(), want.trim_end(), "{name:?}");
    }
    let listed = streams(&place);
    assert_eq!((&listed[0]["id"], &listed[0]["name"]), (&0.into(), &Value::Null));
    assert_eq!(listed[0]["entries"], 1);
    assert_eq!(listed[1]["name"], "plain");
    assert_eq!(listed[4]["name"], "two\nlines");
    let text = String::from_utf8(succeed(&["streams", &place.log], b"")).unwrap();
    assert!(text.contains("(no stream)") && text.contains(r"two\nlines"), "{text}");
}

#[test]
fn a_row_that_names_no_stream_is_named_and_those_before_it_are_in_the_log() {
    let long = format!("3,{}\n", "x".repeat(256));
    let cases: [(&[u8], &str); 4] = [
        (b"3\n", "the row has 1 field, and the column \"name\" is number 2"),
        (b"3,\xff\n", "not UTF-8"),
        (long.as_bytes(), "256 bytes"),
        (b"3,\"x\n4,y\n", "a quote opens"),
    ];
    for (row, expected) in cases {
        let place = Place::with_small_log();
        // The second row takes two lines.
        let input = [&b"number,name\n1,a\n\"2\n\",b\n"[..], row, b"9,c\n"].concat();
        let words = fail(&["ingest", &place.log, "--stream-by", "name"], &input, 1);
        assert!(words.contains("line 5 could not be appended"), "{words}");
        assert!(words.contains("2 rows are in the log"), "{words}");
        assert!(words.contains(expected), "{expected}: {words}");
        assert_eq!(succeed(&["cat", &place.log], b""), b"1,a\n\"2\n\",b\n");
    }
}

#[test]
fn a_column_that_is_not_there_leaves_no_log_behind() {
    let place = Place::new();
    for (input, expected) in [
        (&b"a,b\n1,2\n"[..], "no column \"c\"; it names a, b"),
        (b"", "the input is empty"),
        (b"c,c\n1,2\n", "more than one column"),
    ] {
        let words = fail(&["ingest", &place.log, "--stream-by", "c"], input, 1);
        assert!(words.contains(expected), "{words}");
    }
    assert!(!Path::new(&place.log).exists());
}

#[test]
fn a_full_ring_stops_rows_as_it_stops_lines() {
    let rows = [HEADER, &sample()].concat();
    for policy in ["fail", "wait"] {
        let place = Place::with_log("1MiB", "64KiB");
        let args = ["ingest", &place.log, "--stream-by", "origin", "--on-full", policy];
        let words = fail(&args, rows.as_bytes(), 1);
        assert!(words.contains("the log is full") && words.contains("does not fit"), "{words}");
        let output = succeed(&["cat", &place.log], b"");
        assert!(output.len() > 400 << 10, "only {} bytes fitted", output.len());
        assert!(rows.as_bytes()[HEADER.len()..].starts_with(&output));
    }
}

/// Streams a and b, with six records in turn; their LSNs.
fn two_streams(place: &Place) -> Vec<u64> {
    let input = b"n,s\n1,a\n2,b\n3,a\n4,b\n5,a\n6,b\n";
    succeed(&["ingest", &place.log, "--stream-by", "s"], input);
    let entries = objects(&succeed(&["cat", &place.log, "--json"], b""));
    entries.iter().map(|entry| entry["lsn"].as_u64().unwrap()).collect()
}

#[test]
fn streams_are_shown_by_name_alone_or_together() {
    let place = Place::with_small_log();
    two_streams(&place);
    succeed(&["ingest", &place.log], b"of no stream\n");
    let cat = |args: &[&str]| succeed(&[&["cat", &place.log], args].concat(), b"");
    assert_eq!(cat(&["--stream", "b"]), b"2,b\n4,b\n6,b\n");
    let both = cat(&["--stream", "b", "--stream", "a"]);
    assert_eq!(both, b"1,a\n2,b\n3,a\n4,b\n5,a\n6,b\n");
    let tail = |args: &[&str]| succeed(&[&["tail", &place.log], args].concat(), b"");
    assert_eq!(tail(&["--stream", "a", "-n", "2"]), b"3,a\n5,a\n");
    assert_eq!(tail(&["--stream", "a"]), b"1,a\n3,a\n5,a\n");
    assert_eq!(tail(&["-n", "1"]), b"of no stream\n");
    for command in ["cat", "tail"] {
        let words = fail(&[command, &place.log, "--stream", "c"], b"", 1);
        assert!(
            words.contains("no stream \"c\"") && words.contains("kaelix-wal streams"),
            "{words}"
        );
    }
    // A log without streams.
    let place = Place::with_small_log();
    let words = fail(&["cat", &place.log, "--stream", "a"], b"", 1);
    assert!(words.contains("no stream \"a\""), "{words}");
    assert_eq!(succeed(&["streams", &place.log], b""), b"no streams, and no records\n");
    assert!(streams(&place).is_empty());
}

#[test]
fn since_takes_any_position() {
    let place = Place::with_small_log();
    let lsns = two_streams(&place);
    let since = |lsn: u64, stream: &str| {
        let lsn = lsn.to_string();
        succeed(&["cat", &place.log, "--since", &lsn, "--stream", stream], b"")
    };
    assert_eq!(since(0, "a"), b"1,a\n3,a\n5,a\n");
    assert_eq!(since(lsns[2], "a"), b"3,a\n5,a\n");
    assert_eq!(since(lsns[2] + 1, "a"), b"5,a\n");
    assert_eq!(since(lsns[4] - 1, "b"), b"6,b\n");
    assert_eq!(since(lsns[5] + 1, "b"), b"");
    assert_eq!(since(1 << 40, "b"), b"");
    for time in ["1h", "2h 30m", "2020-01-31T12:00:00Z", "2020-01-31 12:00:00"] {
        let output = succeed(&["cat", &place.log, "--since", time, "--stream", "a"], b"");
        assert_eq!(output, b"1,a\n3,a\n5,a\n", "{time}");
    }
    let words = fail(&["cat", &place.log, "--since", "yesterday"], b"", 2);
    assert!(words.contains("how long ago"), "{words}");
    let both = run(&["cat", &place.log, "--since", "64", "--from", "64"], b"");
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn streams_are_listed_while_a_writer_is_open() {
    let place = Place::with_small_log();
    two_streams(&place);
    let mut writer = spawn(&["ingest", &place.log, "--stream-by", "s", "--sync", "group"]);
    let mut stdin = writer.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"n,s\n7,a\n8,c\n").unwrap();
    wait_until("the writer's stream is listed", || {
        let listed = streams(&place);
        listed.len() == 3 && listed[2]["entries"] == 1
    });
    let listed = streams(&place);
    assert_eq!((&listed[2]["name"], &listed[2]["id"]), (&"c".into(), &3.into()));
    assert_eq!(listed[0]["entries"], 4);
    assert_eq!(succeed(&["cat", &place.log, "--stream", "c"], b""), b"8,c\n");
    drop(stdin);
    assert!(writer.wait_with_output().unwrap().status.success());
}

#[test]
fn a_stream_that_the_catalog_does_not_have_is_shown_by_its_number() {
    let place = Place::with_small_log();
    two_streams(&place);
    for file in ["streams.a", "streams.b"] {
        std::fs::remove_file(Path::new(&place.log).join(file)).unwrap();
    }
    let listed = streams(&place);
    let shown = |stream: &Value| (stream["id"].as_u64(), stream["name"].clone());
    let want = [(Some(1), Value::Null), (Some(2), Value::Null)];
    assert_eq!(listed.iter().map(shown).collect::<Vec<_>>(), want);
    let text = String::from_utf8(succeed(&["streams", &place.log], b"")).unwrap();
    assert!(text.contains("(not in the catalog)"), "{text}");
    assert!(!Path::new(&place.log).join("streams.a").exists(), "looking creates nothing");
}
