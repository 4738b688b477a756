//! The region's memory as it is: an address range that its backing keeps valid.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use super::{Backing, cacheline};
use crate::options::Persistence;
use crate::sync::{Arc, AtomicU64};

/// In persistent memory, where all that is copied is written back soon, copying past the caches
/// pays from so many bytes on (docs/performance.md has the figures).
const STREAMED_FROM: usize = 32 << 10;

/// The ring file's memory.
#[derive(Clone)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: u64,
    /// Runs of bytes from this length on are copied past the caches.
    streamed_from: usize,
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
        assert!((base.as_ptr() as usize).is_multiple_of(4096), "a backing is page-aligned");
        let streamed_from = match backing.persistence() {
            Persistence::PersistentMemory => STREAMED_FROM,
            _ => usize::MAX,
        };
        Region { base, len, streamed_from, backing }
    }

    /// Is a payload of `len` bytes to be streamed?
    #[inline]
    pub(crate) fn is_streamed(&self, len: usize) -> bool {
        len >= self.streamed_from
    }

    pub(crate) fn backing(&self) -> &dyn Backing {
        &*self.backing
    }

    /// The address of `[offset, offset + len)`, which lies in the region.
    #[inline]
    fn address(&self, offset: u64, len: u64) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "an access stays in the region");
        // SAFETY: the assertion above keeps the result inside the backing's memory, one
        // allocation, whose length fits `isize` because it is mapped.
        unsafe { self.base.add(offset as usize) }
    }

    /// The atomic word at `offset`, a multiple of 8.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "a word is aligned");
        let address = self.address(offset, 8).as_ptr().cast::<u64>();
        // SAFETY:
        // - valid for reads and writes, and alive as long as `self`: `address` checks the bounds,
        //   and `self.backing` keeps the memory.
        // - aligned: the base is aligned to 4096, and `offset` to 8.
        // - no conflicting non-atomic access: rule 2 of `region`; whoever calls `bytes_mut`,
        //   `write` or `zero` proves that nobody looks at these words meanwhile.
        unsafe { AtomicU64::from_ptr(address) }
    }

    /// Asks for the first 128 bytes of a record at `offset`. A hint, which may do nothing.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            for line in [offset, offset + 64] {
                let address = self.address(line, 64).as_ptr().cast::<i8>();
                // SAFETY: a prefetch reads nothing into the program, whatever the address. SSE is
                // part of x86-64.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// The two header words of the record at `offset`.
    #[inline]
    pub(crate) fn header(&self, offset: u64) -> (&AtomicU64, &AtomicU64) {
        assert!(offset.is_multiple_of(16), "records are aligned");
        let space = Space { start: self.address(offset, 16), len: 16, _region: PhantomData };
        (space.commit_word(), space.tag_word())
    }

    /// The record headers of a segment whose first `len` bytes lie at `offset`. One check of the
    /// bounds serves a whole walk.
    pub(crate) fn words(&self, offset: u64, len: u32) -> Words<'_> {
        assert!(offset.is_multiple_of(16) && len.is_multiple_of(16), "records are aligned");
        Words { start: self.address(offset, u64::from(len)), len, _region: PhantomData }
    }

    /// The space of a record: `len` bytes from `offset`.
    ///
    /// # Safety
    ///
    /// The space lies in the region; `offset` is a multiple of 16; `len` is at least 16.
    #[inline]
    pub(crate) unsafe fn space(&self, offset: u64, len: u32) -> Space<'_> {
        debug_assert!(offset.is_multiple_of(16) && len >= 16, "aligned, and holds its header");
        debug_assert!(offset + u64::from(len) <= self.len, "a space stays in the region");
        // SAFETY: in bounds by this function's contract.
        let start = unsafe { self.base.add(offset as usize) };
        Space { start, len, _region: PhantomData }
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

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    ///
    /// Nobody else touches the range meanwhile, as bytes or as words.
    pub(crate) unsafe fn write(&self, offset: u64, bytes: &[u8]) {
        let address = self.address(offset, bytes.len() as u64);
        self.backing.observe();
        // SAFETY: the target is in bounds by `address` and exclusive by this function's contract,
        // so it cannot overlap `bytes` either.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.as_ptr(), bytes.len()) }
        self.backing.observe();
    }

    /// Zeroes `range`.
    ///
    /// # Safety
    ///
    /// Nobody else touches the range meanwhile, as bytes or as words.
    pub(crate) unsafe fn zero(&self, range: Range<u64>) {
        let len = range.end - range.start;
        let address = self.address(range.start, len);
        self.backing.observe();
        // SAFETY: in bounds by `address`, exclusive by this function's contract; zero is a valid
        // value of every byte.
        unsafe { std::ptr::write_bytes(address.as_ptr(), 0, len as usize) }
        self.backing.observe();
    }
}

/// The record headers of one segment.
pub(crate) struct Words<'a> {
    start: NonNull<u8>,
    len: u32,
    _region: PhantomData<&'a Region>,
}

impl<'a> Words<'a> {
    /// The two header words of the record at `offset` in the segment.
    #[inline]
    pub(crate) fn header(&self, offset: u32) -> (&'a AtomicU64, &'a AtomicU64) {
        assert!(offset < self.len && offset.is_multiple_of(16), "a record starts in its segment");
        // SAFETY: below `len`, and `Region::words` checked that `len` bytes are in bounds.
        let address = unsafe { self.start.add(offset as usize) };
        let space = Space { start: address, len: 16, _region: PhantomData };
        (space.commit_word(), space.tag_word())
    }
}

/// The space of one record in the region: two header words, then payload bytes.
pub(crate) struct Space<'a> {
    start: NonNull<u8>,
    len: u32,
    _region: PhantomData<&'a Region>,
}

impl<'a> Space<'a> {
    /// The first header word.
    #[inline]
    pub(crate) fn commit_word(&self) -> &'a AtomicU64 {
        // SAFETY:
        // - in bounds and alive for `'a`: 16 bytes or more, as all who make a space see to.
        // - aligned: the region's base is aligned to 4096, and the offset to 16.
        // - no conflicting non-atomic access: rule 2 of `region`; the payload, for which slices
        //   exist, starts 16 bytes further on.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast()) }
    }

    /// The second header word.
    #[inline]
    pub(crate) fn tag_word(&self) -> &'a AtomicU64 {
        // SAFETY: in bounds, since the space holds 16 bytes or more.
        let address = unsafe { self.start.add(8) };
        // SAFETY: as for `commit_word`, 8 bytes further on.
        unsafe { AtomicU64::from_ptr(address.as_ptr().cast()) }
    }

    /// Copies `bytes` into the payload, `at` bytes behind the header; past the caches, if it is
    /// `streamed`.
    ///
    /// # Safety
    ///
    /// Nobody else touches the payload meanwhile.
    #[inline]
    pub(crate) unsafe fn write_payload(&self, at: usize, bytes: &[u8], streamed: bool) {
        let target = self.payload(at, bytes.len());
        if streamed {
            // SAFETY: in bounds by `payload`, and exclusive by this function's contract.
            return unsafe { cacheline::stream(target, bytes) };
        }
        // SAFETY: the target is in bounds by `payload` and exclusive by this function's contract,
        // so it cannot overlap `bytes` either.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) }
    }

    /// The first `len` bytes of the payload, for their only owner.
    ///
    /// # Safety
    ///
    /// Nobody else touches the payload while the slice lives.
    pub(crate) unsafe fn payload_mut(&self, len: usize) -> &'a mut [u8] {
        let start = self.payload(0, len);
        // SAFETY: in bounds by `payload`, initialised because it is file memory, alive for `'a`,
        // and exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    #[inline]
    fn payload(&self, at: usize, len: usize) -> NonNull<u8> {
        let room = self.len as usize - 16;
        assert!(at <= room && len <= room - at, "a payload stays in its record's space");
        // SAFETY: in bounds by the assertion.
        unsafe { self.start.add(16 + at) }
    }
}
