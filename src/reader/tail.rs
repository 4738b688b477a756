//! Following a log: waiting for records that are not there yet.
//!
//! A tail spins a little, yields a little, then parks. Parking sets the tail word's `SLEEPER` bit:
//! the claimant that finds it wakes the readers after its commit. Claims that were open when the
//! bit was set do not know of it, so while there are any, the reader sleeps with a short timeout.

use std::time::{Duration, Instant};

use super::{Position, Reader, Record};
use crate::error::ReadError;
use crate::lsn::Lsn;
use crate::ring::Ring;
use crate::sync::{self, Backoff};

/// While older claims are open, or the log is being closed, a reader looks this often.
const OPEN_CLAIM_NAP: Duration = Duration::from_millis(1);

/// Reads records in order and waits for more. See [`Wal::tail`](crate::Wal::tail).
pub struct Tail<'w> {
    reader: Reader<'w>,
}

impl<'w> Tail<'w> {
    pub(crate) fn new(ring: &'w Ring, from: Position) -> Result<Tail<'w>, ReadError> {
        Ok(Tail { reader: Reader::new(ring, from)? })
    }

    /// Shows only records that survive a power loss.
    #[must_use]
    pub fn durable_only(self) -> Tail<'w> {
        Tail { reader: self.reader.durable_only() }
    }

    /// Where the next record is looked for.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.reader.position()
    }

    /// The next record, waiting for it at most `timeout`; `None` if none has come.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] at the end of a closed or poisoned log, [`ReadError::Damaged`] as for
    /// [`Reader::next`].
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Record<'_>>, ReadError> {
        let deadline = sync::now().checked_add(timeout);
        let backoff = Backoff::new();
        loop {
            // Before the look: what was committed by then is seen by it.
            let ended = self.reader.has_ended();
            if let Some(located) = self.reader.step()? {
                return Ok(Some(Record::new(self.reader.ring, &self.reader.pin, located)));
            }
            if ended {
                return Err(ReadError::Closed);
            }
            let now = sync::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(None);
            }
            if backoff.is_completed() {
                self.park(deadline.unwrap_or(now + Duration::from_secs(3600)));
            } else {
                backoff.snooze();
            }
        }
    }

    fn park(&self, deadline: Instant) {
        let ring = self.reader.ring;
        let waiter = ring.tail_readers.register(0);
        let reserved = ring.announce_reader_sleep();
        if self.reader.durable_only {
            ring.watch_durable();
        }
        // Announced; now look again.
        let at = ring.geometry().normalize(self.reader.at);
        if self.reader.has_news(at) {
            return;
        }
        let waits_for_sync = self.reader.durable_only && at >= ring.durable();
        let until = if ring.is_frozen() || (reserved > at && !waits_for_sync) {
            deadline.min(sync::now() + OPEN_CLAIM_NAP)
        } else {
            deadline
        };
        waiter.park_until(until);
    }
}

impl Reader<'_> {
    /// Is there a committed record to show at `at`, or an end to report?
    fn has_news(&self, at: Lsn) -> bool {
        use crate::layout::record::WordState;
        if self.durable_only {
            return at < self.ring.durable();
        }
        let sequence = self.ring.geometry().sequence(at);
        u64::from(sequence) < self.ring.prepared()
            && !matches!(
                super::record::state(self.ring, &self.pin, at),
                WordState::Zero | WordState::Claimed(_)
            )
    }
}
