//! Locks that ThreadSanitizer sees. The standard library comes compiled and not instrumented, so
//! that what its locks order looks like races. These are its locks, each with a word that a holder
//! acquires after it has locked and releases before it unlocks: the order that the lock gives.

use std::sync::atomic::{AtomicU64, Ordering};

use super::worded::Mutex;

pub(super) struct Word(AtomicU64);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { word: Word(AtomicU64::new(0)), lock: std::sync::Mutex::new(value) }
    }
}

impl Word {
    pub(super) fn is_tried(&self) {}

    pub(super) fn is_locked(&self) {
        self.0.load(Ordering::Acquire);
    }

    pub(super) fn is_unlocked(&self) {
        self.0.store(0, Ordering::Release);
    }
}
