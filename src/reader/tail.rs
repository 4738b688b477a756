//! Following a log: waiting for records that are not there yet.
//!
//! A tail spins a little, yields a little, then parks. Parking sets the tail word's `SLEEPER` bit:
//! the claimant that finds it wakes the readers after its commit. Claims that were open when the
//! bit was set do not know of it, so while there are any, the reader sleeps with a short timeout.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::record::{self, Entered};
use super::{Position, Reader, Record};
use crate::error::ReadError;
use crate::layout::record::WordState;
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

    /// As [`Reader::without_copies`].
    pub(crate) fn without_copies(self) -> Tail<'w> {
        Tail { reader: self.reader.without_copies() }
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
            let ended = has_ended(&self.reader);
            if let Some(located) = self.reader.step_to_shown()? {
                return Ok(Some(self.reader.lend(located)));
            }
            if ended {
                return Err(ReadError::Closed);
            }
            if !wait_for_news(&self.reader, &backoff, deadline) {
                return Ok(None);
            }
        }
    }
}

/// Can nothing more come for `reader` than what is there now?
pub(crate) fn has_ended(reader: &Reader<'_>) -> bool {
    let ring = reader.ring;
    if !ring.is_frozen() {
        return false;
    }
    let at = ring.geometry().normalize(reader.at);
    at >= ring.reserved() || ring.is_finished() || (reader.durable_only && ring.failure().is_some())
}

/// Waits a little for more than `reader` has found; false at the deadline. Whoever waits on and on
/// does so with one `backoff`.
pub(crate) fn wait_for_news(
    reader: &Reader<'_>,
    backoff: &Backoff,
    deadline: Option<Instant>,
) -> bool {
    let now = sync::now();
    if deadline.is_some_and(|deadline| now >= deadline) {
        return false;
    }
    if backoff.is_completed() {
        park(reader, deadline.unwrap_or(now + Duration::from_secs(3600)));
    } else {
        backoff.snooze();
    }
    true
}

fn park(reader: &Reader<'_>, deadline: Instant) {
    let waiter = reader.ring.tail_readers.register(0);
    match look_again(reader) {
        Sleep::No => {}
        Sleep::Short => {
            waiter.park_until(deadline.min(sync::now() + OPEN_CLAIM_NAP));
        }
        Sleep::Long => {
            waiter.park_until(deadline);
        }
    }
}

/// As `wait_for_news`, for a task: true if it is going to be woken, false if there is news now.
/// `ticket` is its place in the ring's list, to be left in the end.
pub(crate) fn await_news(reader: &Reader<'_>, ticket: &mut Option<u64>, waker: &Waker) -> bool {
    let ring = reader.ring;
    ring.tail_tasks.announce(ticket, waker);
    match look_again(reader) {
        Sleep::No => return false,
        Sleep::Short if ring.tail_tasks.make_restless() => ring.flusher_bell.ring(),
        // The flusher has ended: there is not much to come.
        Sleep::Short => waker.wake_by_ref(),
        Sleep::Long => {}
    }
    true
}

/// For how long somebody who has announced himself may sleep.
enum Sleep {
    /// There is something to see.
    No,
    /// An older claim is open, whose owner wakes nobody, or the log is being closed.
    Short,
    /// Until woken.
    Long,
}

/// The second look of somebody who has announced himself.
fn look_again(reader: &Reader<'_>) -> Sleep {
    let ring = reader.ring;
    let reserved = ring.announce_reader_sleep();
    if reader.durable_only {
        ring.watch_durable();
    }
    let at = ring.geometry().normalize(reader.at);
    if has_news(reader, at) {
        return Sleep::No;
    }
    let waits_for_sync = reader.durable_only && at >= ring.durable();
    if ring.is_frozen() || (reserved > at && !waits_for_sync) { Sleep::Short } else { Sleep::Long }
}

/// Is there a committed record to show at `at`, or an end to report?
fn has_news(reader: &Reader<'_>, at: Lsn) -> bool {
    let ring = reader.ring;
    if reader.durable_only {
        return at < ring.durable();
    }
    let sequence = ring.geometry().sequence(at);
    // The epoch does not matter to those who do not look at records.
    let entered = Entered::new(ring, sequence, ring.identity().epoch);
    u64::from(sequence) < ring.prepared()
        && !matches!(
            record::state(ring, &reader.pin, &entered, at),
            WordState::Zero | WordState::Claimed(_)
        )
}
