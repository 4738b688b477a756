//! Recovery: from bytes that nobody vouches for to positions that a ring can start from.
//!
//! 1. Nothing is believed that was not verified. Everything is read with `pread`, so a file cut
//!    short or a bad block is an error and not a signal.
//! 2. First the [`scan`](scan::survey) walks what is retained, but for sealed segments if it is to
//!    be lazy, and [`decide`] judges each piece of evidence; it writes nothing. Corruption of
//!    acknowledged data is refused here, with the log as it was found.
//! 3. Then [`apply`](apply::apply) writes, in an order that makes a crash at any point harmless:
//!    pads over holes, zeros beyond the cut, re-dirty and sync what is to be served, and only then
//!    both slots with the new epoch, its start, and `durable` at the cut. Until the first of them
//!    is on the medium, the next recovery finds the same log and comes to the same result.
//! 4. The ring is not imported here: recovery returns positions, and the facade starts it.

pub(crate) mod apply;
mod beyond;
pub(crate) mod cached;
pub(crate) mod decide;
pub(crate) mod finding;
pub(crate) mod rebuild;
mod report;
pub(crate) mod scan;
pub(crate) mod sealed;
pub(crate) mod window;

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Corruption, FileError, OpenError};
use crate::files::{RingFile, file_error};
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::checkpoint::{Boot, newest};
use crate::layout::superblock::SuperblockFault;
use crate::layout::{CHECKPOINT_SLOT_OFFSETS, Checkpoint, FORMAT_VERSION, LogId, Superblock};
use crate::lsn::Lsn;
use crate::options::Verify;

pub use report::{RecoveryOutcome, RecoveryReport};

/// Reads bytes of the ring file.
pub(crate) type ReadAt<'a> = Box<dyn Fn(u64, &mut [u8]) -> std::io::Result<()> + Send + 'a>;

/// The same, for several threads.
pub(crate) type ReadFn<'a> = dyn Fn(u64, &mut [u8]) -> std::io::Result<()> + Sync + 'a;

/// The verified head of a ring file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) log_id: LogId,
    pub(crate) geometry: Geometry,
    pub(crate) checkpoint: Checkpoint,
    /// Which slot it came from.
    pub(crate) slot: usize,
}

/// Why recovery stopped.
#[derive(Debug)]
pub(crate) enum Refusal {
    Corrupt(Corruption),
    /// The system refused an operation.
    System(&'static str, std::io::Error),
    Sync(crate::error::SyncFailure),
    Exhausted,
}

impl Head {
    /// The epoch that comes after `newest`, if slots can still name it, and count on.
    fn epoch_after(&self, newest: u64) -> Result<u64, Refusal> {
        let countable = self.checkpoint.generation < GENERATION_END - GENERATIONS_OF_ONE_OPEN;
        let next = newest.checked_add(1).filter(|next| countable && *next < EPOCH_END);
        next.ok_or(Refusal::Exhausted)
    }
}

impl From<std::io::Error> for Refusal {
    /// Nearly all that recovery asks of the system is to read.
    fn from(error: std::io::Error) -> Refusal {
        Refusal::System("read", error)
    }
}

/// Reads and verifies superblock, length and checkpoint slots of an open ring file.
pub(crate) fn read_head(ring: &RingFile) -> Result<Head, OpenError> {
    let read: ReadAt<'_> = Box::new(|offset, bytes| ring.file.read_exact_at(bytes, offset));
    verify_head(&read, ring.len, &ring.path)
}

/// As [`read_head`], of `len` bytes at `path` that are read by `read`.
pub(crate) fn verify_head(read: &ReadAt<'_>, len: u64, path: &Path) -> Result<Head, OpenError> {
    let mut page = vec![0; PAGE_SIZE as usize];
    if len < 3 * PAGE_SIZE {
        return Err(OpenError::NotALog {
            path: path.to_owned(),
            reason: "the file is shorter than a superblock and two checkpoint slots",
        });
    }
    read(0, &mut page).map_err(file_error("read", path))?;
    let superblock = Superblock::verify(&page).map_err(|fault| superblock_error(path, fault))?;
    let expected = superblock.geometry.file_len();
    if len != expected {
        return Err(OpenError::Length { path: path.to_owned(), found: len, expected });
    }
    read_checkpoint(read, &superblock)
        .map_err(|source| file_error("read", path)(source))?
        .ok_or_else(|| OpenError::NoCheckpoint(path.to_owned()))
}

fn superblock_error(path: &Path, fault: SuperblockFault) -> OpenError {
    let path = path.to_owned();
    match fault {
        SuperblockFault::NotALog(reason) => OpenError::NotALog { path, reason },
        SuperblockFault::Version(found) => {
            OpenError::Version { path, found, supported: FORMAT_VERSION }
        }
        SuperblockFault::Features(unknown) => OpenError::Features { path, unknown },
    }
}

/// The newest checkpoint whose positions can be those of this log.
pub(crate) fn read_checkpoint(
    read: &ReadAt<'_>,
    superblock: &Superblock,
) -> std::io::Result<Option<Head>> {
    let geometry = superblock.geometry;
    let mut slots = [None, None];
    for (slot, offset) in slots.iter_mut().zip(CHECKPOINT_SLOT_OFFSETS) {
        let mut page = vec![0; PAGE_SIZE as usize];
        read(offset, &mut page)?;
        *slot = Checkpoint::verify(&page, &superblock.log_id)
            .filter(|checkpoint| has_possible_positions(checkpoint, &geometry));
    }
    let log_id = superblock.log_id;
    Ok(newest(slots).map(|(slot, checkpoint)| Head { log_id, geometry, checkpoint, slot }))
}

/// No log writes so many slots.
const GENERATION_END: u64 = 1 << 63;
/// No log writes so many of them before it is opened again.
const GENERATIONS_OF_ONE_OPEN: u64 = 1 << 48;
/// An epoch that no slot can name.
const EPOCH_END: u64 = u64::MAX;

/// Positions are computed with only after this.
fn has_possible_positions(checkpoint: &Checkpoint, geometry: &Geometry) -> bool {
    let end = geometry.lsn(u32::MAX, geometry.record_end());
    let possible = |lsn: Lsn| {
        let (_, offset) = geometry.split(lsn);
        lsn <= end
            && lsn.get().is_multiple_of(16)
            && offset >= 64
            && offset <= geometry.record_end()
    };
    let Checkpoint { trimmed, durable, epoch_start, epoch, generation, .. } = *checkpoint;
    // In this order: only possible positions can be added to.
    [trimmed, durable, epoch_start].into_iter().all(possible)
        && durable <= trimmed + geometry.capacity()
        && epoch < EPOCH_END
        && generation < GENERATION_END
}

/// What a ring starts from.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) epoch: u64,
    pub(crate) trimmed: Lsn,
    /// The cut: everything retained lies below, the next record goes here.
    pub(crate) end: Lsn,
    pub(crate) report: RecoveryReport,
    /// The segments, in order, that are retained whole and whose footers count.
    pub(crate) footed: Vec<u32>,
}

/// Recovers a log: scans, decides, and writes what has to be written. `boot` tells whether the
/// page cache is still the one of the last writer; `verify`, how much of the log is read.
pub(crate) fn recover(
    region: &crate::region::Region,
    head: &Head,
    boot: Boot,
    verify: Verify,
) -> Result<(Recovered, crate::segments::SlotWriter), Refusal> {
    let start = crate::sync::now();
    let read = |offset, bytes: &mut [u8]| region.backing().read_at(offset, bytes);
    let (lazy, threads) = (verify == Verify::Lazy, crate::sync::parallelism());
    let effort = sealed::Effort { lazy, threads, ..Default::default() };
    let cached = cached::Cached::look(region, head);
    let plan = scan::survey(&read, head, boot, &effort)?;
    apply::apply(region, head, boot, &plan, &cached, start)
}

/// Names the file in a refusal.
pub(crate) fn refusal_error(path: &Path, refusal: Refusal) -> OpenError {
    let path = path.to_owned();
    match refusal {
        Refusal::Corrupt(damage) => OpenError::Corrupt { path, damage },
        Refusal::System(operation, source) => FileError { operation, path, source }.into(),
        Refusal::Sync(failure) => {
            let source = std::io::Error::other(failure);
            FileError { operation: "sync", path, source }.into()
        }
        Refusal::Exhausted => OpenError::Exhausted(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot with a good checksum and positions that no log has is as good as none: arithmetic
    /// with them would overflow, or lead out of the ring.
    #[test]
    fn positions_are_possible_up_to_their_bounds() {
        let geometry = Geometry::checked(4 * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        let at = |sequence, offset| geometry.lsn(sequence, offset);
        let slot = |trimmed, durable, epoch_start| {
            let slot = Checkpoint { trimmed, durable, epoch_start, ..Checkpoint::default() };
            has_possible_positions(&slot, &geometry)
        };
        let first = at(3, 64);
        for (possible, lsn) in [
            (true, at(3, 64)),
            (true, at(3, 80)),
            (true, at(3, 4096)),
            (false, at(3, 0)),
            (false, at(3, 48)),
            (false, at(3, 72)),
            (false, at(3, 4112)),
            (false, at(3, 8176)),
        ] {
            assert_eq!(slot(lsn, lsn, lsn), possible, "{lsn}");
            assert_eq!(slot(lsn, first, first), possible, "trimmed {lsn}");
            assert_eq!(slot(first, lsn, first), possible, "durable {lsn}");
            assert_eq!(slot(first, first, lsn), possible, "epoch start {lsn}");
        }
        let last = at(u32::MAX, 4096);
        assert!(slot(last, last, last));
        assert!(!slot(last, last, last + 8192));
        assert!(slot(first, first + geometry.capacity(), first));
        assert!(!slot(first, first + geometry.capacity() + 16, first));

        let counted = |epoch, generation| {
            let base = Checkpoint { epoch, generation, ..Checkpoint::default() };
            let slot = Checkpoint { trimmed: first, durable: first, epoch_start: first, ..base };
            has_possible_positions(&slot, &geometry)
        };
        assert!(counted(u64::MAX - 1, (1 << 63) - 1));
        assert!(!counted(u64::MAX, 1));
        assert!(!counted(1, 1 << 63));
    }

    /// Both slots name an epoch: if the next open could not believe them, none would be left.
    #[test]
    fn no_epoch_begins_that_slots_cannot_name() {
        let geometry = Geometry::checked(4 * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        let after = |generation, newest| {
            let checkpoint = Checkpoint { generation, ..Checkpoint::default() };
            let head = Head { log_id: [7; 16], geometry, checkpoint, slot: 0 };
            head.epoch_after(newest).ok()
        };
        assert_eq!(after(1, 0), Some(1));
        assert_eq!(after(1, u64::MAX - 2), Some(u64::MAX - 1));
        assert_eq!(after(1, u64::MAX - 1), None);
        assert_eq!(after(1, u64::MAX), None);
        assert_eq!(after((1 << 63) - (1 << 48) - 1, 0), Some(1));
        assert_eq!(after((1 << 63) - (1 << 48), 0), None);
    }
}
