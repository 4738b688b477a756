//! Looking at a log from outside: from another process, read-only, while it is written.
//!
//! An [`Observer`] takes no lock and writes nothing. It copies bytes with `pread`, verifies them
//! against checksums that bind position, epoch and log, and looks at the segment's sequence word
//! again afterwards: what the writer recycles meanwhile is reported as overwritten, and a torn
//! record is never shown.

mod anatomy;
mod cursor;
mod live;
mod segment;
mod streams;
pub(crate) mod walk;

use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::consumer::store::{self, Directory, Loaded};
use crate::error::{OpenError, ReadError};
use crate::files::{self, RingFile, file_error};
use crate::geometry::{FIRST_RECORD, Geometry};
use crate::layout::{Checkpoint, FORMAT_VERSION, SegmentHeader, SegmentHeaderEvidence, Superblock};
use crate::lsn::{EpochLsn, Lsn};
use crate::options::Persistence;
use crate::reader::{Position, since};
use crate::recovery::{self, Head, ReadAt, RecoveryReport};
use crate::region;

pub use anatomy::{Field, RecordImage};
pub use cursor::{Cursor, ObservedRecord};
pub use live::{Live, LiveView, OpenClaim};
pub use segment::{Piece, PieceKind, SegmentDetail, SegmentFooter};
pub use streams::StreamSummary;

/// A read-only look at a log that another process may be writing.
#[derive(Debug)]
pub struct Observer {
    pub(crate) dir: PathBuf,
    pub(crate) ring: RingFile,
    pub(crate) head: Head,
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
    /// What [`Persistence::Auto`] comes to where the log lies. (How a writer has it open, it alone
    /// can say: [`Wal::persistence`](crate::Wal::persistence).)
    pub persistence: Persistence,
    /// The process that has it open for writing.
    pub writer: Option<u32>,
    /// Each place in the ring.
    pub segment_map: Vec<SegmentStat>,
    /// What the last recovery found.
    pub last_recovery: RecoveryReport,
}

/// A consumer as seen from outside: what is written of it. Its process may know of more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedConsumer {
    /// Its name.
    pub name: String,
    /// Everything below has been processed.
    pub position: EpochLsn,
    /// The epoch that cut the log below that position, and where it began.
    pub cut: Option<EpochLsn>,
}

/// How often a walk over what is retained begins again when a writer has overwritten it meanwhile.
const WALKS_MAX: usize = 100;

/// What a walk over the retained records found.
struct Count {
    start: Lsn,
    committed: Lsn,
    proven: Lsn,
    records: u64,
    payload_bytes: u64,
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

    /// The log's random identity, drawn when it was created.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.head.log_id
    }

    /// The log's state at this moment. It walks what is retained.
    ///
    /// # Errors
    ///
    /// The system refuses to read, or the writer overtook the walk again and again.
    pub fn stat(&mut self) -> Result<Stat, ReadError> {
        let walk = read_again(|| self.count());
        let Count { start, committed, proven, records, payload_bytes } = walk?;
        let checkpoint = read_checkpoint(&self.ring, &self.head)?;
        let durable = proven.max(checkpoint.durable);
        let geometry = self.head.geometry;
        // A writer that has been round since the walk has trimmed what it had not yet written then.
        let committed = committed.max(geometry.normalize(checkpoint.trimmed));
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
            persistence: region::automatic(&self.ring.file),
            writer: files::writer_of(&self.dir),
            segment_map: self.segment_map(checkpoint.trimmed, committed)?,
            last_recovery: RecoveryReport::from_summary(checkpoint.epoch, &checkpoint.recovery),
        })
    }

    /// The log's consumers, by name.
    ///
    /// # Errors
    ///
    /// [`OpenError::Consumers`] if neither copy of their positions verifies; the system refuses to
    /// read.
    pub fn consumers(&self) -> Result<Vec<ObservedConsumer>, ReadError> {
        let loaded = self.load_consumers()?;
        let checkpoint = read_checkpoint(&self.ring, &self.head)?;
        let began = EpochLsn { epoch: checkpoint.epoch, lsn: checkpoint.epoch_start };
        let stored = loaded.table.into_iter().flat_map(|table| table.consumers);
        let observed = stored.map(|consumer| {
            let position = consumer.position;
            // The newest epoch may have begun after the table was written.
            let is_beyond = position.epoch < began.epoch && position.lsn > began.lsn;
            let cut = consumer.cut.or_else(|| is_beyond.then_some(began));
            ObservedConsumer { name: consumer.name, position, cut }
        });
        Ok(observed.collect())
    }

    pub(crate) fn load_consumers(&self) -> Result<Loaded, OpenError> {
        let medium = Directory::open(&self.dir)?;
        let load = || store::load(&medium, &self.head.log_id, &self.head.geometry);
        let mut loaded = load();
        // The writer may be at work on one copy when we read it, and on the other when we read
        // that.
        for _ in 0..100 {
            match loaded {
                Err(OpenError::Consumers { .. }) => loaded = load(),
                _ => break,
            }
        }
        loaded
    }

    /// Walks what is retained.
    fn count(&self) -> Result<Count, ReadError> {
        let mut cursor = self.cursor(Position::Oldest)?;
        let start = cursor.position();
        let (mut records, mut payload_bytes) = (0, 0);
        while let Some(record) = cursor.next_behind_gaps()? {
            records += 1;
            payload_bytes += record.payload().len() as u64;
        }
        let (committed, proven) = (cursor.position(), cursor.proven);
        Ok(Count { start, committed, proven, records, payload_bytes })
    }

    /// Reads records in order, as copies. The newest is found by a walk from what the checkpoint
    /// says is durable.
    ///
    /// # Errors
    ///
    /// The position lies below what is retained, or the writer has overtaken the walk to the newest
    /// time and again.
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
            Position::Oldest => oldest,
            Position::Newest => return read_again(|| self.cursor_behind_all()),
        };
        let mut cursor = Cursor::new(ring, self.head, checkpoint, at);
        if self.head.geometry.normalize(at) == oldest {
            cursor = cursor.with_copies_below(oldest);
        }
        if let Position::At(lsn) = from {
            cursor.check_start(lsn)?;
        }
        Ok(cursor)
    }

    /// Behind all that is published. What a slot says is durable was published by then.
    fn cursor_behind_all(&self) -> Result<Cursor, ReadError> {
        let ring = RingFile::open(&self.dir, false)?;
        let checkpoint = read_checkpoint(&ring, &self.head)?;
        let at = self.head.geometry.normalize(checkpoint.durable.max(checkpoint.trimmed));
        let mut cursor = Cursor::new(ring, self.head, checkpoint, at);
        while cursor.next_behind_gaps()?.is_some() {}
        Ok(cursor)
    }

    /// As [`Wal::since`](crate::Wal::since): where to start reading so that no record is missed
    /// that was appended at or after `time`. The oldest record, if the writer gets in the way.
    ///
    /// # Errors
    ///
    /// The system refuses to read.
    pub fn since(&self, time: SystemTime) -> Result<Position, ReadError> {
        let unix = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let geometry = self.head.geometry;
        let trimmed = geometry.normalize(read_checkpoint(&self.ring, &self.head)?.trimmed);
        let first = geometry.sequence(trimmed);
        let retained = first..=first.saturating_add(geometry.segments() - 1);
        let mut bytes = [0; FIRST_RECORD as usize];
        since::start(&geometry, retained, unix.as_millis() as u64, |sequence| {
            read(&self.ring, geometry.segment_offset(sequence), &mut bytes)?;
            let base = geometry.lsn(sequence, 0);
            Ok(match SegmentHeader::verify(&bytes, &self.head.log_id, sequence, base) {
                SegmentHeaderEvidence::Expected(header) => header.prepared_unix_ms,
                // The end of what is prepared; or recycled meanwhile, and then what is retained
                // lies further up: too young either way.
                _ => u64::MAX,
            })
        })
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

/// Walks what is retained, and again if the writer was ahead of the walk or opened the log
/// meanwhile.
fn read_again<T>(walk: impl Fn() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let mut walked = walk();
    for _ in 0..WALKS_MAX {
        match walked {
            Err(
                ReadError::Overwritten { .. } | ReadError::Trimmed { .. } | ReadError::Cut { .. },
            ) => walked = walk(),
            _ => break,
        }
    }
    walked
}

pub(crate) fn read(ring: &RingFile, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
    let result = ring.file.read_exact_at(bytes, offset);
    Ok(result.map_err(file_error("read", &ring.path))?)
}

/// The newest checkpoint. A slot that is being written may not verify; the other one does.
pub(crate) fn read_checkpoint(ring: &RingFile, head: &Head) -> Result<Checkpoint, ReadError> {
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

/// As [`read_checkpoint`], and none that was replaced before the call. One look at both slots may
/// miss that, if a slot is written after we have read it, and the other one while we read that:
/// then the next look finds another.
fn read_settled_checkpoint(ring: &RingFile, head: &Head) -> Result<Checkpoint, ReadError> {
    let mut found = read_checkpoint(ring, head)?;
    for _ in 0..WALKS_MAX {
        let again = read_checkpoint(ring, head)?;
        if again == found {
            break;
        }
        found = again;
    }
    Ok(found)
}
