//! The log as its users see it: the parts of the lower floors, wired together.

use std::fmt::Display;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use crate::consumer::store::{self, Directory, Medium};
use crate::consumer::{Blocker, Consumer, ConsumerStat, Consumers, find_blocker};
use crate::durability::{Durable, DurableFuture};
use crate::error::{
    AppendError, CatalogError, CheckpointError, CloseError, ConsumerError, CreateError, Error,
    FileError, OpenError, PathError, ReadError, SyncFailure, WaitError,
};
use crate::events::{self, Opened};
use crate::files::{self, DirectoryLock, RingFile, file_error};
use crate::geometry::{FIRST_RECORD, Geometry, PAGE_SIZE};
use crate::idempotent::{Before, IdempotentProducer, Producers};
use crate::layout::checkpoint::Boot;
use crate::layout::{Checkpoint, Entry, Identity, Superblock};
use crate::lsn::{EpochLsn, Lsn};
use crate::metrics::Metrics;
use crate::options::{Options, Persistence};
use crate::parity::Keeper;
use crate::producer::Producer;
use crate::producer_id::ProducerId;
use crate::reader::{self, PinnedRecord, Position, Reader, Tail};
use crate::recovery::{self, Head, RecoveryOutcome, RecoveryReport};
use crate::region::{self, MapError, Region, Syncer};
use crate::ring::{CLOSED, Reservation, Ring, StartPositions, Watermarks};
use crate::segments::{FaultTaker, Janitor, SlotWriter, Steward};
use crate::stream::{Catalog, EntryReader, Parts, Stream, Streams};
use crate::stream_id::{StreamFlags, StreamId};
use crate::sync::{self, Arc, JoinHandle, Mutex, lock};
use crate::transaction::Transaction;
use crate::wait::Doorbell;

/// A write-ahead log in a fixed-size, memory-mapped ring.
///
/// Any number of threads append at the same time, without locks; background threads make what is
/// committed durable and recycle what a checkpoint has released. Share it by reference or in an
/// `Arc`. Dropping it closes it in order; [`close`](Wal::close) also reports what went wrong.
///
/// # Example
///
/// ```
/// use kaelix_wal::{Geometry, Options, Position, Wal};
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("log");
/// let wal = Wal::create(&dir, Geometry::new(1 << 20, 1 << 18)?, Options::new())?;
/// let lsn = wal.append(b"visible to readers")?;
/// wal.wait_durable(lsn)?; // survives a power loss
/// assert_eq!(wal.get(lsn)?.payload(), b"visible to readers");
/// wal.close()?;
/// drop(wal);
///
/// let wal = Wal::open(&dir, Options::new())?;
/// assert_eq!(wal.recovery_report().records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Wal {
    pub(crate) ring: Arc<Ring>,
    producer: Producer,
    pub(crate) producers: Producers,
    pub(crate) durable: Arc<Durable>,
    streams: Arc<Streams>,
    pub(crate) janitor: Arc<Janitor>,
    faults: Option<Arc<FaultTaker>>,
    keeper: Option<Arc<Keeper>>,
    slots: Arc<SlotWriter>,
    /// There, but for models.
    consumers: Option<Arc<Consumers>>,
    /// A copy of the consumers' positions that did not verify at the open.
    torn_consumers: Option<PathBuf>,
    options: Options,
    report: RecoveryReport,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How the close ended, once it has.
    closed: Mutex<Option<Result<(), CloseError>>>,
    /// Released last.
    _lock: Option<DirectoryLock>,
}

/// What is kept beside the ring file.
pub(crate) struct Beside {
    pub(crate) catalog: Option<Catalog>,
    pub(crate) medium: Box<dyn Medium>,
}

/// What a log has beside its ring: models go without.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) catalog: Option<Catalog>,
    pub(crate) consumers: Option<Arc<Consumers>>,
}

impl Wal {
    /// Creates a log in directory `dir`, which is made if it is not there, and opens it.
    ///
    /// Every block of the ring is written now, so that no later append can meet a full disk.
    ///
    /// # Errors
    ///
    /// There is a log already, the path is none for a log, or the system refused (a full disk, for
    /// one); then there is no log there afterwards. After [`CreateError::Open`] there is one, whole
    /// and empty.
    pub fn create(
        dir: impl AsRef<Path>,
        geometry: Geometry,
        options: Options,
    ) -> Result<Wal, CreateError> {
        let dir = dir.as_ref();
        files::prepare_directory(dir)?;
        let lock = DirectoryLock::take(dir)?;
        if files::exists(dir).map_err(PathError::File)? {
            return Err(CreateError::Exists(dir.to_owned()));
        }
        if let Some(path) = store::leftover(dir)? {
            return Err(CreateError::Leftover(path));
        }
        let log_id = random_id()
            .map_err(|source| PathError::File(file_error("draw a random id for", dir)(source)))?;
        // The streams of a log that was here once are not this one's.
        Catalog::open(dir, &log_id, false)?;
        files::create_ring(dir, &new_header(geometry, log_id), &geometry)
            .map_err(PathError::File)?;
        Ok(Wal::open_locked(dir, options, lock)?)
    }

    /// Opens the log in directory `dir`, recovering it if it was not closed in order.
    ///
    /// What is not proven to be durable is verified and synced before the log is returned, and all
    /// that is retained with [`Verify::Full`](crate::Verify::Full):
    /// [`recovery_report`](Wal::recovery_report) says what was found.
    ///
    /// While the log is open its ring file is mapped. If someone cuts that file short meanwhile, or
    /// its disk has a bad block, the next access to what is missing is a SIGBUS, which ends the
    /// process unless it handles the signal; what the open itself reads is an error then. Nobody
    /// may remove the file `lock` either while the log is open: that would let a second process
    /// write to it.
    ///
    /// # Errors
    ///
    /// There is no log, another writer has it open, it is of another version, or acknowledged data
    /// in it is damaged. Nothing is changed then.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Wal, OpenError> {
        let dir = dir.as_ref();
        // Before the lock: what is wrong with the path is the better answer.
        drop(RingFile::open(dir, true)?);
        let lock = DirectoryLock::take(dir)?;
        Wal::open_locked(dir, options, lock)
    }

    /// Opens the log in `dir`, or creates one of this geometry if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Wal::open) and [`create`](Wal::create).
    pub fn open_or_create(
        dir: impl AsRef<Path>,
        geometry: Geometry,
        options: Options,
    ) -> Result<Wal, Error> {
        let dir = dir.as_ref();
        if Wal::exists(dir) {
            Ok(Wal::open(dir, options)?)
        } else {
            Ok(Wal::create(dir, geometry, options)?)
        }
    }

    /// Is there a log in `dir`, in whatever state? No, if the system refuses to tell; then
    /// [`create`](Wal::create) is refused too.
    #[must_use]
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        files::exists(dir.as_ref()).unwrap_or(false)
    }

    fn open_locked(dir: &Path, options: Options, lock: DirectoryLock) -> Result<Wal, OpenError> {
        let ring_file = RingFile::open(dir, true)?;
        let head = recovery::read_head(&ring_file)?;
        // A process that died while it created the log may have left its name in the cache alone.
        files::sync_directory(dir)?;
        let medium = Box::new(Directory::open(dir)?);
        let boot = ring_file.boot();
        let (path, reopen) = (ring_file.path.clone(), ring_file.reopener());
        let mapped = region::map(ring_file.file, reopen, options.persistence);
        let mapped = mapped.map_err(|error| match error {
            MapError::System(source) => file_error("map", &path)(source).into(),
            MapError::Refused(reason) => {
                OpenError::NotPersistentMemory { path: path.clone(), reason }
            }
        })?;
        let (_, found) = mapped.memory();
        let expected = head.geometry.file_len();
        if found != expected {
            // Cut short since its length was checked.
            return Err(OpenError::Length { path, found, expected });
        }
        let region = Region::new(mapped);
        let catalog = Some(Catalog::open(dir, &head.log_id, true)?);
        let beside = Beside { catalog, medium };
        let wal = Wal::recover_beside(region, &head, boot, options, Some(lock), &path, beside);
        let mut wal = wal.inspect_err(|error| events::refused(&path, error))?;
        wal.tell_opened(&path);
        if options.parity {
            wal.keeper = Some(Arc::new(Keeper::new(wal.ring.clone(), dir)?));
        }
        wal.spawn_threads().map_err(file_error("start a thread for", &path))?;
        Ok(wal)
    }

    fn tell_opened(&self, path: &Path) {
        let report = &self.report;
        events::opened(
            path,
            &Opened {
                epoch: report.epoch,
                start: report.start,
                end: report.end,
                records: report.records,
                left_behind: report.holes_padded + report.cut_records,
                duration: report.duration,
                report,
            },
        );
    }

    /// Recovers the log in `region`; its threads have not started. Its consumers are in memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn recover(
        region: Region,
        head: &Head,
        boot: Boot,
        options: Options,
        lock: Option<DirectoryLock>,
        path: &Path,
        catalog: Option<Catalog>,
    ) -> Result<Wal, OpenError> {
        let medium = Box::new(store::Memory::default());
        let beside = Beside { catalog, medium };
        Wal::recover_beside(region, head, boot, options, lock, path, beside)
    }

    /// As `recover`, with consumers whose positions are in `medium`. Those are read first: what is
    /// refused is left as it was.
    pub(crate) fn recover_beside(
        region: Region,
        head: &Head,
        boot: Boot,
        options: Options,
        lock: Option<DirectoryLock>,
        path: &Path,
        beside: Beside,
    ) -> Result<Wal, OpenError> {
        let Beside { mut catalog, medium } = beside;
        let loaded = store::load(&*medium, &head.log_id, &head.geometry)?;
        loaded.check_epoch(&*medium, head.checkpoint.epoch)?;
        let (recovered, slots) = recovery::recover(&region, head, boot, options.verify)
            .map_err(|refusal| recovery::refusal_error(path, refusal))?;
        let syncer = region.backing().syncer().map_err(file_error("open", path))?;
        let identity = Identity { log_id: head.log_id, epoch: recovered.epoch };
        let start = StartPositions {
            trimmed: recovered.trimmed,
            end: recovered.end,
            prepared: u64::from(head.geometry.sequence(recovered.end)) + 1,
        };
        let mut ring = Ring::new(region, head.geometry, identity, start);
        ring.footer_bell = options.parity.then(Doorbell::new);
        let ring = Arc::new(ring);
        let consumers = Consumers::new(ring.clone(), options, medium, &loaded, recovered.end);
        // Before the epoch's first record: what is beyond its start must not come back by it.
        consumers.begin_epoch(&loaded)?;
        if let Some(catalog) = &mut catalog {
            catalog.begin_epoch(recovered.epoch, recovered.end)?;
        }
        ring.open_epoch();
        let before = Before { end: recovered.end, footed: recovered.footed };
        let kept = Kept { catalog, consumers: Some(Arc::new(consumers)) };
        let mut wal = Wal::assemble(ring, slots, syncer, options, recovered.report, lock, kept);
        wal.torn_consumers = loaded.damaged.map(|(path, _)| path);
        wal.producers = Producers::new(before);
        Ok(wal)
    }

    /// Puts a log together; its threads do not run yet.
    pub(crate) fn assemble(
        ring: Arc<Ring>,
        slots: SlotWriter,
        syncer: Syncer,
        options: Options,
        report: RecoveryReport,
        lock: Option<DirectoryLock>,
        kept: Kept,
    ) -> Wal {
        let slots = Arc::new(slots);
        let reopened = report.outcome != RecoveryOutcome::New;
        let faults = ring.region().backing().has_page_faults();
        let faults = faults.then(|| Arc::new(FaultTaker::new(ring.clone())));
        let Kept { catalog, consumers } = kept;
        let streams = Arc::new(Streams::new(ring.clone(), catalog, options));
        let (before_trim, of) = (streams.clone(), ring.clone());
        let steward = consumers.clone().map(|consumers| consumers as Arc<dyn Steward>);
        let janitor = Janitor::new(of, slots.clone(), before_trim, options, steward, reopened);
        let janitor = Arc::new(janitor);
        let durable = Durable::new(ring.clone(), slots.clone(), janitor.clone(), options, syncer);
        Wal {
            producer: Producer::new(ring.clone(), janitor.clone(), options),
            producers: Producers::new(Before::default()),
            ring,
            durable: Arc::new(durable),
            streams,
            janitor,
            faults,
            keeper: None,
            slots,
            consumers,
            torn_consumers: None,
            options,
            report,
            threads: Mutex::new(Vec::new()),
            closed: Mutex::new(None),
            _lock: lock,
        }
    }

    pub(crate) fn spawn_threads(&self) -> std::io::Result<()> {
        let mut threads = lock(&self.threads);
        let janitor = self.janitor.clone();
        let watch = PoisonOnPanic(self.durable.clone());
        threads.push(sync::spawn("wal-janitor", move || {
            janitor.run(|failure| watch.0.poison(failure));
        })?);
        if let Some(faults) = self.faults.clone() {
            let watch = PoisonOnPanic(self.durable.clone());
            threads.push(sync::spawn("wal-faults", move || {
                let _watch = watch;
                faults.run();
            })?);
        }
        if let Some(keeper) = self.keeper.clone() {
            // The log goes on without it, however it ends.
            threads.push(sync::spawn("wal-parity", move || keeper.run())?);
        }
        let (end, watch) = (EndOfWaits(self.durable.clone()), PoisonOnPanic(self.durable.clone()));
        threads.push(sync::spawn("wal-flusher", move || {
            let (_end, watch) = (end, watch);
            watch.0.run_flusher();
        })?);
        Ok(())
    }

    /// Reserves space for a payload of `len` bytes, without ever blocking.
    ///
    /// # Errors
    ///
    /// [`AppendError::Full`] if there is no prepared space at the moment, whatever the
    /// [`OnFull`](crate::OnFull) policy. A claim that did not fit in the active segment has sealed
    /// it: records do not straddle segments, and a smaller one does not go where a larger one did
    /// not.
    #[inline]
    pub fn try_reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.producer.try_reserve(self.ring.data_label(), len)
    }

    /// Reserves space for a payload of `len` bytes. On a full ring it does what the
    /// [`OnFull`](crate::OnFull) policy says; waiting has no limit.
    ///
    /// # Errors
    ///
    /// [`AppendError::HeldBack`] if an open reservation (perhaps the caller's own) keeps the oldest
    /// segment from being released for longer than [`Options::hole_age_max`].
    #[inline]
    pub fn reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.producer.reserve(self.ring.data_label(), len, None)
    }

    /// As [`reserve`](Wal::reserve), waiting no longer than until `deadline`.
    ///
    /// # Errors
    ///
    /// At the deadline, [`AppendError::HeldBack`] if an open reservation is in the way, else
    /// [`AppendError::Full`].
    pub fn reserve_deadline(
        &self,
        len: usize,
        deadline: Instant,
    ) -> Result<Reservation<'_>, AppendError> {
        self.producer.reserve(self.ring.data_label(), len, Some(deadline))
    }

    /// Appends a record; returns its LSN. It is committed, so it survives the death of this
    /// process; to survive a power loss it must become [durable](Wal::wait_durable).
    ///
    /// # Errors
    ///
    /// As [`reserve`](Wal::reserve).
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        self.producer.append(&self.producer.ring().data_label(), payload)
    }

    /// Appends one record whose payload is the concatenation of `parts`.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Wal::reserve).
    pub fn append_vectored(&self, parts: &[IoSlice<'_>]) -> Result<Lsn, AppendError> {
        let len = parts.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
        let parts = parts.iter().map(|part| &**part);
        self.producer.append_parts(&self.ring.data_label(), len, parts)
    }

    /// Appends a batch: `entries`, of whatever streams, as one record. After a crash all of them
    /// are there or none, and no reader ever sees a part. Returns the record's LSN, which all of
    /// its [entries](crate::Record::entries) share.
    ///
    /// The entries are looked at twice, first for their lengths; what comes from elsewhere can be
    /// collected into a [`Batch`](crate::Batch) first. Each takes 8 bytes besides its payload, and
    /// then up to 7 more, so that the next one begins at a multiple of 8.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Wal::reserve) ([`AppendError::TooLarge`] if the batch does not fit in a
    /// segment), and [`AppendError::EmptyBatch`].
    ///
    /// # Panics
    ///
    /// If the clone of the iterator yields entries of other lengths than itself. Nothing is
    /// appended then.
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
    /// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
    /// let lsn = wal.append_batch(["debit 7", "credit 9"])?;
    /// let record = wal.get(lsn)?;
    /// let payloads: Vec<_> = record.entries().map(|entry| entry.payload).collect();
    /// assert_eq!(payloads, [b"debit 7".as_slice(), b"credit 9"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_batch<'e, I>(&self, entries: I) -> Result<Lsn, AppendError>
    where
        I: IntoIterator<IntoIter: Clone, Item: Into<Entry<'e>>>,
    {
        self.streams.append_batch(&self.producer, None, entries.into_iter().map(Into::into))
    }

    /// Opens the stream of this name, or creates it if the log has none. A new stream is in the
    /// log's catalog, durably, before this returns.
    ///
    /// Names are told apart byte by byte, and have 1 to 255 bytes.
    ///
    /// # Errors
    ///
    /// [`CatalogError::NameLength`], or the stream could not be created (a full disk, for one);
    /// then nothing has changed.
    pub fn stream(&self, name: &str) -> Result<Stream<'_>, CatalogError> {
        self.one_stream(name, StreamFlags::NONE, false)
    }

    /// As [`stream`](Wal::stream), of a stream under version control: appends to it may state which
    /// record they expect to be its newest ([`Stream::append_if`], [`Transaction::expect`]).
    ///
    /// # Errors
    ///
    /// Those of [`stream`](Wal::stream), and [`CatalogError::FlagsDiffer`] if there is a stream of
    /// this name that is not under version control.
    pub fn versioned_stream(&self, name: &str) -> Result<Stream<'_>, CatalogError> {
        self.one_stream(name, StreamFlags::VERSIONED, true)
    }

    fn one_stream(
        &self,
        name: &str,
        flags: StreamFlags,
        exactly: bool,
    ) -> Result<Stream<'_>, CatalogError> {
        let mut streams = self.parts().open_streams(&[name], flags, exactly)?;
        Ok(streams.remove(0))
    }

    /// As [`stream`](Wal::stream), for many at once, in the order of `names`: however many of them
    /// are new, the disk is waited for as for one.
    ///
    /// # Errors
    ///
    /// Those of [`stream`](Wal::stream). Either all are created or none; a crash meanwhile may
    /// leave the first of them.
    pub fn streams(&self, names: &[&str]) -> Result<Vec<Stream<'_>>, CatalogError> {
        self.parts().open_streams(names, StreamFlags::NONE, false)
    }

    /// The names of all streams, by id.
    #[must_use]
    pub fn stream_names(&self) -> Vec<(StreamId, String)> {
        let names = self.streams.with_catalog(|catalog| {
            catalog.iter().map(|(id, name, _)| (id, name.to_owned())).collect()
        });
        names.unwrap_or_default()
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Transaction<'_> {
        Transaction::new(self.parts())
    }

    /// Reads the entries of several streams, in the order of the log.
    ///
    /// # Errors
    ///
    /// As [`reader`](Wal::reader).
    pub fn read_streams(
        &self,
        streams: impl IntoIterator<Item = StreamId>,
        from: Position,
    ) -> Result<EntryReader<'_>, ReadError> {
        self.parts().read_streams(streams.into_iter().collect(), from)
    }

    /// Reads all entries, in the order of the log, those of batches one by one.
    ///
    /// # Errors
    ///
    /// As [`reader`](Wal::reader).
    pub fn entries(&self, from: Position) -> Result<EntryReader<'_>, ReadError> {
        Ok(EntryReader::of_all(self.reader(from)?))
    }

    /// Where to start reading so that no record is missed that was appended at or after `time`.
    ///
    /// Records carry no time (messages do): what is known is when their segments were prepared. So
    /// the position lies before the first such record by what the log keeps prepared, and a little:
    /// up to 64 MiB and two segments. A system clock that was put back makes it lie further back;
    /// one that was ahead for a while, and then corrected, may make it lie too late.
    ///
    /// # Errors
    ///
    /// As [`reader`](Wal::reader).
    pub fn since(&self, time: SystemTime) -> Result<Position, ReadError> {
        let unix = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        reader::since(&self.ring, unix.as_millis() as u64)
    }

    /// The idempotent producer of this id: its appends have sequence numbers, by which one that is
    /// tried again is recognised.
    ///
    /// Nothing has to be registered, and nothing is written: what the retained log holds of the
    /// producer is what there is to know of it. The first call in a process reads the last page of
    /// each retained segment, and walks those that were not sealed; later calls read nothing.
    ///
    /// # Errors
    ///
    /// As [`get`](Wal::get), of a record that is met in such a walk.
    pub fn idempotent(&self, id: ProducerId) -> Result<IdempotentProducer<'_>, ReadError> {
        IdempotentProducer::new(self.parts(), &self.producers, id)
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let (producer, durable, streams) = (&self.producer, &*self.durable, &*self.streams);
        Parts { producer, durable, streams }
    }

    /// Appends a record and waits until it survives a power loss.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Wal::append); those of [`wait_durable`](Wal::wait_durable), after which
    /// the record is in the log but may be lost.
    pub fn append_durable(&self, payload: &[u8]) -> Result<Lsn, Error> {
        let lsn = self.append(payload)?;
        self.parts().wait_own(lsn, payload.len())?;
        Ok(lsn)
    }

    /// Waits until the record that starts at `lsn`, and all before it, survive a power loss. All
    /// that wait at the same time share one sync.
    ///
    /// # Errors
    ///
    /// [`WaitError::HeldBack`] if an earlier reservation (perhaps the caller's own) stays open for
    /// longer than [`Options::hole_age_max`], [`WaitError::Poisoned`] if a sync failed.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), WaitError> {
        self.wait_durable_inner(lsn, None)
    }

    /// As [`wait_durable`](Wal::wait_durable), waiting no longer than until `deadline` (but for a
    /// sync that is under way in this thread).
    ///
    /// # Errors
    ///
    /// At the deadline, [`WaitError::HeldBack`] if an earlier reservation is open, else
    /// [`WaitError::Timeout`]; the record may still become durable.
    pub fn wait_durable_deadline(&self, lsn: Lsn, deadline: Instant) -> Result<(), WaitError> {
        self.wait_durable_inner(lsn, Some(deadline))
    }

    fn wait_durable_inner(&self, lsn: Lsn, deadline: Option<Instant>) -> Result<(), WaitError> {
        let goal = self.durable_goal(lsn)?;
        self.durable.wait(goal, deadline)
    }

    /// As [`wait_durable`](Wal::wait_durable), for a task: a future for whatever runtime. The log's
    /// own thread leads the sync, which all that wait at the same time share.
    ///
    /// # Errors
    ///
    /// The future yields those of [`wait_durable`](Wal::wait_durable). After the end of
    /// [`close`](Wal::close) it yields at once how it ended.
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
    /// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
    /// # pollster::block_on(async {
    /// let lsn = wal.append(b"from a task")?;
    /// wal.durable(lsn).await?;
    /// # Ok::<(), kaelix_wal::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durable(&self, lsn: Lsn) -> DurableFuture<'_> {
        DurableFuture::new(&self.durable, self.durable_goal(lsn))
    }

    /// Calls `call` once the record that starts at `lsn`, and all before it, survive a power loss,
    /// or once that has failed.
    ///
    /// It is called exactly once: by the calling thread, before this returns, if the outcome is
    /// known by then; else by the log's flusher, which leads the next sync only when it has
    /// returned. So it should be short, and must not wait for space in this log. A panic in it ends
    /// nothing but the call; in the calling thread it goes on to the caller.
    ///
    /// # Errors
    ///
    /// `call` gets those of [`wait_durable`](Wal::wait_durable).
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
    /// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
    /// let (sender, acknowledged) = std::sync::mpsc::channel();
    /// let lsn = wal.append(b"acknowledged later")?;
    /// wal.on_durable(lsn, move |outcome| sender.send(outcome).expect("somebody listens"));
    /// acknowledged.recv()??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_durable(&self, lsn: Lsn, call: impl FnOnce(Result<(), WaitError>) + Send + 'static) {
        match self.durable_goal(lsn) {
            Ok(goal) => self.durable.call_when_durable(goal, Box::new(call)),
            Err(error) => call(Err(error)),
        }
    }

    /// What `durable` has to reach for the record at `lsn` to be durable.
    fn durable_goal(&self, lsn: Lsn) -> Result<Lsn, WaitError> {
        if lsn >= self.ring.durable() {
            let end = self.ring.reserved();
            if lsn >= end {
                return Err(WaitError::NotReserved { lsn, end });
            }
        }
        // `durable` stands at record boundaries only, so beyond the start is beyond the end.
        Ok(lsn + 1)
    }

    /// Waits until all that was reserved before the call survives a power loss; returns the
    /// durable watermark.
    ///
    /// # Errors
    ///
    /// As [`wait_durable`](Wal::wait_durable).
    pub fn sync(&self) -> Result<Lsn, WaitError> {
        let end = self.ring.reserved();
        if !self.durable.is_settled(end) {
            self.durable.wait(end, None)?;
        }
        Ok(self.ring.durable())
    }

    /// Says that everything below `lsn` has been applied elsewhere and may be released. Returns
    /// the position up to which space can be released now: `lsn`, or the durable watermark if that
    /// is lower (the published one without durability).
    ///
    /// The space is released in the background when it is needed, a segment at a time, after the
    /// new position has been made durable. A lower position than before changes nothing.
    ///
    /// # Errors
    ///
    /// The position is not a record boundary (the start of a record, or the
    /// [`next_lsn`](crate::Record::next_lsn) of one), or lies beyond the published records.
    pub fn checkpoint(&self, lsn: Lsn) -> Result<Lsn, CheckpointError> {
        if let Some(failure) = self.ring.failure() {
            return Err(CheckpointError::Poisoned(failure));
        }
        if self.ring.is_frozen() {
            return Err(CheckpointError::Closed);
        }
        match reader::check_boundary(&self.ring, lsn) {
            Ok(boundary) => self.janitor.request(boundary),
            Err(ReadError::Trimmed { .. }) => {}
            Err(ReadError::NotYet { end, .. }) => {
                return Err(CheckpointError::Beyond { lsn, published: end });
            }
            Err(_) => return Err(CheckpointError::NotARecord { lsn }),
        }
        Ok(lsn.min(self.janitor.trim_bound()).max(self.ring.trimmed()))
    }

    /// Makes the last checkpoint durable now, as far as it can be released; returns the trimmed
    /// watermark. Without this it becomes durable when its space is needed, or at the close.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Poisoned`] if a sync failed, now or before,
    /// [`CheckpointError::Unrecorded`] if nothing may be released because a version of a stream
    /// could not be put into the catalog first.
    pub fn sync_checkpoint(&self) -> Result<Lsn, CheckpointError> {
        if let Some(failure) = self.ring.failure() {
            return Err(CheckpointError::Poisoned(failure));
        }
        self.janitor.persist_trim().inspect_err(|error| {
            if let CheckpointError::Poisoned(failure) = error {
                self.durable.poison(failure.clone());
            }
        })
    }

    /// Opens the consumer `name` where it stands, or makes one at the oldest retained record.
    ///
    /// A consumer is a named position that is kept with the log: see [`Consumer`]. A new one is on
    /// the medium when this returns.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Name`] for an empty name or one of more than 255 bytes,
    /// [`ConsumerError::TooMany`], [`ConsumerError::File`] if it could not be written,
    /// [`ConsumerError::Closed`]. A position that was cut is no error here, but at the first use.
    pub fn consumer(&self, name: &str) -> Result<Consumer<'_>, ConsumerError> {
        self.consumer_at(name, Position::Oldest)
    }

    /// As [`consumer`](Wal::consumer); a new one begins at `from`.
    ///
    /// # Errors
    ///
    /// As `consumer`, and [`ConsumerError::Read`] if `from` is not retained or no record boundary.
    pub fn consumer_at(&self, name: &str, from: Position) -> Result<Consumer<'_>, ConsumerError> {
        self.all_consumers().consumer(name, from)
    }

    /// Moves the consumer `name` to a position of the caller's choice, back or forth, wherever it
    /// was; the way on for one that was [cut](ConsumerError::Cut). It is on the medium when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Unknown`], and as [`consumer_at`](Wal::consumer_at).
    pub fn reset_consumer(&self, name: &str, to: Position) -> Result<(), ConsumerError> {
        self.all_consumers().reset_consumer(name, to)
    }

    /// Removes the consumer `name`: it holds nothing back any more. That is on the medium when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Unknown`], [`ConsumerError::File`] (then it is still there),
    /// [`ConsumerError::Closed`].
    pub fn remove_consumer(&self, name: &str) -> Result<(), ConsumerError> {
        self.all_consumers().remove_consumer(name)
    }

    /// All consumers, by name.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerStat> {
        self.all_consumers().stats()
    }

    /// Writes all consumers' positions, each up to what is durable (without durability, to what is
    /// published), if any has advanced. They are on the medium when this returns.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::File`]. The log goes on, and so do the consumers; the next attempt writes
    /// the positions as they are then.
    pub fn sync_consumers(&self) -> Result<(), ConsumerError> {
        self.all_consumers().sync().map_err(ConsumerError::File)
    }

    /// Protects, with [`Options::parity`], every sealed segment that is durable to its end and is
    /// not protected yet, and waits for that; returns how many retained segments are protected, on
    /// the medium. Without the option, 0. Nobody has to call this: it is done in the background,
    /// for segments that were sealed since the open at the latest by the close.
    ///
    /// # Errors
    ///
    /// The system refuses to write the parity file (a full disk, for one). The log goes on without;
    /// the next attempt is made when a segment has been sealed.
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
    /// let wal = Wal::create(dir.path().join("log"), geometry, Options::new().parity(true))?;
    /// for _ in 0..300 {
    ///     wal.append(&[7; 1000])?;
    /// }
    /// wal.sync()?;
    /// assert_eq!(wal.sync_parity()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync_parity(&self) -> Result<u64, FileError> {
        self.keeper.as_ref().map_or(Ok(0), |keeper| keeper.protect_all())
    }

    /// Does a position that was taken earlier, perhaps before a crash, still mean the same? Then it
    /// may be read from, with [`Position::At`].
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Cut`] if the records before it are not those of then, or if the log no
    /// longer knows: of a log without consumers it knows of the last open alone, of others of at
    /// least the last 63. [`ConsumerError::Future`]; [`ConsumerError::Read`] if it has been
    /// released, lies beyond the end, or is no record boundary.
    pub fn check_position(&self, position: EpochLsn) -> Result<(), ConsumerError> {
        self.all_consumers().check_position(position)
    }

    /// A copy of the consumers' positions that did not verify when the log was opened, if there was
    /// one: damaged, or torn by a crash while it was written. The other one counted; its positions
    /// may be older by one write.
    #[must_use]
    pub fn torn_consumers(&self) -> Option<&Path> {
        self.torn_consumers.as_deref()
    }

    /// What keeps the oldest segment from being recycled; `None` if nothing does, or if it is the
    /// one that is being written.
    #[must_use]
    pub fn who_blocks_reclaim(&self) -> Option<Blocker> {
        let found = find_blocker(&self.ring, &self.janitor, self.all_consumers(), &self.options);
        // Its last obstacle, but for readers.
        match self.janitor.refusal() {
            Some(error) if matches!(found, None | Some(Blocker::Reader { .. })) => {
                Some(Blocker::Versions { reason: error.to_string() })
            }
            _ => found,
        }
    }

    fn all_consumers(&self) -> &Consumers {
        self.consumers.as_deref().expect("only models go without")
    }

    /// The record that starts at `lsn`, verified, as a view that keeps it in the log.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotYet`], [`ReadError::Trimmed`], [`ReadError::NotARecord`] (a position inside
    /// a record, or one of the log's own), [`ReadError::Damaged`].
    pub fn get(&self, lsn: Lsn) -> Result<PinnedRecord<'_>, ReadError> {
        reader::get(&self.ring, lsn)
    }

    /// Reads records in order, from the oldest, from a position, or from the end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Trimmed`], [`ReadError::NotYet`] or [`ReadError::NotARecord`] if no record
    /// starts at the position, nor the next one will.
    pub fn reader(&self, from: Position) -> Result<Reader<'_>, ReadError> {
        Reader::new(&self.ring, from)
    }

    /// Reads records in order and waits for more.
    ///
    /// # Errors
    ///
    /// As [`reader`](Wal::reader).
    pub fn tail(&self, from: Position) -> Result<Tail<'_>, ReadError> {
        Tail::new(&self.ring, from)
    }

    /// The watermarks. What is committed by now is published first.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.ring.publish();
        self.ring.watermarks()
    }

    /// What the open found, kept and cut.
    #[must_use]
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Counters since the open.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.ring.counters.snapshot()
    }

    /// How what is synced reaches the medium: [`Persistence::PageCache`] or
    /// [`Persistence::PersistentMemory`].
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        self.ring.region().backing().persistence()
    }

    /// The sizes that the log was created with.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        *self.ring.geometry()
    }

    /// Closes the log: no more records are accepted, what is committed is made durable, and a
    /// clean-shutdown mark is left. Readers go on until the log is dropped, and so does its lock.
    /// Closing again returns the same result.
    ///
    /// # Errors
    ///
    /// [`CloseError::HeldBack`] if a reservation stayed open for [`Options::hole_age_max`],
    /// [`CloseError::Poisoned`] if a sync failed, now or before, [`CloseError::Consumers`] if the
    /// consumers' positions could not be written. The log is closed all the same.
    pub fn close(&self) -> Result<(), CloseError> {
        let mut closed = lock(&self.closed);
        if let Some(result) = &*closed {
            return result.clone();
        }
        let end = self.ring.freeze(CLOSED, None);
        let result = self.finish(end);
        self.ring.finish();
        self.stop_threads();
        for thread in lock(&self.threads).drain(..) {
            // The last handle to a log may go in a callback, which the flusher calls.
            if !sync::is_current(&thread) {
                // A panic in a background thread has already been reported by its hook.
                let _ = thread.join();
            }
        }
        // First, so that what rests on it may be released with the mark.
        let positions = self.consumers.as_ref().map_or(Ok(()), |consumers| consumers.close());
        let result = result.and_then(|()| self.leave_clean_mark(end));
        let result = result.and_then(|()| positions.map_err(CloseError::Consumers));
        if let (Some(keeper), Ok(())) = (&self.keeper, &result) {
            keeper.close();
        }
        events::closed(end, result.as_ref().err().map(|error| error as &dyn Display));
        *closed = Some(result.clone());
        result
    }

    /// What the janitor's thread does once it is rung, for a log without threads.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn step_janitor(&self) {
        if let Err(failure) = self.janitor.pass() {
            self.durable.poison(failure);
        }
    }

    /// What the flusher's thread does when it wakes, for a log without threads; `quiet`: and when
    /// it finds that nothing has been synced for a while.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn step_flusher(&self, quiet: bool) {
        let passed = self.durable.pass().and_then(|()| self.durable.lead_for_completions());
        if passed.is_ok() && quiet {
            // The log is poisoned by whoever fails.
            let _ = self.durable.prove_by_slot();
        }
    }

    /// The process dies here: no close, no mark. Its threads end where they stand.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn die(self) {
        self.stop_threads();
        for thread in lock(&self.threads).drain(..) {
            thread.join().expect("no background thread panics");
        }
        *lock(&self.closed) = Some(Ok(()));
    }

    /// A model ends here: its log goes without a close.
    #[cfg(any(wal_loom, wal_shuttle))]
    pub(crate) fn abandon(&self) {
        *lock(&self.closed) = Some(Ok(()));
    }

    /// Each thread ends at its next look.
    fn stop_threads(&self) {
        self.janitor.stop();
        self.durable.stop_flusher();
        if let Some(faults) = &self.faults {
            faults.stop();
        }
        if let Some(keeper) = &self.keeper {
            keeper.stop();
        }
    }

    fn finish(&self, end: Lsn) -> Result<(), CloseError> {
        self.durable.wait(end, None).map_err(|error| match error {
            WaitError::HeldBack { lsn, age } => CloseError::HeldBack { lsn, age },
            WaitError::Poisoned(failure) => CloseError::Poisoned(failure),
            other => unreachable!("a wait without a deadline does not end with {other}"),
        })
    }

    fn leave_clean_mark(&self, end: Lsn) -> Result<(), CloseError> {
        self.durable.sync_footer().map_err(CloseError::Poisoned)?;
        self.janitor.confirm_all();
        let requested = self.janitor.last_trim(end);
        self.slots
            .update(|next| {
                next.trimmed = next.trimmed.max(requested);
                next.durable = end;
                next.clean = true;
            })
            .map_err(|failure: SyncFailure| CloseError::Poisoned(failure))
    }
}

/// A background thread that panics (a bug of ours) ends the log instead of leaving it half alive,
/// with producers that wait for ever.
struct PoisonOnPanic(Arc<Durable>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if sync::panicking() {
            let source = Arc::new(std::io::Error::other("a background thread of the log panicked"));
            self.0.poison(SyncFailure { start: 0, end: 0, source });
        }
    }
}

/// However the flusher ends, those who have left their waiting to it learn of it.
struct EndOfWaits(Arc<Durable>);

impl Drop for EndOfWaits {
    fn drop(&mut self) {
        self.0.end_completions();
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        let _ = self.close();
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("geometry", self.ring.geometry())
            .field("options", &self.options)
            .field("watermarks", &self.ring.watermarks())
            .finish_non_exhaustive()
    }
}

fn random_id() -> std::io::Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(std::io::Error::from)?;
    Ok(id)
}

/// Superblock and first checkpoint slot of a new log.
pub(crate) fn new_header(geometry: Geometry, log_id: [u8; 16]) -> Vec<u8> {
    let created_unix_ms = files::unix_ms();
    let first = Lsn::new(u64::from(FIRST_RECORD));
    let checkpoint = Checkpoint {
        generation: 1,
        epoch_start: first,
        trimmed: first,
        durable: first,
        clean: true,
        written_unix_ms: created_unix_ms,
        ..Checkpoint::default()
    };
    let mut header = Superblock { log_id, geometry, created_unix_ms }.encode().into_vec();
    header.extend_from_slice(&checkpoint.encode(&log_id));
    debug_assert_eq!(header.len() as u64, 2 * PAGE_SIZE);
    header
}
