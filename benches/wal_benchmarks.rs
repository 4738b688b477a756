//! Benchmarks of the log, each beside the floor of the same work in the same run.
//!
//! `cargo bench --bench wal_benchmarks [GROUP]`, where a group is a file of `benches/groups`;
//! `CARGO_BENCH_DURATION` sets the seconds a measurement lasts. After Criterion's own output, if it
//! is of use there, each group prints a table of ratios: floor and log in turn, round by round,
//! with the median of the rounds' ratios. Quote those: on a shared machine the ratio holds where
//! single times do not.

#![allow(clippy::print_stdout)]

mod groups;
mod support;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    // The tables know nothing of Criterion's filter: a group that it leaves out is not run.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, run) in groups::ALL {
        if filter.as_ref().is_none_or(|filter| filter.contains(name) || name.contains(filter)) {
            run(&mut criterion);
        }
    }
    criterion.final_summary();
}
