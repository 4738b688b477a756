//! Geometry: the sizes that a log is created with, and all position arithmetic that follows.
//!
//! A geometry is persisted once and never changes; what may differ at each open is in
//! [`Options`](crate::Options). Nothing else in the crate computes positions inline.

use std::ops::Range;

use crate::error::GeometryError;
use crate::lsn::Lsn;

/// Page size of the format: superblock, checkpoint slots and footers take one page each.
pub(crate) const PAGE_SIZE: u64 = 4096;
/// Records start and end at multiples of this.
pub(crate) const RECORD_ALIGN: u64 = 16;
/// Size of a record's header.
pub(crate) const RECORD_HEADER_LEN: usize = 16;
/// A segment's records start behind its header, which is one cache line.
pub(crate) const FIRST_RECORD: u32 = 64;
/// Where the segments start: a large-page boundary, so that the ring can be mapped by large pages.
pub(crate) const DATA_OFFSET: u64 = 2 << 20;
/// No segment lies before this: the superblock and the two slots have a page each.
pub(crate) const DATA_OFFSET_MIN: u64 = 3 * PAGE_SIZE;

const SEGMENT_SIZE_MIN: u64 = 64 << 10;
const SEGMENT_SIZE_MAX: u64 = 1 << 30;
const SEGMENTS_MIN: u64 = 2;

/// The sizes of a log: how large the ring is and how it is cut into segments.
///
/// Space is recycled a segment at a time, and a record never straddles two segments. A segment
/// sequence has 32 bits, so a log ends for good (`AppendError::Exhausted`) after 2^32 segments:
/// 64 PiB at the default of 16 MiB, 256 TiB at the smallest of 64 KiB.
///
/// # Example
///
/// ```
/// use kaelix_wal::Geometry;
///
/// let geometry = Geometry::new(64 << 20, 4 << 20)?;
/// assert_eq!(geometry.segments(), 16);
/// # Ok::<(), kaelix_wal::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    segment_size: u32,
    segments: u32,
    data_offset: u64,
    /// `ceil(2^64 / segments)`: a remainder by two multiplications (Lemire, "fastmod").
    slot_factor: u64,
}

impl Default for Geometry {
    /// 256 MiB in segments of 16 MiB.
    fn default() -> Geometry {
        Geometry::trusted(16 << 20, 16, DATA_OFFSET)
    }
}

impl Geometry {
    /// A ring of `size` bytes in segments of `segment_size` bytes.
    ///
    /// # Errors
    ///
    /// A segment is a multiple of 4 KiB, from 64 KiB to 1 GiB; the ring is a multiple of it, at
    /// least two.
    pub fn new(size: u64, segment_size: u64) -> Result<Geometry, GeometryError> {
        if segment_size < SEGMENT_SIZE_MIN {
            return Err(GeometryError::SegmentSize { segment_size });
        }
        Geometry::checked(size, segment_size, DATA_OFFSET)
    }

    /// As `new`, for any data offset and down to segments of two pages: what a superblock may
    /// hold, and what exhaustive tests of small rings need.
    pub(crate) fn checked(
        size: u64,
        segment_size: u64,
        data_offset: u64,
    ) -> Result<Geometry, GeometryError> {
        let pages = segment_size.is_multiple_of(PAGE_SIZE) && data_offset.is_multiple_of(PAGE_SIZE);
        if !pages || !(2 * PAGE_SIZE..=SEGMENT_SIZE_MAX).contains(&segment_size) {
            return Err(GeometryError::SegmentSize { segment_size });
        }
        let segments = size / segment_size;
        if !size.is_multiple_of(segment_size)
            || !(SEGMENTS_MIN..=u64::from(u32::MAX)).contains(&segments)
        {
            return Err(GeometryError::Size { size, segment_size });
        }
        if !(DATA_OFFSET_MIN..=DATA_OFFSET).contains(&data_offset) {
            return Err(GeometryError::Size { size, segment_size });
        }
        Ok(Geometry::trusted(segment_size as u32, segments as u32, data_offset))
    }

    /// A ring of `size` bytes with segments like these.
    pub(crate) fn resized(&self, size: u64) -> Result<Geometry, GeometryError> {
        Geometry::checked(size, self.segment_size(), self.data_offset())
    }

    fn trusted(segment_size: u32, segments: u32, data_offset: u64) -> Geometry {
        let slot_factor = (u64::MAX / u64::from(segments)) + 1;
        Geometry { segment_size, segments, data_offset, slot_factor }
    }

    /// Bytes of one segment.
    #[must_use]
    pub fn segment_size(&self) -> u64 {
        u64::from(self.segment_size)
    }

    /// How many segments the ring has.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Bytes of the whole ring.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment_size() * u64::from(self.segments)
    }

    /// The largest payload that a record can carry, in bytes: what fits between the header and the
    /// footer page of one segment.
    #[must_use]
    pub fn payload_len_max(&self) -> usize {
        (self.record_end() - FIRST_RECORD) as usize - RECORD_HEADER_LEN
    }

    /// Length of the ring file in bytes: superblock and checkpoint pages, then the ring.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.data_offset + self.capacity()
    }

    /// Where the first segment starts in the file.
    pub(crate) fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The offset in a segment at which records end: its last page is kept for the footer.
    #[inline]
    pub(crate) fn record_end(&self) -> u32 {
        self.segment_size - PAGE_SIZE as u32
    }

    /// The LSN at `offset` of segment `sequence`.
    #[inline]
    pub(crate) fn lsn(&self, sequence: u32, offset: u32) -> Lsn {
        Lsn::new(u64::from(sequence) * self.segment_size() + u64::from(offset))
    }

    /// The first record position of segment `sequence`.
    pub(crate) fn first_record(&self, sequence: u32) -> Lsn {
        self.lsn(sequence, FIRST_RECORD)
    }

    /// The segment sequence and the offset in it of `lsn`. The sequence saturates: an LSN from
    /// outside may lie beyond the end of all logs.
    pub(crate) fn split(&self, lsn: Lsn) -> (u32, u32) {
        let sequence = lsn.get() / self.segment_size();
        let offset = (lsn.get() % self.segment_size()) as u32;
        (u32::try_from(sequence).unwrap_or(u32::MAX), offset)
    }

    /// The segment sequence of `lsn`.
    pub(crate) fn sequence(&self, lsn: Lsn) -> u32 {
        self.split(lsn).0
    }

    /// Where the record after a record that ends at `lsn` starts: `lsn` itself, or the first
    /// record position of the next segment. Watermarks are kept in this form, so that two that
    /// mean the same are equal.
    pub(crate) fn normalize(&self, lsn: Lsn) -> Lsn {
        let (sequence, offset) = self.split(lsn);
        if offset < FIRST_RECORD {
            self.first_record(sequence)
        } else if offset >= self.record_end() && sequence < u32::MAX {
            self.first_record(sequence + 1)
        } else {
            lsn
        }
    }

    /// The ring slot that segment `sequence` lies in: `sequence % segments`.
    #[inline]
    pub(crate) fn slot(&self, sequence: u32) -> u32 {
        let fraction = self.slot_factor.wrapping_mul(u64::from(sequence));
        ((u128::from(fraction) * u128::from(self.segments)) >> 64) as u32
    }

    /// The file offset of segment `sequence`.
    #[inline]
    pub(crate) fn segment_offset(&self, sequence: u32) -> u64 {
        self.slot_offset(self.slot(sequence))
    }

    /// The file offset of the footer page of segment `sequence`.
    pub(crate) fn footer_offset(&self, sequence: u32) -> u64 {
        self.segment_offset(sequence) + u64::from(self.record_end())
    }

    /// The file offset of ring slot `slot`.
    #[inline]
    pub(crate) fn slot_offset(&self, slot: u32) -> u64 {
        self.data_offset + u64::from(slot) * self.segment_size()
    }

    /// The file offset of `lsn`.
    pub(crate) fn file_offset(&self, lsn: Lsn) -> u64 {
        let (sequence, offset) = self.split(lsn);
        self.segment_offset(sequence) + u64::from(offset)
    }

    /// What is to be written of `[from, to)` first: how far that goes, at most to the end of a
    /// segment, and its bytes in the file. Where a segment's first record begins it, the segment's
    /// header is part of it.
    pub(crate) fn first_bytes(&self, from: Lsn, to: Lsn) -> (Lsn, Range<u64>) {
        let (sequence, offset) = self.split(from);
        let end = match sequence.checked_add(1).map(|next| self.first_record(next)) {
            Some(next) if to >= next => (next, u64::from(self.record_end())),
            _ => (to, u64::from(offset) + to.get().saturating_sub(from.get())),
        };
        let start = if offset <= FIRST_RECORD { 0 } else { u64::from(offset) };
        let base = self.segment_offset(sequence);
        (end.0, base + start..base + end.1)
    }

    /// The page-aligned file ranges that hold `[from, to)`, in log order, neighbours joined. At
    /// most one lap. A range that ends where a segment's records start leaves that segment alone.
    pub(crate) fn file_ranges(&self, from: Lsn, to: Lsn) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = from;
        let to = match self.split(to) {
            (sequence, offset) if offset <= FIRST_RECORD => self.lsn(sequence, 0),
            _ => to,
        };
        while at < to {
            let (sequence, offset) = self.split(at);
            let end = to.min(self.lsn(sequence, 0) + self.segment_size());
            let base = self.segment_offset(sequence);
            let start = base + u64::from(offset) / PAGE_SIZE * PAGE_SIZE;
            let len = end - self.lsn(sequence, 0);
            let stop = base + len.next_multiple_of(PAGE_SIZE);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = stop,
                _ => ranges.push(start..stop),
            }
            at = end;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounded() {
        assert!(Geometry::new(128 << 10, 64 << 10).is_ok());
        for (size, segment) in [
            (0, 0),
            (64 << 10, 64 << 10),
            (128 << 10, 32 << 10),
            (1 << 30, (64 << 10) + 1),
            ((1 << 20) + 4096, 1 << 20),
            (4 << 30, 2 << 30),
            (u64::MAX, 64 << 10),
        ] {
            assert!(Geometry::new(size, segment).is_err(), "{size} / {segment}");
        }
    }

    #[test]
    fn slots_are_remainders() {
        for segments in [2_u64, 3, 4, 5, 7, 16, 1000, 65_537, u64::from(u32::MAX)] {
            let geometry = Geometry::checked(segments * 8192, 8192, 3 * PAGE_SIZE)
                .expect("these sizes are in bounds");
            for sequence in [0, 1, 2, 6, 15, 16, 17, 999, 1000, 65_536, u32::MAX - 1, u32::MAX] {
                let want = (u64::from(sequence) % segments) as u32;
                assert_eq!(geometry.slot(sequence), want, "{sequence} % {segments}");
            }
        }
    }

    #[test]
    fn positions_survive_the_round_trip() {
        let geometry = Geometry::checked(3 * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        assert_eq!(geometry.split(geometry.lsn(7, 80)), (7, 80));
        assert_eq!(geometry.normalize(geometry.lsn(7, 0)), geometry.lsn(7, 64));
        assert_eq!(geometry.normalize(geometry.lsn(7, 4096)), geometry.lsn(8, 64));
        assert_eq!(geometry.normalize(geometry.lsn(7, 4080)), geometry.lsn(7, 4080));
        assert_eq!(geometry.file_offset(geometry.lsn(7, 80)), 3 * 4096 + 8192 + 80);
    }

    #[test]
    fn first_bytes_begin_with_the_header_and_end_with_the_segment() {
        let geometry = Geometry::checked(3 * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        let base = 3 * PAGE_SIZE;
        let first = |from, to| geometry.first_bytes(from, to);
        let (from, to) = (geometry.lsn(0, 80), geometry.lsn(0, 96));
        assert_eq!(first(from, to), (to, base + 80..base + 96));
        let (from, to) = (geometry.lsn(3, 64), geometry.lsn(3, 96));
        assert_eq!(first(from, to), (to, base..base + 96));
        let next = geometry.lsn(4, 64);
        assert_eq!(first(geometry.lsn(3, 0), next), (next, base..base + 4096));
        let second = base + 8192;
        let bytes = second + 80..second + 4096;
        assert_eq!(first(geometry.lsn(4, 80), geometry.lsn(9, 80)), (geometry.lsn(5, 64), bytes));
        assert_eq!(first(geometry.lsn(1, 80), geometry.lsn(1, 64)).1, second + 80..second + 80);
    }

    #[test]
    fn ranges_cover_pages_and_wrap() {
        let geometry = Geometry::checked(3 * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        let base = 3 * PAGE_SIZE;
        let within = geometry.file_ranges(geometry.lsn(0, 80), geometry.lsn(0, 96));
        assert_eq!(within.as_slice(), std::slice::from_ref(&(base..base + 4096)));
        let wrapped = geometry.file_ranges(geometry.lsn(2, 80), geometry.lsn(3, 96));
        assert_eq!(wrapped, [base + 2 * 8192..base + 3 * 8192, base..base + 4096]);
        let joined = geometry.file_ranges(geometry.lsn(0, 64), geometry.lsn(2, 80));
        assert_eq!(joined.as_slice(), std::slice::from_ref(&(base..base + 2 * 8192 + 4096)));
        let whole = geometry.file_ranges(geometry.lsn(0, 64), geometry.lsn(2, 64));
        assert_eq!(whole.as_slice(), std::slice::from_ref(&(base..base + 2 * 8192)));
        assert!(geometry.file_ranges(geometry.lsn(1, 64), geometry.lsn(1, 64)).is_empty());
    }
}
