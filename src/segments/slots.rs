//! Writing checkpoint slots.
//!
//! The two slots are written in turn, and one is synced before the other is touched, in every
//! durability mode: whatever a crash does to the slot being written, the other one is whole. A
//! failed write leaves the turn where it was, so the last good slot is never touched again.

use std::ops::Range;

use crate::error::SyncFailure;
use crate::files::unix_ms;
use crate::geometry::PAGE_SIZE;
use crate::layout::{CHECKPOINT_SLOT_OFFSETS, Checkpoint, LogId};
use crate::lsn::Lsn;
use crate::region::{Region, Syncer};
use crate::sync::{Arc, Mutex, lock};

struct Slots {
    /// The newest slot on the medium.
    current: Checkpoint,
    /// Which of the two it is in.
    index: usize,
    syncer: Syncer,
    /// A sync has failed, here or elsewhere, and the mark of it is written: nothing else is.
    failure: Option<SyncFailure>,
}

/// The one writer of both slots.
pub(crate) struct SlotWriter {
    region: Region,
    log_id: LogId,
    slots: Mutex<Slots>,
}

/// Syncs `range`, and says which it was if that fails.
pub(crate) fn persist(syncer: &Syncer, range: Range<u64>) -> Result<(), SyncFailure> {
    let Range { start, end } = range.clone();
    let synced = syncer.write_back(range).and_then(|()| syncer.fence());
    synced.map_err(|source| SyncFailure { start, end, source: Arc::new(source) })
}

impl SlotWriter {
    /// Goes on from `current`, which was read from slot `index`.
    pub(crate) fn new(
        region: Region,
        log_id: LogId,
        syncer: Syncer,
        current: Checkpoint,
        index: usize,
    ) -> SlotWriter {
        SlotWriter {
            region,
            log_id,
            slots: Mutex::new(Slots { current, index, syncer, failure: None }),
        }
    }

    /// The newest checkpoint on the medium.
    pub(crate) fn current(&self) -> Checkpoint {
        lock(&self.slots).current
    }

    /// What is proven durable by the newest slot.
    pub(crate) fn durable(&self) -> Lsn {
        self.current().durable
    }

    /// Makes sure that the slot that was read is on the medium: a process that was killed while it
    /// wrote it has left it in the cache alone. Tries twice, since the page is dirtied each time:
    /// the first error may be an old one of other pages, and before one slot is known to be whole,
    /// the other must not be touched, not even for the mark that a sync failed.
    pub(crate) fn confirm(&self) -> Result<(), SyncFailure> {
        let mut slots = lock(&self.slots);
        let start = CHECKPOINT_SLOT_OFFSETS[slots.index];
        let attempt = || {
            self.region.backing().redirty(start..start + PAGE_SIZE);
            persist(&slots.syncer, start..start + PAGE_SIZE)
        };
        let first = attempt();
        if first.is_err()
            && let Err(failure) = attempt()
        {
            slots.failure = Some(failure);
        }
        first
    }

    /// Writes the next slot, changed as `change` says; it is on the medium when this returns.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Checkpoint)) -> Result<(), SyncFailure> {
        let mut slots = lock(&self.slots);
        match &slots.failure {
            Some(failure) => Err(failure.clone()),
            None => self.write(&mut slots, change),
        }
    }

    fn write(
        &self,
        slots: &mut Slots,
        change: impl FnOnce(&mut Checkpoint),
    ) -> Result<(), SyncFailure> {
        let mut next = slots.current;
        change(&mut next);
        next.generation += 1;
        next.written_unix_ms = unix_ms();
        let index = 1 - slots.index;
        let start = CHECKPOINT_SLOT_OFFSETS[index];
        // SAFETY: slot pages are written here and nowhere else, under the lock, and read through
        // the file only.
        unsafe { self.region.write(start, &next.encode(&self.log_id)) };
        persist(&slots.syncer, start..start + PAGE_SIZE)?;
        slots.current = next;
        slots.index = index;
        Ok(())
    }

    /// Leaves a mark that a sync failed. It need not reach the medium: it is meant for an open on
    /// the same running system, where the page cache may show as clean what the disk lacks.
    pub(crate) fn mark_poisoned(&self, failure: SyncFailure) {
        let mut slots = lock(&self.slots);
        if slots.failure.is_none() {
            let _ = self.write(&mut slots, |next| next.poisoned = true);
            slots.failure = Some(failure);
        }
    }
}
