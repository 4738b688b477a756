//! The parity table: any bytes as the table of a segment, under a geometry of the input's choice.
//!
//! Input: one byte of flags (bit 0: put the checksum right; bit 1: magic, version and log id too;
//! bit 2: length, pages and groups; bit 3: the base; bits 4 and 5: the geometry; bit 6: which
//! segment), then the table.

use kaelix_wal::fuzzing::{self, ParityTable};
use kaelix_wal::{Geometry, simulation};

use crate::format::{PAGE, put, seal_at, u32_at, u64_at};

const LOG_ID: [u8; 16] = *b"a log to confuse";
const HEAD_LEN: usize = 64;

fn geometry(choice: u8) -> Geometry {
    match choice {
        0 => simulation::tiny(2),
        1 => Geometry::new(2 << 16, 1 << 16).expect("possible sizes"),
        2 => Geometry::new(3 << 20, 1 << 20).expect("possible sizes"),
        _ => Geometry::new(1 << 31, 1 << 30).expect("possible sizes"),
    }
}

/// How many pages are protected, in how many groups, and the bytes of a table.
fn counts(geometry: &Geometry) -> (usize, usize, usize) {
    let pages = geometry.segment_size() as usize / PAGE - 1;
    let groups = pages.div_ceil(64);
    (pages, groups, HEAD_LEN + 4 * (pages + groups) + 4)
}

/// The table, if `docs/format.md` lets it be believed.
fn reference(bytes: &[u8], geometry: &Geometry, sequence: u32) -> Option<ParityTable> {
    let (pages, groups, length) = counts(geometry);
    let table = bytes.get(..length)?;
    let numbers = [8, 12, 52, 56].map(|at| u32_at(table, at) as usize);
    let is_it = table[..8] == *b"KAELIXPA"
        && numbers == [1, length, pages, groups]
        && table[16..32] == LOG_ID
        && u64_at(table, 32) == u64::from(sequence) * geometry.segment_size()
        && u32_at(table, length - 4) == crc32fast::hash(&table[..length - 4]);
    let crcs = |from: usize, count: usize| {
        (from..from + count).map(|at| u32_at(table, HEAD_LEN + 4 * at)).collect()
    };
    is_it.then(|| ParityTable {
        epoch: u64_at(table, 40),
        roll_up: u32_at(table, 48),
        pages: crcs(0, pages),
        groups: crcs(pages, groups),
    })
}

pub fn run(data: &[u8]) {
    let Some((flags, table)) = data.split_first() else { return };
    let geometry = geometry(flags >> 4 & 3);
    let sequence = if flags & 64 != 0 { 7 } else { 0 };
    let (pages, groups, length) = counts(&geometry);
    let mut table = table.to_vec();
    if flags & 4 != 0 {
        table.resize(table.len().max(length), 0);
        put(&mut table, 12, &(length as u32).to_le_bytes());
        put(&mut table, 52, &(pages as u32).to_le_bytes());
        put(&mut table, 56, &(groups as u32).to_le_bytes());
    }
    if flags & 2 != 0 {
        put(&mut table, 0, b"KAELIXPA\x01\0\0\0");
        put(&mut table, 16, &LOG_ID);
    }
    if flags & 8 != 0 {
        put(&mut table, 32, &(u64::from(sequence) * geometry.segment_size()).to_le_bytes());
    }
    if flags & 1 != 0 {
        seal_at(&mut table, 0..length);
    }
    let believed = fuzzing::parity_table(&table, &LOG_ID, &geometry, sequence);
    assert_eq!(believed, reference(&table, &geometry, sequence), "believed, another one");
    if let Some(believed) = believed {
        // What is written of it is believed again, by both.
        let written = fuzzing::write_parity_table(&believed, &LOG_ID, &geometry, sequence);
        assert_eq!(written.len(), length.next_multiple_of(PAGE));
        assert_eq!(reference(&written, &geometry, sequence).as_ref(), Some(&believed));
        let again = fuzzing::parity_table(&written, &LOG_ID, &geometry, sequence);
        assert_eq!(again, Some(believed));
    }
}

/// Tables as logs write them, of two sizes, and with impossible values.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (choice, name) in [(0, "tiny"), (1, "small"), (2, "groups")] {
        let geometry = geometry(choice);
        let (pages, groups, length) = counts(&geometry);
        let crcs = |count: usize| (0..count as u32).map(|at| at.wrapping_mul(0x9E37_79B1));
        let table = ParityTable {
            epoch: 3,
            roll_up: 0xA5A5_0F0F,
            pages: crcs(pages).collect(),
            groups: crcs(groups).collect(),
        };
        let bytes = fuzzing::write_parity_table(&table, &LOG_ID, &geometry, 7);
        let flags = 64 | choice << 4;
        seeds.push((name, [&[flags], &bytes[..length]].concat()));
        if choice == 1 {
            for (at, what) in [(8, "version"), (12, "length"), (32, "base"), (52, "counts")] {
                let mut spoilt = [&[flags | 1], &bytes[..length]].concat();
                spoilt[1 + at] ^= 3;
                seeds.push((what, spoilt));
            }
        }
    }
    seeds
}
