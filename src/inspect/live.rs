//! Looking again and again at a log that another process writes: what changes, without walking all
//! of it each time.
//!
//! 1. A look reads the checkpoint slots and the front of each segment, and walks from where the
//!    last look ended. If the writer is too far ahead, it jumps to the segment that is being
//!    filled: positions are exact all the same, and only records are not counted.
//! 2. What is claimed and not committed is found by the marks that owners leave. How old a claim is
//!    cannot be seen from outside; since when it has been seen, can.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::walk::{SegmentWalk, active_sequence};
use super::{Observer, PieceKind, SegmentStat, read, read_checkpoint};
use crate::error::{OpenError, ReadError};
use crate::files::{self, file_error};
use crate::geometry::FIRST_RECORD;
use crate::layout::record::aligned_len;
use crate::layout::{Checkpoint, SegmentHeader, SegmentHeaderEvidence};
use crate::lsn::Lsn;
use crate::recovery::window::{EpochRule, Evidence};
use crate::sync;

/// So many segments are walked in one look; beyond, it jumps.
const SEGMENTS_WALKED_MAX: u32 = 8;
/// So many open claims are listed.
const CLAIMS_MAX: usize = 64;

/// A claim that is not committed, as it is seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenClaim {
    /// Where it starts.
    pub lsn: Lsn,
    /// The space that it takes, in bytes.
    pub bytes: u32,
    /// How long it has been seen by this view; it may be older.
    pub age: Duration,
    /// Records behind it are committed, and wait for it.
    pub is_hole: bool,
}

/// What a look has found. Positions are LSNs, sizes are bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Live {
    /// Everything below has been released, as the newest checkpoint slot says.
    pub trimmed: Lsn,
    /// Everything below is proven durable, by a slot or by evidence in the log. The writer may know
    /// of more.
    pub durable: Lsn,
    /// The end of the committed prefix.
    pub committed: Lsn,
    /// The end of the last claim that can be seen.
    pub claimed: Lsn,
    /// The newest incarnation.
    pub epoch: u64,
    /// It was closed in order.
    pub clean_shutdown: bool,
    /// A sync has failed.
    pub poisoned: bool,
    /// The process that has it open for writing.
    pub writer: Option<u32>,
    /// Claims that are not committed, oldest first; at most 64.
    pub claims: Vec<OpenClaim>,
    /// Callers' records that were walked since the view was opened.
    pub records: u64,
    /// The bytes of log that were walked for that.
    pub walked: u64,
    /// Each place in the ring.
    pub segment_map: Vec<SegmentStat>,
}

/// A view of a log that is looked at again and again. See [`look`](LiveView::look).
#[derive(Debug)]
pub struct LiveView {
    observer: Observer,
    /// The end of the committed prefix at the last look.
    at: Option<Lsn>,
    /// Of the records before it.
    epoch: u64,
    /// The newest epoch at the last look.
    newest: u64,
    proven: Lsn,
    records: u64,
    walked: u64,
    /// The claims of the last look, and when they were first seen.
    seen: Vec<(Lsn, std::time::Instant)>,
}

impl LiveView {
    /// Opens a view of the log in `dir`.
    ///
    /// # Errors
    ///
    /// As [`Observer::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<LiveView, OpenError> {
        let observer = Observer::open(dir)?;
        let (proven, seen) = (Lsn::ZERO, Vec::new());
        let (epoch, newest, records, walked) = (0, 0, 0, 0);
        Ok(LiveView { observer, at: None, epoch, newest, proven, records, walked, seen })
    }

    /// The observer of the same log.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Looks at the log as it is now. The first look begins at the segment that is being filled.
    ///
    /// # Errors
    ///
    /// The system refuses to read, or neither checkpoint slot can be read.
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::inspect::LiveView;
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path().join("log");
    /// let wal = Wal::create(&dir, Geometry::new(1 << 20, 1 << 18)?, Options::new())?;
    /// // Here or in another process:
    /// let mut view = LiveView::open(&dir)?;
    /// let before = view.look()?;
    /// wal.append(b"apples")?;
    /// let open = wal.reserve(100)?;
    /// let after = view.look()?;
    /// assert_eq!(after.records - before.records, 1);
    /// assert_eq!((after.committed, after.claims[0].lsn), (open.lsn(), open.lsn()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn look(&mut self) -> Result<Live, ReadError> {
        let checkpoint = read_checkpoint(&self.observer.ring, &self.observer.head)?;
        let active = active_sequence(&self.observer.ring, &self.observer.head, &checkpoint)?;
        let geometry = self.observer.head.geometry;
        let trimmed = geometry.normalize(checkpoint.trimmed);
        // Rule 1.
        let near = self.at.filter(|at| {
            let sequence = geometry.sequence(*at);
            let is_near = sequence + SEGMENTS_WALKED_MAX > active;
            self.newest == checkpoint.epoch && *at >= trimmed && is_near
        });
        let mut at = near.unwrap_or_else(|| geometry.first_record(active).max(trimmed));
        let mut is_resumed = near.is_some();
        self.newest = checkpoint.epoch;
        let mut claims = Vec::new();
        loop {
            let sequence = geometry.sequence(at);
            let (end, epoch) = self.walk(at, is_resumed, &checkpoint, &mut claims)?;
            (at, is_resumed) = (geometry.normalize(end), true);
            self.epoch = epoch;
            if geometry.sequence(at) == sequence || geometry.sequence(at) > active {
                break;
            }
        }
        self.at = Some(at);
        let claims = self.note_claims(claims);
        let last = claims.last().map(|claim| claim.lsn + u64::from(claim.bytes));
        Ok(Live {
            trimmed,
            durable: self.proven.max(checkpoint.durable).min(at),
            committed: at,
            claimed: last.map_or(at, |last| last.max(at)),
            epoch: checkpoint.epoch,
            clean_shutdown: checkpoint.clean,
            poisoned: checkpoint.poisoned,
            writer: files::writer_of(&self.observer.dir),
            claims,
            records: self.records,
            walked: self.walked,
            segment_map: self.observer.segment_map(trimmed, at)?,
        })
    }

    /// Walks the segment of `from` from there, to the end of what is committed, and looks for
    /// claims behind it. Returns the end, and the epoch of the last record.
    fn walk(
        &mut self,
        from: Lsn,
        is_resumed: bool,
        checkpoint: &Checkpoint,
        claims: &mut Vec<OpenClaim>,
    ) -> Result<(Lsn, u64), ReadError> {
        let Observer { ring, head, .. } = &self.observer;
        let geometry = head.geometry;
        let sequence = geometry.sequence(from);
        let mut bytes = [0; FIRST_RECORD as usize];
        read(ring, geometry.segment_offset(sequence), &mut bytes)?;
        let base = geometry.lsn(sequence, 0);
        let header = match SegmentHeader::verify(&bytes, &head.log_id, sequence, base) {
            SegmentHeaderEvidence::Expected(header) => header,
            _ => return Ok((from, self.epoch)),
        };
        let is_first = from == geometry.first_record(sequence);
        let rule = EpochRule {
            epoch: if is_resumed && !is_first { self.epoch } else { header.epoch },
            first: !is_resumed,
            newest: checkpoint.epoch,
            newest_start: checkpoint.epoch_start,
        };
        let source = |offset, bytes: &mut [u8]| ring.file.read_exact_at(bytes, offset);
        let mut walk = SegmentWalk::new(Box::new(source), geometry, head.log_id, rule);
        let failed = |error| ReadError::File(file_error("read", &ring.path)(error));
        let segment_end = geometry.lsn(sequence, geometry.record_end());
        let (mut at, mut committed) = (from, None);
        while at < segment_end && claims.len() < CLAIMS_MAX {
            match walk.record(at).map_err(failed)? {
                Ok(piece) => {
                    if committed.is_some() {
                        claims.iter_mut().for_each(|claim| claim.is_hole = true);
                    } else {
                        let is_callers = matches!(piece.kind, PieceKind::Data | PieceKind::Batch);
                        self.records += u64::from(is_callers);
                        self.proven = piece.proven.map_or(self.proven, |lsn| lsn.max(self.proven));
                    }
                    at = at + u64::from(piece.space);
                }
                Err(Evidence::Claimed(len)) => {
                    committed.get_or_insert((at, walk.epoch()));
                    let space = aligned_len(len);
                    let age = Duration::ZERO;
                    claims.push(OpenClaim { lsn: at, bytes: space, age, is_hole: false });
                    at = at + u64::from(space);
                }
                Err(_) => break,
            }
        }
        let (end, epoch) = committed.unwrap_or((at, walk.epoch()));
        self.walked += end - from;
        Ok((end, epoch))
    }

    /// Rule 2.
    fn note_claims(&mut self, mut claims: Vec<OpenClaim>) -> Vec<OpenClaim> {
        let now = sync::now();
        let before = std::mem::take(&mut self.seen);
        for claim in &mut claims {
            let known = before.iter().find(|(lsn, _)| *lsn == claim.lsn);
            let since = known.map_or(now, |(_, since)| *since);
            claim.age = now - since;
            self.seen.push((claim.lsn, since));
        }
        claims
    }
}
