//! Benchmarks of the log, each beside the floor of the same work in the same run.
//!
//! `cargo bench --bench wal_benchmarks [GROUP]`, where a group is a file of `benches/groups`;
//! `CARGO_BENCH_DURATION` sets the seconds a measurement lasts. Beside Criterion's own output, if
//! it is of use there, each group prints a table of ratios: floor and log in turn, round by round,
//! with the median of the rounds' ratios. Quote those: on a shared machine the ratio holds where
//! single times do not. What the tables show is also kept as data (`support/results.rs`).
//!
//! `KAELIX_BENCH_TABLES=1` leaves Criterion out, which takes most of the time.
//! `scripts/run_benchmarks.sh` runs what belongs together and judges it.

#![allow(clippy::print_stdout)]

mod groups;
mod support;

use criterion::Criterion;

fn main() {
    support::plot::register_a_font();
    let mut criterion = Criterion::default().configure_from_args();
    if std::env::var_os("KAELIX_BENCH_TABLES").is_some() {
        criterion = criterion.with_filter("the tables alone");
    }
    // The tables know nothing of Criterion's filter: a group that it leaves out is not run.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, run) in groups::ALL {
        if filter.as_ref().is_none_or(|filter| filter.contains(name) || name.contains(filter)) {
            run(&mut criterion);
        }
    }
    criterion.final_summary();
}
