//! Segment headers: any bytes where a segment of the input's choice is looked for.
//!
//! Input: one byte of flags (bit 0: put the checksum right; bit 1: the log id too; bit 2: the base
//! too, as the sequence word demands), the sequence that is looked for, then the header.

use kaelix_wal::{Lsn, fuzzing};

use crate::format::{HEADER_LEN, put, seal_at, u32_at, u64_at};

const LOG_ID: [u8; 16] = *b"a log to confuse";
const SEGMENT_SIZE: u64 = 8192;

pub fn run(data: &[u8]) {
    let Some((head, bytes)) = data.split_at_checked(5) else { return };
    let (flags, sequence) = (head[0], u32_at(head, 1));
    let base = u64::from(sequence) * SEGMENT_SIZE;
    let mut bytes = bytes.to_vec();
    if flags & 2 != 0 {
        put(&mut bytes, 24, &LOG_ID);
    }
    if flags & 4 != 0 {
        let own = u64_at(&bytes, 0).wrapping_sub(1).wrapping_mul(SEGMENT_SIZE);
        put(&mut bytes, 8, &own.to_le_bytes());
    }
    if flags & 7 != 0 {
        seal_at(&mut bytes, 0..HEADER_LEN);
    }
    let found = fuzzing::segment_header(&bytes, &LOG_ID, sequence, Lsn::new(base));
    let word = u64_at(&bytes, 0);
    let is_sound = bytes.len() >= HEADER_LEN
        && (1..=1 << 32).contains(&word)
        && bytes[24..40] == LOG_ID
        && u32_at(&bytes, 60) == crc32fast::hash(&bytes[..60]);
    let is_expected = word == u64::from(sequence) + 1;
    let is_believed = is_sound && (!is_expected || u64_at(&bytes, 8) == base);
    let expected = is_believed.then(|| ((word - 1) as u32, u64_at(&bytes, 16), is_expected));
    assert_eq!(found, expected);
}
