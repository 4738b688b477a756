//! The tail: one packed word that all producers advance.
//!
//! ```text
//! { sequence: 32 | offset: 28 | flags: 4 }      offset in units of 16 bytes
//! ```
//!
//! 1. All changes are read-modify-writes, so the word has one modification order, and each claim
//!    is one `fetch_add`: byte tiling is the only order key of the log.
//! 2. An offset below the segment's record end says where the next claim starts. An offset at or
//!    beyond it says that the segment is *sealed*: whoever sees that has claimed nothing.
//! 3. The claim that takes the offset from below the record end to beyond it, without fitting,
//!    alone owns the rest of the segment.
//! 4. `SLEEPER` is set by whoever goes to sleep until something is claimed. The claimant that
//!    finds it clears it and wakes after its commit. A busy log pays nothing.
//! 5. `CLOSED` and `POISONED` freeze the log: a claim whose previous value carries one of them has
//!    claimed nothing. What was claimed before is complete: its end is the value that the freeze
//!    returned.
//! 6. Overshoot is bounded. A claim adds at most `FETCH_ADD_LEN_MAX` bytes before it looks, and a
//!    claimant that finds the segment sealed, or the log frozen, brings the offset back to the
//!    record end before it returns; so at most one addition a running thread is outstanding. With
//!    segments of at most 2^30 bytes and 32 KiB an addition, the field of 2^32 bytes overflows
//!    only with 98,304 threads in this one instruction: more than `pid_max` and the mapping limit
//!    of a process allow. It is asserted all the same.
//!
//! Ordering. The rotation's CAS is a release: it hands over the zeroed segment (which the rotator
//! acquired from `prepared`) to every claim in it. A claim acquires; since all changes are
//! read-modify-writes, each continues the release sequence of that CAS, however many claims lie
//! between. A sleeper's set is a release: a claim that comes after it sees who sleeps. A set need
//! not acquire: it returns the tail, and so tells the sleeper of every claim before it. A clear and
//! a clamp hand over nothing.

use crate::geometry::FIRST_RECORD;
use crate::sync::{AtomicU64, Ordering};

/// Claims up to this many bytes are one `fetch_add`; longer ones use a CAS, which cannot overshoot.
pub(crate) const FETCH_ADD_LEN_MAX: u32 =
    if cfg!(any(wal_loom, wal_shuttle)) { 1 << 10 } else { 32 << 10 };

/// Someone sleeps until the next claim.
pub(crate) const SLEEPER: u64 = 1;
/// The log is closed.
pub(crate) const CLOSED: u64 = 2;
/// A sync failed.
pub(crate) const POISONED: u64 = 4;

const FLAGS: u64 = 0xF;
const OFFSET: u64 = 0xFFFF_FFFF & !FLAGS;
/// Half of the offset field: far above what rule 6 allows, far below an overflow.
const OFFSET_LIMIT: u32 = 1 << 31;

/// A copied value of the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail(u64);

impl Tail {
    /// `{ sequence, offset, no flags }`
    pub(crate) fn new(sequence: u32, offset: u32) -> Tail {
        Tail(u64::from(sequence) << 32 | u64::from(offset))
    }

    #[inline]
    pub(crate) fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    pub(crate) fn offset(self) -> u32 {
        (self.0 & OFFSET) as u32
    }

    #[inline]
    pub(crate) fn flags(self) -> u64 {
        self.0 & FLAGS
    }

    #[inline]
    pub(crate) fn is_frozen(self) -> bool {
        self.0 & (CLOSED | POISONED) != 0
    }
}

/// The shared word.
pub(crate) struct TailWord(AtomicU64);

impl TailWord {
    pub(crate) fn new(tail: Tail) -> TailWord {
        TailWord(AtomicU64::new(tail.0))
    }

    /// A look without obligations.
    pub(crate) fn load(&self) -> Tail {
        // Relaxed: a value to decide from or to compare with; every step that hands something
        // over is one of the read-modify-writes below.
        Tail(self.0.load(Ordering::Relaxed))
    }

    /// A look that sees what led to the value: whoever finds a segment active finds it prepared.
    pub(crate) fn load_settled(&self) -> Tail {
        // Acquire: pairs with the rotation.
        Tail(self.0.load(Ordering::Acquire))
    }

    /// Adds `len` (a multiple of 16, at most `FETCH_ADD_LEN_MAX`) and returns the value before.
    /// Whether that was a claim is the caller's to see (rules 2, 3 and 5).
    #[inline]
    pub(crate) fn fetch_claim(&self, len: u32) -> Tail {
        debug_assert!(len <= FETCH_ADD_LEN_MAX && len.is_multiple_of(16));
        // Acquire: takes over the zeroed segment from the rotation.
        Tail(self.0.fetch_add(u64::from(len), Ordering::Acquire))
    }

    /// Replaces `{ sequence, offset }` by `{ sequence, to }`, flags kept, if nothing has changed.
    pub(crate) fn transition_claim(&self, from: Tail, to: u32) -> bool {
        let new = (from.0 & !OFFSET) | u64::from(to);
        // Acquire, as for `fetch_claim`. Relaxed on failure: the caller only tries again.
        self.0.compare_exchange(from.0, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Brings an overshot offset back to `end` (rule 6).
    pub(crate) fn transition_clamp(&self, end: u32) {
        let mut seen = self.load();
        while seen.offset() > end {
            assert!(seen.offset() < OFFSET_LIMIT, "claims overshoot by less than half the field");
            let clamped = (seen.0 & !OFFSET) | u64::from(end);
            // Relaxed: nothing is handed over, and a read-modify-write continues the release
            // sequence that it finds.
            match self.0.compare_exchange(seen.0, clamped, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = Tail(now),
            }
        }
    }

    /// Goes on from sealed segment `sequence` to the first record of the next, flags kept. True
    /// for the one thread that did it; another may have done it before.
    pub(crate) fn transition_rotate(&self, sequence: u32, end: u32) -> bool {
        let mut seen = self.load();
        loop {
            if seen.sequence() != sequence || seen.offset() < end || seen.is_frozen() {
                return false;
            }
            assert!(seen.offset() < OFFSET_LIMIT, "claims overshoot by less than half the field");
            let next = Tail::new(sequence + 1, FIRST_RECORD).0 | seen.flags();
            // Release: hands the next segment's zeroing, which the caller acquired from
            // `prepared`, to every claim in it.
            match self.0.compare_exchange(seen.0, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = Tail(now),
            }
        }
    }

    /// Sets `flag` and returns the value before.
    pub(crate) fn transition_set(&self, flag: u64) -> Tail {
        // Release: a claimant that finds the flag sees who announced itself as asleep.
        Tail(self.0.fetch_or(flag, Ordering::Release))
    }

    /// Clears `SLEEPER`; true for the one thread that did it, which owes the wake-up.
    pub(crate) fn transition_clear_sleeper(&self) -> bool {
        // Relaxed: whoever is woken is handed our commit by the lists' locks; whoever sets the flag
        // later finds our claim in the tail's value, and does not sleep long.
        self.0.fetch_and(!SLEEPER, Ordering::Relaxed) & SLEEPER != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let word = TailWord::new(Tail::new(7, 64));
        assert_eq!(word.fetch_claim(80), Tail::new(7, 64));
        assert_eq!(word.transition_set(SLEEPER).flags(), 0);
        let seen = word.load();
        assert_eq!((seen.sequence(), seen.offset(), seen.flags()), (7, 144, SLEEPER));
        assert!(word.transition_claim(seen, 4096));
        assert!(!word.transition_claim(seen, 4096));
        assert!(word.transition_clear_sleeper());
        assert!(!word.transition_clear_sleeper());
        assert_eq!(word.load(), Tail::new(7, 4096));
    }

    #[test]
    fn rotation_needs_a_sealed_segment_and_keeps_the_sleeper() {
        let word = TailWord::new(Tail::new(7, 4080));
        assert!(!word.transition_rotate(7, 4096));
        word.fetch_claim(32);
        word.transition_set(SLEEPER);
        assert!(!word.transition_rotate(6, 4096));
        assert!(word.transition_rotate(7, 4096));
        assert!(!word.transition_rotate(7, 4096));
        let seen = word.load();
        assert_eq!((seen.sequence(), seen.offset(), seen.flags()), (8, FIRST_RECORD, SLEEPER));
        let full = TailWord::new(Tail::new(7, 4096));
        assert!(full.transition_rotate(7, 4096), "without anything over");
    }

    #[test]
    fn a_frozen_log_does_not_rotate_and_overshoot_is_taken_back() {
        let word = TailWord::new(Tail::new(7, 4096));
        word.transition_set(CLOSED);
        assert!(!word.transition_rotate(7, 4096));
        for _ in 0..100 {
            word.fetch_claim(FETCH_ADD_LEN_MAX);
        }
        word.transition_clamp(4096);
        assert_eq!((word.load().offset(), word.load().flags()), (4096, CLOSED));
        word.transition_clamp(4096);
        assert_eq!(word.load().offset(), 4096);
    }
}
