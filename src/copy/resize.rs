//! A ring of another size for a log that is closed.
//!
//! The segments keep their size and their sequence numbers, and so every record its LSN; only their
//! places in the ring change.

use std::path::Path;

use super::{Copied, Copier, Failure};
use crate::error::{ReadError, ResizeError};
use crate::files::{DirectoryLock, NewRing, RingFile, file_error, sync_directory};
use crate::geometry::Geometry;
use crate::lsn::Lsn;
use crate::recovery;
use crate::wal::Wal;

/// What a resize has done. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resized {
    /// The sizes before.
    pub from: Geometry,
    /// The sizes now.
    pub to: Geometry,
    /// The oldest retained position.
    pub start: Lsn,
    /// The end of the log.
    pub end: Lsn,
    /// Callers' records between the two, each verified in the new ring.
    pub records: u64,
}

impl Wal {
    /// Gives the log in `dir`, which nobody has open and which was closed in order, a ring of
    /// `size` bytes: a multiple of its segment size, which stays as it is.
    ///
    /// Everything that is retained keeps its LSN, and so do consumers and streams. The new ring is
    /// written beside the old one, synced, and takes its place by a rename: if that is interrupted,
    /// the log is as it was, and a file `ring.new` may be left, which is in nobody's way. Meanwhile
    /// the disk holds both.
    ///
    /// # Errors
    ///
    /// [`ResizeError::Open`] if there is no log or somebody has it open,
    /// [`ResizeError::NotClosed`], [`ResizeError::Geometry`], [`ResizeError::TooSmall`] if what is
    /// retained does not fit, [`ResizeError::Read`] if it is damaged, [`ResizeError::File`] for a
    /// full disk, for one. The log is as it was then.
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path().join("log");
    /// let wal = Wal::create(&dir, Geometry::new(1 << 20, 1 << 18)?, Options::new())?;
    /// let lsn = wal.append(b"kept")?;
    /// wal.close()?;
    /// drop(wal);
    ///
    /// Wal::resize(&dir, 4 << 20)?;
    /// let wal = Wal::open(&dir, Options::new())?;
    /// assert_eq!(wal.geometry().capacity(), 4 << 20);
    /// assert_eq!(wal.get(lsn)?.payload(), b"kept");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resize(dir: impl AsRef<Path>, size: u64) -> Result<Resized, ResizeError> {
        let dir = dir.as_ref();
        // Before the lock: what is wrong with the path is the better answer.
        drop(RingFile::open(dir, false)?);
        let _lock = DirectoryLock::take(dir)?;
        let source = RingFile::open(dir, false)?;
        let head = recovery::read_head(&source)?;
        if !head.checkpoint.clean {
            return Err(ResizeError::NotClosed(dir.to_owned()));
        }
        let from = head.geometry;
        let to = from.resized(size)?;
        let used = |lsn: Lsn| from.sequence(from.normalize(lsn));
        let retained = used(head.checkpoint.durable) - used(head.checkpoint.trimmed) + 1;
        if retained > to.segments() {
            return Err(ResizeError::TooSmall { retained, segments: to.segments() });
        }
        let ring = NewRing::create(dir, &to)?;
        let target = (&ring.file, ring.path.as_path());
        let copied = Copier::new(&source, &head, target, to).copy();
        let Copied { start, end, records, .. } = copied.map_err(|failure| match failure {
            Failure::Read(error) => error.into(),
            Failure::File(error) => error.into(),
            Failure::Catalog(error) => ResizeError::Open(error.into()),
            // Not by a writer: we hold its lock.
            Failure::Overtaken => ResizeError::Read(ReadError::Damaged {
                lsn: head.checkpoint.trimmed,
                file_offset: from.file_offset(head.checkpoint.trimmed),
                reason: "its segment is not there",
            }),
        })?;
        ring.file.sync_all().map_err(file_error("sync", &ring.path))?;
        ring.rename()?;
        sync_directory(dir)?;
        Ok(Resized { from, to, start, end, records })
    }
}
