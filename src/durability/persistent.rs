//! Durability in persistent memory: no lock, no leader, no hand-over.
//!
//! 1. A commit is visible before it is on the medium. Whoever wants it durable writes back every
//!    line of `[durable, target)`, where `target` is published, fences, and then raises `durable`.
//!    A segment that is entered is written back from its header on. So what is durable is on the
//!    medium, whoever wrote it, and nothing behind a hole ever is.
//! 2. Any number of threads do this at the same time. One that is stopped stops nobody: the others
//!    write the same lines back, which harms nothing, and who comes late finds `durable` raised.
//!    What lies below `target` is never written again, so a write-back that began before another
//!    thread raised `durable` still counts, and raises it further.
//! 3. A thread sleeps only behind a hole. It registers, says so in `durable_watched`, fences, and
//!    looks again; whoever raises `durable` fences and looks at the flag. One sees the other.
//! 4. A write-back costs less than an evidence record and a look at the clock. So evidence is left
//!    every [`EVIDENCE_BYTES`] and not with each advance; and that the log has gone quiet, the
//!    flusher notices by itself, from `durable` standing still.
//! 5. Footers are the flusher's work, since each takes a walk over its segment; the close writes
//!    what it has left.

use std::time::{Duration, Instant};

use super::{Durable, FlushGoal, HOLE_NAP, HOLE_NAP_MAX};
use crate::error::{SyncFailure, WaitError};
use crate::geometry::FIRST_RECORD;
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::segments::footer;
use crate::sync::{self, Backoff, Mutex, Ordering, lock};

/// Evidence of what is durable is at most this old, in bytes of the log.
const EVIDENCE_BYTES: u64 = 1024;

/// What only this mode keeps.
pub(super) struct Memory(Mutex<Rear>);

/// What is done behind `durable`, by one thread at a time.
struct Rear {
    /// The first segment whose footer has not been written.
    footed: u32,
    /// Where the flusher saw `durable` last.
    seen: Lsn,
}

impl Memory {
    /// For a log of which all below `durable`, in segment `sequence`, is durable.
    pub(super) fn new(durable: Lsn, sequence: u32) -> Memory {
        Memory(Mutex::new(Rear { footed: sequence, seen: durable }))
    }
}

impl Durable {
    /// As `wait_or_give_up`.
    pub(super) fn wait_in_memory(
        &self,
        goal: Lsn,
        deadline: Option<Instant>,
    ) -> Result<(), WaitError> {
        let backoff = Backoff::new();
        let mut nap = HOLE_NAP;
        loop {
            if self.ring.durable() >= goal {
                return Ok(());
            }
            self.flush_memory(FlushGoal::Published).map_err(WaitError::Poisoned)?;
            if self.ring.durable() >= goal {
                return Ok(());
            }
            // A hole lies in the way: mostly a producer that is just about to commit.
            if backoff.is_completed() {
                self.check_patience(goal, deadline)?;
                self.sleep_behind_hole(goal, nap, deadline);
                nap = (nap * 2).min(HOLE_NAP_MAX);
            } else {
                backoff.snooze();
            }
        }
    }

    /// Rule 3, the sleeper's half. Whoever closes the hole need not know of us: so not for long.
    fn sleep_behind_hole(&self, goal: Lsn, nap: Duration, deadline: Option<Instant>) {
        let until = sync::now() + nap;
        let waiter = self.waiters.register(goal.get());
        self.ring.watch_durable();
        if self.ring.durable() < goal && self.ring.failure().is_none() {
            waiter.park_until(deadline.map_or(until, |deadline| deadline.min(until)));
        }
    }

    /// As `wait` for a record that the calling thread has just committed: `[lsn, end)`. Where
    /// everything before it is published, there is nothing to walk over.
    pub(crate) fn wait_own(&self, lsn: Lsn, end: Lsn) -> Result<(), WaitError> {
        if self.memory.is_some() && self.ring.failure().is_none() && self.ring.publish_own(lsn, end)
        {
            self.write_back_to(end).map_err(WaitError::Poisoned)?;
        }
        self.wait(end, None)
    }

    /// Makes durable what `goal` says; true if there was anything.
    pub(super) fn flush_memory(&self, goal: FlushGoal) -> Result<bool, SyncFailure> {
        if let Some(failure) = self.ring.failure() {
            return Err(failure);
        }
        let published = self.ring.publish();
        self.write_back_to(match goal {
            FlushGoal::Published => published,
            FlushGoal::Sealed => self.sealed(published),
        })
    }

    /// Rule 1, a segment at a time; true if there was anything. The calling thread has acquired all
    /// that is published below `target`.
    fn write_back_to(&self, target: Lsn) -> Result<bool, SyncFailure> {
        let geometry = self.ring.geometry();
        let mut durable = self.ring.durable();
        let any = durable < target;
        while durable < target {
            // As in `sync_segment`: where nothing is promised, trim may have passed `durable`.
            let from = match self.ring.trimmed() {
                trimmed if trimmed > durable => geometry.lsn(geometry.sequence(trimmed), 0),
                _ => durable,
            };
            let (next, range) = geometry.first_bytes(from, target);
            let bytes = range.end - range.start;
            self.persist(range)?;
            if self.ring.raise_durable(next) {
                self.raised(next, bytes);
            }
            durable = self.ring.durable();
        }
        Ok(any)
    }

    /// We have raised `durable` to `now`.
    fn raised(&self, now: Lsn, bytes: u64) {
        let counters = &self.ring.counters;
        count(&counters.syncs, 1);
        count(&counters.sync_bytes, bytes);
        // The fence in there is rule 3's.
        self.janitor.durable_advanced();
        self.wake_watchers();
        self.leave_evidence(now);
        // Relaxed, behind the fence in `durable_advanced`, as in `after_sync`. Looked at first: a
        // busy log's threads do not fight for the line.
        if self.flusher_idle.load(Ordering::Relaxed)
            && self.flusher_idle.swap(false, Ordering::Relaxed)
        {
            self.ring.flusher_bell.ring();
        }
        // `durable` has passed a segment's end where it stands at the next one's first record.
        if self.ring.geometry().split(now).1 == FIRST_RECORD {
            self.ring.flusher_bell.ring();
        }
    }

    /// Rule 3, the waker's half.
    fn wake_watchers(&self) {
        while self.ring.take_durable_watched() {
            let durable = self.ring.durable();
            self.waiters.wake_all();
            self.ring.wake_tails();
            if self.completions.wake_tasks(durable) {
                self.ring.flusher_bell.ring();
            }
            if self.completions.is_empty() {
                return;
            }
            // Threads look again by themselves; for tasks and callbacks that are left, the flag is
            // set again, and what was raised before that is ours to look at.
            self.ring.watch_durable();
            if self.ring.durable() == durable {
                return;
            }
        }
    }

    /// Rule 4.
    fn leave_evidence(&self, durable: Lsn) {
        // Relaxed: as in `is_settled`. Two threads may both leave some.
        let last = self.evidence_end.load(Ordering::Relaxed);
        if durable.get() < last.get() + EVIDENCE_BYTES {
            return;
        }
        if let Some(end) = self.ring.leave_durable_evidence(durable) {
            // Relaxed: as above.
            self.evidence_end.store(end, Ordering::Relaxed);
        }
    }

    /// Rule 5: the footers of all segments that have become durable to their end.
    pub(super) fn write_footers(&self, memory: &Memory) -> Result<(), SyncFailure> {
        let mut rear = lock(&memory.0);
        let geometry = self.ring.geometry();
        rear.footed = geometry.sequence(self.ring.trimmed()).max(rear.footed);
        while rear.footed < geometry.sequence(self.ring.durable()) {
            let draft = footer::draft(&self.ring, rear.footed);
            rear.footed += 1;
            if let Some(draft) = draft {
                self.persist(draft.write())?;
            }
        }
        Ok(())
    }

    /// What the flusher does besides flushing, in this mode alone.
    pub(super) fn look_behind(&self) -> Result<(), SyncFailure> {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        self.write_footers(memory)?;
        let durable = self.ring.durable();
        if std::mem::replace(&mut lock(&memory.0).seen, durable) < durable {
            *lock(&self.last) = sync::now();
        }
        Ok(())
    }
}
