//! What the models in `loom-tests` are made of; there only under `cfg(wal_loom)` and
//! `cfg(wal_shuttle)`.
//!
//! A [`Log`] is a shipped [`Wal`] over a modelled region of two-page segments. Its background
//! threads run only where a model starts them, so that each explores few; or a model does their
//! steps by hand.

use std::io;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::time::Duration;

use crate::durability::{DurableFuture, FlushGoal};
use crate::geometry::{FIRST_RECORD, Geometry, PAGE_SIZE};
use crate::layout::record::{WordState, aligned_len, record_crc};
use crate::layout::{Checkpoint, CommitWord, Identity, Tag};
use crate::lsn::Lsn;
use crate::options::{Options, Persistence};
use crate::reader::{Position, Tail};
use crate::recovery::RecoveryReport;
use crate::region::{Backing, Persist, Region, Syncer};
use crate::ring::{CLOSED, Refusal, Ring, StartPositions, Watermarks};
use crate::segments::SlotWriter;
use crate::segments::prepare::prepare_segment;
use crate::stream::Stream;
use crate::stream_id::StreamId;
use crate::sync::{
    self, Arc, AtomicU64, JoinHandle, Ordering, ProcessMutex, ThreadId, fence, lock_process,
};
use crate::wal::{Kept, Wal};

const LOG_ID: [u8; 16] = *b"a log in a model";
/// So many bytes of each segment can be shared by threads: what models write must fit.
const TOUCHED: u64 = 256;

/// What a disk in persistent memory does when a line is written back: it reads.
type ReadBack = Arc<dyn Fn(Range<u64>) + Send + Sync>;

/// A disk, or persistent memory.
struct Disk {
    len: u64,
    persistence: Persistence,
    read_back: ProcessMutex<Option<ReadBack>>,
    /// What a thread has begun to write back, and not fenced.
    begun: ProcessMutex<Vec<(ThreadId, Range<u64>)>>,
    /// Its syncs and looks at them, counted, so that a checker tries them in every order.
    accesses: AtomicU64,
    /// What has been synced, and whether syncs of records fail from now on.
    state: ProcessMutex<(Vec<Range<u64>>, bool)>,
}

// SAFETY: the modelled region asks for the length only; the address is never used.
unsafe impl Backing for Arc<Disk> {
    fn memory(&self) -> (NonNull<u8>, u64) {
        (NonNull::dangling(), self.len)
    }

    fn persistence(&self) -> Persistence {
        self.persistence
    }

    fn syncer(&self) -> io::Result<Syncer> {
        Ok(Box::new(DiskSyncer(self.clone())))
    }

    fn read_at(&self, _offset: u64, _bytes: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("a model has no file"))
    }

    fn redirty(&self, _range: Range<u64>) {}

    fn unmap_for_now(&self, _range: Range<u64>) {}

    fn prefault(&self, _range: Range<u64>) {}
}

impl Disk {
    /// Relaxed: it orders nothing.
    fn access(&self) {
        self.accesses.fetch_add(1, Ordering::Relaxed);
    }
}

struct DiskSyncer(Arc<Disk>);

impl Persist for DiskSyncer {
    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        self.0.access();
        let mut state = lock_process(&self.0.state);
        if state.1 && range.start >= 3 * PAGE_SIZE {
            return Err(io::Error::other("the modelled disk fails"));
        }
        if self.0.persistence == Persistence::PageCache {
            state.0.push(range);
            return Ok(());
        }
        drop(state);
        // Who has not acquired what it writes back races with those who wrote it.
        let read_back = lock_process(&self.0.read_back).clone();
        read_back.expect("set when the log was made")(range.clone());
        lock_process(&self.0.begun).push((sync::current().id(), range));
        Ok(())
    }

    fn fence(&self) -> io::Result<()> {
        self.0.access();
        let thread = sync::current().id();
        let mut begun = lock_process(&self.0.begun);
        let mut state = lock_process(&self.0.state);
        begun.retain(|(by, range)| {
            if *by == thread {
                state.0.push(range.clone());
            }
            *by != thread
        });
        Ok(())
    }
}

/// A log under a model. It is not closed when its last handle goes.
#[derive(Clone)]
pub struct Log {
    wal: Arc<Modelled>,
    disk: Arc<Disk>,
}

struct Modelled(Wal);

impl Drop for Modelled {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The shipped interface.
impl Deref for Log {
    type Target = Wal;

    fn deref(&self) -> &Wal {
        &self.wal.0
    }
}

impl Log {
    /// A ring of `segments` segments, of which the first `prepared` are prepared, whose tail stands
    /// `room` bytes before the end of the first.
    #[must_use]
    pub fn new(segments: u64, prepared: u32, room: u32) -> Log {
        Log::with_options(segments, prepared, room, Options::new())
    }

    /// As `new`, with options.
    #[must_use]
    pub fn with_options(segments: u64, prepared: u32, room: u32, options: Options) -> Log {
        let options = options.persistence(Persistence::PageCache);
        Log::assemble(segments, prepared, room, options)
    }

    /// As `new`, in persistent memory. Whoever opens the log has left evidence.
    #[must_use]
    pub fn in_memory(segments: u64, prepared: u32, room: u32) -> Log {
        let options = Options::new().persistence(Persistence::PersistentMemory);
        Log::assemble(segments, prepared, room, options)
    }

    fn assemble(segments: u64, prepared: u32, room: u32, options: Options) -> Log {
        let geometry = Geometry::checked(segments * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        let disk = Arc::new(Disk {
            len: geometry.file_len(),
            persistence: options.persistence,
            read_back: ProcessMutex::default(),
            begun: ProcessMutex::default(),
            accesses: AtomicU64::new(0),
            state: ProcessMutex::default(),
        });
        let region = Region::new(Arc::new(disk.clone()));
        *lock_process(&disk.read_back) = Some(region.read_back());
        let identity = Identity { log_id: LOG_ID, epoch: 1 };
        let end = geometry.lsn(0, geometry.record_end() - room);
        let tail = geometry.file_offset(end);
        region.touch(tail..tail + u64::from(room).min(TOUCHED));
        for sequence in 0..segments as u32 {
            let start = geometry.segment_offset(sequence);
            region.touch(start..start + TOUCHED);
        }
        for sequence in 0..prepared {
            // SAFETY: nothing else runs yet.
            unsafe { prepare_segment(&region, &geometry, &identity, sequence, || true) };
        }
        let start = StartPositions { trimmed: end, end, prepared: u64::from(prepared) };
        let first = Lsn::new(u64::from(FIRST_RECORD));
        let checkpoint = Checkpoint {
            epoch_start: first,
            trimmed: first,
            durable: end,
            ..Checkpoint::default()
        };
        let syncer = || region.backing().syncer().expect("a modelled disk opens");
        let slots = SlotWriter::new(region.clone(), LOG_ID, syncer(), checkpoint, 0);
        let syncer = syncer();
        let ring = Arc::new(Ring::new(region, geometry, identity, start));
        let report = RecoveryReport::default();
        let wal = Wal::assemble(ring, slots, syncer, options, report, None, Kept::default());
        Log { wal: Arc::new(Modelled(wal)), disk }
    }

    /// Starts the janitor and the flusher, which end with the close.
    pub fn start_threads(&self) {
        self.spawn_threads().expect("a model spawns threads");
    }

    /// Starts the janitor alone.
    #[must_use]
    pub fn start_janitor(&self) -> JoinHandle<()> {
        let log = self.clone();
        // What rang before has been seen to: it begins with a pass, and then sleeps.
        self.ring.janitor_bell.wait(Some(Duration::ZERO));
        sync::spawn("", move || log.janitor.run(|failure| log.durable.poison(failure)))
            .expect("a model spawns threads")
    }

    /// Ends the janitor that `start_janitor` started.
    pub fn stop_janitor(&self) {
        self.janitor.stop();
    }

    /// Asks for a trim, as a checkpoint does once it has found its position.
    pub fn request_trim(&self, lsn: Lsn) {
        self.janitor.request(lsn);
    }

    /// From now on, syncs of records fail.
    pub fn break_disk(&self) {
        lock_process(&self.disk.state).1 = true;
    }

    /// Has `lsn` been synced?
    #[must_use]
    pub fn is_synced(&self, lsn: Lsn) -> bool {
        let offset = self.ring.geometry().file_offset(lsn);
        self.disk.access();
        lock_process(&self.disk.state).0.iter().any(|range| range.contains(&offset))
    }

    /// Appends, with one claim and no wait; `None` if the ring is full or closed.
    #[must_use]
    pub fn append_once(&self, payload: &[u8]) -> Option<Lsn> {
        self.claim_and_commit(payload).ok()
    }

    fn claim_and_commit(&self, payload: &[u8]) -> Result<Lsn, Refusal> {
        let prepared = self.ring.prepare(&self.ring.data_label(), payload.len(), [payload]);
        let claim = self.ring.try_claim(prepared.aligned_len())?;
        Ok(self.ring.commit_parts(claim, prepared, [payload]))
    }

    /// Fills up with a pad the segment that the tail stands in, `room` bytes before its end.
    pub fn fill_segment(&self, room: u32) {
        self.try_reserve(room as usize - 16).expect("there is room").abort();
    }

    /// Syncs what is committed, as the flusher does at its interval.
    pub fn sync_published(&self) {
        self.durable.flush(FlushGoal::Published).expect("the disk takes it");
    }

    /// From now on the log has `known` streams, of which these are under version control.
    pub fn announce_streams(&self, known: u32, versioned: &[u32]) {
        let versioned = versioned.iter().copied().filter_map(StreamId::new);
        self.parts().streams.pretend(versioned, known);
    }

    /// A handle to a stream that has been announced.
    ///
    /// # Panics
    ///
    /// If `id` is 0.
    #[must_use]
    pub fn stream_of(&self, id: u32, is_versioned: bool) -> Stream<'_> {
        let id = StreamId::new(id).expect("stream ids begin at 1");
        self.parts().handle(id, is_versioned).expect("every record verifies")
    }

    /// The newest published record of each stream under version control, as whoever is about to
    /// release records asks for it.
    #[must_use]
    pub fn last_records(&self) -> Vec<Lsn> {
        let records = self.parts().streams.last_records().expect("every record verifies");
        records.into_iter().map(|(_, lsn)| lsn).collect()
    }

    /// Publishes what is committed.
    pub fn publish(&self) -> Lsn {
        self.ring.publish()
    }

    /// The watermarks as they stand.
    #[must_use]
    pub fn look(&self) -> Watermarks {
        self.ring.watermarks()
    }

    /// The durable watermark.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.ring.durable()
    }

    /// The published watermark.
    #[must_use]
    pub fn published(&self) -> Lsn {
        self.ring.published()
    }

    /// The first record position of segment `sequence`.
    #[must_use]
    pub fn segment_start(&self, sequence: u32) -> Lsn {
        self.ring.geometry().first_record(sequence)
    }

    /// Is segment `sequence` prepared?
    #[must_use]
    pub fn is_prepared(&self, sequence: u32) -> bool {
        self.ring.prepared() > u64::from(sequence)
    }

    /// Everything that is published or committed, verified, from the oldest on.
    #[must_use]
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let mut reader = self.reader(Position::Oldest).expect("a pin is free");
        let mut records = Vec::new();
        while let Some(record) = reader.next().expect("every record verifies") {
            records.push(record.payload().to_vec());
        }
        records
    }

    /// The record at `lsn`, if it is still retained.
    #[must_use]
    pub fn read(&self, lsn: Lsn) -> Option<Vec<u8>> {
        self.get(lsn).ok().map(|record| record.payload().to_vec())
    }

    /// A tail from the oldest record.
    #[must_use]
    pub fn follow(&self) -> Tail<'_> {
        self.tail(Position::Oldest).expect("a pin is free")
    }

    /// What a disk would get of `[from, to)`, a part of one segment: reads without acquiring a
    /// single commit word. Whoever was told that it is published, or durable, may do so.
    ///
    /// # Panics
    ///
    /// If there is anything but whole records.
    #[must_use]
    pub fn image(&self, from: Lsn, to: Lsn) -> Vec<Vec<u8>> {
        let (region, geometry) = (self.ring.region(), self.ring.geometry());
        let (mut at, mut records) = (from, Vec::new());
        while at < to {
            let offset = geometry.file_offset(at);
            let (_, in_segment) = geometry.split(at);
            // Relaxed: the caller was told that all is there.
            let word = CommitWord::from_bits(region.word(offset).load(Ordering::Relaxed));
            let tag = Tag::from_bits(region.word(offset + 8).load(Ordering::Relaxed));
            let WordState::Committed(len) = word.state(geometry.record_end() - in_segment) else {
                panic!("no record at {at}, below {to}");
            };
            // SAFETY: committed, as the caller was told; and nobody trims in models that ask.
            let payload = unsafe { region.bytes(offset + 16, len as usize - 16) };
            if tag.is_callers() {
                let crc = record_crc(self.ring.seed(1), tag, len, payload, at);
                assert_eq!(crc, word.crc(), "the record at {at} verifies");
                records.push(payload.to_vec());
            }
            at = at + u64::from(aligned_len(len));
        }
        records
    }

    /// What a process that copies the file sees: the sequence word of ring slot `slot` and the
    /// commit word at `offset` in it, if the sequence word was the same before and after.
    #[must_use]
    pub fn observe(&self, slot: u32, offset: u64) -> Option<(u64, u64)> {
        let (region, start) = (self.ring.region(), self.ring.geometry().slot_offset(slot));
        let before = region.peek(start).load(Ordering::Acquire);
        let word = region.peek(start + offset).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let after = region.peek(start).load(Ordering::Relaxed);
        (before == after).then_some((before, word))
    }

    /// The janitor's step by hand: trims to `trimmed`, and prepares segment `sequence` if what its
    /// place held may go. Says whether it did.
    pub fn trim_and_prepare(&self, trimmed: Lsn, sequence: u32) -> bool {
        let geometry = self.ring.geometry();
        self.ring.advance_trimmed(trimmed);
        let victim = sequence.checked_sub(geometry.segments());
        if let Some(victim) = victim
            && self.ring.reclaim_limit(false) < geometry.first_record(victim + 1)
        {
            return false;
        }
        // SAFETY: as in the janitor: the place's last use is below the reclaim limit.
        unsafe {
            prepare_segment(self.ring.region(), geometry, self.ring.identity(), sequence, || true)
        };
        self.ring.advance_prepared(sequence);
        true
    }

    /// What the flusher does between two sleeps.
    pub fn pass_as_flusher(&self) {
        self.durable.pass().expect("the disk takes it");
    }

    /// A task's wait for durability. (`durable` is the watermark here.)
    pub fn until_durable(&self, lsn: Lsn) -> DurableFuture<'_> {
        self.wal.0.durable(lsn)
    }

    /// The flusher, from one ring to the next: leads for tasks and callbacks.
    pub fn lead_once_rung(&self) {
        self.ring.flusher_bell.wait(None);
        self.durable.lead_for_completions().expect("the disk takes it");
    }

    /// The flusher ends.
    pub fn end_completions(&self) {
        self.durable.end_completions();
    }

    /// Sleeps until segment `sequence` is prepared.
    pub fn wait_prepared(&self, sequence: u32) {
        let never = sync::now() + Duration::from_secs(3600);
        loop {
            let waiter = self.ring.space_waiters.register(0);
            if self.is_prepared(sequence) {
                return;
            }
            waiter.park_until(never);
        }
    }

    /// Sleeps once as the flusher does. Timers have run out by then; a sleep without one lasts
    /// until it is rung. Says which it was.
    pub fn nap_as_flusher(&self) -> Option<Duration> {
        let nap = self.durable.nap();
        if nap.is_none() {
            self.ring.flusher_bell.wait(None);
        }
        nap
    }

    /// The end of a close, if others have synced by now all that was claimed.
    pub fn finish_if_settled(&self) {
        let end = self.ring.freeze(CLOSED, None);
        if self.durable.is_settled(end) {
            self.ring.finish();
        }
    }

    /// As after a sync that failed.
    pub fn poison(&self) {
        let source = Arc::new(io::Error::other("a model's failure"));
        self.durable.poison(crate::error::SyncFailure { start: 0, end: 0, source });
    }
}
