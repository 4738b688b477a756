//! The groups of benchmarks.

mod append_parts;
mod back_pressure;
mod batch_write_throughput;
mod comprehensive_stress;
mod concurrent_writes;
mod durable_append;
mod durable_throughput;
mod idempotent_append;
mod message_conversion;
// What it measures is behind this feature: `cargo bench --features fuzzing ...`.
#[cfg(feature = "fuzzing")]
mod memory_efficiency;
mod paced_append;
mod parity;
mod persistent_memory;
mod read_operations;
mod recovery_operations;
mod scaling_model;
mod segment_rotation;
mod single_write_latency;
mod streaming_api;
mod transaction_processing;
mod write_amplification;

use criterion::Criterion;

/// A group's name, and what runs it.
type Group = (&'static str, fn(&mut Criterion));

/// All of them.
pub const ALL: &[Group] = &[
    ("append_parts", append_parts::run),
    ("back_pressure", back_pressure::run),
    ("batch_write_throughput", batch_write_throughput::run),
    ("comprehensive_stress", comprehensive_stress::run),
    ("concurrent_writes", concurrent_writes::run),
    ("durable_append", durable_append::run),
    ("durable_throughput", durable_throughput::run),
    ("idempotent_append", idempotent_append::run),
    ("message_conversion", message_conversion::run),
    #[cfg(feature = "fuzzing")]
    ("memory_efficiency", memory_efficiency::run),
    ("paced_append", paced_append::run),
    ("parity", parity::run),
    ("persistent_memory", persistent_memory::run),
    ("read_operations", read_operations::run),
    ("recovery_operations", recovery_operations::run),
    ("scaling_model", scaling_model::run),
    ("segment_rotation", segment_rotation::run),
    ("single_write_latency", single_write_latency::run),
    ("streaming_api", streaming_api::run),
    ("transaction_processing", transaction_processing::run),
    ("write_amplification", write_amplification::run),
];
