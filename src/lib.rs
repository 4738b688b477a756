#![doc = include_str!("../README.md")]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(not(all(unix, target_pointer_width = "64", target_endian = "little")))]
compile_error!("kaelix-wal maps files on 64-bit, little-endian Unix systems, and on no others");

mod checksum;
mod durability;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod geometry;
pub mod inspect;
mod layout;
mod lsn;
mod metrics;
#[cfg(any(wal_loom, wal_shuttle))]
pub mod model;
mod options;
mod reader;
mod recovery;
mod region;
mod ring;
mod segments;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod sync;
#[cfg(test)]
mod tests;
mod wait;
mod wal;

pub use durability::DurableFuture;
pub use error::{
    AppendError, CheckpointError, CloseError, Corruption, CreateError, Error, FileError,
    GeometryError, OpenError, PathError, ReadError, SyncFailure, WaitError,
};
pub use geometry::Geometry;
pub use lsn::Lsn;
pub use metrics::Metrics;
pub use options::{Durability, OnFull, Options, Persistence};
pub use reader::{PinnedRecord, Position, Reader, Record, Tail};
pub use recovery::{RecoveryOutcome, RecoveryReport};
pub use ring::{Reservation, Watermarks};
pub use wal::Wal;
