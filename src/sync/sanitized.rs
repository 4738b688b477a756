//! Locks that ThreadSanitizer sees. The standard library comes compiled and not instrumented, so
//! that what its locks order looks like races. These are its locks, each with a word that a holder
//! acquires after it has locked and releases before it unlocks: the order that the lock gives.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{self, LockResult, PoisonError, TryLockError, TryLockResult, WaitTimeoutResult};
use std::time::Duration;

#[derive(Default)]
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
