//! Counters that explain what the log spent its time on.
//!
//! Not one of them is touched between a reserve and its commit: they are kept by background
//! threads, by the slow paths, and by those who sync.

use std::time::Duration;

use crate::sync::{CachePadded, Counter, Ordering};

/// A sync that takes longer is a slow one.
pub(crate) const SLOW_SYNC: Duration = Duration::from_millis(100);

/// How many buckets there are; the last one has no bound.
const BUCKETS: usize = 22;
/// The first bucket's bound is 2 to this power, in microseconds.
const FIRST_BOUND_LOG2: u32 = 4;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A snapshot of a log's counters since it was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,
            )*
            /// How long those syncs took.
            pub sync_latency: SyncLatency,
        }

        /// The live counters.
        pub(crate) struct Counters {
            $(pub(crate) $name: CachePadded<Counter>,)*
            sync_latency: [Counter; BUCKETS],
        }

        impl Counters {
            pub(crate) fn new() -> Counters {
                Counters {
                    $($name: CachePadded::new(Counter::new(0)),)*
                    sync_latency: Default::default(),
                }
            }

            pub(crate) fn snapshot(&self) -> Metrics {
                let buckets = self.sync_latency.each_ref();
                Metrics {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    sync_latency: SyncLatency {
                        buckets: buckets.map(|bucket| bucket.load(Ordering::Relaxed)),
                    },
                }
            }
        }
    };
}

counters! {
    /// Records that the published watermark has passed (pads and the log's own not counted).
    records_published,
    /// Segments sealed: how often the producers went on to the next one.
    segments_sealed,
    /// Segments zeroed and given a header for a new use.
    segments_prepared,
    /// Bytes of records that the overwrite policy displaced.
    bytes_overwritten,
    /// Syncs of record data that succeeded.
    syncs,
    /// Bytes that those syncs covered, in whole pages (in persistent memory, where each advance of
    /// the durable watermark counts as one, in bytes of the log).
    sync_bytes,
    /// Nanoseconds spent in those syncs (0 in persistent memory: a look at the clock costs as
    /// much).
    sync_nanos,
    /// Syncs that took longer than 100 ms.
    slow_syncs,
    /// Checkpoint slots written.
    slots_written,
    /// Times a producer found the next segment not prepared or the ring full.
    full_hits,
    /// Nanoseconds that producers spent waiting although nothing was in the way: for a segment to
    /// be prepared, or for a sync that space waits for.
    prepare_wait_nanos,
    /// Nanoseconds that producers spent at the full ring, until a checkpoint, or a reader that let
    /// go, made room.
    full_wait_nanos,
    /// Pages that producers came to before the log had taken their page faults: each may have cost
    /// an append a fault of a microsecond or two. An upper bound: most are writable all the same.
    pages_unready,
    /// Syncs that wrote the page on which the producers stood. Each write-protects it: the next
    /// append there takes a page fault, unless the log takes it first.
    tail_page_syncs,
    /// Times a commit woke a sleeping tail reader or flusher.
    wakeups,
    /// Reservations given up by drop.
    aborts,
    /// Segments that were given parity.
    segments_protected,
    /// Times the parity file could not be written any more, and segments that were given no parity
    /// because they do not verify.
    parity_failures,
}

/// Adds to a counter. Relaxed: counters order nothing.
pub(crate) fn count(counter: &Counter, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    /// Counts a sync of record data that covered `bytes` and took so long; true if it was slow.
    pub(crate) fn count_sync(&self, bytes: u64, elapsed: Duration) -> bool {
        count(&self.syncs, 1);
        count(&self.sync_bytes, bytes);
        count(&self.sync_nanos, elapsed.as_nanos() as u64);
        count(&self.sync_latency[SyncLatency::bucket_of(elapsed)], 1);
        let is_slow = elapsed > SLOW_SYNC;
        if is_slow {
            count(&self.slow_syncs, 1);
        }
        is_slow
    }
}

/// How long syncs took, as counts in buckets whose bounds double: up to 16 µs, 32 µs, and so on up
/// to 16 s, and beyond. (In persistent memory nothing is counted, as no clock is read there.)
///
/// # Example
///
/// ```
/// # use kaelix_wal::{Geometry, Options, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// wal.append_durable(b"one")?;
/// let latency = wal.metrics().sync_latency;
/// assert_eq!(latency.count(), wal.metrics().syncs);
/// for (bound, count) in latency.buckets() {
///     println!("{count} syncs took {bound:?} at most"); // no bound: beyond the largest
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncLatency {
    buckets: [u64; BUCKETS],
}

impl SyncLatency {
    fn bucket_of(elapsed: Duration) -> usize {
        let bounds = (0..BUCKETS - 1).map(SyncLatency::bound);
        bounds.take_while(|bound| *bound < elapsed).count()
    }

    fn bound(bucket: usize) -> Duration {
        Duration::from_micros(1 << (bucket as u32 + FIRST_BOUND_LOG2))
    }

    /// Each bucket's upper bound, and how many syncs took no longer than that, but longer than the
    /// bound before. The last one has none.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bound = |bucket| (bucket < BUCKETS - 1).then(|| SyncLatency::bound(bucket));
        self.buckets.into_iter().enumerate().map(move |(bucket, count)| (bound(bucket), count))
    }

    /// How many syncs there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The bound of the bucket in which the share `share` (0 to 1) of all syncs is reached: no more
    /// than that share took longer. `None` if there were none, or if it is beyond the last bound.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut so_far = 0;
        let found = self.buckets().find(|(_, count)| {
            so_far += count;
            so_far >= wanted
        });
        found.and_then(|(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_where_their_time_lies() {
        let counters = Counters::new();
        let times = [0, 16_000, 16_001, 32_000, 99_000_000, 100_000_001, 16_777_216_001];
        let slow = times.map(|nanos| counters.count_sync(10, Duration::from_nanos(nanos)));
        assert_eq!(slow, [false, false, false, false, false, true, true]);
        let metrics = counters.snapshot();
        assert_eq!((metrics.syncs, metrics.sync_bytes, metrics.slow_syncs), (7, 70, 2));
        assert_eq!(metrics.sync_nanos, times.iter().sum::<u64>());
        let latency = metrics.sync_latency;
        let filled: Vec<_> = latency.buckets().filter(|(_, count)| *count > 0).collect();
        let bound = |micros| Some(Duration::from_micros(micros));
        assert_eq!(filled, [(bound(16), 2), (bound(32), 2), (bound(131_072), 2), (None, 1)]);
        assert_eq!(latency.count(), 7);
        assert_eq!(latency.buckets().nth(20).unwrap().0, bound(16_777_216));
        let quantiles = [0.0, 0.28, 0.5, 0.8, 1.0].map(|share| latency.quantile(share));
        assert_eq!(quantiles, [bound(16), bound(16), bound(32), bound(131_072), None]);
        assert_eq!(SyncLatency::default().quantile(0.5), None);
    }
}
