//! The log as its users see it: the parts of the lower floors, wired together.

use std::io::IoSlice;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::durability::{Durable, DurableFuture};
use crate::error::{
    AppendError, CheckpointError, CloseError, CreateError, Error, OpenError, PathError, ReadError,
    SyncFailure, WaitError,
};
use crate::files::{self, DirectoryLock, RingFile, file_error};
use crate::geometry::{FIRST_RECORD, Geometry, PAGE_SIZE, RECORD_HEADER_LEN};
use crate::layout::checkpoint::Boot;
use crate::layout::record::aligned_len;
use crate::layout::{Checkpoint, Identity, Superblock};
use crate::lsn::Lsn;
use crate::metrics::{Metrics, count};
use crate::options::{OnFull, Options, Persistence};
use crate::reader::{self, PinnedRecord, Position, Reader, Tail};
use crate::recovery::{self, Head, RecoveryOutcome, RecoveryReport};
use crate::region::{self, MapError, Region, Syncer};
use crate::ring::{
    CLOSED, Granted, Prepared, Refusal, Reservation, Ring, StartPositions, Watermarks,
};
use crate::segments::{FaultTaker, Janitor, SlotWriter};
use crate::sync::{self, Arc, JoinHandle, Mutex, lock};

/// While space may become free by itself, a producer looks again this often.
const SPACE_NAP: Duration = Duration::from_millis(1);

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
    pub(crate) durable: Arc<Durable>,
    pub(crate) janitor: Arc<Janitor>,
    faults: Option<Arc<FaultTaker>>,
    slots: Arc<SlotWriter>,
    options: Options,
    report: RecoveryReport,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How the close ended, once it has.
    closed: Mutex<Option<Result<(), CloseError>>>,
    /// Released last.
    _lock: Option<DirectoryLock>,
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
        let log_id = random_id()
            .map_err(|source| PathError::File(file_error("draw a random id for", dir)(source)))?;
        files::create_ring(dir, &new_header(geometry, log_id), &geometry)
            .map_err(PathError::File)?;
        Ok(Wal::open_locked(dir, options, lock)?)
    }

    /// Opens the log in directory `dir`, recovering it if it was not closed in order.
    ///
    /// All that is retained is verified, and synced if that was not proven, before the log is
    /// returned: [`recovery_report`](Wal::recovery_report) says what was found.
    ///
    /// While the log is open its ring file is mapped. If someone cuts that file short meanwhile, or
    /// its disk has a bad block, the next access to what is missing is a SIGBUS, which ends the
    /// process unless it handles the signal; until the open has verified everything, it is an
    /// error. Nobody may remove the file `lock` either while the log is open: that would let a
    /// second process write to it.
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
        let wal = Wal::recover(region, &head, boot, options, Some(lock), &path)?;
        wal.spawn_threads().map_err(file_error("start a thread for", &path))?;
        Ok(wal)
    }

    /// Recovers the log in `region`; its threads have not started.
    pub(crate) fn recover(
        region: Region,
        head: &Head,
        boot: Boot,
        options: Options,
        lock: Option<DirectoryLock>,
        path: &Path,
    ) -> Result<Wal, OpenError> {
        let (recovered, slots) = recovery::recover(&region, head, boot)
            .map_err(|refusal| recovery::refusal_error(path, refusal))?;
        // The segment that goes on: all that recovery has changed in it is on the medium.
        let active = head.geometry.segment_offset(head.geometry.sequence(recovered.end));
        region.backing().evict(active..active + head.geometry.segment_size());
        let syncer = region.backing().syncer().map_err(file_error("open", path))?;
        let identity = Identity { log_id: head.log_id, epoch: recovered.epoch };
        let start = StartPositions {
            trimmed: recovered.trimmed,
            end: recovered.end,
            prepared: u64::from(head.geometry.sequence(recovered.end)) + 1,
        };
        let ring = Arc::new(Ring::new(region, head.geometry, identity, start));
        ring.open_epoch();
        Ok(Wal::assemble(ring, slots, syncer, options, recovered.report, lock))
    }

    /// Puts a log together; its threads do not run yet.
    pub(crate) fn assemble(
        ring: Arc<Ring>,
        slots: SlotWriter,
        syncer: Syncer,
        options: Options,
        report: RecoveryReport,
        lock: Option<DirectoryLock>,
    ) -> Wal {
        let slots = Arc::new(slots);
        let reopened = report.outcome != RecoveryOutcome::New;
        let faults = ring.region().backing().has_page_faults();
        let faults = faults.then(|| Arc::new(FaultTaker::new(ring.clone())));
        let janitor = Arc::new(Janitor::new(ring.clone(), slots.clone(), options, reopened));
        let durable = Durable::new(ring.clone(), slots.clone(), janitor.clone(), options, syncer);
        Wal {
            ring,
            durable: Arc::new(durable),
            janitor,
            faults,
            slots,
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
    /// [`OnFull`] policy. A claim that did not fit in the active segment has sealed it: records
    /// do not straddle segments, and a smaller one does not go where a larger one did not.
    #[inline]
    pub fn try_reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        let claim_len = self.claim_len(len)?;
        match self.ring.try_claim(claim_len) {
            Ok(claim) => Ok(self.ring.reservation(claim, len)),
            Err(refusal) => Err(self.append_error(refusal)),
        }
    }

    /// Reserves space for a payload of `len` bytes. On a full ring it does what the [`OnFull`]
    /// policy says; waiting has no limit.
    ///
    /// # Errors
    ///
    /// [`AppendError::HeldBack`] if an open reservation (perhaps the caller's own) keeps the oldest
    /// segment from being released for longer than [`Options::hole_age_max`].
    #[inline]
    pub fn reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        let claim_len = self.claim_len(len)?;
        let base = self.ring.active_base();
        let granted = self.grant(claim_len, None)?;
        Ok(self.ring.reservation(self.ring.claim_at(base, granted, claim_len), len))
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
        let claim_len = self.claim_len(len)?;
        let base = self.ring.active_base();
        let granted = self.grant(claim_len, Some(deadline))?;
        Ok(self.ring.reservation(self.ring.claim_at(base, granted, claim_len), len))
    }

    /// Appends a record; returns its LSN. It is committed, so it survives the death of this
    /// process; to survive a power loss it must become [durable](Wal::wait_durable).
    ///
    /// # Errors
    ///
    /// As [`reserve`](Wal::reserve).
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        let claim_len = self.claim_len(payload.len())?;
        // One look at the `Arc`: the claim is a barrier for the compiler.
        let ring = &*self.ring;
        let base = ring.active_base();
        let prepared = ring.prepare(payload.len(), [payload]);
        debug_assert_eq!(prepared.aligned_len(), claim_len);
        let granted = match ring.try_grant(claim_len) {
            Ok(granted) => granted,
            Err(refusal) => self.grant_waiting(claim_len, refusal, None)?,
        };
        let claim = ring.claim_at(base, granted, claim_len);
        Ok(ring.commit_parts(claim, prepared, [payload]))
    }

    /// Appends one record whose payload is the concatenation of `parts`.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Wal::reserve).
    pub fn append_vectored(&self, parts: &[IoSlice<'_>]) -> Result<Lsn, AppendError> {
        let len = parts.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
        let claim_len = self.claim_len(len)?;
        let prepared: Prepared = self.ring.prepare(len, parts.iter().map(|part| &**part));
        let base = self.ring.active_base();
        let granted = self.grant(claim_len, None)?;
        let claim = self.ring.claim_at(base, granted, claim_len);
        Ok(self.ring.commit_parts(claim, prepared, parts.iter().map(|part| &**part)))
    }

    /// Appends a record and waits until it survives a power loss.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Wal::append); those of [`wait_durable`](Wal::wait_durable), after which
    /// the record is in the log but may be lost.
    pub fn append_durable(&self, payload: &[u8]) -> Result<Lsn, Error> {
        let lsn = self.append(payload)?;
        let len = aligned_len((payload.len() + RECORD_HEADER_LEN) as u32);
        self.durable.wait_own(lsn, self.ring.geometry().normalize(lsn + u64::from(len)))?;
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
    /// It is called exactly once: before this returns if the outcome is known by then, else by the
    /// log's flusher, which leads the next sync only when it has returned. So it should be short,
    /// and must not wait for space in this log. A panic in it is caught.
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
    /// [`CheckpointError::Poisoned`] if a sync failed, now or before.
    pub fn sync_checkpoint(&self) -> Result<Lsn, CheckpointError> {
        if let Some(failure) = self.ring.failure() {
            return Err(CheckpointError::Poisoned(failure));
        }
        self.janitor.persist_trim().map_err(|failure| {
            self.durable.poison(failure.clone());
            CheckpointError::Poisoned(failure)
        })
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
    /// [`CloseError::Poisoned`] if a sync failed, now or before. The log is closed all the same.
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
        let result = result.and_then(|()| self.leave_clean_mark(end));
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
        let requested = self.janitor.requested().min(end);
        self.slots
            .update(|next| {
                next.trimmed = next.trimmed.max(requested);
                next.durable = end;
                next.clean = true;
            })
            .map_err(|failure: SyncFailure| CloseError::Poisoned(failure))
    }

    /// The space that a payload of `len` bytes takes.
    #[inline]
    fn claim_len(&self, len: usize) -> Result<u32, AppendError> {
        let max = self.ring.geometry().payload_len_max();
        if len > max {
            return Err(AppendError::TooLarge { len, max });
        }
        Ok(aligned_len((len + RECORD_HEADER_LEN) as u32))
    }

    #[inline]
    fn grant(&self, len: u32, deadline: Option<Instant>) -> Result<Granted, AppendError> {
        match self.ring.try_grant(len) {
            Ok(granted) => Ok(granted),
            Err(refusal) => self.grant_waiting(len, refusal, deadline),
        }
    }

    /// The ring was full: does what the policy says.
    #[cold]
    #[inline(never)]
    fn grant_waiting(
        &self,
        len: u32,
        mut refusal: Refusal,
        deadline: Option<Instant>,
    ) -> Result<Granted, AppendError> {
        let mut since = sync::now();
        loop {
            // In this order: a segment that became free after the look is found by the claim.
            let progress = self.janitor.can_progress();
            let waiter = self.ring.space_waiters.register(0);
            if refusal == Refusal::Full {
                match self.ring.try_grant(len) {
                    Ok(granted) => break Ok(granted),
                    Err(again) => refusal = again,
                }
            }
            if refusal != Refusal::Full || (self.options.on_full == OnFull::Fail && !progress) {
                break Err(self.append_error(refusal));
            }
            if let Err(error) = self.check_patience(deadline) {
                break Err(error);
            }
            let nap = if progress { SPACE_NAP } else { self.options.hole_age_max };
            let until = sync::now() + nap;
            waiter.park_until(deadline.map_or(until, |deadline| deadline.min(until)));
            let counters = &self.ring.counters;
            let waited =
                if progress { &counters.prepare_wait_nanos } else { &counters.full_wait_nanos };
            let now = sync::now();
            count(waited, (now - since).as_nanos() as u64);
            since = now;
        }
    }

    /// Ends a wait for space that has lasted too long, with the reason.
    fn check_patience(&self, deadline: Option<Instant>) -> Result<(), AppendError> {
        let over = deadline.is_some_and(|deadline| sync::now() >= deadline);
        if let Some(end) = self.janitor.victim_end()
            && let Some((lsn, age)) = self.ring.hole()
            && lsn < end
            && (over || (deadline.is_none() && age >= self.options.hole_age_max))
        {
            return Err(AppendError::HeldBack { lsn, age });
        }
        if over { Err(self.append_error(Refusal::Full)) } else { Ok(()) }
    }

    #[cold]
    fn append_error(&self, refusal: Refusal) -> AppendError {
        match refusal {
            Refusal::Exhausted => AppendError::Exhausted,
            Refusal::Frozen => match self.ring.failure() {
                Some(failure) => AppendError::Poisoned(failure),
                None => AppendError::Closed,
            },
            Refusal::Full => {
                let trimmed = self.ring.trimmed();
                AppendError::Full {
                    trimmed,
                    retained: self.ring.reserved() - trimmed,
                    capacity: self.ring.geometry().capacity(),
                }
            }
        }
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
