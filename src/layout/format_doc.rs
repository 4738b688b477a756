//! `docs/format.md` against the constants: every table row, every worked example.
//!
//! The `Raw*` structures and their fields are private to their files, so the lists of fields come
//! from a `pub(super) const FIELDS` beside each structure (see `fields!`).

use super::record::{CONTROL_DURABLE, CONTROL_EPOCH, CONTROL_GAP, RecordKind, record_crc};
use super::{CHECKPOINT_SLOT_OFFSETS, CommitWord, FORMAT_VERSION, SegmentHeader, Superblock, Tag};
use super::{ConsumerTable, StoredConsumer};
use super::{
    catalog, checkpoint, consumers, footer, origin, parity, producers, segment, stamp, superblock,
};
use crate::checksum::Seed;
use crate::geometry::RECORD_HEADER_LEN;
use crate::geometry::{DATA_OFFSET, FIRST_RECORD, Geometry, PAGE_SIZE, RECORD_ALIGN};
use crate::lsn::{EpochLsn, Lsn};

const DOC: &str = include_str!("../../docs/format.md");

/// The rows of the first table below a heading: the cells of each, trimmed, without backquotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOC.lines().skip_while(|line| *line != heading).skip(1);
    let rows = lines.by_ref().skip_while(|line| !line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        })
        .collect();
    assert!(rows.len() > 2, "no table below `{heading}`");
    // Without the head and the rule below it.
    rows[2..].to_vec()
}

/// A fenced block of bytes: `0016: 00 01 ...` lines.
fn hex(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}");
    let lines = DOC.lines().skip_while(|line| *line != fence).skip(1);
    let bytes: Vec<u8> = lines
        .take_while(|line| *line != "```")
        .flat_map(|line| line[6..].split(' '))
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect();
    assert!(!bytes.is_empty(), "no block `{fence}`");
    bytes
}

/// Same fields, same order, same places, no gap, no overlap, nothing left over.
fn compare(heading: &str, fields: &[(&str, usize, usize)], size: usize) {
    let rows = table(heading);
    let mut end = 0;
    for (row, (name, offset, len)) in rows.iter().zip(fields) {
        let documented: (usize, usize) =
            (row[0].parse().expect("an offset"), row[1].parse().expect("a size"));
        assert_eq!(row[2], *name, "{heading}");
        assert_eq!(documented, (*offset, *len), "{heading}: {name}");
        assert_eq!(*offset, end, "{heading}: a gap or an overlap before {name}");
        end = offset + len;
    }
    assert_eq!(rows.len(), fields.len(), "{heading}: number of rows");
    assert_eq!(end, size, "{heading}: its size");
}

#[test]
fn every_structure_is_where_the_page_says() {
    compare("## Superblock", superblock::FIELDS, 128);
    compare("## Checkpoint slot", checkpoint::FIELDS, 256);
    compare("### Recovery summary", checkpoint::RECOVERY_FIELDS, 80);
    compare("## Segment header", segment::FIELDS, FIRST_RECORD as usize);
    compare("## Footer", footer::FIELDS, footer::FOOTER_LEN);
    compare("## Consumer table", consumers::FIELDS, 64);
    compare("### Epoch start", consumers::START_FIELDS, 16);
    compare("### Consumer", consumers::CONSUMER_FIELDS, 40);
    compare("### Producers of a segment", producers::FIELDS, 24);
    compare("### Parity table", parity::FIELDS, 64);
    compare("### Stamp", stamp::FIELDS, stamp::STAMP_LEN);
    compare("### Origin", origin::FIELDS, origin::ORIGIN_LEN);
    assert_eq!(CHECKPOINT_SLOT_OFFSETS, [4096, 8192]);
    compare("### Catalog header", catalog::HEADER_FIELDS, catalog::HEADER_LEN);
    compare("### Catalog entry", catalog::ENTRY_FIELDS, catalog::ENTRY_HEADER_LEN);
    compare("### Catalog position", catalog::POSITION_FIELDS, 16);
}

/// The record header is two words, not a structure: each field is set alone and must change
/// exactly the bytes that the page gives it.
#[test]
fn record_fields_are_where_the_page_says() {
    let bytes =
        |word: CommitWord, tag: Tag| [word.bits().to_le_bytes(), tag.bits().to_le_bytes()].concat();
    let zero = Tag::from_bits(0);
    let kind = |kind| Tag::from_bits(Tag::new(0, kind, 0, 0).bits());
    let fields = [
        ("length", bytes(CommitWord::committed(u32::MAX >> 1, 0), zero)),
        ("crc", bytes(CommitWord::committed(0, u32::MAX), zero)),
        ("stream", bytes(CommitWord::from_bits(0), Tag::from_bits(u64::from(u32::MAX)))),
        ("kind", bytes(CommitWord::from_bits(0), kind(RecordKind::Control))),
        ("flags", bytes(CommitWord::from_bits(0), Tag::from_bits(0xFF << 40))),
        ("epoch", bytes(CommitWord::from_bits(0), Tag::from_bits(0xFFFF << 48))),
    ];
    assert_eq!(Tag::from_bits(0xFF << 40).flags(), 0xFF);
    assert_eq!(Tag::from_bits(0xFFFF << 48).epoch_low(), 0xFFFF);
    assert_eq!(CommitWord::claimed(16).bits(), 1 << 31 | 16);
    let rows = table("## Record");
    assert_eq!(rows.len(), fields.len());
    let mut end = 0;
    for (row, (name, image)) in rows.iter().zip(&fields) {
        let (offset, len): (usize, usize) =
            (row[0].parse().expect("an offset"), row[1].parse().expect("a size"));
        assert_eq!((row[2].as_str(), offset), (*name, end));
        let set: Vec<usize> = (0..16).filter(|at| image[*at] != 0).collect();
        assert_eq!(set, (offset..offset + len).collect::<Vec<_>>(), "{name}");
        end = offset + len;
    }
    assert_eq!(end, RECORD_HEADER_LEN);
}

#[test]
fn constants_are_those_of_the_page() {
    let constants = [
        ("PAGE_SIZE", PAGE_SIZE),
        ("RECORD_ALIGN", RECORD_ALIGN),
        ("RECORD_HEADER_LEN", RECORD_HEADER_LEN as u64),
        ("FIRST_RECORD", u64::from(FIRST_RECORD)),
        ("DATA_OFFSET", DATA_OFFSET),
        ("FORMAT_VERSION", u64::from(FORMAT_VERSION)),
    ];
    let rows = table("## Conventions");
    assert_eq!(rows.len(), constants.len());
    for (row, (name, value)) in rows.iter().zip(constants) {
        assert_eq!((row[0].as_str(), row[1].parse()), (name, Ok(value)));
    }
    let kinds: Vec<(u8, u8)> = table("### Kinds")
        .iter()
        .map(|row| (row[0].parse().expect("a kind"), row[1].parse().expect("flags")))
        .collect();
    let (data, pad) = (RecordKind::Data as u8, RecordKind::Pad as u8);
    let control = RecordKind::Control as u8;
    let batch = RecordKind::Batch as u8;
    let known = [
        (data, 0),
        (data, stamp::STAMPED),
        (data, origin::MOVED),
        (pad, 0),
        (batch, 0),
        (batch, stamp::STAMPED),
        (control, CONTROL_EPOCH),
        (control, CONTROL_DURABLE),
        (control, CONTROL_GAP),
    ];
    assert_eq!(kinds, known);
}

/// The worked example is what this build writes: a change of the format that leaves the page
/// alone fails here.
#[test]
fn the_worked_example_is_what_we_write() {
    let log_id: [u8; 16] = std::array::from_fn(|at| at as u8);
    let unix_ms = 1_700_000_000_000;
    let geometry = Geometry::new(1 << 20, 1 << 18).expect("in bounds");
    let superblock = Superblock { log_id, geometry, created_unix_ms: unix_ms };
    assert_eq!(superblock.encode()[..128], hex("superblock"));
    let base = Lsn::ZERO;
    let header = SegmentHeader { sequence: 0, base, epoch: 1, prepared_unix_ms: unix_ms };
    assert_eq!(header.encode(&log_id)[..], hex("segment"));

    let mut want = Vec::new();
    let mut record = |stream, kind, flags, payload: &[u8]| {
        let tag = Tag::new(stream, kind, flags, 1);
        let len = (RECORD_HEADER_LEN + payload.len()) as u32;
        let lsn = Lsn::new(64 + want.len() as u64);
        let crc = record_crc(Seed::new(&log_id, 1), tag, len, payload, lsn);
        want.extend(CommitWord::committed(len, crc).bits().to_le_bytes());
        want.extend(tag.bits().to_le_bytes());
        want.extend(payload);
        want.resize(want.len().next_multiple_of(16), 0);
    };
    record(0, RecordKind::Control, CONTROL_EPOCH, &1_u64.to_le_bytes());
    record(0, RecordKind::Data, 0, b"hello");
    record(2, RecordKind::Control, CONTROL_DURABLE, &[]);
    record(0, RecordKind::Pad, 0, &[0; 16]);
    want.extend(CommitWord::claimed(40).bits().to_le_bytes());
    want.extend([0; 8]);
    assert_eq!(want, hex("records"));
}

/// The catalog's worked example, which was not made by this code, is frozen, too.
#[test]
fn the_catalog_of_the_worked_example_is_what_we_write() {
    let log_id: [u8; 16] = std::array::from_fn(|at| at as u8);
    let mut file = catalog::encode_header(&log_id, 0).to_vec();
    let mut addition = catalog::Addition::new(&log_id, file.len());
    addition.created(1, 0, "orders");
    addition.created(2, 1, "prix-en-\u{20AC}");
    file.extend_from_slice(addition.bytes());
    let mut addition = catalog::Addition::new(&log_id, file.len());
    addition.position(2, 3, Lsn::new(4096));
    file.extend_from_slice(addition.bytes());
    assert_eq!(file, hex("catalog"));
}

#[test]
fn the_consumer_table_is_what_we_write() {
    let log_id: [u8; 16] = std::array::from_fn(|at| at as u8);
    let at = |epoch, lsn| EpochLsn { epoch, lsn: Lsn::new(lsn) };
    let consumer =
        |name: &str, position, cut| StoredConsumer { name: name.to_owned(), position, cut };
    let table = ConsumerTable {
        generation: 5,
        epoch: 2,
        durable: Lsn::new(1024),
        starts: vec![at(1, 64), at(2, 512)],
        consumers: vec![
            consumer("billing", at(2, 768), None),
            consumer("search", at(1, 640), Some(at(2, 512))),
        ],
    };
    let want = hex("consumers");
    let bytes = table.encode(&log_id);
    assert_eq!(bytes[..want.len()], want);
    assert_eq!(bytes[12..16], (want.len() as u32).to_le_bytes());
    assert!(bytes.len() == 4096 && bytes[want.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_parity_table_is_what_we_write() {
    let log_id: [u8; 16] = std::array::from_fn(|at| at as u8);
    let table =
        parity::ParityTable { epoch: 1, roll_up: 0x1234_5678, pages: vec![1, 2], groups: vec![3] };
    let want = hex("parity");
    let bytes = table.encode(&log_id, Lsn::new(5 * 12_288));
    assert_eq!(bytes[..want.len()], want);
    assert_eq!(bytes[12..16], (want.len() as u32).to_le_bytes());
    assert!(bytes.len() == 4096 && bytes[want.len()..].iter().all(|byte| *byte == 0));
}
