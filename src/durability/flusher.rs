//! The flusher: a background thread that syncs without being waited for.
//!
//! 1. On demand, it syncs segments that the producers have left, so that a checkpoint can release
//!    them. At an interval, it syncs all that is new that often. Without durability, neither.
//! 2. For tasks and callbacks that wait it leads sync after sync, as long as there are any. Behind
//!    a hole it looks less and less often.
//! 3. Tasks that follow the log, and wait for a claim that was open before they slept, are woken by
//!    nobody else: it wakes them now and then, until they find what they wait for.
//! 4. When the log has gone quiet it writes one checkpoint slot, so that what is durable is proven
//!    without a record, and then sleeps without a timer until something happens.

use std::time::Duration;

use super::completions::{Callback, Outcome};
use super::{Durable, FlushGoal, HOLE_NAP, HOLE_NAP_MAX};
use crate::error::{SyncFailure, WaitError};
use crate::metrics::count;
use crate::options::Durability;
use crate::sync::{self, Ordering, fence, lock};

/// A log that has not synced for this long is quiet.
const QUIET: Duration = Duration::from_millis(100);
/// Tasks that nobody else wakes are woken this often.
const RESTLESS_NAP: Duration = Duration::from_millis(1);
/// Shorter intervals would only keep a core busy.
const INTERVAL_MIN: Duration = Duration::from_micros(100);

impl Durable {
    /// The thread's body.
    pub(crate) fn run_flusher(&self) {
        let mut hole_nap = HOLE_NAP;
        loop {
            let is_restless = self.ring.tail_tasks.is_restless();
            if !self.completions.is_empty() {
                self.ring.flusher_bell.wait(Some(hole_nap));
                hole_nap = (hole_nap * 2).min(HOLE_NAP_MAX);
            } else {
                hole_nap = HOLE_NAP;
                let nap = if is_restless { Some(RESTLESS_NAP) } else { self.nap() };
                self.ring.flusher_bell.wait(nap);
            }
            if is_restless {
                self.ring.tail_tasks.wake_all();
            }
            // Relaxed: the bell hands it over.
            if self.stop.load(Ordering::Relaxed) || self.ring.failure().is_some() {
                return;
            }
            let passed = self.pass().and_then(|()| self.lead_for_completions());
            if passed.is_err() || (self.is_quiet() && self.prove_by_slot().is_err()) {
                // The log is poisoned, and everyone has been told.
                return;
            }
        }
    }

    /// Ends the thread at its next look.
    pub(crate) fn stop_flusher(&self) {
        // Relaxed: as in `run_flusher`.
        self.stop.store(true, Ordering::Relaxed);
        self.ring.flusher_bell.ring();
    }

    /// How long to sleep; `None` if there is nothing to come back for.
    pub(crate) fn nap(&self) -> Option<Duration> {
        if let Durability::Interval(interval) = self.options.durability {
            let interval = interval.max(INTERVAL_MIN);
            if !self.is_settled(self.ring.reserved()) {
                return Some(interval);
            }
            // Whatever is claimed after this look wakes us; what was claimed before is seen now.
            if !self.is_settled(self.ring.announce_flusher_sleep()) {
                return Some(interval);
            }
        }
        if self.slot_is_behind() {
            return Some(QUIET);
        }
        self.flusher_idle.store(true, Ordering::Relaxed);
        // Between the flag and the look: a sync that we do not see here sees the flag.
        fence(Ordering::SeqCst);
        self.slot_is_behind().then_some(QUIET)
    }

    /// Has nothing been synced for a while?
    fn is_quiet(&self) -> bool {
        sync::now() - *lock(&self.last) >= QUIET
    }

    fn slot_is_behind(&self) -> bool {
        self.options.durability != Durability::None && self.slots.durable() < self.ring.durable()
    }

    /// Rule 1.
    pub(crate) fn pass(&self) -> Result<(), SyncFailure> {
        match self.options.durability {
            Durability::Interval(_) => {
                if !self.is_settled(self.ring.reserved()) {
                    self.flush(FlushGoal::Published)?;
                }
            }
            Durability::OnDemand => {
                self.flush(FlushGoal::Sealed)?;
            }
            Durability::None => {}
        }
        self.look_behind()
    }

    /// Rule 2.
    pub(crate) fn lead_for_completions(&self) -> Result<(), SyncFailure> {
        loop {
            for call in self.completions.take_calls(self.ring.durable()) {
                run(call, Ok(()));
            }
            if self.completions.is_empty() {
                return Ok(());
            }
            if !self.flush(FlushGoal::Published)? {
                break;
            }
            // There may always be somebody who waits.
            self.look_behind()?;
        }
        if let Some((lsn, age)) = self.ring.hole()
            && age >= self.options.hole_age_max
        {
            for call in self.completions.give_up_beyond(lsn) {
                run(call, Err(WaitError::HeldBack { lsn, age }));
            }
        }
        Ok(())
    }

    /// Nobody leads any more for those who come from now on; those who wait learn how it ended.
    pub(crate) fn end_completions(&self) {
        self.ring.tail_tasks.close();
        for (goal, call) in self.completions.close() {
            run(call, self.last_outcome(goal));
        }
    }

    /// Rule 4, of a log that has gone quiet: one slot says what is durable.
    pub(crate) fn prove_by_slot(&self) -> Result<(), SyncFailure> {
        if self.slot_is_behind() {
            let durable = self.ring.durable();
            let written = self.slots.update(|next| next.durable = next.durable.max(durable));
            if let Err(failure) = written {
                self.poison(failure.clone());
                return Err(failure);
            }
            count(&self.ring.counters.slots_written, 1);
        }
        Ok(())
    }
}

/// Calls back. A panic there is its owner's, and its hook has reported it: the log goes on.
fn run(call: Callback, outcome: Outcome) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(outcome)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::region::Simulated;
    use crate::simulation::{self, Stepped, new_image, tiny};

    const INTERVAL: Duration = Duration::from_secs(3);

    /// A new log without threads.
    fn log(durability: Durability) -> Stepped {
        let disk = Simulated::new(new_image(tiny(4)));
        let options = Options::new().durability(durability);
        simulation::open(&disk, 1, options).expect("a new log opens")
    }

    #[test]
    fn the_flusher_sleeps_as_long_as_it_may() {
        let log = log(Durability::Interval(INTERVAL));
        for _ in 0..2 {
            log.append(b"news").expect("there is room");
            assert_eq!(log.durable.nap(), Some(INTERVAL), "there is something to sync");
            log.step_flusher(false);
            assert_eq!(log.durable.nap(), Some(QUIET), "no slot says that it was");
            log.step_flusher(true);
            assert_eq!(log.durable.nap(), None);
            // What has rung so far has been seen to.
            log.ring.flusher_bell.wait(Some(Duration::ZERO));
            log.append(b"for whom it wakes up").expect("there is room");
            assert!(log.ring.flusher_bell.wait(Some(Duration::ZERO)));
        }
        log.kill();
    }

    #[test]
    fn without_durability_there_is_nothing_to_come_back_for() {
        let log = log(Durability::None);
        log.append_durable(b"one waits all the same").expect("the disk takes it");
        assert_eq!(log.durable.nap(), None);
        log.kill();
    }

    #[test]
    fn a_log_is_quiet_some_time_after_its_last_sync() {
        let log = log(Durability::OnDemand);
        let ended =
            |ago| *lock(&log.durable.last) = sync::now().checked_sub(ago).expect("not 1970");
        ended(QUIET);
        assert!(log.durable.is_quiet());
        *lock(&log.durable.last) += Duration::from_secs(3600);
        assert!(!log.durable.is_quiet());
        log.kill();
    }
}
