//! A producer at a fixed rate, and what it notices.
//!
//! A latency counts from the moment at which the call was due, so that whatever delays one call
//! counts for all that come due meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::histogram;

/// Latencies and page faults of a producer in one round.
pub struct Paced {
    pub times: Histogram<u64>,
    pub faults: u64,
}

impl Paced {
    /// A quantile, in microseconds.
    pub fn at(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The quantile of each round, in microseconds.
    pub fn each(rounds: &[Paced], quantile: f64) -> Vec<f64> {
        rounds.iter().map(|round| round.at(quantile)).collect()
    }

    /// All rounds together.
    pub fn all(rounds: &[Paced]) -> Histogram<u64> {
        rounds.iter().fold(histogram(), |mut all, round| {
            all.add(&round.times).expect("same bounds");
            all
        })
    }
}

/// Calls `operation` once in each `period` for `time`, in this thread.
pub fn paced(time: Duration, period: Duration, mut operation: impl FnMut()) -> Paced {
    let mut times = histogram();
    let count = (time.as_nanos() / period.as_nanos()) as u32;
    // Pages of the histogram itself are touched before.
    times.saturating_record_n(1, 1);
    let faults = page_faults();
    let start = Instant::now();
    let mut now = start;
    for n in 0..count {
        let due = start + period * n;
        while now < due {
            std::hint::spin_loop();
            now = Instant::now();
        }
        operation();
        now = Instant::now();
        times.saturating_record((now - due).as_nanos() as u64);
    }
    Paced { times, faults: page_faults() - faults }
}

/// Runs `work` while `other` runs in a second thread, which ends when it is told.
pub fn beside<T>(other: impl FnOnce(&AtomicBool) + Send, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| other(&stop));
        let result = work();
        stop.store(true, Ordering::Release);
        result
    })
}

/// Page faults of this thread so far.
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // Behind the name, which ends in a bracket: minor faults are field 10, major ones field 12.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    field(10) + field(12)
}
