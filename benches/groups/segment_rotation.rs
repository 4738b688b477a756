//! The append that goes on to the next segment, beside all others; and what rotations cost in all,
//! by the size of segments.
//!
//! No file is made or grown: what a rotation does is a pad, a claim and a footer. The log rotates
//! without a promise of durability, so that segments are filled as fast as they can be prepared.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use hdrhistogram::Histogram;
use kaelix_wal::{Durability, Geometry, OnFull, Options, Position, Wal};

use crate::support::append_floor::FloorRing;
use crate::support::check::{self, Stamped};
use crate::support::results::Row;
use crate::support::{RING, ROUNDS, append, histogram, median, seconds};

const GROUP: &str = "segment_rotation";
const SIZE: usize = 256;
const SEGMENTS: [(u64, &str); 4] =
    [(64 << 10, "64KiB"), (1 << 20, "1MiB"), (16 << 20, "16MiB"), (64 << 20, "64MiB")];

pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let floor = FloorRing::new(dir.path(), RING).expect("a floor");
    let mut group = criterion.benchmark_group(GROUP);
    group.sample_size(10).measurement_time(seconds(1.0)).warm_up_time(Duration::from_millis(300));
    println!(
        "\n{GROUP}: appends of {SIZE} B, microseconds, the clock read for each; {ROUNDS} rounds"
    );
    println!(
        "| segments of | rotating p50 | p99 | worst | others p50 | p99 | worst | ns an append, \
         floor/log |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (segment, name) in SEGMENTS {
        let path = dir.path().join(name);
        let geometry = Geometry::new(RING, segment).expect("valid sizes");
        let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
        let wal = Wal::create(&path, geometry, options).expect("a log can be created");
        let mut payload = Stamped::new(0, SIZE);
        compare(&wal, &floor, &mut payload, segment, name);
        check::stamped(&wal, Position::Oldest, SIZE, &[payload.count()]);
        group.bench_function(BenchmarkId::new("append", name), |bencher| {
            bencher.iter(|| append(&wal, payload.next()));
        });
        drop(wal);
        std::fs::remove_dir_all(path).expect("a temporary directory");
    }
    group.finish();
}

fn compare(wal: &Wal, floor: &FloorRing, payload: &mut Stamped, segment: u64, name: &str) {
    // As long as it takes, but one rotation each round at least.
    let share = seconds(2.0).as_secs_f64() / ROUNDS as f64 / 2.0;
    let count = ((share / 100e-9) as u64).max(2 * segment / SIZE as u64);
    let mut of_floor = Stamped::new(0, SIZE);
    let (mut rotating, mut others) = (histogram(), histogram());
    let [mut floors, mut logs, mut p99] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let time = floor.with_zeroing(|| {
            for _ in 0..count {
                black_box(floor.append(of_floor.next()));
            }
        });
        floors.push(time.as_nanos() as f64 / count as f64);
        let start = Instant::now();
        for _ in 0..count {
            append(wal, payload.next());
        }
        logs.push(start.elapsed().as_nanos() as f64 / count as f64);
        let round = time_rotations(wal, payload, segment, count, &mut others);
        p99.push(round.value_at_quantile(0.99) as f64 / 1e3);
        rotating.add(round).expect("same bounds");
    }
    let ratio = median(floors.iter().zip(&logs).map(|(floor, log)| floor / log).collect());
    let cells = |times: &Histogram<u64>| {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        format!("{:.2} | {:.2} | {:.0}", at(0.5), at(0.99), times.max() as f64 / 1e3)
    };
    println!("| {name} | {} | {} | {ratio:.2} |", cells(&rotating), cells(&others));
    let row = Row::new(GROUP, name, "append", "ns").log(&logs);
    row.floor("checksum, claim, copy, store; zeroing", &floors).write();
    Row::new(GROUP, name, "rotating append, p99", "us").log(&p99).write();
    Row::new(GROUP, name, "latency", "ns")
        .percentiles("rotating appends", &rotating)
        .percentiles("all others", &others)
        .write();
}

/// Appends, each timed: those that begin a segment apart from `others`.
fn time_rotations(
    wal: &Wal,
    payload: &mut Stamped,
    segment: u64,
    count: u64,
    others: &mut Histogram<u64>,
) -> Histogram<u64> {
    let mut rotating = histogram();
    let mut current = wal.watermarks().reserved.get() / segment;
    let mut before = Instant::now();
    for _ in 0..count {
        let lsn = wal.append(payload.next()).expect("the oldest makes room");
        let after = Instant::now();
        let times = if lsn.get() / segment == current { &mut *others } else { &mut rotating };
        times.saturating_record((after - before).as_nanos() as u64);
        current = lsn.get() / segment;
        before = after;
    }
    rotating
}
