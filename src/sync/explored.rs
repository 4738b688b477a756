//! Locks whose `try_lock` loom explores. To loom, letting go of a lock is no step: it never asks
//! what another thread would have found a moment before, so that a `try_lock` hardly ever fails.
//! Those that are made for it have a word that a holder writes before it unlocks, and that
//! `try_lock` writes first: two steps that conflict, which loom takes in either order. They are
//! relaxed: they order nothing that the lock does not.
//!
//! Not all locks are of that kind, because an unpark ends loom's wait for a lock, too early.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

use loom::sync::atomic::{AtomicBool, Ordering};

pub struct Mutex<T> {
    /// There if the lock is one to be tried.
    release: Option<AtomicBool>,
    lock: loom::sync::Mutex<T>,
}

pub struct MutexGuard<'a, T> {
    release: Option<&'a AtomicBool>,
    /// Gone while a condition is waited for.
    guard: Option<loom::sync::MutexGuard<'a, T>>,
}

pub struct Condvar(loom::sync::Condvar);

/// See the native one.
pub fn tried<T>(value: T) -> Mutex<T> {
    Mutex { release: Some(AtomicBool::new(false)), ..Mutex::new(value) }
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        Mutex { release: None, lock: loom::sync::Mutex::new(value) }
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        Ok(self.held(self.lock.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        write(self.release.as_ref().expect("a lock that is tried is made by `tried`"));
        match self.lock.try_lock() {
            Ok(guard) => Ok(self.held(guard)),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    fn held<'a>(&'a self, guard: loom::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { release: self.release.as_ref(), guard: Some(guard) }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
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
        if self.guard.is_some() && !std::thread::panicking() {
            self.release.map(write);
        }
    }
}

fn write(release: &AtomicBool) {
    release.swap(false, Ordering::Relaxed);
}

impl Condvar {
    pub fn new() -> Condvar {
        Condvar(loom::sync::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let release = guard.release.inspect(|release| write(release));
        let inner = guard.guard.take().expect("a guard holds its lock");
        let inner = self.0.wait(inner).unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { release, guard: Some(inner) })
    }
}
