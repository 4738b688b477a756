//! Every record length, every way to write it, every place where a segment may end: against a
//! model that is a queue of positions and payloads.

mod common;

use std::collections::{BTreeSet, VecDeque};
use std::io::{IoSlice, Write};

use bytes::BufMut;
use common::{
    FIRST_RECORD, MODES, Place, RECORD_END, Rng, SEGMENT, bytes, copy_log, read_all, seed, soon,
    stress,
};
use kaelix_wal::{
    AppendError, Durability, Lsn, OnFull, Options, Position, ReadError, RecoveryOutcome, Wal,
};

/// The ways to write a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Append,
    Vectored,
    Commit,
    CommitLen,
    Write,
    BufMut,
}

const WAYS: [Way; 6] =
    [Way::Append, Way::Vectored, Way::Commit, Way::CommitLen, Way::Write, Way::BufMut];

/// A log beside the model of what it holds.
struct Checked {
    place: Place,
    wal: Option<Wal>,
    durability: Durability,
    options: Options,
    model: VecDeque<(Lsn, Vec<u8>)>,
    written: u64,
}

/// The space that a record with a payload of `len` bytes takes.
fn taken(len: usize) -> u64 {
    (len as u64 + 16).next_multiple_of(16)
}

impl Checked {
    fn new(durability: Durability) -> Checked {
        let options = Options::new().durability(durability).on_full(OnFull::Fail);
        let place = Place::new();
        let wal = Some(place.create(options));
        Checked { place, wal, durability, options, model: VecDeque::new(), written: 0 }
    }

    fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("open but for a moment")
    }

    /// Writes a record of `len` bytes; when the ring is full, checks and releases all of it.
    fn put(&mut self, way: Way, len: usize) -> Lsn {
        self.written += 1;
        let payload = bytes(self.written, len);
        for _ in 0..3 {
            match write(self.wal(), way, &payload, self.written) {
                Ok(lsn) => {
                    assert!(self.model.back().is_none_or(|(last, _)| *last < lsn));
                    self.model.push_back((lsn, payload));
                    return lsn;
                }
                Err(AppendError::Full { .. }) => {
                    self.check();
                    self.release(self.model.len());
                }
                Err(error) => panic!("{way:?} of {len} bytes: {error}"),
            }
        }
        panic!("{way:?} of {len} bytes: full, and everything was released");
    }

    /// Releases the oldest `count` records.
    fn release(&mut self, count: usize) {
        let wal = self.wal.as_ref().expect("open");
        let end = match self.durability {
            Durability::None => wal.watermarks().published,
            _ => wal.sync().expect("no hole"),
        };
        let to = self.model.get(count).map_or(end, |(lsn, _)| *lsn);
        assert_eq!(wal.checkpoint(to).expect("a boundary"), to);
        self.model.drain(..count);
    }

    /// All that the model holds is in `wal`, and nothing else.
    fn compare(&self, wal: &Wal) {
        let found = read_all(wal, Position::Oldest);
        let first = self.model.front().map(|(lsn, _)| *lsn);
        // What was released may still be there.
        let found: Vec<_> =
            found.into_iter().filter(|(lsn, _)| first.is_some_and(|first| *lsn >= first)).collect();
        assert!(
            self.model.iter().eq(&found),
            "{} records wanted, {} found",
            self.model.len(),
            found.len()
        );
    }

    /// As `compare`, and each is found by its position.
    fn check(&self) {
        self.compare(self.wal());
        for (lsn, payload) in &self.model {
            let record = self.wal().get(*lsn).expect("retained");
            assert_eq!(&record[..], payload, "{lsn}");
            drop(record);
        }
    }

    /// Closes and opens the log.
    fn reopen(&mut self) {
        self.wal = None;
        let wal = self.place.open(self.options);
        assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::Clean);
        assert_eq!(wal.recovery_report().cut_bytes, 0);
        self.wal = Some(wal);
        self.check();
    }

    /// Syncs, copies the ring, and opens the copy: as after a loss of power.
    fn check_copy(&self) {
        self.wal().sync().expect("no hole");
        let copy = self.place.beside("copy");
        let pin = self.wal().reader(Position::Oldest).expect("the oldest");
        copy_log(&self.place.path, &copy);
        drop(pin);
        let wal = Wal::open(&copy, self.options).expect("what was synced can be opened");
        assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::PowerLost);
        self.compare(&wal);
        drop(wal);
        std::fs::remove_dir_all(&copy).expect("the copy can be removed");
    }

    /// Fills the active segment up to `gap` bytes before its end.
    fn leave(&mut self, gap: u64) {
        loop {
            let reserved = self.wal().watermarks().reserved.get();
            let offset = reserved % SEGMENT;
            let room = (RECORD_END - gap).checked_sub(offset);
            match room {
                // The end of a segment is given as the start of the next one.
                Some(_) if gap == 0 && offset == FIRST_RECORD => return,
                Some(0) => return,
                Some(room) if room >= 16 => {
                    self.put(Way::Append, room as usize - 16);
                }
                _ => {
                    self.put(Way::Append, 4000);
                }
            }
        }
    }
}

fn write(wal: &Wal, way: Way, payload: &[u8], salt: u64) -> Result<Lsn, AppendError> {
    let max = wal.geometry().payload_len_max();
    // More than is needed, to be given back at the commit.
    let extra = [1, 15, 16, 17, 100][salt as usize % 5];
    let longer = (payload.len() + extra).min(max);
    match way {
        Way::Append => wal.append(payload),
        Way::Vectored => {
            let (a, rest) = payload.split_at(payload.len() / 3);
            let (b, c) = rest.split_at((salt as usize * 7).min(rest.len()));
            wal.append_vectored(&[a, &[], b, c].map(IoSlice::new))
        }
        Way::Commit => {
            let mut space = wal.reserve(payload.len())?;
            assert!(space.iter().all(|byte| *byte == 0), "space is zeroed");
            space.copy_from_slice(payload);
            let lsn = space.lsn();
            assert_eq!(space.commit(), lsn);
            Ok(lsn)
        }
        Way::CommitLen => {
            let mut space = wal.reserve_deadline(longer, soon(1000))?;
            space.fill(0xAA);
            space[..payload.len()].copy_from_slice(payload);
            Ok(space.commit_len(payload.len()))
        }
        Way::Write => {
            let mut space = wal.reserve(longer)?;
            for part in payload.chunks(payload.len() / 4 + 1) {
                space.write_all(part).expect("there is room");
            }
            assert_eq!(space.written(), payload.len());
            Ok(space.commit_written())
        }
        Way::BufMut => {
            let mut space = wal.reserve(longer)?;
            for part in payload.chunks(payload.len() / 4 + 1) {
                space.put_slice(part);
            }
            assert_eq!(space.remaining_mut(), longer - payload.len());
            Ok(space.commit_written())
        }
    }
}

#[test]
fn every_length_written_in_every_way() {
    let max = common::small().payload_len_max();
    let mut lengths: BTreeSet<usize> = (0..=300).collect();
    for power in 4..16 {
        let center = 1_usize << power;
        lengths.extend(center - 15..=center + 17);
    }
    lengths.extend(max - 40..=max);
    lengths.retain(|len| *len <= max);
    for durability in MODES {
        let mut log = Checked::new(durability);
        for way in WAYS {
            for len in &lengths {
                log.put(way, *len);
            }
            log.check();
            log.reopen();
        }
        assert!(log.wal().watermarks().reserved > Lsn::new(12 * 4 * SEGMENT));
    }
}

/// Without durability the log puts no records of its own between ours, so that each position is
/// known beforehand.
#[test]
fn every_gap_at_a_segments_end() {
    let max = common::small().payload_len_max();
    let sizes = [0, 1, 15, 16, 17, 31, 32, 33, 48, 64, 100, 256, 300, 4096, 33_000, max];
    let mut log = Checked::new(Durability::None);
    for round in 0..3 {
        for len in sizes {
            for gap in (0..=336).step_by(16) {
                log.leave(gap);
                let end = log.wal().watermarks().reserved.get();
                let segment = (end + gap) / SEGMENT * SEGMENT - if gap == 0 { SEGMENT } else { 0 };
                let next = segment + SEGMENT + FIRST_RECORD;
                assert_eq!(end, if gap == 0 { next } else { segment + RECORD_END - gap });
                let way = WAYS[(round + gap as usize / 16 + len) % WAYS.len()];
                // What is reserved too much counts, too.
                let longer = match way {
                    Way::CommitLen | Way::Write | Way::BufMut => taken(len + 100),
                    _ => taken(len),
                };
                let lsn = log.put(way, len).get();
                if longer <= gap {
                    assert_eq!(lsn, end, "{len} bytes, {gap} before the end");
                } else if taken(len) > gap {
                    assert_eq!(lsn, next, "{len} bytes, {gap} before the end");
                }
            }
        }
        log.check();
        log.reopen();
    }
    assert!(log.wal().watermarks().reserved > Lsn::new(3 * 4 * SEGMENT));
}

/// The record that opens an epoch, and the log's own records behind a sync, meet every gap too.
#[test]
fn every_gap_when_opening() {
    for durability in MODES {
        let mut log = Checked::new(durability);
        for gap in (0..=160).step_by(16) {
            for len in [0, 16, 40] {
                log.leave_about(gap);
                log.reopen();
                log.put(Way::Append, len);
                log.check_copy();
                log.leave_about(gap);
                log.check_copy();
                log.put(Way::Commit, len);
                log.reopen();
            }
        }
    }
}

impl Checked {
    /// As `leave`, where the log's own records may come between: it may miss the gap by one.
    fn leave_about(&mut self, gap: u64) {
        for _ in 0..4 {
            self.wal().sync().expect("no hole");
            let offset = self.wal().watermarks().reserved.get() % SEGMENT;
            match (RECORD_END - gap).checked_sub(offset) {
                Some(room) if room >= 16 => {
                    self.put(Way::Append, room as usize - 16);
                    return;
                }
                Some(_) if gap == 0 && offset == FIRST_RECORD => return,
                Some(0) => return,
                _ => {
                    self.put(Way::Append, 4000);
                }
            }
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let max = self.wal().geometry().payload_len_max() as u64;
        match rng.below(100) {
            0..=79 => {
                let bound = [40, 300, 3000, max + 1][rng.below(4) as usize];
                let way = WAYS[rng.below(WAYS.len() as u64) as usize];
                self.put(way, rng.below(bound) as usize);
            }
            80..=84 => {
                // Given up: nothing of it is ever seen.
                if let Ok(mut space) = self.wal().reserve(rng.below(2000) as usize) {
                    space.fill(0x55);
                }
            }
            85..=89 if !self.model.is_empty() => {
                let count = 1 + rng.below(self.model.len() as u64) as usize;
                self.release(count);
            }
            90..=93 => self.check(),
            94 => self.reopen(),
            95 => self.check_copy(),
            96 => {
                self.wal().sync().expect("no hole");
            }
            97 => {
                self.wal().sync_checkpoint().expect("no sync failed");
            }
            _ => {
                if let Some((lsn, payload)) = self.model.back() {
                    self.wal().wait_durable(*lsn).expect("no hole");
                    assert_eq!(&self.wal().get(*lsn).expect("retained")[..], payload);
                }
                let beyond = self.wal().watermarks().reserved + 16 * rng.below(100);
                let result = self.wal().get(beyond);
                let none =
                    matches!(result, Err(ReadError::NotYet { .. } | ReadError::NotARecord { .. }));
                assert!(none, "{beyond}: {result:?}");
            }
        }
    }
}

#[test]
fn random_histories_match_the_model() {
    let seed = seed("random_histories_match_the_model");
    for durability in MODES {
        let mut rng = Rng::new(seed);
        let mut log = Checked::new(durability);
        for _ in 0..1500 * stress() {
            log.step(&mut rng);
        }
        log.check();
        log.reopen();
    }
}
