//! The streams of a log: their names, their versions, and where their records are.
//!
//! 1. Names and ids are the catalog's. A stream is in it, durably, before anybody has a handle, and
//!    so before its first record.
//! 2. Versions are read from the index, or where all of a stream's records have been released, from
//!    the catalog, when the first of them is needed; from then on they are kept by whoever appends.
//! 3. Before records are released, the newest of a stream that no power loss takes is put into the
//!    catalog, if it is among them and the stream is under version control. If that fails, nothing
//!    is released, and who needs the space is told why. (The newest of all may not be durable yet:
//!    should it be lost, the one before it is the stream's version, and that may be gone by then.)
//! 4. A position is recorded before its record is released, and without durability such a record
//!    may be lost all the same. So positions beyond the start of an epoch are withdrawn before the
//!    epoch's first record (`Catalog::begin_epoch`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::catalog::Catalog;
use super::index::StreamIndex;
use super::version::{Hold, Version};
use crate::batch::Batch;
use crate::error::{AppendError, CatalogError, ReadError};
use crate::layout::{Entry, RecordKind, Stamp};
use crate::lsn::Lsn;
use crate::options::Options;
use crate::producer::Producer;
use crate::reader::{Position, Reader};
use crate::ring::Ring;
use crate::segments::BeforeTrim;
use crate::stream_id::{StreamFlags, StreamId};
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, lock};
use crate::wait::WaitList;

/// Room for the streams of a batch, to begin with.
const TOUCHED: usize = 32;

/// What a log knows of its streams.
pub(crate) struct Streams {
    ring: Arc<Ring>,
    /// None in a log without a directory, where streams have ids alone.
    catalog: Mutex<Option<Catalog>>,
    pub(super) index: StreamIndex,
    /// Rule 2: none before the first is needed.
    versions: Mutex<Option<Versions>>,
    any_versioned: AtomicBool,
    /// Held by whoever moves a stream's entries.
    pub(super) moving: Mutex<()>,
    waiters: WaitList,
    /// For how long a hold of another's is waited for.
    patience: Duration,
}

type Versions = BTreeMap<StreamId, Arc<Version>>;

/// What a transaction expects of streams under version control.
pub(crate) type Expected = BTreeMap<StreamId, Lsn>;

impl Streams {
    /// The streams of the log in `ring`, which has just been recovered.
    pub(crate) fn new(ring: Arc<Ring>, catalog: Option<Catalog>, options: Options) -> Streams {
        let known = catalog.as_ref().map_or(u32::MAX, |catalog| catalog.len() as u32);
        let mut flags =
            catalog.iter().flat_map(|catalog| catalog.iter().map(|(_, _, flags)| flags));
        let any_versioned = flags.any(StreamFlags::is_versioned);
        drop(flags);
        Streams {
            ring,
            catalog: Mutex::new(catalog),
            index: StreamIndex::new(options.stream_index_bytes, known),
            versions: Mutex::new(None),
            any_versioned: AtomicBool::new(any_versioned),
            moving: Mutex::new(()),
            waiters: WaitList::new(),
            patience: options.hole_age_max,
        }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The ids of the streams of these names, and whether they are under version control. Those
    /// that are not there are created, as `flags` says.
    pub(super) fn open(
        &self,
        names: &[&str],
        flags: StreamFlags,
        exactly: bool,
    ) -> Result<Vec<(StreamId, bool)>, CatalogError> {
        let mut catalog = lock(&self.catalog);
        let Some(catalog) = catalog.as_mut() else {
            return Err(CatalogError::ReadOnly);
        };
        let existing = |catalog: &Catalog, name: &str| {
            let id = if exactly { None } else { catalog.get(name) };
            id.and_then(|id| catalog.flags(id))
        };
        let wanted: Vec<_> =
            names.iter().map(|name| (*name, existing(catalog, name).unwrap_or(flags))).collect();
        let ids = catalog.create(&wanted)?;
        let found = ids.iter().zip(&wanted).map(|(id, (_, flags))| (*id, flags.is_versioned()));
        let found: Vec<_> = found.collect();
        let versioned = found.iter().filter(|(_, is_versioned)| *is_versioned).map(|(id, _)| *id);
        self.announce(versioned, catalog.len() as u32);
        Ok(found)
    }

    /// There are `known` streams now. `versioned` are under version control, and perhaps new.
    pub(crate) fn announce(&self, versioned: impl Iterator<Item = StreamId>, known: u32) {
        for id in versioned {
            if let Some(versions) = lock(&self.versions).as_mut() {
                versions.entry(id).or_insert_with(|| Arc::new(Version::new(Lsn::ZERO)));
            }
            // Relaxed: whoever sees it takes the lock of the versions behind us; `known` hands it
            // to whoever is to see it.
            self.any_versioned.store(true, Ordering::Relaxed);
        }
        self.index.set_known(known);
    }

    /// As if a log without a catalog had these streams and no other.
    #[cfg(any(wal_loom, wal_shuttle))]
    pub(crate) fn pretend(&self, versioned: impl Iterator<Item = StreamId>, known: u32) {
        lock(&self.versions).get_or_insert_default();
        self.announce(versioned, known);
    }

    /// Runs `look` with the catalog, if there is one.
    pub(crate) fn with_catalog<T>(&self, look: impl FnOnce(&Catalog) -> T) -> Option<T> {
        lock(&self.catalog).as_ref().map(look)
    }

    /// The version word of a stream under version control.
    pub(super) fn version(&self, stream: StreamId) -> Result<Option<Arc<Version>>, ReadError> {
        Ok(self.load_versions()?.as_ref().and_then(|versions| versions.get(&stream).cloned()))
    }

    /// Rule 2.
    fn load_versions(&self) -> Result<MutexGuard<'_, Option<Versions>>, ReadError> {
        let versions = lock(&self.versions);
        if versions.is_some() {
            return Ok(versions);
        }
        drop(versions);
        let mut positions = self.last_positions()?;
        // Nobody creates a stream meanwhile, and whoever does so next finds the versions.
        let catalog = lock(&self.catalog);
        // A stream that has come since has no record yet: appending to it waits for this.
        for id in catalog.iter().flat_map(versioned) {
            positions.entry(id).or_insert_with(|| Arc::new(Version::new(Lsn::ZERO)));
        }
        let mut versions = lock(&self.versions);
        // Another may have been faster, and have appended to them by now.
        versions.get_or_insert(positions);
        Ok(versions)
    }

    fn last_positions(&self) -> Result<Versions, ReadError> {
        let recorded = self.with_catalog(|catalog| {
            let position = |id| catalog.position(id).map_or(Lsn::ZERO, |(_, lsn)| lsn);
            versioned(catalog).map(|id| (id, position(id))).collect::<Vec<_>>()
        });
        self.index.look(&self.ring, |index| {
            let newest = |(id, recorded): (StreamId, Lsn)| {
                (id, Arc::new(Version::new(index.newest(id).max(recorded))))
            };
            recorded.unwrap_or_default().into_iter().map(newest).collect()
        })
    }

    /// The newest record of each stream under version control, of those that are published.
    pub(crate) fn last_records(&self) -> Result<Vec<(StreamId, Lsn)>, ReadError> {
        let versions: Vec<_> = self
            .load_versions()?
            .iter()
            .flatten()
            .map(|(stream, version)| (*stream, version.clone()))
            .collect();
        // A holder may have committed its record and not said so yet: the log knows. (Whoever
        // publishes a record acquires its commit, and with it the hold, which came before it: so
        // the hold is seen, or what its end has left.)
        if versions.iter().all(|(_, version)| !version.is_held()) {
            return Ok(versions
                .iter()
                .map(|(stream, version)| (*stream, version.last()))
                .collect());
        }
        self.index.look(&self.ring, |index| {
            let newest = |(stream, version): &(StreamId, Arc<Version>)| {
                (*stream, version.last().max(index.newest(*stream)))
            };
            versions.iter().map(newest).collect()
        })
    }

    /// Holds the version of `stream`.
    pub(super) fn hold<'a>(
        &'a self,
        stream: StreamId,
        version: &'a Version,
    ) -> Result<Hold<'a>, AppendError> {
        let hold = version.hold(&self.waiters, self.patience);
        hold.ok_or(AppendError::StreamHeld { stream, age: self.patience })
    }

    /// The version words of those of `streams` that are under version control, in order.
    fn versions_of(
        &self,
        streams: impl Iterator<Item = StreamId>,
    ) -> Result<Vec<(StreamId, Arc<Version>)>, AppendError> {
        // Relaxed: `check_known` has seen the stream, and with it what `announce` did before.
        if !self.any_versioned.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let mut touched = Vec::with_capacity(TOUCHED);
        touched.extend(streams);
        touched.sort_unstable();
        touched.dedup();
        let versions = self.load_versions();
        let versions = versions.map_err(|error| AppendError::Versions(Arc::new(error)))?;
        let version = |stream| versions.as_ref().and_then(|versions| versions.get(&stream));
        let found = |stream| version(stream).map(|version| (stream, version.clone()));
        Ok(touched.into_iter().filter_map(found).collect())
    }

    /// Rule 3: keeps the positions of records below `to` elsewhere.
    fn keep_versions(&self, to: Lsn) -> Result<(), CatalogError> {
        // Relaxed: who publishes a stream's record has acquired its commit, behind `announce`.
        if !self.any_versioned.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Before the look at the newest records: what is below stays, and is the newest there.
        let durable = self.ring.durable();
        let sure = durable.max(to);
        let (mut lasts, unsure): (Vec<_>, Vec<_>) =
            self.last_records()?.into_iter().partition(|(_, last)| *last < sure);
        let unsure: Vec<_> = unsure.into_iter().map(|(stream, _)| stream).collect();
        lasts.extend(self.newest_before(&unsure, sure, to)?);
        lasts.retain(|(_, last)| *last != Lsn::ZERO && *last < to);
        let epoch = self.ring.identity().epoch;
        let mut catalog = lock(&self.catalog);
        let Some(catalog) = catalog.as_mut() else {
            return Ok(());
        };
        let is_new = |(stream, last): &(StreamId, Lsn)| {
            catalog.position(*stream).is_none_or(|(_, recorded)| recorded != *last)
        };
        let new = lasts.into_iter().filter(is_new).map(|(stream, last)| (stream, epoch, last));
        let new: Vec<_> = new.collect();
        // No crash takes what is durable: no epoch begins below it.
        catalog.record_positions(&new, durable)
    }

    /// The newest records of `streams`, which are in order, before `end`. Where the index has
    /// forgotten them, those before `to` alone.
    fn newest_before(
        &self,
        streams: &[StreamId],
        end: Lsn,
        to: Lsn,
    ) -> Result<Vec<(StreamId, Lsn)>, ReadError> {
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        let (mut found, start) = self
            .index
            .look(&self.ring, |index| (index.newest_before(streams, end), index.start()))?;
        if self.ring.trimmed() < start.min(to) && found.contains(&Lsn::ZERO) {
            walk_back(&self.ring, start.min(to), streams, &mut found)?;
        }
        Ok(streams.iter().copied().zip(found).collect())
    }

    fn check_known(&self, streams: impl Iterator<Item = StreamId>) -> Result<(), AppendError> {
        let known = self.index.known();
        match streams.max() {
            Some(stream) if stream.get() > known => Err(AppendError::NoStream { stream, known }),
            _ => Ok(()),
        }
    }

    /// Appends a batch, holding the versions of all streams under version control that it touches.
    pub(crate) fn append_batch<'e>(
        &self,
        producer: &Producer,
        stamp: Option<Stamp>,
        entries: impl Iterator<Item = Entry<'e>> + Clone,
    ) -> Result<Lsn, AppendError> {
        let streams = entries.clone().filter_map(|entry| entry.stream);
        self.append_holding(streams, || producer.append_batch(stamp, entries))
    }

    /// As `append_batch`, of a record with a producer's stamp.
    pub(crate) fn append_stamped(
        &self,
        producer: &Producer,
        stamp: Stamp,
        entry: Entry<'_>,
    ) -> Result<Lsn, AppendError> {
        let Entry { stream, payload } = entry;
        let append = || producer.append_stamped(stamp, (RecordKind::Data, stream), payload);
        if stream.is_none() { append() } else { self.append_holding(stream.into_iter(), append) }
    }

    /// Appends to `streams`, holding the versions of those under version control.
    fn append_holding(
        &self,
        streams: impl Iterator<Item = StreamId> + Clone,
        append: impl FnOnce() -> Result<Lsn, AppendError>,
    ) -> Result<Lsn, AppendError> {
        self.check_known(streams.clone())?;
        let versions = self.versions_of(streams)?;
        let mut holds = Vec::with_capacity(versions.len());
        for (stream, version) in &versions {
            holds.push(self.hold(*stream, version)?);
        }
        let lsn = append()?;
        holds.iter_mut().for_each(|hold| hold.advance(lsn));
        Ok(lsn)
    }

    /// As `append_batch`, if each stream in `expected` is at that version.
    pub(crate) fn commit(
        &self,
        producer: &Producer,
        batch: &Batch,
        expected: &Expected,
    ) -> Result<Lsn, AppendError> {
        if batch.is_empty() {
            return Err(AppendError::EmptyBatch);
        }
        let written = batch.iter().filter_map(|entry| entry.stream);
        self.check_known(written.clone())?;
        let versions = self.versions_of(written.clone().chain(expected.keys().copied()))?;
        let mut holds = Vec::with_capacity(versions.len());
        for (stream, version) in &versions {
            let hold = self.hold(*stream, version)?;
            if let Some(expected) = expected.get(stream)
                && hold.last() != *expected
            {
                return Err(conflict(*stream, *expected, hold.last()));
            }
            let is_written = written.clone().any(|written| written == *stream);
            holds.push((hold, is_written));
        }
        let lsn = producer.append_encoded(batch.encoded(), batch.stream())?;
        // The others were only looked at.
        for (hold, _) in holds.iter_mut().filter(|(_, is_written)| *is_written) {
            hold.advance(lsn);
        }
        Ok(lsn)
    }
}

/// Gives those of `streams` of which nothing was `found` their newest record before `to`.
fn walk_back(
    ring: &Ring,
    to: Lsn,
    streams: &[StreamId],
    found: &mut [Lsn],
) -> Result<(), ReadError> {
    let is_sought: Vec<bool> = found.iter().map(|lsn| *lsn == Lsn::ZERO).collect();
    let mut reader = Reader::new(ring, Position::Oldest)?;
    loop {
        let located = match reader.step() {
            Ok(Some(located)) if located.lsn < to => located,
            Ok(_) => return Ok(()),
            // What a repair has left out is nobody's version.
            Err(ReadError::Gap { .. }) => continue,
            Err(error) => return Err(error),
        };
        for stream in reader.lend(located).entries().filter_map(|entry| entry.stream) {
            if let Ok(at) = streams.binary_search(&stream)
                && is_sought[at]
            {
                found[at] = located.lsn;
            }
        }
    }
}

/// The streams under version control.
fn versioned(catalog: &Catalog) -> impl Iterator<Item = StreamId> {
    catalog.iter().filter(|(_, _, flags)| flags.is_versioned()).map(|(id, _, _)| id)
}

/// What a caller expected of a stream is not so.
pub(super) fn conflict(stream: StreamId, expected: Lsn, actual: Lsn) -> AppendError {
    let version = |lsn| Some(lsn).filter(|lsn| *lsn != Lsn::ZERO);
    AppendError::Conflict { stream, expected: version(expected), actual: version(actual) }
}

impl BeforeTrim for Streams {
    fn before_trim(&self, to: Lsn) -> Result<(), CatalogError> {
        self.keep_versions(to)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::simulation::{self, Disk, new_image, tiny};
    use crate::{AppendError, Durability, Entry, Geometry, OnFull, Options, Wal};

    fn options() -> Options {
        Options::new().durability(Durability::None).hole_age_max(Duration::from_secs(60))
    }

    /// Fills the ring of a small log once, and releases it.
    fn go_round(wal: &Wal) {
        let end = wal.watermarks().published + wal.geometry().capacity();
        while wal.watermarks().trimmed < end {
            let lsn = wal.append(&[7; 4000]).expect("checkpoints make room");
            wal.checkpoint(lsn).expect("a boundary");
        }
    }

    /// An appender is stopped between its commit and the word to others, while the log goes round:
    /// its record is released, and was the stream's newest all the same.
    #[test]
    fn a_version_that_nobody_was_told_of_is_recorded() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("log");
        let geometry = Geometry::new(1 << 18, 1 << 16).expect("in bounds");
        let wal = Wal::create(&path, geometry, options()).expect("a new log");
        let account = wal.versioned_stream("account").expect("new");
        let first = account.append(b"first").expect("there is room");
        let parts = wal.parts();
        let version = account.version.as_ref().expect("it has a version");
        let hold = parts.streams.hold(account.id(), version).expect("nobody else holds it");
        let second = parts.producer.append(&account.label, b"second").expect("there is room");
        go_round(&wal);
        assert_eq!(version.last(), first, "nobody was told");
        drop(hold);
        drop(account);
        wal.die();
        let wal = Wal::open(&path, options()).expect("it was killed");
        let account = wal.versioned_stream("account").expect("it is there");
        assert_eq!(account.last_lsn().expect("it is known"), Some(second));
        let refused = account.append_if(Some(first), b"as if the second were not");
        assert!(matches!(refused, Err(AppendError::Conflict { .. })));
    }

    /// A stream's newest record is lost with the power, and the one before it was released: that
    /// one is its version, whether the index knows of it or has forgotten.
    #[test]
    fn the_version_before_the_newest_outlives_a_power_loss() {
        for index_bytes in [1 << 20, 0] {
            let options = Options::new().stream_index_bytes(index_bytes);
            let disk = Disk::recording(new_image(tiny(4)));
            let log = simulation::open(&disk, 1, options).expect("a new log opens");
            let account = log.versioned_stream("account").expect("new");
            let first = account.append(b"first").expect("there is room");
            let other = log.stream("other").expect("new").id();
            log.append_batch([Entry::from((other, &[7; 1])); 100]).expect("there is room");
            log.append(&[7; 2000]).expect("there is room");
            log.step_janitor();
            let later = log.append(&[7; 3000]).expect("there is room");
            log.sync().expect("the disk takes it");
            account.append(b"second").expect("there is room");
            log.checkpoint(later).expect("a boundary");
            assert_eq!(log.sync_checkpoint().expect("the disk takes it"), later);
            drop(account);
            log.kill();
            let medium = disk.at(disk.observe_now());
            let (image, files) = (medium.oldest(), medium.files(|_| 0));
            drop(medium);
            let disk = Disk::new(image);
            disk.put_files(&files);
            let log = simulation::open(&disk, 2, options).expect("the power went");
            assert!(log.watermarks().trimmed > first);
            let account = log.versioned_stream("account").expect("it is there");
            assert_eq!(account.last_lsn().expect("it is known"), Some(first));
        }
    }

    /// While one who opens a stream reads the log for the versions, others create streams: these
    /// have versions, too.
    #[test]
    fn a_stream_that_is_created_while_versions_are_loaded_has_one() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("log");
        let geometry = Geometry::new(1 << 25, 1 << 20).expect("in bounds");
        let options = options().on_full(OnFull::Fail);
        let wal = Wal::create(&path, geometry, options).expect("a new log");
        let old = wal.versioned_stream("old").expect("new").id();
        let payload = [Entry::from((old, &[7; 8])); 1000];
        while wal.append_batch(payload).is_ok() {}
        drop(wal);
        let wal = Wal::open(&path, options).expect("it was closed");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let wal = &wal;
                scope.spawn(move || {
                    for number in 0..5 {
                        let stream = wal.versioned_stream(&format!("{thread} {number}"));
                        assert!(stream.expect("it is created").is_versioned());
                    }
                });
            }
        });
    }
}
