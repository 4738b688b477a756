//! How old segments are, by clocks that may jump.
//!
//! 1. A segment is as old as its newest record, which is no younger than the moment at which the
//!    producers were seen to have left it. Seen late, it counts as younger: it is kept longer.
//! 2. For segments that are left in this process, time is the monotonic clock's. What the wall
//!    clock does meanwhile changes nothing.
//! 3. For segments of earlier processes there is the wall time in their headers, which says when a
//!    segment was *prepared*. The janitor prepares a bounded number of segments ahead, so when it
//!    prepared segment `k + 1 + ahead`, segment `k` had been left: that is the time that counts. A
//!    segment for which there is no such header counts as left at the open.
//! 4. The wall clock is read once, at the open, and believed step by step backwards from there. A
//!    step back in time from one segment to the next, or one forward of more than a [`STEP_MAX`],
//!    is a clock that was set: then the older segment counts as young as the younger one, and so do
//!    those before it, at least. A jump makes the log keep more, never less.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two segments, or the newest and the open, not more time passes: 366 days.
const STEP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// When each sealed segment will be old enough.
#[derive(Clone, Debug)]
pub(crate) struct Ages {
    age: Duration,
    /// By sequence, without gaps; the times never fall.
    due: VecDeque<Instant>,
    /// The sequence of the first of them.
    first: u32,
}

/// How long ago segments were left, oldest first, by their headers' wall times in milliseconds
/// since 1970 (rules 3 and 4).
pub(crate) fn elapsed(
    open_unix_ms: u64,
    left_unix_ms: impl DoubleEndedIterator<Item = Option<u64>>,
) -> VecDeque<Duration> {
    let mut next = open_unix_ms;
    let mut elapsed = VecDeque::new();
    for left in left_unix_ms.rev() {
        let step = left.and_then(|left| next.checked_sub(left));
        let step = step.filter(|step| Duration::from_millis(*step) <= STEP_MAX);
        next -= step.unwrap_or_default();
        elapsed.push_front(Duration::from_millis(open_unix_ms - next));
    }
    elapsed
}

impl Ages {
    /// Segments from `first` on were left so long before `now`, each.
    pub(crate) fn new(age: Duration, first: u32, elapsed: &[Duration], now: Instant) -> Ages {
        let due = elapsed.iter().map(|elapsed| now + age.saturating_sub(*elapsed)).collect();
        Ages { age, due, first }
    }

    /// Segments below `active` have been left by now (rule 1); those below `oldest` are released.
    pub(crate) fn observe(&mut self, oldest: u32, active: u32, now: Instant) {
        let known = self.first + self.due.len() as u32;
        for _ in known..active {
            self.due.push_back(now + self.age);
        }
        while self.first < oldest && self.due.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Segments below this sequence are old enough.
    pub(crate) fn old_below(&self, now: Instant) -> u32 {
        self.first + self.due.iter().take_while(|due| **due <= now).count() as u32
    }

    /// When the next one will be.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.due.iter().find(|due| **due > now).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// Some day in 2023, in milliseconds.
    const THEN: u64 = 1_700_000_000_000;
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

    fn seconds(open: u64, left: &[Option<u64>]) -> Vec<u64> {
        elapsed(open, left.iter().copied()).iter().map(Duration::as_secs).collect()
    }

    #[test]
    fn a_segment_is_old_enough_when_its_age_has_passed_since_it_was_left() {
        let start = Instant::now();
        let mut ages = Ages::new(10 * SECOND, 0, &[], start);
        ages.observe(0, 2, start);
        ages.observe(0, 3, start + 4 * SECOND);
        assert_eq!(ages.old_below(start + 9 * SECOND), 0);
        assert_eq!(ages.next_due(start + 9 * SECOND), Some(start + 10 * SECOND));
        assert_eq!(ages.old_below(start + 10 * SECOND), 2);
        assert_eq!(ages.next_due(start + 10 * SECOND), Some(start + 14 * SECOND));
        assert_eq!(ages.old_below(start + 14 * SECOND), 3);
        assert_eq!(ages.next_due(start + 14 * SECOND), None);
        ages.observe(2, 3, start + 20 * SECOND);
        assert_eq!(ages.old_below(start + 14 * SECOND), 3, "released ones are forgotten");
        assert_eq!(ages.due.len(), 1);
    }

    #[test]
    fn segments_of_earlier_processes_count_by_their_headers() {
        let left = [Some(THEN), Some(THEN + 3000), None];
        assert_eq!(seconds(THEN + 10_000, &left), [10, 7, 0]);
        let now = Instant::now();
        let ages = Ages::new(8 * SECOND, 5, &[10 * SECOND, 7 * SECOND, Duration::ZERO], now);
        assert_eq!(ages.old_below(now), 6);
        assert_eq!(ages.old_below(now + SECOND), 7);
        assert_eq!(ages.old_below(now + 7 * SECOND), 7);
        assert_eq!(ages.old_below(now + 8 * SECOND), 8);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_more() {
        // Between two segments: the older ones count as the younger one does.
        let left = [Some(THEN + 50_000), Some(THEN + 60_000), Some(THEN)];
        assert_eq!(seconds(THEN + 10_000, &left), [10, 10, 10]);
        // Since the log was closed: nothing has an age yet.
        let left = [Some(THEN), Some(THEN + 3000)];
        assert_eq!(seconds(THEN - 10_000, &left), [0, 0]);
        // An older segment is believed again as far as it fits.
        let left = [Some(THEN), Some(THEN + 60_000), Some(THEN + 5000)];
        assert_eq!(seconds(THEN + 10_000, &left), [10, 5, 5]);
    }

    #[test]
    fn a_clock_that_was_set_far_ahead_keeps_more() {
        // At the open, by ten years.
        let left = [Some(THEN), Some(THEN + 3000)];
        assert_eq!(seconds(THEN + 10 * YEAR_MS, &left), [0, 0]);
        // By a machine without a clock, while it ran: its first segments are of 1970.
        let left = [Some(5000), Some(9000), Some(THEN)];
        assert_eq!(seconds(THEN + 10_000, &left), [10, 10, 10]);
        assert_eq!(seconds(0, &[Some(u64::MAX), Some(0)]), [0, 0]);
        assert_eq!(seconds(u64::MAX, &[Some(0)]), [0]);
    }
}
