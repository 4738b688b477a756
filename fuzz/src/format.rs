//! The format in numbers, from `docs/format.md`, and the putting right of checksums.

use std::ops::Range;

use kaelix_wal::{AppendError, Entry, Lsn, StreamId, Wal};

pub const PAGE: usize = 4096;
/// Offset of a segment's first record.
pub const FIRST_RECORD: u64 = 64;
pub const SUPERBLOCK: Range<usize> = 0..128;
/// File offsets of the two checkpoint slots.
pub const SLOTS: [usize; 2] = [PAGE, 2 * PAGE];
pub const SLOT_LEN: usize = 256;
pub const HEADER_LEN: usize = 64;
pub const FOOTER_LEN: usize = 128;
/// The part of a footer that sums up its segment, reserved bytes included.
pub const FOOTER_SUMS: Range<usize> = 40..124;

pub const DATA: u8 = 1;
pub const PAD: u8 = 2;
pub const BATCH: u8 = 3;
pub const CONTROL: u8 = 5;
pub const CONTROL_EPOCH: u8 = 1;
pub const CONTROL_DURABLE: u8 = 2;
/// A flag of data and batches: the payload begins with a stamp of so many bytes.
pub const STAMPED: u8 = 1;
pub const STAMP_LEN: u64 = 16;
pub const MOVED: u8 = 2;
pub const ORIGIN_LEN: u64 = 16;

/// The number at `at`, or 0 beyond the end.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

/// The number at `at`, or 0 beyond the end.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

/// Copies `source` to `at`, as far as there is room.
pub fn put(bytes: &mut [u8], at: usize, source: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(source) {
        *to = *from;
    }
}

/// Puts a structure's CRC-32, its last 4 bytes, right.
pub fn seal(structure: &mut [u8]) {
    if let Some(end) = structure.len().checked_sub(4) {
        let crc = crc32fast::hash(&structure[..end]);
        put(structure, end, &crc.to_le_bytes());
    }
}

/// As [`seal`], for the structure that lies in `range` of `bytes`, if it does.
pub fn seal_at(bytes: &mut [u8], range: Range<usize>) {
    if let Some(structure) = bytes.get_mut(range) {
        seal(structure);
    }
}

/// The payload of a batch of `count` entries, of streams 0 to 3 in turn, whose bytes follow from
/// `number`; and the entries.
#[must_use]
pub fn batch(number: u8, count: usize, len: usize) -> (Vec<u8>, Vec<(u32, Vec<u8>)>) {
    let (mut bytes, mut entries) = (Vec::new(), Vec::new());
    for index in 0..count {
        let stream = (index % 4) as u32;
        let payload: Vec<u8> =
            (0..len + index % 9).map(|at| number ^ (at * 7 + index) as u8).collect();
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&stream.to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        entries.push((stream, payload));
    }
    (bytes, entries)
}

/// Appends a batch of `batch`; its LSN and its record's payload.
///
/// # Errors
///
/// As `Wal::append_batch`; with the length of the payload.
pub fn append_batch(
    wal: &Wal,
    number: u8,
    count: usize,
    len: usize,
) -> Result<(Lsn, Vec<u8>), (AppendError, usize)> {
    let (bytes, entries) = batch(number, count, len);
    let entries = entries.iter();
    let entries =
        entries.map(|(stream, payload)| Entry { stream: StreamId::new(*stream), payload });
    match wal.append_batch(entries) {
        Ok(lsn) => Ok((lsn, bytes)),
        Err(error) => Err((error, bytes.len())),
    }
}

/// A record's checksum: `docs/format.md`, "Checksum".
#[must_use]
pub fn record_crc(
    log_id: &[u8; 16],
    epoch: u64,
    header: &[u8; 16],
    payload: &[u8],
    lsn: u64,
) -> u32 {
    let mut seed = crc32fast::Hasher::new();
    seed.update(log_id);
    seed.update(&epoch.to_le_bytes());
    let length = u32_at(header, 0);
    let stream = u32_at(header, 8).wrapping_mul(0x9E37_79B1);
    let kind_word = u32_at(header, 12).wrapping_mul(0x85EB_CA77).rotate_left(15);
    let start =
        seed.finalize() ^ stream ^ kind_word ^ length.wrapping_mul(0xC2B2_AE3D).rotate_left(7);
    let body = if header[12] == PAD {
        start
    } else {
        let mut body = crc32fast::Hasher::new_with_initial(start);
        body.update(payload);
        body.finalize()
    };
    let p = lsn >> 4;
    let fold = (p ^ (p >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    body ^ fold as u32
}
