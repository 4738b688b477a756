//! Reading a log's records from outside, as verified copies.

use std::fmt;
use std::os::unix::fs::FileExt;

use super::{read, read_checkpoint, read_settled_checkpoint};
use crate::error::ReadError;
use crate::files::{RingFile, file_error};
use crate::geometry::{FIRST_RECORD, RECORD_HEADER_LEN};
use crate::layout::record::{CONTROL_DURABLE, CONTROL_GAP, aligned_len};
use crate::layout::stamp::body;
use crate::layout::{Checkpoint, Entries, Origin, RecordKind, SegmentHeaderEvidence, Stamp, Tag};
use crate::lsn::Lsn;
use crate::producer_id::ProducerId;
use crate::recovery::Head;
use crate::recovery::window::{EpochRule, Evidence, Window};
use crate::stream_id::StreamId;
use crate::sync::Arc;

/// Reads a log's records in order, from outside.
pub struct Cursor {
    ring: Arc<RingFile>,
    head: Head,
    checkpoint: Checkpoint,
    window: Window<'static>,
    at: Lsn,
    /// The end of the last record that was shown, or where the cursor started.
    shown: Lsn,
    /// The epoch of the record before, and whether there was one.
    epoch: u64,
    first: bool,
    /// The segment that the cursor is in, and the epoch with which it came there.
    entered: Option<(u32, u64)>,
    /// As that of a [`Reader`](crate::Reader).
    copied_below: Lsn,
    /// That segment's header verified, and nothing was forgotten since.
    header_verified: bool,
    /// `window.reads()` when the segment's sequence word was last found unchanged.
    checked_reads: u64,
    /// The highest position that evidence in the log says was durable.
    pub(super) proven: Lsn,
}

/// A record, copied out of the log and verified.
#[derive(Clone, Copy, Debug)]
pub struct ObservedRecord<'c> {
    lsn: Lsn,
    next_lsn: Lsn,
    tag: Tag,
    epoch: u64,
    /// With the producer's stamp, if it has one.
    bytes: &'c [u8],
}

impl ObservedRecord<'_> {
    /// Where the record starts.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Where the record ends.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// The epoch that wrote it. An LSN may be used again by a later epoch, after a recovery has cut
    /// the log; the two together are never used again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Was it appended as a batch, whose [entries](ObservedRecord::entries) are all or none?
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.tag.kind() == Some(RecordKind::Batch)
    }

    /// The stream that the record belongs to, as [`Record::stream`](crate::Record::stream).
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        self.tag.stream()
    }

    /// The record's entries, as [`Record::entries`](crate::Record::entries).
    pub fn entries(&self) -> Entries<'_> {
        Entries::of(self.tag, self.payload())
    }

    /// Where it was appended first, as [`Record::moved_from`](crate::Record::moved_from).
    #[must_use]
    pub fn moved_from(&self) -> Option<Lsn> {
        Origin::of(self.tag, self.bytes).map(|origin| origin.first)
    }

    /// The producer, as [`Record::producer`](crate::Record::producer).
    #[must_use]
    pub fn producer(&self) -> Option<(ProducerId, u64)> {
        Stamp::of(self.tag, self.bytes).map(|stamp| (stamp.producer, stamp.sequence))
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        body(self.tag, self.bytes)
    }
}

/// A record found at a cursor's position.
struct Step {
    lsn: Lsn,
    record_len: u32,
    tag: Tag,
}

impl Cursor {
    pub(super) fn new(ring: RingFile, head: Head, checkpoint: Checkpoint, at: Lsn) -> Cursor {
        let ring = Arc::new(ring);
        let source = ring.clone();
        let read =
            Box::new(move |offset, bytes: &mut [u8]| source.file.read_exact_at(bytes, offset));
        Cursor {
            ring,
            head,
            checkpoint,
            window: Window::new(read, head.geometry, head.log_id),
            at,
            shown: at,
            epoch: 0,
            first: true,
            entered: None,
            copied_below: Lsn::ZERO,
            header_verified: false,
            checked_reads: 0,
            proven: Lsn::ZERO,
        }
    }

    /// Where the next record is looked for.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// The next record; `None` if there is none for now.
    ///
    /// # Errors
    ///
    /// [`ReadError::Overwritten`] if the writer has recycled the position (go on from `oldest`),
    /// [`ReadError::Cut`] if a recovery cut the log below it, [`ReadError::Damaged`] if what was
    /// proven durable does not verify, [`ReadError::Gap`] where a repair has left one: the cursor
    /// goes on behind it.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<ObservedRecord<'_>>, ReadError> {
        self.step()?.map(|step| self.show(step)).transpose()
    }

    /// The record that was found last.
    fn show(&mut self, step: Step) -> Result<ObservedRecord<'_>, ReadError> {
        let (next_lsn, epoch) = (self.at, self.epoch);
        let Step { lsn, tag, .. } = step;
        Ok(ObservedRecord { lsn, next_lsn, tag, epoch, bytes: self.payload(&step)? })
    }

    /// The payload of the record that was found last. It is not read again: the record was examined
    /// as a whole.
    fn payload(&mut self, step: &Step) -> Result<&[u8], ReadError> {
        let offset = self.head.geometry.file_offset(step.lsn) + RECORD_HEADER_LEN as u64;
        let len = u64::from(step.record_len) - RECORD_HEADER_LEN as u64;
        let bytes = self.window.bytes(offset, len, offset + len);
        Ok(bytes.map_err(file_error("read", &self.ring.path))?)
    }

    /// Is it a copy of what was shown, or lies below what was asked for?
    fn is_hidden(&mut self, step: &Step) -> Result<bool, ReadError> {
        if !step.tag.is_moved() {
            return Ok(false);
        }
        let below = self.copied_below;
        let origin = Origin::of(step.tag, self.payload(step)?);
        Ok(origin.is_some_and(|origin| origin.previous >= below))
    }

    /// Shows copies of [moved](crate::Stream::move_forward) records that lay below `position`.
    pub(super) fn with_copies_below(self, position: Lsn) -> Cursor {
        Cursor { copied_below: position, ..self }
    }

    /// As [`next`](Cursor::next), for those who only count: gaps are passed over.
    pub(super) fn next_behind_gaps(&mut self) -> Result<Option<ObservedRecord<'_>>, ReadError> {
        loop {
            match self.step() {
                Err(ReadError::Gap { .. }) => {}
                found => return found?.map(|step| self.show(step)).transpose(),
            }
        }
    }

    /// Goes on to the next caller's record.
    fn step(&mut self) -> Result<Option<Step>, ReadError> {
        loop {
            let Some(step) = self.pass_record()? else { return Ok(None) };
            if step.tag.is_callers() {
                self.shown = self.at;
                if self.is_hidden(&step)? {
                    continue;
                }
                return Ok(Some(step));
            }
            if step.tag.is_control(CONTROL_GAP) {
                return Err(ReadError::Gap { lsn: step.lsn, next: self.at });
            }
        }
    }

    /// Goes on to the next record, be it the log's own.
    fn pass_record(&mut self) -> Result<Option<Step>, ReadError> {
        loop {
            let at = self.head.geometry.normalize(self.at);
            let mut evidence = self.examine(at)?;
            if !matches!(evidence, Evidence::Valid { .. }) {
                // What we hold may be old: look again at the file.
                self.forget();
                evidence = self.examine(at)?;
            }
            let Evidence::Valid { record_len, tag, epoch, .. } = evidence else {
                if self.goes_on_after(at)? {
                    continue;
                }
                return Ok(None);
            };
            if !self.is_still_there(at)? || epoch > self.checkpoint.epoch {
                // Recycled, or a new epoch has begun: the checkpoint slots know.
                if self.goes_on_after(at)? {
                    continue;
                }
                return Ok(None);
            }
            self.epoch = epoch;
            self.first = false;
            let (sequence, offset) = self.head.geometry.split(at);
            self.at = self.head.geometry.lsn(sequence, offset + aligned_len(record_len));
            if tag.is_control(CONTROL_DURABLE) {
                let distance = u64::from(tag.number()) * 16;
                self.proven = self.proven.max(Lsn::new(at.get().saturating_sub(distance)));
            }
            return Ok(Some(Step { lsn: at, record_len, tag }));
        }
    }

    /// What lies at `at`; `Zero` if its segment is not there.
    fn examine(&mut self, at: Lsn) -> Result<Evidence, ReadError> {
        let (sequence, offset) = self.head.geometry.split(at);
        if offset >= self.head.geometry.record_end() {
            // The very last segment that a log can have.
            return Ok(Evidence::Zero);
        }
        let same = self.entered.filter(|(entered, _)| *entered == sequence);
        if same.is_none() || !self.header_verified {
            let came_with = same.map_or(self.epoch, |(_, epoch)| epoch);
            let header = self.window.segment_header(sequence);
            match header.map_err(file_error("read", &self.ring.path))? {
                // Its epoch may be lower than that of records which lie further on in it.
                SegmentHeaderEvidence::Expected(header) if header.epoch >= came_with => {
                    self.epoch = self.epoch.max(header.epoch);
                    self.entered = Some((sequence, came_with));
                    self.header_verified = true;
                }
                _ => return Ok(Evidence::Zero),
            }
        }
        let rule = EpochRule {
            epoch: self.epoch,
            first: self.first,
            newest: self.checkpoint.epoch,
            newest_start: self.checkpoint.epoch_start,
        };
        Ok(self.window.examine(at, &rule).map_err(file_error("read", &self.ring.path))?)
    }

    /// The file may have changed since it was read.
    fn forget(&mut self) {
        self.window.clear();
        self.header_verified = false;
    }

    /// Looks at the segment's sequence word again, if something was copied since.
    fn is_still_there(&mut self, at: Lsn) -> Result<bool, ReadError> {
        if self.window.reads() == self.checked_reads {
            return Ok(true);
        }
        let sequence = self.head.geometry.sequence(at);
        let mut word = [0; 8];
        read(&self.ring, self.head.geometry.segment_offset(sequence), &mut word)?;
        self.checked_reads = self.window.reads();
        Ok(u64::from_le_bytes(word) == u64::from(sequence) + 1)
    }

    /// No record can be taken at `at`: is it the end, or did something happen to us? True if it is
    /// worth another look.
    fn goes_on_after(&mut self, at: Lsn) -> Result<bool, ReadError> {
        self.forget();
        let checkpoint = read_checkpoint(&self.ring, &self.head)?;
        let began = checkpoint.epoch > self.checkpoint.epoch;
        self.checkpoint = checkpoint;
        let geometry = self.head.geometry;
        let oldest = geometry.normalize(checkpoint.trimmed);
        if oldest > at {
            return Err(ReadError::Overwritten { lsn: at, oldest });
        }
        if began {
            return self.enter_epoch(at).map(|()| true);
        }
        if at >= self.proven.max(checkpoint.durable) && !self.is_footed(at)? {
            return Ok(false);
        }
        // It may have been committed, and made durable, after we looked. It is of an epoch that has
        // begun: a slot says so before the first record of it is written.
        if let Evidence::Valid { epoch, .. } = self.examine(at)?
            && epoch <= self.checkpoint.epoch
        {
            return Ok(true);
        }
        // Or it was released and its place used again, after we looked at the slots: they said so
        // before that, and a later look finds it.
        let now = read_settled_checkpoint(&self.ring, &self.head)?;
        if geometry.normalize(now.trimmed) > at || now.epoch > self.checkpoint.epoch {
            return Ok(true);
        }
        Err(ReadError::Damaged {
            lsn: at,
            file_offset: geometry.file_offset(at),
            reason: "it was durable, and its checksum does not match its bytes",
        })
    }

    /// Does the footer of its segment say that `at` was durable?
    fn is_footed(&self, at: Lsn) -> Result<bool, ReadError> {
        let geometry = self.head.geometry;
        let sequence = geometry.sequence(at);
        let end = geometry.normalize(geometry.lsn(sequence, geometry.record_end()));
        let footer = self.window.any_footer(sequence);
        let footer = footer.map_err(file_error("read", &self.ring.path))?;
        let rule = EpochRule {
            epoch: self.epoch,
            first: self.first,
            newest: self.checkpoint.epoch,
            newest_start: self.checkpoint.epoch_start,
        };
        Ok(footer.is_some_and(|footer| rule.allows_footer(&footer, end)))
    }

    /// A new epoch has begun. If it cut away records that were shown, its owner must know; if only
    /// records of the log's own, the cursor goes back to the cut by itself.
    fn enter_epoch(&mut self, at: Lsn) -> Result<(), ReadError> {
        let geometry = self.head.geometry;
        let Checkpoint { epoch, epoch_start, .. } = self.checkpoint;
        let start = geometry.normalize(epoch_start);
        if start < geometry.normalize(self.shown) {
            return Err(ReadError::Cut { lsn: at, at: epoch_start, epoch });
        }
        if start < at {
            self.at = epoch_start;
            self.entered = None;
            self.epoch = 0;
            self.first = true;
        }
        Ok(())
    }

    /// Walks to `lsn` from the start of its segment: a record starts there, or the next one will.
    pub(super) fn check_start(&mut self, lsn: Lsn) -> Result<(), ReadError> {
        let geometry = self.head.geometry;
        let oldest = geometry.normalize(self.checkpoint.trimmed);
        let target = geometry.normalize(lsn);
        // That a segment's first record comes next is known from the one before.
        let (sequence, offset) = geometry.split(target);
        let from = if offset == FIRST_RECORD { sequence.saturating_sub(1) } else { sequence };
        self.at = geometry.first_record(from).max(oldest);
        self.shown = self.at;
        while geometry.normalize(self.at) < target {
            if self.pass_record()?.is_none() {
                return Err(ReadError::NotYet { lsn, end: self.at });
            }
        }
        self.shown = self.at;
        if geometry.normalize(self.at) == target {
            Ok(())
        } else {
            Err(ReadError::NotARecord { lsn })
        }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Observer;
    use crate::sync::{AtomicU64, Ordering};
    use crate::{Durability, Geometry, OnFull, Options, Position, Wal};

    /// A record that was not there at two looks, and is proven durable, is looked at once more; its
    /// place may be used again by then.
    #[test]
    fn what_is_recycled_right_before_the_last_look_is_overwritten_and_not_damaged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path().join("log");
        let geometry = Geometry::new(256 << 10, 64 << 10).expect("in bounds");
        let options = Options::new().durability(Durability::OnDemand).on_full(OnFull::Overwrite);
        let wal = Arc::new(Wal::create(&dir, geometry, options).expect("a new log"));
        wal.append(b"applied").expect("there is room");
        let first = wal.append_durable(b"soon overwritten").expect("there is room");
        wal.checkpoint(first).expect("a record starts there");
        wal.sync_checkpoint().expect("a slot says now that the record is durable");
        let observer = Observer::open(&dir).expect("it is there");
        let mut cursor = observer.cursor(Position::At(first)).expect("it is there");
        let (ring, writer, looks) = (cursor.ring.clone(), wal.clone(), AtomicU64::new(0));
        let read = move |offset, bytes: &mut [u8]| {
            // As before its commit, twice.
            let looks = looks.fetch_add(1, Ordering::Relaxed);
            if looks == 2 {
                while writer.watermarks().reserved.get() < 2 * geometry.capacity() {
                    writer.append(&[1; 1000]).expect("the oldest makes room");
                }
            }
            ring.file.read_exact_at(bytes, offset)?;
            let record = geometry.file_offset(first).saturating_sub(offset) as usize;
            if looks < 2 {
                bytes[record..].fill(0);
            }
            Ok(())
        };
        cursor.window = Window::new(Box::new(read), cursor.head.geometry, cursor.head.log_id);
        let oldest = match cursor.next() {
            Err(ReadError::Overwritten { lsn, oldest }) if lsn == first => oldest,
            other => panic!("{other:?}"),
        };
        assert!(oldest > first);
    }
}
