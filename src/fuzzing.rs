//! What the targets in `fuzz/` are made of; there only with the feature `fuzzing`.
//!
//! A [`Machine`] is a disk image under a page cache on which the shipped recovery and the shipped
//! log run, with crashes where the target wants them. The functions beside it judge the bytes of
//! one structure, as recovery does.

use std::ops::Range;
use std::path::Path;

use crate::error::{GeometryError, OpenError};
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::checkpoint::Boot;
use crate::layout::{Checkpoint, LogId, SegmentHeader, SegmentHeaderEvidence, Superblock};
use crate::lsn::Lsn;
use crate::options::Options;
use crate::recovery::window::{EpochRule, Evidence, Window};
use crate::recovery::{self, ReadAt};
use crate::region::{Fault, Region, Simulated};
use crate::sync::Arc;
use crate::wal::{Wal, new_header};

/// A simulated machine with a log's ring file on its disk.
pub struct Machine {
    disk: Arc<Simulated>,
    len: u64,
}

impl Machine {
    /// Starts with `image` on its disk, of whatever bytes and length.
    #[must_use]
    pub fn new(mut image: Vec<u8>) -> Machine {
        let len = image.len() as u64;
        image.resize(image.len().max(1).next_multiple_of(PAGE_SIZE as usize), 0);
        Machine { disk: Simulated::new(image), len }
    }

    /// Opens the log, as a process of boot `boot`; 0 is a machine without boot ids.
    ///
    /// # Errors
    ///
    /// As [`Wal::open`].
    pub fn open(&self, boot: u8, options: Options) -> Result<Wal, OpenError> {
        let path = Path::new("simulated");
        let region = Region::new(self.disk.clone());
        let backing = region.clone();
        let read: ReadAt<'_> =
            Box::new(move |offset, bytes| backing.backing().read_at(offset, bytes));
        let head = recovery::verify_head(&read, self.len, path)?;
        Wal::start(region, &head, boot_of(boot), options, None, path)
    }

    /// What a power loss leaves: what was synced or written back.
    #[must_use]
    pub fn disk(&self) -> Vec<u8> {
        self.disk.disk()
    }

    /// What the death of the process leaves: the page cache. Nobody writes meanwhile.
    #[must_use]
    pub fn cache(&self) -> Vec<u8> {
        self.disk.cache()
    }

    /// The kernel writes back the pages of `range`, without being asked to.
    pub fn write_back(&self, range: Range<usize>) {
        self.disk.write_back(range, true);
    }

    /// The sync after the next `n` fails.
    pub fn fail_sync(&self, n: u64) {
        self.disk.inject(Fault::FailSync(n));
    }
}

/// What a process of the machine's boot `boot` finds and leaves in a slot.
fn boot_of(boot: u8) -> Boot {
    Boot { boot_id: [boot; 16], file_identity: 1 }
}

/// A ring in segments of two pages, the smallest that a superblock may hold.
///
/// # Errors
///
/// There are at least two segments.
pub fn tiny(segments: u64) -> Result<Geometry, GeometryError> {
    let segment_size = 2 * PAGE_SIZE;
    Geometry::checked(segments * segment_size, segment_size, 3 * PAGE_SIZE)
}

/// The ring file of a new log.
#[must_use]
pub fn new_image(geometry: Geometry, log_id: LogId) -> Vec<u8> {
    let mut image = new_header(geometry, log_id);
    image.resize(geometry.file_len() as usize, 0);
    image
}

/// The process dies here: no close, no mark.
pub fn kill(wal: Wal) {
    wal.die();
}

/// A superblock's geometry and log id, if `page` is believed.
#[must_use]
pub fn superblock(page: &[u8]) -> Option<(Geometry, LogId, u64)> {
    let superblock = Superblock::verify(page).ok()?;
    Some((superblock.geometry, superblock.log_id, superblock.geometry.data_offset()))
}

/// The positions of the newest checkpoint slot: `trimmed`, `durable`, `epoch_start`; and its epoch.
///
/// # Errors
///
/// `read_checkpoint` asks for bytes that `head` does not have.
pub fn checkpoint(
    head: &[u8],
    geometry: Geometry,
    log_id: LogId,
) -> std::io::Result<Option<([Lsn; 3], u64)>> {
    let superblock = Superblock { log_id, geometry, created_unix_ms: 0 };
    let found = recovery::read_checkpoint(&read_from(head), &superblock)?;
    Ok(found.map(|head| {
        let Checkpoint { trimmed, durable, epoch_start, epoch, .. } = head.checkpoint;
        ([trimmed, durable, epoch_start], epoch)
    }))
}

fn read_from(bytes: &[u8]) -> ReadAt<'_> {
    Box::new(move |offset, target| {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(target.len());
        let source = bytes.get(start..end).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(source);
        Ok(())
    })
}

/// The sequence and the epoch of a segment header that verifies, and whether it is the one that
/// was looked for.
#[must_use]
pub fn segment_header(
    bytes: &[u8],
    log_id: &LogId,
    sequence: u32,
    base: Lsn,
) -> Option<(u32, u64, bool)> {
    match SegmentHeader::verify(bytes, log_id, sequence, base) {
        SegmentHeaderEvidence::Expected(header) => Some((header.sequence, header.epoch, true)),
        SegmentHeaderEvidence::Older(header) | SegmentHeaderEvidence::Newer(header) => {
            Some((header.sequence, header.epoch, false))
        }
        SegmentHeaderEvidence::Zero | SegmentHeaderEvidence::Garbage => None,
    }
}

/// What a record must follow.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// The epoch before it.
    pub epoch: u64,
    /// It is the first of a walk.
    pub first: bool,
    /// The newest epoch, and where that began.
    pub newest: u64,
    /// See `newest`.
    pub newest_start: Lsn,
}

/// The length (header included) and the epoch of the record at `lsn` of the ring file `image`, if
/// it verifies and may follow. `lsn` lies before its segment's record end.
///
/// # Errors
///
/// The segment is not in the image as a whole.
pub fn record(
    image: &[u8],
    geometry: Geometry,
    log_id: LogId,
    lsn: Lsn,
    before: &Before,
) -> std::io::Result<Option<(u32, u64)>> {
    let Before { epoch, first, newest, newest_start } = *before;
    let rule = EpochRule { epoch, first, newest, newest_start };
    let mut window = Window::new(read_from(image), geometry, log_id);
    let evidence = window.examine(lsn, &rule)?;
    Ok(match evidence {
        Evidence::Valid { record_len, epoch, .. } => Some((record_len, epoch)),
        _ => None,
    })
}
