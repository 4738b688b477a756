//! Region: the only access to the ring file's memory.
//!
//! Offsets are file offsets in bytes. Nothing here knows what the bytes mean.
//!
//! 1. *Words* (commit words, tags) are aligned 8-byte atomics; anyone may look at one.
//! 2. *Bytes* are plain memory. A slice of them exists only for an exclusive owner (`payload_mut`,
//!    `write`, `zero`) or while nobody writes them (`bytes`): those are `unsafe`, and their callers
//!    prove it from the protocol. No word access falls on bytes that are borrowed.
//! 3. *Persisting* goes through a `Syncer`. One of a file has its own open file description: the
//!    kernel reports a write-back error once per description, so no syncer can swallow another's.
//! 4. Whether a file's pages are synced or its cache lines are written back is decided once, when
//!    it is mapped. What is built on top asks the backing which it is, and keeps the same orders.
//! 5. Models see a `Region` of loom's atomics and cells with the same functions, so that the
//!    protocol above it is explored as it is shipped.

#[cfg_attr(
    any(wal_loom, wal_shuttle, not(target_os = "linux")),
    allow(
        dead_code,
        reason = "models have no lines, and other systems no mapping that needs them"
    )
)]
mod cacheline;
mod mapped;
#[cfg(not(any(wal_loom, wal_shuttle)))]
mod memory;
#[cfg(any(wal_loom, wal_shuttle))]
mod modelled;
#[cfg(target_os = "linux")]
mod persistent;
#[cfg(any(test, feature = "simulation"))]
mod simulated;
#[cfg(any(test, feature = "simulation"))]
mod simulated_files;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::options::Persistence;
use crate::sync::Arc;

#[cfg(not(any(wal_loom, wal_shuttle)))]
pub(crate) use memory::{Region, Space};
#[cfg(any(wal_loom, wal_shuttle))]
pub(crate) use modelled::{Region, Space};
#[cfg(any(test, feature = "simulation"))]
pub use simulated::{Fault, Kind, Medium, Moment, Simulated};
#[cfg(any(test, feature = "simulation"))]
pub use simulated_files::FilesImage;

/// What a region lies on.
///
/// # Safety
///
/// `memory` returns the same address and length each time; they are valid for reads and writes,
/// aligned to 4096, and stay so for as long as the backing lives.
pub(crate) unsafe trait Backing: Send + Sync {
    /// Where the bytes lie, and how many.
    fn memory(&self) -> (NonNull<u8>, u64);

    /// How ranges are made durable here: never `Auto`.
    fn persistence(&self) -> Persistence {
        Persistence::PageCache
    }

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

    /// Are all pages of `range` in the page cache? No, where that cannot be known.
    fn is_cached(&self, _range: Range<u64>) -> bool {
        false
    }

    /// Takes the clean pages of `range` out of the page cache. Those that were read ahead from the
    /// disk lie in large folios, of which a sync of one dirty page writes all; those that a fault
    /// or [`fetch`](Backing::fetch) brings back do not. Nobody touches the range meanwhile. Best
    /// effort.
    fn evict(&self, _range: Range<u64>) {}

    /// Begins to read what of `range` is not in the page cache, into small folios. Best effort.
    fn fetch(&self, _range: Range<u64>) {}

    /// As [`evict`](Backing::evict), of pages whose contents are no longer needed: some are zero
    /// afterwards, and none has to be read from the disk before it is overwritten. Stops as soon as
    /// it need not go on.
    fn discard(&self, _range: Range<u64>, _goes_on: &dyn Fn() -> bool) {}

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

/// Makes ranges durable, in two steps, so that one wait serves many ranges.
pub(crate) trait Persist: Send + Sync {
    /// Sees to it that every byte of `range`, as it is now or later, is on the medium once a
    /// [`fence`](Persist::fence) of this thread has returned. A file's `range` is whole pages.
    fn write_back(&self, range: Range<u64>) -> io::Result<()>;

    /// Returns once all that this thread has written back is on the medium.
    fn fence(&self) -> io::Result<()>;
}

/// An owned [`Persist`].
pub(crate) type Syncer = Box<dyn Persist>;

/// Why a file was not mapped.
#[derive(Debug)]
pub(crate) enum MapError {
    /// Not in the way that was asked for.
    Refused(&'static str),
    /// The system refused.
    System(io::Error),
}

impl From<io::Error> for MapError {
    fn from(error: io::Error) -> MapError {
        MapError::System(error)
    }
}

/// Maps `file` as `wanted` says. `reopen` opens it once more, and fails if its path names another
/// one by then.
pub(crate) fn map(
    file: File,
    reopen: mapped::Reopen,
    wanted: Persistence,
) -> Result<Arc<dyn Backing>, MapError> {
    match wanted {
        Persistence::PageCache => {}
        Persistence::Auto => {
            if let Some(backing) = persistent_memory(&file)? {
                return Ok(backing);
            }
        }
        Persistence::PersistentMemory => return insisted_memory(&file),
    }
    Ok(Arc::new(mapped::Mapped::new(file, reopen)?))
}

/// What `Auto` comes to for `file`, which may be open for reading only.
pub(crate) fn automatic(file: &File) -> Persistence {
    #[cfg(target_os = "linux")]
    if persistent::is_possible(file) {
        return Persistence::PersistentMemory;
    }
    let _ = file;
    Persistence::PageCache
}

#[cfg(target_os = "linux")]
fn persistent_memory(file: &File) -> io::Result<Option<Arc<dyn Backing>>> {
    let found = persistent::Persistent::if_possible(file)?;
    Ok(found.map(|backing| Arc::new(backing) as Arc<dyn Backing>))
}

#[cfg(target_os = "linux")]
fn insisted_memory(file: &File) -> Result<Arc<dyn Backing>, MapError> {
    Ok(Arc::new(persistent::Persistent::insisted(file)?))
}

#[cfg(not(target_os = "linux"))]
fn persistent_memory(_file: &File) -> io::Result<Option<Arc<dyn Backing>>> {
    Ok(None)
}

#[cfg(not(target_os = "linux"))]
fn insisted_memory(_file: &File) -> Result<Arc<dyn Backing>, MapError> {
    Err(MapError::Refused("this system does not map persistent memory"))
}
