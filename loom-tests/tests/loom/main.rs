//! Models that loom explores: every interleaving within a bound on preemptions, and every value
//! that a load may return under C11's memory model.
//!
//! The code under the models is the shipped code. Payload bytes are watched by loom's cells, so a
//! missing happens-before edge is a data race, and a lost wake-up is a deadlock.
#![cfg(wal_loom)]

mod durability;
mod recycle;
mod ring;
mod sleep;

/// Explores all executions with at most `preemptions` involuntary switches.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder.check(model);
}
