//! Region: the only access to the ring file's memory.
//!
//! Offsets are file offsets in bytes. Nothing here knows what the bytes mean.
//!
//! 1. *Words* (commit words, tags) are aligned 8-byte atomics; anyone may look at one.
//! 2. *Bytes* are plain memory. A slice of them exists only for an exclusive owner (`bytes_mut`,
//!    `write`, `zero`) or while nobody writes them (`bytes`): those four are `unsafe`, and their
//!    callers prove it from the protocol. No word access falls on bytes that are borrowed.
//! 3. *Persisting* goes through a `Syncer`, which has its own open file description: the kernel
//!    reports a write-back error once per description, so no syncer can swallow another's.

mod mapped;
#[cfg(test)]
mod simulated;

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::sync::{Arc, AtomicU64};

pub(crate) use mapped::Mapped;
#[cfg(test)]
pub(crate) use simulated::{Fault, Simulated};

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

    /// Takes the write faults of `range` now, in the calling thread. Best effort.
    fn prefault(&self, range: Range<u64>);
}

/// Makes ranges durable.
pub(crate) trait Persist: Send {
    /// Returns once every byte of the page-aligned `range` is on the medium.
    fn persist(&mut self, range: Range<u64>) -> io::Result<()>;
}

/// An owned [`Persist`].
pub(crate) type Syncer = Box<dyn Persist>;

/// The ring file's memory.
#[derive(Clone)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: u64,
    backing: Arc<dyn Backing>,
}

// SAFETY: a `Region` is an address range that its `backing` keeps valid, and `backing` is `Send +
// Sync` by its trait bound. Access to the bytes is either atomic or governed by the contracts of
// the unsafe functions below, which hold whatever thread calls them.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn new(backing: Arc<dyn Backing>) -> Region {
        let (base, len) = backing.memory();
        assert!(
            base.as_ptr() as usize % 4096 == 0,
            "a backing is page-aligned"
        );
        Region { base, len, backing }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn backing(&self) -> &dyn Backing {
        &*self.backing
    }

    /// The address of `[offset, offset + len)`, which lies in the region.
    #[inline]
    fn address(&self, offset: u64, len: u64) -> NonNull<u8> {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "an access stays in the region"
        );
        // SAFETY: the assertion above keeps the result inside the backing's memory, one
        // allocation, whose length fits `isize` because it is mapped.
        unsafe { self.base.add(offset as usize) }
    }

    /// The atomic word at `offset`, a multiple of 8.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset % 8 == 0, "a word is aligned");
        let address = self.address(offset, 8).as_ptr().cast::<u64>();
        // SAFETY:
        // - valid for reads and writes, and alive as long as `self`: `address` checks the bounds,
        //   and `self.backing` keeps the memory.
        // - aligned: the base is aligned to 4096, and `offset` to 8.
        // - no conflicting non-atomic access: rule 2 of the module; whoever calls `bytes_mut`,
        //   `write` or `zero` proves that nobody looks at these words meanwhile.
        unsafe { AtomicU64::from_ptr(address) }
    }

    /// The bytes `[offset, offset + len)`.
    ///
    /// # Safety
    ///
    /// Nobody writes them while the slice lives, and whatever was written before is ordered
    /// before this call.
    #[inline]
    pub(crate) unsafe fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let address = self.address(offset, len as u64);
        // SAFETY: in bounds by `address`, initialised because it is file memory, alive as long as
        // `self`, and not written to meanwhile by this function's contract.
        unsafe { std::slice::from_raw_parts(address.as_ptr(), len) }
    }

    /// The bytes `[offset, offset + len)`, for their only owner.
    ///
    /// # Safety
    ///
    /// Nobody else touches them, as bytes or as words, while the slice lives.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn bytes_mut(&self, offset: u64, len: usize) -> &mut [u8] {
        let address = self.address(offset, len as u64);
        // SAFETY: in bounds by `address`, initialised because it is file memory, alive as long as
        // `self`, and exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), len) }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    ///
    /// Nobody else touches the range meanwhile, as bytes or as words.
    #[inline]
    pub(crate) unsafe fn write(&self, offset: u64, bytes: &[u8]) {
        let address = self.address(offset, bytes.len() as u64);
        // SAFETY: the target is in bounds by `address` and exclusive by this function's contract,
        // so it cannot overlap `bytes` either.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.as_ptr(), bytes.len()) }
    }

    /// Zeroes `range`.
    ///
    /// # Safety
    ///
    /// Nobody else touches the range meanwhile, as bytes or as words.
    pub(crate) unsafe fn zero(&self, range: Range<u64>) {
        let len = range.end - range.start;
        let address = self.address(range.start, len);
        // SAFETY: in bounds by `address`, exclusive by this function's contract; zero is a valid
        // value of every byte.
        unsafe { std::ptr::write_bytes(address.as_ptr(), 0, len as usize) }
    }
}
