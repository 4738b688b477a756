//! Everything at once: appends, batches, transactions, durable appends, reads in order and by
//! position, checkpoints; at first undisturbed, then with too little space and too little memory,
//! then undisturbed again.
//!
//! In the pressed phase the consumer takes a small part of what producers could write, so that the
//! ring is full all the time; another thread writes and syncs on the same disk; and if there is a
//! control group for it, the ring no longer fits in memory. Asked is:
//!
//! 1. Is anything lost, doubled, out of order or altered? The consumer checks every entry, and at
//!    the end as many have come as were appended. Entries of a transaction come together.
//! 2. Is it graceful? Every producer goes on, at what the consumer takes; nothing fails.
//! 3. Does speed return? Afterwards it is compared with what it was before.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use hdrhistogram::Histogram;
use kaelix_wal::{Durability, Geometry, Lsn, OnFull, Options, Position, ReadError, Stream, Wal};

use crate::support::check::Stamped;
use crate::support::disk_floor::DiskFloor;
use crate::support::pressure::MemoryLimit;
use crate::support::results::Row;
use crate::support::{histogram, median, seconds};

const GROUP: &str = "comprehensive_stress";
const RING: u64 = 64 << 20;
const SEGMENT: u64 = 1 << 20;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 3;
/// Payload bytes a second that the consumer takes under pressure.
const CONSUMED_A_SECOND: u64 = 16 << 20;
/// What the ring has of memory then.
const MEMORY: u64 = RING / 4;
const BATCH: usize = 10;
const TRANSACTION: u64 = 3;
const PRODUCERS: [&str; 4] = ["stream", "batches", "transactions", "durable"];
const TRANSACTIONS: usize = 2;

pub fn run(_: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = DiskFloor::new(dir.path(), 64 << 20).expect("a floor");
    let memory = MemoryLimit::of_environment();
    let [mut calm, mut pressed, mut after] = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        let path = dir.path().join(round.to_string());
        let phases = stress(&path, &disk, memory.as_ref());
        for (all, phase) in [&mut calm, &mut pressed, &mut after].into_iter().zip(phases) {
            all.push(phase);
        }
        std::fs::remove_dir_all(path).expect("a temporary directory");
    }
    println!("\n{GROUP}: {} kinds of producers, entries of {PAYLOAD} B, a", PRODUCERS.len());
    println!("ring of 64 MiB; medians of {ROUNDS} rounds; nothing lost, doubled or out of order");
    let note = if memory.is_some() { "space, disk and memory" } else { "space and disk" };
    println!("| phase | entries/s | of the slowest kind | p99, us | worst, ms |");
    println!("|---|---|---|---|---|");
    let pressed_name = format!("pressed: {note}");
    for (name, phases) in [("calm", &calm), (&pressed_name, &pressed), ("calm again", &after)] {
        let of = |figure: fn(&Phase) -> f64| median(phases.iter().map(figure).collect());
        let (rate, slowest) = (of(Phase::rate), of(Phase::slowest));
        let (p99, worst) = (of(|phase| phase.at(0.99)), of(|phase| phase.at(1.0)) / 1e3);
        println!("| {name} | {rate:.0} | {slowest:.0} | {p99:.1} | {worst:.1} |");
    }
    if memory.is_none() {
        println!("(no pressure on memory: KAELIX_BENCH_CGROUP names no control group)");
    }
    let rates = |phases: &[Phase]| phases.iter().map(Phase::rate).collect::<Vec<f64>>();
    let row = Row::new(GROUP, "speed afterwards", "entries", "1/s").log(&rates(&after));
    row.floor("the same before", &rates(&calm)).note(note).write();
    let limit = vec![(CONSUMED_A_SECOND / PAYLOAD as u64) as f64; ROUNDS];
    let row = Row::new(GROUP, "under pressure", "entries", "1/s").log(&rates(&pressed));
    row.floor("what the consumer takes", &limit).note(note).write();
    let mut row = Row::new(GROUP, "each call", "latency", "ns").note(note);
    for (name, phases) in [("calm", calm), ("pressed", pressed), ("calm again", after)] {
        let all = phases.into_iter().fold(histogram(), |mut all, phase| {
            all.add(phase.times).expect("same bounds");
            all
        });
        row = row.percentiles(name, &all);
    }
    row.write();
}

/// What producers did in one phase.
struct Phase {
    time: Duration,
    /// Entries of each producer.
    counts: [u64; PRODUCERS.len()],
    /// How long each call took.
    times: Histogram<u64>,
}

impl Phase {
    fn rate(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64 / self.time.as_secs_f64()
    }

    /// Of the producer that appended least.
    fn slowest(&self) -> f64 {
        self.counts.iter().min().map_or(0.0, |least| *least as f64) / self.time.as_secs_f64()
    }

    fn at(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// What the threads of one round share.
struct Shared<'a> {
    wal: &'a Wal,
    /// Whether the consumer is slow.
    slow: AtomicBool,
    /// Producers of this phase are to end; and then everybody else.
    pause: AtomicBool,
    stop: AtomicBool,
    /// A record that was committed not long ago.
    recent: AtomicU64,
    /// Reads by position that found a record.
    reads: AtomicU64,
}

/// Tells other threads to end, whatever ends the one that has it: who failed must not leave them
/// waiting.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The three phases on one log, which is then closed, opened again, and must be empty.
fn stress(path: &Path, disk: &DiskFloor, memory: Option<&MemoryLimit>) -> [Phase; 3] {
    let geometry = Geometry::new(RING, SEGMENT).expect("valid sizes");
    let options = Options::new().durability(Durability::OnDemand).on_full(OnFull::Wait);
    let wal = Wal::create(path, geometry, options).expect("a log can be created");
    let shared = Shared {
        wal: &wal,
        slow: AtomicBool::new(false),
        pause: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        recent: AtomicU64::new(0),
        reads: AtomicU64::new(0),
    };
    let streams = wal.streams(&["one", "two"]).expect("they are created");
    let mut payloads: [Stamped; PRODUCERS.len()] =
        std::array::from_fn(|producer| Stamped::new(producer as u64, PAYLOAD));
    let phases = std::thread::scope(|scope| {
        let _end = (SetAtEnd(&shared.pause), SetAtEnd(&shared.stop));
        let consumer = scope.spawn(|| consume(&shared));
        scope.spawn(|| look_up(&shared));
        let calm = produce(&shared, &streams, &mut payloads, seconds(2.0));
        shared.slow.store(true, Ordering::Release);
        let press = |limit: &MemoryLimit| limit.set(MEMORY).expect("the group takes a limit");
        memory.into_iter().for_each(press);
        let ends = AtomicBool::new(false);
        let pressed = std::thread::scope(|scope| {
            let _end = SetAtEnd(&ends);
            scope.spawn(|| load(disk, &ends));
            fill(&shared, &streams, &mut payloads);
            produce(&shared, &streams, &mut payloads, seconds(2.0))
        });
        memory.into_iter().for_each(|limit| limit.lift().expect("the group takes a limit"));
        shared.slow.store(false, Ordering::Release);
        // What has come together is taken first.
        std::thread::sleep(Duration::from_millis(200));
        let after = produce(&shared, &streams, &mut payloads, seconds(2.0));
        shared.stop.store(true, Ordering::Release);
        let consumed = consumer.join().expect("no panic");
        let appended = payloads.each_ref().map(Stamped::count);
        assert_eq!(consumed, appended, "as many have come as were appended");
        [calm, pressed, after]
    });
    assert!(shared.reads.load(Ordering::Relaxed) > 0, "some reads by position found a record");
    drop(streams);
    wal.close().expect("the disk takes it");
    drop(wal);
    let wal = Wal::open(path, options).expect("it was closed in order");
    let mut left = wal.entries(Position::Oldest).expect("it can be read");
    assert_eq!(left.next().expect("every record verifies"), None, "all of it was released");
    drop(left);
    phases
}

/// Appends until producers have waited for a consumer.
fn fill(shared: &Shared<'_>, streams: &[Stream<'_>], payloads: &mut [Stamped; 4]) {
    let waited = || shared.wal.metrics().full_wait_nanos;
    let (before, start) = (waited(), Instant::now());
    while waited() == before && start.elapsed() < Duration::from_secs(20) {
        produce(shared, streams, payloads, Duration::from_millis(100));
    }
}

/// One phase: a thread for each kind of producer.
fn produce(
    shared: &Shared<'_>,
    streams: &[Stream<'_>],
    payloads: &mut [Stamped; 4],
    time: Duration,
) -> Phase {
    let before = payloads.each_ref().map(Stamped::count);
    shared.pause.store(false, Ordering::Release);
    let start = Instant::now();
    let times = std::thread::scope(|scope| {
        let handles: Vec<_> = payloads
            .iter_mut()
            .enumerate()
            .map(|(kind, payload)| scope.spawn(move || producer(shared, streams, kind, payload)))
            .collect();
        std::thread::sleep(time);
        shared.pause.store(true, Ordering::Release);
        handles.into_iter().fold(histogram(), |mut all, handle| {
            all.add(handle.join().expect("no panic")).expect("same bounds");
            all
        })
    });
    let counts = std::array::from_fn(|kind| payloads[kind].count() - before[kind]);
    assert!(counts.iter().all(|count| *count > 0), "every producer goes on: {counts:?}");
    Phase { time: start.elapsed(), counts, times }
}

/// Appends in its own way until it is told to pause; returns how long each call took.
fn producer(
    shared: &Shared<'_>,
    streams: &[Stream<'_>],
    kind: usize,
    payload: &mut Stamped,
) -> Histogram<u64> {
    let mut times = histogram();
    while !shared.pause.load(Ordering::Acquire) {
        let start = Instant::now();
        let lsn = match PRODUCERS[kind] {
            "stream" => streams[0].append(payload.next()).expect("there will be room"),
            "batches" => {
                let entries: [Vec<u8>; BATCH] = std::array::from_fn(|_| payload.next().to_vec());
                shared.wal.append_batch(&entries).expect("there will be room")
            }
            "transactions" => {
                let mut transaction = shared.wal.begin();
                for entry in 0..TRANSACTION as usize {
                    let stream = &streams[entry % streams.len()];
                    transaction.append(stream, payload.next()).expect("it is small");
                }
                transaction.commit().expect("there will be room")
            }
            _ => shared.wal.append_durable(payload.next()).expect("the disk takes it"),
        };
        times.saturating_record(start.elapsed().as_nanos() as u64);
        shared.recent.store(lsn.get(), Ordering::Relaxed);
    }
    times
}

/// Takes every entry, checks it and releases it; returns how many came of each producer.
fn consume(shared: &Shared<'_>) -> [u64; PRODUCERS.len()] {
    let mut entries = shared.wal.entries(Position::Oldest).expect("it can be read");
    let mut next = [0_u64; PRODUCERS.len()];
    let mut record_of_transaction = Lsn::ZERO;
    let mut filled = Stamped::new(0, PAYLOAD);
    let fill = filled.next()[16..].to_vec();
    loop {
        let stopped = shared.stop.load(Ordering::Acquire);
        let (start, mut bytes) = (Instant::now(), 0);
        while let Some(entry) = entries.next().expect("every record verifies") {
            let word = |at: usize| {
                u64::from_le_bytes(entry.payload[at..at + 8].try_into().expect("8 bytes"))
            };
            let (number, producer) = (word(0), word(8) as usize);
            assert_eq!(number, next[producer], "of {}, LSN {}", PRODUCERS[producer], entry.lsn);
            assert!(entry.payload[16..] == fill, "LSN {}", entry.lsn);
            next[producer] += 1;
            if producer == TRANSACTIONS {
                let begins = number % TRANSACTION == 0;
                assert!(begins || entry.lsn == record_of_transaction, "LSN {}", entry.lsn);
                record_of_transaction = entry.lsn;
            }
            bytes += entry.payload.len() as u64;
            if bytes >= 64 << 10 {
                break;
            }
        }
        shared.wal.checkpoint(entries.position()).expect("a record boundary");
        if bytes == 0 && stopped {
            return next;
        }
        let due = match (bytes, shared.slow.load(Ordering::Acquire)) {
            (0, _) => Duration::from_micros(200),
            (_, true) => Duration::from_secs_f64(bytes as f64 / CONSUMED_A_SECOND as f64),
            (_, false) => Duration::ZERO,
        };
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

/// Reads records by position, some of which are released meanwhile.
fn look_up(shared: &Shared<'_>) {
    while !shared.stop.load(Ordering::Acquire) {
        let lsn = Lsn::new(shared.recent.load(Ordering::Relaxed));
        match shared.wal.get(lsn) {
            Ok(record) => {
                assert!(record.payload().len() >= PAYLOAD, "LSN {lsn}");
                shared.reads.fetch_add(1, Ordering::Relaxed);
            }
            // Released meanwhile; nothing there yet; behind somebody's open reservation.
            Err(
                ReadError::Trimmed { .. } | ReadError::NotARecord { .. } | ReadError::NotYet { .. },
            ) => {}
            Err(error) => panic!("LSN {lsn}: {error}"),
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Writes and syncs, beside the log, until it is told to end.
fn load(disk: &DiskFloor, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) {
        disk.overwrite(4 << 20, 1 << 20).expect("the disk takes it");
    }
}
