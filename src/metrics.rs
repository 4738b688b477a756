//! Counters that explain what the log spent its time on.
//!
//! Not one of them is touched between a reserve and its commit: they are kept by background
//! threads, by the slow paths, and by those who sync.

use crate::sync::{CachePadded, Counter, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A snapshot of a log's counters since it was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The live counters.
        pub(crate) struct Counters {
            $(pub(crate) $name: CachePadded<Counter>,)*
        }

        impl Counters {
            pub(crate) fn new() -> Counters {
                Counters { $($name: CachePadded::new(Counter::new(0)),)* }
            }

            pub(crate) fn snapshot(&self) -> Metrics {
                Metrics { $($name: self.$name.load(Ordering::Relaxed),)* }
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
    /// Bytes that those syncs covered, in whole pages.
    sync_bytes,
    /// Nanoseconds spent in those syncs.
    sync_nanos,
    /// Checkpoint slots written.
    slots_written,
    /// Times a producer found the next segment not prepared or the ring full.
    full_hits,
    /// Nanoseconds that producers spent waiting for space.
    space_wait_nanos,
    /// Times a commit woke a sleeping tail reader or flusher.
    wakeups,
    /// Reservations given up by drop.
    aborts,
}

/// Adds to a counter. Relaxed: counters order nothing.
pub(crate) fn count(counter: &Counter, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
