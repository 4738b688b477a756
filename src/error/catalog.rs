//! Why a catalog could not be opened, or takes nothing more.

use std::path::PathBuf;

use super::{FileError, PathError, ReadError};
use crate::stream_id::{StreamFlags, StreamId};
use crate::sync::Arc;

/// The stream catalog of a log could not be opened, or something could not be added to it. What
/// could not be added is not in it, and everything that was there before is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The path is not that of a catalog's file, or the system refused to open or repair it.
    #[error(transparent)]
    Path(Arc<PathError>),
    /// The file is the catalog of another log.
    #[error(
        "{} is the stream catalog of another log: put back the one that belongs here",
        .0.display()
    )]
    AnotherLog(PathBuf),
    /// The catalog was written in another format version.
    #[error(
        "{} has format version {found}; this build reads version {supported}: use a build that \
         reads version {found}", path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its header.
        found: u32,
        /// The version that this build reads and writes.
        supported: u32,
    },
    /// The catalog uses features that this build does not know and may not ignore.
    #[error(
        "{} needs features that this build does not know (mask {unknown:#x}): use a newer build",
        path.display()
    )]
    Features {
        /// The file.
        path: PathBuf,
        /// The unknown bits of the must-understand mask.
        unknown: u64,
    },
    /// An entry is of a kind, or has flags, that this build does not know and may not ignore.
    #[error(
        "{} has an entry at file offset {file_offset} that this build does not know ({what}): use \
         a newer build", path.display()
    )]
    UnknownEntry {
        /// The first of the two files.
        path: PathBuf,
        /// Where the entry starts, in bytes.
        file_offset: u64,
        /// What is not known ("kind 7", "flags 0x2 of a stream").
        what: String,
    },
    /// Both copies are damaged at one place, or hold what no writer of this log has written.
    #[error(
        "the stream catalog is damaged at file offset {file_offset} of {} (and of its copy): \
         {reason}. Nothing was changed. Restore the log from a copy, or keep this one for \
         inspection", path.display()
    )]
    Corrupt {
        /// The first of the two files.
        path: PathBuf,
        /// The first place that cannot be believed, in bytes.
        file_offset: u64,
        /// What was found.
        reason: &'static str,
    },
    /// A stream's name is empty or too long.
    #[error("a stream's name of {len} bytes is not possible: it must have 1 to {max}")]
    NameLength {
        /// Length of the name in bytes of UTF-8.
        len: usize,
        /// The longest possible, in bytes.
        max: usize,
    },
    /// The stream exists with other flags, or was asked for with two kinds of flags in one call.
    #[error(
        "the stream {name:?} is {existing} and was asked for as {asked}: open it as it is, or \
         choose another name"
    )]
    FlagsDiffer {
        /// The stream's name.
        name: String,
        /// What it is.
        existing: StreamFlags,
        /// What was asked for.
        asked: StreamFlags,
    },
    /// There is no stream with that id.
    #[error("there is no stream with id {0}")]
    NoStream(StreamId),
    /// Only a versioned stream has a last position.
    #[error("stream {0} is not versioned, so that no last position is kept for it")]
    NotVersioned(StreamId),
    /// All ids are used up.
    #[error("the log has used up its {} stream ids; start a new one", u32::MAX)]
    Exhausted,
    /// The log could not be read for what it holds of its streams.
    #[error("the log could not be read for what its streams hold: {0}")]
    Unread(Arc<ReadError>),
    /// The catalog was opened to be read.
    #[error("the stream catalog is open for reading alone: open the log to add to it")]
    ReadOnly,
    /// A write failed (a full disk, for one). Both files are as they were; it may be tried again.
    #[error("nothing was added to the stream catalog: {0}")]
    NotAdded(Arc<FileError>),
    /// A sync failed, or a failed addition could not be taken back. Streams that exist go on
    /// working; whether what was being added is there, the next open says.
    #[error(
        "the stream catalog takes no additions until the log is reopened; streams that exist go \
         on working: {0}"
    )]
    Poisoned(Arc<FileError>),
}

impl From<ReadError> for CatalogError {
    fn from(error: ReadError) -> CatalogError {
        CatalogError::Unread(Arc::new(error))
    }
}

impl From<PathError> for CatalogError {
    fn from(error: PathError) -> CatalogError {
        CatalogError::Path(Arc::new(error))
    }
}

impl From<FileError> for CatalogError {
    fn from(error: FileError) -> CatalogError {
        PathError::File(error).into()
    }
}
