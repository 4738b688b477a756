//! What the models in `loom-tests` are made of; there only under `cfg(wal_loom)`.
//!
//! A [`Log`] is the shipped ring, pins, janitor steps and durability over a modelled region of
//! two-page segments. Background threads are the models' own, so that each explores few of them.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::durability::Durable;
use crate::error::WaitError;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::{Checkpoint, Identity};
use crate::lsn::Lsn;
use crate::options::Options;
use crate::reader::{Position, Reader, Tail};
use crate::region::{Backing, Persist, Region, Syncer};
use crate::ring::{CLOSED, Refusal, Reservation, Ring, StartPositions};
use crate::segments::prepare::prepare_segment;
use crate::segments::{Janitor, SlotWriter};
use crate::sync::Arc;

const LOG_ID: [u8; 16] = *b"a log in a model";

/// A backing without memory: the modelled region has its own.
struct Nothing {
    len: u64,
}

// SAFETY: the modelled region asks for the length only; the address is never used.
unsafe impl Backing for Nothing {
    fn memory(&self) -> (NonNull<u8>, u64) {
        (NonNull::dangling(), self.len)
    }

    fn syncer(&self) -> io::Result<Syncer> {
        Ok(Box::new(Instant))
    }

    fn read_at(&self, _offset: u64, _bytes: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("a model has no file"))
    }

    fn redirty(&self, _range: Range<u64>) {}

    fn unmap_for_now(&self, _range: Range<u64>) {}

    fn prefault(&self, _range: Range<u64>) {}
}

/// Syncs at once, but lets others run meanwhile.
struct Instant;

impl Persist for Instant {
    fn persist(&mut self, _range: Range<u64>) -> io::Result<()> {
        crate::sync::yield_now();
        Ok(())
    }
}

/// A log under a model.
#[derive(Clone)]
pub struct Log {
    ring: Arc<Ring>,
    durable: Arc<Durable>,
}

impl Log {
    /// A ring of `segments` segments, of which the first `prepared` are prepared, whose tail stands
    /// `room` bytes before the end of the first.
    #[must_use]
    pub fn new(segments: u64, prepared: u32, room: u32) -> Log {
        let geometry = Geometry::checked(segments * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        let region = Region::new(Arc::new(Nothing { len: geometry.file_len() }));
        let identity = Identity { log_id: LOG_ID, epoch: 1 };
        let tail = geometry.file_offset(geometry.lsn(0, geometry.record_end() - room));
        region.touch(tail..tail + u64::from(room.min(192)));
        for sequence in 0..prepared {
            let start = geometry.segment_offset(sequence);
            region.touch(start..start + 192);
            // SAFETY: nothing else runs yet.
            unsafe { prepare_segment(&region, &geometry, &identity, sequence) };
        }
        let end = geometry.lsn(0, geometry.record_end() - room);
        let start = StartPositions { trimmed: end, end, prepared: u64::from(prepared) };
        let slots = SlotWriter::new(region.clone(), LOG_ID, Box::new(Instant), first(), 0);
        let ring = Arc::new(Ring::new(region, geometry, identity, start));
        let slots = Arc::new(slots);
        let options = Options::new();
        let janitor = Arc::new(Janitor::new(ring.clone(), slots.clone(), options));
        let durable = Durable::new(ring.clone(), slots, janitor, options, Box::new(Instant));
        Log { ring, durable: Arc::new(durable) }
    }

    /// Appends; `None` if the ring is full or closed.
    #[must_use]
    pub fn append(&self, payload: &[u8]) -> Option<Lsn> {
        self.try_append(payload).ok()
    }

    fn try_append(&self, payload: &[u8]) -> Result<Lsn, Refusal> {
        let prepared = self.ring.prepare(payload.len(), [payload]);
        let claim = self.ring.try_claim(prepared.aligned_len())?;
        Ok(self.ring.commit_parts(claim, prepared, [payload]))
    }

    /// Reserves; `None` if the ring is full or closed.
    #[must_use]
    pub fn reserve(&self, len: usize) -> Option<Reservation<'_>> {
        let claim_len = (len as u32 + 16).next_multiple_of(16);
        Some(self.ring.reservation(self.ring.try_claim(claim_len).ok()?, len))
    }

    /// Publishes what is committed.
    pub fn publish(&self) -> Lsn {
        self.ring.publish()
    }

    /// Everything that is published or committed, verified, from the oldest on.
    #[must_use]
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let mut reader = Reader::new(&self.ring, Position::Oldest).expect("a pin is free");
        let mut records = Vec::new();
        while let Some(record) = reader.next().expect("every record verifies") {
            records.push(record.payload().to_vec());
        }
        records
    }

    /// The record at `lsn`, if it is still retained.
    #[must_use]
    pub fn get(&self, lsn: Lsn) -> Option<Vec<u8>> {
        crate::reader::get(&self.ring, lsn).ok().map(|record| record.payload().to_vec())
    }

    /// A tail from the oldest record.
    #[must_use]
    pub fn tail(&self) -> Tail<'_> {
        Tail::new(&self.ring, Position::Oldest).expect("a pin is free")
    }

    /// The janitor's step: trims to `trimmed`, and prepares segment `sequence` if what its place
    /// held may go. Says whether it did.
    pub fn trim_and_prepare(&self, trimmed: Lsn, sequence: u32) -> bool {
        let geometry = self.ring.geometry();
        self.ring.advance_trimmed(trimmed);
        let victim = sequence - geometry.segments();
        if self.ring.reclaim_limit(false) < geometry.first_record(victim + 1) {
            return false;
        }
        // SAFETY: as in the janitor: the place's last use is below the reclaim limit.
        unsafe { prepare_segment(self.ring.region(), geometry, self.ring.identity(), sequence) };
        self.ring.advance_prepared(sequence);
        true
    }

    /// Closes the log; returns the end of what was claimed.
    pub fn close(&self) -> Lsn {
        self.ring.freeze(CLOSED, None)
    }

    /// Waits until `lsn` is durable.
    ///
    /// # Errors
    ///
    /// As [`Wal::wait_durable`](crate::Wal::wait_durable).
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), WaitError> {
        self.durable.wait(lsn + 1, None)
    }

    /// The durable watermark.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.ring.durable()
    }
}

fn first() -> Checkpoint {
    let first = Lsn::new(64);
    Checkpoint { epoch_start: first, trimmed: first, durable: first, ..Checkpoint::default() }
}
