//! The stream catalog's header and entries: the two files `streams.a` and `streams.b`.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{FORMAT_VERSION, LogId};
use crate::checksum::crc32;
use crate::lsn::Lsn;

/// First bytes of both files.
const MAGIC: [u8; 8] = *b"KAELIXSC";

/// Bytes of the header, and offset of the first entry.
pub(crate) const HEADER_LEN: usize = size_of::<RawHeader>();
/// Bytes in front of an entry's body.
pub(crate) const ENTRY_HEADER_LEN: usize = size_of::<RawEntry>();
/// Entries start and end at multiples of this, in bytes.
pub(crate) const ENTRY_ALIGN: usize = 8;
/// Bytes of a position entry.
pub(crate) const POSITION_LEN: usize = ENTRY_HEADER_LEN + size_of::<RawPosition>();
/// The longest entry of any kind, header included, in bytes: it bounds what a search has to read.
pub(crate) const ENTRY_LEN_MAX: usize = 1024;
/// The longest name of a stream, in bytes of UTF-8.
pub(crate) const NAME_LEN_MAX: usize = 255;

/// A stream came to be: the body is its name.
pub(crate) const KIND_CREATED: u8 = 1;
/// A stream's last position: the body is a `RawPosition`.
pub(crate) const KIND_POSITION: u8 = 2;
/// Set in kinds that a reader may pass over if it does not know them.
pub(crate) const KIND_OPTIONAL: u8 = 1 << 7;
/// In `marks`: the first entry of an addition. Everything before it was synced in both files.
pub(crate) const MARK_FIRST: u8 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawHeader {
    magic: [u8; 8],
    format_version: U32,
    header_len: U32,
    /// Features that a reader may ignore.
    features_optional: U64,
    /// Features that a reader must understand.
    features_required: U64,
    log_id: LogId,
    /// How often the catalog was compacted.
    generation: U32,
    reserved: [u8; 8],
    crc: U32,
}

const_assert_eq!(size_of::<RawHeader>(), 64);
const_assert_eq!(offset_of!(RawHeader, format_version), 8);
const_assert_eq!(offset_of!(RawHeader, header_len), 12);
const_assert_eq!(offset_of!(RawHeader, features_optional), 16);
const_assert_eq!(offset_of!(RawHeader, features_required), 24);
const_assert_eq!(offset_of!(RawHeader, log_id), 32);
const_assert_eq!(offset_of!(RawHeader, generation), 48);
const_assert_eq!(offset_of!(RawHeader, reserved), 52);
const_assert_eq!(offset_of!(RawHeader, crc), 60);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawEntry {
    /// First, so that what it covers is one range.
    crc: U32,
    /// Header and body; the entry takes this, rounded up to `ENTRY_ALIGN`.
    length: U32,
    id: U32,
    kind: u8,
    flags: u8,
    marks: u8,
    reserved: u8,
}

const_assert_eq!(size_of::<RawEntry>(), 16);
const_assert_eq!(offset_of!(RawEntry, crc), 0);
const_assert_eq!(offset_of!(RawEntry, length), 4);
const_assert_eq!(offset_of!(RawEntry, id), 8);
const_assert_eq!(offset_of!(RawEntry, kind), 12);
const_assert_eq!(offset_of!(RawEntry, flags), 13);
const_assert_eq!(offset_of!(RawEntry, marks), 14);
const_assert_eq!(offset_of!(RawEntry, reserved), 15);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawPosition {
    epoch: U64,
    lsn: U64,
}

const_assert_eq!(size_of::<RawPosition>(), 16);
const_assert_eq!(offset_of!(RawPosition, lsn), 8);

/// What the first bytes of one file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderEvidence {
    /// The header of this log's catalog.
    Sound,
    /// Nothing, or not a header.
    Damaged,
    /// Another format version, if the field is not what is damaged.
    Version(u32),
    /// Must-understand features that this build does not know.
    Features(u64),
    /// The header of another log's catalog.
    AnotherLog,
}

/// The header of the catalog of the log `log_id`, which was compacted `generation` times.
pub(crate) fn encode_header(log_id: &LogId, generation: u32) -> [u8; HEADER_LEN] {
    let mut raw = RawHeader {
        magic: MAGIC,
        format_version: U32::new(FORMAT_VERSION),
        header_len: U32::new(HEADER_LEN as u32),
        features_optional: U64::ZERO,
        features_required: U64::ZERO,
        log_id: *log_id,
        generation: U32::new(generation),
        reserved: [0; 8],
        crc: U32::ZERO,
    };
    raw.crc = U32::new(crc32(&raw.as_bytes()[..offset_of!(RawHeader, crc)]));
    zerocopy::transmute!(raw)
}

/// Judges the first bytes of a file. The version comes before the checksum, since another version
/// may keep its checksum elsewhere.
pub(crate) fn judge_header(bytes: &[u8], log_id: &LogId) -> HeaderEvidence {
    let Ok((raw, _)) = RawHeader::read_from_prefix(bytes) else {
        return HeaderEvidence::Damaged;
    };
    if raw.magic != MAGIC {
        return HeaderEvidence::Damaged;
    }
    if raw.format_version.get() != FORMAT_VERSION {
        return HeaderEvidence::Version(raw.format_version.get());
    }
    if raw.crc.get() != crc32(&raw.as_bytes()[..offset_of!(RawHeader, crc)]) {
        return HeaderEvidence::Damaged;
    }
    if raw.log_id != *log_id {
        return HeaderEvidence::AnotherLog;
    }
    if raw.features_required.get() != 0 {
        return HeaderEvidence::Features(raw.features_required.get());
    }
    if raw.header_len.get() as usize != HEADER_LEN {
        return HeaderEvidence::Damaged;
    }
    HeaderEvidence::Sound
}

/// The generation in a header that is sound.
pub(crate) fn generation(header: &[u8]) -> u32 {
    RawHeader::read_from_prefix(header).map_or(0, |(raw, _)| raw.generation.get())
}

/// What the checksums of a log's entries start from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntrySeed(u32);

impl EntrySeed {
    pub(crate) fn new(log_id: &LogId) -> EntrySeed {
        EntrySeed(crc32(log_id))
    }

    /// The checksum of the entry at `offset`: `covered` is all of it, padding included, behind its
    /// `crc`.
    fn crc(self, offset: usize, covered: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&(offset as u64).to_le_bytes());
        hasher.update(covered);
        hasher.finalize()
    }
}

/// An entry whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Bytes that it takes in the file, padding included.
    pub(crate) size: usize,
    pub(crate) id: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) marks: u8,
    pub(crate) body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry at `offset` of `file`, if one is whole there. Any file and any offset will do.
    #[inline]
    pub(crate) fn verify(file: &'a [u8], offset: usize, seed: EntrySeed) -> Option<Entry<'a>> {
        let bytes = file.get(offset..)?;
        let (raw, _) = RawEntry::ref_from_prefix(bytes).ok()?;
        let length = raw.length.get() as usize;
        if !(ENTRY_HEADER_LEN..=ENTRY_LEN_MAX).contains(&length) {
            return None;
        }
        let size = length.next_multiple_of(ENTRY_ALIGN);
        let covered = bytes.get(size_of::<U32>()..size)?;
        (seed.crc(offset, covered) == raw.crc.get())
            .then(|| Entry::of(raw, &bytes[ENTRY_HEADER_LEN..length]))
    }

    /// The entry at `offset` of a file in which all entries were verified; `None` at its end.
    #[inline]
    pub(crate) fn trusted(file: &'a [u8], offset: usize) -> Option<Entry<'a>> {
        let bytes = file.get(offset..)?;
        let (raw, _) = RawEntry::ref_from_prefix(bytes).ok()?;
        Some(Entry::of(raw, bytes.get(ENTRY_HEADER_LEN..raw.length.get() as usize)?))
    }

    fn of(raw: &RawEntry, body: &'a [u8]) -> Entry<'a> {
        Entry {
            size: (ENTRY_HEADER_LEN + body.len()).next_multiple_of(ENTRY_ALIGN),
            id: raw.id.get(),
            kind: raw.kind,
            flags: raw.flags,
            marks: raw.marks,
            body,
        }
    }

    /// Does an entry that starts an addition stand at `offset`? Quickly no for most bytes.
    #[inline]
    pub(crate) fn starts_addition(file: &[u8], offset: usize, seed: EntrySeed) -> bool {
        let marks = file.get(offset + offset_of!(RawEntry, marks));
        marks.is_some_and(|marks| marks & MARK_FIRST != 0)
            && Entry::verify(file, offset, seed).is_some()
    }
}

/// The bytes of one addition: entries in order, to be written at one place in both files.
#[derive(Debug)]
pub(crate) struct Addition {
    seed: EntrySeed,
    /// Offset in the file of the first byte.
    start: usize,
    bytes: Vec<u8>,
}

impl Addition {
    /// An addition to a file that is `start` bytes long.
    pub(crate) fn new(log_id: &LogId, start: usize) -> Addition {
        Addition { seed: EntrySeed::new(log_id), start, bytes: Vec::new() }
    }

    /// Stream `id` comes to be. The name has 1 to `NAME_LEN_MAX` bytes.
    pub(crate) fn created(&mut self, id: u32, flags: u8, name: &str) {
        debug_assert!((1..=NAME_LEN_MAX).contains(&name.len()));
        self.push(id, KIND_CREATED, flags, name.as_bytes());
    }

    /// The last position of stream `id`.
    pub(crate) fn position(&mut self, id: u32, epoch: u64, lsn: Lsn) {
        let raw = RawPosition { epoch: U64::new(epoch), lsn: U64::new(lsn.get()) };
        self.push(id, KIND_POSITION, 0, raw.as_bytes());
    }

    pub(crate) fn push(&mut self, id: u32, kind: u8, flags: u8, body: &[u8]) {
        let from = self.bytes.len();
        let length = ENTRY_HEADER_LEN + body.len();
        let raw = RawEntry {
            crc: U32::ZERO,
            length: U32::new(length as u32),
            id: U32::new(id),
            kind,
            flags,
            marks: if from == 0 { MARK_FIRST } else { 0 },
            reserved: 0,
        };
        self.bytes.extend_from_slice(raw.as_bytes());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(from + length.next_multiple_of(ENTRY_ALIGN), 0);
        let covered = &self.bytes[from + size_of::<U32>()..];
        let crc = self.seed.crc(self.start + from, covered);
        self.bytes[from..from + size_of::<U32>()].copy_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Epoch and LSN in the body of a position entry.
pub(crate) fn decode_position(body: &[u8]) -> Option<(u64, Lsn)> {
    let raw = RawPosition::read_from_bytes(body).ok()?;
    Some((raw.epoch.get(), Lsn::new(raw.lsn.get())))
}

#[cfg(test)]
pub(super) const HEADER_FIELDS: &[(&str, usize, usize)] = fields!(RawHeader {
    magic,
    format_version,
    header_len,
    features_optional,
    features_required,
    log_id,
    generation,
    reserved,
    crc
});

#[cfg(test)]
pub(super) const ENTRY_FIELDS: &[(&str, usize, usize)] =
    fields!(RawEntry { crc, length, id, kind, flags, marks, reserved });

#[cfg(test)]
pub(super) const POSITION_FIELDS: &[(&str, usize, usize)] = fields!(RawPosition { epoch, lsn });

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_ID: LogId = *b"0123456789abcdef";

    fn file() -> Vec<u8> {
        let mut addition = Addition::new(&LOG_ID, HEADER_LEN);
        addition.created(1, 0, "orders");
        addition.position(1, 3, Lsn::new(4096));
        [&encode_header(&LOG_ID, 0)[..], addition.bytes()].concat()
    }

    #[test]
    fn entries_verify_where_they_were_written() {
        let file = file();
        let seed = EntrySeed::new(&LOG_ID);
        let first = Entry::verify(&file, HEADER_LEN, seed).expect("an entry");
        assert_eq!((first.id, first.kind, first.marks), (1, KIND_CREATED, MARK_FIRST));
        assert_eq!((first.size, first.body), (24, &b"orders"[..]));
        let second = Entry::verify(&file, HEADER_LEN + 24, seed).expect("an entry");
        assert_eq!((second.size, second.kind, second.marks), (32, KIND_POSITION, 0));
        assert_eq!(decode_position(second.body), Some((3, Lsn::new(4096))));
        // Elsewhere, in another log, or cut short, it is none.
        let moved = [&[0; 8], &file[..]].concat();
        assert_eq!(Entry::verify(&moved, HEADER_LEN + 8, seed), None);
        assert_eq!(Entry::verify(&file, HEADER_LEN, EntrySeed::new(&[0; 16])), None);
        assert_eq!(Entry::verify(&file[..HEADER_LEN + 23], HEADER_LEN, seed), None);
        assert_eq!(Entry::verify(&file, usize::MAX, seed), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let file = file();
        let seed = EntrySeed::new(&LOG_ID);
        assert_eq!(judge_header(&file, &LOG_ID), HeaderEvidence::Sound);
        for bit in 0..(HEADER_LEN + 24) * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let header = judge_header(&damaged, &LOG_ID);
            assert_eq!(header != HeaderEvidence::Sound, bit / 8 < HEADER_LEN, "bit {bit}");
            let entry = Entry::verify(&damaged, HEADER_LEN, seed);
            assert_eq!(entry.is_none(), bit / 8 >= HEADER_LEN, "bit {bit}");
        }
    }

    /// Fields with a good checksum are still not believed before they are checked.
    #[test]
    fn headers_that_are_not_ours_are_told_apart() {
        let judge = |change: fn(&mut RawHeader)| {
            let (mut raw, _) = RawHeader::read_from_prefix(&file()).expect("long enough");
            change(&mut raw);
            raw.crc = U32::new(crc32(&raw.as_bytes()[..offset_of!(RawHeader, crc)]));
            judge_header(raw.as_bytes(), &LOG_ID)
        };
        assert_eq!(judge(|_| ()), HeaderEvidence::Sound);
        assert_eq!(judge(|raw| raw.features_optional = U64::new(1)), HeaderEvidence::Sound);
        assert_eq!(judge(|raw| raw.features_required = U64::new(4)), HeaderEvidence::Features(4));
        assert_eq!(judge(|raw| raw.format_version = U32::new(9)), HeaderEvidence::Version(9));
        assert_eq!(judge(|raw| raw.log_id[0] = 0), HeaderEvidence::AnotherLog);
        assert_eq!(judge(|raw| raw.header_len = U32::new(128)), HeaderEvidence::Damaged);
        assert_eq!(judge(|raw| raw.magic[7] = b'L'), HeaderEvidence::Damaged);
        assert_eq!(judge_header(&[], &LOG_ID), HeaderEvidence::Damaged);
    }
}
