//! The shim's names as the standard library has them.

pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};
#[cfg(not(wal_sanitized))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(any(test, feature = "simulation"))]
pub use std::thread::ThreadId;
pub use std::thread::{JoinHandle, Thread, current};

#[cfg(wal_sanitized)]
pub use super::worded::{Condvar, Mutex, MutexGuard};

pub use super::lock as lock_process;
/// A process-wide lock for what even models do not share (the list of logs open in this
/// process).
pub use Mutex as ProcessMutex;

/// A typed atomic: watermarks are `Atomic<Lsn>`, never bare integers.
pub use atomic::Atomic;

pub use crossbeam_utils::Backoff;

/// A lock that [`try_lock`](super::try_lock) may be called on: to loom, another kind of lock.
pub const fn tried<T>(value: T) -> Mutex<T> {
    Mutex::new(value)
}

/// The time.
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Sleeps until unparked or until `timeout` has passed; may return early. True if the sleep
/// is over whatever the clock says: never, outside models.
pub fn park_timeout(timeout: std::time::Duration) -> bool {
    std::thread::park_timeout(timeout);
    false
}

/// Waits on `condvar` at most `timeout`; may return early. True if the wait is over whatever
/// the clock says: never, outside models.
pub fn wait_timeout<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: std::time::Duration,
) -> (MutexGuard<'a, T>, bool) {
    match condvar.wait_timeout(guard, timeout) {
        Ok((guard, _)) => (guard, false),
        Err(poisoned) => (poisoned.into_inner().0, false),
    }
}

/// Starts a named background thread.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// How many threads can run at the same time. Asked of the system once: that reads several files.
pub fn parallelism() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    // 0: not asked yet. Relaxed: the number is all there is, and whoever asks twice gets it again.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    match ASKED.load(Ordering::Relaxed) {
        0 => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            ASKED.store(threads, Ordering::Relaxed);
            threads
        }
        threads => threads,
    }
}

/// Runs `body` in this thread and in up to `threads - 1` others; returns when all have ended. Where
/// none can be started, this one does it alone.
pub fn in_threads(threads: usize, body: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for _ in 1..threads {
            let thread = std::thread::Builder::new().name("wal-scan".to_owned());
            match thread.spawn_scoped(scope, &body) {
                Ok(other) => others.push(other),
                Err(_) => break,
            }
        }
        body();
        // One by one, though the scope would wait for them: ThreadSanitizer knows what a join
        // orders, and not what the compiled standard library does at the end of a scope.
        for other in others {
            if let Err(panic) = other.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Is `thread` the one that asks?
pub fn is_current(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == current().id()
}
