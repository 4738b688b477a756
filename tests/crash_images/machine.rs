//! One machine between two power losses: processes that open the log, work, and die.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kaelix_wal::simulation::{self, Disk, Fault, Kind, Moment, Stepped};
use kaelix_wal::{
    AppendError, CatalogError, CheckpointError, Durability, Entry, Lsn, OnFull, OpenError, Options,
    Position, ProducerId, Reader, Reservation, Retention, Stream, Verify,
};

use crate::beside::{consumer_name, is_versioned, stream_name};
use crate::common::Rng;
use crate::oracle::{Expectation, Expected, NEVER, Oracle, batch, payload};

/// What a segment of two pages holds.
pub const SEGMENT: u64 = 8192;
pub const RECORD_END: u64 = 4096;
const PAYLOAD_MAX: u64 = RECORD_END - 64 - 16;

/// How a history is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    pub segments: u64,
    pub options: Options,
    pub overwrites: bool,
    /// Syncs fail now and then.
    pub is_faulty: bool,
    /// Streams are created, and consumers made.
    pub uses_files: bool,
    /// Nothing is released but what consumers have acknowledged.
    pub retains: bool,
    /// A power loss may take what was acknowledged to a consumer.
    pub may_cut: bool,
    /// Typical size of a record, in bytes.
    pub size: u64,
}

impl Setup {
    pub fn draw(kind: Kind, rng: &mut Rng) -> Setup {
        let interval = Durability::Interval(Duration::from_millis(1));
        let durability = [Durability::OnDemand, Durability::None, interval][rng.below(3) as usize];
        let on_full = [OnFull::Wait, OnFull::Fail, OnFull::Overwrite][rng.below(3) as usize];
        // A hole is reported at once: nobody else is there to close it.
        let mut options =
            Options::new().durability(durability).on_full(on_full).hole_age_max(Duration::ZERO);
        options = options.verify([Verify::Lazy, Verify::Full][rng.below(2) as usize]);
        let uses_files = rng.below(2) == 0;
        let retains = uses_files && on_full != OnFull::Overwrite && rng.below(3) == 0;
        if retains {
            options = options.retention(Retention::Consumers);
        }
        Setup {
            segments: 3 + rng.below(4),
            options,
            overwrites: on_full == OnFull::Overwrite,
            // Persistent memory does not fail.
            is_faulty: rng.below(4) == 0 && kind == Kind::Disk,
            uses_files,
            retains,
            may_cut: durability == Durability::None,
            size: [40, 200, 1000][rng.below(3) as usize],
        }
    }
}

/// How the life of a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Kill,
    Close,
}

/// See the module documentation.
pub struct Machine {
    pub disk: Arc<Disk>,
    pub boot: u8,
    pub setup: Setup,
    pub oracle: Oracle,
    next_id: u64,
    /// The highest checkpoint that was asked for.
    requested: Lsn,
}

/// What a process has open.
#[derive(Default)]
struct Held<'w> {
    reservations: Vec<(Reservation<'w>, usize, Expected)>,
    readers: Vec<Reader<'w>>,
}

impl Machine {
    /// A machine on which `expectation` is to be found. Numbers of records go on from `next_id`.
    pub fn new(
        disk: Arc<Disk>,
        boot: u8,
        setup: Setup,
        expectation: &Expectation,
        next_id: u64,
    ) -> Machine {
        let oracle = Oracle::new(expectation);
        Machine { disk, boot, setup, oracle, next_id, requested: Lsn::ZERO }
    }

    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Opens the log and checks it against `expectation`. A fault that was left over may hit the
    /// recovery: then it says so, and the next one must succeed.
    pub fn open(&mut self, expectation: &Expectation) -> Stepped {
        let may_fail = self.disk.has_fault() || self.oracle.has_failed();
        let log = match simulation::open(&self.disk, self.boot, self.setup.options) {
            Ok(log) => log,
            Err(error) => {
                assert!(may_fail, "the log is refused: {error}");
                let error_is_ours = match &error {
                    OpenError::File(_) => true,
                    OpenError::Catalog(error) => matches!(error, CatalogError::Path(_)),
                    _ => false,
                };
                assert!(error_is_ours, "a sync that fails is no damage: {error}");
                simulation::open(&self.disk, self.boot, self.setup.options)
                    .unwrap_or_else(|error| panic!("a second open is refused: {error}"))
            }
        };
        let kept = expectation.verify(&log);
        let moment = self.disk.observe_now();
        self.oracle.reopened(expectation, kept, moment);
        self.oracle.names.reopened(log.stream_names().len(), moment);
        self.oracle.consumers.reopened(&log, moment);
        self.requested = log.watermarks().trimmed;
        self.note(&log);
        log
    }

    /// What the log says between two operations.
    pub fn note(&mut self, log: &Stepped) {
        let moment = self.disk.observe_now();
        let now = log.watermarks();
        if self.setup.retains {
            // What is beyond a cut holds what is above it.
            let at = log.consumers().into_iter().map(|found| match found.cut {
                Some(by) => by.lsn,
                None => found.position.lsn,
            });
            self.requested = self.requested.max(at.min().unwrap_or(Lsn::ZERO));
        }
        assert!(now.trimmed <= now.published && now.published <= now.reserved, "{now:?}");
        let is_released = self.setup.overwrites || now.trimmed <= self.requested;
        assert!(is_released, "trimmed beyond the checkpoint {}: {now:?}", self.requested);
        // A trim whose sync failed may be on the medium all the same.
        let failed = self.oracle.has_failed();
        let most = match (failed, self.setup.overwrites) {
            (false, _) => now.trimmed,
            (true, true) => now.published,
            (true, false) => self.requested.max(now.trimmed),
        };
        self.oracle.note(moment, now.durable, now.trimmed, most);
    }

    /// A process opens the log, which must hold what `expectation` says, takes `steps` steps, and
    /// ends.
    pub fn live(&mut self, expectation: &Expectation, steps: u64, end: End, rng: &mut Rng) {
        let log = self.open(expectation);
        let mut held = Held::default();
        for _ in 0..steps {
            self.step(&log, &mut held, rng);
            self.note(&log);
        }
        for (reservation, ..) in held.reservations.drain(..) {
            std::mem::forget(reservation);
        }
        drop(held);
        // What a failed write-back has left clean may go once the log knows of it; before that, the
        // error itself is the only trace, and it is reported once.
        let is_poisoned = matches!(log.checkpoint(Lsn::ZERO), Err(CheckpointError::Poisoned(_)));
        match end {
            End::Kill => log.kill(),
            End::Close => {
                self.close(&log);
                drop(log);
            }
        }
        let moment = self.disk.observe_now();
        self.oracle.abandon(moment);
        if is_poisoned && rng.below(2) == 0 {
            self.disk.drop_lost_pages(|_, versions| rng.below(versions as u64) as usize);
        }
    }

    /// Closing writes what was asked for as `trimmed`, and makes everything durable.
    fn close(&mut self, log: &Stepped) {
        let before = log.watermarks();
        let closed = log.close();
        let moment = self.disk.observe_now();
        let now = log.watermarks();
        match closed {
            Ok(()) => {
                assert_eq!(now.durable, now.reserved, "a close that succeeds leaves nothing");
                let most = self.requested.max(now.trimmed);
                // What consumers release, and what a catalog refuses to, is not said.
                let is_certain = !self.setup.retains && !self.oracle.has_failed();
                let least = if is_certain { most } else { now.trimmed };
                self.oracle.note(moment, now.durable, least, most);
                self.oracle.consumers.written(moment, now.durable);
            }
            Err(_) => {
                let most = self.requested.max(now.trimmed).max(before.trimmed);
                self.oracle.note(moment, now.durable, now.trimmed, most);
            }
        }
    }

    /// What the machine holds once nobody runs on it.
    pub fn rest(&mut self) -> Expectation {
        let moment = self.disk.observe_now();
        let found = self.oracle.after_kill(moment);
        // A fault that is still to come would hit the recovery.
        Expectation { all: found.all && !self.oracle.has_failed(), ..found }
    }

    fn step<'w>(&mut self, log: &'w Stepped, held: &mut Held<'w>, rng: &mut Rng) {
        if self.setup.uses_files && rng.below(4) == 0 {
            return self.step_beside(log, held, rng);
        }
        match rng.below(32) {
            // With nothing in its way it cannot fail, and says where the record is.
            0..=2 if self.disk.kind() == Kind::Memory && held.reservations.is_empty() => {
                self.append(log, true, rng);
            }
            0..=6 => self.append(log, false, rng),
            7..=9 => self.append_batch(log, rng),
            10..=12 => self.reserve(log, held, rng),
            13..=14 => fill(held, rng),
            15..=18 => self.settle(held, rng),
            19..=20 => self.wait_durable(log, rng),
            21 => drop(log.sync()),
            22..=23 => log.step_flusher(rng.below(3) == 0),
            24..=26 => log.step_janitor(),
            27..=28 if !self.setup.retains => self.checkpoint(log, rng),
            29 => drop(log.sync_checkpoint()),
            30 => read(log, held, rng),
            _ => self.break_something(rng),
        }
    }

    fn draw_len(&self, room: u64, rng: &mut Rng) -> usize {
        let len = match rng.below(16) {
            0 => rng.below(PAYLOAD_MAX + 1),
            // To the end of the segment exactly, or nearly.
            1..=2 => room.saturating_sub(16 + 16 * rng.below(4)).min(PAYLOAD_MAX),
            3 => rng.below(9),
            _ => rng.below(self.setup.size),
        };
        len as usize
    }

    fn expected(&mut self, len: usize) -> Expected {
        self.next_id += 1;
        Expected { id: self.next_id, len, ..Expected::default() }
    }

    fn append(&mut self, log: &Stepped, durable: bool, rng: &mut Rng) {
        let mut record = self.expected(0);
        // Some have a sequence, of one of three producers, in front of their payload.
        let producer = (!durable && rng.below(4) == 0).then(|| ProducerId::new(record.id % 3));
        let named = log.stream_names();
        let named = (producer.is_none() && !named.is_empty() && rng.below(2) == 0)
            .then(|| &named[rng.below(named.len() as u64) as usize]);
        record.stream = named.map(|(id, _)| *id);
        let stamp = if producer.is_some() { 16 } else { 0 };
        record.len = self.draw_len(room(log), rng).min(PAYLOAD_MAX as usize - stamp);
        if !fits(log, stamp + record.len) {
            log.step_janitor();
            if !fits(log, stamp + record.len) {
                return;
            }
        }
        let begun = self.disk.observe_now();
        let bytes = payload(record.id, record.len);
        let appended = match producer {
            None if named.is_some() => {
                let (_, name) = named.expect("looked at");
                append_to(&log.stream(name).expect("it is there"), &bytes, durable)
            }
            Some(producer) => {
                let producer = log.idempotent(producer).expect("what is retained verifies");
                producer.append(record.id, &bytes).ok().map(|appended| {
                    assert!(!appended.duplicate, "{} was never tried before", record.id);
                    appended.lsn
                })
            }
            None if durable => Some(log.append_durable(&bytes).expect("nothing is in its way")),
            None => log.append(&bytes).ok(),
        };
        let Some(lsn) = appended else {
            return;
        };
        record.lsn = lsn;
        let now = self.disk.observe_now();
        // One that waits for durability is committed when its write-back begins.
        let closed = self.disk.stops().into_iter().find(|stop| *stop > begun).unwrap_or(now);
        self.oracle.push(record, begun, closed);
    }

    /// A batch, or a transaction, which is one. Each is a record: all of it is there or nothing.
    fn append_batch(&mut self, log: &Stepped, rng: &mut Rng) {
        let mut record = self.expected(0);
        record.entries = 1 + rng.below(12) as usize;
        record.len = self.draw_len(room(log), rng).max(record.entries * 8);
        record.streams = log.stream_names().len() as u32;
        let entries = batch(record.id, record.entries, record.len, record.streams);
        let space: usize = entries.iter().map(|(_, it)| 8 + it.len().next_multiple_of(8)).sum();
        if space as u64 > PAYLOAD_MAX || !fits(log, space) {
            return;
        }
        let begun = self.disk.observe_now();
        let is_transaction = rng.below(3) == 0 && entries.iter().all(|(it, _)| it.is_some());
        let appended = if is_transaction {
            let mut transaction = log.begin();
            for (stream, payload) in &entries {
                let stream = stream.expect("all have one").get() as usize;
                let (_, name) = &log.stream_names()[stream - 1];
                let stream = log.stream(name).expect("it is there");
                transaction.append(&stream, payload).expect("it fits");
            }
            transaction.commit()
        } else {
            log.append_batch(entries.iter().map(|(it, payload)| Entry { stream: *it, payload }))
        };
        let Ok(lsn) = appended else {
            return;
        };
        record.lsn = lsn;
        let closed = self.disk.observe_now();
        self.oracle.push(record, begun, closed);
    }

    fn reserve<'w>(&mut self, log: &'w Stepped, held: &mut Held<'w>, rng: &mut Rng) {
        let mut record = self.expected(0);
        record.len = self.draw_len(room(log), rng);
        let begun = self.disk.observe_now();
        // On a full ring this seals the segment, or does nothing.
        if let Ok(reservation) = log.try_reserve(record.len) {
            record.lsn = reservation.lsn();
            let place = self.oracle.push(record, begun, NEVER);
            held.reservations.push((reservation, place, record));
        }
    }

    /// Commits or aborts one of the open reservations.
    fn settle(&mut self, held: &mut Held<'_>, rng: &mut Rng) {
        if held.reservations.is_empty() {
            return;
        }
        let index = rng.below(held.reservations.len() as u64) as usize;
        let (mut reservation, place, record) = held.reservations.swap_remove(index);
        let len = match rng.below(4) {
            0 => None,
            1 => Some(rng.below(record.len as u64 + 1) as usize),
            _ => Some(record.len),
        };
        if let Some(len) = len {
            reservation[..len].copy_from_slice(&payload(record.id, len));
        }
        let closing = self.disk.observe_now();
        match len {
            None => reservation.abort(),
            Some(len) => assert_eq!(reservation.commit_len(len), record.lsn),
        }
        let closed = self.disk.observe_now();
        self.oracle.close(place, len, closing, closed);
    }

    fn wait_durable(&mut self, log: &Stepped, rng: &mut Rng) {
        let now = log.watermarks();
        let lsn = now.durable + rng.below((now.reserved - now.durable).max(1)) / 16 * 16;
        // It becomes durable, or a hole is in the way, or the disk fails.
        if log.wait_durable_deadline(lsn, Instant::now()).is_ok() {
            let now = log.watermarks();
            assert!(lsn < now.durable, "{lsn} is said to be durable: {now:?}");
        }
    }

    fn checkpoint(&mut self, log: &Stepped, rng: &mut Rng) {
        let now = self.disk.observe_now();
        let records = self.oracle.after_power_loss(now).records;
        let published = log.watermarks().published;
        let lsn = match records.len() as u64 {
            0 => published,
            _ if rng.below(4) == 0 => published,
            count => records[rng.below(count) as usize].lsn,
        };
        match log.checkpoint(lsn) {
            Ok(_) => self.requested = self.requested.max(lsn),
            Err(CheckpointError::Poisoned(_)) => {}
            Err(error) => panic!("{lsn} is a boundary, published up to {published}: {error}"),
        }
    }

    /// Releases everything that is durable, at once.
    pub fn trim(&mut self, log: &Stepped) {
        let now = log.watermarks();
        self.requested = log.checkpoint(now.published).expect("the end is a boundary");
        log.sync_checkpoint().expect("the disk takes it");
    }

    /// Something that happens beside the ring.
    fn step_beside(&mut self, log: &Stepped, held: &Held<'_>, rng: &mut Rng) {
        match rng.below(8) {
            0..=1 => return self.create_streams(log, rng),
            2 => return self.move_one(log, held, rng),
            _ => {}
        }
        let begun = self.disk.observe_now();
        // In the mode without durability what is published may be written.
        let now = log.watermarks();
        let before = if self.setup.may_cut { now.published } else { now.durable };
        let number = rng.below(3) as usize;
        let name = consumer_name(number);
        let is_there = log.consumers().iter().any(|found| found.name == name);
        match rng.below(16) {
            0..=2 if !is_there => {
                let from = [Position::Oldest, Position::Newest][rng.below(2) as usize];
                let made = log.consumer_at(&name, from).map(|made| {
                    let at = made.position().expect("it was made");
                    at.lsn
                });
                let done = if made.is_ok() { self.disk.observe_now() } else { NEVER };
                // One that failed may be on the medium, anywhere it may have been made.
                let end = log.watermarks().reserved;
                let (least, most) = made.map_or((Lsn::ZERO, end), |at| (at.min(before), at));
                self.oracle.consumers.place(number, (begun, done), most, least);
            }
            0 => {
                let removed = log.remove_consumer(&name).is_ok();
                let done = if removed { self.disk.observe_now() } else { NEVER };
                self.oracle.consumers.end(number, begun, done);
            }
            1..=2 => {
                let to = [Position::Oldest, Position::Newest][rng.below(2) as usize];
                let reset = log.reset_consumer(&name, to).is_ok();
                let done = if reset { self.disk.observe_now() } else { NEVER };
                let consumer = log.consumer(&name).expect("it is there");
                let at = consumer.position().expect("it is there").lsn;
                self.oracle.consumers.place(number, (begun, done), at, before);
            }
            3..=5 => self.sync_consumers(log, before),
            _ if is_there => self.ack(log, number, rng),
            _ => {}
        }
    }

    /// Moves a stream's oldest record that was not moved yet.
    fn move_one(&mut self, log: &Stepped, held: &Held<'_>, rng: &mut Rng) {
        // It is durable when this returns: nothing may be in its way.
        if !held.reservations.is_empty() || self.oracle.has_failed() || self.disk.has_fault() {
            return;
        }
        let names = log.stream_names();
        if names.is_empty() {
            return;
        }
        let (id, name) = &names[rng.below(names.len() as u64) as usize];
        let (begun, trimmed) = (self.disk.observe_now(), log.watermarks().trimmed);
        let retained = self.oracle.after_kill(begun).records;
        let is_here = |record: &&Expected| record.lsn >= trimmed && record.of().any(|of| of == *id);
        let of_stream: Vec<Expected> = retained.iter().filter(is_here).copied().collect();
        let was_moved = |from: &Expected| {
            of_stream.iter().any(|record| record.moved.is_some_and(|(_, it)| it == from.lsn))
        };
        let Some(from) = of_stream.iter().find(|record| !was_moved(record)) else { return };
        // What it needs of a record's room is counted as if it had been moved before.
        if from.entries > 0 || from.len + 32 > PAYLOAD_MAX as usize || !fits(log, from.len + 16) {
            return;
        }
        let stream = log.stream(name).expect("it is there");
        let moved = stream.move_forward(from.lsn + 16).expect("nothing is in its way");
        assert_eq!((moved.entries, moved.payload_bytes), (1, from.len as u64), "{from:?}");
        let first = from.moved.map_or(from.lsn, |(first, _)| first);
        let lsn = moved.last_lsn.expect("it was moved");
        assert!(lsn < log.watermarks().durable, "the copy may be lost, and the original released");
        let record = Expected { lsn, moved: Some((first, from.lsn)), ..*from };
        // It was committed when its sync began.
        let now = self.disk.observe_now();
        let closed = self.disk.stops().into_iter().find(|stop| *stop > begun).unwrap_or(now);
        self.oracle.push(record, begun, closed);
    }

    /// Positions are written, as far as they are at or below `bound`.
    fn sync_consumers(&mut self, log: &Stepped, bound: Lsn) {
        if log.sync_consumers().is_ok() {
            let moment = self.disk.observe_now();
            self.oracle.consumers.written(moment, bound);
        }
    }

    /// Acknowledges some of what a consumer may read.
    fn ack(&mut self, log: &Stepped, number: usize, rng: &mut Rng) {
        let consumer = log.consumer(&consumer_name(number)).expect("it is there");
        let Ok(mut reader) = consumer.reader() else {
            return;
        };
        let begun = self.disk.observe_now();
        for _ in 0..1 + rng.below(8) {
            let Ok(Some(record)) = reader.next() else { break };
            let next = record.next_lsn();
            consumer.ack(next).expect("it was read");
        }
        let at = consumer.position().expect("it is there").lsn;
        self.oracle.consumers.ack(number, begun, at);
    }

    /// One stream or several at once.
    fn create_streams(&mut self, log: &Stepped, rng: &mut Rng) {
        let begun = self.disk.observe_now();
        let first = self.next_id + 1;
        let count = if is_versioned(first) { 1 } else { 1 + rng.below(3) };
        // Of those that come at once none is under version control.
        let numbers: Vec<u64> = match count {
            1 => vec![first],
            _ => (0..count).map(|at| first + 3 * at).collect(),
        };
        self.next_id = first + 3 * count;
        let names: Vec<String> = numbers.iter().map(|number| stream_name(*number)).collect();
        let created = match &names[..] {
            [name] if is_versioned(first) => log.versioned_stream(name).is_ok(),
            _ => log.streams(&names.iter().map(|name| &name[..]).collect::<Vec<_>>()).is_ok(),
        };
        let done = if created { self.disk.observe_now() } else { NEVER };
        self.oracle.names.create(numbers.into_iter(), begun, done);
    }

    fn break_something(&mut self, rng: &mut Rng) {
        if !self.setup.is_faulty || self.oracle.has_failed() {
            return;
        }
        let moment = self.disk.observe_now();
        self.oracle.fail(moment);
        match rng.below(if self.setup.uses_files { 4 } else { 3 }) {
            0 => self.disk.inject(Fault::FailSync(rng.below(4))),
            1 => self.disk.inject(Fault::ShortSync(rng.below(4))),
            3 => self.disk.inject(Fault::FailFileSync(rng.below(8))),
            _ => {
                // The kernel's own write-back fails; whoever syncs next is told.
                let pages = self.disk.disk().len() as u64 / 4096;
                let first = 3 + rng.below(pages - 3);
                let last = first + 1 + rng.below(pages - first);
                self.disk.write_back(first as usize * 4096..last as usize * 4096, false);
            }
        }
    }
}

/// Appends to a stream; to one under version control sometimes what expects its version.
fn append_to(stream: &Stream<'_>, bytes: &[u8], durable: bool) -> Option<Lsn> {
    if durable {
        return Some(stream.append_durable(bytes).expect("nothing is in its way"));
    }
    if !stream.is_versioned() {
        return stream.append(bytes).ok();
    }
    let version = stream.last_lsn().expect("what is retained verifies");
    let appended = match stream.append_if(version, bytes) {
        Err(AppendError::Conflict { .. }) => panic!("{version:?} was its version just now"),
        appended => appended.ok(),
    };
    if appended.is_some() {
        assert_eq!(stream.last_lsn().expect("what is retained verifies"), appended);
    }
    appended
}

/// Bytes to the end of the segment that is claimed from; 0 if that is not prepared.
fn room(log: &Stepped) -> u64 {
    let now = log.watermarks();
    if now.reserved >= now.writable { 0 } else { RECORD_END - now.reserved.get() % SEGMENT }
}

/// Would an append of `len` bytes go through without waiting?
fn fits(log: &Stepped, len: usize) -> bool {
    let now = log.watermarks();
    let next_is_prepared = now.writable.get() / SEGMENT >= now.reserved.get() / SEGMENT + 2;
    let claim = (len as u64 + 16).next_multiple_of(16);
    room(log) >= claim || next_is_prepared
}

/// Writes a part of an open reservation's payload.
fn fill(held: &mut Held<'_>, rng: &mut Rng) {
    if held.reservations.is_empty() {
        return;
    }
    let index = rng.below(held.reservations.len() as u64) as usize;
    let (reservation, _, record) = &mut held.reservations[index];
    let part = rng.below(record.len as u64 + 1) as usize;
    reservation[..part].copy_from_slice(&payload(record.id, record.len)[..part]);
}

/// Takes a pin, moves one, or lets one go.
fn read<'w>(log: &'w Stepped, held: &mut Held<'w>, rng: &mut Rng) {
    if rng.below(2) == 0 && !held.readers.is_empty() {
        held.readers.swap_remove(0);
    } else if let Some(reader) = held.readers.first_mut() {
        let _ = reader.next().expect("what is pinned verifies");
    } else {
        held.readers.push(log.reader(Position::Oldest).expect("the oldest can be read"));
    }
}

/// Where a kill may fall, and where a sync begins or ends, since `from`.
pub fn moments(disk: &Disk, from: Moment) -> (Vec<Moment>, Vec<Moment>) {
    let since = |moments: Vec<Moment>| moments.into_iter().filter(|at| *at >= from).collect();
    (since(disk.stops()), since(disk.syncs()))
}
