//! The record header: 16 bytes in front of each payload, aligned to 16.
//!
//! ```text
//!  0        4        8            12     13     14      16
//!  +--------+--------+------------+------+------+-------+
//!  | length | CRC-32 | stream id  | kind | flags| epoch |  payload ...
//!  +--------+--------+------------+------+------+-------+
//!   `-- commit word -'`------------- tag --------------'
//! ```
//!
//! 1. The commit word is one aligned 8-byte word, the unit that persistent memory and every disk
//!    sector keep whole. Zero: nothing here yet. Bit 31 of the length: claimed, not committed.
//! 2. The length counts header and payload in bytes, so it is never 0, and a commit word is never
//!    0 whatever the checksum is.
//! 3. The record takes its length rounded up to 16.

use super::origin::{MOVED, ORIGIN_LEN};
use super::stamp::{STAMP_LEN, STAMPED};
use crate::checksum::Seed;
use crate::geometry::{RECORD_ALIGN, RECORD_HEADER_LEN};
use crate::lsn::Lsn;
use crate::stream_id::StreamId;

const CLAIMED: u64 = 1 << 31;

/// The space that a record of `record_len` bytes (header included) takes.
#[inline]
pub(crate) const fn aligned_len(record_len: u32) -> u32 {
    // Lengths stay far below 2^32 (a segment has at most 2^30 bytes), so nothing overflows.
    (record_len + (RECORD_ALIGN as u32 - 1)) & !(RECORD_ALIGN as u32 - 1)
}

/// The first word of a record: length and checksum, or a claim, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitWord(u64);

/// What a commit word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WordState {
    /// Nothing here yet.
    Zero,
    /// Someone owns this many bytes (header included) and has not committed.
    Claimed(u32),
    /// A record of this many bytes (header included).
    Committed(u32),
    /// Neither: a length that no record has.
    Impossible,
}

impl CommitWord {
    /// The word of a committed record of `record_len` bytes, header included.
    #[inline]
    pub(crate) const fn committed(record_len: u32, crc: u32) -> CommitWord {
        CommitWord((crc as u64) << 32 | record_len as u64)
    }

    /// The word of a claim of `record_len` bytes, header included.
    #[inline]
    pub(crate) const fn claimed(record_len: u32) -> CommitWord {
        CommitWord(CLAIMED | record_len as u64)
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> CommitWord {
        CommitWord(bits)
    }

    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The checksum of a committed record.
    pub(crate) const fn crc(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// As [`state`](CommitWord::state), for those who look for committed records alone: the
    /// length of one.
    #[inline]
    pub(crate) const fn committed_len(self, len_max: u32) -> Option<u32> {
        // A claim's bit makes the length larger than any.
        let len = self.0 as u32;
        let least = RECORD_HEADER_LEN as u32;
        if len.wrapping_sub(least) <= len_max.wrapping_sub(least) { Some(len) } else { None }
    }

    /// What the word says, if a record may take `len_max` bytes here.
    #[inline]
    pub(crate) const fn state(self, len_max: u32) -> WordState {
        let len = (self.0 & (CLAIMED - 1)) as u32;
        if self.0 == 0 {
            WordState::Zero
        } else if len < RECORD_HEADER_LEN as u32 || len > len_max {
            WordState::Impossible
        } else if self.0 & CLAIMED == 0 {
            WordState::Committed(len)
        } else if self.0 >> 32 == 0 {
            WordState::Claimed(len)
        } else {
            WordState::Impossible
        }
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// A caller's record.
    Data = 1,
    /// Filler: an abandoned reservation, or the rest of a segment. Its payload means nothing, and
    /// the checksum leaves it out.
    Pad = 2,
    /// Several entries of a caller's, all or none.
    Batch = 3,
    /// The log's own.
    Control = 5,
}

/// A control record that opens an epoch: the payload is the epoch in full.
pub(crate) const CONTROL_EPOCH: u8 = 1;
/// A control record without payload that a sync leaves: its stream id is the distance back to the
/// position proven durable, in units of 16 bytes.
pub(crate) const CONTROL_DURABLE: u8 = 2;

/// A control record that a salvage has put where records were damaged; its payload is zeros.
pub(crate) const CONTROL_GAP: u8 = 3;

/// The second word of a record: stream id, kind, flags, and the epoch's low 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    #[inline]
    pub(crate) const fn new(stream: u32, kind: RecordKind, flags: u8, epoch: u64) -> Tag {
        let epoch = (epoch & 0xFFFF) << 48;
        Tag(stream as u64 | (kind as u64) << 32 | (flags as u64) << 40 | epoch)
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> Tag {
        Tag(bits)
    }

    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn stream(self) -> Option<StreamId> {
        StreamId::new(self.0 as u32)
    }

    /// What stands in the stream's place in a record that has none.
    pub(crate) const fn number(self) -> u32 {
        self.0 as u32
    }

    /// The kind, if this build knows it.
    pub(crate) const fn kind(self) -> Option<RecordKind> {
        match (self.0 >> 32) as u8 {
            1 => Some(RecordKind::Data),
            2 => Some(RecordKind::Pad),
            3 => Some(RecordKind::Batch),
            5 => Some(RecordKind::Control),
            _ => None,
        }
    }

    /// Can a record of `record_len` bytes (header included) have this tag? Flags that this build
    /// does not know may change what a payload means, so such a record does not verify, as one of
    /// an unknown kind does not. Control records are the exception: one with other flags is passed
    /// over.
    #[inline]
    pub(crate) const fn is_possible(self, record_len: u32) -> bool {
        match self.kind() {
            Some(kind @ (RecordKind::Data | RecordKind::Batch)) => match self.flags() {
                0 => true,
                MOVED if matches!(kind, RecordKind::Data) => {
                    record_len as usize >= RECORD_HEADER_LEN + ORIGIN_LEN
                }
                STAMPED => record_len as usize >= RECORD_HEADER_LEN + STAMP_LEN,
                _ => false,
            },
            Some(RecordKind::Pad) => self.flags() == 0,
            Some(RecordKind::Control) => true,
            None => false,
        }
    }

    /// Does the payload begin with an origin?
    #[inline]
    pub(crate) const fn is_moved(self) -> bool {
        self.is_callers() && self.flags() & MOVED != 0
    }

    /// Does the payload begin with a producer's stamp?
    #[inline]
    pub(crate) const fn is_stamped(self) -> bool {
        self.is_callers() && self.flags() & STAMPED != 0
    }

    /// Is the record a caller's?
    #[inline]
    pub(crate) const fn is_callers(self) -> bool {
        matches!(self.kind(), Some(RecordKind::Data | RecordKind::Batch))
    }

    pub(crate) const fn flags(self) -> u8 {
        (self.0 >> 40) as u8
    }

    pub(crate) const fn epoch_low(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub(crate) const fn is_control(self, flag: u8) -> bool {
        matches!(self.kind(), Some(RecordKind::Control)) && self.flags() == flag
    }
}

/// The checksum of a whole record at `lsn` (a pad's payload does not count).
#[inline]
pub(crate) fn record_crc(seed: Seed, tag: Tag, record_len: u32, payload: &[u8], lsn: Lsn) -> u32 {
    let mut checksum = seed.start(tag.bits(), record_len);
    if tag.kind() != Some(RecordKind::Pad) {
        checksum.update(payload);
    }
    checksum.finish(lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_word_says_what_was_put_in() {
        for len in [16, 17, 1 << 16, (1 << 30) - 1] {
            let word = CommitWord::committed(len, 0);
            assert_eq!(word.state(1 << 30), WordState::Committed(len));
            assert_eq!(CommitWord::committed(len, u32::MAX).crc(), u32::MAX);
            assert_eq!(CommitWord::claimed(len).state(1 << 30), WordState::Claimed(len));
            assert_eq!(word.state(len - 1), WordState::Impossible);
        }
        assert_eq!(CommitWord::from_bits(0).state(64), WordState::Zero);
        for (bits, len_max) in (0..100).flat_map(|bits| (16..100).map(move |max| (bits, max))) {
            for word in [bits, bits | CLAIMED, bits | 1 << 32] {
                let word = CommitWord::from_bits(word);
                let len = match word.state(len_max) {
                    WordState::Committed(len) => Some(len),
                    _ => None,
                };
                assert_eq!(word.committed_len(len_max), len, "{word:?} in {len_max}");
            }
        }
        assert_eq!(CommitWord::from_bits(15).state(64), WordState::Impossible);
        assert_eq!(CommitWord::from_bits(1 << 32).state(64), WordState::Impossible);
        let claimed_with_crc = CommitWord::from_bits(CLAIMED | 32 | 1 << 40);
        assert_eq!(claimed_with_crc.state(64), WordState::Impossible);
    }

    #[test]
    fn a_tag_says_what_was_put_in() {
        let tag = Tag::new(u32::MAX, RecordKind::Control, CONTROL_DURABLE, 0x1_2345);
        assert_eq!(tag.number(), u32::MAX);
        assert!(tag.is_control(CONTROL_DURABLE));
        assert!(!tag.is_control(CONTROL_EPOCH));
        assert_eq!(tag.epoch_low(), 0x2345);
        assert_eq!(Tag::from_bits(0).kind(), None);
    }

    #[test]
    fn a_tag_is_possible_if_kind_flags_and_length_are_known() {
        use RecordKind::{Batch, Control, Data, Pad};
        let possible = |kind, flags, len| Tag::new(9, kind, flags, 3).is_possible(len);
        for flags in 0..=u8::MAX {
            for (kind, most) in [(Data, 2), (Batch, 1)] {
                assert_eq!(possible(kind, flags, 31), flags == 0, "{kind:?} {flags}");
                assert_eq!(possible(kind, flags, 32), flags <= most, "{kind:?} {flags}");
            }
            assert_eq!(possible(Pad, flags, 64), flags == 0, "{flags}");
            assert!(possible(Control, flags, 16));
        }
        assert!(!Tag::from_bits(4 << 32).is_possible(64), "an unknown kind");
    }
}
