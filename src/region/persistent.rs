//! A region in persistent memory: a mapping whose bytes are the medium, but for the caches in front
//! of it. Persisted by writing cache lines back, without a system call.
//!
//! 1. On a file system that maps the medium itself (DAX), `MAP_SYNC` makes the kernel promise that
//!    a page which can be stored to is one whose place in the file survives. Nothing else proves
//!    that a line written back is durable, so a mapping without it is refused,
//! 2. but for memory that calls itself a file system (tmpfs), if the caller insists: there, what is
//!    written back is as durable as that memory is. It is for tests and measurements.
//! 3. Lines cannot fail to be written back; a medium that is broken is a machine check, or an error
//!    when the next recovery reads.
//! 4. Syncers share the mapping. No error can be swallowed, so none needs a description of its own.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::cacheline::WriteBack;
use super::{Backing, MapError, Persist, Syncer};
use crate::options::Persistence;
use crate::sync::Arc;

const WRITABLE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
/// Rule 1.
const ON_DAX: MapFlags = MapFlags::SHARED_VALIDATE.union(MapFlags::SYNC);

/// `statfs`'s name for tmpfs.
const TMPFS: u64 = 0x0102_1994;

/// Does `file`, which may be open for reading only, lie where `if_possible` would map it?
pub(super) fn is_possible(file: &File) -> bool {
    WriteBack::detect().is_some_and(|line| {
        let mapping = Mapping::new(file, ProtFlags::READ, ON_DAX, line);
        mapping.is_ok_and(|mapping| mapping.is_some())
    })
}

/// A mapped file in persistent memory.
pub(super) struct Persistent {
    file: File,
    mapping: Arc<Mapping>,
}

struct Mapping {
    start: NonNull<u8>,
    len: usize,
    line: WriteBack,
}

// SAFETY: an address range, valid until it is dropped. Who may touch the bytes when is the
// region's contract.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `file`; `Ok(None)` if the kernel cannot do it with these flags.
    fn new(
        file: &File,
        protection: ProtFlags,
        flags: MapFlags,
        line: WriteBack,
    ) -> io::Result<Option<Mapping>> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: the kernel chooses an address that is free. The file is longer than a superblock,
        // as its verified length says.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, file, 0) };
        let start = match start {
            Ok(start) => start,
            // Not a DAX file system; or a kernel that does not know the flag.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let start = NonNull::new(start.cast()).expect("a mapping is never at address 0");
        let mapping = Mapping { start, len, line };
        // SAFETY: the range is the mapping; the advice keeps it out of forked children.
        unsafe { rustix::mm::madvise(start.as_ptr().cast(), len, Advice::LinuxDontFork) }?;
        Ok(Some(mapping))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; whoever used it has let go of it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl Persistent {
    /// Maps `file` if it lies on persistent memory; `Ok(None)` if it does not, or if this processor
    /// cannot write lines back.
    pub(super) fn if_possible(file: &File) -> io::Result<Option<Persistent>> {
        let Some(line) = WriteBack::detect() else {
            return Ok(None);
        };
        let mapping = Mapping::new(file, WRITABLE, ON_DAX, line)?;
        Ok(match mapping {
            Some(mapping) => {
                Some(Persistent { file: file.try_clone()?, mapping: Arc::new(mapping) })
            }
            None => None,
        })
    }

    /// As `if_possible`, or rule 2; the error says why neither can be.
    pub(super) fn insisted(file: &File) -> Result<Persistent, MapError> {
        let Some(line) = WriteBack::detect() else {
            return Err(MapError::Refused("this processor cannot write cache lines back"));
        };
        if let Some(persistent) = Persistent::if_possible(file)? {
            return Ok(persistent);
        }
        let system = rustix::fs::fstatfs(file).map_err(io::Error::from)?;
        if system.f_type as u64 != TMPFS {
            return Err(MapError::Refused(
                "its file system does not map persistent memory (DAX with MAP_SYNC)",
            ));
        }
        let mapping = Mapping::new(file, WRITABLE, MapFlags::SHARED, line)?;
        let mapping = mapping.ok_or(MapError::Refused("its file system maps no files"))?;
        let file = file.try_clone()?;
        Ok(Persistent { file, mapping: Arc::new(mapping) })
    }
}

// SAFETY: the mapping keeps its address and length until it is dropped with the last of its owners,
// of which `self` is one; it is mapped readable and writable, and starts at a page boundary.
unsafe impl Backing for Persistent {
    fn memory(&self) -> (NonNull<u8>, u64) {
        (self.mapping.start, self.mapping.len as u64)
    }

    fn persistence(&self) -> Persistence {
        Persistence::PersistentMemory
    }

    fn syncer(&self) -> io::Result<Syncer> {
        Ok(Box::new(Lines(self.mapping.clone())))
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// A line is in a cache, changed, or it is in memory: none can be clean and old.
    fn redirty(&self, _range: Range<u64>) {}

    /// Nothing write-protects these pages.
    fn unmap_for_now(&self, _range: Range<u64>) {}

    fn prefault(&self, _range: Range<u64>) {}
}

struct Lines(Arc<Mapping>);

impl Persist for Lines {
    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        let Lines(mapping) = self;
        let (start, end) = (range.start as usize, range.end as usize);
        assert!(start <= end && end <= mapping.len, "a range lies in the file");
        // SAFETY: in bounds by the assertion above.
        let address = unsafe { mapping.start.add(start) };
        // SAFETY: mapped, for as long as we hold the mapping; whole lines lie in whole pages.
        unsafe { mapping.line.start(address, end - start) };
        Ok(())
    }

    fn fence(&self) -> io::Result<()> {
        self.0.line.fence();
        Ok(())
    }
}
