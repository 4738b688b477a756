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

/// Prepares segment `sequence` in its ring slot. Calls `between` between two slices of the work.
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
    between: impl Fn(),
) {
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
    unsafe { zero(region, start + 8..start + geometry.segment_size(), between) };
    // SAFETY: as above: the header behind its sequence word.
    unsafe { region.write(start + 8, rest) };
    debug_assert_eq!(bytes.len(), FIRST_RECORD as usize);
    let word = u64::from_le_bytes(word.try_into().expect("split at 8"));
    // Release: the seqlock's closing store.
    region.word(start).store(word.to_le(), Ordering::Release);
}

/// Zeroes `range`, a slice at a time.
///
/// # Safety
///
/// Nobody else touches the range meanwhile.
unsafe fn zero(region: &Region, range: Range<u64>, between: impl Fn()) {
    let mut at = range.start;
    while at < range.end {
        if at > range.start {
            between();
        }
        let next = (at + SLICE).min(range.end);
        // SAFETY: a part of the range, exclusive by this function's contract.
        unsafe { region.zero(at..next) };
        at = next;
    }
}
