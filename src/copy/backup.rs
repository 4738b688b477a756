//! A copy of a log that may be written meanwhile.
//!
//! 1. Consumers' positions are read before the ring is copied: none is beyond the copy's end. The
//!    stream catalog is copied after it: every stream that the copy has records of is in it, and no
//!    position in it is beyond the end, as what it is of was released before.
//! 2. The catalog's files are copied raw, B before A: what is read like that is what a crash might
//!    have left, and a writer that opens the copy repairs it as it would have then.
//! 3. The ring comes last: without it, there is no log.

use std::path::{Path, PathBuf};

use super::{Copied, Copier, Failure};
use crate::consumer::store::{self, Directory, Medium};
use crate::error::{BackupError, PathError, ReadError};
use crate::files::{self, DirectoryLock, NewRing, file_error};
use crate::inspect::{self, Observer};
use crate::lsn::Lsn;
use crate::stream::RawCatalog;

/// How often a copy is begun that the writer overtakes.
const ATTEMPTS_MAX: u32 = 5;

/// What a backup holds. Positions are LSNs, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The directory of the copy.
    pub path: PathBuf,
    /// Its oldest retained position.
    pub start: Lsn,
    /// Its end: a prefix of the log, as the log was when the copy began or later.
    pub end: Lsn,
    /// Callers' records between the two.
    pub records: u64,
    /// Their payload.
    pub payload_bytes: u64,
}

impl Observer {
    /// Copies the log into directory `to`, which is made if it is not there. The log may be written
    /// meanwhile; its writer does not know of it.
    ///
    /// The copy holds all that was committed when this was called, and perhaps more, up to some
    /// record: it is a prefix of the log. It opens as a log that was closed in order, with the same
    /// streams, LSNs and identity, and with consumers where they stood. Every record has been
    /// verified in the copy, and all of it is on the medium when this returns. It should not be
    /// written to while the log goes on: then there are two logs that claim to be one.
    ///
    /// # Errors
    ///
    /// There is a log in `to`; the log is damaged; its writer overwrites it faster than it can be
    /// copied; the system refused (a full disk, for one). There is no log in `to` then that was not
    /// there before.
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::inspect::Observer;
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let (dir, copy) = (dir.path().join("log"), dir.path().join("copy"));
    /// let wal = Wal::create(&dir, Geometry::new(1 << 20, 1 << 18)?, Options::new())?;
    /// wal.append(b"apples")?;
    /// // Here or in another process, while the log is written:
    /// let backup = Observer::open(&dir)?.backup(&copy)?;
    /// assert_eq!(backup.records, 1);
    /// let copy = Wal::open(&copy, Options::new())?;
    /// assert_eq!(copy.recovery_report().records, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<Backup, BackupError> {
        let to = to.as_ref();
        files::prepare_directory(to)?;
        let lock = DirectoryLock::take(to)?;
        if files::exists(to).map_err(PathError::File)? {
            return Err(BackupError::Exists(to.to_owned()));
        }
        let copied = self.copy_to(to)?;
        self.read_back(to, &copied)?;
        drop(lock);
        let Copied { start, end, records, payload_bytes } = copied;
        Ok(Backup { path: to.to_owned(), start, end, records, payload_bytes })
    }

    fn copy_to(&self, to: &Path) -> Result<Copied, BackupError> {
        let mut attempts = 0;
        let (ring, copied, catalog) = loop {
            attempts += 1;
            match self.try_copy_to(to) {
                Ok(copy) => break copy,
                Err(Failure::Overtaken) if attempts < ATTEMPTS_MAX => {}
                Err(Failure::Overtaken) => return Err(BackupError::Overtaken { attempts }),
                Err(Failure::Read(error)) => return Err(error.into()),
                Err(Failure::File(error)) => return Err(error.into()),
                Err(Failure::Catalog(error)) => return Err(error.into()),
            }
        };
        catalog.write(to)?;
        ring.file.sync_all().map_err(file_error("sync", &ring.path))?;
        // Their names, and then the ring's: rule 3.
        files::sync_directory(to)?;
        ring.rename()?;
        files::sync_directory(to)?;
        Ok(copied)
    }

    fn try_copy_to(&self, to: &Path) -> Result<(NewRing, Copied, RawCatalog), Failure> {
        self.copy_consumers(to)?;
        let geometry = self.head.geometry;
        let ring = NewRing::create(to, &geometry)?;
        let target = (&ring.file, ring.path.as_path());
        let copied = Copier::new(&self.ring, &self.head, target, geometry).copy()?;
        // Rule 1.
        let catalog = RawCatalog::read(&self.dir).map_err(Failure::Catalog)?;
        let now = inspect::read_checkpoint(&self.ring, &self.head)?;
        if now.trimmed > copied.end {
            return Err(Failure::Overtaken);
        }
        Ok((ring, copied, catalog))
    }

    fn copy_consumers(&self, to: &Path) -> Result<(), Failure> {
        let mut target = Directory::open(to)?;
        let loaded = self.load_consumers().map_err(ReadError::from)?;
        target.remove()?;
        if let Some(table) = loaded.table {
            target.create(0, &table.encode(&self.head.log_id))?;
            target.sync_names()?;
        }
        Ok(())
    }

    /// What was written is read from the file, as a stranger would read it.
    fn read_back(&self, to: &Path, copied: &Copied) -> Result<(), BackupError> {
        let unreadable = |error: ReadError| BackupError::Unreadable(Box::new(error));
        let mut copy = Observer::open(to).map_err(|error| unreadable(error.into()))?;
        let stat = copy.stat().map_err(unreadable)?;
        copy.stream_names()?;
        store::load(&Directory::open(to)?, &self.head.log_id, &self.head.geometry)
            .map_err(|error| unreadable(error.into()))?;
        let same = (stat.records, self.head.geometry.normalize(stat.committed));
        if same != (copied.records, copied.end) {
            return Err(unreadable(ReadError::Damaged {
                lsn: stat.committed,
                file_offset: self.head.geometry.file_offset(stat.committed),
                reason: "records that were copied are not there",
            }));
        }
        Ok(())
    }
}
