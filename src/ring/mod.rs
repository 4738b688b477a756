//! The ring: reserve, commit, publish. No lock, no syscall, no allocation between a reserve and
//! its commit.
//!
//! A record's life, and who may touch its bytes by what right:
//!
//! 1. *Free*: its segment is prepared, all its bytes are zero. Nobody touches them.
//! 2. *Claimed*: one `fetch_add` on the tail gave the range to one claimant (a [`Claim`]), who
//!    alone touches it. Its first store marks the commit word *claimed, n bytes*, so that a hole
//!    has a known length for whoever recovers the log.
//! 3. *Committed*: the owner's one release store of the commit word. From here on nobody writes
//!    the bytes, and whoever acquires the commit word may read them while a pin keeps the segment.
//! 4. *Published*: the contiguous committed prefix has moved past it.
//! 5. *Recycled*: below `trimmed`, no pin: the janitor zeroes the segment, which is rule 1 again.
//!
//! Watermarks, all positions, in this order always:
//! `trimmed <= durable <= published <= reserved <= writable <= trimmed + capacity` (with
//! [`Durability::None`](crate::Durability::None): `trimmed <= published`).
//!
//! | atomic | written by | ordering | hands over |
//! |---|---|---|---|
//! | tail | claimants, rotators, freezers | see `cursor` | the zeroed segment |
//! | commit word | its claimant | release | the record's bytes |
//! | `prepared` | janitor | release | the zeroed segment, to rotators and walkers |
//! | `published` | walkers, by CAS | release | all commits below it |
//! | `durable` | the one who syncs | release | nothing that memory holds; waiters acquire it |
//! | `trimmed` | janitor | release, then `fence(SeqCst)` | see `pins` |

mod claim;
mod cursor;
mod pins;
mod publish;
mod reservation;

use std::time::{Duration, Instant};

use crate::checksum::Seed;
use crate::error::SyncFailure;
use crate::geometry::Geometry;
use crate::layout::{Identity, RecordKind, Tag};
use crate::lsn::Lsn;
use crate::metrics::{Counters, count};
use crate::region::Region;
use crate::sync::{self, Atomic, AtomicBool, AtomicU64, CachePadded, Mutex, Ordering, fence, lock};
use crate::wait::{Doorbell, Snooze, TaskList, WaitList};

pub(crate) use claim::{Claim, Granted, Label, Refusal};
pub(crate) use cursor::{CLOSED, POISONED, SLEEPER, Tail};
pub(crate) use pins::PINS_MAX;
pub use reservation::Reservation;

use claim::Base;
use cursor::TailWord;
use pins::{PinSlot, Pins};

/// Where a ring starts: what recovery found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartPositions {
    pub(crate) trimmed: Lsn,
    /// Everything below is published and durable; the next record goes here.
    pub(crate) end: Lsn,
    /// Segments below this sequence are prepared.
    pub(crate) prepared: u64,
}

/// A consistent look at the watermarks, in bytes. Each is at most the next one (but `trimmed` may
/// pass `durable` in a log that promises no durability). The end of a segment's records and the
/// first record position of the next segment are one position, given as the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Everything below has been released.
    pub trimmed: Lsn,
    /// Everything below survives a power loss.
    pub durable: Lsn,
    /// Everything below is committed.
    pub published: Lsn,
    /// Everything below has an owner.
    pub reserved: Lsn,
    /// Everything below can be reserved without waiting for space.
    pub writable: Lsn,
}

/// The shared state of a log's producers, flushers, janitor and readers.
pub(crate) struct Ring {
    tail: CachePadded<TailWord>,
    region: Region,
    geometry: Geometry,
    identity: Identity,
    seed: Seed,
    data_label: Label,
    /// Where the active segment lies: a hint that takes arithmetic off the claim's path.
    active: CachePadded<AtomicU64>,
    prepared: CachePadded<AtomicU64>,
    published: CachePadded<Atomic<Lsn>>,
    durable: CachePadded<Atomic<Lsn>>,
    trimmed: CachePadded<Atomic<Lsn>>,
    pins: Pins,
    /// The end of a frozen log, and why it is frozen.
    frozen: Mutex<Frozen>,
    /// The oldest open reservation that a walk met, and when it was first met.
    hole: Mutex<Option<(Lsn, Instant)>>,
    /// Held from the claim of one of the log's own records to its commit.
    own_record: Mutex<()>,
    flusher_asleep: AtomicBool,
    finished: AtomicBool,
    /// Somebody sleeps until `durable` is raised (in persistent memory, where who raises it has
    /// nobody to hand over to).
    durable_watched: CachePadded<AtomicBool>,
    pub(crate) space_waiters: WaitList,
    pub(crate) tail_readers: WaitList,
    pub(crate) tail_tasks: TaskList,
    pub(crate) janitor_bell: Doorbell,
    pub(crate) flusher_bell: Doorbell,
    pub(crate) fault_taker: Snooze,
    /// Rung when a footer has been written, if somebody wants to know.
    pub(crate) footer_bell: Option<Doorbell>,
    pub(crate) counters: Counters,
}

#[derive(Default)]
struct Frozen {
    end: Option<Lsn>,
    failure: Option<SyncFailure>,
}

/// A pin could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinRefusal {
    /// The position is below `trimmed`.
    Trimmed,
    /// All slots are taken.
    NoSlot,
}

impl Ring {
    pub(crate) fn new(
        region: Region,
        geometry: Geometry,
        identity: Identity,
        start: StartPositions,
    ) -> Ring {
        let (sequence, offset) = geometry.split(start.end);
        let end = geometry.normalize(start.end);
        let seed = Seed::new(&identity.log_id, identity.epoch);
        let data_tag = Tag::new(0, RecordKind::Data, 0, identity.epoch);
        let data_label = Label::new(seed, data_tag);
        Ring {
            tail: CachePadded::new(TailWord::new(Tail::new(sequence, offset))),
            seed,
            data_label,
            active: CachePadded::new(AtomicU64::new(Base::pack(&geometry, sequence))),
            region,
            geometry,
            identity,
            prepared: CachePadded::new(AtomicU64::new(start.prepared)),
            published: CachePadded::new(Atomic::new(end)),
            durable: CachePadded::new(Atomic::new(end)),
            trimmed: CachePadded::new(Atomic::new(geometry.normalize(start.trimmed))),
            pins: Pins::new(),
            frozen: Mutex::new(Frozen::default()),
            hole: Mutex::new(None),
            own_record: sync::tried(()),
            flusher_asleep: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            durable_watched: CachePadded::new(AtomicBool::new(false)),
            space_waiters: WaitList::new(),
            tail_readers: WaitList::new(),
            tail_tasks: TaskList::new(),
            janitor_bell: Doorbell::new(),
            flusher_bell: Doorbell::new(),
            fault_taker: Snooze::new(),
            footer_bell: None,
            counters: Counters::new(),
        }
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The checksum seed of an epoch's records.
    pub(crate) fn seed(&self, epoch: u64) -> Seed {
        if epoch == self.identity.epoch {
            self.seed
        } else {
            Seed::new(&self.identity.log_id, epoch)
        }
    }

    /// Read from low to high: each only grows, so the chain holds in what is returned.
    pub(crate) fn watermarks(&self) -> Watermarks {
        Watermarks {
            trimmed: self.trimmed(),
            durable: self.durable(),
            published: self.published(),
            reserved: self.reserved(),
            writable: self.writable(),
        }
    }

    pub(crate) fn trimmed(&self) -> Lsn {
        // Acquire: a reader that finds itself trimmed reports what the trimmer saw.
        self.trimmed.load(Ordering::Acquire)
    }

    pub(crate) fn durable(&self) -> Lsn {
        // Acquire: pairs with `advance_durable`.
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn published(&self) -> Lsn {
        // Acquire: everything below is committed for whoever sees it.
        self.published.load(Ordering::Acquire)
    }

    /// The end of what is prepared.
    pub(crate) fn writable(&self) -> Lsn {
        let last = (self.prepared() - 1) as u32;
        self.geometry.normalize(self.geometry.lsn(last, self.geometry.record_end()))
    }

    /// Segments below this sequence are prepared.
    pub(crate) fn prepared(&self) -> u64 {
        // Acquire: takes over their zeroing from the janitor.
        self.prepared.load(Ordering::Acquire)
    }

    /// Where the next claim goes (an overshot tail counts as its segment's end).
    pub(crate) fn reserved(&self) -> Lsn {
        let tail = self.tail.load_settled();
        match tail.is_frozen().then(|| lock(&self.frozen).end).flatten() {
            Some(end) => end,
            None => self.position(tail),
        }
    }

    /// The sequence of the segment that is claimed from.
    pub(crate) fn active_sequence(&self) -> u32 {
        self.tail.load().sequence()
    }

    fn position(&self, tail: Tail) -> Lsn {
        let offset = tail.offset().min(self.geometry.record_end());
        self.geometry.normalize(self.geometry.lsn(tail.sequence(), offset))
    }

    /// Nothing more will be committed or become durable: the close has ended, or a sync failed.
    pub(crate) fn finish(&self) {
        // Release: a reader that sees it sees all that came before.
        self.finished.store(true, Ordering::Release);
        self.wake_tails();
    }

    /// Has the close ended?
    pub(crate) fn is_finished(&self) -> bool {
        // Acquire: pairs with `finish`.
        self.finished.load(Ordering::Acquire)
    }

    /// Stops all claims; returns the end of what was claimed before.
    pub(crate) fn freeze(&self, flag: u64, failure: Option<SyncFailure>) -> Lsn {
        let mut frozen = lock(&self.frozen);
        let before = self.tail.transition_set(flag);
        if frozen.failure.is_none() {
            frozen.failure = failure;
        }
        let end = *frozen.end.get_or_insert_with(|| self.position(before));
        drop(frozen);
        self.space_waiters.wake_all();
        self.wake_tails();
        end
    }

    /// Is the log closed or poisoned?
    pub(crate) fn is_frozen(&self) -> bool {
        self.tail.load().is_frozen()
    }

    /// The failed sync that poisoned the log, if one did.
    pub(crate) fn failure(&self) -> Option<SyncFailure> {
        if !self.is_frozen() {
            return None;
        }
        lock(&self.frozen).failure.clone()
    }

    /// Keeps `lsn` and everything above it from being recycled.
    pub(crate) fn pin(&self, lsn: Lsn, own: bool) -> Result<Pin<'_>, PinRefusal> {
        let slot = self.pins.try_pin(lsn, own).ok_or(PinRefusal::NoSlot)?;
        let pin = Pin { ring: self, slot };
        // The re-check of the pin protocol: after the store and the fence in `try_pin`.
        if lsn < self.trimmed() { Err(PinRefusal::Trimmed) } else { Ok(pin) }
    }

    /// One more pin, on `lsn`, which `held` covers: it needs no re-check (rule 5 of `pins`).
    pub(crate) fn pin_again<'a>(&'a self, held: &Pin<'_>, lsn: Lsn) -> Option<Pin<'a>> {
        debug_assert!(std::ptr::eq(held.ring, self));
        self.pins.try_pin(lsn, false).map(|slot| Pin { ring: self, slot })
    }

    /// The janitor announces that everything below `trimmed` may go. It is on the medium already.
    pub(crate) fn advance_trimmed(&self, trimmed: Lsn) {
        assert!(trimmed >= self.trimmed(), "trimmed only advances");
        assert!(trimmed <= self.published(), "nothing unpublished is trimmed");
        // Release, then the fence in `Pins::floor`, which comes before any recycling.
        self.trimmed.store(trimmed, Ordering::Release);
    }

    /// What may be recycled ends here: at `trimmed`, or at the lowest pin. With `held`, whoever
    /// lets go of a pin from now on rings the janitor.
    pub(crate) fn reclaim_limit(&self, held: bool) -> Lsn {
        // Relaxed: `floor` fences between this store and its look at the pins.
        self.pins.janitor_held.store(held, Ordering::Relaxed);
        let trimmed = self.trimmed();
        self.pins.floor().map_or(trimmed, |pinned| pinned.min(trimmed))
    }

    /// The lowest position that a reader has pinned.
    pub(crate) fn readers_pin_floor(&self) -> Option<Lsn> {
        self.pins.readers_floor()
    }

    /// The janitor has prepared one more segment.
    pub(crate) fn advance_prepared(&self, sequence: u32) {
        assert_eq!(u64::from(sequence), self.prepared(), "segments are prepared in order");
        // Release: hands the zeroing over to rotators and walkers.
        self.prepared.store(u64::from(sequence) + 1, Ordering::Release);
        self.space_waiters.wake_all();
    }

    /// Moves `durable` from `from` to `to`, which a finished sync of exactly that range has made
    /// true.
    pub(crate) fn advance_durable(&self, from: Lsn, to: Lsn) {
        assert!(from <= to && to <= self.published(), "only published records become durable");
        // Release: whoever sees it sees what the sync saw. One syncer at a time, so it stands.
        let moved = self.durable.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed);
        assert!(moved.is_ok(), "one sync at a time advances durable");
    }

    /// Raises `durable` to `to`; false if others had. All below `to` is on the medium, from where
    /// `durable` was when the caller looked: any number of threads may do this at the same time.
    pub(crate) fn raise_durable(&self, to: Lsn) -> bool {
        assert!(to <= self.published(), "only published records become durable");
        let mut from = self.durable();
        while from < to {
            // Release: whoever sees it sees what we saw when we wrote back.
            let raised =
                self.durable.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed);
            match raised {
                Ok(_) => return true,
                Err(now) => from = now,
            }
        }
        false
    }

    /// The calling thread has registered with one of the lists, and is going to sleep until
    /// `durable` is raised. It must look at that once more before it does.
    pub(crate) fn watch_durable(&self) {
        // Relaxed, then the fence: either we see `durable` raised, or whoever raises it, and then
        // fences, sees the flag. That it then finds us in the list is the list's lock's doing.
        self.durable_watched.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Does anybody sleep until `durable` is raised? The caller has raised it, and fenced. Who gets
    /// the answer yes wakes them all.
    pub(crate) fn take_durable_watched(&self) -> bool {
        // Relaxed: as in `watch_durable`. Looked at first, since there is hardly ever anybody.
        self.durable_watched.load(Ordering::Relaxed)
            && self.durable_watched.swap(false, Ordering::Relaxed)
    }

    /// As `publish`, for a caller who knows of a record at or before `lsn`: one of the log's own,
    /// claimed before it and not committed yet, is no reason to refuse the caller's, so it is
    /// waited for.
    pub(crate) fn publish_for(&self, lsn: Lsn) -> Lsn {
        let end = self.publish();
        if lsn <= end || lsn > self.reserved() {
            return end;
        }
        drop(lock(&self.own_record));
        self.publish()
    }

    /// One of the log's own records, claimed and not committed yet.
    #[cfg(test)]
    pub(crate) fn own_record_under_way(&self) -> (crate::sync::MutexGuard<'_, ()>, Claim) {
        let own = lock(&self.own_record);
        (own, self.try_claim(16).expect("there is room"))
    }

    /// The oldest open reservation that holds back publication, and since when it was seen to.
    pub(crate) fn hole(&self) -> Option<(Lsn, Duration)> {
        self.publish();
        let at = self.published();
        let mut hole = lock(&self.hole);
        if at >= self.reserved() {
            *hole = None;
            return None;
        }
        match *hole {
            Some((seen, since)) if seen == at => Some((at, sync::now() - since)),
            _ => {
                *hole = Some((at, sync::now()));
                Some((at, Duration::ZERO))
            }
        }
    }

    /// The flusher goes to sleep until something is claimed. The value before tells whether it
    /// may: claims that were open then will not wake it.
    pub(crate) fn announce_flusher_sleep(&self) -> Lsn {
        // Relaxed: the release in `transition_set` orders it before the flag.
        self.flusher_asleep.store(true, Ordering::Relaxed);
        self.position(self.tail.transition_set(SLEEPER))
    }

    /// As `announce_flusher_sleep`, for a tail reader that has registered with `tail_readers`.
    pub(crate) fn announce_reader_sleep(&self) -> Lsn {
        self.position(self.tail.transition_set(SLEEPER))
    }

    /// Wakes all who follow the log.
    pub(crate) fn wake_tails(&self) {
        self.tail_readers.wake_all();
        self.tail_tasks.wake_all();
    }

    /// A commit whose claim had found `SLEEPER`, or has crossed a line.
    #[cold]
    fn wake_sleepers(&self) {
        self.fault_taker.pass_by();
        // A claim that found the flag finds it again, or another has taken it and wakes.
        if self.tail.load().flags() & SLEEPER != 0 && self.tail.transition_clear_sleeper() {
            count(&self.counters.wakeups, 1);
            self.wake_tails();
            // Relaxed: the claim acquired the announcement; the bell hands over the rest.
            if self.flusher_asleep.swap(false, Ordering::Relaxed) {
                self.flusher_bell.ring();
            }
        }
    }
}

/// Keeps a position, and everything above it, from being recycled.
pub(crate) struct Pin<'a> {
    ring: &'a Ring,
    slot: PinSlot,
}

impl Pin<'_> {
    /// Lets go of what lies below `lsn`.
    pub(crate) fn advance(&self, lsn: Lsn) {
        if self.ring.pins.advance(self.slot, lsn) {
            self.ring.janitor_bell.ring();
        }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if self.ring.pins.unpin(self.slot) {
            self.ring.janitor_bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Simulated;
    use crate::simulation::{new_image, tiny};

    /// A new ring of which `prepared` segments are prepared, without threads.
    pub(super) fn ring(geometry: Geometry, prepared: u64) -> Ring {
        let region = Region::new(Simulated::new(new_image(geometry)));
        let identity = Identity { log_id: *b"a log under test", epoch: 1 };
        let end = geometry.first_record(0);
        Ring::new(region, geometry, identity, StartPositions { trimmed: end, end, prepared })
    }

    fn append(ring: &Ring) {
        ring.commit_pad(ring.try_claim(32).expect("there is room"));
    }

    #[test]
    fn all_that_is_prepared_can_be_written() {
        let geometry = tiny(3);
        assert_eq!(ring(geometry, 2).writable(), geometry.first_record(2));
    }

    #[test]
    fn one_of_two_who_wrote_the_same_back_has_raised_durable() {
        let ring = ring(tiny(3), 1);
        append(&ring);
        let to = ring.publish();
        ring.watch_durable();
        assert!(ring.raise_durable(to));
        assert!(!ring.raise_durable(to), "others had");
        assert!(ring.take_durable_watched(), "somebody sleeps");
        assert!(!ring.take_durable_watched(), "who has been woken");
    }

    #[test]
    fn a_sleeper_learns_what_was_claimed_and_is_woken_once_by_the_next_record() {
        let ring = ring(tiny(3), 1);
        append(&ring);
        let reader = ring.tail_readers.register(0);
        assert_eq!(ring.announce_reader_sleep(), ring.reserved());
        assert!(!reader.park_until(sync::now()));
        append(&ring);
        assert!(reader.park_until(sync::now()));
        assert!(!ring.flusher_bell.wait(Some(Duration::ZERO)), "it was awake");
        assert_eq!(ring.announce_flusher_sleep(), ring.reserved());
        append(&ring);
        assert!(ring.flusher_bell.wait(Some(Duration::ZERO)));
        let reader = ring.tail_readers.register(0);
        append(&ring);
        assert!(!reader.park_until(sync::now()), "nobody has announced a sleep");
    }
}
