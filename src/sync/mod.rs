//! The one door to atomics, locks and threads.
//!
//! Nothing outside of this folder names `std::sync`, `std::thread` or a model checker. Under
//! `cfg(wal_loom)` the same names come from loom, under `cfg(wal_shuttle)` from shuttle, so that
//! the models run the shipped code. The cfgs are our own, so that dependencies do not switch with
//! us.

#[cfg(wal_loom)]
mod explored;
#[cfg(any(wal_loom, wal_shuttle))]
mod modelled;
#[cfg(not(any(wal_loom, wal_shuttle)))]
mod native;
#[cfg(wal_sanitized)]
mod sanitized;
#[cfg(any(wal_loom, wal_sanitized))]
mod worded;

pub use crossbeam_utils::CachePadded;
#[cfg(any(wal_loom, wal_shuttle))]
pub use modelled::*;
#[cfg(not(any(wal_loom, wal_shuttle)))]
pub use native::*;

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
