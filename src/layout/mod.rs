//! The bytes on disk. `docs/format.md` has the map; a test compares it with these constants.
//!
//! 1. Every structure is `#[repr(C)]`, little-endian, of fixed width; its size and each offset are
//!    asserted where it is declared.
//! 2. Bytes that come from a file are `Unverified*`. A trusted value comes only from `verify`,
//!    which checks everything that a later line computes with.

/// Name, offset and size of each field of a structure, for the test of `docs/format.md`.
#[cfg(test)]
macro_rules! fields {
    ($structure:ty { $($field:ident),* $(,)? }) => {
        &[$((
            stringify!($field),
            std::mem::offset_of!($structure, $field),
            $crate::layout::field_size(|raw: &$structure| &raw.$field),
        )),*]
    };
}

#[cfg(test)]
pub(crate) use fields;

#[cfg(test)]
pub(crate) const fn field_size<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

pub(crate) mod batch;
pub(crate) mod catalog;
pub(crate) mod checkpoint;
pub(crate) mod consumers;
pub(crate) mod footer;
#[cfg(test)]
mod format_doc;
pub(crate) mod origin;
pub(crate) mod parity;
pub(crate) mod producers;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod stamp;
pub(crate) mod superblock;

pub use batch::{Entries, Entry};
pub(crate) use checkpoint::{CHECKPOINT_SLOT_OFFSETS, Checkpoint, RecoverySummary};
pub(crate) use consumers::{ConsumerTable, StoredConsumer};
pub(crate) use footer::Footer;
pub(crate) use origin::Origin;
pub(crate) use record::{CommitWord, RecordKind, Tag};
pub(crate) use segment::{SegmentHeader, SegmentHeaderEvidence};
pub(crate) use stamp::Stamp;
pub(crate) use superblock::Superblock;

/// A log's random identity.
pub(crate) type LogId = [u8; 16];

/// Which log, and which incarnation of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) log_id: LogId,
    pub(crate) epoch: u64,
}

/// The version of the format that this build reads and writes.
pub(crate) const FORMAT_VERSION: u32 = 1;
