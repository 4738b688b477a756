//! Where appends of many threads flatten: a model of three numbers, each measured here, beside what
//! the log does.
//!
//! An append takes one read-modify-write of a line that all producers share. Alone, a thread needs
//! `t` for an append, with that line in its cache. Beside others it waits for the line, `m`, once
//! an append: so much more does a `fetch_add` between pieces of private work cost two threads than
//! one. And no more bytes can be appended than memory takes, `w` a second: what the floor moves
//! beside a thread that zeroes. So with `n` threads on `c` cores:
//!
//! ```text
//! appends a second = min(min(n, c) / (t + m), w / bytes)        m = 0 for one thread
//! ```

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::Criterion;
use crossbeam_utils::CachePadded;
use kaelix_wal::{Durability, Wal};

use crate::support::append_floor::FloorRing;
use crate::support::results::Row;
use crate::support::{RING, ROUNDS, append, median, open, seconds, time_threads, time_workers};

const GROUP: &str = "scaling_model";
const THREADS: [u64; 6] = [1, 2, 4, 8, 16, 32];
const BATCH: usize = 100;
const PAYLOAD: [u8; 64] = [0xA5; 64];
/// Bytes of a record of [`PAYLOAD`], and of a batch of them.
const RECORD: f64 = 80.0;
const BATCH_RECORD: f64 = (BATCH * 72 + 16) as f64;

pub fn run(_: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::None);
    let floor = FloorRing::new(dir.path(), RING).expect("a floor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let (miss, bandwidth) = (miss_nanos(), bandwidth(&floor));
    let gigabytes = bandwidth / 1e9;
    println!("\n{GROUP}: millions of entries/s on {cores} cores;");
    println!("the shared line, m: {miss:.1} ns; memory, w: {gigabytes:.1} GB/s");
    println!("| threads | model | 64 B | of it | model | batches of {BATCH} | of it | limit |");
    println!("|---|---|---|---|---|---|---|---|");
    let single: Way = |wal| append(wal, &PAYLOAD);
    let ways = [
        ("64B", 1.0, RECORD, single),
        ("batches", BATCH as f64, BATCH_RECORD, append_batch as Way),
    ];
    let alone = ways.map(|(_, entries, bytes, way)| nanos(&wal, 1, entries, bytes, way));
    for threads in THREADS {
        let mut cells = String::new();
        let mut limit = "";
        for ((name, entries, bytes, way), alone) in ways.into_iter().zip(&alone) {
            let waits = if threads > 1 { miss } else { 0.0 };
            let by_cores = cores.min(threads as f64) * 1e9 / (median(alone.clone()) + waits);
            let by_memory = bandwidth / bytes;
            let model = by_cores.min(by_memory) * entries / 1e6;
            let measured = nanos(&wal, threads, entries, bytes, way);
            let rates: Vec<f64> = measured.iter().map(|nanos| entries * 1e3 / nanos).collect();
            let rate = median(rates.clone());
            cells.push_str(&format!(" {model:.1} | {rate:.1} | {:.2} |", rate / model));
            if name == "64B" {
                limit = if by_memory < by_cores { "memory" } else { "cores and the line" };
            }
            let row = Row::new(GROUP, &format!("{name}/{threads}"), "entries", "M/s").log(&rates);
            row.floor("model", &[model; ROUNDS]).write();
        }
        println!("| {threads} |{cells} {limit} |");
    }
}

/// Nanoseconds from one append to the next of all threads together, in each round.
fn nanos(wal: &Wal, threads: u64, entries: f64, bytes: f64, way: Way) -> Vec<f64> {
    let expected = 40.0 + entries * bytes / BATCH_RECORD * 10.0;
    let count = (seconds(2.0).as_secs_f64() * 1e9 / 8.0 / expected) as u64;
    (0..ROUNDS)
        .map(|_| time_threads(threads, count, || way(wal)).as_nanos() as f64 / count as f64)
        .collect()
}

/// One append of some kind.
type Way = fn(&Wal);

fn append_batch(wal: &Wal) {
    let entries = std::iter::repeat_n(black_box(&PAYLOAD), BATCH);
    black_box(wal.append_batch(entries).expect("the oldest makes room"));
}

/// What the shared line costs: an addition to a counter between pieces of private work, by two
/// threads, less the same with a counter for each.
fn miss_nanos() -> f64 {
    const COUNT: u64 = 1_000_000;
    let shared = CachePadded::new(AtomicU64::new(0));
    let work = |counter: &AtomicU64| {
        black_box(crc32fast::hash(black_box(&PAYLOAD)));
        black_box(counter.fetch_add(80, Ordering::AcqRel));
    };
    let each = |time: std::time::Duration| time.as_nanos() as f64 * 2.0 / COUNT as f64;
    let rounds = (0..ROUNDS).map(|_| {
        let mut own = [(); 2].map(|()| CachePadded::new(AtomicU64::new(0)));
        let apart = each(time_workers(COUNT, &mut own, |counter| work(counter)));
        let together = each(time_threads(2, COUNT, || work(&shared)));
        together - apart
    });
    median(rounds.collect()).max(0.0)
}

/// Bytes a second that are copied into a ring while as many are zeroed.
fn bandwidth(floor: &FloorRing) -> f64 {
    const LEN: usize = 64 << 10;
    const COUNT: u64 = 8192;
    let payload = vec![0xA5; LEN];
    let rounds = (0..ROUNDS).map(|_| {
        let time = floor.with_zeroing(|| {
            time_threads(2, COUNT, || {
                black_box(floor.append(black_box(&payload)));
            });
        });
        COUNT as f64 * LEN as f64 / time.as_secs_f64()
    });
    median(rounds.collect())
}
