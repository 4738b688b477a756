//! Copying what a log retains into another ring file: a backup, or a ring of another size.
//!
//! 1. The new ring is written aside, in full, synced, renamed, and the directory synced. Whatever
//!    interrupts a copy, there is the old log, whole, and the new one, whole, or not there.
//! 2. Segments are copied raw, oldest first, and then walked *in the copy*: what a record is
//!    believed by is what the copy has. The copy ends at the first place at which no record
//!    verifies, at the latest behind the segment that was active when it began: a writer that goes
//!    on writing cannot keep it going for ever.
//! 3. A segment's sequence word is looked at before and after it is copied. If the writer has
//!    recycled it meanwhile, everything up to there has been released, and the copy begins further
//!    on.
//! 4. What a checkpoint slot, or evidence in the log, says was durable must be in the copy: else
//!    the log is damaged, and no copy is made of it.
//! 5. The copy's slot says what is true of it: closed in order, durable to its end. The epoch is
//!    that of the log, and so LSNs and positions mean in it what they mean in the log.

mod backup;
mod resize;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub use backup::Backup;
pub use resize::Resized;

use crate::error::{CatalogError, FileError, ReadError};
use crate::files::{RingFile, file_error, unix_ms};
use crate::geometry::{FIRST_RECORD, Geometry, PAGE_SIZE};
use crate::inspect::walk::{SegmentWalk, active_sequence};
use crate::inspect::{self, PieceKind};
use crate::layout::checkpoint::{Boot, CHECKPOINT_SLOT_OFFSETS};
use crate::layout::{Checkpoint, SegmentHeader, SegmentHeaderEvidence, Superblock};
use crate::lsn::Lsn;
use crate::recovery::Head;
use crate::recovery::window::EpochRule;

/// Bytes are copied so many at a time: writes of 4 KiB leave small folios in the page cache, which
/// is what a sync of one page later depends on.
const PIECE_LEN: usize = 256 << 10;

/// A new ring file that is being filled from another one.
struct Copier<'a> {
    source: &'a RingFile,
    head: &'a Head,
    target: &'a File,
    target_path: &'a Path,
    /// Of the target; its segments have the source's size.
    geometry: Geometry,
    buffer: Vec<u8>,
}

/// What a copy holds.
#[derive(Clone, Copy, Debug)]
struct Copied {
    start: Lsn,
    end: Lsn,
    records: u64,
    payload_bytes: u64,
}

/// Why nothing was copied.
enum Failure {
    /// Rule 3, to the end of all that was to be copied; or a new epoch has begun.
    Overtaken,
    Read(ReadError),
    File(FileError),
    Catalog(CatalogError),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        Failure::Read(error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        Failure::File(error)
    }
}

/// What became of a segment.
enum Segment {
    /// It is copied up to here; a record would be found at the end.
    Copied { end: Lsn, epoch: u64 },
    /// The writer has recycled it.
    Gone,
}

impl<'a> Copier<'a> {
    fn new(
        source: &'a RingFile,
        head: &'a Head,
        (target, target_path): (&'a File, &'a Path),
        geometry: Geometry,
    ) -> Copier<'a> {
        let buffer = vec![0; PIECE_LEN];
        Copier { source, head, target, target_path, geometry, buffer }
    }

    /// Copies what is retained, and the head that goes with it. The caller syncs it.
    fn copy(&mut self) -> Result<Copied, Failure> {
        let before = inspect::read_checkpoint(self.source, self.head)?;
        let last = active_sequence(self.source, self.head, &before)?;
        let mut start = self.geometry.normalize(before.trimmed);
        let (mut at, mut epoch, mut proven) = (start, None, before.durable);
        let mut copied = Copied { start, end: start, records: 0, payload_bytes: 0 };
        while self.geometry.sequence(at) <= last {
            let sequence = self.geometry.sequence(at);
            let rule = EpochRule {
                epoch: epoch.unwrap_or_default(),
                first: epoch.is_none(),
                newest: before.epoch,
                newest_start: before.epoch_start,
            };
            match self.segment(at, rule, &mut copied, &mut proven)? {
                Segment::Copied { end, epoch: reached } => {
                    (at, epoch) = (self.geometry.normalize(end), Some(reached));
                    if self.geometry.sequence(at) == sequence {
                        break;
                    }
                }
                Segment::Gone => {
                    let now = inspect::read_checkpoint(self.source, self.head)?;
                    start = self.geometry.normalize(now.trimmed);
                    if self.geometry.sequence(start) > last {
                        return Err(Failure::Overtaken);
                    }
                    self.clear(sequence)?;
                    (at, epoch) = (start, None);
                    copied = Copied { start, end: start, records: 0, payload_bytes: 0 };
                }
            }
        }
        copied.end = at;
        self.finish(copied, &before, proven)
    }

    /// Rules 4 and 5.
    fn finish(&self, copied: Copied, before: &Checkpoint, proven: Lsn) -> Result<Copied, Failure> {
        let now = inspect::read_checkpoint(self.source, self.head)?;
        if now.epoch != before.epoch || now.trimmed > copied.end {
            return Err(Failure::Overtaken);
        }
        if self.geometry.normalize(proven) > copied.end {
            return Err(Failure::Read(ReadError::Damaged {
                lsn: copied.end,
                file_offset: self.head.geometry.file_offset(copied.end),
                reason: "it was durable, and no record verifies here",
            }));
        }
        let checkpoint = Checkpoint {
            generation: now.generation + 1,
            trimmed: copied.start,
            durable: copied.end,
            boot: Boot::default(),
            clean: true,
            poisoned: false,
            written_unix_ms: unix_ms(),
            ..now
        };
        let mut page = vec![0; PAGE_SIZE as usize];
        inspect::read(self.source, 0, &mut page)?;
        self.write(0, &self.superblock(&page))?;
        let older = Checkpoint { generation: now.generation, ..checkpoint };
        for (offset, checkpoint) in CHECKPOINT_SLOT_OFFSETS.into_iter().zip([checkpoint, older]) {
            self.write(offset, &checkpoint.encode(&self.head.log_id))?;
        }
        Ok(copied)
    }

    /// The source's, which has verified, for the target's geometry.
    fn superblock(&self, page: &[u8]) -> Box<[u8]> {
        match Superblock::verify(page) {
            Ok(superblock) if self.geometry != self.head.geometry => {
                Superblock { geometry: self.geometry, ..superblock }.encode()
            }
            // With all that a newer build may have put there.
            _ => page.into(),
        }
    }

    /// Copies the segment of `at`, and walks it from there.
    fn segment(
        &mut self,
        at: Lsn,
        mut rule: EpochRule,
        copied: &mut Copied,
        proven: &mut Lsn,
    ) -> Result<Segment, Failure> {
        let sequence = self.geometry.sequence(at);
        let Some(header) = self.header(sequence)? else { return self.gone(sequence) };
        let from = self.head.geometry.segment_offset(sequence);
        let to = self.geometry.segment_offset(sequence);
        let len = self.geometry.segment_size();
        self.bytes(from, to, len)?;
        if self.header(sequence)?.is_none() {
            return self.gone(sequence);
        }
        if header.epoch < rule.epoch {
            // Prepared before an earlier cut: not used since.
            return Ok(Segment::Copied { end: at, epoch: rule.epoch });
        }
        rule.epoch = header.epoch;
        let target = self.target;
        let read = move |offset, bytes: &mut [u8]| target.read_exact_at(bytes, offset);
        let mut walk = SegmentWalk::new(Box::new(read), self.geometry, self.head.log_id, rule);
        let mut end = at;
        let segment_end = self.geometry.lsn(sequence, self.geometry.record_end());
        while end < segment_end {
            let found = walk.record(end).map_err(file_error("read", self.target_path))?;
            let Ok(piece) = found else { break };
            if matches!(piece.kind, PieceKind::Data | PieceKind::Batch) {
                copied.records += 1;
                copied.payload_bytes += u64::from(piece.payload_len);
            }
            *proven = piece.proven.map_or(*proven, |lsn| lsn.max(*proven));
            end = end + u64::from(piece.space);
        }
        let epoch = walk.epoch();
        let (_, offset) = self.geometry.split(end);
        if offset < self.geometry.record_end() {
            // What is being written behind it is none of the copy's, nor is a footer.
            self.zero(to + u64::from(offset), to + len)?;
        }
        Ok(Segment::Copied { end, epoch })
    }

    /// The segment is not there: released and recycled, or it never was.
    fn gone(&self, sequence: u32) -> Result<Segment, Failure> {
        let now = inspect::read_checkpoint(self.source, self.head)?;
        if self.geometry.sequence(self.geometry.normalize(now.trimmed)) > sequence {
            return Ok(Segment::Gone);
        }
        // The end of the segment before is the end of all there is.
        Ok(Segment::Copied { end: self.geometry.first_record(sequence), epoch: now.epoch })
    }

    fn header(&self, sequence: u32) -> Result<Option<SegmentHeader>, Failure> {
        let mut bytes = [0; FIRST_RECORD as usize];
        inspect::read(self.source, self.head.geometry.segment_offset(sequence), &mut bytes)?;
        let base = self.geometry.lsn(sequence, 0);
        match SegmentHeader::verify(&bytes, &self.head.log_id, sequence, base) {
            SegmentHeaderEvidence::Expected(header) => Ok(Some(header)),
            _ => Ok(None),
        }
    }

    fn clear(&self, sequence: u32) -> Result<(), FileError> {
        let start = self.geometry.segment_offset(sequence);
        self.zero(start, start + self.geometry.segment_size())
    }

    fn bytes(&mut self, mut from: u64, mut to: u64, len: u64) -> Result<(), Failure> {
        let end = from + len;
        let mut buffer = std::mem::take(&mut self.buffer);
        while from < end {
            let len = (end - from).min(buffer.len() as u64);
            let piece = &mut buffer[..len as usize];
            inspect::read(self.source, from, piece)?;
            self.write(to, piece)?;
            (from, to) = (from + len, to + len);
        }
        self.buffer = buffer;
        Ok(())
    }

    fn zero(&self, from: u64, to: u64) -> Result<(), FileError> {
        let zeros = [0; PAGE_SIZE as usize];
        let mut at = from;
        while at < to {
            let len = (to - at).min(PAGE_SIZE - at % PAGE_SIZE);
            self.write(at, &zeros[..len as usize])?;
            at += len;
        }
        Ok(())
    }

    /// In pages, as a creation writes.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut at = offset;
        for page in bytes.chunks(PAGE_SIZE as usize) {
            let written = self.target.write_all_at(page, at);
            written.map_err(file_error("write", self.target_path))?;
            at += page.len() as u64;
        }
        Ok(())
    }
}
