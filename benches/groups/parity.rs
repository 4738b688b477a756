//! What parity costs: the same appends into a log without it and into one with it, in turn; and
//! how fast segments are protected when nothing else is to be done.
//!
//! Both logs are synced a segment at a time behind the producer, and at the end of each round: what
//! is not durable is not protected.

use std::path::Path;
use std::time::Instant;

use criterion::Criterion;
use kaelix_wal::{Durability, Geometry, OnFull, Options, Wal};

use crate::support::results::Row;
use crate::support::{RING, ROUNDS, SEGMENT, append, histogram, median, seconds, time_calls};

const GROUP: &str = "parity";
const SIZES: [usize; 2] = [256, 4096];

pub fn run(_: &mut Criterion) {
    println!("\n{GROUP}: MB/s of payload, appended and synced; {ROUNDS} rounds, in turn");
    println!("| records of | without | with | with/without | protected |\n|---|---|---|---|---|");
    for size in SIZES {
        compare(size);
    }
    waits();
    protect();
}

/// A log that overwrites its oldest records.
fn log(dir: &Path, (ring, segment): (u64, u64), parity: bool) -> Wal {
    let geometry = Geometry::new(ring, segment).expect("valid sizes");
    let options = Options::new().durability(Durability::OnDemand).on_full(OnFull::Overwrite);
    Wal::create(dir, geometry, options.parity(parity)).expect("a log can be created")
}

fn compare(size: usize) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let logs = [false, true]
        .map(|parity| log(&dir.path().join(parity.to_string()), (RING, SEGMENT), parity));
    let payload = vec![0xA5; size];
    // Half a ring, or a whole one, each round.
    let bytes = if seconds(1.0).as_secs_f64() < 0.5 { RING / 2 } else { RING };
    let mut rounds = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let start = Instant::now();
            for _ in 0..bytes / size as u64 {
                append(&logs[which], &payload);
            }
            logs[which].sync().expect("the disk takes it");
            rounds[which].push(bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
            // What is left of it is not the next one's.
            logs[which].sync_parity().expect("the disk takes it");
        }
    }
    let metrics = logs[1].metrics();
    let share = 100 * metrics.segments_protected / metrics.segments_sealed.max(1);
    let [without, with] = &rounds;
    let ratio = median(with.iter().zip(without).map(|(with, without)| with / without).collect());
    let row = Row::new(GROUP, &format!("{size} B"), "appended and synced", "MB/s").log(with);
    row.floor("the same log without parity", without).write();
    let [without, with] = rounds.map(median);
    println!("| {size} B | {without:.0} | {with:.0} | {ratio:.2} | {share} % |");
}

/// Durable appends of one thread, with segments so small that one is protected all the time.
fn waits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let logs = [false, true]
        .map(|parity| log(&dir.path().join(parity.to_string()), (16 << 20, 256 << 10), parity));
    let mut times = [histogram(), histogram()];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let durable = || drop(logs[which].append_durable(&[0xA5; 4096]));
            let round = time_calls(seconds(1.0) / ROUNDS as u32, durable);
            times[which].add(round).expect("same bounds");
        }
    }
    println!("\n{GROUP}: microseconds of a durable append of 4096 B, segments of 256 KiB");
    println!("| | p50 | p99 | p99.9 | protected |\n|---|---|---|---|---|");
    for ((times, name), log) in times.iter().zip(["without", "with"]).zip(&logs) {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        let (metrics, row) = (log.metrics(), Row::new(GROUP, name, "durable append", "us"));
        row.log(&[at(0.5)]).percentiles(name, times).write();
        let share = 100 * metrics.segments_protected / metrics.segments_sealed.max(1);
        println!("| {name} | {:.0} | {:.0} | {:.0} | {share} % |", at(0.5), at(0.99), at(0.999));
    }
}

/// A log that is there already.
fn protect() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let wal = log(&path, (RING, SEGMENT), false);
    while wal.watermarks().reserved.get() < RING - SEGMENT / 2 {
        append(&wal, &[0xA5; 1024]);
    }
    wal.close().expect("nothing is open");
    drop(wal);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let _ = std::fs::remove_file(path.join("parity"));
        let wal = Wal::open(&path, Options::new().parity(true)).expect("it was closed in order");
        let start = Instant::now();
        let protected = wal.sync_parity().expect("the disk takes it");
        assert!(protected > RING / SEGMENT / 2, "{protected} are retained");
        rounds.push((protected * SEGMENT) as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    Row::new(GROUP, "an existing log", "protected", "MB/s").log(&rounds).write();
    println!("an existing log is protected at {:.0} MB/s", median(rounds));
}
