//! Batches of 64-byte entries, against a record of as many bytes appended by the floor.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, Wal};

use crate::support::append_floor::FloorRing;
use crate::support::results::Row;
use crate::support::{RING, ROUNDS, median, open, seconds, time_threads};

const LENS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const PAYLOAD: [u8; 64] = [0xA5; 64];

pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::None);
    let floor = FloorRing::new(dir.path(), RING).expect("a floor");
    let mut group = criterion.benchmark_group("batch_write_throughput");
    group.sample_size(10).measurement_time(seconds(2.0)).warm_up_time(Duration::from_secs(1));
    let mut rows = Vec::new();
    for len in LENS {
        group.throughput(Throughput::Elements(len as u64));
        group.bench_function(BenchmarkId::new("wal", len), |bencher| {
            bencher.iter(|| append_batch(&wal, len));
        });
        rows.push(row(&wal, &floor, len));
    }
    group.finish();
    println!("\nbatch_write_throughput: ns an entry of 64 B, medians of {ROUNDS} rounds in turn");
    println!("| entries | one by one | batch | floor | floor/batch |");
    println!("|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
}

fn append_batch(wal: &Wal, len: usize) {
    let entries = std::iter::repeat_n(black_box(&PAYLOAD), len);
    black_box(wal.append_batch(entries).expect("the oldest makes room"));
}

/// The bytes of a batch, appended as they are by the floor; each entry by itself; and the batch.
fn row(wal: &Wal, floor: &FloorRing, len: usize) -> String {
    let bytes = vec![0xA5; len * (8 + PAYLOAD.len())];
    let count = ((seconds(2.0).as_secs_f64() * 1e9 / 4.0 / 30.0) as u64 / len as u64).max(2);
    let entries = count * len as u64;
    let nanos = |time: Duration| time.as_nanos() as f64 / entries as f64;
    let (mut singles, mut batches, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        singles.push(nanos(time_threads(1, entries, || crate::support::append(wal, &PAYLOAD))));
        batches.push(nanos(time_threads(1, count, || append_batch(wal, len))));
        floors.push(nanos(time_threads(1, count, || {
            black_box(floor.append(black_box(&bytes)));
        })));
    }
    let measured = Row::new("batch_write_throughput", &len.to_string(), "each entry", "ns");
    measured.log(&batches).floor("as many bytes in one append", &floors).write();
    let ratio = median(floors.iter().zip(&batches).map(|(floor, batch)| floor / batch).collect());
    format!(
        "| {len} | {:.1} | {:.1} | {:.1} | {ratio:.2} |",
        median(singles),
        median(batches),
        median(floors)
    )
}
