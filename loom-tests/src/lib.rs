//! The models are in `tests/`; see `scripts/loom.sh`.

/// Explores all executions with at most `preemptions` involuntary switches.
#[cfg(wal_loom)]
pub fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder.check(model);
}
