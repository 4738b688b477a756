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

use crate::checksum::Seed;
use crate::geometry::{RECORD_ALIGN, RECORD_HEADER_LEN};
use crate::lsn::Lsn;

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
    /// The log's own.
    Control = 5,
}

/// A control record that opens an epoch: the payload is the epoch in full.
pub(crate) const CONTROL_EPOCH: u8 = 1;
/// A control record without payload that a sync leaves: its stream id is the distance back to the
/// position proven durable, in units of 16 bytes.
pub(crate) const CONTROL_DURABLE: u8 = 2;

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

    pub(crate) const fn stream(self) -> u32 {
        self.0 as u32
    }

    /// The kind, if this build knows it.
    pub(crate) const fn kind(self) -> Option<RecordKind> {
        match (self.0 >> 32) as u8 {
            1 => Some(RecordKind::Data),
            2 => Some(RecordKind::Pad),
            5 => Some(RecordKind::Control),
            _ => None,
        }
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
        assert_eq!(CommitWord::from_bits(15).state(64), WordState::Impossible);
        assert_eq!(CommitWord::from_bits(1 << 32).state(64), WordState::Impossible);
        let claimed_with_crc = CommitWord::from_bits(CLAIMED | 32 | 1 << 40);
        assert_eq!(claimed_with_crc.state(64), WordState::Impossible);
    }

    #[test]
    fn a_tag_says_what_was_put_in() {
        let tag = Tag::new(u32::MAX, RecordKind::Control, CONTROL_DURABLE, 0x1_2345);
        assert_eq!(tag.stream(), u32::MAX);
        assert!(tag.is_control(CONTROL_DURABLE));
        assert!(!tag.is_control(CONTROL_EPOCH));
        assert_eq!(tag.epoch_low(), 0x2345);
        assert_eq!(Tag::from_bits(0).kind(), None);
    }
}
