//! The stream catalog: which streams a log has, kept twice.
//!
//! 1. Two files, `streams.a` and `streams.b`, hold the same bytes: a header, and entries that are
//!    only ever added. There are none before the first stream, and each of them is complete or not
//!    there: it is written aside, synced, renamed, and the directory synced.
//! 2. An addition is written to A, A is synced, it is written to B, B is synced. Only then do the
//!    streams exist. So B never has what A has not been synced with; what that proves when one of
//!    the files is damaged, `decide` says.
//! 3. An addition that fails is taken back: B is cut to its former length and synced, then A, in
//!    this order because of rule 2. A sync that failed is never believed when it is repeated:
//!    after one, and after a cut that failed, nothing more is added until the catalog is opened
//!    again.
//! 4. An open syncs both files first, and their directory, since what it reads may be in the page
//!    cache alone, name and all; and then repairs A before B. What B lacks is written to A once
//!    more: a sync of A that failed may have left it in the cache, clean, where no sync writes it,
//!    and then B would have what A was not synced with. It may be interrupted anywhere: the next
//!    one decides the same.
//! 5. A position replaces the one before it. Once most of the files is positions that have been
//!    replaced, they are compacted: the catalog without these is written aside, twice, both are
//!    synced, A is renamed, then B, and the directory synced. These files are of the next
//!    generation, so that no mixture of two is taken for one catalog; while there are files of two,
//!    nothing is added.
//! 6. A catalog that is opened to be read repairs nothing, and reads B before A: whatever a writer
//!    at work has begun to write to B is whole in A by then.

mod decide;
mod files;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod names;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

pub(crate) use decide::Side;
use decide::{Decision, Refusal};
pub(crate) use files::{Directory, Files};
use names::Streams;

use crate::error::{CatalogError, FileError};
use crate::layout::catalog::{Addition, NAME_LEN_MAX, POSITION_LEN, encode_header};
use crate::layout::{FORMAT_VERSION, LogId};
use crate::lsn::Lsn;
use crate::stream_id::{StreamFlags, StreamId};
use crate::sync::Arc;

/// How often a catalog that is opened to be read is read before it is called damaged: a writer at
/// work may take an addition back between the reads of the two files.
const OBSERVATIONS_MAX: u32 = 3;

/// The catalog is compacted if it has so many bytes of positions that have been replaced, and they
/// are more than half of it.
const WORTH_COMPACTING: usize = 4096;

/// May the catalog be added to?
#[derive(Clone, Debug)]
enum State {
    Writable,
    ReadOnly,
    Poisoned(Arc<FileError>),
}

/// The streams of a log.
#[derive(Debug)]
pub(crate) struct Catalog<F = Box<dyn Files + Send>> {
    files: F,
    log_id: LogId,
    state: State,
    /// Length of both files in bytes; 0 if there are none yet.
    file_len: usize,
    /// Bytes of positions in them that have been replaced; less after a compaction that failed.
    superseded: usize,
    streams: Streams,
}

impl Catalog {
    /// Opens the catalog of the log `log_id` in `dir`, and repairs it if it is to be written to.
    /// A log that never had a stream has an empty one. Whoever opens it `writable` holds the log's
    /// lock.
    ///
    /// # Errors
    ///
    /// The files are not this log's catalog, or cannot be read or repaired, or are damaged both in
    /// one place.
    pub(crate) fn open(
        dir: &Path,
        log_id: &LogId,
        writable: bool,
    ) -> Result<Catalog, CatalogError> {
        Catalog::open_in(Box::new(Directory::new(dir, writable)), log_id, writable)
    }
}

/// The bytes of both files as they were read while a writer may have been adding to them: B first
/// (rule 6), so that they are what a crash might have left, and open as that would.
pub(crate) struct RawCatalog([Option<Vec<u8>>; 2]);

impl RawCatalog {
    pub(crate) fn read(dir: &Path) -> Result<RawCatalog, CatalogError> {
        let mut files = Directory::new(dir, false);
        let b = files.read(Side::B)?;
        let a = files.read(Side::A)?;
        Ok(RawCatalog([a, b]))
    }

    /// Puts them into `dir`, in the place of what is there. They are on the medium but for their
    /// names when this returns.
    pub(crate) fn write(self, dir: &Path) -> Result<(), CatalogError> {
        let mut files = Directory::new(dir, true);
        for side in [Side::A, Side::B] {
            files.remove(side)?;
        }
        for (side, bytes) in [Side::A, Side::B].into_iter().zip(self.0) {
            if let Some(bytes) = bytes {
                files.write_aside(side, &bytes)?;
                files.rename(side)?;
            }
        }
        Ok(())
    }
}

impl<F: Files> Catalog<F> {
    /// As `open`, of the files in `files`.
    pub(crate) fn open_in(
        mut files: F,
        log_id: &LogId,
        writable: bool,
    ) -> Result<Self, CatalogError> {
        let mut attempts = if writable { 1 } else { OBSERVATIONS_MAX };
        let (file_len, streams, superseded) = loop {
            attempts -= 1;
            match load(&mut files, log_id, writable) {
                Err(CatalogError::Corrupt { .. }) if attempts > 0 => (),
                found => break found?,
            }
        };
        let state = if writable { State::Writable } else { State::ReadOnly };
        Ok(Catalog { files, log_id: *log_id, state, file_len, superseded, streams })
    }

    /// The stream with this name: its bytes, all of them, in this form.
    pub(crate) fn get(&self, name: &str) -> Option<StreamId> {
        self.streams.get(name)
    }

    pub(crate) fn name(&self, id: StreamId) -> Option<&str> {
        self.streams.name(id)
    }

    pub(crate) fn flags(&self, id: StreamId) -> Option<StreamFlags> {
        self.streams.flags(id)
    }

    /// Epoch and LSN of a versioned stream's last record, if they were recorded.
    pub(crate) fn position(&self, id: StreamId) -> Option<(u64, Lsn)> {
        self.streams.position(id)
    }

    /// How many streams there are.
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// All streams in the order of their ids.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (StreamId, &str, StreamFlags)> {
        self.streams.iter()
    }

    /// The ids of the streams with these names, in their order. Those that do not exist come to be
    /// in one addition: either all of them, durably, or none. A name that is given twice is one
    /// stream.
    ///
    /// # Errors
    ///
    /// A name has an impossible length, or is that of a stream with other flags; or the addition
    /// failed. Nothing was added then.
    pub(crate) fn create(
        &mut self,
        wanted: &[(&str, StreamFlags)],
    ) -> Result<Vec<StreamId>, CatalogError> {
        let mut ids = Vec::with_capacity(wanted.len());
        let mut new: Vec<(&str, StreamFlags)> = Vec::new();
        let mut new_ids: HashMap<&str, StreamId> = HashMap::new();
        let mut addition = Addition::new(&self.log_id, self.next_offset());
        for (name, flags) in wanted.iter().copied() {
            let existing = match self.streams.get(name) {
                Some(id) => self.streams.flags(id).map(|flags| (id, flags)),
                None => {
                    let id = new_ids.get(name).copied();
                    id.map(|id| (id, new[id.get() as usize - 1 - self.len()].1))
                }
            };
            if let Some((id, existing)) = existing {
                if existing != flags {
                    let name = name.to_owned();
                    return Err(CatalogError::FlagsDiffer { name, existing, asked: flags });
                }
                ids.push(id);
                continue;
            }
            if !(1..=NAME_LEN_MAX).contains(&name.len()) {
                return Err(CatalogError::NameLength { len: name.len(), max: NAME_LEN_MAX });
            }
            let id = u32::try_from(self.len() + new.len() + 1).ok().and_then(StreamId::new);
            let id = id.ok_or(CatalogError::Exhausted)?;
            addition.created(id.get(), flags.bits(), name);
            new.push((name, flags));
            new_ids.insert(name, id);
            ids.push(id);
        }
        self.add(&addition)?;
        self.streams.reserve(new.len(), 0);
        for (name, flags) in new {
            let inserted = self.streams.insert(name, flags);
            debug_assert_eq!(inserted, Ok(new_ids[name]));
        }
        Ok(ids)
    }

    /// Records the last positions of versioned streams, durably, in one addition: `(stream, epoch,
    /// LSN)`. The newest counts. No epoch will begin below `sure`.
    ///
    /// # Errors
    ///
    /// An id is that of no stream, or of one that is not versioned; or the addition failed.
    /// Nothing was recorded then.
    ///
    /// # Panics
    ///
    /// An LSN is zero, where no record can be.
    pub(crate) fn record_positions(
        &mut self,
        positions: &[(StreamId, u64, Lsn)],
        sure: Lsn,
    ) -> Result<(), CatalogError> {
        self.compact_if_worth(sure)?;
        let mut addition = Addition::new(&self.log_id, self.next_offset());
        for (id, epoch, lsn) in positions.iter().copied() {
            assert_ne!(lsn, Lsn::ZERO, "no record is at LSN 0");
            let flags = self.streams.flags(id).ok_or(CatalogError::NoStream(id))?;
            if !flags.is_versioned() {
                return Err(CatalogError::NotVersioned(id));
            }
            addition.position(id.get(), epoch, lsn);
        }
        self.add(&addition)?;
        for (id, epoch, lsn) in positions.iter().copied() {
            self.replace_position(id, epoch, lsn);
        }
        Ok(())
    }

    fn replace_position(&mut self, id: StreamId, epoch: u64, lsn: Lsn) {
        if self.streams.position(id).is_some() {
            self.superseded += POSITION_LEN;
        }
        self.streams.set_position(id, epoch, lsn);
    }

    /// An epoch begins at `start`: LSNs from there on are given to other records. Positions there
    /// are withdrawn, durably; their streams get the ones back that were recorded before them.
    ///
    /// # Errors
    ///
    /// The addition failed.
    pub(crate) fn begin_epoch(&mut self, epoch: u64, start: Lsn) -> Result<(), CatalogError> {
        let is_cut = |id: &StreamId| self.position(*id).is_some_and(|(_, lsn)| lsn >= start);
        let cut: Vec<_> = self.iter().map(|(id, ..)| id).filter(is_cut).collect();
        if cut.is_empty() {
            return self.compact_if_worth(start);
        }
        let image = self.files.read(Side::A)?.unwrap_or_default();
        let before = decide::positions_below(&image, start);
        let mut addition = Addition::new(&self.log_id, self.next_offset());
        let position = |id: &StreamId| before.get(&id.get()).copied().unwrap_or((epoch, Lsn::ZERO));
        for id in &cut {
            let (of, lsn) = position(id);
            addition.position(id.get(), of, lsn);
        }
        self.add(&addition)?;
        for id in &cut {
            let (of, lsn) = position(id);
            self.replace_position(*id, of, lsn);
        }
        self.compact_if_worth(start)
    }

    /// Rule 5, if most of the catalog is positions that have been replaced. No epoch will begin
    /// below `sure`.
    fn compact_if_worth(&mut self, sure: Lsn) -> Result<(), CatalogError> {
        let is_worth = self.superseded >= WORTH_COMPACTING && self.superseded > self.file_len / 2;
        if is_worth { self.compact(sure) } else { Ok(()) }
    }

    fn compact(&mut self, sure: Lsn) -> Result<(), CatalogError> {
        if !matches!(self.state, State::Writable) {
            return Ok(());
        }
        let image = self.files.read(Side::A)?.unwrap_or_default();
        let compacted = decide::compacted(&image, &self.log_id, sure);
        let asides = compacted.as_ref().and_then(|(image, _)| self.write_asides(image).ok());
        let (Some((image, superseded)), Some(())) = (compacted, asides) else {
            // It is tried again when as many have been replaced once more.
            self.superseded = 0;
            return Ok(());
        };
        if let Err(error) = self.rename_both() {
            let reason = Arc::new(error);
            self.state = State::Poisoned(reason.clone());
            return Err(CatalogError::Poisoned(reason));
        }
        (self.file_len, self.superseded) = (image.len(), superseded);
        Ok(())
    }

    /// What does not have the old names is not in the way.
    fn write_asides(&mut self, image: &[u8]) -> Result<(), FileError> {
        let mut sides = Side::BOTH.into_iter();
        let written = sides.try_for_each(|side| self.files.write_aside(side, image));
        if written.is_err() {
            for side in Side::BOTH {
                self.files.discard_aside(side)?;
            }
        }
        written
    }

    fn rename_both(&mut self) -> Result<(), FileError> {
        for side in Side::BOTH {
            self.files.rename(side)?;
        }
        self.files.sync_directory()
    }

    /// Where the next entry will be.
    fn next_offset(&self) -> usize {
        if self.file_len == 0 { crate::layout::catalog::HEADER_LEN } else { self.file_len }
    }

    /// Rules 2 and 3.
    fn add(&mut self, addition: &Addition) -> Result<(), CatalogError> {
        let bytes = addition.bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        match &self.state {
            State::Writable => (),
            State::ReadOnly => return Err(CatalogError::ReadOnly),
            State::Poisoned(error) => return Err(CatalogError::Poisoned(error.clone())),
        }
        let is_first = self.file_len == 0;
        let result = if is_first { self.create_files(bytes) } else { self.append(bytes) };
        let Err(error) = result else {
            self.file_len = self.next_offset() + bytes.len();
            return Ok(());
        };
        let undone = if is_first { self.remove_files() } else { self.cut_back() };
        match undone {
            Ok(()) if error.operation != files::SYNC => {
                Err(CatalogError::NotAdded(Arc::new(error)))
            }
            undone => {
                let sync_failed = error.operation == files::SYNC;
                let reason = undone.err().filter(|_| !sync_failed).unwrap_or(error);
                let reason = Arc::new(reason);
                self.state = State::Poisoned(reason.clone());
                Err(CatalogError::Poisoned(reason))
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        for side in Side::BOTH {
            self.files.write(side, self.file_len, bytes)?;
            self.files.sync(side)?;
        }
        Ok(())
    }

    fn cut_back(&mut self) -> Result<(), FileError> {
        for side in [Side::B, Side::A] {
            self.files.cut(side, self.file_len)?;
            self.files.sync(side)?;
        }
        Ok(())
    }

    fn create_files(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let image = [&encode_header(&self.log_id, 0), bytes].concat();
        for side in Side::BOTH {
            self.files.write_aside(side, &image)?;
        }
        for side in Side::BOTH {
            self.files.rename(side)?;
        }
        self.files.sync_directory()
    }

    fn remove_files(&mut self) -> Result<(), FileError> {
        // Both, whatever comes of the first.
        let removed = [Side::B, Side::A].map(|side| self.files.remove(side));
        removed.into_iter().collect::<Result<(), FileError>>()?;
        self.files.sync_directory()
    }
}

/// Reads both files and decides; repairs them if they are to be written to. The length of both
/// after that, and what is in them.
fn load<F: Files>(
    files: &mut F,
    log_id: &LogId,
    writable: bool,
) -> Result<(usize, Streams, usize), CatalogError> {
    // Rule 6.
    let b = files.read(Side::B)?;
    let a = files.read(Side::A)?;
    if a.is_none() && b.is_none() {
        return Ok((0, Streams::default(), 0));
    }
    let bytes = [&a, &b].map(|file| file.as_deref().unwrap_or_default());
    let decision = decide::read(bytes[0], bytes[1], log_id);
    let Decision { image, lacks_a, lacks_b, replaced, streams, superseded } =
        decision.map_err(|refusal| explain(refusal, files))?;
    if writable {
        let mut lens = [&a, &b].map(|file| file.as_ref().map(Vec::len));
        for (side, _) in Side::BOTH.iter().zip(lens).filter(|(_, len)| len.is_some()) {
            files.sync(*side)?;
        }
        files.sync_directory()?;
        if let Some(side) = replaced {
            lens[side as usize] = None;
        }
        repair(files, Side::A, lens[0], &image, &[lacks_a, lacks_b.clone()].concat())?;
        repair(files, Side::B, lens[1], &image, &lacks_b)?;
    }
    Ok((image.len(), streams, superseded))
}

/// Gives a file of `len` bytes what it lacks, and takes what it has too much. Without a length it
/// is written anew.
fn repair<F: Files>(
    files: &mut F,
    side: Side,
    len: Option<usize>,
    image: &[u8],
    lacks: &[Range<usize>],
) -> Result<(), FileError> {
    let Some(len) = len else {
        files.write_aside(side, image)?;
        files.rename(side)?;
        return files.sync_directory();
    };
    if len <= image.len() && lacks.is_empty() {
        return Ok(());
    }
    if len > image.len() {
        files.cut(side, image.len())?;
    }
    for range in lacks {
        files.write(side, range.start, &image[range.clone()])?;
    }
    files.sync(side)
}

fn explain(refusal: Refusal, files: &impl Files) -> CatalogError {
    match refusal {
        Refusal::AnotherLog(side) => CatalogError::AnotherLog(files.path(side)),
        Refusal::Version(side, found) => {
            CatalogError::Version { path: files.path(side), found, supported: FORMAT_VERSION }
        }
        Refusal::Features(side, unknown) => {
            CatalogError::Features { path: files.path(side), unknown }
        }
        Refusal::UnknownEntry { offset, what } => {
            let (path, file_offset) = (files.path(Side::A), offset as u64);
            CatalogError::UnknownEntry { path, file_offset, what }
        }
        Refusal::Corrupt { offset, reason } => {
            let (path, file_offset) = (files.path(Side::A), offset as u64);
            CatalogError::Corrupt { path, file_offset, reason }
        }
    }
}
