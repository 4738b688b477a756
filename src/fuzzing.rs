//! What the targets in `fuzz/` are made of; there only with the feature `fuzzing`.
//!
//! A [`Machine`] is a simulated [`Disk`] with bytes of any kind and length, on which the shipped
//! recovery and the shipped log run, threads included. The functions beside it judge the bytes of
//! one structure, as recovery does.

use std::ops::Deref;
use std::path::Path;

use crate::error::OpenError;
use crate::files::file_error;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::parity::ParityPlaces;
use crate::layout::{self, Checkpoint, LogId, SegmentHeader, SegmentHeaderEvidence, Superblock};
use crate::lsn::{EpochLsn, Lsn};
use crate::options::Options;
use crate::recovery::window::{EpochRule, Evidence, Window};
use crate::recovery::{self, ReadAt};
use crate::region::{Backing, Region};
use crate::simulation::{Disk, boot};
pub use crate::stream::fuzzing::{Entry, StoredCatalog, Stream, catalog, catalog_image};
use crate::sync::Arc;
use crate::wal::Wal;

/// A simulated machine with a log's ring file on its disk.
pub struct Machine {
    disk: Arc<Disk>,
    len: u64,
}

impl Machine {
    /// Starts with `image` on its disk, of whatever bytes and length.
    #[must_use]
    pub fn new(mut image: Vec<u8>) -> Machine {
        let len = image.len() as u64;
        image.resize(image.len().max(1).next_multiple_of(PAGE_SIZE as usize), 0);
        Machine { disk: Disk::new(image), len }
    }

    /// Opens the log, as a process of boot `number`; 0 is a machine without boot ids.
    ///
    /// # Errors
    ///
    /// As [`Wal::open`].
    pub fn open(&self, number: u8, options: Options) -> Result<Wal, OpenError> {
        let path = Path::new("simulated");
        let read: ReadAt<'_> = Box::new(|offset, bytes| self.disk.read_at(offset, bytes));
        let head = recovery::verify_head(&read, self.len, path)?;
        let region = Region::new(self.disk.clone());
        let wal = Wal::recover(region, &head, boot(number), options, None, path, None)?;
        wal.spawn_threads().map_err(file_error("start a thread for", path))?;
        Ok(wal)
    }
}

impl Deref for Machine {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.disk
    }
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

/// A consumer table, its fields as in `docs/format.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsumerTable {
    pub generation: u64,
    pub epoch: u64,
    pub durable: Lsn,
    pub starts: Vec<EpochLsn>,
    /// Name, position, and what has cut it.
    pub consumers: Vec<(String, EpochLsn, Option<EpochLsn>)>,
}

/// A consumer table, if `copy` is believed.
#[must_use]
pub fn consumer_table(copy: &[u8], log_id: &LogId, geometry: &Geometry) -> Option<ConsumerTable> {
    let table = layout::ConsumerTable::verify(copy, log_id, geometry).ok()?;
    let layout::ConsumerTable { generation, epoch, durable, starts, consumers } = table;
    let consumers = consumers.into_iter().map(|of| (of.name, of.position, of.cut)).collect();
    Some(ConsumerTable { generation, epoch, durable, starts, consumers })
}

/// The bytes of a consumer table.
#[must_use]
pub fn write_consumer_table(table: &ConsumerTable, log_id: &LogId) -> Vec<u8> {
    let ConsumerTable { generation, epoch, durable, starts, consumers } = table.clone();
    let consumers = consumers.into_iter();
    let consumers = consumers
        .map(|(name, position, cut)| layout::StoredConsumer { name, position, cut })
        .collect();
    layout::ConsumerTable { generation, epoch, durable, starts, consumers }.encode(log_id)
}

/// A parity table, its fields as in `docs/format.md`; the checksums of pages and of parity pages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ParityTable {
    pub epoch: u64,
    pub roll_up: u32,
    pub pages: Vec<u32>,
    pub groups: Vec<u32>,
}

/// The parity table of segment `sequence` in `bytes`, if it is believed.
#[must_use]
pub fn parity_table(
    bytes: &[u8],
    log_id: &LogId,
    geometry: &Geometry,
    sequence: u32,
) -> Option<ParityTable> {
    let (places, base) = (ParityPlaces::new(*geometry), geometry.lsn(sequence, 0));
    let table = layout::parity::ParityTable::verify(bytes, log_id, &places, base).ok()?;
    let layout::parity::ParityTable { epoch, roll_up, pages, groups } = table;
    Some(ParityTable { epoch, roll_up, pages, groups })
}

/// The bytes that the library writes for a parity table of segment `sequence`.
#[must_use]
pub fn write_parity_table(
    table: &ParityTable,
    log_id: &LogId,
    geometry: &Geometry,
    sequence: u32,
) -> Vec<u8> {
    let ParityTable { epoch, roll_up, pages, groups } = table.clone();
    let table = layout::parity::ParityTable { epoch, roll_up, pages, groups };
    table.encode(log_id, geometry.lsn(sequence, 0))
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
