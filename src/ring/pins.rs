//! Pins: a reader's hold on trim.
//!
//! 1. A slot holds 0 (free) or a pinned LSN with its lowest bit set, and the next bit too if the
//!    pin is the log's own. A pin never moves to another slot and never backwards; clones count
//!    outside, on the same slot.
//! 2. Reader: store the slot, `fence(SeqCst)`, then look whether the position is still retained.
//!    Janitor: store `trimmed`, `fence(SeqCst)`, then look at all slots. Of two such pairs at least
//!    one sees the other's store, so either the reader finds its position trimmed and gives up, or
//!    the janitor finds the pin and keeps the segment.
//! 3. A pin that goes, or moves, does so by a release store: the janitor that sees it acquires, and
//!    what it then zeroes was read before.
//! 4. The race that looks fatal: a pin moves forward just while the janitor looks. It sees the old
//!    or the new value, both of which cover everything that the reader still holds.
//! 5. The race that is fatal to a single look: a reader gives a record a pin of its own in a slot
//!    that the janitor has passed (free), then moves its own pin forward before the janitor comes
//!    to that. So the janitor looks twice: if the first look saw the moved pin, it acquired the
//!    store to the other slot, and the second look finds it.

use crate::lsn::Lsn;
use crate::sync::{AtomicBool, AtomicU64, CachePadded, Ordering, fence};

/// How many pins readers and pinned records can hold at a time.
#[cfg(not(any(wal_loom, wal_shuttle)))]
pub(crate) const PINS_MAX: usize = 256;
#[cfg(any(wal_loom, wal_shuttle))]
pub(crate) const PINS_MAX: usize = 2;
/// How many more only the log's own walks use, so that readers cannot starve them.
const PINS_OWN: usize = if cfg!(wal_loom) {
    1
} else if cfg!(wal_shuttle) {
    6
} else {
    16
};

const FREE: u64 = 0;
const PINNED: u64 = 1;
/// It goes by itself, soon: nobody has to be told that it is in the way.
const OWN: u64 = 2;
/// Positions are multiples of 16.
const BITS: u64 = 15;

/// All pins of a log.
pub(crate) struct Pins {
    slots: Box<[CachePadded<AtomicU64>]>,
    /// The janitor found a pin in its way: whoever lets go of one rings it.
    pub(crate) janitor_held: AtomicBool,
}

/// A slot that the caller owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PinSlot(usize);

impl Pins {
    pub(crate) fn new() -> Pins {
        let slots =
            (0..PINS_MAX + PINS_OWN).map(|_| CachePadded::new(AtomicU64::new(FREE))).collect();
        Pins { slots, janitor_held: AtomicBool::new(false) }
    }

    /// Takes a slot for `lsn`, if one is free; `own`: for a walk of the log itself. The caller must
    /// still check that `lsn` is retained, *after* this returns (rule 2; the fence is in here).
    pub(crate) fn try_pin(&self, lsn: Lsn, own: bool) -> Option<PinSlot> {
        let value = lsn.get() | PINNED | if own { OWN } else { 0 };
        let eligible = if own { 0..self.slots.len() } else { PINS_OWN..self.slots.len() };
        let index = eligible.into_iter().find(|index| {
            let slot = &self.slots[*index];
            // Relaxed look: only a hint. Acquire on success: what the slot's last owner read is
            // ordered before our own release of it, and so before the janitor's next zeroing. (The
            // fence below acquires too, but race detectors do not know fences.)
            slot.load(Ordering::Relaxed) == FREE
                && slot.compare_exchange(FREE, value, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        // Rule 2, the reader's half.
        fence(Ordering::SeqCst);
        Some(PinSlot(index))
    }

    /// Moves a pin forward to `lsn`. True: the janitor waits for it and must be rung.
    #[must_use]
    pub(crate) fn advance(&self, slot: PinSlot, lsn: Lsn) -> bool {
        let value = lsn.get() | PINNED;
        debug_assert!(value >= self.slots[slot.0].load(Ordering::Relaxed), "pins only advance");
        // Release: rule 3.
        self.slots[slot.0].store(value, Ordering::Release);
        // As in `unpin`.
        fence(Ordering::SeqCst);
        self.janitor_held.load(Ordering::Relaxed)
    }

    /// Gives a slot back. True: the janitor waits for it and must be rung.
    #[must_use]
    pub(crate) fn unpin(&self, slot: PinSlot) -> bool {
        // Release: rule 3.
        self.slots[slot.0].store(FREE, Ordering::Release);
        // Pairs with the fence in `floor`: either the janitor saw the slot free, or we see that
        // it is held.
        fence(Ordering::SeqCst);
        self.janitor_held.load(Ordering::Relaxed)
    }

    /// The lowest pinned position, if anything is pinned. The caller has stored `trimmed`, and
    /// `janitor_held` if it is going to sleep, before.
    pub(crate) fn floor(&self) -> Option<Lsn> {
        self.floor_among(PINNED)
    }

    /// As `floor`, of the readers' pins alone.
    pub(crate) fn readers_floor(&self) -> Option<Lsn> {
        self.floor_among(PINNED | OWN)
    }

    /// The lowest of the pins in which, of the bits `looked_at`, `PINNED` alone is set.
    fn floor_among(&self, looked_at: u64) -> Option<Lsn> {
        // Rule 2, the janitor's half.
        fence(Ordering::SeqCst);
        self.slots
            .iter()
            .chain(&self.slots)
            // Acquire: rules 3 and 5.
            .map(|slot| slot.load(Ordering::Acquire))
            .filter(|value| *value & looked_at == PINNED)
            .min()
            .map(|value| Lsn::new(value & !BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_lowest_pin() {
        let pins = Pins::new();
        assert_eq!(pins.floor(), None);
        let low = pins.try_pin(Lsn::new(64), false).expect("a slot is free");
        let high = pins.try_pin(Lsn::new(4096), false).expect("a slot is free");
        assert_eq!(pins.floor(), Some(Lsn::new(64)));
        assert!(!pins.advance(low, Lsn::new(8192)));
        assert_eq!(pins.floor(), Some(Lsn::new(4096)));
        assert!(!pins.unpin(high));
        assert_eq!(pins.floor(), Some(Lsn::new(8192)));
        pins.janitor_held.store(true, Ordering::Relaxed);
        assert!(pins.unpin(low));
        assert_eq!(pins.floor(), None);
    }

    #[test]
    fn the_readers_floor_leaves_out_the_logs_own_pins() {
        let pins = Pins::new();
        let own = pins.try_pin(Lsn::new(64), true).expect("a slot is free");
        assert_eq!((pins.floor(), pins.readers_floor()), (Some(Lsn::new(64)), None));
        let reader = pins.try_pin(Lsn::new(4096), false).expect("a slot is free");
        assert_eq!(pins.readers_floor(), Some(Lsn::new(4096)));
        assert_eq!(pins.floor(), Some(Lsn::new(64)));
        assert!(!pins.unpin(own) && !pins.unpin(reader));
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let pins = Pins::new();
        let slots: Vec<_> = (0..PINS_MAX).map(|_| pins.try_pin(Lsn::new(64), false)).collect();
        assert!(slots.iter().all(Option::is_some));
        assert_eq!(pins.try_pin(Lsn::new(64), false), None);
        assert!(pins.try_pin(Lsn::new(64), true).is_some(), "the log's own walks go on");
        let _ = pins.unpin(slots[3].expect("all were had"));
        assert_eq!(pins.try_pin(Lsn::new(64), false), slots[3]);
    }
}
