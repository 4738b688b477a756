//! Publishing: moving `published` over the contiguous committed prefix.
//!
//! 1. Anyone may walk. A walk starts at `published` = L, under a pin on L, reads commit words with
//!    acquire, and ends in `CAS(published, L -> L')`.
//! 2. It is a CAS and never a maximum: a walker that slept before it had its pin, while others
//!    published, trimmed and recycled, would otherwise read payload as commit words. With the pin
//!    it finds `trimmed` beyond L and walks again.
//! 3. A walk that stops at a word that is zero or claimed has met the end, or a hole.

use super::{PinRefusal, Ring};
use crate::layout::record::{WordState, aligned_len};
use crate::layout::{CommitWord, RecordKind, Tag};
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
            // Release: whoever acquires `published` sees every commit that the walk acquired.
            let moved = self.published.compare_exchange(
                start,
                walk.end,
                Ordering::AcqRel,
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

    /// Walks commit words from `start`, which the caller has pinned.
    fn walk(&self, start: Lsn) -> Walk {
        let end = self.geometry.record_end();
        let mut walk = Walk { end: start, records: 0, more: false };
        loop {
            let (sequence, mut offset) = self.geometry.split(walk.end);
            // At the very last segment's end there is no next one.
            if u64::from(sequence) >= self.prepared() || offset >= end {
                return walk;
            }
            let base = self.geometry.segment_offset(sequence);
            while offset < end {
                if walk.end - start >= STRIDE {
                    walk.more = true;
                    return walk;
                }
                let at = base + u64::from(offset);
                // Acquire: takes over the record from its owner's commit.
                let word = CommitWord::from_bits(self.region.word(at).load(Ordering::Acquire));
                let WordState::Committed(len) = word.state(end - offset) else {
                    return walk;
                };
                // Relaxed: ordered by the commit word.
                let tag = Tag::from_bits(self.region.word(at + 8).load(Ordering::Relaxed));
                walk.records += u64::from(tag.kind() == Some(RecordKind::Data));
                offset += aligned_len(len);
                walk.end = self.geometry.normalize(self.geometry.lsn(sequence, offset));
            }
        }
    }
}
