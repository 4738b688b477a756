//! Those who wait for durability without a thread of their own: tasks and callbacks.
//!
//! 1. They cannot lead a sync, so the flusher leads for them: whoever comes rings it.
//! 2. Nobody is forgotten, by the rule of `wait`: who comes is listed under the lock, *then* looks
//!    at `durable` again; who advances `durable` does so, *then* takes the lock.
//! 3. A task may be woken by anyone who syncs. A callback that is listed is called by the flusher,
//!    or by its owner, who found the outcome settled right after listing it; never by whoever
//!    syncs, and never under a lock: a slow one delays nothing but what the flusher does.
//! 4. When the flusher ends it closes the list, and nobody gets in any more: who comes later finds
//!    the outcome settled.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::error::WaitError;
use crate::lsn::Lsn;
use crate::sync::{Mutex, lock};

/// How a wait for durability ended.
pub(super) type Outcome = Result<(), WaitError>;

/// What is called with the outcome, once.
pub(super) type Callback = Box<dyn FnOnce(Outcome) + Send>;

/// A place in the list: the goal, and a number that tells two of the same goal apart.
pub(super) type Ticket = (Lsn, u64);

/// All tasks and callbacks that wait.
pub(super) struct Completions {
    state: Mutex<State>,
}

struct State {
    next: u64,
    tasks: BTreeMap<Ticket, Waker>,
    calls: BTreeMap<Ticket, Callback>,
    closed: bool,
}

impl State {
    fn ticket(&mut self, goal: Lsn) -> Ticket {
        self.next += 1;
        (goal, self.next)
    }
}

impl Completions {
    pub(super) fn new() -> Completions {
        Completions {
            state: Mutex::new(State {
                next: 0,
                tasks: BTreeMap::new(),
                calls: BTreeMap::new(),
                closed: false,
            }),
        }
    }

    /// Lists a task, which may be listed already, under `ticket`. `None`: the list is closed.
    pub(super) fn add_task(
        &self,
        goal: Lsn,
        ticket: &mut Option<Ticket>,
        waker: &Waker,
    ) -> Option<Added> {
        // Wakers are other people's code: none is cloned, dropped or woken under the lock.
        let mut waker = waker.clone();
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        if let Some(listed) = ticket.and_then(|ticket| state.tasks.get_mut(&ticket)) {
            std::mem::swap(listed, &mut waker);
            return Some(Added::Before);
        }
        let new = state.ticket(goal);
        state.tasks.insert(new, waker);
        *ticket = Some(new);
        Some(Added::Now)
    }

    /// A task leaves.
    pub(super) fn remove_task(&self, ticket: Ticket) {
        let waker = lock(&self.state).tasks.remove(&ticket);
        drop(waker);
    }

    /// Lists a callback; gives it back if the list is closed.
    pub(super) fn add_call(&self, goal: Lsn, call: Callback) -> Result<Ticket, Callback> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(call);
        }
        let ticket = state.ticket(goal);
        state.calls.insert(ticket, call);
        Ok(ticket)
    }

    /// Wakes the tasks whose goal is at or below `durable`. Says whether callbacks are due as well.
    pub(super) fn wake_tasks(&self, durable: Lsn) -> bool {
        let mut state = lock(&self.state);
        let woken = take_reached(&mut state.tasks, durable);
        let calls = state.calls.first_key_value().is_some_and(|((goal, _), _)| *goal <= durable);
        drop(state);
        woken.into_values().for_each(Waker::wake);
        calls
    }

    /// The callbacks whose goal is at or below `durable`.
    pub(super) fn take_calls(&self, durable: Lsn) -> impl Iterator<Item = Callback> {
        take_reached(&mut lock(&self.state).calls, durable).into_values()
    }

    /// The callbacks whose goal is beyond `lsn`; wakes the tasks there.
    pub(super) fn give_up_beyond(&self, lsn: Lsn) -> impl Iterator<Item = Callback> {
        let mut state = lock(&self.state);
        let tasks = state.tasks.split_off(&(lsn + 1, 0));
        let calls = state.calls.split_off(&(lsn + 1, 0));
        drop(state);
        tasks.into_values().for_each(Waker::wake);
        calls.into_values()
    }

    /// Takes out one callback, if it has not been taken.
    pub(super) fn take_call(&self, ticket: Ticket) -> Option<Callback> {
        lock(&self.state).calls.remove(&ticket)
    }

    /// Does nobody wait?
    pub(super) fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.tasks.is_empty() && state.calls.is_empty()
    }

    /// Lets nobody in any more, wakes the tasks, and returns the callbacks.
    pub(super) fn close(&self) -> impl Iterator<Item = (Lsn, Callback)> {
        let mut state = lock(&self.state);
        state.closed = true;
        let tasks = std::mem::take(&mut state.tasks);
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        tasks.into_values().for_each(Waker::wake);
        calls.into_iter().map(|((goal, _), call)| (goal, call))
    }
}

/// Was a task listed before?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    Now,
    Before,
}

/// Takes out what waits for a goal at or below `durable`.
fn take_reached<T>(waiting: &mut BTreeMap<Ticket, T>, durable: Lsn) -> BTreeMap<Ticket, T> {
    let beyond = waiting.split_off(&(durable + 1, 0));
    std::mem::replace(waiting, beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Lsn = Lsn::new(64);
    const FAR: Lsn = Lsn::new(80);

    fn call() -> Callback {
        Box::new(|_| ())
    }

    /// Two callbacks for each of two goals.
    fn calls() -> Completions {
        let completions = Completions::new();
        for goal in [NEAR, FAR, NEAR, FAR] {
            assert!(completions.add_call(goal, call()).is_ok());
        }
        completions
    }

    #[test]
    fn callbacks_are_due_from_their_goal_on() {
        let completions = calls();
        assert!(!completions.wake_tasks(Lsn::new(63)));
        assert_eq!(completions.take_calls(Lsn::new(63)).count(), 0);
        assert!(completions.wake_tasks(NEAR));
        assert_eq!(completions.take_calls(NEAR).count(), 2);
        assert!(!completions.wake_tasks(NEAR));
        assert!(completions.wake_tasks(FAR));
        assert_eq!(completions.take_calls(FAR).count(), 2);
        assert!(completions.is_empty());
    }

    #[test]
    fn patience_is_lost_with_what_lies_beyond_a_hole() {
        let completions = calls();
        assert_eq!(completions.give_up_beyond(FAR).count(), 0);
        assert_eq!(completions.give_up_beyond(NEAR).count(), 2);
        assert_eq!(completions.take_calls(NEAR).count(), 2);
    }

    #[test]
    fn a_callback_is_taken_once() {
        let completions = Completions::new();
        let ticket = completions.add_call(NEAR, call()).ok().expect("it is open");
        assert!(completions.take_call(ticket).is_some());
        assert!(completions.take_call(ticket).is_none());
    }

    #[test]
    fn a_list_is_empty_without_tasks_and_callbacks() {
        let completions = Completions::new();
        assert!(completions.is_empty());
        let mut tickets = [None, None];
        for ticket in &mut tickets {
            assert!(completions.add_task(NEAR, ticket, Waker::noop()) == Some(Added::Now));
            assert!(completions.add_task(NEAR, ticket, Waker::noop()) == Some(Added::Before));
        }
        for ticket in tickets {
            assert!(!completions.is_empty());
            completions.remove_task(ticket.expect("it was listed"));
        }
        assert!(completions.is_empty());
        assert!(completions.add_call(NEAR, call()).is_ok());
        assert!(!completions.is_empty());
        assert_eq!(completions.close().count(), 1);
        assert!(completions.add_task(NEAR, &mut None, Waker::noop()).is_none());
        assert!(completions.add_call(NEAR, call()).is_err());
    }
}
