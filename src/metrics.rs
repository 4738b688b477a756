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
    /// Bytes that those syncs covered, in whole pages (in persistent memory, where each advance of
    /// the durable watermark counts as one, in bytes of the log).
    sync_bytes,
    /// Nanoseconds spent in those syncs (0 in persistent memory: a look at the clock costs as
    /// much).
    sync_nanos,
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
}

/// Adds to a counter. Relaxed: counters order nothing.
pub(crate) fn count(counter: &Counter, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
