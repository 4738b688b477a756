//! Producing: from a payload to a committed record, and what happens when the ring is full.

use std::time::{Duration, Instant};

use crate::error::AppendError;
use crate::geometry::RECORD_HEADER_LEN;
use crate::layout::batch::{entry_space, write_entry};
use crate::layout::record::aligned_len;
use crate::layout::stamp::{STAMP_LEN, STAMPED, Stamp};
use crate::layout::{Entry, RecordKind};
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::options::{OnFull, Options};
use crate::ring::{Granted, Label, Refusal, Reservation, Ring};
use crate::segments::Janitor;
use crate::stream_id::StreamId;
use crate::sync::{self, Arc};

/// While space may become free by itself, a producer looks again this often.
const SPACE_NAP: Duration = Duration::from_millis(1);

/// While nothing may be released, a producer has it tried again this often.
const REFUSAL_NAP: Duration = Duration::from_millis(50);

/// What is said of an iterator whose clone is none. The batch is given up.
const UNSTEADY: &str = "the entries of a batch differed from one look to the next";

/// A batch is short up to this length, in bytes.
const SHORT_BATCH: usize = 1 << 10;

/// Fills `room`, which is zero, with `stamp` and then `entries`.
fn write_stamped<'e>(room: &mut [u8], stamp: &[u8], entries: impl Iterator<Item = Entry<'e>>) {
    let (front, room) = room.split_at_mut(stamp.len());
    front.copy_from_slice(stamp);
    write_entries(room, entries);
}

/// Writes a batch to `room`, which is as long as `measure` said, and zero.
fn write_entries<'e>(room: &mut [u8], entries: impl Iterator<Item = Entry<'e>>) {
    let mut room = room;
    for entry in entries {
        assert!(room.len() >= entry_space(entry.payload.len()), "{UNSTEADY}");
        room = write_entry(room, entry);
    }
    assert!(room.is_empty(), "{UNSTEADY}");
}

/// The length of a batch's payload in bytes, and the stream of all its entries, if they have one.
/// `None` if there are no entries.
fn measure<'e>(mut entries: impl Iterator<Item = Entry<'e>>) -> Option<(usize, Option<StreamId>)> {
    let first = entries.next()?;
    let (mut len, mut stream) = (entry_space(first.payload.len()), first.stream);
    for entry in entries {
        len = len.saturating_add(entry_space(entry.payload.len()));
        if entry.stream != stream {
            stream = None;
        }
    }
    Some((len, stream))
}

/// Appends to a ring, and waits for space as the options say.
pub(crate) struct Producer {
    ring: Arc<Ring>,
    janitor: Arc<Janitor>,
    options: Options,
}

impl Producer {
    pub(crate) fn new(ring: Arc<Ring>, janitor: Arc<Janitor>, options: Options) -> Producer {
        Producer { ring, janitor, options }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// How old a hole may become before whoever is held back by it gives up.
    pub(crate) fn patience(&self) -> Duration {
        self.options.hole_age_max
    }

    /// Reserves space for a payload of `len` bytes, if there is any prepared.
    #[inline]
    pub(crate) fn try_reserve(
        &self,
        label: Label,
        len: usize,
    ) -> Result<Reservation<'_>, AppendError> {
        let claim_len = self.claim_len(len)?;
        match self.ring.try_claim(claim_len) {
            Ok(claim) => Ok(self.ring.reservation(claim, label, len)),
            Err(refusal) => Err(self.append_error(refusal)),
        }
    }

    /// Reserves space for a payload of `len` bytes, waiting for it as the options say, but no
    /// longer than until `deadline`.
    #[inline]
    pub(crate) fn reserve(
        &self,
        label: Label,
        len: usize,
        deadline: Option<Instant>,
    ) -> Result<Reservation<'_>, AppendError> {
        let claim_len = self.claim_len(len)?;
        let base = self.ring.active_base();
        let granted = self.grant(claim_len, deadline)?;
        let claim = self.ring.claim_at(base, granted, claim_len);
        Ok(self.ring.reservation(claim, label, len))
    }

    /// Appends a record.
    #[inline]
    pub(crate) fn append(&self, label: &Label, payload: &[u8]) -> Result<Lsn, AppendError> {
        let claim_len = self.claim_len(payload.len())?;
        // One look at the `Arc`: the claim is a barrier for the compiler.
        let ring = &*self.ring;
        let base = ring.active_base();
        let prepared = ring.prepare(label, payload.len(), [payload]);
        debug_assert_eq!(prepared.aligned_len(), claim_len);
        let granted = match ring.try_grant(claim_len) {
            Ok(granted) => granted,
            Err(refusal) => self.grant_waiting(claim_len, refusal, None)?,
        };
        let claim = ring.claim_at(base, granted, claim_len);
        Ok(ring.commit_parts(claim, prepared, [payload]))
    }

    /// Appends one record whose payload is the concatenation of `parts`, `len` bytes in all.
    pub(crate) fn append_parts<'p>(
        &self,
        label: &Label,
        len: usize,
        parts: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Result<Lsn, AppendError> {
        let claim_len = self.claim_len(len)?;
        let prepared = self.ring.prepare(label, len, parts.clone());
        let base = self.ring.active_base();
        let granted = self.grant(claim_len, None)?;
        let claim = self.ring.claim_at(base, granted, claim_len);
        Ok(self.ring.commit_parts(claim, prepared, parts))
    }

    /// Appends a record with a producer's stamp: data, or a batch that has been encoded.
    pub(crate) fn append_stamped(
        &self,
        stamp: Stamp,
        (kind, stream): (RecordKind, Option<StreamId>),
        bytes: &[u8],
    ) -> Result<Lsn, AppendError> {
        let len = self.stamped_len(STAMP_LEN, bytes.len())?;
        let label = self.ring.label(kind, stream, STAMPED);
        self.append_parts(&label, len, [&stamp.encode()[..], bytes].into_iter())
    }

    /// Appends a batch: one record, with a producer's stamp or without.
    pub(crate) fn append_batch<'e>(
        &self,
        stamp: Option<Stamp>,
        entries: impl Iterator<Item = Entry<'e>> + Clone,
    ) -> Result<Lsn, AppendError> {
        let (len, stream) = measure(entries.clone()).ok_or(AppendError::EmptyBatch)?;
        let stamp = stamp.map(Stamp::encode);
        let (stamp, flags) = match &stamp {
            Some(stamp) => (&stamp[..], STAMPED),
            None => (&[][..], 0),
        };
        let len = self.stamped_len(stamp.len(), len)?;
        let label = self.ring.label(RecordKind::Batch, stream, flags);
        // What is short is put together first, for then its checksum need not wait for the claim
        // (rule 2 of `checksum`).
        let mut short = [0; SHORT_BATCH];
        if let Some(room) = short.get_mut(..len) {
            write_stamped(room, stamp, entries);
            return self.append(&label, &short[..len]);
        }
        let mut reservation = self.reserve(label, len, None)?;
        write_stamped(&mut reservation, stamp, entries);
        Ok(reservation.commit())
    }

    /// Appends a batch that has been encoded, whose entries have one stream or several.
    pub(crate) fn append_encoded(
        &self,
        batch: &[u8],
        stream: Option<StreamId>,
    ) -> Result<Lsn, AppendError> {
        self.append(&self.ring.label(RecordKind::Batch, stream, 0), batch)
    }

    /// The length of a payload in which `len` bytes follow a stamp of `stamp_len`.
    fn stamped_len(&self, stamp_len: usize, len: usize) -> Result<usize, AppendError> {
        let max = self.ring.geometry().payload_len_max() - stamp_len;
        if len > max { Err(AppendError::TooLarge { len, max }) } else { Ok(stamp_len + len) }
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
        let start = sync::now();
        let mut since = start;
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
            if let Err(error) = self.check_patience(start, deadline) {
                break Err(error);
            }
            let nap = match self.janitor.refusal() {
                _ if progress => SPACE_NAP,
                Some(_) => REFUSAL_NAP.min(self.options.hole_age_max),
                None => self.options.hole_age_max,
            };
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

    /// Ends a wait for space that has lasted too long, since `start`, with the reason.
    fn check_patience(&self, start: Instant, deadline: Option<Instant>) -> Result<(), AppendError> {
        let over = deadline.is_some_and(|deadline| sync::now() >= deadline);
        if let Some(end) = self.janitor.victim_end()
            && let Some((lsn, age)) = self.ring.hole()
            && lsn < end
            && (over || (deadline.is_none() && age >= self.options.hole_age_max))
        {
            return Err(AppendError::HeldBack { lsn, age });
        }
        if deadline.is_none()
            && sync::now() - start >= self.options.hole_age_max
            && let Some(error) = self.janitor.refusal()
        {
            return Err(AppendError::Unrecorded(error));
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
                if let Some(error) = self.janitor.refusal() {
                    return AppendError::Unrecorded(error);
                }
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
