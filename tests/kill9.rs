//! Killed at any moment: what was acknowledged is there, once, unaltered and in order.
//!
//! The parent starts this test binary again as a child that appends with four producers, kills it
//! with SIGKILL at a random moment, opens the log and compares it with what the child had
//! acknowledged. An acknowledgement is one `write` to a file after the commit (or the wait for
//! durability) has returned. The log goes on through the next cycles, so that epochs pile up.

mod common;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Place, Rng, check_numbered, copy_log, number, numbered, read_all, seed, wait_until};
use kaelix_wal::{Geometry, Lsn, OnFull, Options, Persistence, Position, RecoveryOutcome, Wal};

const PRODUCERS: u32 = 4;
/// Fresh log after this many cycles.
const CYCLES_A_LOG: u64 = 20;
const ACK_LEN: usize = 20;
/// The child ends by itself after this time, should its parent have died.
const CHILD_LIFE: Duration = Duration::from_secs(20);

/// What the child is told, by the environment.
#[derive(Clone, Debug)]
struct Orders {
    dir: PathBuf,
    acks: PathBuf,
    seed: u64,
    /// Numbers of this cycle start here.
    first: u64,
    durable: bool,
    overwrite: bool,
    /// In persistent memory, as far as a tmpfs is that.
    memory: bool,
}

impl Orders {
    fn options(&self) -> Options {
        let on_full = if self.overwrite { OnFull::Overwrite } else { OnFull::Wait };
        let persistence = match self.memory {
            true => Persistence::PersistentMemory,
            false => Persistence::PageCache,
        };
        Options::new().on_full(on_full).persistence(persistence)
    }

    /// For whoever looks at what was left: nothing is overwritten before it is read.
    fn to_look(&self) -> Options {
        self.options().on_full(OnFull::Wait)
    }

    fn start(&self, errors: &Path) -> Child {
        Command::new(std::env::current_exe().expect("this binary has a path"))
            .args(["child", "--exact", "--nocapture"])
            .env("KAELIX_KILL_DIR", &self.dir)
            .env("KAELIX_KILL_ACKS", &self.acks)
            .env("KAELIX_KILL_SEED", self.seed.to_string())
            .env("KAELIX_KILL_FIRST", self.first.to_string())
            .env("KAELIX_KILL_DURABLE", u64::from(self.durable).to_string())
            .env("KAELIX_KILL_OVERWRITE", u64::from(self.overwrite).to_string())
            .env("KAELIX_KILL_MEMORY", u64::from(self.memory).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(errors).expect("a file for its errors"))
            .spawn()
            .expect("this binary can be started")
    }

    fn from_environment() -> Option<Orders> {
        Some(Orders {
            dir: std::env::var_os("KAELIX_KILL_DIR")?.into(),
            acks: std::env::var_os("KAELIX_KILL_ACKS")?.into(),
            seed: number("KAELIX_KILL_SEED", 0),
            first: number("KAELIX_KILL_FIRST", 0),
            durable: number("KAELIX_KILL_DURABLE", 0) != 0,
            overwrite: number("KAELIX_KILL_OVERWRITE", 0) != 0,
            memory: number("KAELIX_KILL_MEMORY", 0) != 0,
        })
    }
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() {
    let Some(orders) = Orders::from_environment() else { return };
    let start = Instant::now();
    let wal = Wal::open(&orders.dir, orders.options()).expect("the parent could open it");
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (wal, orders) = (&wal, &orders);
            scope.spawn(move || produce(wal, orders, producer, start));
        }
        if !orders.overwrite {
            scope.spawn(|| consume(&wal, start));
        }
    });
}

fn produce(wal: &Wal, orders: &Orders, producer: u32, start: Instant) {
    let mut rng = Rng::new(orders.seed ^ u64::from(producer) << 32);
    let mut acks = OpenOptions::new().append(true).open(&orders.acks).expect("made by the parent");
    for number in orders.first.. {
        if start.elapsed() > CHILD_LIFE {
            return;
        }
        let payload = numbered(producer, number, rng.below(1500) as usize);
        let lsn = if producer == PRODUCERS - 1 {
            // This one holds its reservation open most of the time.
            let mut space = wal.reserve(payload.len() + rng.below(40) as usize).expect("space");
            let (front, back) = payload.split_at(payload.len() / 2);
            space.write_all(front).expect("there is room");
            thread::park_timeout(Duration::from_micros(rng.below(2000)));
            space.write_all(back).expect("there is room");
            space.commit_written()
        } else {
            wal.append(&payload).expect("space")
        };
        if orders.durable {
            wal.wait_durable(lsn).expect("holes are short");
        }
        let mut ack = [0; ACK_LEN];
        ack[..4].copy_from_slice(&producer.to_le_bytes());
        ack[4..12].copy_from_slice(&number.to_le_bytes());
        ack[12..].copy_from_slice(&lsn.get().to_le_bytes());
        acks.write_all(&ack).expect("the acknowledgement can be written");
    }
}

/// Releases all but the newest hundred records.
fn consume(wal: &Wal, start: Instant) {
    let mut tail = wal.tail(Position::Oldest).expect("the oldest is there");
    let mut kept = std::collections::VecDeque::new();
    while start.elapsed() < CHILD_LIFE {
        let record = tail.next(Duration::from_millis(100)).expect("nothing is damaged");
        let Some(record) = record else { continue };
        check_numbered(record.lsn(), record.payload());
        kept.push_back(record.lsn());
        if kept.len() > 100 {
            let lsn = kept.pop_front().expect("a hundred");
            wal.checkpoint(lsn).expect("a record starts there");
            if lsn.get() % 512 == 0 {
                wal.sync_checkpoint().expect("no sync failed");
            }
        }
    }
}

fn acknowledged(path: &Path) -> Vec<(Lsn, (u32, u64))> {
    let bytes = std::fs::read(path).expect("the acknowledgements can be read");
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let ack = |ack: &[u8]| {
        let producer = u32::from_le_bytes(ack[..4].try_into().expect("four bytes"));
        (Lsn::new(word(&ack[12..])), (producer, word(&ack[4..12])))
    };
    bytes.chunks_exact(ACK_LEN).map(ack).collect()
}

/// What a log holds: who wrote what, by position.
type Content = BTreeMap<Lsn, (u32, u64)>;

/// Reads a log; each record is unaltered, none is there twice, and each producer's are in order
/// and without gaps.
fn content(wal: &Wal) -> Content {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    let mut content = Content::new();
    for (lsn, payload) in read_all(wal, Position::Oldest) {
        let (producer, number) = check_numbered(lsn, &payload);
        if let Some(last) = last.insert(producer, number) {
            // A new cycle starts at a multiple of 2^32.
            let follows = number == last + 1 || (number > last && number.trailing_zeros() >= 32);
            assert!(follows, "{producer}:{number} at {lsn} comes after {last}");
        }
        content.insert(lsn, (producer, number));
    }
    assert_eq!(content.len() as u64, wal.recovery_report().records);
    content
}

/// Everything in `wanted` that is not below `start` is in `content`.
fn contains(content: &Content, wanted: &[(Lsn, (u32, u64))], start: Lsn, what: &str) {
    for (lsn, who) in wanted.iter().filter(|(lsn, _)| *lsn >= start) {
        assert_eq!(content.get(lsn), Some(who), "{what} {who:?} at {lsn} (start: {start})");
    }
}

/// As after a power loss, which the killed process's page cache is a possible outcome of: a prefix,
/// which holds what was acknowledged as durable.
fn check_copy(place: &Place, orders: &Orders, acks: &[(Lsn, (u32, u64))]) -> Content {
    let copy = place.beside("copy");
    copy_log(&place.path, &copy);
    let wal = Wal::open(&copy, orders.to_look()).expect("a copy opens as after a power loss");
    let outcome = wal.recovery_report().outcome;
    assert!(matches!(outcome, RecoveryOutcome::PowerLost | RecoveryOutcome::Clean), "{outcome}");
    let content = content(&wal);
    if orders.durable {
        contains(&content, acks, wal.recovery_report().start, "durable");
    }
    drop(wal);
    std::fs::remove_dir_all(&copy).expect("the copy can be removed");
    content
}

/// One cycle; `known` is what the log held before, and holds now.
fn cycle(place: &Place, orders: &Orders, rng: &mut Rng, known: &mut Content) {
    File::create(&orders.acks).expect("a file for the acknowledgements");
    let errors = place.beside("errors");
    let mut child = orders.start(&errors);
    if rng.below(4) > 0 {
        wait_until("the child works or has ended", || {
            let acks = std::fs::metadata(&orders.acks).expect("it is there").len();
            acks > 0 || child.try_wait().expect("it is ours").is_some()
        });
    }
    thread::park_timeout(Duration::from_micros(rng.below(40_000)));
    child.kill().expect("it is ours");
    let status = child.wait().expect("it is ours");
    let said = std::fs::read_to_string(&errors).unwrap_or_default();
    assert_eq!(status.signal(), Some(9), "the child ended by itself: {status}\n{said}");

    let acks = acknowledged(&orders.acks);
    let prefix = check_copy(place, orders, &acks);
    let wal = place.open(orders.to_look());
    let outcome = wal.recovery_report().outcome;
    assert!(matches!(outcome, RecoveryOutcome::ProcessDied | RecoveryOutcome::Clean), "{outcome}");
    assert_eq!(wal.recovery_report().cut_records, 0, "{}", wal.recovery_report());
    let now = content(&wal);
    let start = wal.recovery_report().start;
    contains(&now, &acks, start, "acknowledged");
    let before: Vec<_> = known.iter().map(|(lsn, who)| (*lsn, *who)).collect();
    contains(&now, &before, start, "known");
    assert!(now.iter().take(prefix.len()).eq(&prefix), "the copy holds a prefix");

    // Half of it is released, so that there is space; then the log goes on.
    if let Some(lsn) = now.keys().nth(now.len() / 2) {
        wal.checkpoint(*lsn).expect("a record starts there");
    }
    *known = now;
    for number in orders.first..orders.first + 3 {
        let lsn = wal.append(&numbered(PRODUCERS, number, 50)).expect("space");
        known.insert(lsn, (PRODUCERS, number));
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rng = Rng::new(seed("what_was_acknowledged_survives_kill_9"));
    cycles(rng, Place::new, |_| false);
}

/// On a tmpfs, where each process opens the log in the mode that the last one did not.
#[test]
fn what_was_acknowledged_survives_kill_9_in_either_mode() {
    if Place::on_tmpfs().is_some() {
        let rng = Rng::new(seed("what_was_acknowledged_survives_kill_9_in_either_mode"));
        let place = || Place::on_tmpfs().expect("it was there a moment ago");
        cycles(rng, place, |index| index % 3 != 1);
    }
}

fn cycles(mut rng: Rng, place: impl Fn() -> Place, memory: impl Fn(u64) -> bool) {
    let cycles = number("KAELIX_KILL_CYCLES", 40);
    let mut log: Option<(Place, Content)> = None;
    let geometry = Geometry::new(1 << 20, 64 << 10).expect("possible sizes");
    for index in 0..cycles {
        if index % CYCLES_A_LOG == 0 {
            let place = place();
            drop(Wal::create(&place.path, geometry, Options::new()).expect("a new log"));
            log = Some((place, Content::new()));
        }
        let (place, known) = log.as_mut().expect("made in the first cycle");
        let orders = Orders {
            dir: place.path.clone(),
            acks: place.beside("acks"),
            seed: rng.next(),
            first: (index + 1) << 32,
            durable: index % 2 == 0,
            overwrite: index % 4 < 2,
            memory: memory(index),
        };
        cycle(place, &orders, &mut rng, known);
    }
}
