//! Preparing a segment: zeroed, then given its header.
//!
//! Zero bytes are what makes "commit word = 0" mean "nothing here yet": stale payload of the last
//! lap could look like anything. Zeroing also takes the page faults off the writers' path. The
//! sequence word is zeroed first and written last, so that a reader in another process, which
//! copies and then looks at the word again, never takes a half-prepared segment for a whole one.

use std::ops::Range;

use crate::files::unix_ms;
use crate::geometry::{FIRST_RECORD, Geometry};
use crate::layout::{Identity, SegmentHeader};
use crate::region::Region;
use crate::sync::{Ordering, fence};

/// How much is zeroed at a time: a tenth of a millisecond's work.
const SLICE: u64 = 256 << 10;

/// Prepares segment `sequence` in its ring slot. Asks `goes_on` between two slices of the work: if
/// it does not, the slot is left as a crash would leave it. Says whether the segment is prepared.
///
/// # Safety
///
/// Nobody else in this process touches the slot meanwhile: what it held is below `trimmed` and
/// not pinned, or no ring is running yet.
pub(crate) unsafe fn prepare_segment(
    region: &Region,
    geometry: &Geometry,
    identity: &Identity,
    sequence: u32,
    goes_on: impl Fn() -> bool,
) -> bool {
    let start = geometry.segment_offset(sequence);
    let header = SegmentHeader {
        sequence,
        base: geometry.lsn(sequence, 0),
        epoch: identity.epoch,
        prepared_unix_ms: unix_ms(),
    };
    let bytes = header.encode(&identity.log_id);
    let (word, rest) = bytes.split_at(8);
    // Relaxed, then a release fence: whoever sees any of the stores below sees the zero too.
    region.word(start).store(0, Ordering::Relaxed);
    fence(Ordering::Release);
    // SAFETY: exclusive by this function's contract; the sequence word, at which others may look,
    // is left out.
    let zeroed = unsafe { zero(region, start + 8..start + geometry.segment_size(), goes_on) };
    if !zeroed {
        return false;
    }
    // SAFETY: as above: the header behind its sequence word.
    unsafe { region.write(start + 8, rest) };
    debug_assert_eq!(bytes.len(), FIRST_RECORD as usize);
    let word = u64::from_le_bytes(word.try_into().expect("split at 8"));
    // Release: the seqlock's closing store.
    region.word(start).store(word.to_le(), Ordering::Release);
    true
}

/// Zeroes `range`, a slice at a time, unless it does not go on in between.
///
/// # Safety
///
/// Nobody else touches the range meanwhile.
unsafe fn zero(region: &Region, range: Range<u64>, goes_on: impl Fn() -> bool) -> bool {
    let mut at = range.start;
    while at < range.end {
        if at > range.start && !goes_on() {
            return false;
        }
        let next = (at + SLICE).min(range.end);
        // SAFETY: a part of the range, exclusive by this function's contract.
        unsafe { region.zero(at..next) };
        at = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::region::Simulated;

    /// Given up half-way, the slot holds no segment, whatever it held before.
    #[test]
    fn what_does_not_go_on_is_not_prepared() {
        let geometry = Geometry::new(4 * 4 * SLICE, 4 * SLICE).expect("in bounds");
        let region = Region::new(Simulated::new(vec![0xA5; geometry.file_len() as usize]));
        let identity = Identity { log_id: [7; 16], epoch: 3 };
        let start = geometry.segment_offset(1);
        let header = || region.word(start).load(Ordering::Relaxed);
        let asked = Cell::new(0);
        let prepare = |goes_on: u32| {
            asked.set(0);
            // SAFETY: nothing else runs.
            let prepared = unsafe {
                prepare_segment(&region, &geometry, &identity, 1, || {
                    asked.set(asked.get() + 1);
                    asked.get() < goes_on
                })
            };
            (prepared, asked.get(), header() != 0)
        };
        assert_eq!(prepare(4), (true, 3, true));
        assert_eq!(prepare(3), (false, 3, false));
        assert_eq!(prepare(4), (true, 3, true));
    }
}
