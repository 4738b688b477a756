//! `inspect`: the ring, a segment, a record byte by byte.

mod common;

use std::os::unix::fs::FileExt;

use common::{Place, fail, numbered_lines, succeed};
use kaelix_wal::{Options, ProducerId, Wal};

fn show(args: &[&str]) -> String {
    String::from_utf8(succeed(args, b"")).unwrap()
}

#[test]
fn the_map_has_a_line_for_each_segment_in_use() {
    let place = Place::with_log("1MiB", "64KiB");
    succeed(&["ingest", &place.log], &numbered_lines(200_000));
    let map = show(&["inspect", &place.log]);
    assert!(map.contains("# sealed") && map.contains("trimmed 64"), "{map}");
    let sealed: Vec<&str> = map.lines().filter(|line| line.starts_with(" #")).collect();
    assert!(sealed.len() >= 3, "{map}");
    // Of each, the footer says how many records there are: 4 figures and more of payload.
    assert!(sealed.iter().all(|line| line.split_whitespace().count() >= 8), "{map}");
    assert!(map.contains("committed ") && map.contains("durable "), "{map}");
}

#[test]
fn a_segment_is_all_pieces_and_names_its_gaps() {
    let place = Place::with_log("1MiB", "64KiB");
    succeed(&["ingest", &place.log], &numbered_lines(100_000));
    let whole = show(&["inspect", &place.log, "--segment", "0"]);
    assert!(whole.contains("data") && whole.contains("pad"), "{whole}");
    assert!(whole.contains("epoch start") && whole.contains("of epoch 2: "), "{whole}");
    assert!(!whole.contains("gaps"), "{whole}");
    let listed = show(&["inspect", &place.log, "--segment", "0", "--records"]);
    let bytes: u64 = listed
        .lines()
        .skip_while(|line| line.split_whitespace().next() != Some("LSN"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    assert_eq!(bytes, (64 << 10) - 4096 - 64, "the pieces tile the segment");

    // A byte of the second record's payload is flipped.
    let ring = std::path::Path::new(&place.log).join("ring");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(ring).unwrap();
    file.write_all_at(b"\xee", (2 << 20) + 128 + 20).unwrap();
    let damaged = show(&["inspect", &place.log, "--segment", "0"]);
    assert!(damaged.contains("gaps") && damaged.contains("checksum mismatch"), "{damaged}");
    let record = show(&["inspect", &place.log, "--record", "128"]);
    assert!(record.contains("checksum mismatch") && record.contains("does not count"), "{record}");
}

#[test]
fn every_field_of_a_record_is_named() {
    let place = Place::with_log("1MiB", "64KiB");
    let wal = Wal::open(&place.log, Options::new()).unwrap();
    let stream = wal.stream("orders").unwrap();
    let producer = wal.idempotent(ProducerId::new(77)).unwrap();
    let entries = [(stream.id(), b"apples".as_slice()), (stream.id(), b"and pears".as_slice())];
    let batch = producer.append_batch(5, entries).unwrap().lsn;
    let plain = wal.append(b"a payload of more than sixteen bytes").unwrap();
    wal.close().unwrap();
    drop(wal);

    let text = show(&["inspect", &place.log, "--record", &batch.to_string()]);
    for words in [
        "batch",
        "length: ",
        "verifies",
        "stream: 1",
        "kind: 3: batch",
        "flags: 1: stamped",
        "epoch: 2: the low 16 bits of 2",
        "producer: 77",
        "sequence: 5",
        "entry length: 6 bytes",
        "entry stream: 1",
        "apples",
        "and pears",
        "entry filler",
    ] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    let text = show(&["inspect", &place.log, "--record", &plain.to_string()]);
    assert!(text.contains("a payload of mor") && text.contains("e than sixteen b"), "{text}");
    assert!(text.contains("filler: up to a multiple of 16"), "{text}");
    // The bytes shown are those of the file, all of them.
    let hex: usize = text.lines().filter(|line| line.starts_with("      ")).map(pairs).sum();
    assert_eq!(hex, 64, "{text}");

    let text = show(&["inspect", &place.log, "--record", "64"]);
    assert!(text.contains("epoch start") && text.contains("an epoch begins"), "{text}");
    let words = fail(&["inspect", &place.log, "--record", "80"], b"", 1);
    assert!(words.contains("80"), "{words}");
    fail(&["inspect", &place.log, "--segment", "99"], b"", 1);
}

/// How many bytes a line shows in hexadecimal.
fn pairs(line: &str) -> usize {
    let is_pair = |word: &&str| word.len() == 2 && word.bytes().all(|b| b.is_ascii_hexdigit());
    line[10..57.min(line.len())].split(' ').take_while(is_pair).count()
}
