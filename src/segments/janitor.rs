//! The janitor: a background thread that keeps prepared segments in front of the producers.
//!
//! 1. It works when it is rung (a segment was sealed, a checkpoint came, a pin went, a producer
//!    found the ring full) and sleeps otherwise, without a timer.
//! 2. It prepares a bounded number of segments ahead. More would only dirty pages early.
//! 3. Before it recycles anything below a new `trimmed`, that is persisted in a slot.
//! 4. It never passes `durable` (`published`, in the mode without durability) or a pin.
//! 5. A [`Steward`] may release without being asked to: its word counts like a checkpoint, from the
//!    moment it has confirmed it. It is asked when space is short, and tended behind each pass.

use std::time::Duration;

use crate::error::{CatalogError, CheckpointError, SyncFailure};
use crate::events;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::options::{Durability, OnFull, Options};
use crate::ring::Ring;
use crate::segments::prepare::prepare_segment;
use crate::segments::slots::SlotWriter;
use crate::segments::steward::Steward;
use crate::sync::{self, Arc, AtomicBool, AtomicU64, Mutex, Ordering, fence, lock};

/// How many bytes of prepared segments are kept in front of the producers, if the ring allows.
const AHEAD_BYTES: u64 = 64 << 20;

/// Between two slices of a segment's preparation, if there is no hurry.
const REST: Duration = Duration::from_micros(500);

/// The janitor's state, shared with those who ask for a checkpoint.
pub(crate) struct Janitor {
    ring: Arc<Ring>,
    slots: Arc<SlotWriter>,
    before_trim: Arc<dyn BeforeTrim>,
    options: Options,
    steward: Option<Arc<dyn Steward>>,
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
    /// Why the last trim was not allowed, if it was not.
    refusal: Mutex<Option<CatalogError>>,
}

/// What keeps the next segment from being prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepared,
    /// Enough are prepared.
    Enough,
    /// A checkpoint, a sync, or the end of a pin has to come first.
    Blocked,
    /// The thread is to end; a segment may be half prepared.
    Stopped,
}

/// How many segments are kept prepared beyond the active one.
pub(crate) fn segments_ahead(geometry: &Geometry) -> u64 {
    let most = u64::from(geometry.segments()) - 1;
    AHEAD_BYTES.div_ceil(geometry.segment_size()).clamp(1, (most / 2).max(1))
}

/// What has to be done before records are released.
pub(crate) trait BeforeTrim: Send + Sync {
    /// Everything below `to` is going to be released, unless this fails.
    fn before_trim(&self, to: Lsn) -> Result<(), CatalogError>;
}

impl Janitor {
    /// `reopened`: the log was there before, and lies in the page cache as it was read.
    pub(crate) fn new(
        ring: Arc<Ring>,
        slots: Arc<SlotWriter>,
        before_trim: Arc<dyn BeforeTrim>,
        options: Options,
        steward: Option<Arc<dyn Steward>>,
        reopened: bool,
    ) -> Janitor {
        let requested = AtomicU64::new(ring.trimmed().get());
        let lap_end = ring.prepared() + u64::from(ring.geometry().segments());
        let first_lap_end = if reopened { lap_end } else { 0 };
        Janitor {
            ring,
            slots,
            before_trim,
            options,
            steward,
            requested,
            awaits_durable: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            first_lap_end,
            trim: Mutex::new(()),
            refusal: Mutex::new(None),
        }
    }

    /// The thread's body. `on_failure` poisons the log.
    pub(crate) fn run(&self, on_failure: impl Fn(SyncFailure)) {
        while !self.is_stopped() {
            if let Some(steward) = &self.steward {
                // Relaxed: whoever still waits, below, says so again and then looks.
                self.awaits_durable.store(false, Ordering::Relaxed);
                steward.observe();
            }
            if let Err(failure) = self.pass() {
                on_failure(failure);
                return;
            }
            self.ring.janitor_bell.wait(self.tend());
        }
    }

    /// Rule 5: how long to sleep.
    fn tend(&self) -> Option<Duration> {
        let steward = self.steward.as_ref()?;
        let mut nap = steward.tend(self.shortage());
        if nap.on_durable {
            self.await_durable();
            nap = steward.tend(self.shortage());
        }
        nap.after
    }

    /// From now on, whoever advances `durable` rings. The caller looks once more.
    fn await_durable(&self) {
        self.awaits_durable.store(true, Ordering::Relaxed);
        // Pairs with the fence in `durable_advanced`.
        fence(Ordering::SeqCst);
    }

    /// Ends the thread at its next look.
    pub(crate) fn stop(&self) {
        // Relaxed: as in `is_stopped`.
        self.stop.store(true, Ordering::Relaxed);
        self.ring.janitor_bell.ring();
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: the bell hands it to a sleeper; one at work may see it a moment later.
        self.stop.load(Ordering::Relaxed)
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
            || self.ring.trimmed() >= victim.release
            || self.releasable(victim.release) >= victim.release;
        may_go
            && self.ring.readers_pin_floor().is_none_or(|pinned| pinned >= victim.release)
            && self.refusal().is_none()
    }

    /// What stood in the way of the last trim, if something did. It is tried again whenever a
    /// producer finds the ring full.
    pub(crate) fn refusal(&self) -> Option<CatalogError> {
        lock(&self.refusal).clone()
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

    /// What was asked for, or could be by the steward's word: that is no trim before it has been
    /// confirmed.
    fn releasable(&self, wanted: Lsn) -> Lsn {
        let requested = self.requested();
        match &self.steward {
            Some(steward) if requested < wanted => requested.max(steward.releasable(wanted)),
            _ => requested,
        }
    }

    /// Takes the steward's word for a request, as far as `wanted` if it can.
    fn confirm(&self, wanted: Lsn) -> Lsn {
        if let Some(steward) = &self.steward
            && self.requested() < wanted
        {
            // Relaxed: as in `request`.
            self.requested.fetch_max(steward.confirm(wanted).get(), Ordering::Relaxed);
        }
        self.requested()
    }

    /// Takes the steward's word for a request, as far as it goes.
    pub(crate) fn confirm_all(&self) -> Lsn {
        self.confirm(Lsn::new(u64::MAX))
    }

    /// The end of the oldest segment that has not been recycled.
    pub(crate) fn oldest_end(&self) -> Lsn {
        let oldest = self.victim(self.ring.prepared());
        oldest.map_or_else(|| self.release_point(0), |victim| victim.release)
    }

    /// Persists a trim up to what was asked for, as far as it is allowed.
    pub(crate) fn persist_trim(&self) -> Result<Lsn, CheckpointError> {
        self.confirm_all();
        let target = self.requested().min(self.trim_bound());
        self.trim_to(target).map_err(CheckpointError::Poisoned)?;
        match (self.ring.trimmed(), self.refusal()) {
            (trimmed, Some(error)) if trimmed < target => Err(CheckpointError::Unrecorded(error)),
            (trimmed, _) => Ok(trimmed),
        }
    }

    /// What the slot that marks the end of a log, at `end`, may release.
    pub(crate) fn last_trim(&self, end: Lsn) -> Lsn {
        let _trim = lock(&self.trim);
        let (trimmed, target) = (self.ring.trimmed(), self.requested().min(end));
        if target > trimmed && self.may_trim(target) { target } else { trimmed }
    }

    fn may_trim(&self, target: Lsn) -> bool {
        let refusal = self.before_trim.before_trim(target).err();
        let allowed = refusal.is_none();
        *lock(&self.refusal) = refusal;
        allowed
    }

    /// Prepares segments until there are enough, or something is in the way.
    pub(crate) fn pass(&self) -> Result<(), SyncFailure> {
        while !self.is_stopped() && self.ring.failure().is_none() {
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
            ring.region().backing().discard(start + PAGE_SIZE..end, &|| !self.is_stopped());
        }
        // SAFETY: the slot's last use is below `reclaim_limit`, checked above after `trimmed` was
        // stored: it is trimmed and not pinned, and no new pin on it passes its re-check. No claim
        // lies in the new use before `prepared` says so. There is one janitor.
        let prepared = unsafe {
            prepare_segment(ring.region(), ring.geometry(), ring.identity(), sequence, || {
                self.let_others_run();
                !self.is_stopped()
            })
        };
        if !prepared {
            return Ok(Step::Stopped);
        }
        ring.advance_prepared(sequence);
        count(&ring.counters.segments_prepared, 1);
        events::segment_prepared(sequence, ring.trimmed());
        Ok(Step::Prepared)
    }

    /// Rests for a moment if there is no hurry: whoever holds a core for as long as it takes to
    /// zero a segment makes a producer wait for that core, if there are not many.
    fn let_others_run(&self) {
        let active = u64::from(self.ring.active_sequence());
        let hurry = self.ring.prepared() <= active + 1 + segments_ahead(self.ring.geometry()) / 2;
        if !hurry && !self.is_stopped() {
            sync::park_timeout(REST);
        }
    }

    /// The segment whose ring slot segment `sequence` needs, if there was one.
    fn victim(&self, sequence: u64) -> Option<Victim> {
        let victim = sequence.checked_sub(u64::from(self.ring.geometry().segments()))? as u32;
        Some(Victim { sequence: victim, release: self.release_point(victim) })
    }

    /// Where `trimmed` has to be for segment `sequence` to go.
    fn release_point(&self, sequence: u32) -> Lsn {
        let geometry = self.ring.geometry();
        geometry.normalize(geometry.lsn(sequence, geometry.record_end()))
    }

    /// Trims far enough to recycle `victim`, if that is allowed.
    fn release(&self, victim: Victim) -> Result<bool, SyncFailure> {
        if self.options.on_full == OnFull::Overwrite && self.requested() < victim.release {
            self.ring.publish();
        }
        let wanted = self.wanted(victim, self.releasable(victim.release));
        let mut bound = self.trim_bound();
        if bound < victim.release && wanted >= victim.release {
            self.await_durable();
            self.ring.flusher_bell.ring();
            bound = self.trim_bound();
            if bound < victim.release {
                return Ok(false);
            }
        }
        self.awaits_durable.store(false, Ordering::Relaxed);
        self.confirm(victim.release);
        let wanted = self.wanted(victim, self.requested());
        if wanted < victim.release {
            return Ok(false);
        }
        let before = self.ring.trimmed();
        self.trim_to(wanted.min(bound))?;
        if self.ring.trimmed() < victim.release {
            return Ok(false);
        }
        if self.requested() < victim.release {
            count(&self.ring.counters.bytes_overwritten, self.ring.trimmed() - before);
        }
        Ok(true)
    }

    /// How far to trim for `victim`: what was `requested`, or, when the oldest is overwritten, half
    /// as many segments as are kept ahead, so that one slot write serves several.
    fn wanted(&self, victim: Victim, requested: Lsn) -> Lsn {
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
        if target > self.ring.trimmed() && self.may_trim(target) {
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

#[cfg(test)]
impl BeforeTrim for () {
    fn before_trim(&self, _to: Lsn) -> Result<(), CatalogError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Simulated;
    use crate::simulation::{self, Stepped, new_image, tiny};
    use crate::wal::Wal;

    /// A new log of two segments, both prepared, without threads.
    fn log(on_full: OnFull) -> Stepped {
        let disk = Simulated::new(new_image(tiny(2)));
        let options = Options::new().durability(Durability::None).on_full(on_full);
        let log = simulation::open(&disk, 1, options).expect("a new log opens");
        log.step_janitor();
        log
    }

    /// Fills the first segment, and begins the second; returns the second's first record.
    fn fill(log: &Wal) -> Lsn {
        while log.ring.active_sequence() == 0 {
            log.append(&[1; 1000]).expect("there is room");
        }
        log.ring.geometry().first_record(1)
    }

    #[test]
    fn up_to_half_of_the_ring_is_kept_ahead_and_no_more_than_64_mib() {
        let ahead = |segments: u64, len: u64| {
            let geometry = Geometry::new(segments * len, len).expect("in bounds");
            segments_ahead(&geometry)
        };
        let sizes = [(2, 16), (3, 16), (4, 16), (5, 16), (16, 16), (256, 20), (256, 26), (100, 25)];
        let found = sizes.map(|(segments, bits)| ahead(segments, 1 << bits));
        assert_eq!(found, [1, 1, 1, 2, 7, 64, 1, 2]);
    }

    #[test]
    fn the_janitor_is_content_with_what_is_kept_ahead() {
        let disk = Simulated::new(new_image(tiny(8)));
        let log = simulation::open(&disk, 1, Options::new()).expect("a new log opens");
        assert!(log.janitor.shortage());
        for active in 0..3 {
            log.step_janitor();
            assert!(!log.janitor.shortage());
            assert_eq!(log.ring.prepared(), active + 1 + 3);
            while u64::from(log.ring.active_sequence()) == active {
                log.append(&[1; 1000]).expect("there is room");
            }
            assert!(log.janitor.shortage(), "for a segment has been sealed");
        }
        log.kill();
    }

    #[test]
    fn a_checkpoint_is_what_a_full_ring_waits_for_if_nothing_is_overwritten() {
        for on_full in [OnFull::Wait, OnFull::Fail, OnFull::Overwrite] {
            let log = log(on_full);
            let release = fill(&log);
            assert_eq!(log.janitor.victim_end(), Some(release));
            assert_eq!(log.janitor.can_progress(), on_full == OnFull::Overwrite);
            log.checkpoint(release).expect("a boundary");
            assert!(log.janitor.can_progress());
            log.kill();
        }
    }

    #[test]
    fn a_reader_in_the_way_is_waited_for() {
        for on_full in [OnFull::Wait, OnFull::Overwrite] {
            let log = log(on_full);
            let reader = log.reader(crate::Position::Oldest).expect("a pin is free");
            let release = fill(&log);
            log.checkpoint(release).expect("a boundary");
            assert!(!log.janitor.can_progress());
            log.step_janitor();
            assert_eq!(log.ring.prepared(), 2);
            drop(reader);
            assert!(log.ring.janitor_bell.wait(Some(Duration::ZERO)), "it is rung");
            let beyond = log.reader(crate::Position::At(release)).expect("a pin is free");
            assert!(log.janitor.can_progress(), "a reader beyond is not in the way");
            log.step_janitor();
            assert_eq!(log.ring.prepared(), 3);
            drop(beyond);
            log.kill();
        }
    }

    #[test]
    fn what_is_overwritten_is_counted() {
        let log = log(OnFull::Overwrite);
        let (first, release) = (log.watermarks().trimmed, fill(&log));
        log.step_janitor();
        let metrics = log.metrics();
        assert_eq!((metrics.bytes_overwritten, metrics.slots_written), (release - first, 1));
        assert_eq!(log.watermarks().trimmed, release);
        log.checkpoint(log.watermarks().reserved).expect("a boundary");
        assert_eq!(log.metrics().bytes_overwritten, release - first);
        log.kill();
    }

    #[test]
    fn a_trim_waits_for_durability_and_says_so() {
        let disk = Simulated::new(new_image(tiny(2)));
        let log = simulation::open(&disk, 1, Options::new()).expect("a new log opens");
        log.step_janitor();
        let release = fill(&log);
        log.ring.flusher_bell.wait(Some(Duration::ZERO));
        log.janitor.request(release);
        log.step_janitor();
        assert_eq!(log.ring.prepared(), 2, "nothing is durable");
        assert!(log.ring.flusher_bell.wait(Some(Duration::ZERO)), "the flusher is asked");
        log.ring.janitor_bell.wait(Some(Duration::ZERO));
        log.sync().expect("the disk takes it");
        assert!(log.ring.janitor_bell.wait(Some(Duration::ZERO)), "and the janitor told");
        log.step_janitor();
        assert_eq!((log.ring.prepared(), log.ring.trimmed()), (3, release));
        log.sync().expect("the disk takes it");
        assert!(!log.ring.janitor_bell.wait(Some(Duration::ZERO)), "it waits no more");
        log.kill();
    }
}
