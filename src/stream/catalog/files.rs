//! What the catalog asks of its two files, and how the log's directory does it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::decide::Side;
use crate::error::{FileError, PathError};
use crate::files::{check_regular, describe, file_error, open_nofollow, sync_directory};

/// The verb of every sync, in errors. A sync that failed is not tried again.
pub(crate) const SYNC: &str = "sync";

/// The operations on the two files, so that tests can let each of them fail.
pub(crate) trait Files: std::fmt::Debug {
    /// The path of a file, for errors.
    fn path(&self, side: Side) -> PathBuf;

    /// Opens a file, if it is there, and reads all of it.
    fn read(&mut self, side: Side) -> Result<Option<Vec<u8>>, PathError>;

    /// Writes a whole file under the name that means nothing, and syncs it. Other operations are
    /// not on it before it is renamed.
    fn write_aside(&mut self, side: Side, bytes: &[u8]) -> Result<(), FileError>;

    /// Gives the file that was written aside its name; later operations are on it.
    fn rename(&mut self, side: Side) -> Result<(), FileError>;

    /// Removes the file that was written aside, if it is there.
    fn discard_aside(&mut self, side: Side) -> Result<(), FileError>;

    /// Removes a file under both names, if it is there.
    fn remove(&mut self, side: Side) -> Result<(), FileError>;

    /// Makes names and absences outlive a power loss.
    fn sync_directory(&mut self) -> Result<(), FileError>;

    /// Writes all of `bytes` at `offset` of a file that is there. On an error any part of them may
    /// have been written.
    fn write(&mut self, side: Side, offset: usize, bytes: &[u8]) -> Result<(), FileError>;

    /// Gives a file the length `len`, which is not more than it has.
    fn cut(&mut self, side: Side, len: usize) -> Result<(), FileError>;

    /// Makes a file's bytes and length outlive a power loss.
    fn sync(&mut self, side: Side) -> Result<(), FileError>;
}

impl<F: Files + ?Sized> Files for Box<F> {
    fn path(&self, side: Side) -> PathBuf {
        (**self).path(side)
    }

    fn read(&mut self, side: Side) -> Result<Option<Vec<u8>>, PathError> {
        (**self).read(side)
    }

    fn write_aside(&mut self, side: Side, bytes: &[u8]) -> Result<(), FileError> {
        (**self).write_aside(side, bytes)
    }

    fn rename(&mut self, side: Side) -> Result<(), FileError> {
        (**self).rename(side)
    }

    fn discard_aside(&mut self, side: Side) -> Result<(), FileError> {
        (**self).discard_aside(side)
    }

    fn remove(&mut self, side: Side) -> Result<(), FileError> {
        (**self).remove(side)
    }

    fn sync_directory(&mut self) -> Result<(), FileError> {
        (**self).sync_directory()
    }

    fn write(&mut self, side: Side, offset: usize, bytes: &[u8]) -> Result<(), FileError> {
        (**self).write(side, offset, bytes)
    }

    fn cut(&mut self, side: Side, len: usize) -> Result<(), FileError> {
        (**self).cut(side, len)
    }

    fn sync(&mut self, side: Side) -> Result<(), FileError> {
        (**self).sync(side)
    }
}

/// `streams.a` and `streams.b` in a log's directory.
#[derive(Debug)]
pub(crate) struct Directory {
    dir: PathBuf,
    is_writable: bool,
    /// The same description writes and syncs, so that it hears of every write that failed.
    open: [Option<File>; 2],
    /// Those that have not been renamed yet.
    new: [Option<File>; 2],
}

impl Directory {
    pub(crate) fn new(dir: &Path, is_writable: bool) -> Directory {
        Directory { dir: dir.to_owned(), is_writable, open: [None, None], new: [None, None] }
    }

    fn aside(&self, side: Side) -> PathBuf {
        self.dir.join(match side {
            Side::A => "streams.a.new",
            Side::B => "streams.b.new",
        })
    }

    fn on_open(
        &self,
        side: Side,
        operation: &'static str,
        act: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), FileError> {
        let file = self.open[side as usize].as_ref();
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        file.and_then(act).map_err(file_error(operation, &self.path(side)))
    }
}

impl Files for Directory {
    fn path(&self, side: Side) -> PathBuf {
        self.dir.join(match side {
            Side::A => "streams.a",
            Side::B => "streams.b",
        })
    }

    fn read(&mut self, side: Side) -> Result<Option<Vec<u8>>, PathError> {
        let path = self.path(side);
        if !check_regular(&path)? {
            return Ok(None);
        }
        let file = open_nofollow(&path, self.is_writable).map_err(file_error("open", &path))?;
        // It may have been replaced since it was looked at.
        let metadata = file.metadata().map_err(file_error("look at", &path))?;
        if !metadata.is_file() {
            let found = describe(metadata.file_type());
            return Err(PathError::NotAFile { path, found });
        }
        // A byte more than there is, so that one read finds the end, too.
        let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
        (&file).read_to_end(&mut bytes).map_err(file_error("read", &path))?;
        self.open[side as usize] = Some(file);
        Ok(Some(bytes))
    }

    fn write_aside(&mut self, side: Side, bytes: &[u8]) -> Result<(), FileError> {
        let path = self.aside(side);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .map_err(file_error("create", &path))?;
        file.write_all_at(bytes, 0).map_err(file_error("write", &path))?;
        file.sync_all().map_err(file_error(SYNC, &path))?;
        self.new[side as usize] = Some(file);
        Ok(())
    }

    fn rename(&mut self, side: Side) -> Result<(), FileError> {
        let aside = self.aside(side);
        fs::rename(&aside, self.path(side)).map_err(file_error("rename", &aside))?;
        self.open[side as usize] = self.new[side as usize].take();
        Ok(())
    }

    fn discard_aside(&mut self, side: Side) -> Result<(), FileError> {
        self.new[side as usize] = None;
        remove_if_there(&self.aside(side))
    }

    fn remove(&mut self, side: Side) -> Result<(), FileError> {
        self.discard_aside(side)?;
        self.open[side as usize] = None;
        remove_if_there(&self.path(side))
    }

    fn sync_directory(&mut self) -> Result<(), FileError> {
        sync_directory(&self.dir)
    }

    fn write(&mut self, side: Side, offset: usize, bytes: &[u8]) -> Result<(), FileError> {
        self.on_open(side, "write", |file| file.write_all_at(bytes, offset as u64))
    }

    fn cut(&mut self, side: Side, len: usize) -> Result<(), FileError> {
        self.on_open(side, "cut back", |file| file.set_len(len as u64))
    }

    fn sync(&mut self, side: Side) -> Result<(), FileError> {
        self.on_open(side, SYNC, File::sync_data)
    }
}

fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}
