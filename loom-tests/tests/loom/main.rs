//! Models that loom explores: every interleaving within a bound on preemptions, and every value
//! that a load may return under C11's memory model.
//!
//! The code under the models is the shipped code. Payload bytes are watched by loom's cells, so a
//! missing happens-before edge is a data race, and a lost wake-up is a deadlock.
#![cfg(wal_loom)]

mod durability;
mod idempotent;
mod recycle;
mod ring;
mod sleep;
mod streams;

use kaelix_wal::model::Log;
use loom::thread::{self, JoinHandle};

/// Starts a thread of a model.
fn run(log: &Log, body: impl FnOnce(&Log) + 'static) -> JoinHandle<()> {
    let log = log.clone();
    thread::spawn(move || body(&log))
}

/// Waits for threads. Loom begins with running each to its end, in this order: where they are in
/// the order in which they build on each other, no switch is spent on getting there.
fn in_turn(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// Explores all executions with at most `preemptions` involuntary switches.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder.check(model);
}
