//! Sleeping and waking for everything that is not on the append path.
//!
//! A `Doorbell` wakes one background thread; a `WaitList` wakes the callers whose target is
//! reached. Neither loses a wake-up, and neither needs a fence, by one rule:
//!
//! 1. The sleeper announces itself under the mutex, *then* looks at the condition again, then
//!    sleeps. The waker changes the condition, *then* takes the mutex. Whichever takes the mutex
//!    second sees what the other did before.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::sync::{self, Arc, AtomicBool, Condvar, Mutex, Ordering, Thread, lock};

/// Wakes one background thread. A ring while nobody sleeps is kept for the next wait.
pub(crate) struct Doorbell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Doorbell {
    pub(crate) fn new() -> Doorbell {
        Doorbell { rung: Mutex::new(false), wake: Condvar::new() }
    }

    /// Wakes the sleeper, or lets its next wait return at once.
    pub(crate) fn ring(&self) {
        let mut rung = lock(&self.rung);
        if !*rung {
            *rung = true;
            drop(rung);
            self.wake.notify_one();
        }
    }

    /// Sleeps until rung, at most `timeout` if there is one. Says whether it was rung.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.map(|timeout| sync::now() + timeout);
        let mut rung = lock(&self.rung);
        while !*rung {
            match deadline {
                None => rung = sync::wait(&self.wake, rung),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(sync::now());
                    if left.is_zero() {
                        break;
                    }
                    let over;
                    (rung, over) = sync::wait_timeout(&self.wake, rung, left);
                    if over {
                        break;
                    }
                }
            }
        }
        std::mem::replace(&mut *rung, false)
    }
}

/// A doorbell for a thread that is better awake while others work, and misses little if it is woken
/// late: who passes by rings only if it seems to be asleep.
pub(crate) struct Snooze {
    asleep: AtomicBool,
    pub(crate) bell: Doorbell,
}

impl Snooze {
    pub(crate) fn new() -> Snooze {
        Snooze { asleep: AtomicBool::new(false), bell: Doorbell::new() }
    }

    /// Sleeps until rung, at most `timeout` if there is one. Says whether it was rung.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) -> bool {
        // Relaxed, here and below: a ring that is missed comes again from the next who passes.
        self.asleep.store(timeout.is_none(), Ordering::Relaxed);
        let rung = self.bell.wait(timeout);
        self.asleep.store(false, Ordering::Relaxed);
        rung
    }

    /// There is work.
    pub(crate) fn pass_by(&self) {
        if self.asleep.load(Ordering::Relaxed) {
            self.bell.ring();
        }
    }
}

struct Entry {
    /// The sleeper is served once the watched position lies beyond this one.
    target: u64,
    thread: Thread,
    woken: Arc<AtomicBool>,
}

/// Callers that wait for a position; each is woken once, when it is reached or when all are.
pub(crate) struct WaitList {
    entries: Mutex<Vec<Entry>>,
}

impl WaitList {
    pub(crate) fn new() -> WaitList {
        WaitList { entries: Mutex::new(Vec::new()) }
    }

    /// Announces the calling thread. It must look at its condition once more before it parks.
    pub(crate) fn register(&self, target: u64) -> Waiter<'_> {
        let woken = Arc::new(AtomicBool::new(false));
        let entry = Entry { target, thread: sync::current(), woken: woken.clone() };
        lock(&self.entries).push(entry);
        Waiter { list: self, woken }
    }

    /// Wakes those whose target lies below `position`, and one more if `successor`: it finds its
    /// target not reached, and may take over a duty (such as leading the next sync).
    pub(crate) fn wake_below(&self, position: u64, successor: bool) {
        let mut entries = lock(&self.entries);
        let mut successor = successor;
        entries.retain(|entry| {
            let served = entry.target < position || std::mem::take(&mut successor);
            if served {
                // Release: what the waker did before is seen by the sleeper that finds the flag.
                entry.woken.store(true, Ordering::Release);
                entry.thread.unpark();
            }
            !served
        });
    }

    /// Wakes everyone.
    pub(crate) fn wake_all(&self) {
        self.wake_below(u64::MAX, false);
    }
}

/// A place in a `WaitList`; dropping it leaves the list.
pub(crate) struct Waiter<'a> {
    list: &'a WaitList,
    woken: Arc<AtomicBool>,
}

impl Waiter<'_> {
    /// Sleeps until woken, or until `deadline`. Says whether it was woken.
    pub(crate) fn park_until(&self, deadline: Instant) -> bool {
        loop {
            // Acquire: pairs with the waker's release store.
            if self.woken.load(Ordering::Acquire) {
                return true;
            }
            let left = deadline.saturating_duration_since(sync::now());
            if left.is_zero() {
                return false;
            }
            if sync::park_timeout(left) {
                return self.woken.load(Ordering::Acquire);
            }
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // A woken waiter has left the list already. Its flag is set before its entry goes, so a
        // waiter that reads `false` here still finds itself, or is taken out under the lock.
        // Relaxed: the lock orders it.
        if !self.woken.load(Ordering::Relaxed) {
            lock(&self.list.entries).retain(|entry| !Arc::ptr_eq(&entry.woken, &self.woken));
        }
    }
}

/// Tasks that wait for whatever is new. As threads in a [`WaitList`], they announce themselves,
/// then look again.
pub(crate) struct TaskList {
    tasks: Mutex<Tasks>,
}

struct Tasks {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
    /// Some of them would not be woken by what they wait for.
    restless: bool,
    /// Nobody looks after the restless any more.
    closed: bool,
}

impl TaskList {
    pub(crate) fn new() -> TaskList {
        let (next, wakers) = (0, BTreeMap::new());
        TaskList { tasks: Mutex::new(Tasks { next, wakers, restless: false, closed: false }) }
    }

    /// Announces a task, under the ticket that it has, if it has one.
    pub(crate) fn announce(&self, ticket: &mut Option<u64>, waker: &Waker) {
        // Wakers are other people's code: none is cloned, dropped or woken under the lock.
        let waker = waker.clone();
        let mut tasks = lock(&self.tasks);
        let ticket = *ticket.get_or_insert_with(|| {
            tasks.next += 1;
            tasks.next
        });
        let before = tasks.wakers.insert(ticket, waker);
        drop(tasks);
        drop(before);
    }

    /// A task goes.
    pub(crate) fn leave(&self, ticket: u64) {
        let waker = lock(&self.tasks).wakers.remove(&ticket);
        drop(waker);
    }

    /// One of the tasks has to be woken before long, whatever happens. False: nobody will.
    pub(crate) fn make_restless(&self) -> bool {
        let mut tasks = lock(&self.tasks);
        tasks.restless = !tasks.closed;
        tasks.restless
    }

    /// Is it so?
    pub(crate) fn is_restless(&self) -> bool {
        lock(&self.tasks).restless
    }

    /// From now on nobody wakes the restless.
    pub(crate) fn close(&self) {
        lock(&self.tasks).closed = true;
        self.wake_all();
    }

    /// Wakes everyone.
    pub(crate) fn wake_all(&self) {
        let mut tasks = lock(&self.tasks);
        tasks.restless = false;
        let woken = std::mem::take(&mut tasks.wakers);
        drop(tasks);
        woken.into_values().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_kept() {
        let bell = Doorbell::new();
        bell.ring();
        assert!(bell.wait(Some(Duration::ZERO)));
        let start = Instant::now();
        assert!(!bell.wait(Some(Duration::from_millis(1))));
        assert!(start.elapsed() >= Duration::from_millis(1));
    }

    #[test]
    fn only_reached_targets_wake_and_leave() {
        let list = WaitList::new();
        let near = list.register(10);
        let far = list.register(11);
        list.wake_below(11, false);
        assert!(near.park_until(Instant::now()));
        assert!(!far.park_until(Instant::now() + Duration::from_millis(1)));
        drop(far);
        assert!(lock(&list.entries).is_empty());
    }

    #[test]
    fn who_passes_by_rings_a_sleeper_alone() {
        let snooze = Snooze::new();
        snooze.pass_by();
        assert!(!snooze.sleep(Some(Duration::ZERO)), "it was awake");
        snooze.asleep.store(true, Ordering::Relaxed);
        snooze.pass_by();
        assert!(snooze.sleep(None));
        snooze.pass_by();
        assert!(!snooze.sleep(Some(Duration::ZERO)), "it was awake again");
    }

    #[test]
    fn one_successor_is_woken() {
        let list = WaitList::new();
        let (first, second) = (list.register(10), list.register(20));
        list.wake_below(0, true);
        assert!(first.park_until(Instant::now()));
        assert!(!second.park_until(Instant::now()));
    }
}
