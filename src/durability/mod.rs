//! Durability: syncing published ranges, and waiting for it.
//!
//! 1. One sync of record data is under way at a time, by whoever holds the `flush` lock: a waiter
//!    that finds it free leads, the others sleep, and all that was committed during one sync is
//!    covered by the next (group commit). A lone waiter syncs in its own thread: no hand-over.
//! 2. `durable` advances only from a sync that has returned success, over exactly its range.
//! 3. The first failure poisons the log and wakes everyone: no later wait succeeds, no record is
//!    accepted, until the log is opened again. A second sync would prove nothing, since the kernel
//!    may have marked the pages clean.
//! 4. No wake-up is lost: a waiter announces itself, *then* looks at `durable` and tries the lock
//!    again, then sleeps; a leader lets go of the lock, *then* wakes those whom its sync served,
//!    and one more to lead the next. Nobody takes the lock without handing it over like this.
//!    (In persistent memory there is neither lock nor leader: rules 1 and 4 are those of
//!    `persistent`.)
//! 5. Tasks and callbacks cannot lead: the flusher does it for them (see `completions`).
//! 6. After a sync its leader leaves evidence, a record of 16 bytes, and in a segment that is now
//!    durable to its end a footer. Neither by itself causes a sync.

mod completions;
mod flusher;
mod future;
mod persistent;

use std::ops::Range;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use persistent::Memory;

use crate::error::{SyncFailure, WaitError};
use crate::events;
use crate::geometry::PAGE_SIZE;
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::options::{Options, Persistence};
use crate::region::Syncer;
use crate::ring::{POISONED, Ring};
use crate::segments::footer::{self, Draft};
use crate::segments::slots::persist;
use crate::segments::{Janitor, SlotWriter};
use crate::sync::{self, Arc, Atomic, AtomicBool, Mutex, MutexGuard, Ordering, lock, try_lock};
use crate::wait::WaitList;

use completions::{Added, Callback, Completions, Outcome, Ticket};
pub use future::DurableFuture;

/// The first look behind a hole comes after this time, later ones less and less often.
const HOLE_NAP: Duration = Duration::from_micros(20);
const HOLE_NAP_MAX: Duration = Duration::from_millis(5);

/// What to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushGoal {
    /// Everything published.
    Published,
    /// The segments that producers have left; the pages that they stand on stay untouched.
    Sealed,
}

/// The state of one log's durability.
pub(crate) struct Durable {
    ring: Arc<Ring>,
    slots: Arc<SlotWriter>,
    janitor: Arc<Janitor>,
    options: Options,
    syncer: Syncer,
    flush: Mutex<Flush>,
    /// There in persistent memory, and only there.
    memory: Option<Memory>,
    /// When the last sync ended. Not under `flush`: who takes that, leads.
    last: Mutex<Instant>,
    waiters: WaitList,
    completions: Completions,
    /// Where the newest evidence record ends.
    evidence_end: Atomic<Lsn>,
    /// The flusher sleeps without a timer: the first sync rings it.
    flusher_idle: AtomicBool,
    stop: AtomicBool,
}

struct Flush {
    /// The page of the newest footer, if it has not been synced.
    footer: Option<Range<u64>>,
}

impl Durable {
    pub(crate) fn new(
        ring: Arc<Ring>,
        slots: Arc<SlotWriter>,
        janitor: Arc<Janitor>,
        options: Options,
        syncer: Syncer,
    ) -> Durable {
        let durable = ring.durable();
        let memory = match ring.region().backing().persistence() {
            Persistence::PersistentMemory => {
                Some(Memory::new(durable, ring.geometry().sequence(durable)))
            }
            _ => None,
        };
        Durable {
            ring,
            slots,
            janitor,
            options,
            syncer,
            flush: sync::tried(Flush { footer: None }),
            memory,
            last: Mutex::new(sync::now()),
            waiters: WaitList::new(),
            completions: Completions::new(),
            evidence_end: Atomic::new(Lsn::ZERO),
            flusher_idle: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Waits until `durable` has reached `goal`, at the latest until `deadline`; without one, as
    /// long as no hole in the way is older than the options tolerate.
    pub(crate) fn wait(&self, goal: Lsn, deadline: Option<Instant>) -> Result<(), WaitError> {
        if self.memory.is_some() {
            return self.wait_in_memory(goal, deadline);
        }
        // Whoever gives up may have been chosen to lead just before.
        self.wait_or_give_up(goal, deadline).inspect_err(|_| self.hand_over())
    }

    fn wait_or_give_up(&self, goal: Lsn, deadline: Option<Instant>) -> Result<(), WaitError> {
        let mut nap = HOLE_NAP;
        loop {
            if self.ring.durable() >= goal {
                return Ok(());
            }
            if let Some(failure) = self.ring.failure() {
                return Err(WaitError::Poisoned(failure));
            }
            let led = match try_lock(&self.flush).or_else(|| self.follow(goal, deadline)) {
                Some(flush) => Some(self.lead(flush)?),
                None => None,
            };
            if self.ring.durable() >= goal {
                return Ok(());
            }
            self.check_patience(goal, deadline)?;
            if led == Some(false) {
                // There was nothing to sync: a hole lies in the way.
                sync::park_timeout(nap);
                nap = (nap * 2).min(HOLE_NAP_MAX);
            }
        }
    }

    /// Syncs what is published (even if only the flusher would); true if there was anything.
    pub(crate) fn flush(&self, goal: FlushGoal) -> Result<bool, SyncFailure> {
        if self.memory.is_some() {
            return self.flush_memory(goal);
        }
        let mut flush = lock(&self.flush);
        let result = self.sync(&mut flush, goal);
        drop(flush);
        self.hand_over();
        result
    }

    fn lead(&self, mut flush: MutexGuard<'_, Flush>) -> Result<bool, WaitError> {
        let result = self.sync(&mut flush, FlushGoal::Published);
        drop(flush);
        self.hand_over();
        result.map_err(WaitError::Poisoned)
    }

    /// Rule 4, the leader's half: the lock is free again.
    fn hand_over(&self) {
        self.serve(self.ring.durable(), true);
        // Readers of durable records wait for the same news.
        self.ring.wake_tails();
    }

    /// Wakes all those whose goal is reached, and one more thread if `successor`.
    fn serve(&self, durable: Lsn, successor: bool) {
        // A target is served when `durable` has reached it, so the list compares with one more.
        self.waiters.wake_below(durable.get() + 1, successor);
        if self.completions.wake_tasks(durable) {
            self.ring.flusher_bell.ring();
        }
    }

    /// Rule 4, the follower's half. Returns the lock if it was free in the meantime: who has held
    /// it, even for a look, must lead, since another may have found it taken and gone to sleep.
    fn follow(&self, goal: Lsn, deadline: Option<Instant>) -> Option<MutexGuard<'_, Flush>> {
        let until = deadline.unwrap_or_else(|| sync::now() + self.options.hole_age_max);
        let waiter = self.waiters.register(goal.get());
        if self.ring.durable() >= goal || self.ring.failure().is_some() {
            return None;
        }
        let free = try_lock(&self.flush);
        if free.is_none() {
            waiter.park_until(until);
        }
        free
    }

    /// Ends a wait that has lasted too long, with the reason.
    fn check_patience(&self, goal: Lsn, deadline: Option<Instant>) -> Result<(), WaitError> {
        let over = deadline.is_some_and(|deadline| sync::now() >= deadline);
        if self.ring.published() < goal
            && let Some((lsn, age)) = self.ring.hole()
            && lsn < goal
            && (over || (deadline.is_none() && age >= self.options.hole_age_max))
        {
            return Err(WaitError::HeldBack { lsn, age });
        }
        if over {
            return Err(WaitError::Timeout { lsn: goal, durable: self.ring.durable() });
        }
        Ok(())
    }

    /// A future's look: lists its task if `durable` has not reached `goal`.
    fn poll_wait(&self, goal: Lsn, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<Outcome> {
        // Who was listed before has been woken, or looks for reasons of its own.
        let held_back = || self.check_patience(goal, None).err().map(Err);
        let known = self.outcome(goal);
        let known = known.or_else(|| if ticket.is_some() { held_back() } else { None });
        if let Some(outcome) = known {
            return Poll::Ready(outcome);
        }
        match self.completions.add_task(goal, ticket, waker) {
            None => return Poll::Ready(self.last_outcome(goal)),
            Some(Added::Before) => {}
            Some(Added::Now) => self.ring.flusher_bell.ring(),
        }
        // Rule 2 of `completions`.
        self.watched_outcome(goal).map_or(Poll::Pending, Poll::Ready)
    }

    /// A future goes.
    fn forget_task(&self, ticket: Ticket) {
        self.completions.remove_task(ticket);
    }

    /// Calls `call` once it is known whether `durable` reaches `goal`: here if it is known now,
    /// else in the flusher.
    pub(crate) fn call_when_durable(&self, goal: Lsn, call: Callback) {
        if let Some(outcome) = self.outcome(goal) {
            return call(outcome);
        }
        match self.completions.add_call(goal, call) {
            Err(call) => call(self.last_outcome(goal)),
            Ok(ticket) => match self.watched_outcome(goal) {
                None => self.ring.flusher_bell.ring(),
                // Rule 2 of `completions`.
                Some(outcome) => {
                    if let Some(call) = self.completions.take_call(ticket) {
                        call(outcome);
                    }
                }
            },
        }
    }

    /// As `outcome`, after saying that somebody waits.
    fn watched_outcome(&self, goal: Lsn) -> Option<Outcome> {
        self.ring.watch_durable();
        self.outcome(goal)
    }

    /// How a wait for `goal` has ended, if it has.
    fn outcome(&self, goal: Lsn) -> Option<Outcome> {
        if self.ring.durable() >= goal {
            return Some(Ok(()));
        }
        self.ring.failure().map(|failure| Err(WaitError::Poisoned(failure)))
    }

    /// How a wait for `goal` ends in a log whose close has ended: nothing more becomes durable.
    fn last_outcome(&self, goal: Lsn) -> Outcome {
        self.outcome(goal).unwrap_or_else(|| {
            // All that was claimed is durable, or the close has given up at the first hole.
            let lsn = self.ring.published();
            Err(WaitError::HeldBack { lsn, age: self.options.hole_age_max })
        })
    }

    /// Is nothing but our own newest evidence beyond `durable`, up to `end`?
    pub(crate) fn is_settled(&self, end: Lsn) -> bool {
        let durable = self.ring.durable();
        // Relaxed: where some evidence ends is true for ever, however old.
        let evidence = self.evidence_end.load(Ordering::Relaxed);
        end <= durable || (end == evidence && durable + 16 == evidence)
    }

    /// One sync, by the holder of the lock.
    fn sync(&self, flush: &mut Flush, goal: FlushGoal) -> Result<bool, SyncFailure> {
        if let Some(failure) = self.ring.failure() {
            return Err(failure);
        }
        let mut durable = self.ring.durable();
        let published = self.ring.publish();
        let target = match goal {
            FlushGoal::Published => published,
            FlushGoal::Sealed => self.sealed(published),
        };
        if target <= durable {
            return Ok(false);
        }
        // A segment at a time: what is durable already can be released and filled again while the
        // disk is busy with the rest. All at once, disk and producers would take turns.
        while durable < target {
            let (next, footer) = self.sync_segment(flush, durable, target)?;
            self.janitor.durable_advanced();
            self.serve(next, false);
            flush.footer = footer.map(|draft| page_of(&draft.write()));
            durable = next;
        }
        self.after_sync(target, goal);
        Ok(true)
    }

    /// Syncs from `durable` towards `target`, no further than to the end of a segment; returns how
    /// far, and the footer of the segment that is now durable to its end.
    fn sync_segment(
        &self,
        flush: &mut Flush,
        durable: Lsn,
        target: Lsn,
    ) -> Result<(Lsn, Option<Draft<'_>>), SyncFailure> {
        let start = sync::now();
        let geometry = self.ring.geometry();
        // Without a promise of durability, trim may have passed `durable`: then the header of the
        // first retained segment has not been synced either.
        let from = match self.ring.trimmed() {
            trimmed if trimmed > durable => geometry.lsn(geometry.sequence(trimmed), 0),
            _ => durable,
        };
        let next = geometry.sequence(from).checked_add(1);
        let next = next.map_or(target, |next| target.min(geometry.first_record(next)));
        let sealed = geometry.sequence(next) > geometry.sequence(from);
        // Added up before the pages are unmapped: reading them later would map them read-only, and
        // each of the next lap's stores would then have to tell all cores.
        let footer = if sealed { footer::draft(&self.ring, geometry.sequence(from)) } else { None };
        let mut bytes = 0;
        for range in with_footer(geometry.file_ranges(from, next), flush.footer.take()) {
            bytes += range.end - range.start;
            if sealed {
                // Nobody writes here any more. The kernel write-protects each mapped page before it
                // writes it back, and tells all cores each time; of unmapped pages it need not.
                self.ring.region().backing().unmap_for_now(range.clone());
            }
            self.persist(range)?;
        }
        self.ring.advance_durable(durable, next);
        let end = sync::now();
        *lock(&self.last) = end;
        if self.ring.counters.count_sync(bytes, end - start) {
            events::slow_sync(bytes, end - start);
        }
        Ok((next, footer))
    }

    /// One range, on the medium or the log is poisoned.
    fn persist(&self, range: Range<u64>) -> Result<(), SyncFailure> {
        persist(&self.syncer, range).inspect_err(|failure| self.poison(failure.clone()))
    }

    /// Syncs the newest footer, which nothing that follows is going to take along.
    pub(crate) fn sync_footer(&self) -> Result<(), SyncFailure> {
        if let Some(memory) = &self.memory {
            return self.write_footers(memory);
        }
        let mut flush = lock(&self.flush);
        let result = match flush.footer.take() {
            Some(page) => self.persist(page),
            None => Ok(()),
        };
        drop(flush);
        self.hand_over();
        result
    }

    /// The end of the last segment that is published whole.
    fn sealed(&self, published: Lsn) -> Lsn {
        let geometry = self.ring.geometry();
        geometry.first_record(geometry.sequence(published))
    }

    fn after_sync(&self, target: Lsn, goal: FlushGoal) {
        if goal == FlushGoal::Published {
            count(&self.ring.counters.tail_page_syncs, 1);
            // The sync has write-protected the page that the writers stand on: take its fault now.
            let geometry = self.ring.geometry();
            if u64::from(geometry.sequence(target)) < self.ring.prepared() {
                let page = geometry.file_offset(target) / PAGE_SIZE * PAGE_SIZE;
                self.ring.region().backing().prefault(page..page + PAGE_SIZE);
            }
        }
        if let Some(end) = self.ring.leave_durable_evidence(target) {
            // Relaxed: as in `is_settled`.
            self.evidence_end.store(end, Ordering::Relaxed);
        }
        // Relaxed, after the fence in `durable_advanced`, which pairs with the one in `nap`: either
        // that sees the new `durable`, or we see the flag. Who takes the flag rings.
        if self.flusher_idle.swap(false, Ordering::Relaxed) {
            self.ring.flusher_bell.ring();
        }
    }

    /// Rule 3.
    pub(crate) fn poison(&self, failure: SyncFailure) {
        events::poisoned(&failure);
        self.ring.freeze(POISONED, Some(failure.clone()));
        self.slots.mark_poisoned(failure);
        self.waiters.wake_all();
        self.ring.janitor_bell.ring();
        self.ring.flusher_bell.ring();
    }
}

/// The page that `bytes` begin.
fn page_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start..bytes.start + PAGE_SIZE
}

/// What to sync, with the page of the footer that lies in front of it, mostly.
fn with_footer(mut ranges: Vec<Range<u64>>, footer: Option<Range<u64>>) -> Vec<Range<u64>> {
    match (footer, ranges.first_mut()) {
        (Some(page), Some(first)) if page.end == first.start => first.start = page.start,
        (Some(page), _) => ranges.insert(0, page),
        (None, _) => {}
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Simulated;
    use crate::simulation::{self, Stepped, new_image, tiny};

    /// A new log without threads.
    fn log(options: Options) -> Stepped {
        simulation::open(&Simulated::new(new_image(tiny(4))), 1, options).expect("a new log opens")
    }

    #[test]
    fn a_sync_wakes_all_whom_it_serves_and_one_more() {
        let log = log(Options::new());
        log.append(b"record").expect("there is room");
        let goal = log.watermarks().reserved.get();
        let waiters = [goal, goal, goal + 16, goal + 16].map(|goal| {
            let waiter = log.durable.waiters.register(goal);
            assert!(!waiter.park_until(sync::now()));
            waiter
        });
        assert!(log.durable.flush(FlushGoal::Published).expect("the disk takes it"));
        let woken = waiters.map(|waiter| waiter.park_until(sync::now()));
        assert_eq!(woken, [true, true, true, false]);
        log.kill();
    }

    #[test]
    fn who_follows_leads_if_nobody_does_and_sleeps_if_somebody_does() {
        let patience = Duration::from_millis(1);
        let log = log(Options::new().hole_age_max(patience));
        let durable = &log.durable;
        log.append_durable(b"served").expect("the disk takes it");
        let served = log.watermarks().durable;
        log.append(b"not yet").expect("there is room");
        let goal = log.watermarks().reserved;
        assert!(durable.follow(goal, None).is_some());
        assert!(durable.follow(served, None).is_none());
        assert!(matches!(durable.watched_outcome(served), Some(Ok(()))));
        assert!(durable.watched_outcome(goal).is_none());
        let leads = lock(&durable.flush);
        let start = sync::now();
        assert!(durable.follow(goal, None).is_none());
        assert!(start.elapsed() >= patience);
        drop(leads);
        log.kill();
    }

    #[test]
    fn syncs_are_counted_with_their_pages() {
        let log = log(Options::new());
        for syncs in 1..4 {
            log.append_durable(&[1; 100]).expect("the disk takes it");
            let metrics = log.metrics();
            let counted = (metrics.syncs, metrics.tail_page_syncs, metrics.sync_bytes);
            assert_eq!(counted, (syncs, syncs, syncs * PAGE_SIZE));
        }
        log.step_janitor();
        log.append(&[2; 4000]).expect("there is room");
        log.step_flusher(false);
        let metrics = log.metrics();
        assert_eq!((metrics.syncs, metrics.tail_page_syncs), (4, 3), "the flusher stays away");
        log.kill();
    }

    #[test]
    fn patience_ends_at_a_hole_in_the_way_and_at_the_deadline() {
        let far = sync::now() + Duration::from_secs(3600);
        for (hole_age_max, held_back) in
            [(Duration::from_secs(3600), false), (Duration::ZERO, true)]
        {
            let log = log(Options::new().hole_age_max(hole_age_max));
            log.append(b"before").expect("there is room");
            // Not published yet.
            let goal = log.ring.reserved();
            let hole = log.reserve(10).expect("there is room");
            log.append(b"behind").expect("there is room");
            let ended = log.durable.check_patience(goal, Some(sync::now()));
            assert!(matches!(ended, Err(WaitError::Timeout { lsn, .. }) if lsn == goal));
            let behind = log.watermarks().reserved;
            assert!(log.durable.check_patience(behind, Some(far)).is_ok());
            let ended = log.durable.check_patience(behind, Some(sync::now()));
            assert!(matches!(ended, Err(WaitError::HeldBack { lsn, .. }) if lsn == hole.lsn()));
            assert_eq!(log.durable.check_patience(behind, None).is_err(), held_back);
            hole.commit();
            log.kill();
        }
    }

    #[test]
    fn a_footer_is_synced_with_what_follows_it() {
        let ranges = || vec![8192..12_288, 20_480..24_576];
        assert_eq!(with_footer(ranges(), None), ranges());
        assert_eq!(with_footer(ranges(), Some(4096..8192)), [4096..12_288, 20_480..24_576]);
        let apart = [40_960..45_056, 8192..12_288, 20_480..24_576];
        assert_eq!(with_footer(ranges(), Some(40_960..45_056)), apart);
    }
}
