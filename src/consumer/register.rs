//! The consumers of an open log: where each stands, what is written of that, and what may go.
//!
//! 1. Acknowledgements are numbers in memory, under one lock that is never held across I/O. They
//!    only rise, but for an explicit reset.
//! 2. What is written of a position is the lower of it and the bound (`durable`; `published` in the
//!    mode without durability): both are record boundaries, so it is one. A position in the table
//!    never exceeds what a crash leaves.
//! 3. A consumer that is made, reset or removed is written at once. Acknowledgements are written
//!    when somebody asks, at the close, when space is needed that rests on them, and by the
//!    janitor's thread at most once per [`EVERY`], if there is anything new: a log on which nothing
//!    is acknowledged is not woken for it, and no append waits for it.
//! 4. What a consumer holds is the lower of what it has acknowledged and what is written of that:
//!    whichever of the two a crash leaves, nothing that it needs has been released.
//! 5. No wake-up is lost: a janitor that finds too little to release leaves what it wants under the
//!    lock, and whoever changes what may be released looks at that under the lock, then rings.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Lag;
use super::age::{self, Ages};
use super::history::History;
use super::store::{Loaded, Medium, Store};
use crate::error::{ConsumerError, FileError};
use crate::files::unix_ms;
use crate::layout::consumers::{CONSUMERS_MAX, NAME_LEN_MAX};
use crate::layout::{ConsumerTable, StoredConsumer};
use crate::lsn::{EpochLsn, Lsn};
use crate::options::{Durability, Options, Retention};
use crate::reader::{self, Position, Reader};
use crate::ring::Ring;
use crate::segments::janitor::segments_ahead;
use crate::segments::{Nap, Steward};
use crate::sync::{self, Arc, Mutex, lock};

/// Acknowledgements are written in the background at most this often.
const EVERY: Duration = Duration::from_secs(1);

/// All consumers of an open log.
pub(crate) struct Consumers {
    ring: Arc<Ring>,
    options: Options,
    /// Held while the table is written. Taken before `state`.
    store: Mutex<Store>,
    state: Mutex<State>,
}

struct State {
    history: History,
    entries: BTreeMap<String, Entry>,
    ages: Option<Ages>,
    /// Nothing below is held by anybody new: it may have been released.
    confirmed: Lsn,
    /// The janitor waits until this much may be released.
    awaited: Option<Lsn>,
    /// The janitor has been rung for what has been acknowledged since the last write.
    rung: bool,
    /// When the table was last written, or that was tried.
    tried: Option<Instant>,
    /// And that failed: what rests on acknowledgements is not released before it succeeds.
    failed: bool,
    closed: bool,
}

/// A consumer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Everything below has been processed.
    pub(super) acked: Lsn,
    /// What the table says.
    persisted: Lsn,
    /// Its position is of an earlier epoch, and which epoch has cut it.
    pub(super) cut: Option<(EpochLsn, EpochLsn)>,
}

impl Entry {
    /// Rule 4. Of a history that was cut it has processed what is below the cut.
    fn hold(&self) -> Lsn {
        self.cut.map_or(self.acked.min(self.persisted), |(_, by)| by.lsn)
    }

    /// As `hold`, once all has been written that can be.
    fn potential(&self) -> Lsn {
        self.cut.map_or(self.acked, |(_, by)| by.lsn)
    }

    /// Its position, in the running epoch unless it is cut.
    fn position(&self, epoch: u64) -> EpochLsn {
        self.cut.map_or(EpochLsn { epoch, lsn: self.acked }, |(position, _)| position)
    }

    /// Where to go on, unless it is cut.
    fn usable(&self) -> Result<Lsn, ConsumerError> {
        match self.cut {
            None => Ok(self.acked),
            Some((position, by)) => {
                Err(ConsumerError::Cut { position, at: by.lsn, epoch: by.epoch })
            }
        }
    }

    fn is_behind(&self, bound: Lsn) -> bool {
        self.cut.is_none() && self.acked.min(bound) > self.persisted
    }
}

impl State {
    /// The lowest of what consumers hold, and who does; `None` if there are no consumers.
    fn lowest(&self, of: impl Fn(&Entry) -> Lsn) -> Option<(&String, Lsn)> {
        self.entries.iter().map(|(name, entry)| (name, of(entry))).min_by_key(|(_, lsn)| *lsn)
    }

    fn entry(&self, name: &str) -> Result<Entry, ConsumerError> {
        let unknown = || ConsumerError::Unknown { name: name.to_owned() };
        self.entries.get(name).copied().ok_or_else(unknown)
    }

    fn check_open(&self) -> Result<(), ConsumerError> {
        if self.closed { Err(ConsumerError::Closed) } else { Ok(()) }
    }
}

impl Consumers {
    /// The consumers of a log that goes on in `ring`, in an epoch that began at `start`.
    pub(crate) fn new(
        ring: Arc<Ring>,
        options: Options,
        medium: Box<dyn Medium>,
        loaded: &Loaded,
        start: Lsn,
    ) -> Consumers {
        let epoch = ring.identity().epoch;
        let geometry = *ring.geometry();
        let start = geometry.normalize(start);
        let store = Store::new(medium, ring.identity().log_id, loaded);
        let history = match &loaded.table {
            Some(table) => History::after(table, epoch, start),
            None => History::new(epoch, start, ring.trimmed()),
        };
        let stored = loaded.table.iter().flat_map(|table| &table.consumers);
        let entries = stored.map(|stored| {
            let normalize = |EpochLsn { epoch: of, lsn }| {
                // Of this epoch or a later one: what was lost with a checkpoint slot.
                EpochLsn { epoch: of.min(epoch - 1), lsn: geometry.normalize(lsn) }
            };
            let position = normalize(stored.position);
            // A later cut may lie below an earlier one.
            let before = stored.cut.map(normalize);
            let cut = history.cut_of(before.unwrap_or(position)).or(before);
            let cut = cut.map(|by| (position, by));
            (stored.name.clone(), Entry { acked: position.lsn, persisted: position.lsn, cut })
        });
        let entries = entries.collect();
        let state = State {
            history,
            entries,
            ages: ages_at_open(&ring, options.retention),
            confirmed: Lsn::ZERO,
            awaited: None,
            rung: false,
            tried: None,
            failed: false,
            closed: false,
        };
        Consumers { ring, options, store: Mutex::new(store), state: Mutex::new(state) }
    }

    /// Writes down that this epoch has begun, in a log that has a table: its next open must know.
    pub(crate) fn begin_epoch(&self, loaded: &Loaded) -> Result<(), FileError> {
        let Some(table) = &loaded.table else { return Ok(()) };
        let mut store = lock(&self.store);
        store.confirm(table)?;
        self.write_now(&mut store)
    }

    /// What no written position may exceed (rule 2).
    fn bound(&self) -> Lsn {
        match self.options.durability {
            Durability::None => self.ring.published(),
            _ => self.ring.durable(),
        }
    }

    /// Opens consumer `name`, or makes it, at `from`.
    pub(super) fn open(&self, name: &str, from: Position) -> Result<(), ConsumerError> {
        if !(1..=NAME_LEN_MAX).contains(&name.len()) {
            return Err(ConsumerError::Name { len: name.len() });
        }
        let mut store = lock(&self.store);
        if lock(&self.state).entries.contains_key(name) {
            return Ok(());
        }
        self.place(name, from)?;
        self.write(&mut store).map_err(|failure| {
            lock(&self.state).entries.remove(name);
            ConsumerError::File(failure)
        })
    }

    /// Moves consumer `name` to `to`, wherever it is.
    pub(super) fn reset(&self, name: &str, to: Position) -> Result<(), ConsumerError> {
        let mut store = lock(&self.store);
        lock(&self.state).entry(name)?;
        self.place(name, to)?;
        let written = self.write(&mut store).map_err(ConsumerError::File);
        self.look_for_space(&mut lock(&self.state));
        written
    }

    /// Removes consumer `name`.
    pub(super) fn remove(&self, name: &str) -> Result<(), ConsumerError> {
        let mut store = lock(&self.store);
        let entry = {
            let mut state = lock(&self.state);
            state.check_open()?;
            let entry = state.entry(name)?;
            state.entries.remove(name);
            entry
        };
        if let Err(failure) = self.write(&mut store) {
            lock(&self.state).entries.insert(name.to_owned(), entry);
            return Err(ConsumerError::File(failure));
        }
        self.look_for_space(&mut lock(&self.state));
        Ok(())
    }

    /// Puts an entry at a position. What has been confirmed to the janitor may be released at any
    /// moment: no consumer begins below it.
    fn place(&self, name: &str, at: Position) -> Result<(), ConsumerError> {
        let found = match at {
            Position::Oldest => self.ring.trimmed(),
            Position::Newest => self.ring.publish(),
            Position::At(lsn) => reader::check_boundary(&self.ring, lsn)?,
        };
        let mut state = lock(&self.state);
        state.check_open()?;
        if !state.entries.contains_key(name) && state.entries.len() >= CONSUMERS_MAX {
            return Err(ConsumerError::TooMany { max: CONSUMERS_MAX });
        }
        let oldest = state.confirmed.max(self.ring.trimmed());
        if matches!(at, Position::At(_)) && found < oldest {
            return Err(crate::error::ReadError::Trimmed { lsn: found, oldest }.into());
        }
        let acked = found.max(oldest);
        state.entries.insert(name.to_owned(), Entry { acked, persisted: Lsn::ZERO, cut: None });
        Ok(())
    }

    /// Consumer `name`, with the epoch.
    pub(super) fn get(&self, name: &str) -> Result<(Entry, u64), ConsumerError> {
        let state = lock(&self.state);
        Ok((state.entry(name)?, state.history.epoch()))
    }

    /// Rule 1.
    pub(super) fn ack(&self, name: &str, lsn: Lsn) -> Result<(), ConsumerError> {
        let known = lock(&self.state).entry(name)?.usable()?;
        let lsn = self.ring.geometry().normalize(lsn);
        if lsn <= known {
            return Ok(());
        }
        let lsn = match reader::check_boundary_behind(&self.ring, known, lsn) {
            // It was released while it was being processed. Nobody reads there any more.
            Err(crate::error::ReadError::Trimmed { .. }) => lsn,
            checked => checked?,
        };
        let mut state = lock(&self.state);
        state.check_open()?;
        // It may have been reset or removed meanwhile.
        let mut entry = state.entry(name)?;
        entry.acked = entry.usable()?.max(lsn);
        state.entries.insert(name.to_owned(), entry);
        let is_new = entry.acked > entry.persisted && !std::mem::replace(&mut state.rung, true);
        if !self.look_for_space(&mut state) && is_new {
            self.ring.janitor_bell.ring();
        }
        Ok(())
    }

    /// Rule 5. True if it has rung.
    fn look_for_space(&self, state: &mut State) -> bool {
        let enough = state.awaited.is_some_and(|awaited| self.reach(state) >= awaited);
        if enough {
            state.awaited = None;
            self.ring.janitor_bell.ring();
        }
        enough
    }

    /// What may be released, perhaps after a write.
    fn reach(&self, state: &State) -> Lsn {
        self.limit(state, if state.failed { Entry::hold } else { Entry::potential })
    }

    /// What may be released, by what consumers hold and by the retention.
    fn limit(&self, state: &State, hold: impl Fn(&Entry) -> Lsn) -> Lsn {
        let geometry = self.ring.geometry();
        let held = state.lowest(hold).map(|(_, lsn)| lsn);
        let own = match self.options.retention {
            Retention::Checkpoint => Lsn::ZERO,
            Retention::Consumers => held.unwrap_or(Lsn::ZERO),
            Retention::Bytes(bytes) => {
                let from = self.ring.published().get().saturating_sub(bytes);
                geometry.first_record(geometry.sequence(Lsn::new(from)))
            }
            Retention::Age(_) => {
                let ages = state.ages.as_ref();
                ages.map_or(Lsn::ZERO, |ages| geometry.first_record(ages.old_below(sync::now())))
            }
        };
        held.map_or(own, |held| held.min(own))
    }

    /// Writes all positions, if any has advanced.
    pub(crate) fn sync(&self) -> Result<(), Arc<FileError>> {
        let mut store = lock(&self.store);
        if self.is_behind() {
            self.write(&mut store)?;
            self.look_for_space(&mut lock(&self.state));
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        let bound = self.bound();
        lock(&self.state).entries.values().any(|entry| entry.is_behind(bound))
    }

    fn write(&self, store: &mut Store) -> Result<(), Arc<FileError>> {
        self.write_now(store).map_err(Arc::new)
    }

    /// Writes the table as it is now.
    fn write_now(&self, store: &mut Store) -> Result<(), FileError> {
        let bound = self.bound();
        let mut written = Vec::new();
        let table = {
            let mut state = lock(&self.state);
            state.rung = false;
            state.tried = Some(sync::now());
            if state.entries.is_empty() && !store.exists() {
                return Ok(());
            }
            let epoch = state.history.epoch();
            let consumers = state.entries.iter().map(|(name, entry)| {
                let mut position = entry.position(epoch);
                if entry.cut.is_none() {
                    position.lsn = position.lsn.min(bound);
                    written.push((name.clone(), position.lsn));
                }
                StoredConsumer { name: name.clone(), position, cut: entry.cut.map(|(_, by)| by) }
            });
            ConsumerTable {
                generation: 0,
                epoch,
                durable: self.ring.durable(),
                consumers: consumers.collect(),
                starts: state.history.starts().to_vec(),
            }
        };
        let outcome = store.write(table);
        let mut state = lock(&self.state);
        state.failed = outcome.is_err();
        outcome?;
        for (name, lsn) in written {
            if let Some(entry) = state.entries.get_mut(&name) {
                entry.persisted = lsn;
            }
        }
        Ok(())
    }

    /// The last write. Nothing is acknowledged from now on.
    pub(crate) fn close(&self) -> Result<(), Arc<FileError>> {
        lock(&self.state).closed = true;
        self.sync()
    }

    /// Everybody's name, position and lag.
    pub(super) fn list(&self) -> Vec<(String, Entry, u64)> {
        let state = lock(&self.state);
        let epoch = state.history.epoch();
        state.entries.iter().map(|(name, entry)| (name.clone(), *entry, epoch)).collect()
    }

    /// How far `entry` is behind.
    pub(super) fn lag(&self, entry: &Entry) -> Lag {
        let at = entry.potential();
        let end = self.ring.publish();
        let trimmed = self.ring.trimmed();
        Lag {
            bytes: end.get().saturating_sub(at.get()),
            unsaved_bytes: at.get().saturating_sub(entry.hold().get()),
            released_bytes: trimmed.get().saturating_sub(at.get()),
        }
    }

    /// Does `position` still mean what it meant when it was taken?
    pub(super) fn check(&self, position: EpochLsn) -> Result<(), ConsumerError> {
        let state = lock(&self.state);
        let newest = state.history.epoch();
        if position.epoch > newest {
            return Err(ConsumerError::Future { position, newest });
        }
        let lsn = self.ring.geometry().normalize(position.lsn);
        let cut = state.history.cut_of(EpochLsn { lsn, ..position });
        drop(state);
        match cut {
            Some(by) => Err(ConsumerError::Cut { position, at: by.lsn, epoch: by.epoch }),
            None => Ok(reader::check_boundary(&self.ring, lsn).map(|_| ())?),
        }
    }

    /// The consumer that has not acknowledged what lies below `wanted`: the slowest.
    pub(super) fn holder(&self, wanted: Lsn) -> Option<(String, EpochLsn)> {
        let state = lock(&self.state);
        if self.options.retention == Retention::Checkpoint {
            return None;
        }
        let (name, lsn) = state.lowest(Entry::potential)?;
        let epoch = state.history.epoch();
        (lsn < wanted).then(|| (name.clone(), state.entries[name].position(epoch)))
    }

    /// Does the retention itself keep what lies below `wanted`?
    pub(super) fn retains(&self, wanted: Lsn) -> bool {
        self.limit(&lock(&self.state), |_| Lsn::new(u64::MAX)) < wanted
    }

    /// A reader at an entry's position.
    pub(super) fn reader(&self, name: &str) -> Result<Reader<'_>, ConsumerError> {
        let at = self.get(name)?.0.usable()?;
        Ok(Reader::new(&self.ring, Position::At(at))?.without_copies())
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }
}

/// What earlier processes have left, by the headers of the segments (rule 3 of `age`).
fn ages_at_open(ring: &Ring, retention: Retention) -> Option<Ages> {
    let Retention::Age(age) = retention else { return None };
    let geometry = ring.geometry();
    let (first, active) = (geometry.sequence(ring.trimmed()), ring.active_sequence());
    let ahead = segments_ahead(geometry) as u32;
    let left = (first..active).map(|sequence| {
        let witness = sequence.checked_add(1 + ahead).filter(|witness| *witness <= active)?;
        reader::prepared_unix_ms(ring, witness)
    });
    let mut elapsed = age::elapsed(unix_ms(), left);
    Some(Ages::new(age, first, elapsed.make_contiguous(), sync::now()))
}

impl Steward for Consumers {
    fn observe(&self) {
        let mut state = lock(&self.state);
        if let Some(ages) = &mut state.ages {
            let oldest = self.ring.geometry().sequence(self.ring.trimmed());
            ages.observe(oldest, self.ring.active_sequence(), sync::now());
        }
    }

    fn releasable(&self, wanted: Lsn) -> Lsn {
        self.ring.publish();
        let mut state = lock(&self.state);
        let limit = self.reach(&state);
        state.awaited = (limit < wanted).then_some(wanted);
        limit
    }

    fn confirm(&self, wanted: Lsn) -> Lsn {
        let (held, potential) = {
            let state = lock(&self.state);
            (self.limit(&state, Entry::hold), self.reach(&state))
        };
        if held < wanted && held < potential {
            // What could not be written holds what rests on it; `tend` tries again.
            let _ = self.sync();
        }
        let mut state = lock(&self.state);
        let limit = self.limit(&state, Entry::hold);
        state.confirmed = state.confirmed.max(limit);
        limit
    }

    fn tend(&self, short: bool) -> Nap {
        let now = sync::now();
        let bound = self.bound();
        let state = lock(&self.state);
        let behind = state.entries.values().any(|entry| entry.is_behind(bound));
        let open = state.entries.values().any(|entry| entry.is_behind(Lsn::new(u64::MAX)));
        let due = state.tried.map_or(now, |tried| tried + EVERY);
        let grows = state.ages.as_ref().filter(|_| short).and_then(|ages| ages.next_due(now));
        drop(state);
        let mut at = if behind { Some(due) } else { None };
        if behind && due <= now {
            // If it fails, it is tried again later. If it succeeds, space may be free now.
            let written = self.sync().is_ok();
            at = if written { short.then_some(now) } else { Some(now + EVERY) };
        }
        let at = at.into_iter().chain(grows).min();
        Nap { after: at.map(|at| at.saturating_duration_since(now)), on_durable: open && !behind }
    }
}
