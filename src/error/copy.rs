//! Why a log could not be copied or given another size.

use std::path::PathBuf;

use super::{CatalogError, FileError, GeometryError, OpenError, PathError, ReadError};

/// A log could not be backed up. There is no log where the backup was to be; files that a backup
/// has left there are in nobody's way, and the next one writes over them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is a log where the backup was to be.
    #[error("{} holds a log already: give a directory without one", .0.display())]
    Exists(PathBuf),
    /// That place cannot hold a log.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The log cannot be read, or it is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The streams' names cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The writer overwrites the log faster than it can be copied.
    #[error(
        "the writer was ahead of the copy {attempts} times, and overwrote what was to be copied; \
         copy to a faster disk, use a larger ring, or have a consumer or a reader hold the log \
         meanwhile"
    )]
    Overtaken {
        /// How often it was tried.
        attempts: u32,
    },
    /// The finished copy does not open as a log: the disk that it is on does not keep what it is
    /// given.
    #[error("the backup was written and cannot be read back: {0}")]
    Unreadable(Box<ReadError>),
    /// The system refused (a full disk, for one).
    #[error(transparent)]
    File(#[from] FileError),
}

/// A log could not be given another size. It has the size that it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// The log cannot be opened; if somebody has it open, it says who.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The size is not possible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The log was not closed in order: only its recovery can tell what it holds.
    #[error("{} was not closed in order: open it once, and close it, before", .0.display())]
    NotClosed(PathBuf),
    /// What is retained does not fit.
    #[error(
        "{retained} segments are retained, and the new ring would have {segments}: checkpoint or \
         trim first, or choose a size of at least {retained} segments"
    )]
    TooSmall {
        /// Segments with retained records.
        retained: u32,
        /// Segments of the ring that was asked for.
        segments: u32,
    },
    /// The log cannot be read, or it is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The system refused (a full disk, for one).
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<PathError> for ResizeError {
    fn from(error: PathError) -> ResizeError {
        ResizeError::Open(error.into())
    }
}
