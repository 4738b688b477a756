//! Random runs that end in a power loss or a kill: recovery returns a prefix of what was published,
//! with everything that was acknowledged as durable, and again after the next crash.

use super::{Random, contents, contents_of, kill, new_image, newest_checkpoint, open, tiny};
use crate::geometry::Geometry;
use crate::region::Simulated;
use crate::sync::Arc;
use crate::{Durability, Lsn, OnFull, Options, Position, Wal};

/// What was appended, in order, and what of it must be there.
#[derive(Default)]
struct Oracle {
    records: Vec<(Lsn, Vec<u8>)>,
    /// How many of them, from the first, are acknowledged as durable.
    durable: usize,
    next: u64,
}

impl Oracle {
    fn append(&mut self, wal: &Wal, random: &mut Random) {
        let mut payload = self.next.to_le_bytes().to_vec();
        payload.resize(8 + random.below(600) as usize, self.next as u8);
        self.next += 1;
        let lsn = wal.append(&payload).expect("the oldest makes room");
        self.records.push((lsn, payload));
    }

    /// Compares with what recovery returned, and goes on from there.
    fn check(&mut self, wal: &Wal, all: bool, what: &str) {
        let reader = wal.reader(Position::Oldest).expect("the oldest can be read");
        let oldest = reader.position();
        let found = contents_of(reader);
        let retained = self.records.partition_point(|(lsn, _)| *lsn < oldest);
        let want = &self.records[retained.min(self.records.len())..];
        assert!(found.len() <= want.len(), "{what}: more than was written");
        for (found, (lsn, payload)) in found.iter().zip(want) {
            assert!(found == payload, "{what}: the record at {lsn} is another one");
        }
        let kept = retained + found.len();
        assert!(kept >= self.durable, "{what}: {kept} kept of {} durable", self.durable);
        assert!(!all || kept == self.records.len(), "{what}: a committed record is lost");
        self.records.truncate(kept);
        self.durable = kept;
    }
}

fn run(seed: u64, geometry: Geometry) {
    let mut random = Random::new(seed);
    let mut disk = Simulated::new(new_image(geometry));
    let mut oracle = Oracle::default();
    let mut boot = 1;
    for crash in 0..4 {
        let durability = [Durability::OnDemand, Durability::None][random.below(2) as usize];
        let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
        let what = format!("seed {seed}, crash {crash}");
        let wal = open(&disk, boot, options).unwrap_or_else(|error| panic!("{what}: {error}"));
        oracle.check(&wal, false, &what);
        work(&wal, &disk, &mut oracle, &mut random, durability);
        match random.below(4) {
            0 => {
                // The process is killed, the machine runs on.
                kill(wal);
                let wal = open(&disk, boot, options).expect("it recovers");
                oracle.check(&wal, true, &what);
                kill(wal);
            }
            1 => {
                wal.close().expect("nothing is in the way");
                oracle.durable = oracle.records.len();
                drop(wal);
                boot += 1;
                disk = Simulated::new(disk.disk());
            }
            _ => {
                kill(wal);
                boot += 1;
                disk = Simulated::new(disk.disk());
            }
        }
    }
    let wal = open(&disk, boot, Options::new()).expect("it recovers");
    oracle.check(&wal, false, &format!("seed {seed}, at the end"));
}

fn work(
    wal: &Wal,
    disk: &Arc<Simulated>,
    oracle: &mut Oracle,
    random: &mut Random,
    durability: Durability,
) {
    for _ in 0..random.below(60) {
        match random.below(10) {
            0 if durability != Durability::None => {
                wal.sync().expect("the disk takes it");
                oracle.durable = oracle.records.len();
            }
            1 => {
                let end = disk.disk().len() as u64;
                let from = random.below(end);
                disk.write_back(from as usize..(from + random.below(end - from)) as usize, true);
            }
            2 => drop(wal.reserve(random.below(300) as usize).expect("the oldest makes room")),
            3 => {
                let reader = wal.reader(Position::Newest).expect("the end can be read");
                wal.checkpoint(reader.position()).expect("a boundary");
            }
            _ => oracle.append(wal, random),
        }
    }
}

#[test]
fn a_prefix_with_all_that_was_durable() {
    for seed in 0..300 {
        run(seed, tiny(3 + seed % 3));
    }
}

/// The newest slot is never ahead of what the disk holds.
#[test]
fn slots_promise_only_what_was_synced() {
    let mut random = Random::new(7);
    let disk = Simulated::new(new_image(tiny(4)));
    let options = Options::new().on_full(OnFull::Overwrite);
    let wal = open(&disk, 1, options).expect("a new log opens");
    let mut oracle = Oracle::default();
    for _ in 0..200 {
        oracle.append(&wal, &mut random);
        if random.below(3) == 0 {
            wal.sync().expect("the disk takes it");
        }
        let checkpoint = newest_checkpoint(&disk.disk());
        assert!(checkpoint.trimmed <= checkpoint.durable);
        assert!(checkpoint.durable <= wal.watermarks().durable);
    }
}

/// Records that lie across the pieces in which a scan reads a large segment.
#[test]
fn a_segment_larger_than_a_piece_is_recovered() {
    let geometry = Geometry::checked(2 << 20, 1 << 20, 12_288).expect("in bounds");
    let disk = Simulated::new(new_image(geometry));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    let records: Vec<_> = (1..30_u8).map(|n| vec![n; 2000 * usize::from(n)]).collect();
    for record in &records {
        wal.append(record).expect("there is room");
    }
    kill(wal);
    let wal = open(&disk, 1, Options::new()).expect("it recovers");
    assert!(contents(&wal) == records);
}
