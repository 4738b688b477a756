//! Producers that are faster than what frees their space: does each policy keep its promise, does
//! everyone get a share, and is full speed back afterwards?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use kaelix_wal::{AppendError, Geometry, OnFull, Options, Position, Wal};

use crate::support::results::Row;
use crate::support::{median, seconds};

const PRODUCERS: usize = 4;
const PAYLOAD: usize = 256;
const RING: u64 = 16 << 20;
const SEGMENT: u64 = 1 << 20;
/// What the slow consumer takes: a tenth of what producers could write, or less.
const CONSUMED_A_SECOND: u64 = 32 << 20;
const ROUNDS: usize = 5;

/// What came of one run.
struct Run {
    /// Appends of each producer.
    counts: Vec<u64>,
    refused: u64,
    wall: Duration,
    processor: Duration,
}

pub fn run(_: &mut Criterion) {
    println!(
        "\nback_pressure: {PRODUCERS} producers of {PAYLOAD} B, a ring of 16 MiB, a consumer of"
    );
    println!("32 MB/s; medians of {ROUNDS} rounds; speeds in MB/s, processors busy meanwhile");
    println!("| policy | no consumer's limit | slow consumer | slowest/fastest producer | busy |");
    println!("|---|---|---|---|---|");
    for (name, on_full) in
        [("wait", OnFull::Wait), ("fail", OnFull::Fail), ("overwrite", OnFull::Overwrite)]
    {
        let (mut free, mut slow, mut share, mut busy, mut again) =
            (vec![], vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let geometry = Geometry::new(RING, SEGMENT).expect("valid sizes");
            let wal =
                Wal::create(dir.path().join("log"), geometry, Options::new().on_full(on_full))
                    .expect("a log can be created");
            free.push(speed(&produce(&wal, None)));
            let limited = produce(&wal, Some(CONSUMED_A_SECOND));
            slow.push(speed(&limited));
            let (least, most) = (limited.counts.iter().min(), limited.counts.iter().max());
            share.push(*least.expect("producers") as f64 / *most.expect("producers") as f64);
            busy.push(limited.processor.as_secs_f64() / limited.wall.as_secs_f64());
            assert_eq!(on_full == OnFull::Fail, limited.refused > 0, "only `fail` refuses");
            again.push(speed(&produce(&wal, None)));
            wal.close().expect("the disk takes it");
        }
        let row = Row::new("back_pressure", name, "speed afterwards", "MB/s").log(&again);
        row.floor("the same before", &free).write();
        let recovered = median(again.iter().zip(&free).map(|(a, f)| a / f).collect());
        println!(
            "| {name} | {:.0} (again: {recovered:.2}) | {:.0} | {:.2} | {:.2} |",
            median(free),
            median(slow),
            median(share),
            median(busy)
        );
    }
}

fn speed(run: &Run) -> f64 {
    run.counts.iter().sum::<u64>() as f64 * PAYLOAD as f64 / run.wall.as_secs_f64() / 1e6
}

/// Producers append for a while; a consumer reads at most so many bytes a second, verifies, and
/// checkpoints.
fn produce(wal: &Wal, limit: Option<u64>) -> Run {
    let stop = AtomicBool::new(false);
    let (start, processor) = (Instant::now(), processor_time());
    let end = start + seconds(1.0);
    let (counts, refused) = std::thread::scope(|scope| {
        let consumer = scope.spawn(|| consume(wal, limit, &stop));
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| scope.spawn(move || append(wal, producer, end)))
            .collect();
        let results: Vec<(u64, u64)> =
            producers.into_iter().map(|producer| producer.join().expect("no panic")).collect();
        stop.store(true, Ordering::Release);
        consumer.join().expect("no panic");
        let refused = results.iter().map(|(_, refused)| refused).sum();
        (results.into_iter().map(|(count, _)| count).collect(), refused)
    });
    Run { counts, refused, wall: start.elapsed(), processor: processor_time() - processor }
}

/// Returns how many appends there were, and how many were refused.
fn append(wal: &Wal, producer: usize, end: Instant) -> (u64, u64) {
    let mut payload = [producer as u8; PAYLOAD];
    let (mut count, mut refused) = (0_u64, 0);
    while Instant::now() < end {
        payload[..8].copy_from_slice(&count.to_le_bytes());
        match wal.append(&payload) {
            Ok(_) => count += 1,
            Err(AppendError::Full { .. }) => {
                // What a caller does who will not wait: something else for a while.
                refused += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => panic!("{error}"),
        }
    }
    (count, refused)
}

/// Reads in order, no faster than `limit` bytes a second; every producer's numbers rise, without a
/// gap unless the log overwrites. Everything read is released.
fn consume(wal: &Wal, limit: Option<u64>, stop: &AtomicBool) {
    let start = Instant::now();
    let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
    let mut read = 0_u64;
    let mut last = [None::<u64>; PRODUCERS];
    loop {
        let stopped = stop.load(Ordering::Acquire);
        let mut found = 0;
        while let Some(record) = reader.next().expect("every record verifies") {
            let payload = record.payload();
            let number = u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"));
            let producer = &mut last[payload[8] as usize];
            assert!(producer.is_none_or(|last| last < number || number == 0), "in order");
            *producer = Some(number);
            found += payload.len() as u64;
            if found >= 256 << 10 {
                break;
            }
        }
        wal.checkpoint(reader.position()).expect("a record boundary");
        read += found;
        if found == 0 {
            if stopped {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        if let Some(limit) = limit.filter(|_| !stopped) {
            let due = start + Duration::from_secs_f64(read as f64 / limit as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let ticks: u64 = fields.take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
