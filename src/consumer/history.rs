//! Where epochs began: whether a position that was taken in an earlier epoch still means the same.
//!
//! 1. An epoch begins where recovery cut the log: records below stay, LSNs from there on are given
//!    to other records. So a position holds if it lies at or below the start of every epoch after
//!    its own.
//! 2. Of those starts only the lowest matters. A start that is not below a later one says nothing
//!    that the later one does not say, so the kept starts rise with their epochs.
//! 3. What is not known counts as a cut, as high as is certain. An epoch that began without being
//!    written down did not begin below what was durable before it; of two that are merged, to keep
//!    the list short, the lower start stands for both. So a position may be called cut that was
//!    not, and never the other way round.

use crate::layout::ConsumerTable;
use crate::layout::consumers::STARTS_MAX;
use crate::lsn::{EpochLsn, Lsn};

/// The starts of epochs, as far as they matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// The running epoch.
    epoch: u64,
    starts: Vec<EpochLsn>,
}

impl History {
    /// Of a log without a table: epoch `epoch` began at `start`, with everything below `oldest`
    /// released.
    pub(crate) fn new(epoch: u64, start: Lsn, oldest: Lsn) -> History {
        let mut history = History { epoch, starts: Vec::new() };
        history.begin_unknown(oldest);
        history.push(epoch, start);
        history
    }

    /// Of a log with a table, in which epoch `epoch` began at `start`.
    pub(crate) fn after(table: &ConsumerTable, epoch: u64, start: Lsn) -> History {
        let earlier = table.starts.iter().filter(|start| start.epoch < epoch);
        let mut history = History { epoch, starts: earlier.copied().collect() };
        if epoch > table.epoch + 1 {
            history.begin_unknown(table.durable);
        }
        history.push(epoch, start);
        history
    }

    /// Epochs before the running one began at `sure` or above, nobody knows where.
    fn begin_unknown(&mut self, sure: Lsn) {
        if self.epoch > 1 {
            self.push(self.epoch - 1, sure);
        }
    }

    fn push(&mut self, epoch: u64, lsn: Lsn) {
        while self.starts.last().is_some_and(|last| last.lsn >= lsn) {
            self.starts.pop();
        }
        self.starts.push(EpochLsn { epoch, lsn });
        if self.starts.len() > STARTS_MAX {
            self.starts[1].lsn = self.starts[0].lsn;
            self.starts.remove(0);
        }
    }

    /// The running epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// As a table keeps them.
    pub(crate) fn starts(&self) -> &[EpochLsn] {
        &self.starts
    }

    /// The epoch that cut the log below `position`, and where.
    pub(crate) fn cut_of(&self, position: EpochLsn) -> Option<EpochLsn> {
        let lowest = self.starts.iter().find(|start| start.epoch > position.epoch)?;
        (lowest.lsn < position.lsn).then_some(*lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, lsn: u64) -> EpochLsn {
        EpochLsn { epoch, lsn: Lsn::new(lsn) }
    }

    fn history(starts: &[(u64, u64)]) -> History {
        let mut history = History { epoch: 0, starts: Vec::new() };
        for (epoch, lsn) in starts {
            history.epoch = *epoch;
            history.push(*epoch, Lsn::new(*lsn));
        }
        history
    }

    /// Against the definition (rule 1), for every history of four epochs at four places.
    #[test]
    fn a_position_holds_up_to_the_lowest_later_start() {
        for code in 0..4_u64.pow(4) {
            let starts: Vec<(u64, u64)> =
                (0..4).map(|at| (at + 1, code / 4_u64.pow(at as u32) % 4 * 16)).collect();
            let history = history(&starts);
            for epoch in 0..=4 {
                for lsn in (0..64).step_by(16) {
                    let later = starts.iter().filter(|start| start.0 > epoch);
                    let lowest = later.map(|start| start.1).min();
                    let holds = lowest.is_none_or(|lowest| lsn <= lowest);
                    let cut = history.cut_of(at(epoch, lsn));
                    assert_eq!(cut.is_none(), holds, "{starts:?} {epoch} {lsn}");
                    assert!(cut.is_none_or(|cut| Some(cut.lsn.get()) == lowest));
                }
            }
        }
    }

    #[test]
    fn the_list_is_bounded_and_errs_on_the_side_of_a_cut() {
        let starts: Vec<(u64, u64)> = (1..=1000).map(|epoch| (epoch, epoch * 16)).collect();
        let history = history(&starts);
        assert_eq!(history.starts().len(), STARTS_MAX);
        for epoch in 1..1000 {
            let next = (epoch + 1) * 16;
            assert!(history.cut_of(at(epoch, next + 16)).is_some(), "epoch {epoch}");
            let recent = epoch > 1000 - STARTS_MAX as u64;
            assert_eq!(history.cut_of(at(epoch, next)).is_none(), recent, "epoch {epoch}");
        }
        assert!(history.cut_of(at(3, 16)).is_none(), "below all of them nothing was cut");
    }

    #[test]
    fn an_epoch_that_was_not_written_down_began_at_what_was_durable() {
        let table = ConsumerTable {
            epoch: 5,
            durable: Lsn::new(1024),
            starts: vec![at(5, 512)],
            ..ConsumerTable::default()
        };
        let next = History::after(&table, 6, Lsn::new(4096));
        assert_eq!(next.starts(), [at(5, 512), at(6, 4096)]);
        let gap = History::after(&table, 8, Lsn::new(4096));
        assert_eq!(gap.starts(), [at(5, 512), at(7, 1024), at(8, 4096)]);
        assert_eq!(gap.cut_of(at(5, 1024)), None);
        assert_eq!(gap.cut_of(at(5, 1040)), Some(at(7, 1024)));
        assert_eq!(gap.cut_of(at(7, 4096)), None);
    }

    #[test]
    fn without_a_table_only_the_last_epoch_is_known() {
        let first = History::new(1, Lsn::new(64), Lsn::new(64));
        assert_eq!(first.starts(), [at(1, 64)]);
        let later = History::new(9, Lsn::new(4096), Lsn::new(1024));
        assert_eq!(later.cut_of(at(8, 4096)), None);
        assert_eq!(later.cut_of(at(8, 4112)), Some(at(9, 4096)));
        assert_eq!(later.cut_of(at(7, 1040)), Some(at(8, 1024)));
        assert_eq!(later.cut_of(at(1, 1024)), None);
    }
}
