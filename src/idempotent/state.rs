//! What is known of one producer: enough to tell a new append from a retry.
//!
//! 1. A producer's sequences only grow along the log, so a sequence above the newest is new, and
//!    one at or below it is either in the log or will never be.
//! 2. Of the newest sequences the positions are kept, [`RECENT_MAX`] of them. They are the newest
//!    without omission: a sequence among them that is not there was never appended.
//! 3. Of older ones it is known in which segment they would be, by the first and the last sequence
//!    that each retained segment holds. Walking that segment finds the position.

use std::collections::VecDeque;

use crate::lsn::Lsn;

/// The positions of so many appends are kept for each producer.
pub(super) const RECENT_MAX: usize = 64;

/// A producer's sequences in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) segment: u32,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What an append of some sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The first of its sequence.
    New,
    /// A retry of the append at this position.
    Retry(Lsn),
    /// A retry, if this segment holds its sequence.
    LookIn(u32),
    /// Its sequence is not retained, and newer ones were appended.
    TooOld,
}

/// What is known of a producer.
#[derive(Debug, Default)]
pub(super) struct State {
    newest: Option<u64>,
    /// Sequence and position, from old to new.
    recent: VecDeque<(u64, Lsn)>,
    /// From old to new, a segment at most once.
    stretches: VecDeque<Stretch>,
}

impl State {
    /// Of a producer that wrote `stretches`, from old to new, before this process.
    pub(super) fn new(stretches: impl Iterator<Item = Stretch>) -> State {
        let stretches: VecDeque<Stretch> = stretches.collect();
        let newest = stretches.back().map(|stretch| stretch.last);
        State { newest, recent: VecDeque::new(), stretches }
    }

    /// The highest sequence that was appended.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The lowest sequence that may still be retained.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.stretches.front().map(|stretch| stretch.first)
    }

    /// Does nothing of the producer lie in `segment` or beyond?
    pub(super) fn ends_before(&self, segment: u32) -> bool {
        self.stretches.back().is_none_or(|stretch| stretch.segment < segment)
    }

    /// Rules 1 to 3.
    pub(super) fn judge(&self, sequence: u64) -> Verdict {
        if self.newest.is_none_or(|newest| sequence > newest) {
            return Verdict::New;
        }
        match self.recent.binary_search_by_key(&sequence, |(sequence, _)| *sequence) {
            Ok(index) => return Verdict::Retry(self.recent[index].1),
            Err(0) => {}
            Err(_) => return Verdict::TooOld,
        }
        let index = self.stretches.partition_point(|stretch| stretch.last < sequence);
        match self.stretches.get(index) {
            Some(stretch) if stretch.first <= sequence => Verdict::LookIn(stretch.segment),
            _ => Verdict::TooOld,
        }
    }

    /// `sequence`, which was judged to be new, is in the log at `lsn`, in `segment`.
    pub(super) fn appended(&mut self, sequence: u64, lsn: Lsn, segment: u32) {
        debug_assert!(self.newest.is_none_or(|newest| newest < sequence), "rule 1");
        self.newest = Some(sequence);
        self.keep_recent(sequence, lsn);
        match self.stretches.back_mut() {
            Some(stretch) if stretch.segment == segment => stretch.last = sequence,
            _ => self.stretches.push_back(Stretch { segment, first: sequence, last: sequence }),
        }
    }

    /// The position of a sequence was looked up. The newest one's is kept: it is the one that is
    /// asked for again.
    pub(super) fn found(&mut self, sequence: u64, lsn: Lsn) {
        if self.newest == Some(sequence) && self.recent.is_empty() {
            self.keep_recent(sequence, lsn);
        }
    }

    fn keep_recent(&mut self, sequence: u64, lsn: Lsn) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((sequence, lsn));
    }

    /// Everything below `segment` has been released.
    pub(super) fn release(&mut self, segment: u32) {
        while self.stretches.front().is_some_and(|stretch| stretch.segment < segment) {
            self.stretches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(sequence: u64) -> Lsn {
        Lsn::new(sequence * 16)
    }

    fn stretch(segment: u32, first: u64, last: u64) -> Stretch {
        Stretch { segment, first, last }
    }

    #[test]
    fn of_an_unknown_producer_every_sequence_is_new() {
        let state = State::default();
        assert_eq!((state.newest(), state.oldest()), (None, None));
        for sequence in [0, 1, u64::MAX] {
            assert_eq!(state.judge(sequence), Verdict::New);
        }
    }

    #[test]
    fn a_sequence_is_new_or_in_its_segment_or_too_old() {
        let stretches = [stretch(3, 10, 20), stretch(4, 21, 21), stretch(7, 40, 50)];
        let state = State::new(stretches.into_iter());
        assert_eq!((state.newest(), state.oldest()), (Some(50), Some(10)));
        for sequence in 0..60 {
            let want = match sequence {
                10..=20 => Verdict::LookIn(3),
                21 => Verdict::LookIn(4),
                40..=50 => Verdict::LookIn(7),
                51.. => Verdict::New,
                _ => Verdict::TooOld,
            };
            assert_eq!(state.judge(sequence), want, "{sequence}");
        }
    }

    #[test]
    fn the_newest_positions_are_known_and_the_segments_of_the_others() {
        let mut state = State::new([stretch(1, 5, 6)].into_iter());
        let count = RECENT_MAX as u64 + 10;
        // Every third sequence, four in a segment.
        for at in 0..count {
            state.appended(10 + 3 * at, lsn(at), 2 + at as u32 / 4);
        }
        for at in 0..count {
            let want =
                if at < 10 { Verdict::LookIn(2 + at as u32 / 4) } else { Verdict::Retry(lsn(at)) };
            assert_eq!(state.judge(10 + 3 * at), want, "{at}");
            if at >= 10 {
                assert_eq!(state.judge(10 + 3 * at + 1) == Verdict::New, at == count - 1, "{at}");
            }
        }
        assert_eq!(state.judge(10 + 3 * 20 + 1), Verdict::TooOld, "a gap among the known");
        assert_eq!(state.judge(5), Verdict::LookIn(1));
        assert!(!state.ends_before(2 + (count - 1) as u32 / 4));
        assert!(state.ends_before(3 + (count - 1) as u32 / 4));
    }

    #[test]
    fn what_is_released_is_too_old_unless_its_position_is_known() {
        let mut state = State::new([stretch(1, 5, 6), stretch(2, 7, 8)].into_iter());
        state.appended(9, lsn(9), 3);
        state.release(2);
        assert_eq!((state.judge(6), state.judge(7)), (Verdict::TooOld, Verdict::LookIn(2)));
        assert_eq!(state.oldest(), Some(7));
        state.release(9);
        assert_eq!((state.judge(8), state.oldest()), (Verdict::TooOld, None));
        assert_eq!(state.judge(9), Verdict::Retry(lsn(9)));
        assert_eq!(state.judge(10), Verdict::New);
    }

    #[test]
    fn of_what_was_looked_up_only_the_newest_is_kept() {
        let mut state = State::new([stretch(1, 5, 8)].into_iter());
        state.found(7, lsn(7));
        assert_eq!(state.judge(7), Verdict::LookIn(1));
        state.found(8, lsn(8));
        state.found(8, lsn(8));
        assert_eq!((state.judge(8), state.judge(7)), (Verdict::Retry(lsn(8)), Verdict::LookIn(1)));
        state.appended(9, lsn(9), 1);
        assert_eq!(
            (state.judge(8), state.judge(9)),
            (Verdict::Retry(lsn(8)), Verdict::Retry(lsn(9)))
        );
    }
}
