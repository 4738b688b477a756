//! Claiming space and committing it: the hot path.
//!
//! A [`Claim`] is the exclusive right to a byte range of the ring. It is made here and nowhere
//! else, from the tail's one modification order, and consumed by a commit; that is what makes the
//! plain writes below sound.

use super::cursor::{FETCH_ADD_LEN_MAX, SLEEPER, Tail};
use super::{Pin, Ring};
use crate::checksum::{RecordChecksum, Seed, TagSeed};
use crate::geometry::{Geometry, RECORD_HEADER_LEN};
use crate::layout::record::{CONTROL_DURABLE, CONTROL_EPOCH, aligned_len};
use crate::layout::{CommitWord, RecordKind, Tag};
use crate::lsn::Lsn;
use crate::metrics::count;
use crate::region::Space;
use crate::stream_id::StreamId;
use crate::sync::{Ordering, compiler_fence, try_lock};

/// A claim that crosses a line, a multiple of this offset, tells those who sleep until producers
/// are at work.
const LINE: u32 = 16 << 10;

/// The tail before a claim that succeeded: proof that its bytes are the holder's. Not `Clone`. It
/// travels in a register where a [`Claim`] would go through memory.
#[derive(Debug)]
pub(crate) struct Granted(Tail);

/// The exclusive right to `[lsn, lsn + len)`. Not `Clone`: there is one owner.
#[derive(Debug)]
pub(crate) struct Claim {
    lsn: Lsn,
    /// File offset of `lsn`.
    offset: u64,
    /// Bytes owned, a multiple of 16.
    len: u32,
    /// The claim found `SLEEPER`, or crosses a line: its owner wakes the sleepers after the commit.
    wake: bool,
}

impl Claim {
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }
}

/// Where a segment lies: what a claim's position is computed from. All of it is known before the
/// claim, if the segment is still the one that was active a moment ago.
#[derive(Clone, Copy)]
pub(crate) struct Base {
    sequence: u32,
    /// The segment's first LSN.
    lsn: Lsn,
    /// Its file offset.
    offset: u64,
}

impl Base {
    /// The base of `sequence`, which lies in ring slot `slot`.
    #[inline]
    fn new(geometry: &Geometry, sequence: u32, slot: u32) -> Base {
        let (lsn, offset) = (geometry.lsn(sequence, 0), geometry.slot_offset(slot));
        Base { sequence, lsn, offset }
    }

    /// `{ sequence, slot }` in one word.
    pub(super) fn pack(geometry: &Geometry, sequence: u32) -> u64 {
        u64::from(sequence) << 32 | u64::from(geometry.slot(sequence))
    }
}

/// Nothing was claimed. As wide as a grant, so that a result of either travels in two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Refusal {
    /// The next segment is not prepared: the ring is full, or the janitor is at work.
    Full,
    /// The log is closed or poisoned.
    Frozen,
    /// There is no next segment: all sequences are used up.
    Exhausted,
}

/// What all records of one kind, stream and epoch have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    tag: Tag,
    seed: TagSeed,
}

impl Label {
    pub(super) fn new(seed: Seed, tag: Tag) -> Label {
        Label { tag, seed: seed.for_tag(tag.bits()) }
    }
}

/// A record whose checksum is done but for its LSN.
#[derive(Clone)]
pub(crate) struct Prepared {
    tag: Tag,
    record_len: u32,
    checksum: RecordChecksum,
}

impl Prepared {
    /// The space that the record takes.
    #[inline]
    pub(crate) fn aligned_len(&self) -> u32 {
        aligned_len(self.record_len)
    }
}

impl Ring {
    /// The label of a caller's records.
    pub(crate) fn label(&self, kind: RecordKind, stream: Option<StreamId>, flags: u8) -> Label {
        let stream = StreamId::number(stream);
        Label::new(self.seed, Tag::new(stream, kind, flags, self.identity.epoch))
    }

    /// The label of records that belong to no stream.
    #[inline]
    pub(crate) fn data_label(&self) -> Label {
        self.data_label
    }

    /// Checksums a caller's record before it has a place (rule 2 of `checksum`). The payload's
    /// length was checked against the geometry.
    #[inline]
    pub(crate) fn prepare<'p>(
        &self,
        label: &Label,
        len: usize,
        parts: impl IntoIterator<Item = &'p [u8]>,
    ) -> Prepared {
        let record_len = (len + RECORD_HEADER_LEN) as u32;
        let mut checksum = label.seed.start(record_len);
        for part in parts {
            checksum.update(part);
        }
        Prepared { tag: label.tag, record_len, checksum }
    }

    /// Claims `len` bytes, a multiple of 16 that fits a segment.
    #[inline]
    pub(crate) fn try_grant(&self, len: u32) -> Result<Granted, Refusal> {
        if len > FETCH_ADD_LEN_MAX {
            return self.try_grant_slow(len, None);
        }
        let before = self.tail.fetch_claim(len);
        if before.flags() == 0 && before.offset() + len <= self.geometry.record_end() {
            return Ok(Granted(before));
        }
        self.try_grant_slow(len, Some(before))
    }

    /// Everything but the common case: flags, the end of the segment, long claims. `before` is
    /// the result of a `fetch_claim` that is not settled yet.
    #[cold]
    #[inline(never)]
    fn try_grant_slow(&self, len: u32, mut before: Option<Tail>) -> Result<Granted, Refusal> {
        let end = self.geometry.record_end();
        loop {
            let before = match before.take() {
                Some(before) => before,
                None => self.claim_by_cas(len),
            };
            if before.is_frozen() {
                self.tail.transition_clamp(end);
                return Err(Refusal::Frozen);
            }
            if before.offset() < end {
                if before.offset() + len <= end {
                    return Ok(Granted(before));
                }
                // Rule 3 of `cursor`: the rest of the segment is ours alone.
                let rest = end - before.offset();
                self.commit_pad(self.claim_at(self.active_base(), Granted(before), rest));
            }
            self.rotate(before.sequence())?;
        }
    }

    /// As [`try_grant`](Ring::try_grant), with the position computed.
    pub(crate) fn try_claim(&self, len: u32) -> Result<Claim, Refusal> {
        let base = self.active_base();
        self.try_grant(len).map(|granted| self.claim_at(base, granted, len))
    }

    /// Where the active segment lies, as of a moment ago. To be asked before the claim: then the
    /// multiplications are done while the claim's locked instruction waits.
    #[inline]
    pub(crate) fn active_base(&self) -> Base {
        // Relaxed: a hint, compared with the claim's own sequence.
        let word = self.active.load(Ordering::Relaxed);
        Base::new(&self.geometry, (word >> 32) as u32, word as u32)
    }

    /// Claims `len` bytes, or the rest of the segment if they do not fit, without overshooting;
    /// returns the tail before. A sealed or frozen tail is returned as it is.
    fn claim_by_cas(&self, len: u32) -> Tail {
        let end = self.geometry.record_end();
        loop {
            let before = self.tail.load();
            if before.is_frozen() || before.offset() >= end {
                return before;
            }
            let to = (before.offset() + len).min(end);
            if self.tail.transition_claim(before, to) {
                return before;
            }
        }
    }

    /// Turns what was granted into a claim of `len` bytes, the length that was asked for.
    #[inline]
    pub(crate) fn claim_at(&self, base: Base, granted: Granted, len: u32) -> Claim {
        let Granted(before) = granted;
        let mut base = base;
        if before.sequence() != base.sequence {
            base = self.base_of(before.sequence());
        }
        let offset = u64::from(before.offset());
        Claim {
            lsn: base.lsn + offset,
            offset: base.offset + offset,
            len,
            wake: before.flags() & SLEEPER != 0
                || (before.offset() ^ (before.offset() + len)) >= LINE,
        }
    }

    /// Out of line, so that the usual case stays a predicted branch: a conditional move would put
    /// the claim's result in front of every address.
    #[cold]
    #[inline(never)]
    fn base_of(&self, sequence: u32) -> Base {
        Base::new(&self.geometry, sequence, self.geometry.slot(sequence))
    }

    /// Goes on from sealed segment `sequence`, or finds that another has done it.
    fn rotate(&self, sequence: u32) -> Result<(), Refusal> {
        let end = self.geometry.record_end();
        if sequence == u32::MAX {
            self.tail.transition_clamp(end);
            return Err(Refusal::Exhausted);
        }
        if u64::from(sequence) + 1 >= self.prepared() {
            self.tail.transition_clamp(end);
            let tail = self.tail.load();
            if tail.sequence() == sequence && !tail.is_frozen() {
                count(&self.counters.full_hits, 1);
                // It may have been blocked by something that has passed since without a word.
                self.janitor_bell.ring();
                return Err(Refusal::Full);
            }
            return Ok(());
        }
        if self.tail.transition_rotate(sequence, end) {
            // Relaxed: a hint.
            self.active.store(Base::pack(&self.geometry, sequence + 1), Ordering::Relaxed);
            count(&self.counters.segments_sealed, 1);
            self.janitor_bell.ring();
            self.flusher_bell.ring();
        }
        Ok(())
    }

    /// Copies `parts` into the claimed space and commits.
    #[inline]
    pub(crate) fn commit_parts<'p>(
        &self,
        claim: Claim,
        prepared: Prepared,
        parts: impl IntoIterator<Item = &'p [u8]>,
    ) -> Lsn {
        let space = self.space(&claim);
        // Relaxed: as in `mark_claimed`.
        let mark = CommitWord::claimed(prepared.record_len).bits();
        space.commit_word().store(mark, Ordering::Relaxed);
        // The mark goes first in program order, so that whoever finds no mark after our death
        // knows that nothing was written. Costs nothing: it only keeps the compiler from moving it.
        compiler_fence(Ordering::Release);
        let mut at = 0;
        for part in parts {
            // SAFETY: `claim` is the only right to these bytes (the tail's modification order gave
            // them to no one else), its segment is not recycled before it is published, and others
            // look at a record's payload only after its commit.
            unsafe { space.write_payload(at, part, self.region.is_streamed(part.len())) };
            at += part.len();
        }
        self.commit_space(&space, claim.lsn, prepared);
        if claim.wake {
            self.wake_sleepers();
        }
        claim.lsn
    }

    #[inline]
    fn space(&self, claim: &Claim) -> Space<'_> {
        // SAFETY: a claim lies between the first record position and the record end of its segment,
        // by `try_grant`, and so in the region; both ends are multiples of 16, because the tail
        // moves by multiples of 16 from one; and it holds its header, since the least that is
        // claimed is 16 bytes.
        unsafe { self.region.space(claim.offset, claim.len) }
    }

    /// The owner's one release store: the record is complete.
    pub(crate) fn commit(&self, claim: Claim, prepared: Prepared) -> Lsn {
        let space = self.space(&claim);
        self.commit_space(&space, claim.lsn, prepared);
        if claim.wake {
            self.wake_sleepers();
        }
        claim.lsn
    }

    #[inline]
    fn commit_space(&self, space: &Space<'_>, lsn: Lsn, prepared: Prepared) {
        // Relaxed: the commit word's release store orders it.
        space.tag_word().store(prepared.tag.bits(), Ordering::Relaxed);
        let word = CommitWord::committed(prepared.record_len, prepared.checksum.finish(lsn));
        // Release: hands header and payload to whoever acquires the commit word.
        space.commit_word().store(word.bits(), Ordering::Release);
    }

    /// Marks the claim's length, for whoever finds it abandoned.
    #[inline]
    pub(crate) fn mark_claimed(&self, claim: &Claim, record_len: u32) {
        let mark = CommitWord::claimed(record_len).bits();
        // Relaxed: it hands over nothing; the line is about to be written anyway.
        self.region.word(claim.offset).store(mark, Ordering::Relaxed);
        // As in `commit_parts`.
        compiler_fence(Ordering::Release);
    }

    /// Commits a claim as filler. Its payload means nothing.
    pub(crate) fn commit_pad(&self, claim: Claim) {
        let tag = Tag::new(0, RecordKind::Pad, 0, self.identity.epoch);
        let checksum = self.seed.start(tag.bits(), claim.len);
        let record_len = claim.len;
        self.commit(claim, Prepared { tag, record_len, checksum });
    }

    /// Commits the first `len` payload bytes of a claim whose payload is in place. What remains
    /// becomes a pad, written first: a walk that passes the record finds it there.
    pub(crate) fn commit_in_place(&self, mut claim: Claim, label: &Label, len: usize) -> Lsn {
        let payload_offset = claim.offset + RECORD_HEADER_LEN as u64;
        assert!(len as u64 + RECORD_HEADER_LEN as u64 <= u64::from(claim.len));
        // SAFETY: inside the claim, by the assertion; its owner hands it in, so no slice of it is
        // borrowed any more, and nobody else touches it before the commit below.
        let payload = unsafe { self.region.bytes(payload_offset, len) };
        let prepared = self.prepare(label, len, [payload]);
        let used = prepared.aligned_len();
        if used < claim.len {
            let rest = Claim {
                lsn: claim.lsn + u64::from(used),
                offset: claim.offset + u64::from(used),
                len: claim.len - used,
                wake: false,
            };
            claim.len = used;
            self.commit_pad(rest);
        }
        self.commit(claim, prepared)
    }

    /// The payload bytes of a claim: zero until its owner writes them.
    pub(crate) fn payload_mut<'a>(&'a self, claim: &'a mut Claim, len: usize) -> &'a mut [u8] {
        let space = self.space(claim);
        // SAFETY: the exclusive borrow of the claim is the exclusive right to its payload, as in
        // `commit_parts`.
        unsafe { space.payload_mut(len) }
    }

    /// As `payload_mut`, to look at.
    pub(crate) fn payload<'a>(&'a self, claim: &'a Claim, len: usize) -> &'a [u8] {
        assert!(len as u64 + RECORD_HEADER_LEN as u64 <= u64::from(claim.len));
        // SAFETY: as in `payload_mut`; a shared borrow of the claim excludes its exclusive one.
        unsafe { self.region.bytes(claim.offset + RECORD_HEADER_LEN as u64, len) }
    }

    /// The payload of a committed record under a pin. The caller has acquired a committed word of
    /// `record_len` bytes at `file_offset`, where a record starts; or else all those bytes are
    /// published.
    #[inline]
    pub(crate) fn committed_payload<'p>(
        &'p self,
        _pin: &'p Pin<'_>,
        file_offset: u64,
        record_len: u32,
    ) -> &'p [u8] {
        let offset = file_offset + RECORD_HEADER_LEN as u64;
        // SAFETY:
        // - Nobody writes: the record's owner is done with the bytes, by its commit; and the
        //   janitor leaves the segment alone while `_pin`, at or below the record, stands.
        // - Ordered: by the acquire of the commit word, or of `published`.
        // - Where no record starts, all bytes are published, so that nobody writes them either.
        unsafe { self.region.bytes(offset, record_len as usize - RECORD_HEADER_LEN) }
    }

    /// Opens the epoch with a control record that carries it in full, before any other claim. At a
    /// segment's end there is no room: the next segment's header carries the epoch.
    pub(crate) fn open_epoch(&self) {
        if self.tail.load().offset() >= self.geometry.record_end() {
            return;
        }
        let epoch = self.identity.epoch.to_le_bytes();
        let tag = Tag::new(0, RecordKind::Control, CONTROL_EPOCH, self.identity.epoch);
        let record_len = (RECORD_HEADER_LEN + epoch.len()) as u32;
        let mut checksum = self.seed.start(tag.bits(), record_len);
        checksum.update(&epoch);
        let claim = self.try_claim(aligned_len(record_len));
        let claim = claim.expect("recovery leaves room for the record that opens an epoch");
        self.commit_parts(claim, Prepared { tag, record_len, checksum }, [&epoch[..]]);
    }

    /// Leaves evidence that everything below `durable` was synced: a record without payload.
    /// Try-only; returns its end.
    pub(crate) fn leave_durable_evidence(&self, durable: Lsn) -> Option<Lsn> {
        // Best effort: whoever has the lock leaves some as well, or just waits for some.
        let _own = try_lock(&self.own_record)?;
        let claim = self.try_claim(RECORD_HEADER_LEN as u32).ok()?;
        let distance = (claim.lsn - durable) / 16;
        let Ok(distance) = u32::try_from(distance) else {
            self.commit_pad(claim);
            return None;
        };
        let tag = Tag::new(distance, RecordKind::Control, CONTROL_DURABLE, self.identity.epoch);
        let record_len = RECORD_HEADER_LEN as u32;
        let checksum = self.seed.start(tag.bits(), record_len);
        let lsn = self.commit(claim, Prepared { tag, record_len, checksum });
        Some(self.geometry.normalize(lsn + RECORD_HEADER_LEN as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::FIRST_RECORD;
    use crate::ring::CLOSED;
    use crate::ring::tests::ring;
    use crate::simulation::tiny;

    #[test]
    fn a_claim_across_a_line_wakes_and_so_does_one_that_finds_a_sleeper() {
        let geometry = Geometry::checked(2 * 65_536, 65_536, 12_288).expect("in bounds");
        let ring = ring(geometry, 1);
        let wakes = |len| ring.try_claim(len).expect("there is room").wake;
        assert!(!wakes(1024), "below the line");
        assert!(wakes(LINE), "across it");
        assert!(!wakes(1024), "beyond it");
        ring.tail.transition_set(SLEEPER);
        assert!(wakes(1024), "somebody sleeps");
    }

    #[test]
    fn the_hint_follows_the_tail() {
        let geometry = tiny(3);
        let ring = ring(geometry, 6);
        for sequence in 0..5 {
            ring.try_claim(16).expect("there is room");
            let base = ring.active_base();
            let want = (geometry.lsn(sequence, 0), geometry.segment_offset(sequence));
            assert_eq!((base.sequence, (base.lsn, base.offset)), (sequence, want));
            ring.try_claim(geometry.record_end() - FIRST_RECORD - 16).expect("it fits");
        }
    }

    #[test]
    fn a_ring_is_full_in_the_segment_that_is_claimed_from() {
        let ring = ring(tiny(3), 1);
        assert_eq!(ring.rotate(0), Err(Refusal::Full));
        assert_eq!(ring.rotate(7), Ok(()), "others have gone on since: the next claim will tell");
        ring.freeze(CLOSED, None);
        assert_eq!(ring.rotate(0), Ok(()), "closed since: the next claim will tell");
    }
}
