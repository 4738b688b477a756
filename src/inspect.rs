//! Looking at a log from outside: from another process, read-only, while it is written.
//!
//! An [`Observer`] takes no lock and writes nothing. It copies bytes with `pread`, verifies them
//! against checksums that bind position, epoch and log, and looks at the segment's sequence word
//! again afterwards: what the writer recycles meanwhile is reported as overwritten, and a torn
//! record is never shown.

use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{OpenError, ReadError};
use crate::files::{self, RingFile, file_error};
use crate::geometry::{FIRST_RECORD, Geometry, RECORD_HEADER_LEN};
use crate::layout::record::{CONTROL_DURABLE, aligned_len};
use crate::layout::{
    Checkpoint, FORMAT_VERSION, RecordKind, SegmentHeader, SegmentHeaderEvidence, Superblock,
};
use crate::lsn::Lsn;
use crate::reader::Position;
use crate::recovery::window::{EpochRule, Evidence, Window};
use crate::recovery::{self, Head, ReadAt, RecoveryReport};
use crate::sync::Arc;

/// A read-only look at a log that another process may be writing.
#[derive(Debug)]
pub struct Observer {
    dir: PathBuf,
    ring: RingFile,
    head: Head,
}

/// What a segment's place in the ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentState {
    /// Prepared for use, no record in it.
    Clean,
    /// Records are appended here.
    Active,
    /// Full, and retained.
    Sealed,
    /// Released by a checkpoint; it may be recycled.
    Reclaimable,
    /// Not yet used, since the ring has not been round.
    Unused,
    /// Being prepared for its next use.
    Recycling,
    /// Its header does not verify.
    Unreadable,
}

impl fmt::Display for SegmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SegmentState::Clean => "clean",
            SegmentState::Active => "active",
            SegmentState::Sealed => "sealed",
            SegmentState::Reclaimable => "reclaimable",
            SegmentState::Unused => "unused",
            SegmentState::Recycling => "recycling",
            SegmentState::Unreadable => "unreadable",
        })
    }
}

/// One place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStat {
    /// Which place, from 0.
    pub slot: u32,
    /// The sequence number in its header, if that verifies.
    pub sequence: Option<u32>,
    /// What it holds.
    pub state: SegmentState,
}

/// A log's state as seen from outside. Positions are LSNs, sizes are bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stat {
    /// The log's directory.
    pub path: PathBuf,
    /// The log's random identity, in hexadecimal.
    pub log_id: String,
    /// The version of its format.
    pub format_version: u32,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// How many segments the ring has.
    pub segments: u32,
    /// Bytes of the ring.
    pub capacity: u64,
    /// The newest incarnation.
    pub epoch: u64,
    /// Where that began.
    pub epoch_start: Lsn,
    /// Everything below has been released, as the newest checkpoint slot says.
    pub trimmed: Lsn,
    /// Everything below is proven durable, by a checkpoint slot or by evidence in the log. The
    /// writer may know of more.
    pub durable: Lsn,
    /// The end of the committed records.
    pub committed: Lsn,
    /// Callers' records between `trimmed` and `committed`.
    pub records: u64,
    /// Their payload, in bytes.
    pub payload_bytes: u64,
    /// It was closed in order.
    pub clean_shutdown: bool,
    /// A sync has failed.
    pub poisoned: bool,
    /// The process that has it open for writing.
    pub writer: Option<u32>,
    /// Each place in the ring.
    pub segment_map: Vec<SegmentStat>,
    /// What the last recovery found.
    pub last_recovery: RecoveryReport,
}

impl Observer {
    /// Looks at the log in `dir`.
    ///
    /// # Errors
    ///
    /// As for [`Wal::open`](crate::Wal::open), but for locks and damaged records.
    pub fn open(dir: impl AsRef<Path>) -> Result<Observer, OpenError> {
        let dir = dir.as_ref().to_owned();
        let ring = RingFile::open(&dir, false)?;
        let head = recovery::read_head(&ring)?;
        Ok(Observer { dir, ring, head })
    }

    /// The sizes that the log was created with.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.head.geometry
    }

    /// The log's state at this moment. It walks what is retained.
    ///
    /// # Errors
    ///
    /// The system refuses to read, or the writer overtook the walk again and again.
    pub fn stat(&mut self) -> Result<Stat, ReadError> {
        let checkpoint = read_checkpoint(&self.ring, &self.head)?;
        let mut cursor = self.cursor(Position::Oldest)?;
        let start = cursor.position();
        let (mut records, mut payload_bytes) = (0, 0);
        loop {
            match cursor.next() {
                Ok(Some(record)) => {
                    records += 1;
                    payload_bytes += record.payload().len() as u64;
                }
                Ok(None) => break,
                Err(ReadError::Overwritten { oldest, .. }) => {
                    // The writer is ahead of us: count what is retained now.
                    cursor = self.cursor(Position::At(oldest))?;
                    (records, payload_bytes) = (0, 0);
                }
                Err(error) => return Err(error),
            }
        }
        let committed = cursor.position();
        let durable = cursor.proven.max(checkpoint.durable);
        let geometry = self.head.geometry;
        Ok(Stat {
            path: self.dir.clone(),
            log_id: self.head.log_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            format_version: FORMAT_VERSION,
            segment_size: geometry.segment_size(),
            segments: geometry.segments(),
            capacity: geometry.capacity(),
            epoch: checkpoint.epoch,
            epoch_start: checkpoint.epoch_start,
            trimmed: checkpoint.trimmed.max(start),
            durable: durable.min(committed),
            committed,
            records,
            payload_bytes,
            clean_shutdown: checkpoint.clean,
            poisoned: checkpoint.poisoned,
            writer: files::writer_of(&self.dir),
            segment_map: self.segment_map(checkpoint.trimmed, committed)?,
            last_recovery: RecoveryReport::from_summary(checkpoint.epoch, &checkpoint.recovery),
        })
    }

    /// Reads records in order, as copies.
    ///
    /// # Errors
    ///
    /// The position lies below what is retained.
    pub fn cursor(&self, from: Position) -> Result<Cursor, ReadError> {
        let ring = RingFile::open(&self.dir, false)?;
        let checkpoint = read_checkpoint(&ring, &self.head)?;
        let oldest = self.head.geometry.normalize(checkpoint.trimmed);
        let at = match from {
            Position::At(lsn) if lsn < oldest && lsn != checkpoint.trimmed => {
                return Err(ReadError::Trimmed { lsn, oldest });
            }
            Position::At(lsn) => {
                let (_, offset) = self.head.geometry.split(lsn);
                let end = self.head.geometry.record_end();
                if lsn.get() % 16 != 0 || !(FIRST_RECORD..=end).contains(&offset) {
                    return Err(ReadError::NotARecord { lsn });
                }
                lsn
            }
            Position::Oldest | Position::Newest => oldest,
        };
        let mut cursor = Cursor::new(ring, self.head, checkpoint, at);
        if from == Position::Newest {
            while cursor.step()?.is_some() {}
        } else if let Position::At(lsn) = from {
            cursor.check_start(lsn)?;
        }
        Ok(cursor)
    }

    fn segment_map(&self, trimmed: Lsn, committed: Lsn) -> Result<Vec<SegmentStat>, ReadError> {
        let geometry = self.head.geometry;
        let oldest = geometry.sequence(geometry.normalize(trimmed));
        let active = geometry.sequence(geometry.normalize(committed));
        let mut map = Vec::new();
        for slot in 0..geometry.segments() {
            let mut bytes = [0; FIRST_RECORD as usize];
            read(&self.ring, geometry.segment_offset(slot), &mut bytes)?;
            // Whatever lap it is of: the header says.
            let log_id = &self.head.log_id;
            let evidence = SegmentHeader::verify(&bytes, log_id, u32::MAX, Lsn::ZERO);
            let (sequence, state) = match evidence {
                SegmentHeaderEvidence::Zero if active < geometry.segments() => {
                    (None, SegmentState::Unused)
                }
                SegmentHeaderEvidence::Zero => (None, SegmentState::Recycling),
                SegmentHeaderEvidence::Older(header) => {
                    let sequence = header.sequence;
                    let state = match sequence {
                        _ if sequence < oldest => SegmentState::Reclaimable,
                        _ if sequence < active => SegmentState::Sealed,
                        _ if sequence == active => SegmentState::Active,
                        _ => SegmentState::Clean,
                    };
                    (Some(sequence), state)
                }
                _ => (None, SegmentState::Unreadable),
            };
            map.push(SegmentStat { slot, sequence, state });
        }
        Ok(map)
    }
}

fn read(ring: &RingFile, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
    let result = ring.file.read_exact_at(bytes, offset);
    Ok(result.map_err(file_error("read", &ring.path))?)
}

/// The newest checkpoint. A slot that is being written may not verify; the other one does.
fn read_checkpoint(ring: &RingFile, head: &Head) -> Result<Checkpoint, ReadError> {
    let superblock =
        Superblock { log_id: head.log_id, geometry: head.geometry, created_unix_ms: 0 };
    let read: ReadAt<'_> = Box::new(|offset, bytes| ring.file.read_exact_at(bytes, offset));
    // The writer may be at work on one slot when we read it, and on the other when we read that.
    for _ in 0..100 {
        let found = recovery::read_checkpoint(&read, &superblock);
        if let Some(found) = found.map_err(file_error("read", &ring.path))? {
            return Ok(found.checkpoint);
        }
    }
    Err(OpenError::NoCheckpoint(ring.path.clone()).into())
}

/// Reads a log's records in order, from outside.
pub struct Cursor {
    ring: Arc<RingFile>,
    head: Head,
    checkpoint: Checkpoint,
    window: Window<'static>,
    at: Lsn,
    /// The epoch of the record before, and whether there was one.
    epoch: u64,
    first: bool,
    /// The segment that the cursor is in, and the epoch with which it came there.
    entered: Option<(u32, u64)>,
    /// That segment's header verified, and nothing was forgotten since.
    header_verified: bool,
    /// `window.reads()` when the segment's sequence word was last found unchanged.
    checked_reads: u64,
    /// The highest position that evidence in the log says was durable.
    proven: Lsn,
}

/// A record, copied out of the log and verified.
#[derive(Clone, Copy, Debug)]
pub struct ObservedRecord<'c> {
    lsn: Lsn,
    next_lsn: Lsn,
    stream: u32,
    payload: &'c [u8],
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

    /// The stream that the record belongs to; 0 if to none.
    #[must_use]
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload
    }
}

/// A record found at a cursor's position.
struct Step {
    lsn: Lsn,
    record_len: u32,
    stream: u32,
}

impl Cursor {
    fn new(ring: RingFile, head: Head, checkpoint: Checkpoint, at: Lsn) -> Cursor {
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
            epoch: 0,
            first: true,
            entered: None,
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
    /// proven durable does not verify.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<ObservedRecord<'_>>, ReadError> {
        let Some(Step { lsn, record_len, stream }) = self.step()? else {
            return Ok(None);
        };
        let next_lsn = self.at;
        let offset = self.head.geometry.file_offset(lsn) + RECORD_HEADER_LEN as u64;
        let len = u64::from(record_len) - RECORD_HEADER_LEN as u64;
        // Not read again: the record was examined as a whole.
        let payload = self.window.bytes(offset, len, offset + len);
        let payload = payload.map_err(file_error("read", &self.ring.path))?;
        Ok(Some(ObservedRecord { lsn, next_lsn, stream, payload }))
    }

    fn step(&mut self) -> Result<Option<Step>, ReadError> {
        loop {
            let at = self.head.geometry.normalize(self.at);
            let found = match self.examine(at)? {
                Evidence::Valid { record_len, tag, epoch } => Some((record_len, tag, epoch)),
                // What we hold may be old: look again at the file.
                _ => {
                    self.forget();
                    match self.examine(at)? {
                        Evidence::Valid { record_len, tag, epoch } => {
                            Some((record_len, tag, epoch))
                        }
                        _ => None,
                    }
                }
            };
            let Some((record_len, tag, epoch)) = found else {
                return self.explain_end(at);
            };
            if !self.is_still_there(at)? {
                return self.explain_end(at);
            }
            self.epoch = epoch;
            self.first = false;
            let (sequence, offset) = self.head.geometry.split(at);
            self.at = self.head.geometry.lsn(sequence, offset + aligned_len(record_len));
            if tag.is_control(CONTROL_DURABLE) {
                let distance = u64::from(tag.stream()) * 16;
                self.proven = self.proven.max(Lsn::new(at.get().saturating_sub(distance)));
            }
            if tag.kind() == Some(RecordKind::Data) {
                return Ok(Some(Step { lsn: at, record_len, stream: tag.stream() }));
            }
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

    /// Nothing that verifies lies at `at`: is it the end, or did something happen to us?
    fn explain_end(&mut self, at: Lsn) -> Result<Option<Step>, ReadError> {
        self.forget();
        let checkpoint = read_checkpoint(&self.ring, &self.head)?;
        let began = checkpoint.epoch > self.checkpoint.epoch;
        self.checkpoint = checkpoint;
        let geometry = self.head.geometry;
        if geometry.normalize(checkpoint.trimmed) > at {
            let oldest = geometry.normalize(checkpoint.trimmed);
            return Err(ReadError::Overwritten { lsn: at, oldest });
        }
        if began && geometry.normalize(checkpoint.epoch_start) < at {
            let Checkpoint { epoch, epoch_start, .. } = checkpoint;
            return Err(ReadError::Cut { lsn: at, at: epoch_start, epoch });
        }
        if began {
            // A record of the new epoch may stand here, which the old rule did not believe.
            return self.step();
        }
        if at < self.proven.max(checkpoint.durable) {
            // It may have been committed, and made durable, after we looked.
            if let Evidence::Valid { .. } = self.examine(at)? {
                return self.step();
            }
            return Err(ReadError::Damaged {
                lsn: at,
                file_offset: geometry.file_offset(at),
                reason: "it was durable, and its checksum does not match its bytes",
            });
        }
        Ok(None)
    }

    /// Walks to `lsn` from the start of its segment: a record starts there, or the next one will.
    fn check_start(&mut self, lsn: Lsn) -> Result<(), ReadError> {
        let geometry = self.head.geometry;
        let oldest = geometry.normalize(self.checkpoint.trimmed);
        let target = geometry.normalize(lsn);
        // That a segment's first record comes next is known from the one before.
        let (sequence, offset) = geometry.split(target);
        let from = if offset == FIRST_RECORD { sequence.saturating_sub(1) } else { sequence };
        self.at = geometry.first_record(from).max(oldest);
        while geometry.normalize(self.at) < target {
            // A step passes the log's own records, and returns one that may lie beyond.
            match self.step()? {
                Some(step) if step.lsn >= target => self.at = step.lsn,
                Some(_) => {}
                None if geometry.normalize(self.at) >= target => break,
                None => return Err(ReadError::NotYet { lsn, end: self.at }),
            }
        }
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
