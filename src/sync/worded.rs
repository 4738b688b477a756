//! Locks with a word beside them, for checkers to which a lock alone does not say enough. What the
//! word is for, and when it is written, is said where it comes from.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

#[cfg(wal_loom)]
use loom::sync as locks;
#[cfg(not(wal_loom))]
use std::sync as locks;

#[cfg(wal_loom)]
use super::explored::Word;
#[cfg(not(wal_loom))]
use super::sanitized::Word;

pub struct Mutex<T> {
    pub(super) word: Word,
    pub(super) lock: locks::Mutex<T>,
}

pub struct MutexGuard<'a, T> {
    word: &'a Word,
    /// Gone while a condition is waited for.
    guard: Option<locks::MutexGuard<'a, T>>,
}

pub struct Condvar(locks::Condvar);

impl<T> Mutex<T> {
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.held(self.lock.lock())
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        self.word.is_tried();
        let result = match self.lock.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
            Err(TryLockError::WouldBlock) => return Err(TryLockError::WouldBlock),
        };
        Ok(self.held(result)?)
    }

    fn held<'a>(
        &'a self,
        result: LockResult<locks::MutexGuard<'a, T>>,
    ) -> LockResult<MutexGuard<'a, T>> {
        match result {
            Ok(guard) => Ok(MutexGuard::of(&self.word, guard)),
            Err(poisoned) => {
                let guard = MutexGuard::of(&self.word, poisoned.into_inner());
                Err(PoisonError::new(guard))
            }
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<'a, T> MutexGuard<'a, T> {
    /// Of what has just been locked.
    fn of(word: &'a Word, guard: locks::MutexGuard<'a, T>) -> Self {
        word.is_locked();
        MutexGuard { word, guard: Some(guard) }
    }

    /// Takes it apart, about to unlock.
    fn release(mut self) -> (&'a Word, locks::MutexGuard<'a, T>) {
        self.word.is_unlocked();
        (self.word, self.guard.take().expect("a guard holds its lock"))
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
            self.word.is_unlocked();
        }
    }
}

impl Condvar {
    pub fn new() -> Condvar {
        Condvar(locks::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let (word, guard) = guard.release();
        let guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard::of(word, guard))
    }

    /// Models have no time.
    #[cfg(not(wal_loom))]
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: std::time::Duration,
    ) -> LockResult<(MutexGuard<'a, T>, locks::WaitTimeoutResult)> {
        let (word, guard) = guard.release();
        let (guard, result) =
            self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner);
        Ok((MutexGuard::of(word, guard), result))
    }
}
