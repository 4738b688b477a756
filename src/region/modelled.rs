//! The region as a model sees it: the functions of `memory`, over modelled atomics and cells.
//!
//! A checker's atomics cannot be laid over memory, so a *granule* of 16 bytes has two modelled
//! words (for when a record starts there), a watch for data races, and plain bytes behind it. A
//! granule comes to be when it is first touched; untouched ones are zero.
//!
//! A word access counts as a read of the granule, a slice or a copy as a read or a write, zeroing
//! as a write: an owner that hands over without ordering, or a janitor that zeroes under a reader,
//! is a data race, which fails the model.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;

use super::Backing;
use crate::sync::{AtomicU64, Ordering, ProcessMutex, Watch, lock_process};

/// The backing's memory is not used, but its syncers are.
#[derive(Clone)]
pub(crate) struct Region {
    inner: crate::sync::Arc<Inner>,
}

struct Inner {
    backing: crate::sync::Arc<dyn Backing>,
    len: u64,
    granules: ProcessMutex<BTreeMap<u64, Box<Granule>>>,
    bytes: Box<[UnsafeCell<u8>]>,
}

struct Granule {
    words: [AtomicU64; 2],
    watch: Watch,
}

// SAFETY: the plain bytes are touched only after their granules' cells were, which fail the model
// on an access that is not ordered.
unsafe impl Send for Inner {}
// SAFETY: as for `Send`.
unsafe impl Sync for Inner {}

impl Region {
    pub(crate) fn new(backing: crate::sync::Arc<dyn Backing>) -> Region {
        let (_, len) = backing.memory();
        let bytes = (0..len).map(|_| UnsafeCell::new(0)).collect();
        let granules = ProcessMutex::new(BTreeMap::new());
        Region { inner: crate::sync::Arc::new(Inner { backing, len, granules, bytes }) }
    }

    pub(crate) fn backing(&self) -> &dyn Backing {
        &*self.inner.backing
    }

    pub(crate) fn is_streamed(&self, _len: usize) -> bool {
        false
    }

    /// Makes the granules of `range` come to be now. To loom, making one is a write: those that
    /// several threads touch must exist before the threads do.
    pub(crate) fn touch(&self, range: Range<u64>) {
        for offset in range.step_by(16) {
            self.granule(offset);
        }
    }

    fn granule(&self, offset: u64) -> &Granule {
        assert!(offset < self.inner.len, "an access stays in the region");
        let mut granules = lock_process(&self.inner.granules);
        let granule = granules.entry(offset / 16).or_insert_with(|| {
            Box::new(Granule { words: [AtomicU64::new(0), AtomicU64::new(0)], watch: Watch::new() })
        });
        let granule: *const Granule = &**granule;
        // SAFETY: granules are boxed and never removed while the region lives.
        unsafe { &*granule }
    }

    fn watch(&self, range: Range<u64>, exclusive: bool) {
        for offset in (range.start / 16 * 16..range.end).step_by(16) {
            let watch = &self.granule(offset).watch;
            if exclusive { watch.write() } else { watch.read() }
        }
    }

    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        let granule = self.granule(offset);
        granule.watch.read();
        &granule.words[(offset / 8 % 2) as usize]
    }

    /// A hint to a cache that the model does not have.
    pub(crate) fn prefetch(&self, _offset: u64) {}

    /// What a write-back does to a range: it reads what was touched of it. It does not keep the
    /// region.
    pub(crate) fn read_back(&self) -> crate::sync::Arc<dyn Fn(Range<u64>) + Send + Sync> {
        let inner = crate::sync::Arc::downgrade(&self.inner);
        crate::sync::Arc::new(move |range: Range<u64>| {
            let Some(inner) = inner.upgrade() else { return };
            let granules = lock_process(&inner.granules);
            for (_, granule) in granules.range(range.start / 16..range.end.div_ceil(16)) {
                granule.watch.read();
            }
        })
    }

    /// The word at `offset` as another process sees it, who may look at any time.
    pub(crate) fn peek(&self, offset: u64) -> &AtomicU64 {
        &self.granule(offset).words[(offset / 8 % 2) as usize]
    }

    pub(crate) fn header(&self, offset: u64) -> (&AtomicU64, &AtomicU64) {
        (self.word(offset), self.word(offset + 8))
    }

    pub(crate) fn words(&self, offset: u64, len: u32) -> Words<'_> {
        Words { region: self, start: offset, len }
    }

    /// # Safety
    ///
    /// As in `memory`.
    pub(crate) unsafe fn space(&self, offset: u64, len: u32) -> Space<'_> {
        Space { region: self.clone(), start: offset, len, _region: PhantomData }
    }

    /// # Safety
    ///
    /// As in `memory`.
    pub(crate) unsafe fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        self.watch(offset..offset + len as u64, false);
        if offset % 4096 == 0 {
            // A segment header, whose sequence word is modelled: show it among its bytes.
            let word = self.word(offset).load(Ordering::Relaxed);
            self.copy(offset, &word.to_le_bytes());
        }
        let bytes = &self.inner.bytes[offset as usize..offset as usize + len];
        // SAFETY: watched: nobody writes them meanwhile. `UnsafeCell<u8>` has the layout of `u8`.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), len) }
    }

    /// # Safety
    ///
    /// As in `memory`.
    pub(crate) unsafe fn write(&self, offset: u64, bytes: &[u8]) {
        self.watch(offset..offset + bytes.len() as u64, true);
        self.copy(offset, bytes);
    }

    fn copy(&self, offset: u64, bytes: &[u8]) {
        for (cell, byte) in self.inner.bytes[offset as usize..].iter().zip(bytes) {
            // SAFETY: watched by the callers: nobody else touches it meanwhile.
            unsafe { *cell.get() = *byte };
        }
    }

    /// # Safety
    ///
    /// As in `memory`.
    pub(crate) unsafe fn zero(&self, range: Range<u64>) {
        let touched: Vec<u64> = lock_process(&self.inner.granules)
            .range(range.start / 16..range.end.div_ceil(16))
            .map(|(granule, _)| granule * 16)
            .collect();
        for offset in touched {
            let granule = self.granule(offset);
            granule.watch.write();
            for (word, at) in granule.words.iter().zip([offset, offset + 8]) {
                if range.contains(&at) {
                    word.store(0, Ordering::Relaxed);
                }
            }
        }
        let zeros = vec![0; (range.end - range.start) as usize];
        self.copy(range.start, &zeros);
    }
}

pub(crate) struct Words<'a> {
    region: &'a Region,
    start: u64,
    len: u32,
}

impl<'a> Words<'a> {
    pub(crate) fn header(&self, offset: u32) -> (&'a AtomicU64, &'a AtomicU64) {
        assert!(offset < self.len && offset % 16 == 0, "a record starts in its segment");
        let at = self.start + u64::from(offset);
        (self.region.word(at), self.region.word(at + 8))
    }
}

pub(crate) struct Space<'a> {
    region: Region,
    start: u64,
    len: u32,
    _region: PhantomData<&'a Region>,
}

impl<'a> Space<'a> {
    pub(crate) fn commit_word(&self) -> &AtomicU64 {
        self.region.word(self.start)
    }

    pub(crate) fn tag_word(&self) -> &AtomicU64 {
        self.region.word(self.start + 8)
    }

    /// # Safety
    ///
    /// As in `memory`.
    pub(crate) unsafe fn write_payload(&self, at: usize, bytes: &[u8], _streamed: bool) {
        assert!(16 + at + bytes.len() <= self.len as usize, "a payload stays in its space");
        let offset = self.start + 16 + at as u64;
        self.region.watch(offset..offset + bytes.len() as u64, true);
        self.region.copy(offset, bytes);
    }

    /// # Safety
    ///
    /// As in `memory`.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn payload_mut(&self, len: usize) -> &'a mut [u8] {
        assert!(16 + len <= self.len as usize, "a payload stays in its space");
        let offset = self.start + 16;
        self.region.watch(offset..offset + len as u64, true);
        let bytes = &self.region.inner.bytes[offset as usize..offset as usize + len];
        // SAFETY: watched: nobody else touches them meanwhile; the region outlives `'a`.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr().cast_mut().cast(), len) }
    }
}
