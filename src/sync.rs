//! The one door to atomics, locks and threads.
//!
//! Nothing else in the crate names `std::sync`, `std::thread` or a model checker. Under
//! `cfg(wal_loom)` the same names come from loom, under `cfg(wal_shuttle)` from shuttle, so that
//! the models run the shipped code. The cfgs are our own, so that dependencies do not switch with
//! us.

#[cfg(not(any(wal_loom, wal_shuttle)))]
mod imp {
    pub use std::sync::Arc;
    pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};
    #[cfg(not(wal_sanitized))]
    pub use std::sync::{Condvar, Mutex, MutexGuard};
    pub use std::thread::{JoinHandle, Thread, current};

    #[cfg(wal_sanitized)]
    pub use super::sanitized::{Condvar, Mutex, MutexGuard};

    pub use super::lock as lock_process;
    /// A process-wide lock for what even models do not share (the list of logs open in this
    /// process).
    pub use Mutex as ProcessMutex;

    /// A typed atomic: watermarks are `Atomic<Lsn>`, never bare integers.
    pub use atomic::Atomic;

    pub use crossbeam_utils::Backoff;

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
    pub fn spawn(
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body)
    }
}

/// Locks that ThreadSanitizer sees. The standard library comes compiled and not instrumented, so
/// that what its locks order looks like races. These are its locks, each with a word that a holder
/// acquires after it has locked and releases before it unlocks: the order that the lock gives.
#[cfg(wal_sanitized)]
mod sanitized {
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{
        self, LockResult, PoisonError, TryLockError, TryLockResult, WaitTimeoutResult,
    };
    use std::time::Duration;

    pub struct Mutex<T> {
        order: AtomicU64,
        lock: sync::Mutex<T>,
    }

    pub struct MutexGuard<'a, T> {
        order: &'a AtomicU64,
        /// Gone while a condition is waited for.
        guard: Option<sync::MutexGuard<'a, T>>,
    }

    pub struct Condvar(sync::Condvar);

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Mutex<T> {
            Mutex { order: AtomicU64::new(0), lock: sync::Mutex::new(value) }
        }

        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            match self.lock.lock() {
                Ok(guard) => Ok(MutexGuard::acquired(&self.order, guard)),
                Err(poisoned) => {
                    let guard = MutexGuard::acquired(&self.order, poisoned.into_inner());
                    Err(PoisonError::new(guard))
                }
            }
        }

        pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            match self.lock.try_lock() {
                Ok(guard) => Ok(MutexGuard::acquired(&self.order, guard)),
                Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
                Err(TryLockError::Poisoned(poisoned)) => {
                    let guard = MutexGuard::acquired(&self.order, poisoned.into_inner());
                    Err(PoisonError::new(guard).into())
                }
            }
        }
    }

    impl<'a, T> MutexGuard<'a, T> {
        fn acquired(order: &'a AtomicU64, guard: sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            order.load(Ordering::Acquire);
            MutexGuard { order, guard: Some(guard) }
        }

        /// Takes it apart, about to unlock.
        fn release(mut self) -> (&'a AtomicU64, sync::MutexGuard<'a, T>) {
            self.order.store(0, Ordering::Release);
            (self.order, self.guard.take().expect("a guard holds its lock"))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.guard.as_ref().expect("a guard holds its lock")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().expect("a guard holds its lock")
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            if self.guard.is_some() {
                self.order.store(0, Ordering::Release);
            }
        }
    }

    impl Condvar {
        pub fn new() -> Condvar {
            Condvar(sync::Condvar::new())
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            let (order, guard) = guard.release();
            let guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
            Ok(MutexGuard::acquired(order, guard))
        }

        pub fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            timeout: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
            let (order, guard) = guard.release();
            let (guard, result) =
                self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner);
            Ok((MutexGuard::acquired(order, guard), result))
        }
    }
}

#[cfg(any(wal_loom, wal_shuttle))]
mod imp {
    #[cfg(wal_loom)]
    use loom as checker;
    #[cfg(wal_shuttle)]
    use shuttle as checker;

    pub use checker::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub use checker::sync::{Condvar, Mutex, MutexGuard};
    pub use checker::thread::{JoinHandle, Thread, current, yield_now};
    /// Reference counts are the standard library's; they are not what the models are about.
    pub use std::sync::Arc;

    pub use super::watch::Watch;

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
    pub fn spawn(
        _name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        Ok(checker::thread::spawn(body))
    }
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

pub use crossbeam_utils::CachePadded;
pub use imp::*;

/// As [`lock`], without waiting.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// Waits on `condvar`.
pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Is this thread unwinding?
pub fn panicking() -> bool {
    std::thread::panicking()
}

/// Locks, and goes on if a thread panicked while it held the lock: every value that we keep under
/// a lock is valid after each of its single assignments.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A counter that orders nothing and decides nothing. Models leave it out of what they explore.
pub type Counter = std::sync::atomic::AtomicU64;
