//! Appends of many threads without a promise of durability, against the bare work of an append;
//! the time of each write when 32 threads write; and the same threads with batches.
//!
//! The janitor runs, the ring wraps and is recycled. Each thread numbers what it appends, and what
//! the ring retains at the end is read back.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, Position, Wal};

use crate::support::append_floor::FloorRing;
use crate::support::check::{self, Stamped};
use crate::support::results::Row;
use crate::support::{
    RING, ROUNDS, append, histogram, median, open, seconds, time_each, time_threads, time_workers,
};

const GROUP: &str = "concurrent_writes";
const SIZES: [(usize, &str); 3] = [(64, "64B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];
const THREADS: [u64; 6] = [1, 2, 4, 8, 16, 32];
const BATCH: usize = 100;
const CROWD: u64 = 32;

pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let floor = FloorRing::new(dir.path(), RING).expect("a floor");
    let mut table = Vec::new();
    for (size, name) in SIZES {
        let path = dir.path().join(name);
        let wal = open(&path, Durability::None);
        let mut producers = Producers::new(size);
        for threads in THREADS {
            let id = format!("{name}/{threads}");
            table.push(ratios(&wal, &floor, &mut producers, threads, &id));
        }
        producers.check(&wal);
        sample(criterion, &wal, &floor, size, name);
        drop(wal);
        std::fs::remove_dir_all(path).expect("a temporary directory");
    }
    println!("\n{GROUP}: appends/s in millions, medians of {ROUNDS} rounds in turn");
    println!(
        "| size/threads | floor | floor + zeroing | log | log/floor | log/(floor + zeroing) |"
    );
    println!("|---|---|---|---|---|---|");
    table.iter().for_each(|row| println!("{row}"));
    batches(dir.path(), &floor);
    each_write(dir.path(), &floor);
}

/// Criterion's own figures.
fn sample(criterion: &mut Criterion, wal: &Wal, floor: &FloorRing, size: usize, name: &str) {
    let payload = vec![0xA5_u8; size];
    let mut group = criterion.benchmark_group(GROUP);
    group.sample_size(10).measurement_time(seconds(2.0)).warm_up_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(size as u64));
    for threads in THREADS {
        let id = format!("{name}/{threads}");
        group.bench_function(BenchmarkId::new("wal", &id), |bencher| {
            bencher.iter_custom(|n| time_threads(threads, n, || append(wal, &payload)));
        });
        group.bench_function(BenchmarkId::new("floor", &id), |bencher| {
            bencher.iter_custom(|n| {
                time_threads(threads, n, || {
                    black_box(floor.append(black_box(&payload)));
                })
            });
        });
    }
    group.finish();
}

/// The producers of one log, each with its numbers.
struct Producers {
    size: usize,
    payloads: Vec<Stamped>,
}

impl Producers {
    fn new(size: usize) -> Producers {
        let payloads = (0..CROWD).map(|producer| Stamped::new(producer, size)).collect();
        Producers { size, payloads }
    }

    /// `count` calls of `append`, spread over so many threads.
    fn time(&mut self, threads: u64, count: u64, append: impl Fn(&mut Stamped) + Sync) -> Duration {
        time_workers(count, &mut self.payloads[..threads as usize], append)
    }

    fn check(&self, wal: &Wal) {
        let counts: Vec<u64> = self.payloads.iter().map(Stamped::count).collect();
        assert!(check::stamped(wal, Position::Oldest, self.size, &counts) > 0);
    }
}

/// One row: floor, floor with zeroing, and log, measured in turn.
fn ratios(
    wal: &Wal,
    floor: &FloorRing,
    producers: &mut Producers,
    threads: u64,
    id: &str,
) -> String {
    let size = producers.size as f64;
    let count = (seconds(2.0).as_secs_f64() * 1e9 / 4.0 / (25.0 + size / 8.0)) as u64;
    let rate = |time: Duration| count as f64 / time.as_secs_f64() / 1e6;
    let mut of_floor = Producers::new(producers.size);
    let floor_append = |payload: &mut Stamped| {
        black_box(floor.append(black_box(payload.next())));
    };
    let (mut bare, mut zeroing, mut log) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(rate(of_floor.time(threads, count, floor_append)));
        zeroing.push(rate(floor.with_zeroing(|| {
            of_floor.time(threads, count, floor_append);
        })));
        log.push(rate(producers.time(threads, count, |payload| append(wal, payload.next()))));
    }
    let row = Row::new(GROUP, id, "throughput", "M/s").log(&log);
    row.floor("checksum, claim, copy, store; zeroing", &zeroing).write();
    let ratio = |floor: &[f64]| median(log.iter().zip(floor).map(|(l, f)| l / f).collect());
    let (to_bare, to_zeroing) = (ratio(&bare), ratio(&zeroing));
    format!(
        "| {id} | {:.2} | {:.2} | {:.2} | {to_bare:.2} | {to_zeroing:.2} |",
        median(bare),
        median(zeroing),
        median(log)
    )
}

/// Batches of 64-byte entries, one claim for each batch.
fn batches(dir: &std::path::Path, floor: &FloorRing) {
    let path = dir.join("batches");
    let wal = open(&path, Durability::None);
    let payload = [0xA5; 64];
    let bytes = vec![0xA5; BATCH * (8 + payload.len())];
    println!("\n{GROUP}: entries/s in millions, batches of {BATCH} entries of 64 B");
    println!(
        "| threads | floor: as many bytes in one append | log | log/floor |\n|---|---|---|---|"
    );
    for threads in THREADS {
        let count = ((seconds(2.0).as_secs_f64() * 1e9 / 4.0 / 15.0) as u64 / BATCH as u64).max(2);
        let rate = |time: Duration| (count * BATCH as u64) as f64 / time.as_secs_f64() / 1e6;
        let (mut of_floor, mut log) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_floor.push(rate(floor.with_zeroing(|| {
                time_threads(threads, count, || {
                    black_box(floor.append(black_box(&bytes)));
                });
            })));
            log.push(rate(time_threads(threads, count, || {
                let entries = std::iter::repeat_n(black_box(&payload), BATCH);
                black_box(wal.append_batch(entries).expect("the oldest makes room"));
            })));
        }
        let ratio = median(log.iter().zip(&of_floor).map(|(l, f)| l / f).collect());
        let (f, l) = (median(of_floor.clone()), median(log.clone()));
        println!("| {threads} | {f:.2} | {l:.2} | {ratio:.2} |");
        let row = Row::new(GROUP, &format!("batches/{threads}"), "throughput", "M/s").log(&log);
        row.floor("as many bytes in one append; zeroing", &of_floor).write();
    }
    let mut entries = wal.entries(Position::Oldest).expect("it can be read");
    while let Some(entry) = entries.next().expect("every record verifies") {
        assert_eq!(entry.payload, payload, "at LSN {}", entry.lsn);
    }
    drop(entries);
    drop(wal);
    std::fs::remove_dir_all(path).expect("a temporary directory");
}

/// What each of 32 threads waits for each of its writes, the clock read before and behind it.
fn each_write(dir: &std::path::Path, floor: &FloorRing) {
    let wal = open(&dir.join("each"), Durability::None);
    let share = seconds(2.0) / 4;
    let mut producers = Producers::new(64);
    let mut of_floor = Producers::new(64);
    let (mut floor_all, mut log_all) = (histogram(), histogram());
    let [mut floor_p99, mut log_p99, mut floor_mean, mut log_mean] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (is_log, payloads, all, p99, mean) in [
            (false, &mut of_floor.payloads, &mut floor_all, &mut floor_p99, &mut floor_mean),
            (true, &mut producers.payloads, &mut log_all, &mut log_p99, &mut log_mean),
        ] {
            let round = time_each(share, payloads, |payload: &mut Stamped| {
                if is_log {
                    append(&wal, payload.next());
                } else {
                    black_box(floor.append(black_box(payload.next())));
                }
            });
            p99.push(round.value_at_quantile(0.99) as f64 / 1e3);
            mean.push(share.as_secs_f64() * 1e6 * CROWD as f64 / round.len() as f64);
            all.add(round).expect("same bounds");
        }
    }
    producers.check(&wal);
    println!("\n{GROUP}: microseconds of each write of 64 B, {CROWD} threads");
    println!("| | mean, the waits for a core included | p50 | p99 | p99.9 | worst |");
    println!("|---|---|---|---|---|---|");
    for (name, times, mean) in [("floor", &floor_all, &floor_mean), ("log", &log_all, &log_mean)] {
        let at = |q| times.value_at_quantile(q) as f64 / 1e3;
        let (mean, worst) = (median(mean.clone()), times.max() as f64 / 1e3);
        let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
        println!("| {name} | {mean:.2} | {p50:.2} | {p99:.2} | {p999:.2} | {worst:.0} |");
    }
    let case = "64B/32";
    let floor_name = "checksum, claim, copy, store";
    Row::new(GROUP, case, "p99", "us").log(&log_p99).floor(floor_name, &floor_p99).write();
    Row::new(GROUP, case, "mean", "us").log(&log_mean).floor(floor_name, &floor_mean).write();
    Row::new(GROUP, case, "latency", "ns")
        .percentiles("floor", &floor_all)
        .percentiles("log", &log_all)
        .write();
}
