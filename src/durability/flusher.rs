//! The flusher: a background thread that syncs without being waited for.
//!
//! 1. On demand, it syncs segments that the producers have left, so that a checkpoint can release
//!    them. At an interval, it syncs all that is new that often. Without durability there is none.
//! 2. When the log has gone quiet it writes one checkpoint slot, so that what is durable is proven
//!    without a record, and then sleeps without a timer until something happens.

use std::time::Duration;

use super::{Durable, FlushGoal};
use crate::error::SyncFailure;
use crate::metrics::count;
use crate::options::Durability;
use crate::sync::{self, Ordering, fence, lock};

/// A log that has not synced for this long is quiet.
const QUIET: Duration = Duration::from_millis(100);
/// Shorter intervals would only keep a core busy.
const INTERVAL_MIN: Duration = Duration::from_micros(100);

impl Durable {
    /// The thread's body.
    pub(crate) fn run_flusher(&self) {
        loop {
            self.ring.flusher_bell.wait(self.nap());
            // Relaxed: the bell hands it over.
            if self.stop.load(Ordering::Relaxed) || self.ring.failure().is_some() {
                return;
            }
            let quiet = || sync::now() - *lock(&self.last) >= QUIET;
            if self.pass().is_err() || (quiet() && self.prove_by_slot().is_err()) {
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

    fn slot_is_behind(&self) -> bool {
        self.slots.durable() < self.ring.durable()
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
        Ok(())
    }

    /// Rule 2, of a log that has gone quiet: one slot says what is durable.
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
