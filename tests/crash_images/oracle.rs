//! What a log may and must hold after a crash at any moment of a recorded run.

use kaelix_wal::Lsn;
use kaelix_wal::simulation::{Moment, Stepped};

/// Never, so far.
pub const NEVER: Moment = Moment::MAX;

/// A record's payload follows from its number and its length.
pub fn payload(id: u64, len: usize) -> Vec<u8> {
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&id.to_le_bytes());
    while bytes.len() < len {
        state = state.wrapping_mul(0xD129_0D3B_5F3E_1C95).rotate_left(23);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A record as the log must return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub lsn: Lsn,
    pub id: u64,
    pub len: usize,
}

/// A claim and what became of it. A moment of 0: before the run.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub record: Expected,
    /// An abort, or a hole that recovery has closed, leaves none.
    pub is_data: bool,
    /// The claim was made behind this moment.
    pub begun: Moment,
    /// The commit began behind this moment,
    pub closing: Moment,
    /// and had ended at this one.
    pub closed: Moment,
    /// A recovery that cut it off had ended at this one.
    pub gone: Moment,
}

/// What a recovery must find.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// A prefix of these, from `trimmed` on,
    pub records: Vec<Expected>,
    /// with everything below this position, or
    pub durable: Lsn,
    /// with all of them.
    pub all: bool,
    /// `trimmed` lies between these.
    pub trimmed: (Lsn, Lsn),
}

impl Expectation {
    /// Compares with what `log` returns; says which of the records it has kept. The trimmed ones
    /// before them count as kept.
    pub fn verify(&self, log: &Stepped) -> usize {
        let trimmed = log.watermarks().trimmed;
        let (least, most) = self.trimmed;
        assert!(least <= trimmed, "trimmed went back from {least} to {trimmed}");
        assert!(trimmed <= most, "trimmed is {trimmed}, and nobody went beyond {most}");
        let first = self.records.partition_point(|record| record.lsn < trimmed);
        let mut kept = first;
        let mut reader = log.reader(kaelix_wal::Position::Oldest).expect("the oldest is readable");
        while let Some(found) = reader.next().expect("what recovery kept verifies") {
            let Some(want) = self.records.get(kept) else {
                panic!("the record at {} is too much: {:?}", found.lsn(), self.records.last());
            };
            assert!(found.lsn() == want.lsn, "at {} instead of {want:?}", found.lsn());
            assert!(*found.payload() == payload(want.id, want.len), "{want:?} was altered");
            kept += 1;
        }
        if let Some(lost) = self.records.get(kept) {
            assert!(lost.lsn >= self.durable, "lost, and durable up to {}: {lost:?}", self.durable);
            assert!(!self.all, "lost, and committed: {lost:?}");
        }
        let report = log.recovery_report();
        assert_eq!(report.records, (kept - first) as u64, "the report counts otherwise");
        kept
    }
}

/// The history of one machine from a power-on to the next power loss.
#[derive(Clone, Debug)]
pub struct Oracle {
    entries: Vec<Entry>,
    /// (Moment, position): from then on, everything below is durable.
    durable: Vec<(Moment, Lsn)>,
    /// (Moment, least, most): from then on `trimmed` is at least, and up to then it was at most.
    trimmed: Vec<(Moment, Lsn, Lsn)>,
    /// Syncs have failed behind the first moment of each, and an open had mended it by the second.
    failed: Vec<(Moment, Moment)>,
}

impl Oracle {
    /// A machine on whose disk or in whose cache there is what was expected.
    pub fn new(expectation: &Expectation) -> Oracle {
        let entry = |record: &Expected| Entry {
            record: *record,
            is_data: true,
            begun: 0,
            closing: 0,
            closed: 0,
            gone: NEVER,
        };
        let (least, most) = expectation.trimmed;
        Oracle {
            entries: expectation.records.iter().map(entry).collect(),
            durable: vec![(0, expectation.durable)],
            trimmed: vec![(0, least, most)],
            failed: if expectation.all { Vec::new() } else { vec![(0, NEVER)] },
        }
    }

    /// A record, or a reservation if `closed` is `NEVER`; returns its place.
    pub fn push(&mut self, record: Expected, begun: Moment, closed: Moment) -> usize {
        let closing = if closed == NEVER { NEVER } else { begun };
        let entry = Entry { record, is_data: true, begun, closing, closed, gone: NEVER };
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// The reservation at `place` was committed with `len` bytes, or aborted.
    pub fn close(&mut self, place: usize, len: Option<usize>, closing: Moment, closed: Moment) {
        let entry = &mut self.entries[place];
        (entry.is_data, entry.closing, entry.closed) = (len.is_some(), closing, closed);
        entry.record.len = len.unwrap_or(entry.record.len);
    }

    /// Between two operations: what the log has said by `moment`. `most` is what `trimmed` can have
    /// become on the medium meanwhile.
    pub fn note(&mut self, moment: Moment, durable: Lsn, trimmed: Lsn, most: Lsn) {
        if self.durable.last().is_none_or(|(_, last)| *last < durable) {
            self.durable.push((moment, durable));
        }
        self.trimmed.push((moment, trimmed, most));
    }

    /// A process died, or closed the log, at `moment`: nobody will commit what is open.
    pub fn abandon(&mut self, moment: Moment) {
        for entry in &mut self.entries {
            if entry.closed == NEVER && entry.gone == NEVER {
                (entry.is_data, entry.closing, entry.closed) = (false, moment, moment);
            }
        }
    }

    /// A recovery had returned by `moment`, and kept so many of the records of `expectation`.
    pub fn reopened(&mut self, expectation: &Expectation, kept: usize, moment: Moment) {
        for lost in &expectation.records[kept..] {
            let alive = |entry: &&mut Entry| entry.record.id == lost.id && entry.gone == NEVER;
            if let Some(entry) = self.entries.iter_mut().find(alive) {
                entry.gone = moment;
            }
        }
        if let Some((_, mended)) = self.failed.last_mut() {
            *mended = moment.min(*mended);
        }
    }

    /// A sync has failed, or is going to.
    pub fn fail(&mut self, moment: Moment) {
        self.failed.push((moment, NEVER));
    }

    /// Has a sync failed, and no open mended it yet?
    pub fn has_failed(&self) -> bool {
        self.failed.last().is_some_and(|(_, mended)| *mended == NEVER)
    }

    fn trimmed(&self, moment: Moment) -> (Lsn, Lsn) {
        let behind = self.trimmed.partition_point(|(at, _, _)| *at <= moment);
        let (_, least, before) = self.trimmed[behind.saturating_sub(1)];
        // The first note at or behind the moment, which may be the one just found.
        let next = self.trimmed.partition_point(|(at, _, _)| *at < moment);
        let (_, _, most) = self.trimmed[next.min(self.trimmed.len() - 1)];
        (least, most.max(before))
    }

    fn durable(&self, moment: Moment) -> Lsn {
        let behind = self.durable.partition_point(|(at, _)| *at <= moment);
        self.durable[behind.saturating_sub(1)].1
    }

    fn alive(&self, moment: Moment) -> impl Iterator<Item = &Entry> {
        let has_begun = move |entry: &&Entry| entry.begun < moment || entry.begun == 0;
        self.entries.iter().filter(has_begun).filter(move |entry| moment < entry.gone)
    }

    /// After a power loss: the published order, up to the first open reservation.
    pub fn after_power_loss(&self, moment: Moment) -> Expectation {
        let may_be_closed = |entry: &&Entry| entry.closing < moment || entry.closing == 0;
        let published = self.alive(moment).take_while(may_be_closed);
        let records = published.filter(|entry| entry.is_data).map(|entry| entry.record).collect();
        let durable = self.durable(moment);
        Expectation { records, durable, all: false, trimmed: self.trimmed(moment) }
    }

    /// After a kill: everything committed. After a failed sync, which the next process may know
    /// of or not, at least what is durable of it.
    pub fn after_kill(&self, moment: Moment) -> Expectation {
        let committed = self.alive(moment).filter(|entry| entry.is_data && entry.closed <= moment);
        let records = committed.map(|entry| entry.record).collect();
        let trusted =
            |(from, to): &(Moment, Moment)| *to <= moment || (moment <= *from && *from != 0);
        let (durable, all) = (self.durable(moment), self.failed.iter().all(trusted));
        Expectation { records, durable, all, trimmed: self.trimmed(moment) }
    }
}
