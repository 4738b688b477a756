//! What a log may and must hold after a crash at any moment of a recorded run.

use std::collections::BTreeMap;

use kaelix_wal::simulation::{Moment, Stepped};
use kaelix_wal::{Lsn, ProducerId, Record, StreamId};

use crate::beside::{Consumers, ExpectedConsumer, Names, is_versioned, stream_name};

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

/// The entries of a batch follow from its number, how many there are, about how much room they are
/// to take, and of how many streams they may be.
pub fn batch(
    id: u64,
    entries: usize,
    len: usize,
    streams: u32,
) -> Vec<(Option<StreamId>, Vec<u8>)> {
    let each = (len / entries).saturating_sub(8);
    let entry = |number: usize| {
        let stream = stream_of_entry(id, number, streams);
        // Some are empty, some do not end where the next begins.
        let len = if number % 5 == 3 { 0 } else { each - each % 8 + number % 2 };
        (stream, payload(id << 8 | number as u64, len.min(each)))
    };
    (0..entries).map(entry).collect()
}

fn stream_of_entry(id: u64, number: usize, streams: u32) -> Option<StreamId> {
    StreamId::new((id as u32).wrapping_add(number as u32) % (streams + 1))
}

/// A record as the log must return it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub lsn: Lsn,
    pub id: u64,
    pub len: usize,
    /// How many entries it has, if it is a batch; else 0.
    pub entries: usize,
    /// Of how many streams these may be.
    pub streams: u32,
    /// The stream of one that is no batch.
    pub stream: Option<StreamId>,
    /// Of one that was moved: where it was appended first, and what it was copied from.
    pub moved: Option<(Lsn, Lsn)>,
}

impl Expected {
    /// Is `found` this record, whole and unaltered?
    fn is(&self, found: &Record<'_>) -> bool {
        if self.entries == 0 {
            let want = [(self.stream, found.payload())];
            return *found.payload() == payload(self.id, self.len)
                && found.moved_from() == self.moved.map(|(first, _)| first)
                && found.entries().map(|entry| (entry.stream, entry.payload)).eq(want);
        }
        let want = batch(self.id, self.entries, self.len, self.streams);
        let want = want.iter().map(|(stream, payload)| (*stream, &payload[..]));
        found.entries().map(|entry| (entry.stream, entry.payload)).eq(want)
    }
}

impl Expected {
    /// One that was moved is shown from when what it was copied from has been released.
    fn is_shown(&self, trimmed: Lsn) -> bool {
        self.moved.is_none_or(|(_, previous)| previous < trimmed)
    }

    /// The streams that it has entries of.
    pub fn of(&self) -> impl Iterator<Item = StreamId> {
        let Expected { id, entries, streams, stream, .. } = *self;
        let of_entries = (0..entries).filter_map(move |at| stream_of_entry(id, at, streams));
        stream.into_iter().chain(of_entries)
    }
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
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// A prefix of these, from `trimmed` on,
    pub records: Vec<Expected>,
    /// with everything below this position, or
    pub durable: Lsn,
    /// with all of them.
    pub all: bool,
    /// `trimmed` lies between these.
    pub trimmed: (Lsn, Lsn),
    /// The streams that there may be, in the order of their ids, and how many there must be.
    pub streams: Vec<u64>,
    pub streams_least: usize,
    /// The newest record of streams of which nothing is among `records`.
    pub versions: BTreeMap<StreamId, Lsn>,
    pub consumers: Vec<ExpectedConsumer>,
    /// Nothing is released that a consumer has not acknowledged.
    pub retains: bool,
    /// What a power loss takes may have been in use: positions beyond it are cut.
    pub may_cut: bool,
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
        // Of those at the end that are not shown only the report says whether they were kept.
        let report = log.recovery_report();
        let kept = first + report.records as usize;
        assert!(kept <= self.records.len(), "too much: {report} of {:?}", self.records.last());
        let mut reader = log.reader(kaelix_wal::Position::Oldest).expect("the oldest is readable");
        let mut stamped = Vec::new();
        for want in &self.records[first..kept] {
            if !want.is_shown(trimmed) {
                continue;
            }
            let Some(found) = reader.next().expect("what recovery kept verifies") else {
                panic!("the report counts otherwise: there is no {want:?}");
            };
            assert!(found.lsn() == want.lsn, "at {} instead of {want:?}", found.lsn());
            assert!(want.is(&found), "{want:?} was altered, or is there in part");
            stamped.extend(found.producer().map(|(producer, id)| (producer, id, found.lsn())));
        }
        if let Some(found) = reader.next().expect("what recovery kept verifies") {
            panic!("the record at {} is too much: {:?}", found.lsn(), self.records.last());
        }
        drop(reader);
        are_recognised(log, &stamped);
        if let Some(lost) = self.records.get(kept) {
            assert!(lost.lsn >= self.durable, "lost, and durable up to {}: {lost:?}", self.durable);
            assert!(!self.all, "lost, and committed: {lost:?}");
        }
        self.verify_streams(log, &self.records[..kept]);
        for consumer in &self.consumers {
            consumer.verify(log, self.retains, self.may_cut);
        }
        for found in log.consumers() {
            let is_known = |consumer: &ExpectedConsumer| consumer.name() == found.name;
            assert!(self.consumers.iter().any(is_known), "nobody made {found:?}");
        }
        kept
    }

    /// Every stream that was acknowledged is there, with its id; none is that nobody asked for; and
    /// each version is the newest record that was kept, or released.
    fn verify_streams(&self, log: &Stepped, kept: &[Expected]) {
        let names = log.stream_names();
        assert!(names.len() >= self.streams_least, "{names:?} of {:?}", self.streams);
        for (at, (id, name)) in names.iter().enumerate() {
            assert_eq!(id.get() as usize, at + 1);
            let number = self.streams.get(at).unwrap_or_else(|| panic!("nobody made {name}"));
            assert_eq!(*name, stream_name(*number), "the stream {id}");
        }
        let mut versions = self.versions.clone();
        for record in kept {
            for stream in record.of() {
                assert!(stream.get() as usize <= names.len(), "{record:?} has no name");
                versions.insert(stream, record.lsn);
            }
        }
        for ((id, name), number) in names.iter().zip(&self.streams) {
            if is_versioned(*number) {
                let stream = log.versioned_stream(name).expect("it is there");
                let found = stream.last_lsn().expect("what recovery kept verifies");
                assert_eq!(found, versions.get(id).copied(), "the version of {id}");
            }
        }
    }
}

/// Each of these is where it was when it is tried again, and nothing is appended.
fn are_recognised(log: &Stepped, stamped: &[(ProducerId, u64, Lsn)]) {
    let before = log.watermarks().reserved;
    for (producer, id, lsn) in stamped {
        let producer = log.idempotent(*producer).expect("what recovery kept verifies");
        let again = producer.append(*id, b"again").expect("it is retained");
        assert_eq!((again.lsn, again.duplicate), (*lsn, true), "the retry of {id}");
    }
    assert_eq!(log.watermarks().reserved, before, "a retry has appended something");
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
    pub names: Names,
    pub consumers: Consumers,
    /// Versions of streams at the start of the machine, and what holds all along.
    start: Expectation,
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
            names: Names::new(&expectation.streams, expectation.streams_least),
            consumers: Consumers::new(&expectation.consumers),
            start: Expectation { records: Vec::new(), ..expectation.clone() },
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
            let is_lost = |record: &Expected| (record.id, record.lsn) == (lost.id, lost.lsn);
            let alive = |entry: &&mut Entry| is_lost(&entry.record) && entry.gone == NEVER;
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
        Expectation { records, durable, all: false, ..self.expect(moment) }
    }

    /// After a kill: everything committed. After a failed sync, which the next process may know
    /// of or not, at least what is durable of it.
    pub fn after_kill(&self, moment: Moment) -> Expectation {
        let committed = self.alive(moment).filter(|entry| entry.is_data && entry.closed <= moment);
        let records = committed.map(|entry| entry.record).collect();
        let trusted =
            |(from, to): &(Moment, Moment)| *to <= moment || (moment <= *from && *from != 0);
        let (durable, all) = (self.durable(moment), self.failed.iter().all(trusted));
        Expectation { records, durable, all, ..self.expect(moment) }
    }

    /// What does not depend on how the machine ends.
    fn expect(&self, moment: Moment) -> Expectation {
        let (streams, streams_least) = self.names.at(moment);
        let consumers = self.consumers.at(moment);
        let trimmed = self.trimmed(moment);
        Expectation { streams, streams_least, consumers, trimmed, ..self.start.clone() }
    }
}
