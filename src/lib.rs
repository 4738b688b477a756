#![doc = include_str!("../README.md")]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(not(all(unix, target_pointer_width = "64", target_endian = "little")))]
compile_error!("kaelix-wal maps files on 64-bit, little-endian Unix systems, and on no others");

mod batch;
mod checksum;
mod consumer;
mod copy;
mod durability;
mod error;
mod events;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod geometry;
mod idempotent;
pub mod inspect;
mod layout;
mod lsn;
mod message;
mod metrics;
#[cfg(any(wal_loom, wal_shuttle))]
pub mod model;
mod options;
mod parity;
mod producer;
mod producer_id;
mod reader;
mod recovery;
mod region;
pub mod repair;
mod ring;
mod segments;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod stream;
mod stream_id;
mod sync;
#[cfg(test)]
mod tests;
mod transaction;
pub mod verify;
mod wait;
mod wal;

pub use batch::Batch;
pub use consumer::{Blocker, Consumer, ConsumerStat, Lag};
pub use copy::{Backup, Resized};
pub use durability::DurableFuture;
pub use error::{
    AppendError, BackupError, CatalogError, CheckpointError, CloseError, ConsumerError, Corruption,
    CreateError, Error, FileError, GeometryError, OpenError, PathError, ReadError, ResizeError,
    SyncFailure, WaitError,
};
pub use geometry::Geometry;
pub use idempotent::{Appended, IdempotentProducer};
pub use layout::{Entries, Entry};
pub use lsn::{EpochLsn, Lsn};
pub use message::{
    Message, MessageEncodeError, MessageError, MessageHeaders, MessageView, OwnedMessage,
};
pub use metrics::{Metrics, SyncLatency};
pub use options::{Durability, OnFull, Options, Persistence, Retention, Verify};
pub use producer_id::ProducerId;
pub use reader::{PinnedRecord, Position, Reader, Record, Tail};
pub use recovery::{RecoveryOutcome, RecoveryReport};
pub use ring::{Reservation, Watermarks};
pub use stream::{
    Copied, EntryReader, Followed, LogEntry, Moved, OwnedEntry, Stream, StreamReservation,
};
pub use stream_id::{StreamFlags, StreamId};
pub use transaction::Transaction;
pub use wal::Wal;
