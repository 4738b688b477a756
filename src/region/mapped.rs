//! A region on a mapped file: `MAP_SHARED`, persisted by `msync(MS_SYNC)`, in front of which
//! `sync_file_range` writes long ranges back in pieces.
//!
//! `MS_ASYNC` does nothing on Linux and counts as nothing. The mapping is kept out of forked
//! children (`MADV_DONTFORK`), so that a child can neither write to the log nor keep it mapped.
//!
//! If someone cuts the file short while it is mapped, the next access past its end raises SIGBUS.
//! We hold an exclusive lock and never shrink the file; an unrelated process that truncates it
//! all the same cannot be defended against through a mapping. Recovery reads by `pread` instead.

use std::fs::File;
use std::io;
use std::ops::Range;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};

use super::{Backing, Persist, Syncer};
use crate::geometry::PAGE_SIZE;

/// How much of a long range is written back at once. The disk says with one interrupt that all of
/// it is written, and whichever thread runs on that core waits while the kernel goes through the
/// pages: for 16 MiB at once 2 ms, for this 30 us. Larger pieces make a sync no faster.
#[cfg(target_os = "linux")]
const PIECE: u64 = 256 << 10;

/// Opens the same file once more; must fail if the path has come to name another one.
pub(super) type Reopen = Box<dyn Fn() -> io::Result<File> + Send + Sync>;

/// A file mapped as a whole.
pub(super) struct Mapped {
    file: File,
    map: MmapRaw,
    reopen: Reopen,
}

impl Mapped {
    /// Maps `file`. Its length was checked before, and its blocks are written: a store to the
    /// mapping never has to find space on the disk.
    pub(super) fn new(file: File, reopen: Reopen) -> io::Result<Mapped> {
        let map = map_whole(&file)?;
        Ok(Mapped { file, map, reopen })
    }

    /// About the page cache.
    #[cfg(target_os = "linux")]
    fn advise(&self, range: Range<u64>, advice: rustix::fs::Advice) {
        // Without a length, it would be about all the rest of the file.
        if let Some(len) = std::num::NonZeroU64::new(range.end - range.start) {
            let _ = rustix::fs::fadvise(&self.file, range.start, Some(len), advice);
        }
    }
}

fn map_whole(file: &File) -> io::Result<MmapRaw> {
    let map = MmapOptions::new().map_raw(file)?;
    #[cfg(target_os = "linux")]
    map.advise(memmap2::Advice::DontFork)?;
    Ok(map)
}

// SAFETY: `MmapRaw` keeps its address and length until it is dropped with `self`; it is mapped
// readable and writable, and mappings start at page boundaries.
unsafe impl Backing for Mapped {
    fn memory(&self) -> (NonNull<u8>, u64) {
        let base = NonNull::new(self.map.as_mut_ptr()).expect("a mapping is never at address 0");
        (base, self.map.len() as u64)
    }

    fn syncer(&self) -> io::Result<Syncer> {
        Ok(Box::new(Msync {
            map: map_whole(&(self.reopen)()?)?,
            #[cfg(target_os = "linux")]
            ahead: (self.reopen)()?,
        }))
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn redirty(&self, range: Range<u64>) {
        assert!(range.end <= self.map.len() as u64, "a range lies in the file");
        for page in range.step_by(PAGE_SIZE as usize) {
            // SAFETY: in bounds by the assertion above.
            let byte = unsafe { self.map.as_mut_ptr().add(page as usize) };
            // SAFETY: mapped readable; nobody else writes meanwhile, by the trait's contract.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: mapped writable, as above. Volatile, since an optimiser would drop a store
            // that changes nothing, and the store's page fault is what we are here for.
            unsafe { byte.write_volatile(value) };
        }
    }

    fn unmap_for_now(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        {
            let len = (range.end - range.start) as usize;
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: on a shared file mapping the advice drops page-table entries only: their
            // dirty bits go to the page cache, which keeps the contents, and the next access maps
            // the same page again. The range is checked by the call.
            let _ = unsafe { self.map.unchecked_advise_range(advice, range.start as usize, len) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    #[cfg(target_os = "linux")]
    fn is_cached(&self, range: Range<u64>) -> bool {
        assert!(range.end <= self.map.len() as u64, "a range lies in the file");
        let len = (range.end - range.start) as usize;
        // A byte for each of the system's pages, which have 4 KiB or more.
        let mut pages = vec![0_u8; len.div_ceil(PAGE_SIZE as usize)];
        // SAFETY: in bounds by the assertion above.
        let start = unsafe { self.map.as_mut_ptr().add(range.start as usize) };
        // SAFETY: it writes a byte for each page, and there is room for them; it touches no memory
        // of the range.
        let result = unsafe { libc::mincore(start.cast(), len, pages.as_mut_ptr()) };
        result == 0 && pages.iter().all(|page| page & 1 == 1)
    }

    #[cfg(target_os = "linux")]
    fn evict(&self, range: Range<u64>) {
        // Mapped pages stay; and the advice is taken for clean ones only.
        self.unmap_for_now(range.clone());
        self.advise(range, rustix::fs::Advice::DontNeed);
    }

    #[cfg(target_os = "linux")]
    fn fetch(&self, range: Range<u64>) {
        // Unlike reads that run ahead, the advice takes a folio for each page.
        self.advise(range, rustix::fs::Advice::WillNeed);
    }

    /// Elsewhere the file and its mapping need not be one.
    #[cfg(target_os = "linux")]
    fn discard(&self, range: Range<u64>, goes_on: &dyn Fn() -> bool) {
        self.evict(range.clone());
        for page in range.step_by(PAGE_SIZE as usize).take_while(|_| goes_on()) {
            // A page that cannot be written here is read when it is overwritten.
            let _ = self.file.write_all_at(&[0; PAGE_SIZE as usize], page);
        }
    }

    fn has_page_faults(&self) -> bool {
        cfg!(target_os = "linux")
    }

    fn prefault(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        {
            let len = (range.end - range.start) as usize;
            // A kernel before 5.14 does not know it: then the next store takes the fault.
            let _ =
                self.map.advise_range(memmap2::Advice::PopulateWrite, range.start as usize, len);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}

/// Syncs through a mapping of its own: `msync` reports to the description that is mapped.
struct Msync {
    map: MmapRaw,
    /// What runs ahead of `msync` is told of errors too. It has a description of its own, so that
    /// `msync` is told all the same.
    #[cfg(target_os = "linux")]
    ahead: File,
}

impl Msync {
    /// Writes most of a long range back, a piece while the one before it is on its way. Best
    /// effort: `msync` writes what is left, waits, and says what failed.
    #[cfg(target_os = "linux")]
    fn run_ahead(&self, range: Range<u64>) {
        let file = self.ahead.as_raw_fd();
        let mut under_way = None;
        let mut left = range;
        while left.end - left.start > PIECE {
            let piece = left.start;
            left.start += PIECE;
            let call = |start: u64, flags| {
                // SAFETY: it touches no memory, and the file is open.
                unsafe { libc::sync_file_range(file, start as i64, PIECE as i64, flags) }
            };
            call(piece, libc::SYNC_FILE_RANGE_WRITE);
            if let Some(before) = under_way.replace(piece) {
                call(before, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
            }
        }
    }
}

impl Persist for Msync {
    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        self.run_ahead(range.clone());
        self.map.flush_range(range.start as usize, (range.end - range.start) as usize)
    }

    /// `msync` has waited already.
    fn fence(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn pages_leave_the_cache_and_come_back() {
        const PAGES: u64 = 64;
        // Ext4 and XFS.
        const CERTAIN: [i64; 2] = [0xEF53, 0x5846_5342];
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pages");
        std::fs::write(&path, [7; (PAGES * PAGE_SIZE) as usize]).expect("there is room");
        let open = move || File::options().read(true).write(true).open(&path);
        let file = open().expect("it is there");
        file.sync_all().expect("the disk takes it");
        // To a file system that keeps files in memory, or in a cache of its own, these are hints.
        let is_certain = rustix::fs::fstatfs(&file).is_ok_and(|at| CERTAIN.contains(&at.f_type));
        let mapped = Mapped::new(file, Box::new(open)).expect("it can be mapped");
        let (all, some) = (0..PAGES * PAGE_SIZE, 8 * PAGE_SIZE..9 * PAGE_SIZE);
        if !is_certain {
            return;
        }
        assert!(mapped.is_cached(all.clone()));
        let read = |range: Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            mapped.read_at(range.start, &mut bytes).expect("it is there");
            assert!(bytes.iter().all(|byte| *byte == 7));
        };
        mapped.evict(all.clone());
        assert!(!mapped.is_cached(all.clone()) && !mapped.is_cached(some.clone()));
        mapped.fetch(some.clone());
        read(some.clone());
        assert!(mapped.is_cached(some) && !mapped.is_cached(all.clone()), "it alone");
        mapped.fetch(all.clone());
        read(all.clone());
        assert!(mapped.is_cached(all));
    }
}
