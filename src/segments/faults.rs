//! Taking page faults where the writers are about to come: a background thread.
//!
//! The kernel writes dirty pages back when it likes, at the latest every 30 seconds or so, and
//! write-protects each: the next store to it is a page fault, on the append path. Prepared segments
//! are dirty pages, tens of megabytes of them. So while producers are at work this thread looks
//! every millisecond and takes the faults of the next bit of the ring itself; pages that are
//! writable already cost it a look at the page table. When the producers have stopped it sleeps
//! without a timer. The first commit across a line of 16 KiB wakes it, so that a log that comes
//! back from a pause, in which the kernel has written back all of it, meets a few faults.
//!
//! It is a thread of its own because the janitor and the flusher wait for the disk, and are held up
//! most when the kernel writes back, which is when there are faults to take.

use std::time::Duration;

use crate::geometry::PAGE_SIZE;
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::ring::Ring;
use crate::sync::{Arc, AtomicBool, Ordering};

/// Between two looks.
const TICK: Duration = Duration::from_millis(1);
/// After so many looks without an append the producers are not at work any more.
const QUIET_LOOKS: u32 = 20;
/// How far ahead, at least and at most: in between, eight times what came since the last look.
const WINDOW: (u64, u64) = (256 << 10, 4 << 20);

/// The thread's state.
pub(crate) struct FaultTaker {
    ring: Arc<Ring>,
    stop: AtomicBool,
}

impl FaultTaker {
    pub(crate) fn new(ring: Arc<Ring>) -> FaultTaker {
        FaultTaker { ring, stop: AtomicBool::new(false) }
    }

    /// Ends the thread at its next look.
    pub(crate) fn stop(&self) {
        // Relaxed: the bell hands it over.
        self.stop.store(true, Ordering::Relaxed);
        self.ring.fault_taker.bell.ring();
    }

    /// The thread's body.
    pub(crate) fn run(&self) {
        let mut seen = self.ring.reserved();
        let mut taken = seen;
        let mut quiet_looks = QUIET_LOOKS;
        loop {
            let nap = (quiet_looks < QUIET_LOOKS).then_some(TICK);
            let rung = self.ring.fault_taker.sleep(nap);
            // Relaxed: as in `stop`.
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let tail = self.ring.reserved();
            quiet_looks = if rung || tail > seen { 0 } else { quiet_looks + 1 };
            if tail > seen {
                if tail > taken {
                    let pages = (tail - taken.max(seen)).div_ceil(PAGE_SIZE);
                    count(&self.ring.counters.pages_unready, pages);
                }
                let window = ((tail - seen) * 8).clamp(WINDOW.0, WINDOW.1);
                taken = self.take(tail, window);
                seen = tail;
            }
        }
    }

    /// Takes the faults of `[tail, tail + window)`, as far as it is prepared; returns its end.
    fn take(&self, tail: Lsn, window: u64) -> Lsn {
        let end = self.ring.writable().min(tail + window);
        for range in self.ring.geometry().file_ranges(tail, end.max(tail)) {
            self.ring.region().backing().prefault(range);
        }
        end
    }
}
