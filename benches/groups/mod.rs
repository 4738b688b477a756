//! The groups of benchmarks.

mod append_throughput;
mod back_pressure;
mod durable_append;
mod durable_throughput;
mod paced_append;
mod persistent_memory;
mod write_amplification;

use criterion::Criterion;

/// A group's name, and what runs it.
type Group = (&'static str, fn(&mut Criterion));

/// All of them.
pub const ALL: &[Group] = &[
    ("append_throughput", append_throughput::run),
    ("back_pressure", back_pressure::run),
    ("durable_append", durable_append::run),
    ("durable_throughput", durable_throughput::run),
    ("paced_append", paced_append::run),
    ("persistent_memory", persistent_memory::run),
    ("write_amplification", write_amplification::run),
];
