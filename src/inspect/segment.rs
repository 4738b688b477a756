//! One segment as it lies in the file: header, what follows it piece by piece, footer.
//!
//! 1. A segment is walked from its first record, whether it is retained or not, and each piece is
//!    what its bytes verify as, under the epochs that its header and its control records say.
//! 2. Where nothing verifies there is a gap: as long as a claim says, else up to the next place at
//!    which a record verifies, else up to the record end.
//! 3. The segment's sequence word is looked at again at the end. If it has changed, the writer has
//!    recycled the segment meanwhile, and what was seen is of two laps.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use super::walk::SegmentWalk;
use super::{Observer, read, read_checkpoint, read_settled_checkpoint};
use crate::error::{FileError, ReadError};
use crate::files::file_error;
use crate::geometry::FIRST_RECORD;
use crate::layout::record::{CONTROL_DURABLE, CONTROL_EPOCH, CONTROL_GAP};
use crate::layout::{Footer, RecordKind, SegmentHeader, SegmentHeaderEvidence, Tag};
use crate::lsn::Lsn;
use crate::parity::ParityFile;
use crate::recovery::window::EpochRule;
use crate::stream_id::StreamId;

/// What a piece of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PieceKind {
    /// A caller's record.
    Data,
    /// A caller's batch.
    Batch,
    /// Filler: an abandoned reservation, or the rest of a segment.
    Pad,
    /// The log's own: an epoch begins.
    EpochStart,
    /// The log's own: a sync has left word of what was durable.
    Evidence,
    /// The log's own: a repair has left it where records were damaged.
    Gap,
    /// The log's own, of a kind that this build passes over.
    OtherControl,
    /// Nothing was written here.
    Nothing,
    /// A claim that is not committed.
    Claim,
    /// A record whose checksum does not match its bytes.
    BadChecksum,
    /// A length that no record has here.
    ImpossibleLength,
    /// A record of an epoch before its predecessor's, or from before a cut: it does not count.
    Stale,
}

impl PieceKind {
    /// Does it verify?
    #[must_use]
    pub fn is_record(self) -> bool {
        !self.is_gap()
    }

    /// Is it a place at which no record counts?
    #[must_use]
    pub fn is_gap(self) -> bool {
        use PieceKind::{BadChecksum, Claim, ImpossibleLength, Nothing, Stale};
        matches!(self, Nothing | Claim | BadChecksum | ImpossibleLength | Stale)
    }

    pub(super) fn of(tag: Tag) -> PieceKind {
        match tag.kind() {
            Some(RecordKind::Batch) => PieceKind::Batch,
            Some(RecordKind::Pad) => PieceKind::Pad,
            Some(RecordKind::Control) if tag.is_control(CONTROL_EPOCH) => PieceKind::EpochStart,
            Some(RecordKind::Control) if tag.is_control(CONTROL_DURABLE) => PieceKind::Evidence,
            Some(RecordKind::Control) if tag.is_control(CONTROL_GAP) => PieceKind::Gap,
            Some(RecordKind::Control) => PieceKind::OtherControl,
            _ => PieceKind::Data,
        }
    }
}

impl std::fmt::Display for PieceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PieceKind::Data => "data",
            PieceKind::Batch => "batch",
            PieceKind::Pad => "pad",
            PieceKind::EpochStart => "epoch start",
            PieceKind::Evidence => "durable evidence",
            PieceKind::Gap => "gap",
            PieceKind::OtherControl => "other control",
            PieceKind::Nothing => "nothing",
            PieceKind::Claim => "open claim",
            PieceKind::BadChecksum => "checksum mismatch",
            PieceKind::ImpossibleLength => "impossible length",
            PieceKind::Stale => "stale",
        })
    }
}

/// A record, or a gap between records. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// Where it starts.
    pub lsn: Lsn,
    /// The space that it takes.
    pub space: u32,
    /// What it is.
    pub kind: PieceKind,
    /// A record's length, header included; 0 for a gap.
    pub record_len: u32,
    /// The epoch of the records here.
    pub epoch: u64,
    /// The stream that it says it is of.
    pub stream: Option<StreamId>,
    /// Of a caller's record: its payload, in bytes, without a producer's stamp.
    pub payload_len: u32,
    /// Of durable evidence: everything below was on the medium when it was left.
    pub proven: Option<Lsn>,
}

/// What a footer says of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentFooter {
    /// The epoch that wrote it.
    pub epoch: u64,
    /// Callers' records.
    pub records: u64,
    /// Their payload, in bytes.
    pub payload_bytes: u64,
    /// The first of them.
    pub first: Option<Lsn>,
    /// The last of them.
    pub last: Option<Lsn>,
    /// How many idempotent producers have records in the segment; `None` if there were too many to
    /// list.
    pub producers: Option<u32>,
}

/// A segment as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentDetail {
    /// Its place in the ring, from 0.
    pub slot: u32,
    /// Its sequence number.
    pub sequence: u32,
    /// Where it begins in the ring file, in bytes.
    pub file_offset: u64,
    /// LSN of its first byte.
    pub base: Lsn,
    /// The epoch that prepared it.
    pub epoch: u64,
    /// When that was, in milliseconds since 1970.
    pub prepared_unix_ms: u64,
    /// Its footer, if there is one that verifies.
    pub footer: Option<SegmentFooter>,
    /// It is protected by [parity](crate::Options::parity): a repair gives back what a page of it
    /// has lost.
    pub is_protected: bool,
}

impl Observer {
    /// Walks segment `sequence` from its first record to its end: every record, the log's own too,
    /// and every gap, until `visit` breaks.
    ///
    /// # Errors
    ///
    /// [`ReadError::Overwritten`] or [`ReadError::NotYet`] if the ring does not hold the segment
    /// any more or yet, [`ReadError::Damaged`] if its header does not verify, and the system's
    /// refusals to read.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use kaelix_wal::inspect::{Observer, PieceKind};
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path().join("log");
    /// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
    /// let wal = Wal::create(&dir, geometry, Options::new())?;
    /// wal.append(b"apples")?;
    /// let mut kinds = Vec::new();
    /// Observer::open(&dir)?.segment(0, |piece| {
    ///     kinds.push(piece.kind);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(kinds, [PieceKind::EpochStart, PieceKind::Data, PieceKind::Nothing]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn segment(
        &self,
        sequence: u32,
        mut visit: impl FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<SegmentDetail, ReadError> {
        let geometry = self.head.geometry;
        let header = self.segment_header(sequence)?;
        let checkpoint = read_checkpoint(&self.ring, &self.head)?;
        let source = |offset, bytes: &mut [u8]| self.ring.file.read_exact_at(bytes, offset);
        let rule = EpochRule {
            epoch: header.epoch,
            first: false,
            newest: checkpoint.epoch,
            newest_start: checkpoint.epoch_start,
        };
        let mut walk = SegmentWalk::new(Box::new(source), geometry, self.head.log_id, rule);
        let failed = |error| -> FileError { file_error("read", &self.ring.path)(error) };
        let footer = walk.footer(sequence).map_err(failed)?;
        let mut at = FIRST_RECORD;
        while at < geometry.record_end() {
            let piece = walk.piece(geometry.lsn(sequence, at)).map_err(failed)?;
            at += piece.space;
            if visit(piece).is_break() {
                break;
            }
        }
        // Rule 3.
        self.segment_header(sequence)?;
        Ok(SegmentDetail {
            slot: geometry.slot(sequence),
            sequence,
            file_offset: geometry.segment_offset(sequence),
            base: header.base,
            epoch: header.epoch,
            prepared_unix_ms: header.prepared_unix_ms,
            footer: footer.as_ref().map(describe),
            is_protected: footer.is_some_and(|footer| self.is_protected(sequence, &footer)),
        })
    }

    /// Has the segment with this footer parity that counts? A parity file that cannot be read has
    /// none.
    fn is_protected(&self, sequence: u32, footer: &Footer) -> bool {
        let file = ParityFile::open(&self.dir, self.head.log_id, self.head.geometry);
        file.ok().flatten().is_some_and(|file| file.table(sequence, footer).is_ok())
    }

    /// The header of segment `sequence`, if that is in the ring.
    fn segment_header(&self, sequence: u32) -> Result<SegmentHeader, ReadError> {
        let geometry = self.head.geometry;
        let mut bytes = [0; FIRST_RECORD as usize];
        let file_offset = geometry.segment_offset(sequence);
        read(&self.ring, file_offset, &mut bytes)?;
        let (log_id, base) = (&self.head.log_id, geometry.lsn(sequence, 0));
        let found = SegmentHeader::verify(&bytes, log_id, sequence, base);
        if let SegmentHeaderEvidence::Expected(header) = found {
            return Ok(header);
        }
        // What was released may be used again at any time, from its header on.
        let checkpoint = read_settled_checkpoint(&self.ring, &self.head)?;
        let (lsn, oldest) =
            (geometry.first_record(sequence), geometry.normalize(checkpoint.trimmed));
        if matches!(found, SegmentHeaderEvidence::Newer(_)) || geometry.sequence(oldest) > sequence
        {
            return Err(ReadError::Overwritten { lsn, oldest });
        }
        if matches!(found, SegmentHeaderEvidence::Garbage) {
            let reason = "its segment's header does not verify";
            return Err(ReadError::Damaged { lsn, file_offset, reason });
        }
        Err(ReadError::NotYet { lsn, end: checkpoint.durable })
    }
}

fn describe(footer: &Footer) -> SegmentFooter {
    let contents = footer.contents;
    let position = |lsn: Lsn| (contents.records > 0).then_some(lsn);
    SegmentFooter {
        epoch: footer.epoch,
        records: contents.records,
        payload_bytes: contents.payload_bytes,
        first: position(contents.first),
        last: position(contents.last),
        producers: footer.producers.listed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, Geometry, Options, Wal};

    /// Bytes for a segment's header in the file, and what is said of the segment then.
    #[test]
    fn what_does_not_verify_is_damaged_only_while_it_is_retained() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path().join("log");
        let geometry = Geometry::new(256 << 10, 64 << 10).expect("in bounds");
        let options = Options::new().durability(Durability::OnDemand);
        let wal = Wal::create(&dir, geometry, options).expect("a new log");
        let third = geometry.first_record(2);
        let mut oldest = wal.append(&[1; 1000]).expect("there is room");
        while oldest < third {
            oldest = wal.append(&[1; 1000]).expect("there is room");
        }
        wal.checkpoint(oldest).expect("a record starts there");
        wal.close().expect("it has not failed");
        let observer = Observer::open(&dir).expect("it is there");
        let ring = std::fs::OpenOptions::new().write(true).open(&observer.ring.path);
        let ring = ring.expect("it can be written");
        let said = |sequence, header: [u8; FIRST_RECORD as usize]| {
            let offset = geometry.segment_offset(sequence);
            ring.write_all_at(&header, offset).expect("it is written");
            observer.segment(sequence, |_| ControlFlow::Continue(())).expect_err("not a header")
        };
        for header in [[0; FIRST_RECORD as usize], [7; FIRST_RECORD as usize]] {
            let found = said(1, header);
            assert!(matches!(found, ReadError::Overwritten { .. }), "{found}");
        }
        let found = said(2, [7; FIRST_RECORD as usize]);
        assert!(matches!(found, ReadError::Damaged { .. }), "{found}");
        let found = said(3, [0; FIRST_RECORD as usize]);
        assert!(matches!(found, ReadError::NotYet { .. }), "{found}");
    }
}
