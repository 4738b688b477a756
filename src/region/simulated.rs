//! A region on a simulated disk, for tests of what a crash leaves.
//!
//! The fault model: memory is the page cache, `disk` is the medium. A page reaches the medium when
//! a sync covers it, or when the test lets the kernel write it back (`write_back`). A sync can be
//! told to fail: then its pages stay old on the disk *and count as clean*, as on Linux, so that a
//! later sync does not write them unless they are dirtied again. Dirty means: differs from what
//! the cache held when the page was last cleaned, or was re-dirtied.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use memmap2::MmapRaw;

use super::{Backing, Persist, Syncer};
use crate::geometry::PAGE_SIZE;
use crate::sync::{Arc, Mutex, lock};

const PAGE: usize = PAGE_SIZE as usize;

/// What the next syncs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The n-th sync from now (0 is the next) fails.
    FailSync(u64),
}

struct State {
    disk: Vec<u8>,
    /// What the cache held when each page was last cleaned.
    cleaned: Vec<u8>,
    redirtied: BTreeSet<usize>,
    fault: Option<Fault>,
}

/// See the module documentation.
pub(crate) struct Simulated {
    map: MmapRaw,
    state: Arc<Mutex<State>>,
}

impl Simulated {
    /// A machine that has just started, with `image` on its disk.
    pub(crate) fn new(image: Vec<u8>) -> Arc<Simulated> {
        assert!(image.len().is_multiple_of(PAGE), "an image is whole pages");
        let map: MmapRaw = memmap2::MmapOptions::new()
            .len(image.len())
            .map_anon()
            .expect("anonymous memory can be had")
            .into();
        // SAFETY: the mapping has the image's length, is writable, and nobody else has it yet.
        unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), map.as_mut_ptr(), image.len()) };
        let state =
            State { cleaned: image.clone(), disk: image, redirtied: BTreeSet::new(), fault: None };
        Arc::new(Simulated { map, state: Arc::new(Mutex::new(state)) })
    }

    /// What a power loss leaves.
    pub(crate) fn disk(&self) -> Vec<u8> {
        lock(&self.state).disk.clone()
    }

    /// What the death of the process leaves: the page cache.
    pub(crate) fn cache(&self) -> Vec<u8> {
        self.page_cache(0..self.map.len()).to_vec()
    }

    /// Lets the kernel write back the pages of `range`.
    pub(crate) fn write_back(&self, range: Range<usize>) {
        let pages = range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE);
        // Locked before the copy: a sync in between would otherwise be undone on the disk.
        let mut state = lock(&self.state);
        let bytes = self.page_cache(pages.clone()).to_vec();
        state.disk[pages.clone()].copy_from_slice(&bytes);
        state.cleaned[pages].copy_from_slice(&bytes);
    }

    pub(crate) fn inject(&self, fault: Fault) {
        lock(&self.state).fault = Some(fault);
    }

    fn page_cache(&self, range: Range<usize>) -> &[u8] {
        assert!(range.end <= self.map.len(), "a range lies in the file");
        // SAFETY: in bounds by the assertion above.
        let start = unsafe { self.map.as_ptr().add(range.start) };
        // SAFETY: in bounds; the tests that look at the cache compare what nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(start, range.len()) }
    }
}

// SAFETY: the anonymous mapping keeps its address and length until `self` is dropped; it is
// readable and writable, and starts at a page boundary.
unsafe impl Backing for Simulated {
    fn memory(&self) -> (NonNull<u8>, u64) {
        let base = NonNull::new(self.map.as_mut_ptr()).expect("a mapping is never at address 0");
        (base, self.map.len() as u64)
    }

    fn syncer(&self) -> io::Result<Syncer> {
        let memory = self.map.as_ptr() as usize;
        Ok(Box::new(SimulatedSync { memory, state: self.state.clone() }))
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        bytes.copy_from_slice(self.page_cache(start..start + bytes.len()));
        Ok(())
    }

    fn redirty(&self, range: Range<u64>) {
        let pages = range.start as usize / PAGE..(range.end as usize).div_ceil(PAGE);
        lock(&self.state).redirtied.extend(pages);
    }

    fn unmap_for_now(&self, _range: Range<u64>) {}

    fn prefault(&self, _range: Range<u64>) {}
}

struct SimulatedSync {
    memory: usize,
    state: Arc<Mutex<State>>,
}

impl Persist for SimulatedSync {
    fn persist(&mut self, range: Range<u64>) -> io::Result<()> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let failed = match &mut state.fault {
            Some(Fault::FailSync(0)) => {
                state.fault = None;
                true
            }
            Some(Fault::FailSync(n)) => {
                *n -= 1;
                false
            }
            None => false,
        };
        for page in range.start as usize / PAGE..(range.end as usize).div_ceil(PAGE) {
            let bytes = page * PAGE..(page + 1) * PAGE;
            let mut cache = [0_u8; PAGE];
            // SAFETY: the page lies in the mapping, which outlives every syncer in these tests.
            let source = unsafe { (self.memory as *const u8).add(bytes.start) };
            // SAFETY: as above. A writer may be at work on the page, as it may when a kernel writes
            // it back: what is copied of its bytes is not looked at before a checksum has passed.
            unsafe { std::ptr::copy_nonoverlapping(source, cache.as_mut_ptr(), PAGE) };
            let dirty = state.redirtied.remove(&page) || state.cleaned[bytes.clone()] != cache;
            if dirty {
                state.cleaned[bytes.clone()].copy_from_slice(&cache);
                if !failed {
                    state.disk[bytes].copy_from_slice(&cache);
                }
            }
        }
        if failed {
            return Err(io::Error::other("injected: the device reports a write error"));
        }
        Ok(())
    }
}
