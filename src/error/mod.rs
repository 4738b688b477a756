//! Errors: one enum a verb, and one umbrella.
//!
//! Each text says what happened, where (LSN, path), and what can be done. *Full* may pass, *too
//! large* never will; *closed* and *poisoned* end this incarnation of the log; *held back* names
//! the reservation in the way.

mod catalog;
mod copy;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::lsn::{EpochLsn, Lsn};
use crate::producer_id::ProducerId;
use crate::stream_id::StreamId;
use crate::sync::Arc;

pub use catalog::CatalogError;
pub use copy::{BackupError, ResizeError};

/// Why sizes cannot be those of a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// The segment size is out of bounds or not a multiple of the page size.
    #[error(
        "a segment of {segment_size} bytes is not possible: it must be a multiple of 4096, at \
         least 65536 (64 KiB) and at most 1073741824 (1 GiB)"
    )]
    SegmentSize {
        /// The size asked for, in bytes.
        segment_size: u64,
    },
    /// The ring is not a whole number of segments, or of too few or too many.
    #[error(
        "a ring of {size} bytes is not possible with segments of {segment_size} bytes: it must be \
         a multiple of them, at least two, at most 4294967295"
    )]
    Size {
        /// The ring size asked for, in bytes.
        size: u64,
        /// The segment size asked for, in bytes.
        segment_size: u64,
    },
}

/// The operating system refused an operation on a file of the log.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried, as a verb ("open", "sync").
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Why the log is poisoned: the sync that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot sync file bytes {start}..{end} of the log: {source}")]
pub struct SyncFailure {
    /// Start of the file range, in bytes.
    pub start: u64,
    /// End of the file range, in bytes.
    pub end: u64,
    /// What the system said.
    pub source: Arc<io::Error>,
}

/// The path is not one at which a log can live.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path is a symbolic link.
    #[error("{} is a symbolic link: give the directory that it points to", .0.display())]
    Symlink(PathBuf),
    /// A log is a directory, and this is something else.
    #[error("{} is {found}, not a directory: a log is a directory", path.display())]
    NotADirectory {
        /// The path given.
        path: PathBuf,
        /// What is there ("a FIFO", "a regular file").
        found: &'static str,
    },
    /// The ring file, or the lock file, is not a regular file.
    #[error("{} is {found}, not a regular file: this is not a log", path.display())]
    NotAFile {
        /// The file's path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Another process, or this one, has the log open for writing.
    #[error("{} is already open for writing {by}: a log has one writer", path.display())]
    Locked {
        /// The log's directory.
        path: PathBuf,
        /// By whom ("in this process", "by process 1234").
        by: String,
    },
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A log could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is a log already.
    #[error("{} holds a log already: open it, or choose another directory", .0.display())]
    Exists(PathBuf),
    /// The path cannot hold a log, or a write failed (a full disk, for one). No log was left there.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There are streams of another log.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There are consumers' positions of a log that is gone.
    #[error(
        "{} holds positions of a log that is not there any more: remove it, or choose another \
         directory", .0.display()
    )]
    Leftover(PathBuf),
    /// The new log was written but could not be opened.
    #[error("the new log could not be opened: {0}")]
    Open(#[from] OpenError),
}

/// What is damaged: evidence that acknowledged data was altered or lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "acknowledged data is damaged at LSN {lsn} (file offset {file_offset}): {reason}; all below \
     LSN {durable} was durable. Nothing was changed. Repair the log \
     (`kaelix-wal repair` shows what can be saved), or restore it from a copy"
)]
pub struct Corruption {
    /// Position of the first damaged record or segment.
    pub lsn: Lsn,
    /// Its offset in the ring file, in bytes.
    pub file_offset: u64,
    /// Everything below this position had been acknowledged as durable.
    pub durable: Lsn,
    /// What was found instead.
    pub reason: &'static str,
}

/// A log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no log at that path.
    #[error("there is no log in {}: create one first, or check the path", .0.display())]
    NoLog(PathBuf),
    /// The path is not that of a log, or the system refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The stream catalog cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The file is not a log's ring, or its superblock is damaged.
    #[error("{} is not a log's ring file, or its superblock is damaged: {reason}", path.display())]
    NotALog {
        /// The ring file.
        path: PathBuf,
        /// What is wrong with its first page.
        reason: &'static str,
    },
    /// The log was written in another format version.
    #[error(
        "{} has format version {found}; this build reads version {supported}: use a build that \
         reads version {found}", path.display()
    )]
    Version {
        /// The ring file.
        path: PathBuf,
        /// The version in its superblock.
        found: u32,
        /// The version that this build reads and writes.
        supported: u32,
    },
    /// The log uses features that this build does not know and may not ignore.
    #[error(
        "{} needs features that this build does not know (mask {unknown:#x}): use a newer build",
        path.display()
    )]
    Features {
        /// The ring file.
        path: PathBuf,
        /// The unknown bits of the must-understand mask.
        unknown: u64,
    },
    /// The file is shorter or longer than its superblock says.
    #[error(
        "{} is {found} bytes long, but its superblock says {expected}: the file was cut, grown or \
         mixed up; restore it from a copy", path.display()
    )]
    Length {
        /// The ring file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length that its geometry demands.
        expected: u64,
    },
    /// Neither checkpoint slot can be believed.
    #[error(
        "{}: both checkpoint slots are damaged, so it cannot be known what was durable; restore \
         the log from a copy", .0.display()
    )]
    NoCheckpoint(PathBuf),
    /// No copy of the consumers' positions can be believed.
    #[error(
        "{}: the consumers' positions cannot be used: {reason}. Restore `consumers.a` and \
         `consumers.b` together with the log, or remove both: then there are no consumers",
        path.display()
    )]
    Consumers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The log was to be run in persistent memory, and cannot be.
    #[error(
        "{} cannot be used as persistent memory: {reason}; open it with the persistence that its \
         file system allows", path.display()
    )]
    NotPersistentMemory {
        /// The ring file.
        path: PathBuf,
        /// What it lacks.
        reason: &'static str,
    },
    /// Acknowledged data is damaged.
    #[error("{}: {damage}", path.display())]
    Corrupt {
        /// The ring file.
        path: PathBuf,
        /// What and where.
        damage: Corruption,
    },
    /// The log has used up its last segment sequence, epoch or checkpoint generation.
    #[error("{}: the log has used up its sequence numbers; start a new one", .0.display())]
    Exhausted(PathBuf),
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A record could not be appended, or space for it not reserved. Nothing of it is in the log.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The ring is full.
    #[error(
        "the log is full: {retained} of {capacity} bytes are retained, from LSN {trimmed}; \
         checkpoint what has been applied, or use a larger log"
    )]
    Full {
        /// Everything from here on is retained.
        trimmed: Lsn,
        /// Bytes from there to the end of the log.
        retained: u64,
        /// Bytes of the ring.
        capacity: u64,
    },
    /// The payload fits no segment of this log.
    #[error("a payload of {len} bytes is too large: the largest that this log takes is {max}")]
    TooLarge {
        /// Payload length in bytes.
        len: usize,
        /// The largest possible, in bytes.
        max: usize,
    },
    /// An idempotent append of a sequence that is not in the retained log, where newer ones of its
    /// producer are or have been. Whether it was ever appended cannot be told any more.
    #[error(
        "sequence {sequence} of producer {producer} is not retained, and sequences only grow: the \
         newest is {newest}; go on above it"
    )]
    SequenceTooOld {
        /// Whose append it was.
        producer: ProducerId,
        /// The sequence asked for.
        sequence: u64,
        /// The producer's highest sequence.
        newest: u64,
        /// The lowest of its sequences that may still be retained; `None` if none is.
        oldest_retained: Option<u64>,
    },
    /// Whether a sequence is in the log could not be found out.
    #[error("the record of sequence {sequence} was looked for, and could not be: {source}")]
    Lookup {
        /// The sequence asked for.
        sequence: u64,
        /// What went wrong.
        source: Arc<ReadError>,
    },
    /// A batch without entries.
    #[error("a batch needs at least one entry")]
    EmptyBatch,
    /// A stream is not at the version that was expected of it.
    #[error(
        "stream {stream} was expected at {} and is at {}: read on from there and try again",
        version(.expected), version(.actual)
    )]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// The LSN of its newest record, as the caller believed; `None` for none.
        expected: Option<Lsn>,
        /// The LSN of its newest record, which is committed; `None` if it never had one. It is read
        /// as soon as what others have claimed before it is committed, too; until then
        /// [`Wal::get`](crate::Wal::get) says [`ReadError::NotYet`].
        actual: Option<Lsn>,
    },
    /// Something was expected of a stream that is not under version control.
    #[error("stream {stream} is not under version control: nothing can be expected of it")]
    NotVersioned {
        /// The stream.
        stream: StreamId,
    },
    /// A stream under version control is held by a reservation that is still open.
    #[error("stream {stream} is held by a reservation (for {age:?}): commit or drop it")]
    StreamHeld {
        /// The stream.
        stream: StreamId,
        /// For how long it was waited for.
        age: Duration,
    },
    /// An entry is of a stream that this log does not have.
    #[error("there is no stream {stream} in this log, which has {known}")]
    NoStream {
        /// The stream.
        stream: StreamId,
        /// How many streams there are; their ids count from 1.
        known: u32,
    },
    /// The versions of streams could not be read from the log.
    #[error("the versions of streams could not be read: {0}")]
    Versions(Arc<ReadError>),
    /// The wait for space is blocked by a reservation that is still open.
    #[error("no space while the reservation at LSN {lsn} is open (for {age:?}): commit or drop it")]
    HeldBack {
        /// Where the open reservation starts.
        lsn: Lsn,
        /// For how long it has been seen to hold others back.
        age: Duration,
    },
    /// The ring is full, and nothing can be released before the versions of streams are recorded,
    /// which failed. It is tried again whenever the ring is found full.
    #[error("no space: {UNRECORDED}: {0}")]
    Unrecorded(CatalogError),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// A sync failed, so nothing more is accepted.
    #[error("the log is poisoned and takes no more records until it is reopened: {0}")]
    Poisoned(SyncFailure),
    /// All 2^32 segment sequences are used up.
    #[error("the log has used up its segment sequence numbers; start a new one")]
    Exhausted,
}

/// Why nothing can be released.
const UNRECORDED: &str = "the versions of streams could not be put into the stream catalog first";

/// An expected or actual version, in words.
fn version(lsn: &Option<Lsn>) -> String {
    lsn.map_or_else(|| "no record yet".to_owned(), |lsn| format!("LSN {lsn}"))
}

/// Durability could not be confirmed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed while a reservation before the record was still open.
    #[error(
        "LSN {lsn} is held back: the reservation there has been open for {age:?}; commit or drop it"
    )]
    HeldBack {
        /// Where the open reservation starts.
        lsn: Lsn,
        /// For how long it has been seen to hold others back.
        age: Duration,
    },
    /// The deadline passed during the sync. The record may still become durable.
    #[error("the deadline passed before LSN {lsn} was durable (durable: {durable})")]
    Timeout {
        /// The record waited for.
        lsn: Lsn,
        /// Everything below this position is durable.
        durable: Lsn,
    },
    /// No record was ever reserved at that position.
    #[error("LSN {lsn} lies beyond the end of the log ({end})")]
    NotReserved {
        /// The position asked for.
        lsn: Lsn,
        /// Where the next record will be reserved.
        end: Lsn,
    },
    /// A sync failed: what was not durable before it can no longer be promised.
    #[error("the log is poisoned, durability can no longer be promised until it is reopened: {0}")]
    Poisoned(SyncFailure),
}

/// A record could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The position was released by a checkpoint, or overwritten.
    #[error("LSN {lsn} is trimmed away; the oldest retained record is at LSN {oldest}")]
    Trimmed {
        /// The position asked for.
        lsn: Lsn,
        /// The oldest position still there.
        oldest: Lsn,
    },
    /// No record is published at that position yet: none is committed, or something that was
    /// claimed before it is not.
    #[error("nothing is published at LSN {lsn} yet; the log ends at LSN {end}")]
    NotYet {
        /// The position asked for.
        lsn: Lsn,
        /// Where the published records end.
        end: Lsn,
    },
    /// The position lies inside a record.
    #[error("no record starts at LSN {lsn}")]
    NotARecord {
        /// The position asked for.
        lsn: Lsn,
    },
    /// The record's checksum does not match its bytes.
    #[error("the record at LSN {lsn} (file offset {file_offset}) is damaged: {reason}")]
    Damaged {
        /// Where the record starts.
        lsn: Lsn,
        /// Its offset in the ring file, in bytes.
        file_offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Records are missing here: they were damaged, and a [repair](crate::repair) has salvaged the
    /// others. The reader has passed the gap: the next read goes on behind it.
    #[error(
        "what was at LSN {lsn} was damaged and is lost: a repair has left a gap up to LSN {next}; \
         reading again goes on there"
    )]
    Gap {
        /// Where the gap starts.
        lsn: Lsn,
        /// Where it ends.
        next: Lsn,
    },
    /// The writer, in another process, has recycled the space under the reader.
    #[error(
        "the writer has recycled what was at LSN {lsn}; the oldest retained is at LSN {oldest}"
    )]
    Overwritten {
        /// Where the reader stood.
        lsn: Lsn,
        /// The oldest position still there.
        oldest: Lsn,
    },
    /// A recovery cut the log below the reader's position.
    #[error("LSN {lsn} is gone: recovery cut the log at LSN {at} when epoch {epoch} began")]
    Cut {
        /// Where the reader stood.
        lsn: Lsn,
        /// Where the new epoch began.
        at: Lsn,
        /// The new epoch.
        epoch: u64,
    },
    /// All places for pins are taken: too many records or readers are held at a time.
    #[error("{max} pins are held at a time already; drop readers or pinned records first")]
    TooManyPins {
        /// How many pins a log has.
        max: usize,
    },
    /// The log is closed and everything in it was read.
    #[error("the log is closed, and everything in it was read")]
    Closed,
    /// The log at the path is no longer what it was, or cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A checkpoint was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The position lies inside a record.
    #[error("a checkpoint must be at a record boundary, and LSN {lsn} is none")]
    NotARecord {
        /// The position asked for.
        lsn: Lsn,
    },
    /// The position lies beyond the published records.
    #[error("a checkpoint cannot lie beyond the published records: {lsn} > {published}")]
    Beyond {
        /// The position asked for.
        lsn: Lsn,
        /// Where the published records end.
        published: Lsn,
    },
    /// The versions of streams could not be recorded, so that nothing may be released yet. It is
    /// tried again with the next call, and when space is needed.
    #[error("nothing can be released: {UNRECORDED}: {0}")]
    Unrecorded(CatalogError),
    /// A sync failed.
    #[error("the log is poisoned: {0}")]
    Poisoned(SyncFailure),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

/// A log could not be closed cleanly. It is closed all the same, without its clean-shutdown mark;
/// the next open recovers it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// A reservation is still open (or was forgotten): what lies behind it is not durable.
    #[error("closed, but the reservation at LSN {lsn} was still open after {age:?}")]
    HeldBack {
        /// Where the open reservation starts.
        lsn: Lsn,
        /// For how long it has been seen to hold others back.
        age: Duration,
    },
    /// A sync failed, then or before.
    #[error("closed, but a sync failed: {0}")]
    Poisoned(SyncFailure),
    /// The consumers' newest positions could not be written: they will read some records again.
    /// The log itself is closed in order.
    #[error("closed, but the consumers' positions could not be made durable: {0}")]
    Consumers(Arc<FileError>),
}

/// A consumer could not be opened, moved or removed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// Not a possible name.
    #[error("a consumer's name has 1 to 255 bytes, and this one has {len}")]
    Name {
        /// Its length in bytes.
        len: usize,
    },
    /// There are as many consumers as a log can have.
    #[error("the log has {max} consumers already: remove those that are not needed any more")]
    TooMany {
        /// How many consumers a log can have.
        max: usize,
    },
    /// It was removed, or never there.
    #[error("the log has no consumer {name:?}")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A recovery cut the log below the position: the records before it are not those that it was
    /// taken behind. (Of a position that was taken very long ago, or before the log had its first
    /// consumer, the log may no longer know that it was *not* cut.)
    #[error(
        "{position} is gone: recovery cut the log at LSN {at} when epoch {epoch} began; see what \
         was processed beyond, then reset the consumer"
    )]
    Cut {
        /// The position.
        position: EpochLsn,
        /// Where the log was cut: everything below is as it was.
        at: Lsn,
        /// The epoch that began there.
        epoch: u64,
    },
    /// The position is of an epoch that this log has not come to.
    #[error("{position} is of an epoch after the log's own, {newest}: is it another log's?")]
    Future {
        /// The position.
        position: EpochLsn,
        /// The log's epoch.
        newest: u64,
    },
    /// The position has been released, lies beyond the end, or is no record boundary.
    #[error(transparent)]
    Read(Arc<ReadError>),
    /// The positions could not be written. They are in memory, and the next attempt writes them.
    #[error("the consumers' positions could not be made durable: {0}")]
    File(Arc<FileError>),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

impl From<ReadError> for ConsumerError {
    fn from(error: ReadError) -> ConsumerError {
        ConsumerError::Read(Arc::new(error))
    }
}

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Close(#[from] CloseError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Resize(#[from] ResizeError),
}
