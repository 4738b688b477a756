//! The version of a stream: the LSN of its newest record, in one word.
//!
//! 1. Whoever appends to a stream under version control *holds* the word from its look at the
//!    version to its commit, or until it gives up. So what was expected is still true when the
//!    record is in the log, and an LSN that others are told is that of a committed record.
//! 2. A hold is a lock on one stream, taken by those alone who append to it. A batch takes several,
//!    in the order of their streams, so that two batches never wait for each other.
//! 3. Nobody is forgotten: a waiter lists itself, sets `WAITED` in the word, and sleeps if it is
//!    held; whoever lets go swaps the word, and wakes the list if `WAITED` was set. One word has
//!    one order of changes.

use std::time::{Duration, Instant};

use crate::lsn::Lsn;
use crate::sync::{self, AtomicU64, Backoff, Ordering};
use crate::wait::WaitList;

/// Somebody is between its look at the version and its commit.
const HELD: u64 = 1;
/// Somebody sleeps until the hold ends.
const WAITED: u64 = 2;
/// LSNs are multiples of 16.
const FLAGS: u64 = 15;

/// A version word. `Lsn::ZERO`, where no record can be, says that the stream never had one.
pub(crate) struct Version(AtomicU64);

impl Version {
    pub(crate) fn new(last: Lsn) -> Version {
        // What a catalog says may be anything; what the library has put into it has no flags.
        Version(AtomicU64::new(last.get() & !FLAGS))
    }

    /// The newest committed record.
    pub(crate) fn last(&self) -> Lsn {
        // Acquire: whoever is told of a record can read it, once all before it is committed.
        Lsn::new(self.0.load(Ordering::Acquire) & !FLAGS)
    }

    /// May there be a newer one, whose owner has not said so yet? Not where everything is published
    /// that was committed when this is asked: a hold is older than the record it is for.
    pub(crate) fn is_held(&self) -> bool {
        // Relaxed: see `Streams::last_records`.
        self.0.load(Ordering::Relaxed) & HELD != 0
    }

    /// Waits until nobody holds the word, but no longer than `patience`, and holds it. `waiters` is
    /// the list of all words that share it.
    pub(crate) fn hold<'a>(
        &'a self,
        waiters: &'a WaitList,
        patience: Duration,
    ) -> Option<Hold<'a>> {
        let backoff = Backoff::new();
        let mut deadline = None;
        loop {
            if let Some(hold) = self.try_hold(waiters) {
                return Some(hold);
            }
            if backoff.is_completed() {
                let now = sync::now();
                let deadline = *deadline.get_or_insert(now + patience);
                if now >= deadline {
                    return None;
                }
                self.sleep(waiters, deadline);
            } else {
                backoff.snooze();
            }
        }
    }

    fn try_hold<'a>(&'a self, waiters: &'a WaitList) -> Option<Hold<'a>> {
        // Relaxed: a guess, which the exchange checks.
        let word = self.0.load(Ordering::Relaxed);
        if word & HELD != 0 {
            return None;
        }
        // Acquire: the record of the last holder is committed for us too, and lies before ours.
        let held = self.0.compare_exchange(word, word | HELD, Ordering::Acquire, Ordering::Relaxed);
        held.ok().map(|word| Hold { version: self, waiters, last: Lsn::new(word & !FLAGS) })
    }

    /// Rule 3, the sleeper's half.
    fn sleep(&self, waiters: &WaitList, deadline: Instant) {
        let waiter = waiters.register(0);
        // Relaxed: the list's lock hands over what there is to hand over; the word's own order
        // decides who sees whom.
        if self.0.fetch_or(WAITED, Ordering::Relaxed) & HELD != 0 {
            waiter.park_until(deadline);
        }
    }
}

/// The right to append to a stream. Dropping it leaves the version as it was.
pub(crate) struct Hold<'a> {
    version: &'a Version,
    waiters: &'a WaitList,
    last: Lsn,
}

impl Hold<'_> {
    /// The version that is held.
    pub(crate) fn last(&self) -> Lsn {
        self.last
    }

    /// The record at `lsn` is committed.
    pub(crate) fn advance(&mut self, lsn: Lsn) {
        debug_assert!(lsn > self.last);
        self.last = lsn;
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // Release: hands over our record, or nothing.
        let word = self.version.0.swap(self.last.get(), Ordering::Release);
        debug_assert_ne!(word & HELD, 0);
        // Rule 3, the waker's half.
        if word & WAITED != 0 {
            self.waiters.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_that_is_dropped_changes_nothing() {
        let waiters = WaitList::new();
        let version = Version::new(Lsn::new(64));
        let hold = || version.hold(&waiters, Duration::from_secs(60)).expect("nobody else");
        let mut held = hold();
        assert_eq!((held.last(), version.last()), (Lsn::new(64), Lsn::new(64)));
        assert!(version.hold(&waiters, Duration::ZERO).is_none(), "it is held");
        drop(held);
        held = hold();
        held.advance(Lsn::new(128));
        assert_eq!(version.last(), Lsn::new(64), "not before the hold ends");
        drop(held);
        assert_eq!(version.last(), Lsn::new(128));
    }

    #[test]
    fn a_word_is_held_by_one_thread_at_a_time_and_everyone_gets_it() {
        let waiters = WaitList::new();
        let version = Version::new(Lsn::ZERO);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let hold = version.hold(&waiters, Duration::from_secs(60));
                        let mut hold = hold.expect("holds are short");
                        let next = hold.last() + 16;
                        std::thread::yield_now();
                        hold.advance(next);
                    }
                });
            }
        });
        assert_eq!(version.last(), Lsn::new(4 * 2000 * 16));
    }
}
