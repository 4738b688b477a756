//! Benchmarks of the log, each beside the floor of the same work in the same run.
//!
//! `cargo bench --bench wal_benchmarks [GROUP]`, where a group is `append_throughput` or
//! `durable_throughput`; `CARGO_BENCH_DURATION` sets the seconds a measurement lasts. After
//! Criterion's own output, each group prints a table of ratios: floor and log in turn, round by
//! round, with the median of the rounds' ratios. Quote those: on a shared machine the ratio holds
//! where single times do not.

#![allow(clippy::print_stdout)]

mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, Geometry, OnFull, Options, Wal};

use support::floor::{DiskFloor, FloorRing};
use support::{median, seconds, time_threads};

const RING: u64 = 256 << 20;
const SEGMENT: u64 = 16 << 20;
const SIZES: [(usize, &str); 3] = [(64, "64B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];
const PRODUCERS: [u64; 5] = [1, 2, 4, 8, 32];
const ROUNDS: usize = 7;

fn open(dir: &std::path::Path, durability: Durability) -> Wal {
    let geometry = Geometry::new(RING, SEGMENT).expect("valid sizes");
    let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
    Wal::create(dir.join("log"), geometry, options).expect("a log can be created")
}

fn append(wal: &Wal, payload: &[u8]) {
    black_box(wal.append(black_box(payload)).expect("the oldest makes room"));
}

/// Appends without a promise of durability: the janitor runs, the ring wraps and is recycled.
fn append_throughput(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::None);
    let floor = FloorRing::new(dir.path(), RING).expect("a floor");
    let mut group = criterion.benchmark_group("append_throughput");
    group.sample_size(10).measurement_time(seconds(2.0)).warm_up_time(Duration::from_secs(1));
    let mut table = Vec::new();
    for (size, name) in SIZES {
        let payload = vec![0xA5_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        for producers in PRODUCERS {
            let id = format!("{name}/{producers}");
            group.bench_function(BenchmarkId::new("wal", &id), |bencher| {
                bencher.iter_custom(|n| time_threads(producers, n, || append(&wal, &payload)));
            });
            group.bench_function(BenchmarkId::new("floor", &id), |bencher| {
                bencher.iter_custom(|n| {
                    time_threads(producers, n, || {
                        black_box(floor.append(black_box(&payload)));
                    })
                });
            });
            table.push(append_ratios(&wal, &floor, &payload, producers, &id));
        }
    }
    group.finish();
    println!("\nappend_throughput: appends/s in millions, medians of {ROUNDS} rounds in turn");
    println!(
        "| size/producers | floor | floor + zeroing | log | log/floor | log/(floor + zeroing) |"
    );
    println!("|---|---|---|---|---|---|");
    table.iter().for_each(|row| println!("{row}"));
}

/// One row: floor, floor with zeroing, and log, measured in turn.
fn append_ratios(wal: &Wal, floor: &FloorRing, payload: &[u8], producers: u64, id: &str) -> String {
    let count =
        (seconds(2.0).as_secs_f64() * 1e9 / 4.0 / (25.0 + payload.len() as f64 / 8.0)) as u64;
    let rate = |time: Duration| count as f64 / time.as_secs_f64() / 1e6;
    let floor_append = || {
        black_box(floor.append(black_box(payload)));
    };
    let (mut bare, mut zeroing, mut log) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(rate(time_threads(producers, count, floor_append)));
        zeroing.push(rate(floor.with_zeroing(|| {
            time_threads(producers, count, floor_append);
        })));
        log.push(rate(time_threads(producers, count, || append(wal, payload))));
    }
    let ratio = |floor: &[f64]| median(log.iter().zip(floor).map(|(l, f)| l / f).collect());
    let (to_bare, to_zeroing) = (ratio(&bare), ratio(&zeroing));
    format!(
        "| {id} | {:.2} | {:.2} | {:.2} | {to_bare:.2} | {to_zeroing:.2} |",
        median(bare),
        median(zeroing),
        median(log)
    )
}

/// Appends that are made durable, against the disk's own sequential overwrite and sync.
fn durable_throughput(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = DiskFloor::new(dir.path(), RING).expect("a floor");
    let payload = vec![0xA5_u8; 1 << 10];
    let mut group = criterion.benchmark_group("durable_throughput");
    group.sample_size(10).measurement_time(seconds(2.0)).warm_up_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(payload.len() as u64));
    let unit = 4 << 20;
    let mut rows = Vec::new();
    for (name, durability) in [
        ("on_demand", Durability::OnDemand),
        ("interval_5ms", Durability::Interval(Duration::from_millis(5))),
    ] {
        let log_dir = dir.path().join(name);
        let wal = open(&log_dir, durability);
        group.bench_function(BenchmarkId::new("wal", name), |bencher| {
            bencher.iter_custom(|n| time_threads(1, n, || append(&wal, &payload)));
        });
        rows.push(durable_ratio(&wal, &disk, &payload, unit, name));
    }
    group.finish();
    println!("\ndurable_throughput: MB/s made durable, medians of {ROUNDS} rounds in turn");
    println!("| mode | disk floor | log | log/floor |\n|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
}

fn durable_ratio(wal: &Wal, disk: &DiskFloor, payload: &[u8], unit: usize, name: &str) -> String {
    const BYTES: u64 = 256 << 20;
    let count = BYTES / (payload.len() as u64 + 16);
    let rate = |time: Duration| BYTES as f64 / time.as_secs_f64() / 1e6;
    let (mut floor, mut log) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(rate(disk.overwrite(BYTES, unit).expect("the disk takes it")));
        log.push(rate(time_threads(1, 1, || {
            for _ in 0..count {
                append(wal, payload);
            }
            wal.sync().expect("the disk takes it");
        })));
    }
    let ratio = median(log.iter().zip(&floor).map(|(l, f)| l / f).collect());
    format!("| {name} | {:.0} | {:.0} | {ratio:.2} |", median(floor), median(log))
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    // The tables know nothing of Criterion's filter: a group that it leaves out is not run.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |group: &str| filter.as_ref().is_none_or(|filter| filter.contains(group));
    if wanted("append_throughput") {
        append_throughput(&mut criterion);
    }
    if wanted("durable_throughput") {
        durable_throughput(&mut criterion);
    }
    criterion.final_summary();
}
