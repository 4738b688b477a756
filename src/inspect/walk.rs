//! Walking one segment, in whatever file it lies.

use std::io;

use super::{Piece, PieceKind, read};
use crate::error::ReadError;
use crate::files::RingFile;
use crate::geometry::{FIRST_RECORD, Geometry, RECORD_ALIGN, RECORD_HEADER_LEN};
use crate::layout::record::aligned_len;
use crate::layout::stamp::STAMP_LEN;
use crate::layout::{Checkpoint, Footer, LogId, SegmentHeader, SegmentHeaderEvidence};
use crate::lsn::Lsn;
use crate::recovery::window::{EpochRule, Evidence, Window};
use crate::recovery::{Head, ReadAt};

/// A walk over a segment's records.
pub(crate) struct SegmentWalk<'a> {
    geometry: Geometry,
    window: Window<'a>,
    rule: EpochRule,
}

impl<'a> SegmentWalk<'a> {
    /// A walk over what `read` reads. `rule` says of which epoch the first record may be.
    pub(crate) fn new(
        read: ReadAt<'a>,
        geometry: Geometry,
        log_id: LogId,
        rule: EpochRule,
    ) -> SegmentWalk<'a> {
        SegmentWalk { window: Window::new(read, geometry, log_id), geometry, rule }
    }

    /// The epoch of the last record.
    pub(crate) fn epoch(&self) -> u64 {
        self.rule.epoch
    }

    pub(crate) fn footer(&mut self, sequence: u32) -> io::Result<Option<Footer>> {
        self.window.any_footer(sequence)
    }

    /// The record that starts at `lsn`, which lies before its segment's record end. If none does,
    /// what does instead.
    pub(crate) fn record(&mut self, lsn: Lsn) -> io::Result<Result<Piece, Evidence>> {
        let evidence = self.window.examine(lsn, &self.rule)?;
        let Evidence::Valid { record_len, tag, epoch, .. } = evidence else {
            return Ok(Err(evidence));
        };
        self.rule.epoch = epoch;
        self.rule.first = false;
        let kind = PieceKind::of(tag);
        let is_callers = tag.is_callers();
        let stamp_len = if tag.is_stamped() { STAMP_LEN } else { 0 };
        let payload_len = record_len - (RECORD_HEADER_LEN + stamp_len) as u32;
        let distance = u64::from(tag.number()) * RECORD_ALIGN;
        let proven = Lsn::new(lsn.get().saturating_sub(distance));
        Ok(Ok(Piece {
            lsn,
            space: aligned_len(record_len),
            kind,
            record_len,
            epoch,
            stream: tag.stream().filter(|_| is_callers),
            payload_len: if is_callers { payload_len } else { 0 },
            proven: (kind == PieceKind::Evidence).then_some(proven),
        }))
    }

    /// What starts at `lsn`.
    pub(crate) fn piece(&mut self, lsn: Lsn) -> io::Result<Piece> {
        let evidence = match self.record(lsn)? {
            Ok(piece) => return Ok(piece),
            Err(evidence) => evidence,
        };
        let epoch = self.rule.epoch;
        let gap = |kind, space| Piece {
            lsn,
            space,
            kind,
            record_len: 0,
            epoch,
            stream: None,
            payload_len: 0,
            proven: None,
        };
        let kind = match evidence {
            Evidence::Claimed(len) => return Ok(gap(PieceKind::Claim, aligned_len(len))),
            Evidence::Zero => PieceKind::Nothing,
            Evidence::Valid { .. } | Evidence::BadCrc => PieceKind::BadChecksum,
            Evidence::ImpossibleLength => PieceKind::ImpossibleLength,
            Evidence::EpochBackwards => PieceKind::Stale,
        };
        let mut piece = gap(kind, RECORD_ALIGN as u32);
        piece.space = self.gap_len(lsn, kind)?;
        Ok(piece)
    }

    /// Rule 2.
    fn gap_len(&mut self, lsn: Lsn, kind: PieceKind) -> io::Result<u32> {
        let mut len = RECORD_ALIGN as u32;
        loop {
            let next = lsn + u64::from(len);
            let (_, offset) = self.geometry.split(next);
            if offset >= self.geometry.record_end() {
                return Ok(len);
            }
            match self.window.examine(next, &self.rule)? {
                Evidence::Valid { .. } | Evidence::Claimed(_) => return Ok(len),
                // What follows nothing is worth a piece of its own.
                evidence if kind == PieceKind::Nothing && evidence != Evidence::Zero => {
                    return Ok(len);
                }
                _ => len += RECORD_ALIGN as u32,
            }
        }
    }
}

/// The last segment in which something was written, or else the first that is retained. Looks at
/// the front of each.
pub(crate) fn active_sequence(
    ring: &RingFile,
    head: &Head,
    checkpoint: &Checkpoint,
) -> Result<u32, ReadError> {
    let geometry = head.geometry;
    let oldest = geometry.sequence(geometry.normalize(checkpoint.trimmed));
    let mut active = oldest;
    for slot in 0..geometry.segments() {
        let mut bytes = [0; FIRST_RECORD as usize + 8];
        read(ring, geometry.slot_offset(slot), &mut bytes)?;
        let (header, word) = bytes.split_at(FIRST_RECORD as usize);
        // Whatever lap it is of: the header says.
        let evidence = SegmentHeader::verify(header, &head.log_id, u32::MAX, Lsn::ZERO);
        if let SegmentHeaderEvidence::Older(header) = evidence
            && word != [0; 8]
        {
            active = active.max(header.sequence);
        }
    }
    Ok(active)
}
