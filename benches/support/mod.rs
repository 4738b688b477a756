//! What the benchmark groups share.

pub mod floor;

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Runs `count` calls of `operation`, spread over `threads` threads that start together; returns
/// the time from the common start to the end of the last.
pub fn time_threads(threads: u64, count: u64, operation: impl Fn() + Sync) -> Duration {
    if threads == 1 {
        let start = Instant::now();
        for _ in 0..count {
            operation();
        }
        return start.elapsed();
    }
    let barrier = Barrier::new(threads as usize + 1);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let share = count / threads + u64::from(thread < count % threads);
            let (barrier, operation) = (&barrier, &operation);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..share {
                    operation();
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
