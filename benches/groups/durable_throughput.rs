//! Records made durable as fast as they come, against the disk's own sequential rate.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, Wal};

use crate::support::disk_floor::DiskFloor;
use crate::support::results::Row;
use crate::support::{RING, ROUNDS, append, median, open, seconds, time_threads};

/// Appends that are made durable, against the disk's own sequential overwrite and sync.
pub fn run(criterion: &mut Criterion) {
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
    let row = Row::new("durable_throughput", name, "made durable", "MB/s").log(&log);
    row.floor("sequential overwrites of 4 MiB, each synced", &floor).write();
    let ratio = median(log.iter().zip(&floor).map(|(l, f)| l / f).collect());
    format!("| {name} | {:.0} | {:.0} | {ratio:.2} |", median(floor), median(log))
}
