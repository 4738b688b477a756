//! The segment header: one cache line in front of a segment's records.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LogId;
use crate::checksum::crc32;
use crate::lsn::Lsn;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawSegmentHeader {
    /// `sequence + 1`; zero while the segment is being recycled. Also a seqlock for readers in
    /// other processes: zeroed first, written last.
    sequence_word: U64,
    base: U64,
    /// The epoch that prepared the segment. Its first record is of this epoch.
    epoch: U64,
    log_id: LogId,
    prepared_unix_ms: U64,
    reserved: [u8; 12],
    crc: U32,
}

const_assert_eq!(size_of::<RawSegmentHeader>(), 64);
const_assert_eq!(size_of::<RawSegmentHeader>(), crate::geometry::FIRST_RECORD as usize);
const_assert_eq!(offset_of!(RawSegmentHeader, sequence_word), 0);
const_assert_eq!(offset_of!(RawSegmentHeader, base), 8);
const_assert_eq!(offset_of!(RawSegmentHeader, epoch), 16);
const_assert_eq!(offset_of!(RawSegmentHeader, log_id), 24);
const_assert_eq!(offset_of!(RawSegmentHeader, prepared_unix_ms), 40);
const_assert_eq!(offset_of!(RawSegmentHeader, reserved), 48);
const_assert_eq!(offset_of!(RawSegmentHeader, crc), 60);

/// A segment header that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) sequence: u32,
    pub(crate) base: Lsn,
    pub(crate) epoch: u64,
    pub(crate) prepared_unix_ms: u64,
}

/// What was found where segment `sequence` should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeaderEvidence {
    /// The segment that was looked for.
    Expected(SegmentHeader),
    /// A segment of an earlier lap.
    Older(SegmentHeader),
    /// A segment of a later lap.
    Newer(SegmentHeader),
    /// Never written, or being recycled.
    Zero,
    /// Anything else.
    Garbage,
}

impl SegmentHeader {
    /// The 64 bytes to write.
    pub(crate) fn encode(&self, log_id: &LogId) -> [u8; 64] {
        let mut raw = RawSegmentHeader {
            sequence_word: U64::new(u64::from(self.sequence) + 1),
            base: U64::new(self.base.get()),
            epoch: U64::new(self.epoch),
            log_id: *log_id,
            prepared_unix_ms: U64::new(self.prepared_unix_ms),
            reserved: [0; 12],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(crc32(&raw.as_bytes()[..offset_of!(RawSegmentHeader, crc)]));
        zerocopy::transmute!(raw)
    }

    /// Judges the first bytes of a ring slot in which segment `sequence` is looked for.
    pub(crate) fn verify(
        bytes: &[u8],
        log_id: &LogId,
        sequence: u32,
        base: Lsn,
    ) -> SegmentHeaderEvidence {
        let Ok((raw, _)) = RawSegmentHeader::read_from_prefix(bytes) else {
            return SegmentHeaderEvidence::Garbage;
        };
        if raw.sequence_word == U64::ZERO {
            return SegmentHeaderEvidence::Zero;
        }
        let crc = crc32(&raw.as_bytes()[..offset_of!(RawSegmentHeader, crc)]);
        let Ok(found) = u32::try_from(raw.sequence_word.get() - 1) else {
            return SegmentHeaderEvidence::Garbage;
        };
        if raw.crc.get() != crc || raw.log_id != *log_id {
            return SegmentHeaderEvidence::Garbage;
        }
        let header = SegmentHeader {
            sequence: found,
            base: Lsn::new(raw.base.get()),
            epoch: raw.epoch.get(),
            prepared_unix_ms: raw.prepared_unix_ms.get(),
        };
        match found.cmp(&sequence) {
            std::cmp::Ordering::Less => SegmentHeaderEvidence::Older(header),
            std::cmp::Ordering::Greater => SegmentHeaderEvidence::Newer(header),
            std::cmp::Ordering::Equal if header.base == base => {
                SegmentHeaderEvidence::Expected(header)
            }
            std::cmp::Ordering::Equal => SegmentHeaderEvidence::Garbage,
        }
    }
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawSegmentHeader {
    sequence_word,
    base,
    epoch,
    log_id,
    prepared_unix_ms,
    reserved,
    crc
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_what_it_finds() {
        let id = [5; 16];
        let base = Lsn::new(7 * 8192);
        // The sequence word is 7, so that no single bit makes it zero.
        let header = SegmentHeader { sequence: 6, base, epoch: 3, prepared_unix_ms: 11 };
        let bytes = header.encode(&id);
        let verify = |bytes: &[u8], sequence| SegmentHeader::verify(bytes, &id, sequence, base);
        assert_eq!(verify(&bytes, 6), SegmentHeaderEvidence::Expected(header));
        assert_eq!(verify(&bytes, 7), SegmentHeaderEvidence::Older(header));
        assert_eq!(verify(&bytes, 5), SegmentHeaderEvidence::Newer(header));
        assert_eq!(verify(&[0; 64], 7), SegmentHeaderEvidence::Zero);
        assert_eq!(verify(&bytes[..10], 7), SegmentHeaderEvidence::Garbage);
        let other = SegmentHeader::verify(&bytes, &[6; 16], 6, base);
        assert_eq!(other, SegmentHeaderEvidence::Garbage);
        let elsewhere = SegmentHeader::verify(&bytes, &id, 6, base + 8192);
        assert_eq!(elsewhere, SegmentHeaderEvidence::Garbage);
        for bit in 0..512 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&damaged, 6), SegmentHeaderEvidence::Garbage, "bit {bit}");
        }
    }
}
