//! Appends that are durable when they return, against the disk's own write and sync (one thread)
//! and against the plainest group commit (several).

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use hdrhistogram::Histogram;
use kaelix_wal::{Durability, Wal};

use crate::support::disk_floor::{DiskFloor, GroupFloor};
use crate::support::plot;
use crate::support::results::Row;
use crate::support::{RING, ROUNDS, histogram, median, open, seconds, time_calls};

const PAYLOAD: usize = 256;
const THREADS: [usize; 5] = [1, 2, 8, 16, 32];
const TASKS: usize = 256;

pub fn run(_: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::OnDemand);
    let time = seconds(2.0);
    one_thread(dir.path(), &wal, time);
    groups(dir.path(), &wal, time);
    tasks(&Arc::new(wal), time);
}

fn one_thread(dir: &std::path::Path, wal: &Wal, time: Duration) {
    let disk = DiskFloor::new(dir, RING).expect("a floor");
    let payload = [0xA5_u8; PAYLOAD];
    let (mut floor, mut log) = (histogram(), histogram());
    let mut ratios = (Vec::new(), Vec::new());
    let mut p99 = (Vec::new(), Vec::new());
    let mut page = 0;
    for _ in 0..ROUNDS {
        let of_floor = time_calls(time, || {
            disk.page(page).expect("the disk takes it");
            page += 1;
        });
        let of_log = time_calls(time, || {
            wal.append_durable(&payload).expect("the disk takes it");
        });
        let ratio = |q| of_log.value_at_quantile(q) as f64 / of_floor.value_at_quantile(q) as f64;
        ratios.0.push(ratio(0.5));
        ratios.1.push(ratio(0.99));
        p99.0.push(of_floor.value_at_quantile(0.99) as f64 / 1e3);
        p99.1.push(of_log.value_at_quantile(0.99) as f64 / 1e3);
        floor.add(of_floor).expect("same bounds");
        log.add(of_log).expect("same bounds");
    }
    println!("\ndurable_append, 1 thread: microseconds, {ROUNDS} rounds in turn");
    println!("| | p50 | p99 | p99.9 | worst |\n|---|---|---|---|---|");
    for (name, times) in [("4 KiB pwrite + fdatasync", &floor), ("log, 256 B", &log)] {
        let at = |q| times.value_at_quantile(q) as f64 / 1e3;
        let worst = times.max() as f64 / 1e3;
        println!("| {name} | {:.0} | {:.0} | {:.0} | {worst:.0} |", at(0.5), at(0.99), at(0.999));
    }
    let row = Row::new("durable_append", "256B/1", "p99", "us").log(&p99.1);
    row.floor("4 KiB write and sync", &p99.0).write();
    let row = Row::new("durable_append", "256B/1", "latency", "ns");
    row.percentiles("4 KiB write and sync", &floor).percentiles("log", &log).write();
    plot::percentiles(
        "durable_append-one_thread",
        "One thread, durable when it returns",
        &[("4 KiB pwrite + fdatasync", &floor), ("log, 256 B", &log)],
    );
    let (p50, p99) = (median(ratios.0), median(ratios.1));
    println!("| log/floor, median of the rounds | {p50:.2} | {p99:.2} | | |");
}

fn groups(dir: &std::path::Path, wal: &Wal, time: Duration) {
    let group = GroupFloor::new(dir, RING).expect("a floor");
    let payload = [0xA5_u8; PAYLOAD];
    println!("\ndurable_append, group commit: appends/s, medians of {ROUNDS} rounds in turn");
    println!("| threads | floor | log | log/floor | floor p99, us | log p99, us |");
    println!("|---|---|---|---|---|---|");
    let (mut floor_scaling, mut log_scaling) = (Vec::new(), Vec::new());
    for threads in THREADS {
        let (mut floor, mut log, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut floor_times, mut log_times) = (histogram(), histogram());
        for _ in 0..ROUNDS {
            let (of_floor, times) = rate(threads, time, || {
                group.append(&payload).expect("the disk takes it");
            });
            floor_times.add(times).expect("same bounds");
            let (of_log, times) = rate(threads, time, || {
                wal.append_durable(&payload).expect("the disk takes it");
            });
            log_times.add(times).expect("same bounds");
            floor.push(of_floor);
            log.push(of_log);
            ratios.push(of_log / of_floor);
        }
        floor_scaling.push((threads as f64, median(floor.clone())));
        log_scaling.push((threads as f64, median(log.clone())));
        let row = Row::new("durable_append", &format!("threads/{threads}"), "appends", "1/s");
        row.log(&log).floor("plain group commit", &floor).write();
        let p99 = |times: &Histogram<u64>| times.value_at_quantile(0.99) as f64 / 1e3;
        println!(
            "| {threads} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} |",
            median(floor),
            median(log),
            median(ratios),
            p99(&floor_times),
            p99(&log_times)
        );
    }
    plot::scaling(
        "durable_append-group_commit",
        "Group commit, 256 B",
        ("threads", "durable appends a second"),
        &[("floor".to_owned(), floor_scaling), ("log".to_owned(), log_scaling)],
    );
}

/// Tasks that wait on a runtime of two threads, against one thread that waits by itself.
fn tasks(wal: &Arc<Wal>, time: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime");
    let payload = [0xA5_u8; PAYLOAD];
    let (mut one, mut many, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (alone, _) = rate(1, time, || {
            wal.append_durable(&payload).expect("the disk takes it");
        });
        let start = Instant::now();
        let handles: Vec<_> = (0..TASKS)
            .map(|_| {
                let wal = wal.clone();
                runtime.spawn(async move {
                    let mut count = 0_u64;
                    while start.elapsed() < time {
                        let lsn = wal.append(&payload).expect("the oldest makes room");
                        wal.durable(lsn).await.expect("the disk takes it");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let count: u64 =
            handles.into_iter().map(|task| runtime.block_on(task).expect("no panic")).sum();
        let together = count as f64 / start.elapsed().as_secs_f64();
        one.push(alone);
        many.push(together);
        ratios.push(together / alone);
    }
    println!("\ndurable_append, tasks: appends/s, medians of {ROUNDS} rounds in turn");
    println!("| one thread | {TASKS} tasks | tasks/thread |\n|---|---|---|");
    println!("| {:.0} | {:.0} | {:.1} |", median(one), median(many), median(ratios));
}

/// Calls a second of `threads` threads together, and the time of each call.
fn rate(threads: usize, time: Duration, operation: impl Fn() + Sync) -> (f64, Histogram<u64>) {
    let start = Instant::now();
    let all = std::thread::scope(|scope| {
        let handles: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| time_calls(time, &operation))).collect();
        handles.into_iter().fold(histogram(), |mut all, handle| {
            all.add(handle.join().expect("no panic")).expect("same bounds");
            all
        })
    });
    (all.len() as f64 / start.elapsed().as_secs_f64(), all)
}
