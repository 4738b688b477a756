//! What the benchmark groups share.

pub mod append_floor;
pub mod append_parts;
pub mod check;
pub mod disk_floor;
pub mod paced;
pub mod plot;
pub mod pressure;
pub mod results;
pub mod scan_floor;

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kaelix_wal::{Durability, Geometry, OnFull, Options, Wal};
use memmap2::MmapMut;

/// Sizes of the log that the benchmarks use, and of each floor's file.
pub const RING: u64 = 256 << 20;
/// Segments of that log.
pub const SEGMENT: u64 = 16 << 20;
/// How often two things are measured in turn.
pub const ROUNDS: usize = 7;

/// A new log in `dir` that overwrites its oldest records.
pub fn open(dir: &Path, durability: Durability) -> Wal {
    let geometry = Geometry::new(RING, SEGMENT).expect("valid sizes");
    let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
    Wal::create(dir.join("log"), geometry, options).expect("a log can be created")
}

/// One append of a log that overwrites its oldest records.
pub fn append(wal: &Wal, payload: &[u8]) {
    black_box(wal.append(black_box(payload)).expect("the oldest makes room"));
}

/// A file of `size` bytes without a name in `dir`, every block written, a page at a time: larger
/// writes would leave large folios in the page cache.
pub fn written_file(dir: &Path, size: u64) -> std::io::Result<File> {
    filled_file(dir, size, 4 << 10)
}

/// A mapped file without a name in `dir`, every block written, in writes of `unit` bytes.
pub fn mapped_file(dir: &Path, size: u64, unit: usize) -> std::io::Result<MmapMut> {
    // SAFETY: the file has no name, and its one handle goes here: nobody else changes it.
    unsafe { MmapMut::map_mut(&filled_file(dir, size, unit)?) }
}

fn filled_file(dir: &Path, size: u64, unit: usize) -> std::io::Result<File> {
    let path = dir.join("floor");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let page = vec![1_u8; unit];
    for _ in 0..size / unit as u64 {
        file.write_all(&page)?;
    }
    file.sync_all()?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// A histogram of times in nanoseconds, up to a minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

/// The time of each call of `operation`, for `time`.
pub fn time_calls(time: Duration, mut operation: impl FnMut()) -> Histogram<u64> {
    let mut times = histogram();
    let start = Instant::now();
    let mut before = start;
    while before - start < time {
        operation();
        let after = Instant::now();
        times.saturating_record((after - before).as_nanos() as u64);
        before = after;
    }
    times
}

/// Runs `count` calls of `operation`, spread over `threads` threads that start together; returns
/// the time from the common start to the end of the last.
pub fn time_threads(threads: u64, count: u64, operation: impl Fn() + Sync) -> Duration {
    time_workers(count, &mut vec![(); threads as usize], |()| operation())
}

/// As [`time_threads`], a thread for each of `workers`.
pub fn time_workers<W: Send>(
    count: u64,
    workers: &mut [W],
    operation: impl Fn(&mut W) + Sync,
) -> Duration {
    if let [worker] = workers {
        let start = Instant::now();
        for _ in 0..count {
            operation(worker);
        }
        return start.elapsed();
    }
    let threads = workers.len() as u64;
    let barrier = Barrier::new(workers.len() + 1);
    std::thread::scope(|scope| {
        for (thread, worker) in (0..).zip(workers) {
            let share = count / threads + u64::from(thread < count % threads);
            let (barrier, operation) = (&barrier, &operation);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..share {
                    operation(worker);
                }
                barrier.wait();
            });
        }
        barrier.wait();
        let start = Instant::now();
        barrier.wait();
        start.elapsed()
    })
}

/// As [`time_calls`], a thread for each of `workers`.
pub fn time_each<W: Send>(
    time: Duration,
    workers: &mut [W],
    operation: impl Fn(&mut W) + Sync,
) -> Histogram<u64> {
    std::thread::scope(|scope| {
        let operation = &operation;
        let handles: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(move || time_calls(time, || operation(worker))))
            .collect();
        handles.into_iter().fold(histogram(), |mut all, handle| {
            all.add(handle.join().expect("no panic")).expect("same bounds");
            all
        })
    })
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds a measurement lasts: `CARGO_BENCH_DURATION`, or `default`.
pub fn seconds(default: f64) -> Duration {
    let seconds = std::env::var("CARGO_BENCH_DURATION").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(default))
}
