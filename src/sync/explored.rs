//! Locks whose `try_lock` loom explores. To loom, letting go of a lock is no step: it never asks
//! what another thread would have found a moment before, so that a `try_lock` hardly ever fails.
//! Those that are made for it have a word that a holder writes before it unlocks, and that
//! `try_lock` writes first: two steps that conflict, which loom takes in either order. They are
//! relaxed: they order nothing that the lock does not.
//!
//! Not all locks are of that kind, because an unpark ends loom's wait for a lock, too early.

use loom::sync::atomic::{AtomicBool, Ordering};

use super::worded::Mutex;

/// There if the lock is one to be tried.
pub(super) struct Word(Option<AtomicBool>);

/// See the native one.
pub fn tried<T>(value: T) -> Mutex<T> {
    Mutex { word: Word(Some(AtomicBool::new(false))), ..Mutex::new(value) }
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        Mutex { word: Word(None), lock: loom::sync::Mutex::new(value) }
    }
}

impl Word {
    pub(super) fn is_tried(&self) {
        write(self.0.as_ref().expect("a lock that is tried is made by `tried`"));
    }

    pub(super) fn is_locked(&self) {}

    pub(super) fn is_unlocked(&self) {
        // A model that has failed takes no more steps.
        if !std::thread::panicking() {
            self.0.as_ref().map(write);
        }
    }
}

fn write(word: &AtomicBool) {
    word.swap(false, Ordering::Relaxed);
}
