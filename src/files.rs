//! The log's directory: its files, its lock, and what must hold before a byte of them is believed.
//!
//! 1. A log is a directory with a file `ring` (mode 0600) and a file `lock`. Creation is complete
//!    or invisible: the ring is written aside, synced, renamed, and the directory synced.
//! 2. Every block of the ring is written at creation, in 4 KiB writes. Sparse files and unwritten
//!    extents would turn a later store into SIGBUS on a full disk and each first sync into a
//!    journal commit; larger writes would leave large folios in the page cache, which make a sync
//!    of one page write hundreds of kilobytes.
//! 3. The lock is a POSIX record lock, which a forked child does not inherit. Such a lock is lost
//!    when its process closes *any* description of the file, so nothing else ever opens `lock`,
//!    and a list of the logs open in this process stands in front of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType};

use crate::error::{FileError, OpenError, PathError};
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::checkpoint::Boot;
use crate::sync::{ProcessMutex, lock_process};

const RING: &str = "ring";
const RING_ASIDE: &str = "ring.new";
const LOCK: &str = "lock";

/// Attaches verb and path to what the system said.
pub(crate) fn file_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { operation, path: path.to_owned(), source }
}

/// Is a log there? (Its ring file, whatever state it is in.)
pub(crate) fn exists(dir: &Path) -> Result<bool, FileError> {
    let ring = dir.join(RING);
    match ring.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if is_absence(&error) => Ok(false),
        Err(error) => Err(file_error("look at", &ring)(error)),
    }
}

/// Does `error` say that nothing is there? Any other may hide a log.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What is there, in words for an error.
pub(crate) fn describe(file_type: fs::FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_file() {
        "a regular file"
    } else if file_type.is_symlink() {
        "a symbolic link"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Checks that `dir` itself (not what a link points to) is a directory. `Ok(false)`: not there.
fn check_directory(dir: &Path) -> Result<bool, PathError> {
    let metadata = match dir.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(file_error("look at", dir)(error).into()),
    };
    if metadata.is_symlink() {
        return Err(PathError::Symlink(dir.to_owned()));
    }
    if !metadata.is_dir() {
        let found = describe(metadata.file_type());
        return Err(PathError::NotADirectory { path: dir.to_owned(), found });
    }
    Ok(true)
}

/// Checks that `path` itself (not what a link points to) is a regular file. `Ok(false)`: not there.
pub(crate) fn check_regular(path: &Path) -> Result<bool, PathError> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_file() => {
            let found = describe(metadata.file_type());
            Err(PathError::NotAFile { path: path.to_owned(), found })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // What else may be wrong with it, opening it will say.
        _ => Ok(true),
    }
}

/// The logs that this process has open for writing: process id (a forked child inherits the list,
/// not the locks), device and inode of the directory.
static OPEN_HERE: ProcessMutex<Vec<(u32, u64, u64)>> = ProcessMutex::new(Vec::new());

/// The exclusive right to write to a log. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    entry: (u32, u64, u64),
    /// Holds the record lock for as long as it is open.
    file: Option<File>,
}

impl DirectoryLock {
    /// Takes the lock of the log in `dir`, or says who has it.
    pub(crate) fn take(dir: &Path) -> Result<DirectoryLock, PathError> {
        let metadata = fs::metadata(dir).map_err(file_error("look at", dir))?;
        let entry = (std::process::id(), metadata.dev(), metadata.ino());
        let locked = |by: String| PathError::Locked { path: dir.to_owned(), by };
        let mut open = lock_process(&OPEN_HERE);
        if open.contains(&entry) {
            return Err(locked("in this process".to_owned()));
        }
        let path = dir.join(LOCK);
        check_regular(&path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(&path)
            .map_err(file_error("open", &path))?;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                open.push(entry);
                Ok(DirectoryLock { entry, file: Some(file) })
            }
            Err(Errno::ACCESS | Errno::AGAIN) => Err(locked(match lock_holder(&file) {
                Some(pid) => format!("by process {pid}"),
                None => "by another process".to_owned(),
            })),
            Err(errno) => Err(file_error("lock", &path)(errno.into()).into()),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let mut open = lock_process(&OPEN_HERE);
        // The file is closed before the entry goes: closing it later would release the lock that
        // the next opener in this process has taken by then (rule 3).
        drop(self.file.take());
        open.retain(|entry| *entry != self.entry);
    }
}

fn lock_holder(file: &File) -> Option<u32> {
    let query = Flock::from(FlockType::WriteLock);
    let holder = rustix::process::fcntl_getlk(file, &query).ok()??;
    holder.pid.map(|pid| pid.as_raw_nonzero().get() as u32)
}

/// The process that has the log in `dir` open for writing, if any.
pub(crate) fn writer_of(dir: &Path) -> Option<u32> {
    let metadata = fs::metadata(dir).ok()?;
    let entry = (std::process::id(), metadata.dev(), metadata.ino());
    // The list stays locked: opening and closing the lock file while this process holds the lock
    // would release it (rule 3).
    let open = lock_process(&OPEN_HERE);
    if open.contains(&entry) {
        return Some(entry.0);
    }
    let file = open_nofollow(&dir.join(LOCK), false).ok()?;
    lock_holder(&file)
}

/// Makes the directory, if it is not there, and makes sure that its name outlives a power loss.
pub(crate) fn prepare_directory(dir: &Path) -> Result<(), PathError> {
    let absolute = std::path::absolute(dir).map_err(file_error("look at", dir))?;
    let is_there = check_directory(dir)?;
    // The directories that will hold a new name, or may hold one that was never synced.
    let holders: Vec<&Path> = absolute
        .ancestors()
        .skip(1)
        .scan(false, |done, holder| {
            let last = std::mem::replace(done, holder.is_dir());
            (!last).then_some(holder)
        })
        .collect();
    if !is_there {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(file_error("create directory", dir))?;
    }
    for holder in holders {
        sync_directory(holder)?;
    }
    Ok(())
}

/// Writes the ring file of a new log: `header` at its start, zeros to its full length. The caller
/// holds the lock and has checked that there is none yet. On an error nothing is left behind.
pub(crate) fn create_ring(dir: &Path, header: &[u8], geometry: &Geometry) -> Result<(), FileError> {
    let new = NewRing::create(dir, geometry)?;
    new.file.write_all_at(header, 0).map_err(file_error("write", &new.path))?;
    new.file.sync_all().map_err(file_error("sync", &new.path))?;
    new.rename()?;
    // A ring whose name could not be synced is not left behind either.
    sync_directory(dir).inspect_err(|_| drop(fs::remove_file(dir.join(RING))))
}

/// A ring file that is being written aside: zeros of its full length, to begin with. Dropped, it
/// goes. (That is best effort: a file left aside is invisible, and the next one overwrites it.)
#[derive(Debug)]
pub(crate) struct NewRing {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    ring: PathBuf,
    is_named: bool,
}

impl NewRing {
    /// The caller holds the lock of the directory.
    pub(crate) fn create(dir: &Path, geometry: &Geometry) -> Result<NewRing, FileError> {
        let path = dir.join(RING_ASIDE);
        let written = write_ring(&path, geometry);
        let file = written.inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(NewRing { file, path, ring: dir.join(RING), is_named: false })
    }

    /// Gives it its name. The caller has synced it, and syncs the directory.
    pub(crate) fn rename(mut self) -> Result<(), FileError> {
        fs::rename(&self.path, &self.ring).map_err(file_error("rename", &self.path))?;
        self.is_named = true;
        Ok(())
    }
}

impl Drop for NewRing {
    fn drop(&mut self) {
        if !self.is_named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn write_ring(path: &Path, geometry: &Geometry) -> Result<File, FileError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(file_error("create", path))?;
    let zeros = [0_u8; PAGE_SIZE as usize];
    for _ in 0..geometry.file_len() / PAGE_SIZE {
        file.write_all(&zeros).map_err(file_error("write", path))?;
    }
    Ok(file)
}

/// Makes the names in `dir` outlive a power loss.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), FileError> {
    let file = File::open(dir).map_err(file_error("open", dir))?;
    file.sync_all().map_err(file_error("sync", dir))
}

/// An open ring file.
#[derive(Debug)]
pub(crate) struct RingFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    device: u64,
    inode: u64,
}

impl RingFile {
    /// Opens the ring of the log in `dir`, after checking what is there.
    pub(crate) fn open(dir: &Path, writable: bool) -> Result<RingFile, OpenError> {
        if !check_directory(dir)? {
            return Err(OpenError::NoLog(dir.to_owned()));
        }
        let path = dir.join(RING);
        if !check_regular(&path)? {
            return Err(OpenError::NoLog(dir.to_owned()));
        }
        RingFile::open_file(&path, writable)
    }

    /// Opens a ring file by its own path.
    pub(crate) fn open_file(path: &Path, writable: bool) -> Result<RingFile, OpenError> {
        let path = path.to_owned();
        let file = open_nofollow(&path, writable).map_err(file_error("open", &path))?;
        let metadata = file.metadata().map_err(file_error("look at", &path))?;
        if !metadata.is_file() {
            let found = describe(metadata.file_type());
            return Err(PathError::NotAFile { path, found }.into());
        }
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(RingFile { file, path, len: metadata.len(), device, inode })
    }

    /// A way to open the same file again; it fails if the path names another file by then.
    pub(crate) fn reopener(&self) -> Box<dyn Fn() -> io::Result<File> + Send + Sync> {
        let (path, device, inode) = (self.path.clone(), self.device, self.inode);
        Box::new(move || {
            let file = open_nofollow(&path, true)?;
            let metadata = file.metadata()?;
            if (metadata.dev(), metadata.ino()) != (device, inode) {
                return Err(io::Error::other("the ring file was replaced while it was open"));
            }
            Ok(file)
        })
    }

    /// The running system, and this file's identity on it.
    pub(crate) fn boot(&self) -> Boot {
        // An inode is given to another file once its own is gone: the time of birth tells them
        // apart, where the file system keeps one.
        let born = self.file.metadata().and_then(|metadata| metadata.created());
        let born = born.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |since| since.as_nanos());
        let half = |start| {
            let mut digest = crc32fast::Hasher::new_with_initial(start);
            digest.update(&self.device.to_le_bytes());
            digest.update(&self.inode.to_le_bytes());
            digest.update(&born.to_le_bytes());
            u64::from(digest.finalize())
        };
        Boot { boot_id: boot_id(), file_identity: half(0) | half(1) << 32 }
    }
}

/// Opens what is there, unless it is a symbolic link, and without waiting if it is a FIFO.
pub(crate) fn open_nofollow(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
}

/// The kernel's id of this boot; zero where there is none, which counts as never the same.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map(u128::to_be_bytes).unwrap_or_default()
}

/// Unix time in milliseconds: for people, never for decisions.
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map(|elapsed| elapsed.as_millis() as u64).unwrap_or_default()
}
