//! Publishing: moving `published` over the contiguous committed prefix.
//!
//! 1. Anyone may walk. A walk starts at `published` = L, under a pin on L, reads commit words with
//!    acquire, and ends in `CAS(published, L -> L')`.
//! 2. It is a CAS and never a maximum: a walker that slept before it had its pin, while others
//!    published, trimmed and recycled, would otherwise read payload as commit words. With the pin
//!    it finds `trimmed` beyond L and walks again.
//! 3. A thread whose own record starts at `published` needs no walk to move it over that record.
//! 4. A walk that stops at a word that is zero or claimed has met the end, or a hole.

use std::ops::Range;

use super::{PinRefusal, Ring};
use crate::layout::record::{WordState, aligned_len};
use crate::layout::{CommitWord, Tag};
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::sync::Ordering;

/// A walk hands over its progress at least this often, in bytes.
const STRIDE: u64 = 1 << 20;

struct Walk {
    end: Lsn,
    /// Callers' records that were passed.
    records: u64,
    /// The walk stopped for its stride's sake.
    more: bool,
}

impl Ring {
    /// Publishes what is committed; returns the watermark.
    pub(crate) fn publish(&self) -> Lsn {
        loop {
            let start = self.published();
            let walk = match self.pin(start, true) {
                Ok(_pin) => self.walk(start),
                // Others are ahead of us (rule 2), or busy at it.
                Err(PinRefusal::Trimmed) => continue,
                Err(PinRefusal::NoSlot) => return start,
            };
            if walk.end == start {
                return start;
            }
            // Release: whoever acquires `published` sees every commit that the walk acquired. What
            // lies below `start` was acquired with it.
            let moved = self.published.compare_exchange(
                start,
                walk.end,
                Ordering::Release,
                Ordering::Relaxed,
            );
            if moved.is_ok() {
                count(&self.counters.records_published, walk.records);
                if !walk.more {
                    return walk.end;
                }
            }
        }
    }

    /// Publishes `[lsn, end)`, a record that the calling thread has just committed, without a walk;
    /// false if something before it is not published. It takes over all that is.
    pub(crate) fn publish_own(&self, lsn: Lsn, end: Lsn) -> bool {
        // Release: as in `publish`, of our own commit. Acquire: what lies below was released with
        // `published`. No pin: we read nothing, and rule 2 is the comparison's.
        let moved = self.published.compare_exchange(lsn, end, Ordering::AcqRel, Ordering::Relaxed);
        if moved.is_ok() {
            count(&self.counters.records_published, 1);
        }
        moved.is_ok()
    }

    /// Walks commit words from `start`, which the caller has pinned.
    fn walk(&self, start: Lsn) -> Walk {
        let end = self.geometry.record_end();
        let mut walk = Walk { end: start, records: 0, more: false };
        loop {
            let (sequence, offset) = self.geometry.split(walk.end);
            // At the very last segment's end there is no next one.
            if u64::from(sequence) >= self.prepared() || offset >= end {
                return walk;
            }
            let left = STRIDE - (walk.end - start).min(STRIDE);
            let limit = u64::from(end).min(u64::from(offset) + left) as u32;
            let reached = self.walk_segment(sequence, offset..limit, &mut walk.records);
            walk.end = self.geometry.normalize(self.geometry.lsn(sequence, reached));
            if reached < limit {
                return walk;
            }
            if walk.end - start >= STRIDE {
                walk.more = true;
                return walk;
            }
        }
    }

    /// Walks the records that start in `range` of a segment; returns where the last one ends, which
    /// is below `range.end` only at the end of the log or at a hole.
    fn walk_segment(&self, sequence: u32, range: Range<u32>, records: &mut u64) -> u32 {
        let end = self.geometry.record_end();
        let words = self.region.words(self.geometry.segment_offset(sequence), end);
        let mut offset = range.start;
        while offset < range.end {
            let (word, tag) = words.header(offset);
            // Acquire: takes over the record from its owner's commit.
            let word = CommitWord::from_bits(word.load(Ordering::Acquire));
            let WordState::Committed(len) = word.state(end - offset) else {
                break;
            };
            // Relaxed: ordered by the commit word.
            let tag = Tag::from_bits(tag.load(Ordering::Relaxed));
            *records += u64::from(tag.is_callers());
            offset += aligned_len(len);
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use crate::ring::tests::ring;

    /// In several strides, and in a segment and over its end.
    #[test]
    fn all_that_is_committed_is_published_at_once() {
        let size = 4 * STRIDE;
        let geometry = Geometry::checked(2 * size, size, 12_288).expect("in bounds");
        let ring = ring(geometry, 2);
        for _ in 0..7 {
            ring.commit_pad(ring.try_claim(STRIDE as u32 - 4096).expect("there is room"));
        }
        assert_eq!(geometry.sequence(ring.reserved()), 1);
        assert_eq!(ring.publish(), ring.reserved());
    }

    /// A walk hands over what it has, so that it does not hold a segment for long.
    #[test]
    fn a_walk_goes_no_further_than_a_stride() {
        let (size, piece) = (3 * STRIDE / 2, STRIDE / 4);
        let geometry = Geometry::checked(6 * size, size, 12_288).expect("in bounds");
        let ring = ring(geometry, 6);
        for _ in 0..24 {
            ring.commit_pad(ring.try_claim(piece as u32).expect("there is room"));
        }
        let mut at = ring.published();
        while at < ring.reserved() {
            let walk = ring.walk(at);
            // A record that begins within it is passed, and perhaps the end of a segment.
            assert!(walk.end - at < STRIDE + piece + 4096, "from {at} to {}", walk.end);
            assert!(walk.more || walk.end == ring.reserved(), "from {at} to {}", walk.end);
            at = walk.end;
        }
    }
}
