//! The consumer table: any bytes as one of its copies, under a geometry of the input's choice.
//!
//! Input: one byte of flags (bit 0: put the checksum right; bit 1: magic, version and log id too;
//! bit 2: let the table be as long as the input; bits 4 and 5: the geometry), then the copy.

use kaelix_wal::fuzzing::{self, ConsumerTable};
use kaelix_wal::{EpochLsn, Geometry, Lsn, simulation};

use crate::format::{put, seal_at, u32_at, u64_at};

const LOG_ID: [u8; 16] = *b"a log to confuse";
const HEAD_LEN: usize = 64;

fn geometry(choice: u8) -> Geometry {
    match choice {
        0 => simulation::tiny(2),
        1 => simulation::tiny(5),
        2 => Geometry::new(2 << 16, 1 << 16).expect("possible sizes"),
        _ => Geometry::new(1 << 31, 1 << 30).expect("possible sizes"),
    }
}

/// The table, if `docs/format.md` lets it be believed.
fn reference(bytes: &[u8], geometry: &Geometry) -> Option<ConsumerTable> {
    let length = u32_at(bytes, 12) as usize;
    let sound = bytes.len() >= HEAD_LEN
        && bytes.starts_with(b"KAELIXCT\x01\0\0\0")
        && (HEAD_LEN + 4..=bytes.len()).contains(&length)
        && crc32fast::hash(&bytes[..length - 4]) == u32_at(bytes, length - 4)
        && bytes[40..56] == LOG_ID;
    if !sound {
        return None;
    }
    let bytes = &bytes[..length - 4];
    let (generation, epoch) = (u64_at(bytes, 16), u64_at(bytes, 24));
    let counts = [u32_at(bytes, 56), u32_at(bytes, 60)].map(|count| count as usize);
    let is_lsn = |lsn: u64| {
        let offset = lsn % geometry.segment_size();
        lsn.is_multiple_of(16)
            && lsn / geometry.segment_size() <= u64::from(u32::MAX)
            && (64..=geometry.segment_size() - 4096).contains(&offset)
    };
    let position = |at: usize| {
        let (of, lsn) = (u64_at(bytes, at), u64_at(bytes, at + 8));
        (of <= epoch && is_lsn(lsn)).then_some(EpochLsn { epoch: of, lsn: Lsn::new(lsn) })
    };
    let durable = u64_at(bytes, 32);
    let in_bounds = (1..1 << 63).contains(&generation) && epoch < u64::MAX && is_lsn(durable);
    if !in_bounds || counts[0] > 64 || counts[1] > 1024 {
        return None;
    }
    let mut at = HEAD_LEN;
    let mut starts: Vec<EpochLsn> = Vec::new();
    for _ in 0..counts[0] {
        let start = position(at).filter(|_| at + 16 <= bytes.len())?;
        let last = starts.last().copied().unwrap_or_default();
        if start.epoch <= last.epoch || (!starts.is_empty() && start.lsn <= last.lsn) {
            return None;
        }
        starts.push(start);
        at += 16;
    }
    let mut consumers: Vec<(String, EpochLsn, Option<EpochLsn>)> = Vec::new();
    for _ in 0..counts[1] {
        let stands = position(at).filter(|_| at + 40 <= bytes.len())?;
        let cut = match (u64_at(bytes, at + 16), u64_at(bytes, at + 24)) {
            (0, 0) => None,
            _ => Some(position(at + 16).filter(|cut| cut.epoch > stands.epoch)?),
        };
        let len = u32_at(bytes, at + 32) as usize;
        let end = at + 40 + len.next_multiple_of(8);
        if !(1..=255).contains(&len) || end > bytes.len() {
            return None;
        }
        let name = String::from_utf8(bytes[at + 40..at + 40 + len].to_vec()).ok()?;
        if consumers.last().is_some_and(|last| last.0.as_bytes() >= name.as_bytes()) {
            return None;
        }
        consumers.push((name, stands, cut));
        at = end;
    }
    let durable = Lsn::new(durable);
    (at == bytes.len()).then_some(ConsumerTable { generation, epoch, durable, starts, consumers })
}

pub fn run(data: &[u8]) {
    let Some((flags, copy)) = data.split_first() else { return };
    let mut copy = copy.to_vec();
    if flags & 2 != 0 {
        copy.resize(copy.len().max(HEAD_LEN + 4), 0);
        put(&mut copy, 0, b"KAELIXCT\x01\0\0\0");
        put(&mut copy, 40, &LOG_ID);
    }
    if flags & 4 != 0 {
        let len = copy.len() as u32;
        put(&mut copy, 12, &len.to_le_bytes());
    }
    if flags & 1 != 0 {
        let length = u32_at(&copy, 12) as usize;
        seal_at(&mut copy, 0..length);
    }
    let geometry = geometry(flags >> 4 & 3);
    let believed = fuzzing::consumer_table(&copy, &LOG_ID, &geometry);
    assert_eq!(believed, reference(&copy, &geometry), "believed, another one");
    if let Some(table) = believed {
        // What is written of it is believed again, by both.
        let written = fuzzing::write_consumer_table(&table, &LOG_ID);
        assert_eq!(written.len() % 4096, 0);
        assert_eq!(reference(&written, &geometry).as_ref(), Some(&table));
        assert_eq!(fuzzing::consumer_table(&written, &LOG_ID, &geometry), Some(table));
    }
}

/// Tables as logs write them, and with impossible values.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let at = |epoch, lsn| EpochLsn { epoch, lsn: Lsn::new(lsn) };
    let consumer = |name: &str, stands, cut| (name.to_owned(), stands, cut);
    let empty = ConsumerTable {
        generation: 1,
        epoch: 1,
        durable: Lsn::new(64),
        starts: vec![at(1, 64)],
        consumers: Vec::new(),
    };
    let one = ConsumerTable {
        generation: 7,
        consumers: vec![consumer("billing", at(1, 128), None)],
        ..empty.clone()
    };
    let cut = ConsumerTable {
        epoch: 4,
        starts: vec![at(2, 80), at(4, 96)],
        consumers: vec![
            consumer("billing", at(4, 128), None),
            consumer("größe", at(1, 112), Some(at(2, 80))),
            consumer(&"n".repeat(255), at(4, 4096), None),
        ],
        ..one.clone()
    };
    let mut seeds = Vec::new();
    for (name, table) in [("empty", &empty), ("one", &one), ("cut", &cut)] {
        let bytes = fuzzing::write_consumer_table(table, &LOG_ID);
        let length = u32_at(&bytes, 12) as usize;
        seeds.push((name, [&[0], &bytes[..length]].concat()));
        for (at, what) in [(24, "epoch"), (56, "starts"), (60, "consumers"), (64, "order")] {
            let mut spoilt = [&[0x07], &bytes[..length]].concat();
            spoilt[1 + at] ^= 3;
            if name == "cut" {
                seeds.push((what, spoilt));
            }
        }
    }
    seeds
}
