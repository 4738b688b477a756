//! One producer at a fixed rate in the default mode, by size: how late is an append?
//!
//! The log flushes what it has filled, wraps and recycles all the while. The floor is the same
//! producer at the same rate with a private, prefaulted ring, while another thread writes and syncs
//! as many bytes to the same disk. `paced_append` compares the ways of flushing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use kaelix_wal::{Durability, Position};

use crate::support::append_floor::FloorRing;
use crate::support::check::{self, Stamped};
use crate::support::disk_floor::DiskFloor;
use crate::support::paced::{Paced, beside, paced};
use crate::support::results::Row;
use crate::support::{RING, SEGMENT, append, median, open, plot, seconds};

const GROUP: &str = "single_write_latency";
/// Sizes, and how often: 64 to 102 MB a second, which the disk can follow.
const CASES: [(usize, &str, Duration); 3] = [
    (64, "64B", Duration::from_micros(1)),
    (1 << 10, "1KiB", Duration::from_micros(10)),
    (64 << 10, "64KiB", Duration::from_millis(1)),
];
/// Many short rounds: a median of them leaves out those in which the machine itself stood still.
const ROUNDS: usize = 15;
const QUANTILES: [(f64, &str); 4] =
    [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];
const FLOOR: &str = "private ring beside plain syncs";

pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = DiskFloor::new(dir.path(), RING).expect("a floor");
    let floor = FloorRing::private(RING).expect("a floor");
    println!(
        "\n{GROUP}: microseconds from the intended start, medians of {ROUNDS} rounds in turn,"
    );
    println!("of their ratios, and the worst of all; appends at a fixed rate, default mode");
    println!(
        "| size, rate | | p50 | p99 | p99.9 | p99.99 | worst |\n|---|---|---|---|---|---|---|"
    );
    for (size, name, period) in CASES {
        compare(dir.path(), &floor, &disk, size, name, period);
    }
    sample(criterion, dir.path());
}

fn compare(
    dir: &Path,
    floor: &FloorRing,
    disk: &DiskFloor,
    size: usize,
    name: &str,
    period: Duration,
) {
    let path = dir.join(name);
    let wal = open(&path, Durability::OnDemand);
    let time = seconds(1.0).max(period * 100);
    let mut payloads = [Stamped::new(0, size), Stamped::new(0, size)];
    let [mut of_floor, mut of_log] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let [yardstick, log] = &mut payloads;
        let appended = AtomicU64::new(0);
        of_floor.push(beside(
            |stop| load(disk, &appended, stop),
            || {
                paced(time, period, || {
                    floor.append(yardstick.next());
                    let bytes = (size as u64 + 16).next_multiple_of(16);
                    appended.store(appended.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
                })
            },
        ));
        // As many threads as beside the floor; the log flushes by itself.
        let idle = |stop: &AtomicBool| {
            while !stop.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        of_log.push(beside(idle, || paced(time, period, || append(&wal, log.next()))));
    }
    check::stamped(&wal, Position::Oldest, size, &[payloads[1].count()]);
    let rate = 1e-3 / period.as_secs_f64();
    print_rows(&format!("{name}, {rate:.0} k/s"), &of_floor, &of_log);
    keep_rows(name, &of_floor, &of_log);
    wal.close().expect("the disk takes it");
    drop(wal);
    std::fs::remove_dir_all(path).expect("a temporary directory");
}

/// What the log's flushing costs the disk, done by plain writes: a segment when it is full.
fn load(disk: &DiskFloor, appended: &AtomicU64, stop: &AtomicBool) {
    let mut written = 0;
    while !stop.load(Ordering::Acquire) {
        let new = appended.load(Ordering::Relaxed) - written;
        if new >= SEGMENT {
            disk.overwrite(new, new.next_multiple_of(4096) as usize).expect("the disk takes it");
            written += new;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn print_rows(case: &str, floor: &[Paced], log: &[Paced]) {
    for (what, rounds) in [("floor", floor), ("log", log)] {
        let cells = QUANTILES.map(|(q, _)| format!("{:.2}", median(Paced::each(rounds, q))));
        let worst = rounds.iter().map(|round| round.times.max()).max().unwrap_or(0) as f64 / 1e3;
        println!("| {case} | {what} | {} | {worst:.0} |", cells.join(" | "));
    }
    let cells = QUANTILES.map(|(q, _)| {
        let ratios = log.iter().zip(floor).map(|(log, floor)| log.at(q) / floor.at(q));
        format!("{:.2}", median(ratios.collect()))
    });
    println!("| {case} | log/floor | {} | |", cells.join(" | "));
}

fn keep_rows(case: &str, floor: &[Paced], log: &[Paced]) {
    for (quantile, measure) in QUANTILES {
        let row = Row::new(GROUP, case, measure, "us").log(&Paced::each(log, quantile));
        row.floor(FLOOR, &Paced::each(floor, quantile)).write();
    }
    let (floor, log) = (Paced::all(floor), Paced::all(log));
    plot::percentiles(
        &format!("{GROUP}-{case}"),
        &format!("One producer at a fixed rate, {case}"),
        &[(FLOOR, &floor), ("log", &log)],
    );
    let row = Row::new(GROUP, case, "latency", "ns");
    row.percentiles(FLOOR, &floor).percentiles("log", &log).write();
}

/// Criterion's own figures: the mean of appends one behind the other.
fn sample(criterion: &mut Criterion, dir: &Path) {
    let wal = open(&dir.join("sample"), Durability::OnDemand);
    let mut group = criterion.benchmark_group(GROUP);
    group.sample_size(10).measurement_time(seconds(1.0)).warm_up_time(Duration::from_millis(300));
    for (size, name, _) in CASES {
        let payload = vec![0xA5; size];
        group.bench_function(BenchmarkId::new("append", name), |bencher| {
            bencher.iter(|| append(&wal, &payload));
        });
    }
    group.finish();
}
