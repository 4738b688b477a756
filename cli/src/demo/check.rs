//! The recovered log against what was acknowledged.

use anyhow::Context;
use kaelix_wal::{Position, Wal};

use super::events::Events;
use super::victim::Acknowledged;

/// Counts of events, by what became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub found: u64,
    pub unacknowledged: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub altered: u64,
    pub uncommitted: u64,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.found > 0
            && [self.lost, self.duplicated, self.altered, self.uncommitted] == [0, 0, 0, 0]
    }
}

pub fn check(wal: &Wal, events: &Events, acknowledged: &Acknowledged) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut is_found = vec![false; acknowledged.lsns.len()];
    let mut reader = wal.reader(Position::Oldest).context("cannot read the recovered log")?;
    while let Some(record) = reader.next().context("cannot read the recovered log")? {
        let Some(event) = events.recognize(record.payload()) else {
            verdict.altered += 1;
            continue;
        };
        let index = event as usize;
        let Some(acknowledged_lsn) = acknowledged.lsns.get(index).copied() else {
            verdict.altered += 1;
            continue;
        };
        if std::mem::replace(&mut is_found[index], true) {
            verdict.duplicated += 1;
            continue;
        }
        verdict.found += 1;
        match acknowledged_lsn {
            Some(lsn) if lsn != record.lsn() => verdict.altered += 1,
            Some(_) => {}
            None if event == acknowledged.held => verdict.uncommitted += 1,
            None => verdict.unacknowledged += 1,
        }
    }
    let missing =
        acknowledged.lsns.iter().zip(&is_found).filter(|(lsn, found)| lsn.is_some() && !**found);
    verdict.lost = missing.count() as u64;
    Ok(verdict)
}
