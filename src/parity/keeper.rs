//! The keeper: protects segments in the background.
//!
//! 1. It is rung when a footer has been written, and sleeps otherwise, without a timer. It never
//!    holds the log back: it takes no pin, and reads with `pread`, like somebody from outside. What
//!    is recycled under its eyes does not verify, and is passed over.
//! 2. The newest segments come first: those are retained the longest. A log that is opened has its
//!    older ones protected in their turn.
//! 3. The checksums are taken first, and the records are then verified from pages that match them.
//!    So what is protected is what has been verified, whenever the medium loses it.
//! 4. The pages of parity are on the medium before the table that vouches for them is written. The
//!    table itself is synced with what follows, at the latest at the close.
//! 5. Whatever fails is told once ([`events`]), and tried again when the next footer is written.
//!    The log does not depend on it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{Page, ParityFile, add};
use crate::checksum::crc32;
use crate::error::FileError;
use crate::events;
use crate::files::file_error;
use crate::geometry::PAGE_SIZE;
use crate::layout::Footer;
use crate::layout::footer::FOOTER_LEN;
use crate::layout::parity::{ParityPlaces, ParityTable};
use crate::metrics::count;
use crate::recovery::sealed::is_whole;
use crate::ring::Ring;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};

/// So many segments share a sync of their parity.
const BATCH: usize = 8;
/// Segments are read in pieces of so many pages: they stay in the second-level cache.
const PIECE_PAGES: u32 = 64;

/// Protects the sealed segments of an open log.
pub(crate) struct Keeper {
    ring: Arc<Ring>,
    /// The log's directory, wherever that is renamed to,
    holder: File,
    /// and its name, for messages.
    dir: PathBuf,
    /// The segment that was active when the log was opened.
    first: u32,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<ParityFile>,
    /// Segments that have a table that counts,
    protected: BTreeSet<u32>,
    /// and those that get none: they do not verify.
    refused: BTreeSet<u32>,
    is_unsynced: bool,
    /// The last attempt failed, and that has been told.
    is_failing: bool,
}

impl Keeper {
    /// Of the log in `dir`, whose lock the caller holds.
    pub(crate) fn new(ring: Arc<Ring>, dir: &Path) -> Result<Keeper, FileError> {
        let holder = File::open(dir).map_err(file_error("open", dir))?;
        let (first, dir) = (ring.active_sequence(), dir.to_owned());
        let stop = AtomicBool::new(false);
        Ok(Keeper { ring, holder, dir, first, stop, state: Mutex::default() })
    }

    /// The thread's body.
    pub(crate) fn run(&self) {
        let Some(bell) = &self.ring.footer_bell else { return };
        // Relaxed: the bell hands it over.
        while !self.stop.load(Ordering::Relaxed) {
            // Who wants to know what failed asks for a round.
            let _ = self.round(0, || self.stop.load(Ordering::Relaxed));
            bell.wait(None);
        }
    }

    /// Ends the thread behind the segments that it is at.
    pub(crate) fn stop(&self) {
        // Relaxed: as in `run`.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(bell) = &self.ring.footer_bell {
            bell.ring();
        }
    }

    /// Protects all that can be protected now; returns how many segments are.
    pub(crate) fn protect_all(&self) -> Result<u64, FileError> {
        self.round(0, || false)?;
        let mut state = lock(&self.state);
        self.sync(&mut state)?;
        Ok(state.protected.len() as u64)
    }

    /// What was sealed since the open is protected, and on the medium. The thread has ended.
    pub(crate) fn close(&self) {
        if self.round(self.first, || false).is_ok() {
            // What fails is told by `sync`; nothing depends on it.
            let _ = self.sync(&mut lock(&self.state));
        }
    }

    /// Looks at each segment from `oldest` on once, rule 2, until there is none left or `stop` says
    /// so.
    fn round(&self, oldest: u32, stop: impl Fn() -> bool) -> Result<(), FileError> {
        let mut seen = BTreeSet::new();
        while !stop() {
            let mut state = lock(&self.state);
            let batch = self.pending(&mut state, &seen, oldest);
            if batch.is_empty() {
                break;
            }
            let outcome = self.protect(&mut state, &batch);
            self.tell(&mut state, outcome)?;
            seen.extend(batch);
        }
        Ok(())
    }

    /// Rule 5.
    fn tell<T>(&self, state: &mut State, outcome: Result<T, FileError>) -> Result<T, FileError> {
        if let Err(error) = &outcome
            && !state.is_failing
        {
            count(&self.ring.counters.parity_failures, 1);
            events::parity_failed(error);
        }
        state.is_failing = outcome.is_err();
        if state.is_failing {
            // It may have been replaced, or be on a file system that is no more.
            state.file = None;
        }
        outcome
    }

    /// Some segments that are durable to their end and of which nothing is known, newest first.
    fn pending(&self, state: &mut State, seen: &BTreeSet<u32>, oldest: u32) -> Vec<u32> {
        let geometry = self.ring.geometry();
        let retained = geometry.sequence(self.ring.trimmed());
        state.protected = state.protected.split_off(&retained);
        state.refused = state.refused.split_off(&retained);
        let known = |sequence: &u32| {
            [&state.protected, &state.refused, seen].iter().any(|known| known.contains(sequence))
        };
        let sealed = retained.max(oldest)..geometry.sequence(self.ring.durable());
        sealed.rev().filter(|sequence| !known(sequence)).take(BATCH).collect()
    }

    /// Rule 4.
    fn protect(&self, state: &mut State, batch: &[u32]) -> Result<(), FileError> {
        let mut tables = Vec::new();
        for sequence in batch {
            let Some(footer) = self.footer(*sequence) else { continue };
            let file = match &mut state.file {
                Some(file) => file,
                none => none.insert(self.open()?),
            };
            if file.table(*sequence, &footer).is_ok() {
                state.protected.insert(*sequence);
                continue;
            }
            match self.parity_of(*sequence, &footer) {
                Ok(Some((table, parity))) => {
                    file.write_parity(*sequence, &parity)?;
                    tables.push((*sequence, table));
                }
                // Rule 1.
                _ if self.is_released(*sequence) => {}
                _ => {
                    state.refused.insert(*sequence);
                    count(&self.ring.counters.parity_failures, 1);
                    events::segment_not_protected(*sequence);
                }
            }
        }
        let Some(file) = state.file.as_ref().filter(|_| !tables.is_empty()) else { return Ok(()) };
        file.sync()?;
        state.is_unsynced = true;
        for (sequence, table) in tables {
            file.write_table(sequence, &table)?;
            state.protected.insert(sequence);
            count(&self.ring.counters.segments_protected, 1);
        }
        Ok(())
    }

    fn open(&self) -> Result<ParityFile, FileError> {
        let log_id = self.ring.identity().log_id;
        ParityFile::create(&self.holder, &self.dir, log_id, *self.ring.geometry())
    }

    fn sync(&self, state: &mut State) -> Result<(), FileError> {
        let synced = match &state.file {
            Some(file) if state.is_unsynced => file.sync(),
            _ => return Ok(()),
        };
        state.is_unsynced = false;
        self.tell(state, synced)
    }

    /// The footer of a segment that is durable to its end, if it has one: it may get it later.
    fn footer(&self, sequence: u32) -> Option<Footer> {
        let geometry = self.ring.geometry();
        let mut bytes = [0; FOOTER_LEN];
        let read = self.read(geometry.footer_offset(sequence), &mut bytes);
        read.ok()?;
        Footer::verify(&bytes, &self.ring.identity().log_id, geometry.lsn(sequence, 0))
    }

    fn is_released(&self, sequence: u32) -> bool {
        self.ring.geometry().sequence(self.ring.trimmed()) > sequence
    }

    /// Rule 3. None if the segment is not what its footer says.
    fn parity_of(
        &self,
        sequence: u32,
        footer: &Footer,
    ) -> io::Result<Option<(ParityTable, Vec<Page>)>> {
        let (geometry, log_id) = (*self.ring.geometry(), self.ring.identity().log_id);
        let places = ParityPlaces::new(geometry);
        let start = geometry.segment_offset(sequence);
        let mut parity = vec![[0; PAGE_SIZE as usize]; places.groups() as usize];
        let mut crcs = Vec::with_capacity(places.pages() as usize);
        let mut piece = vec![[0; PAGE_SIZE as usize]; PIECE_PAGES as usize];
        while crcs.len() < places.pages() as usize {
            let first = crcs.len() as u32;
            let pages = &mut piece[..PIECE_PAGES.min(places.pages() - first) as usize];
            self.read(start + u64::from(first) * PAGE_SIZE, pages.as_flattened_mut())?;
            for (number, page) in (first..).zip(pages) {
                crcs.push(crc32(&page[..]));
                add(&mut parity[places.group_of(number) as usize], page);
            }
        }
        // From pages that match: what is read again may have changed.
        let read = |offset: u64, bytes: &mut [u8]| {
            let first = (offset - start) / PAGE_SIZE;
            let end = (offset + bytes.len() as u64 - start).div_ceil(PAGE_SIZE);
            let mut pages = vec![[0; PAGE_SIZE as usize]; (end - first) as usize];
            self.read(start + first * PAGE_SIZE, pages.as_flattened_mut())?;
            let known = crcs[first as usize..].iter();
            if known.zip(&pages).any(|(crc, page)| *crc != crc32(page)) {
                return Err(io::Error::other("the segment has changed"));
            }
            let skip = (offset - start - first * PAGE_SIZE) as usize;
            bytes.copy_from_slice(&pages.as_flattened()[skip..][..bytes.len()]);
            Ok(())
        };
        if !is_whole(&read, (geometry, log_id), sequence, footer)? {
            return Ok(None);
        }
        let groups = parity.iter().map(|page| crc32(page)).collect();
        let (epoch, roll_up) = (footer.epoch, footer.contents.roll_up);
        Ok(Some((ParityTable { epoch, roll_up, pages: crcs, groups }, parity)))
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.ring.region().backing().read_at(offset, bytes)
    }
}
