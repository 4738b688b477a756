//! The janitor: a background thread that keeps prepared segments in front of the producers.
//!
//! 1. It works when it is rung (a segment was sealed, a checkpoint came, a pin went, a producer
//!    found the ring full) and sleeps otherwise, without a timer.
//! 2. It prepares a bounded number of segments ahead. More would only dirty pages early.
//! 3. Before it recycles anything below a new `trimmed`, that is persisted in a slot.
//! 4. It never passes `durable` (`published`, in the mode without durability) or a pin.

use std::time::Duration;

use crate::error::SyncFailure;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::options::{Durability, OnFull, Options};
use crate::ring::Ring;
use crate::segments::prepare::prepare_segment;
use crate::segments::slots::SlotWriter;
use crate::sync::{self, Arc, AtomicBool, AtomicU64, Mutex, Ordering, fence, lock};

/// How many bytes of prepared segments are kept in front of the producers, if the ring allows.
const AHEAD_BYTES: u64 = 64 << 20;

/// Between two slices of a segment's preparation, if there is no hurry.
const REST: Duration = Duration::from_micros(500);

/// The janitor's state, shared with those who ask for a checkpoint.
pub(crate) struct Janitor {
    ring: Arc<Ring>,
    slots: Arc<SlotWriter>,
    options: Options,
    /// The highest checkpoint that was asked for.
    requested: AtomicU64,
    /// It cannot go on before `durable` advances: whoever advances it rings.
    awaits_durable: AtomicBool,
    stop: AtomicBool,
    /// Segments below this sequence take a place whose pages in the page cache were read, not
    /// written (see `Backing::evict`).
    first_lap_end: u64,
    /// One trim at a time: the slot and the watermark move together.
    trim: Mutex<()>,
}

/// What keeps the next segment from being prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepared,
    /// Enough are prepared.
    Enough,
    /// A checkpoint, a sync, or the end of a pin has to come first.
    Blocked,
}

/// How many segments are kept prepared beyond the active one.
pub(crate) fn segments_ahead(geometry: &Geometry) -> u64 {
    let most = u64::from(geometry.segments()) - 1;
    AHEAD_BYTES.div_ceil(geometry.segment_size()).clamp(1, (most / 2).max(1))
}

impl Janitor {
    /// `reopened`: the log was there before, and lies in the page cache as it was read.
    pub(crate) fn new(
        ring: Arc<Ring>,
        slots: Arc<SlotWriter>,
        options: Options,
        reopened: bool,
    ) -> Janitor {
        let requested = AtomicU64::new(ring.trimmed().get());
        let lap_end = ring.prepared() + u64::from(ring.geometry().segments());
        let first_lap_end = if reopened { lap_end } else { 0 };
        Janitor {
            ring,
            slots,
            options,
            requested,
            awaits_durable: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            first_lap_end,
            trim: Mutex::new(()),
        }
    }

    /// The thread's body. `on_failure` poisons the log.
    pub(crate) fn run(&self, on_failure: impl Fn(SyncFailure)) {
        // Relaxed: the bell hands it over.
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(failure) = self.pass() {
                on_failure(failure);
                return;
            }
            self.ring.janitor_bell.wait(None);
        }
    }

    /// Ends the thread at its next look.
    pub(crate) fn stop(&self) {
        // Relaxed: as in `run`.
        self.stop.store(true, Ordering::Relaxed);
        self.ring.janitor_bell.ring();
    }

    /// Everything below `lsn` is applied elsewhere. It is released when space is needed.
    pub(crate) fn request(&self, lsn: Lsn) {
        // Relaxed: a number. What may be recycled is decided by `trimmed` and the pins.
        self.requested.fetch_max(lsn.get(), Ordering::Relaxed);
        // Pairs with the fence in `step`: either we see that segments are short, or the janitor,
        // which is rung when one is sealed, sees the request.
        fence(Ordering::SeqCst);
        if self.shortage() {
            self.ring.janitor_bell.ring();
        }
    }

    /// Someone has advanced `durable`.
    pub(crate) fn durable_advanced(&self) {
        // Pairs with the fence in `release`: either we see that it waits, or it sees `durable`.
        // The flusher's `nap` relies on this fence as well.
        fence(Ordering::SeqCst);
        if self.awaits_durable.load(Ordering::Relaxed) {
            self.ring.janitor_bell.ring();
        }
    }

    /// Could the janitor do better than it has, were space released? Then full is not final.
    pub(crate) fn shortage(&self) -> bool {
        let active = u64::from(self.ring.active_sequence());
        self.ring.prepared() < active + 1 + segments_ahead(self.ring.geometry())
    }

    /// Can space become free without a new checkpoint and without the end of a pin? (A sync, or
    /// the janitor's own work, is under way, or the oldest may be overwritten.)
    pub(crate) fn can_progress(&self) -> bool {
        let Some(victim) = self.victim(self.ring.prepared()) else {
            return true;
        };
        let may_go = self.options.on_full == OnFull::Overwrite
            || self.requested().max(self.ring.trimmed()) >= victim.release;
        may_go && self.ring.readers_pin_floor().is_none_or(|pinned| pinned >= victim.release)
    }

    /// The end of the segment that has to go before the ring has room again.
    pub(crate) fn victim_end(&self) -> Option<Lsn> {
        self.victim(self.ring.prepared()).map(|victim| victim.release)
    }

    /// The highest checkpoint that was asked for.
    pub(crate) fn requested(&self) -> Lsn {
        // Relaxed: as in `request`.
        Lsn::new(self.requested.load(Ordering::Relaxed))
    }

    /// Persists a trim up to what was asked for, as far as it is allowed.
    pub(crate) fn persist_trim(&self) -> Result<Lsn, SyncFailure> {
        let target = self.requested().min(self.trim_bound());
        self.trim_to(target)?;
        Ok(self.ring.trimmed())
    }

    /// Prepares segments until there are enough, or something is in the way.
    pub(crate) fn pass(&self) -> Result<(), SyncFailure> {
        while !self.stop.load(Ordering::Relaxed) && self.ring.failure().is_none() {
            if self.step()? != Step::Prepared {
                break;
            }
        }
        Ok(())
    }

    fn step(&self) -> Result<Step, SyncFailure> {
        fence(Ordering::SeqCst);
        let sequence = self.ring.prepared();
        if !self.shortage() || sequence > u64::from(u32::MAX) {
            return Ok(Step::Enough);
        }
        if let Some(victim) = self.victim(sequence) {
            if self.ring.trimmed() < victim.release && !self.release(victim)? {
                return Ok(Step::Blocked);
            }
            if self.ring.reclaim_limit(false) < victim.release
                && self.ring.reclaim_limit(true) < victim.release
            {
                return Ok(Step::Blocked);
            }
        }
        let ring = &self.ring;
        let sequence = sequence as u32;
        if u64::from(sequence) < self.first_lap_end {
            // But for the first page: a copier in another process relies on the order there.
            let start = ring.geometry().segment_offset(sequence);
            let end = start + ring.geometry().segment_size();
            ring.region().backing().discard(start + PAGE_SIZE..end);
        }
        // SAFETY: the slot's last use is below `reclaim_limit`, checked above after `trimmed` was
        // stored: it is trimmed and not pinned, and no new pin on it passes its re-check. No claim
        // lies in the new use before `prepared` says so. There is one janitor.
        unsafe {
            prepare_segment(ring.region(), ring.geometry(), ring.identity(), sequence, || {
                self.let_others_run();
            });
        }
        ring.advance_prepared(sequence);
        count(&ring.counters.segments_prepared, 1);
        Ok(Step::Prepared)
    }

    /// Rests for a moment if there is no hurry: whoever holds a core for as long as it takes to
    /// zero a segment makes a producer wait for that core, if there are not many.
    fn let_others_run(&self) {
        let active = u64::from(self.ring.active_sequence());
        let hurry = self.ring.prepared() <= active + 1 + segments_ahead(self.ring.geometry()) / 2;
        // Relaxed: as in `run`.
        if !hurry && !self.stop.load(Ordering::Relaxed) {
            sync::park_timeout(REST);
        }
    }

    /// The segment whose ring slot segment `sequence` needs, if there was one.
    fn victim(&self, sequence: u64) -> Option<Victim> {
        let geometry = self.ring.geometry();
        let victim = sequence.checked_sub(u64::from(geometry.segments()))? as u32;
        let release = geometry.normalize(geometry.lsn(victim, geometry.record_end()));
        Some(Victim { sequence: victim, release })
    }

    /// Trims far enough to recycle `victim`, if that is allowed.
    fn release(&self, victim: Victim) -> Result<bool, SyncFailure> {
        if self.options.on_full == OnFull::Overwrite && self.requested() < victim.release {
            self.ring.publish();
        }
        let wanted = self.wanted(victim);
        let mut bound = self.trim_bound();
        if bound < victim.release && wanted >= victim.release {
            self.awaits_durable.store(true, Ordering::Relaxed);
            // Pairs with the fence in `durable_advanced`.
            fence(Ordering::SeqCst);
            self.ring.flusher_bell.ring();
            bound = self.trim_bound();
            if bound < victim.release {
                return Ok(false);
            }
        }
        self.awaits_durable.store(false, Ordering::Relaxed);
        if wanted < victim.release {
            return Ok(false);
        }
        let before = self.ring.trimmed();
        self.trim_to(wanted.min(bound))?;
        if self.requested() < victim.release {
            count(&self.ring.counters.bytes_overwritten, self.ring.trimmed() - before);
        }
        Ok(true)
    }

    /// How far to trim for `victim`: what was asked for, or, when the oldest is overwritten, half
    /// as many segments as are kept ahead, so that one slot write serves several.
    fn wanted(&self, victim: Victim) -> Lsn {
        let requested = self.requested();
        if self.options.on_full != OnFull::Overwrite || requested >= victim.release {
            return requested;
        }
        let geometry = self.ring.geometry();
        let batch = (segments_ahead(geometry) / 2).max(1) as u32;
        let last = victim.sequence.saturating_add(batch - 1);
        let last = last.min(self.last_sealed(victim));
        geometry.normalize(geometry.lsn(last, geometry.record_end()))
    }

    /// The last segment that is published to its end, at least `victim`'s.
    fn last_sealed(&self, victim: Victim) -> u32 {
        let geometry = self.ring.geometry();
        geometry.sequence(self.trim_bound()).saturating_sub(1).max(victim.sequence)
    }

    /// What a trim may not pass (rule 4).
    pub(crate) fn trim_bound(&self) -> Lsn {
        match self.options.durability {
            Durability::None => self.ring.published(),
            _ => self.ring.durable(),
        }
    }

    /// Rule 3.
    fn trim_to(&self, target: Lsn) -> Result<(), SyncFailure> {
        let _trim = lock(&self.trim);
        if target > self.ring.trimmed() {
            self.slots.update(|next| {
                next.trimmed = target;
                next.durable = next.durable.max(self.ring.durable());
            })?;
            count(&self.ring.counters.slots_written, 1);
            self.ring.advance_trimmed(target);
        }
        Ok(())
    }
}

/// A segment in the way of the next preparation.
#[derive(Clone, Copy, Debug)]
struct Victim {
    sequence: u32,
    /// It can go once `trimmed` is at or beyond this position.
    release: Lsn,
}
