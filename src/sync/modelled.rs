//! The shim's names as a model checker has them: loom's or shuttle's.

#[cfg(wal_loom)]
use loom as checker;
#[cfg(wal_shuttle)]
use shuttle as checker;

pub use checker::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(wal_shuttle)]
pub use checker::sync::{Condvar, Mutex, MutexGuard};
pub use checker::thread::{JoinHandle, Thread, ThreadId, current, yield_now};
/// Reference counts are the standard library's; they are not what the models are about.
pub use std::sync::Arc;

#[cfg(wal_loom)]
pub use super::explored::tried;
#[cfg(wal_loom)]
pub use super::worded::{Condvar, Mutex, MutexGuard};
pub use watch::Watch;

/// See the native one. Shuttle's `try_lock` needs no help.
#[cfg(wal_shuttle)]
pub fn tried<T>(value: T) -> Mutex<T> {
    Mutex::new(value)
}

/// The models' stand-in for `atomic::Atomic`: the same typed words over a modelled `AtomicU64`.
pub struct Atomic<T> {
    word: AtomicU64,
    _type: std::marker::PhantomData<T>,
}

impl<T: Copy + From<u64> + Into<u64>> Atomic<T> {
    /// A typed atomic that holds `value`.
    pub fn new(value: T) -> Self {
        Atomic { word: AtomicU64::new(value.into()), _type: std::marker::PhantomData }
    }

    /// Loads the value.
    pub fn load(&self, order: Ordering) -> T {
        T::from(self.word.load(order))
    }

    /// Stores `value`.
    pub fn store(&self, value: T, order: Ordering) {
        self.word.store(value.into(), order);
    }

    /// Replaces `current` by `new`, if it still stands.
    pub fn compare_exchange(
        &self,
        current: T,
        new: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        self.word
            .compare_exchange(current.into(), new.into(), success, failure)
            .map(T::from)
            .map_err(T::from)
    }
}

/// A process-wide lock for what even models do not share (the list of logs open in this
/// process).
pub type ProcessMutex<T> = std::sync::Mutex<T>;

/// Locks a process-wide lock, as [`lock`](super::lock) does.
pub fn lock_process<T>(mutex: &ProcessMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A checker runs what is written, in order: nothing to keep a compiler from.
pub fn compiler_fence(_order: Ordering) {}

/// Models have no time. A short sleep is polling: others run, then it is over. A long one
/// waits for its wake-up, so that a lost one is a deadlock, which the checker reports.
fn is_polling(timeout: std::time::Duration) -> bool {
    timeout < std::time::Duration::from_millis(100)
}

/// Sleeps until unparked; a short sleep just lets others run. True if it was one.
pub fn park_timeout(timeout: std::time::Duration) -> bool {
    let polls = is_polling(timeout);
    if polls {
        yield_now()
    } else {
        checker::thread::park()
    }
    polls
}

/// Waits on `condvar`; a short wait just lets others run. True if it was one.
pub fn wait_timeout<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: std::time::Duration,
) -> (MutexGuard<'a, T>, bool) {
    let polls = is_polling(timeout);
    if polls {
        yield_now();
        return (guard, true);
    }
    (super::wait(condvar, guard), false)
}

/// Time stands still, so that each execution can be replayed.
pub fn now() -> std::time::Instant {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    *START.get_or_init(std::time::Instant::now)
}

/// No spinning: it is over before it has begun.
pub struct Backoff;

impl Backoff {
    /// Crossbeam's constructor.
    pub fn new() -> Backoff {
        Backoff
    }

    /// Always: park instead.
    pub fn is_completed(&self) -> bool {
        true
    }

    /// Lets others run.
    pub fn snooze(&self) {
        yield_now();
    }
}

/// Starts a modelled thread; its name is not kept.
pub fn spawn(_name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Ok(checker::thread::spawn(body))
}

/// Models start the threads that they are about, and no others.
pub fn parallelism() -> usize {
    1
}

/// Runs `body`: see the native one.
pub fn in_threads(_threads: usize, body: impl Fn() + Sync) {
    body();
}

/// Is `thread` the one that asks?
pub fn is_current(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == current().id()
}

/// Loom follows plain accesses itself.
#[cfg(wal_loom)]
mod watch {
    /// Fails the model when two accesses, one of them a write, are not ordered.
    pub struct Watch(loom::cell::UnsafeCell<()>);

    impl Watch {
        /// Watches from now on; this counts as a write.
        pub fn new() -> Watch {
            Watch(loom::cell::UnsafeCell::new(()))
        }

        /// The calling thread reads.
        pub fn read(&self) {
            self.0.with(|_| ());
        }

        /// The calling thread writes.
        pub fn write(&self) {
            self.0.with_mut(|_| ());
        }
    }
}

/// Shuttle does not, but it keeps a vector clock for each thread. It advances on every atomic
/// access and lock, whatever its ordering: what goes unordered here is unordered by any ordering.
#[cfg(wal_shuttle)]
mod watch {
    use shuttle::current::{clock, me};

    /// A thread, and a time by its own clock.
    #[derive(Clone, Copy)]
    struct Access {
        thread: usize,
        time: u32,
    }

    struct History {
        wrote: Option<Access>,
        /// The last read of each thread since.
        reads: Vec<Access>,
    }

    /// Fails the model when two accesses, one of them a write, are not ordered.
    pub struct Watch(std::sync::Mutex<History>);

    impl Access {
        /// Now. What the calling thread hands over from here on has a higher time.
        fn now() -> Access {
            let thread = usize::from(me());
            Access { thread, time: clock().get(thread) + 1 }
        }

        /// Did it happen before what the calling thread does now?
        fn is_past(self) -> bool {
            self.thread == usize::from(me())
                || clock().time.get(self.thread).is_some_and(|time| *time >= self.time)
        }
    }

    impl Watch {
        /// Watches from now on.
        pub fn new() -> Watch {
            Watch(std::sync::Mutex::new(History { wrote: None, reads: Vec::new() }))
        }

        /// The calling thread reads.
        pub fn read(&self) {
            let mut history = super::lock_process(&self.0);
            let ordered = history.wrote.is_none_or(Access::is_past);
            assert!(ordered, "data race: a read that is not ordered after a write");
            let now = Access::now();
            history.reads.retain(|read| read.thread != now.thread);
            history.reads.push(now);
        }

        /// The calling thread writes.
        pub fn write(&self) {
            let mut history = super::lock_process(&self.0);
            let ordered = history.wrote.is_none_or(Access::is_past);
            assert!(ordered, "data race: two writes that are not ordered");
            let ordered = history.reads.iter().all(|read| read.is_past());
            assert!(ordered, "data race: a write that is not ordered after a read");
            *history = History { wrote: Some(Access::now()), reads: Vec::new() };
        }
    }
}
