//! Region: the only access to the ring file's memory.
//!
//! Offsets are file offsets in bytes. Nothing here knows what the bytes mean.
//!
//! 1. *Words* (commit words, tags) are aligned 8-byte atomics; anyone may look at one.
//! 2. *Bytes* are plain memory. A slice of them exists only for an exclusive owner (`payload_mut`,
//!    `write`, `zero`) or while nobody writes them (`bytes`): those are `unsafe`, and their callers
//!    prove it from the protocol. No word access falls on bytes that are borrowed.
//! 3. *Persisting* goes through a `Syncer`, which has its own open file description: the kernel
//!    reports a write-back error once per description, so no syncer can swallow another's.
//! 4. Models see a `Region` of loom's atomics and cells with the same functions, so that the
//!    protocol above it is explored as it is shipped.

mod mapped;
#[cfg(not(any(wal_loom, wal_shuttle)))]
mod memory;
#[cfg(any(wal_loom, wal_shuttle))]
mod modelled;
#[cfg(any(test, feature = "simulation"))]
mod simulated;

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

pub(crate) use mapped::Mapped;
#[cfg(not(any(wal_loom, wal_shuttle)))]
pub(crate) use memory::{Region, Space};
#[cfg(any(wal_loom, wal_shuttle))]
pub(crate) use modelled::{Region, Space};
#[cfg(any(test, feature = "simulation"))]
pub use simulated::{Fault, Medium, Moment, SECTOR, Simulated};

/// What a region lies on.
///
/// # Safety
///
/// `memory` returns the same address and length each time; they are valid for reads and writes,
/// aligned to 4096, and stay so for as long as the backing lives.
pub(crate) unsafe trait Backing: Send + Sync {
    /// Where the bytes lie, and how many.
    fn memory(&self) -> (NonNull<u8>, u64);

    /// A way to persist ranges, with an open file description of its own.
    fn syncer(&self) -> io::Result<Syncer>;

    /// Reads from the file, not through the mapping: a missing page or a bad block is an error
    /// here, and would be a signal there.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Makes the pages of `range` dirty without changing them, so that the next sync writes them
    /// even if an earlier, failed write-back has left them clean. Nobody else writes meanwhile.
    fn redirty(&self, range: Range<u64>);

    /// Unmaps the pages of `range` for now, all at once; the next access maps them again. Contents
    /// and dirtiness stay. Best effort.
    fn unmap_for_now(&self, range: Range<u64>);

    /// Takes the clean pages of `range` out of the page cache. Those that were read ahead from the
    /// disk lie in large folios, of which a sync of one dirty page writes all; those that a fault
    /// brings back do not. Nobody touches the range meanwhile. Best effort.
    fn evict(&self, _range: Range<u64>) {}

    /// As [`evict`](Backing::evict), of pages whose contents are no longer needed: some are zero
    /// afterwards, and none has to be read from the disk before it is overwritten.
    fn discard(&self, _range: Range<u64>) {}

    /// Can stores meet page faults that [`prefault`](Backing::prefault) takes before?
    fn has_page_faults(&self) -> bool {
        false
    }

    /// Takes the write faults of `range` now, in the calling thread. Best effort.
    fn prefault(&self, range: Range<u64>);

    /// Called before and after each store of a run of bytes that is not a record: for a backing
    /// that keeps every state through which the memory goes.
    #[cfg_attr(any(wal_loom, wal_shuttle), expect(dead_code, reason = "not modelled"))]
    fn observe(&self) {}
}

/// Makes ranges durable.
pub(crate) trait Persist: Send {
    /// Returns once every byte of the page-aligned `range` is on the medium.
    fn persist(&mut self, range: Range<u64>) -> io::Result<()>;
}

/// An owned [`Persist`].
pub(crate) type Syncer = Box<dyn Persist>;
