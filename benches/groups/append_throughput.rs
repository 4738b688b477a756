//! Appends without a promise of durability, against the bare work of an append.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, Wal};

use crate::support::append_floor::FloorRing;
use crate::support::{RING, ROUNDS, append, median, open, seconds, time_threads};

const SIZES: [(usize, &str); 3] = [(64, "64B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];
const PRODUCERS: [u64; 5] = [1, 2, 4, 8, 32];

/// Appends without a promise of durability: the janitor runs, the ring wraps and is recycled.
pub fn run(criterion: &mut Criterion) {
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
