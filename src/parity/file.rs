//! The parity file: where it is, and what is believed of it.
//!
//! It is made by the first write, and has no header: each table names log, place and version by
//! itself, so there is no page that all of them depend on. What it lacks at its end is zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

use crate::error::FileError;
use crate::files::file_error;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::footer::FOOTER_LEN;
use crate::layout::parity::{ParityPlaces, ParityTable};
use crate::layout::{Footer, LogId};
use crate::recovery::ReadFn;

const NAME: &str = "parity";

/// One page.
pub(super) type Page = [u8; PAGE_SIZE as usize];

/// Adds a page to the parity of others: the sum of any two takes the one out again.
pub(super) fn add(sum: &mut Page, page: &Page) {
    for (sum, byte) in sum.iter_mut().zip(page) {
        *sum ^= byte;
    }
}

/// An open parity file.
pub(crate) struct ParityFile {
    file: File,
    path: PathBuf,
    log_id: LogId,
    geometry: Geometry,
    pub(super) places: ParityPlaces,
}

impl ParityFile {
    /// That of the log in `dir`, to read from. None if there is none.
    pub(crate) fn open(
        dir: &Path,
        log_id: LogId,
        geometry: Geometry,
    ) -> Result<Option<ParityFile>, FileError> {
        let holder = File::open(dir).map_err(file_error("open", dir))?;
        match ParityFile::of(&holder, dir, OFlags::RDONLY, (log_id, geometry)) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// That of the log whose directory `holder` is, to write to; made if it is not there. The
    /// caller holds the log's lock. What a ring of more segments has left is cut off.
    pub(super) fn create(
        holder: &File,
        dir: &Path,
        log_id: LogId,
        geometry: Geometry,
    ) -> Result<ParityFile, FileError> {
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = ParityFile::of(holder, dir, flags, (log_id, geometry))?;
        let len = file.file.metadata().map_err(file_error("look at", &file.path))?.len();
        if len > file.places.file_len() {
            let cut = file.file.set_len(file.places.file_len());
            cut.map_err(file_error("shorten", &file.path))?;
        }
        Ok(file)
    }

    fn of(
        holder: &File,
        dir: &Path,
        flags: OFlags,
        (log_id, geometry): (LogId, Geometry),
    ) -> Result<ParityFile, FileError> {
        let path = dir.join(NAME);
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(holder, NAME, flags, Mode::RUSR | Mode::WUSR);
        let file =
            opened.map(File::from).map_err(|errno| file_error("open", &path)(errno.into()))?;
        let metadata = file.metadata().map_err(file_error("look at", &path))?;
        if !metadata.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(file_error("open", &path)(error));
        }
        let places = ParityPlaces::new(geometry);
        Ok(ParityFile { file, path, log_id, geometry, places })
    }

    /// The table of segment `sequence`, if it is of what `footer` adds up; else why there is none.
    pub(crate) fn table(
        &self,
        sequence: u32,
        footer: &Footer,
    ) -> Result<ParityTable, &'static str> {
        let mut bytes = vec![0; self.places.table_len()];
        self.read(self.places.table_offset(sequence), &mut bytes)?;
        let base = self.geometry.lsn(sequence, 0);
        let table = ParityTable::verify(&bytes, &self.log_id, &self.places, base)?;
        match table.is_of(footer) {
            true => Ok(table),
            false => Err("the table is of other contents than the segment's footer"),
        }
    }

    /// Has segment `sequence` of the ring that `read` reads a table that counts?
    pub(crate) fn protects(&self, read: &ReadFn<'_>, sequence: u32) -> io::Result<bool> {
        let mut bytes = [0; FOOTER_LEN];
        read(self.geometry.footer_offset(sequence), &mut bytes)?;
        let footer = Footer::verify(&bytes, &self.log_id, self.geometry.lsn(sequence, 0));
        Ok(footer.is_some_and(|footer| self.table(sequence, &footer).is_ok()))
    }

    /// A group's page of parity, as it lies there.
    pub(super) fn parity(&self, sequence: u32, group: u32) -> Result<Page, &'static str> {
        let mut page = [0; PAGE_SIZE as usize];
        self.read(self.places.parity_offset(sequence, group), &mut page)?;
        Ok(page)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), &'static str> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err("the parity file cannot be read"),
            }
        }
        bytes[done..].fill(0);
        Ok(())
    }

    /// Writes the pages of parity of segment `sequence`, one behind the other.
    pub(super) fn write_parity(&self, sequence: u32, pages: &[Page]) -> Result<(), FileError> {
        self.write(self.places.parity_offset(sequence, 0), pages.as_flattened())
    }

    /// Writes the table of segment `sequence`.
    pub(super) fn write_table(&self, sequence: u32, table: &ParityTable) -> Result<(), FileError> {
        let bytes = table.encode(&self.log_id, self.geometry.lsn(sequence, 0));
        self.write(self.places.table_offset(sequence), &bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all_at(bytes, offset).map_err(file_error("write", &self.path))
    }

    /// What was written is on the medium.
    pub(super) fn sync(&self) -> Result<(), FileError> {
        self.file.sync_data().map_err(file_error("sync", &self.path))
    }
}
