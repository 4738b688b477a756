//! A sequence of operations with crashes in between, against an oracle: what was acknowledged as
//! durable survives a power loss, what was committed survives a kill, in order and unaltered, and
//! nothing else comes back.
//!
//! Input: the ring's size, the durability mode and the policy for a full ring; then operations of
//! three bytes each, until the input ends.

use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use kaelix_wal::fuzzing::{self, Machine};
use kaelix_wal::simulation::{self, Fault};
use kaelix_wal::{
    AppendError, CheckpointError, CloseError, Durability, IdempotentProducer, Lsn, OnFull, Options,
    Position, ProducerId, ReadError, WaitError, Wal,
};

use crate::format::append_batch;
use crate::image::{LOG_ID, Returned, contents};

const OPERATIONS_MAX: usize = 80;
/// Each of these is waited for in vain once or twice.
const HOLES_MAX: u32 = 2;
/// Longer than anything takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(15);
const WORD: usize = 8;
const SECTOR: usize = 512;

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut log = Log::new(byte(&mut input), byte(&mut input));
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        let operation = byte(&mut input);
        let argument = input.arbitrary::<u16>().unwrap_or_default();
        log.operate(operation, usize::from(argument), &mut input);
    }
    log.lose_power(&mut input);
    log.kill();
}

/// One of two.
fn producer_of(wal: &Wal, sequence: u64) -> IdempotentProducer<'_> {
    wal.idempotent(ProducerId::new(sequence % 2)).expect("what is retained verifies")
}

fn byte(input: &mut Unstructured<'_>) -> u8 {
    input.arbitrary().unwrap_or_default()
}

/// The log, and what must be in it.
struct Log {
    machine: Machine,
    wal: Option<Wal>,
    boot: u8,
    options: Options,
    has_flusher: bool,
    /// What was committed, in order.
    records: Vec<Returned>,
    /// How many of them, from the first, are acknowledged as durable.
    durable: usize,
    number: u8,
    /// The sequences that were appended idempotently, and where.
    stamped: Vec<(u64, Lsn)>,
    sequence: u64,
    /// Where reservations of this incarnation were forgotten: nothing behind is published.
    holes: Vec<u64>,
    /// A sync of this machine was told to fail, and may have.
    faulty: bool,
}

impl Log {
    fn new(size: u8, mode: u8) -> Log {
        let geometry = simulation::tiny(2 + u64::from(size) % 4);
        let durability = match mode % 4 {
            0 => Durability::OnDemand,
            1 => Durability::Interval(Duration::from_micros(200)),
            _ => Durability::None,
        };
        let on_full = if mode & 4 == 0 { OnFull::Overwrite } else { OnFull::Fail };
        let options = Options::new().durability(durability).on_full(on_full);
        let mut log = Log {
            machine: Machine::new(simulation::new_image_of(geometry, LOG_ID)),
            wal: None,
            boot: 1,
            has_flusher: durability != Durability::None,
            options: options.hole_age_max(Duration::from_millis(20)),
            records: Vec::new(),
            durable: 0,
            number: 0,
            stamped: Vec::new(),
            sequence: 0,
            holes: Vec::new(),
            faulty: false,
        };
        log.open(true);
        log
    }

    fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("it is open between operations")
    }

    fn operate(&mut self, operation: u8, argument: usize, input: &mut Unstructured<'_>) {
        match operation % 20 {
            0 | 1 => self.sync(),
            2 => self.checkpoint(argument),
            3 => self.sync_checkpoint(),
            4 => self.read(argument),
            5 => self.kill(),
            6 => self.lose_power(input),
            7 => self.close(),
            8 => {
                let len = self.machine.disk().len();
                self.machine.write_back(argument * 16 % len..len, true);
            }
            9 if argument.is_multiple_of(8) => {
                self.machine.inject(Fault::FailSync(argument as u64 / 8 % 4));
                self.faulty = true;
            }
            10 => self.reserve(argument % 4000, argument / 7),
            11 | 12 => self.reserve(argument % 400, argument / 5),
            13 => self.append(argument),
            14 => self.append(argument % 4000),
            15 | 16 => self.append_idempotently(argument % 300),
            // Some too large for a segment.
            19 => self.append_batch(1 + argument % 9, argument / 9 % 500),
            _ => self.append(argument % 300),
        }
    }

    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.number = self.number.wrapping_add(1);
        (0..len).map(|at| self.number ^ (at * 7) as u8).collect()
    }

    fn append(&mut self, len: usize) {
        let payload = self.payload(len);
        match self.wal().append(&payload) {
            Ok(lsn) => self.committed(lsn, payload),
            Err(error) => self.refused(&error, len),
        }
    }

    fn append_idempotently(&mut self, len: usize) {
        let payload = self.payload(len);
        self.sequence += 1;
        let producer = producer_of(self.wal(), self.sequence);
        match producer.append(self.sequence, &payload) {
            Ok(appended) => {
                assert!(!appended.duplicate, "{} was never tried before", self.sequence);
                self.stamped.push((self.sequence, appended.lsn));
                self.committed(appended.lsn, payload);
            }
            Err(error) => self.refused(&error, len),
        }
    }

    /// What is retained is where it was when it is tried again.
    fn retry_all(&mut self) {
        let records = &self.records;
        self.stamped
            .retain(|(_, lsn)| records.binary_search_by_key(&lsn.get(), |(lsn, _)| *lsn).is_ok());
        for (sequence, lsn) in std::mem::take(&mut self.stamped) {
            let outcome = producer_of(self.wal(), sequence).append(sequence, b"again");
            // Its janitor may have begun to make room.
            let is_released = lsn < self.wal().watermarks().trimmed;
            match outcome {
                Ok(appended) if appended.duplicate => assert_eq!(appended.lsn, lsn),
                Ok(appended) if is_released => self.committed(appended.lsn, b"again".to_vec()),
                Err(AppendError::SequenceTooOld { .. } | AppendError::Full { .. })
                    if is_released =>
                {
                    continue;
                }
                outcome => panic!("{sequence} is retained at {lsn}: {outcome:?}"),
            }
            self.stamped.push((sequence, outcome.map_or(lsn, |appended| appended.lsn)));
        }
    }

    fn append_batch(&mut self, count: usize, len: usize) {
        self.number = self.number.wrapping_add(1);
        match append_batch(self.wal(), self.number, count, len) {
            Ok((lsn, payload)) => self.committed(lsn, payload),
            Err((error, len)) => self.refused(&error, len),
        }
    }

    fn committed(&mut self, lsn: Lsn, payload: Vec<u8>) {
        let last = self.records.last().map_or(0, |(lsn, _)| *lsn);
        assert!(lsn.get() > last, "a record at {lsn}, behind one at {last}");
        self.records.push((lsn.get(), payload));
    }

    fn refused(&self, error: &AppendError, len: usize) {
        let is_right = match error {
            AppendError::Full { .. } => true,
            AppendError::TooLarge { max, .. } => len > *max,
            AppendError::HeldBack { .. } => self.may_be_held_back(),
            AppendError::Poisoned(_) => self.faulty,
            _ => false,
        };
        assert!(is_right, "{error}");
    }

    fn reserve(&mut self, len: usize, then: usize) {
        let payload = self.payload(len);
        let wal = self.wal.take().expect("it is open between operations");
        match wal.try_reserve(len) {
            Ok(mut reservation) => {
                let lsn = reservation.lsn();
                reservation.copy_from_slice(&payload);
                match then % 4 {
                    0 => drop(reservation),
                    1 if (self.holes.len() as u32) < HOLES_MAX && !self.faulty => {
                        self.holes.push(lsn.get());
                        std::mem::forget(reservation);
                    }
                    2 => {
                        let kept = then % (len + 1);
                        assert_eq!(reservation.commit_len(kept), lsn);
                        self.committed(lsn, payload[..kept].to_vec());
                    }
                    _ => {
                        assert_eq!(reservation.commit(), lsn);
                        self.committed(lsn, payload);
                    }
                }
            }
            Err(error) => self.refused(&error, len),
        }
        self.wal = Some(wal);
    }

    /// By a hole of ours, or by a flusher that is stopped for longer than a hole may be old.
    fn may_be_held_back(&self) -> bool {
        !self.holes.is_empty() || self.has_flusher
    }

    /// Waits until all that was committed before the first hole is published: the flusher's own
    /// record may be open in front of it for a moment.
    fn settle(&self) {
        let last = self.records[..self.published()].last().map_or(0, |(lsn, _)| *lsn);
        let start = Instant::now();
        while self.wal().watermarks().published.get() <= last {
            assert!(start.elapsed() < PATIENCE, "what was committed at {last} is never published");
            std::thread::yield_now();
        }
    }

    fn sync(&mut self) {
        let mut result = self.wal().sync();
        while matches!(result, Err(WaitError::HeldBack { .. })) && self.holes.is_empty() {
            self.settle();
            result = self.wal().sync();
        }
        match result {
            Ok(durable) => {
                assert!(self.holes.is_empty(), "durable to {durable}, with a hole before");
                self.durable = self.records.len();
            }
            Err(WaitError::HeldBack { lsn, .. }) => {
                let hole = self.holes.first().copied().unwrap_or_default();
                assert!(lsn.get() == hole || self.may_be_held_back(), "held back at {lsn}");
            }
            Err(WaitError::Poisoned(_)) => assert!(self.faulty),
            Err(error) => panic!("{error}"),
        }
    }

    /// How many records lie before the first hole.
    fn published(&self) -> usize {
        let hole = self.holes.first().copied().unwrap_or(u64::MAX);
        self.records.partition_point(|(lsn, _)| *lsn < hole)
    }

    fn checkpoint(&mut self, argument: usize) {
        self.settle();
        let lsn = match self.records.get(argument % (self.records.len() + 1)) {
            Some((lsn, _)) => Lsn::new(lsn + argument as u64 % 5 / 4 * 8),
            None => self.wal().watermarks().published,
        };
        match self.wal().checkpoint(lsn) {
            Ok(_) => {}
            Err(CheckpointError::NotARecord { .. }) => assert!(lsn.get() % 16 != 0, "{lsn}"),
            Err(CheckpointError::Beyond { .. }) => assert!(!self.holes.is_empty(), "{lsn}"),
            Err(CheckpointError::Poisoned(_)) => assert!(self.faulty),
            Err(error) => panic!("{error}"),
        }
    }

    fn sync_checkpoint(&mut self) {
        match self.wal().sync_checkpoint() {
            // The janitor may have gone on.
            Ok(trimmed) => assert!(trimmed <= self.wal().watermarks().trimmed),
            Err(error) => assert!(self.faulty, "{error}"),
        }
    }

    fn read(&self, argument: usize) {
        self.settle();
        let wal = self.wal();
        let all = contents(wal);
        let published = &self.records[..self.published()];
        assert!(published.ends_with(&all), "other records than were committed");
        let first = published.len() - all.len();
        let trimmed = wal.watermarks().trimmed.get();
        assert!(published[..first].iter().all(|(lsn, _)| *lsn < trimmed), "retained, and gone");
        if let Some((lsn, payload)) = self.records.get(argument % self.records.len().max(1)) {
            match wal.get(Lsn::new(*lsn)) {
                Ok(record) => assert!(record.payload() == payload),
                Err(ReadError::Trimmed { oldest, .. }) => assert!(*lsn < oldest.get()),
                Err(ReadError::NotYet { .. }) => assert!(!self.holes.is_empty()),
                Err(error) => panic!("{error}"),
            }
        }
        drop(wal.get(Lsn::new(argument as u64 * 16)));
        let tail = wal.reader(Position::Newest).expect("the end can be read");
        assert!(tail.position().get() >= published.last().map_or(0, |(lsn, _)| *lsn));
    }

    /// The process dies; the machine, and its page cache, live on.
    fn kill(&mut self) {
        self.end();
        self.open(!self.faulty);
    }

    /// The medium holds old or new of each word, or of each sector, that no sync has covered.
    fn lose_power(&mut self, input: &mut Unstructured<'_>) {
        self.end();
        let (mut disk, cache) = (self.machine.disk(), self.machine.cache());
        let unit = if byte(input) & 1 == 0 { SECTOR } else { WORD };
        let mut choice = input.arbitrary::<u64>().unwrap_or_default();
        for (old, new) in disk.chunks_mut(unit).zip(cache.chunks(unit)) {
            if old != new {
                if choice & 1 != 0 {
                    old.copy_from_slice(new);
                }
                choice = choice.rotate_right(1);
            }
        }
        self.machine = Machine::new(disk);
        self.faulty = false;
        self.boot += 1;
        self.open(false);
    }

    fn close(&mut self) {
        let closed = self.wal().close();
        match &closed {
            Ok(()) => {
                assert!(self.holes.is_empty(), "closed over a hole");
                self.durable = self.records.len();
            }
            Err(CloseError::HeldBack { .. }) => assert!(self.may_be_held_back()),
            Err(error) => assert!(self.faulty, "{error}"),
        }
        self.wal = None;
        self.machine = Machine::new(self.machine.disk());
        self.faulty = false;
        self.boot += 1;
        self.open(closed.is_ok());
    }

    fn end(&mut self) {
        fuzzing::kill(self.wal.take().expect("it is open between operations"));
    }

    /// Opens again; `all` that was committed must be there, or else what was durable.
    fn open(&mut self, all: bool) {
        let wal = match self.machine.open(self.boot, self.options) {
            Ok(wal) => wal,
            Err(error) => {
                assert!(self.faulty, "{error}");
                // The fault is spent: the next process comes to the same result.
                self.machine.open(self.boot, self.options).expect("the disk works again")
            }
        };
        let found = contents(&wal);
        // Its janitor may have begun to make room meanwhile.
        let trimmed = wal.watermarks().trimmed.get();
        let first = found.first().map_or(trimmed, |(lsn, _)| (*lsn).min(trimmed));
        let retained = self.records.partition_point(|(lsn, _)| *lsn < first);
        let report = wal.recovery_report();
        let want = &self.records[retained..];
        assert!(want.starts_with(&found), "other records than were committed: {report}");
        let kept = retained + found.len();
        assert!(kept >= self.durable, "{kept} of {} durable records: {report}", self.durable);
        assert!(!all || kept == self.records.len(), "a committed record is lost: {report}");
        self.records.truncate(kept);
        self.durable = kept;
        self.holes.clear();
        self.wal = Some(wal);
        self.retry_all();
    }
}
