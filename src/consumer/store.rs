//! Where the consumer table is kept: two files beside the ring, written in turn.
//!
//! 1. A copy is written whole and synced before the other one is touched: whatever a crash does to
//!    the one being written, the other is whole. A failed write leaves the turn where it was, and
//!    the next attempt writes all of the same copy again.
//! 2. The first write of each copy goes to a file aside, which is synced and renamed: a copy is
//!    there with a whole table in it, or not there.
//! 3. Of the copies that verify, the newer counts. It is written and synced again before the other
//!    one is touched for the first time: a process that was killed while it wrote has left it in
//!    the cache alone.
//! 4. A copy that does not verify is one that a crash has torn, or damage: nobody can tell which.
//!    The other one is at most one write older. If neither verifies, the log is refused.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::error::{FileError, OpenError, PathError};
use crate::files::{check_regular, file_error};
use crate::geometry::Geometry;
use crate::layout::consumers::TABLE_LEN_MAX;
use crate::layout::{ConsumerTable, LogId};
#[cfg(any(test, feature = "fuzzing"))]
use crate::sync::{Arc, Mutex, lock};

/// The two copies.
pub(crate) const COPIES: [&str; 2] = ["consumers.a", "consumers.b"];
/// Longer files are read up to here: a table, and the rest of its last page.
const READ_MAX: u64 = (TABLE_LEN_MAX + 4096) as u64;

/// Holds two copies of a table.
pub(crate) trait Medium: Send {
    /// A copy's name, for messages.
    fn path(&self, copy: usize) -> PathBuf;

    /// What a copy holds; `None` if it was never written.
    fn read(&self, copy: usize) -> Result<Option<Vec<u8>>, FileError>;

    /// Writes over a copy, and syncs it. False if it is not there.
    fn overwrite(&mut self, copy: usize, bytes: &[u8]) -> Result<bool, FileError>;

    /// Writes a copy that is not there aside, syncs it, and gives it its name.
    fn create(&mut self, copy: usize, bytes: &[u8]) -> Result<(), FileError>;

    /// Makes the copies' names outlive a power loss.
    fn sync_names(&mut self) -> Result<(), FileError>;
}

/// The files in a log's directory, wherever that is renamed to.
pub(crate) struct Directory {
    dir: File,
    path: PathBuf,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Directory, FileError> {
        let dir = File::open(path).map_err(file_error("open", path))?;
        Ok(Directory { dir, path: path.to_owned() })
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(file)
    }

    /// Removes both copies, if they are there.
    pub(crate) fn remove(&mut self) -> Result<(), FileError> {
        for name in COPIES {
            match unlinkat(&self.dir, name, AtFlags::empty()) {
                Err(errno) if errno != Errno::NOENT => {
                    return Err(file_error("remove", &self.path.join(name))(errno.into()));
                }
                _ => {}
            }
        }
        self.sync_names()
    }
}

impl Medium for Directory {
    fn path(&self, copy: usize) -> PathBuf {
        self.path.join(COPIES[copy])
    }

    fn read(&self, copy: usize) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.path(copy);
        let file = match self.file(COPIES[copy], OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(READ_MAX).read_to_end(&mut bytes).map_err(file_error("read", &path))?;
        Ok(Some(bytes))
    }

    fn overwrite(&mut self, copy: usize, bytes: &[u8]) -> Result<bool, FileError> {
        let path = self.path(copy);
        let file = match self.file(COPIES[copy], OFlags::WRONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(file_error("open", &path)(error)),
        };
        file.write_all_at(bytes, 0).map_err(file_error("write", &path))?;
        file.sync_data().map_err(file_error("sync", &path))?;
        Ok(true)
    }

    fn create(&mut self, copy: usize, bytes: &[u8]) -> Result<(), FileError> {
        let aside = format!("{}.new", COPIES[copy]);
        let path = self.path.join(&aside);
        let mut file = self
            .file(&aside, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)
            .map_err(file_error("create", &path))?;
        file.write_all(bytes).map_err(file_error("write", &path))?;
        file.sync_all().map_err(file_error("sync", &path))?;
        let renamed = renameat(&self.dir, &aside, &self.dir, COPIES[copy]);
        renamed.map_err(|errno| file_error("rename", &path)(errno.into()))
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        self.dir.sync_all().map_err(file_error("sync", &self.path))
    }
}

/// Copies in memory, shared by all clones: what is written survives until power is lost.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Clone, Default)]
pub(crate) struct Memory(pub(crate) Arc<Mutex<Copies>>);

#[cfg(any(test, feature = "fuzzing"))]
#[derive(Default)]
pub(crate) struct Copies {
    pub(crate) bytes: [Option<Vec<u8>>; 2],
    /// So many bytes of the next write arrive; then it fails, once.
    pub(crate) torn_after: Option<usize>,
    /// Nothing arrives.
    pub(crate) broken: bool,
    pub(crate) writes: usize,
}

#[cfg(any(test, feature = "fuzzing"))]
impl Medium for Memory {
    fn path(&self, copy: usize) -> PathBuf {
        PathBuf::from(COPIES[copy])
    }

    fn read(&self, copy: usize) -> Result<Option<Vec<u8>>, FileError> {
        Ok(lock(&self.0).bytes[copy].clone())
    }

    fn overwrite(&mut self, copy: usize, bytes: &[u8]) -> Result<bool, FileError> {
        let mut copies = lock(&self.0);
        if copies.bytes[copy].is_none() {
            return Ok(false);
        }
        let torn = copies.next_write();
        let place = copies.bytes[copy].as_mut().expect("looked at above");
        let len = torn.unwrap_or(bytes.len()).min(bytes.len());
        place.resize(place.len().max(len), 0);
        place[..len].copy_from_slice(&bytes[..len]);
        if torn.is_some() { Err(self.torn(copy)) } else { Ok(true) }
    }

    fn create(&mut self, copy: usize, bytes: &[u8]) -> Result<(), FileError> {
        let mut copies = lock(&self.0);
        if copies.next_write().is_some() {
            // Written aside: it does not arrive at all.
            return Err(self.torn(copy));
        }
        copies.bytes[copy] = Some(bytes.to_vec());
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        Ok(())
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Memory {
    fn torn(&self, copy: usize) -> FileError {
        file_error("sync", &self.path(copy))(io::Error::other("torn"))
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Copies {
    /// Counts a write; how many of its bytes arrive, if it fails.
    fn next_write(&mut self) -> Option<usize> {
        self.writes += 1;
        if self.broken { Some(0) } else { self.torn_after.take() }
    }
}

/// A copy that is there in `dir`, which holds no log.
pub(crate) fn leftover(dir: &Path) -> Result<Option<PathBuf>, PathError> {
    for copy in COPIES {
        let path = dir.join(copy);
        if check_regular(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    /// The newest table.
    pub(crate) table: Option<ConsumerTable>,
    /// A copy that did not verify, and why.
    pub(crate) damaged: Option<(PathBuf, &'static str)>,
    /// Where the table was found.
    copy: usize,
}

impl Loaded {
    /// Refuses a table of a log that has gone on further than this one has: it was put back to an
    /// earlier state, and what the positions mean is unknown. (A log whose newest checkpoint slot
    /// is damaged is behind by one epoch.)
    pub(crate) fn check_epoch(&self, medium: &dyn Medium, epoch: u64) -> Result<(), OpenError> {
        match &self.table {
            Some(table) if table.epoch > epoch.saturating_add(1) => Err(OpenError::Consumers {
                path: medium.path(self.copy),
                reason: "they are of a later state of the log than its ring file",
            }),
            _ => Ok(()),
        }
    }
}

/// Reads both copies, and believes the newer of those that verify.
pub(crate) fn load(
    medium: &dyn Medium,
    log_id: &LogId,
    geometry: &Geometry,
) -> Result<Loaded, OpenError> {
    let mut loaded = Loaded::default();
    for copy in 0..COPIES.len() {
        let Some(bytes) = medium.read(copy)? else { continue };
        match ConsumerTable::verify(&bytes, log_id, geometry) {
            Ok(table) => {
                let newest = loaded.table.as_ref();
                if newest.is_none_or(|newest| newest.generation < table.generation) {
                    (loaded.table, loaded.copy) = (Some(table), copy);
                }
            }
            Err(reason) => loaded.damaged = Some((medium.path(copy), reason)),
        }
    }
    match loaded.damaged {
        Some((path, reason)) if loaded.table.is_none() => {
            Err(OpenError::Consumers { path, reason })
        }
        _ => Ok(loaded),
    }
}

/// Writes the table.
pub(crate) struct Store {
    medium: Box<dyn Medium>,
    log_id: LogId,
    generation: u64,
    /// The copy to write next, once there is one.
    turn: usize,
    exists: bool,
    /// The copy's name is known to be on the medium.
    named: [bool; COPIES.len()],
}

impl Store {
    /// Goes on from what was loaded.
    pub(crate) fn new(medium: Box<dyn Medium>, log_id: LogId, loaded: &Loaded) -> Store {
        let generation = loaded.table.as_ref().map_or(0, |table| table.generation);
        let exists = loaded.table.is_some();
        // Nothing is there: A is the first.
        let turn = if exists { 1 - loaded.copy } else { 0 };
        Store { medium, log_id, generation, turn, exists, named: [false; COPIES.len()] }
    }

    /// Is there a table?
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// Rule 3.
    pub(crate) fn confirm(&mut self, table: &ConsumerTable) -> Result<(), FileError> {
        self.replace(1 - self.turn, table)
    }

    /// Writes the next table; it is on the medium when this returns.
    pub(crate) fn write(&mut self, mut table: ConsumerTable) -> Result<(), FileError> {
        table.generation = self.generation + 1;
        self.replace(self.turn, &table)?;
        self.generation = table.generation;
        self.turn = 1 - self.turn;
        self.exists = true;
        Ok(())
    }

    /// Rule 2: replaces a copy; it is on the medium when this returns.
    fn replace(&mut self, copy: usize, table: &ConsumerTable) -> Result<(), FileError> {
        let bytes = table.encode(&self.log_id);
        if !self.medium.overwrite(copy, &bytes)? {
            self.named[copy] = false;
            self.medium.create(copy, &bytes)?;
        }
        if !self.named[copy] {
            self.medium.sync_names()?;
            self.named[copy] = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::layout::StoredConsumer;
    use crate::lsn::{EpochLsn, Lsn};

    const LOG_ID: LogId = [7; 16];

    fn geometry() -> Geometry {
        Geometry::new(1 << 20, 1 << 18).expect("in bounds")
    }

    /// A table whose consumers stand at `lsn`; how many there are depends on it.
    fn table(lsn: u64) -> ConsumerTable {
        let position = EpochLsn { epoch: 1, lsn: Lsn::new(lsn) };
        let consumers = (0..lsn / 16 % 3).map(|number| StoredConsumer {
            name: format!("consumer {number}"),
            position,
            cut: None,
        });
        ConsumerTable {
            epoch: 1,
            durable: Lsn::new(lsn),
            consumers: consumers.collect(),
            ..ConsumerTable::default()
        }
    }

    fn load_from(medium: &Memory) -> Result<Loaded, OpenError> {
        load(medium, &LOG_ID, &geometry())
    }

    fn durable(loaded: &Loaded) -> Option<u64> {
        loaded.table.as_ref().map(|table| table.durable.get())
    }

    /// Whatever a failing write leaves, at any byte, the table before it is found; and the next
    /// attempt, in this process or in the next one, succeeds.
    #[test]
    fn a_write_that_breaks_off_leaves_the_table_before_it() {
        let len = table(128).encode(&LOG_ID).len();
        for torn_after in (0..len).step_by(7).chain(0..400) {
            let medium = Memory::default();
            let mut store = Store::new(Box::new(medium.clone()), LOG_ID, &Loaded::default());
            for (lsn, before) in [(64, None), (80, Some(64)), (96, Some(80)), (112, Some(96))] {
                lock(&medium.0).torn_after = Some(torn_after);
                assert!(store.write(table(lsn)).is_err());
                let found = load_from(&medium).expect("one copy is whole, or none is there");
                let arrived = durable(&found) == Some(lsn);
                assert!(arrived || durable(&found) == before, "{torn_after}: {found:?}");
                store.write(table(lsn)).expect("it fails once");
                let found = load_from(&medium).expect("both are whole");
                assert_eq!(durable(&found), Some(lsn));
                assert!(found.damaged.is_none());
                // The next process goes on from what it finds.
                store = Store::new(Box::new(medium.clone()), LOG_ID, &found);
                store.confirm(found.table.as_ref().expect("found")).expect("it can be written");
            }
        }
    }

    #[test]
    fn a_damaged_copy_gives_way_to_the_other_and_is_named() {
        let medium = Memory::default();
        let mut store = Store::new(Box::new(medium.clone()), LOG_ID, &Loaded::default());
        assert!(!store.exists());
        assert!(load_from(&medium).expect("nothing is there").table.is_none());
        store.write(table(64)).expect("it can be written");
        assert!(store.exists());
        store.write(table(80)).expect("it can be written");
        assert_eq!(lock(&medium.0).writes, 2);
        let whole = lock(&medium.0).bytes.clone();
        for (copy, left) in [(1, 64), (0, 80)] {
            lock(&medium.0).bytes = whole.clone();
            lock(&medium.0).bytes[copy].as_mut().expect("written")[70] ^= 4;
            let found = load_from(&medium).expect("the other one is whole");
            assert_eq!(durable(&found), Some(left));
            let (path, reason) = found.damaged.expect("it is named");
            assert_eq!(path, medium.path(copy));
            assert_eq!(reason, "its checksum does not match its bytes");
        }
        for copy in &mut lock(&medium.0).bytes {
            copy.as_mut().expect("written")[70] ^= 1;
        }
        lock(&medium.0).bytes[1].as_mut().expect("written")[70] ^= 4;
        let refused = load_from(&medium).expect_err("neither can be believed");
        assert!(matches!(refused, OpenError::Consumers { .. }), "{refused}");
        assert!(refused.to_string().contains("remove both"), "{refused}");
        lock(&medium.0).bytes[0] = None;
        assert!(load_from(&medium).is_err(), "one is missing, the other damaged");
    }

    #[test]
    fn the_newest_table_counts_wherever_it_is() {
        let medium = Memory::default();
        let mut store = Store::new(Box::new(medium.clone()), LOG_ID, &Loaded::default());
        for lsn in (64..320).step_by(16) {
            store.write(table(lsn)).expect("it can be written");
            assert_eq!(durable(&load_from(&medium).expect("whole")), Some(lsn));
        }
        let later = load_from(&medium).expect("whole");
        assert!(later.check_epoch(&medium, 0).is_ok());
        let mut further = later.clone();
        further.table.as_mut().expect("found").epoch = 3;
        assert!(further.check_epoch(&medium, 2).is_ok());
        assert!(further.check_epoch(&medium, 1).is_err());
    }

    #[test]
    fn files_are_made_aside_and_then_written_in_place() {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let mut files = Directory::open(dir.path()).expect("it is there");
        assert_eq!(leftover(dir.path()).expect("it can be looked at"), None);
        assert!(files.read(0).expect("it can be looked at").is_none());
        assert!(!files.overwrite(0, b"first, and long").expect("it can be looked for"));
        files.create(0, b"first, and long").expect("it can be made");
        assert!(files.overwrite(0, b"second").expect("it can be written"));
        files.sync_names().expect("it can be synced");
        let bytes = files.read(0).expect("it can be read").expect("it is there");
        assert_eq!(bytes, b"second and long");
        assert!(files.read(1).expect("it can be looked at").is_none());
        let names: Vec<_> = fs::read_dir(dir.path()).expect("it can be listed").collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(leftover(dir.path()).expect("it can be looked at"), Some(files.path(0)));
        std::os::unix::fs::symlink("elsewhere", files.path(1)).expect("a link can be made");
        assert!(files.read(1).is_err() && files.overwrite(1, b"x").is_err());
        // The directory is the one that was opened, whatever its name is by now.
        let root = tempfile::tempdir().expect("a directory can be made");
        let [old, new] = ["old", "new"].map(|name| root.path().join(name));
        fs::create_dir(&old).expect("a directory can be made");
        let mut files = Directory::open(&old).expect("it is there");
        fs::rename(&old, &new).expect("it can be renamed");
        fs::create_dir(&old).expect("a directory can be made");
        files.create(0, b"x").expect("it can be made");
        assert!(new.join(COPIES[0]).exists() && !old.join(COPIES[0]).exists());
    }
}
