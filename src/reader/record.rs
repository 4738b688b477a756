//! Records as views into the ring: where a pin turns into a slice.

use std::fmt;
use std::ops::Deref;

use crate::checksum::{KindSeed, Seed};
use crate::geometry::FIRST_RECORD;
use crate::layout::batch::is_batch;
use crate::layout::record::{WordState, aligned_len, record_crc};
use crate::layout::stamp::body;
use crate::layout::{CommitWord, Entries, Origin, RecordKind, Stamp, Tag};
use crate::lsn::Lsn;
use crate::producer_id::ProducerId;
use crate::ring::{Pin, Ring};
use crate::stream_id::StreamId;
use crate::sync::Ordering;

/// A segment that a walk has entered: a position in it is an addition away from its bytes, where
/// one in the log is several divisions away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    /// Where its records end, counted from its first byte.
    record_end: u32,
    /// The position of its first byte, in the log and in the file.
    base: Lsn,
    file_base: u64,
    /// Of the record that was found last, or of the segment's header; and what its checksums start
    /// from.
    epoch: u64,
    seed: Seed,
    /// The high half of the usual record's tag, and what its checksum starts from.
    usual: u32,
    usual_seed: KindSeed,
}

impl Entered {
    /// Of the record that was found last, or of the segment's header.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Segment `sequence`. `epoch` is that of a record not far before the one that is looked for,
    /// or of the segment's header.
    pub(crate) fn new(ring: &Ring, sequence: u32, epoch: u64) -> Entered {
        let geometry = ring.geometry();
        let seed = ring.seed(epoch);
        let usual = (Tag::new(0, RecordKind::Data, 0, epoch).bits() >> 32) as u32;
        Entered {
            record_end: geometry.record_end(),
            base: geometry.lsn(sequence, 0),
            file_base: geometry.segment_offset(sequence),
            epoch,
            seed,
            usual,
            usual_seed: seed.for_kind(usual),
        }
    }

    /// May a record start at `at` in this segment?
    #[inline]
    pub(crate) fn holds(&self, at: Lsn) -> bool {
        // What lies before the first record wraps round.
        let beyond_first = at.get().wrapping_sub(self.base.get() + u64::from(FIRST_RECORD));
        beyond_first < u64::from(self.record_end - FIRST_RECORD)
    }

    /// As another record of the segment, of epoch `epoch`, leaves it behind.
    pub(crate) fn with_epoch(self, ring: &Ring, epoch: u64) -> Entered {
        if epoch == self.epoch {
            return self;
        }
        Entered::new(ring, ring.geometry().sequence(self.base), epoch)
    }

    /// What the commit word at `at`, a position that this segment holds, says; and where it is.
    #[inline]
    fn word(&self, ring: &Ring, at: Lsn) -> (WordState, CommitWord, u64) {
        let offset = at - self.base;
        let file_offset = self.file_base + offset;
        // Acquire: takes over the record from its owner's commit.
        let word = CommitWord::from_bits(ring.region().word(file_offset).load(Ordering::Acquire));
        (word.state(self.record_end - offset as u32), word, file_offset)
    }
}

/// A committed record that was found under a pin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) lsn: Lsn,
    pub(crate) tag: Tag,
    pub(crate) epoch: u64,
    /// Where the record starts in the file.
    file_offset: u64,
    record_len: u32,
    /// Its bytes match its checksum, and are what its kind says.
    pub(crate) verified: bool,
}

impl Located {
    /// Where the record ends: in its segment, or with it.
    #[inline]
    pub(crate) fn end(&self) -> Lsn {
        self.lsn + u64::from(aligned_len(self.record_len))
    }

    #[inline]
    pub(crate) fn is_batch(&self) -> bool {
        self.tag.kind() == Some(RecordKind::Batch)
    }
}

/// What the commit word at `at` says, which `entered` holds. The segment is prepared, and kept by
/// the pin.
pub(crate) fn state(ring: &Ring, _pin: &Pin<'_>, entered: &Entered, at: Lsn) -> WordState {
    entered.word(ring, at).0
}

/// As [`locate`], at a published position at which perhaps no record starts: whatever stands there,
/// only published bytes are looked at.
pub(crate) fn locate_published(
    ring: &Ring,
    pin: &Pin<'_>,
    entered: &mut Entered,
    at: Lsn,
    published: Lsn,
) -> Option<Located> {
    match entered.word(ring, at).0 {
        WordState::Committed(len) if at + u64::from(aligned_len(len)) <= published => {
            locate_usual(ring, pin, entered, at).or_else(|| locate(ring, pin, entered, at))
        }
        _ => None,
    }
}

/// As [`locate`], for the usual record: it verifies, is a caller's, without a stamp, no batch, and
/// of the epoch of the one before. What this does not find, `locate` may.
#[inline(always)]
pub(crate) fn locate_usual(
    ring: &Ring,
    pin: &Pin<'_>,
    entered: &Entered,
    at: Lsn,
) -> Option<Located> {
    let offset = (at - entered.base) as u32;
    let file_offset = entered.file_base + u64::from(offset);
    let (word, tag) = ring.region().header(file_offset);
    // Acquire: takes over the record from its owner's commit.
    let word = CommitWord::from_bits(word.load(Ordering::Acquire));
    let record_len = word.committed_len(entered.record_end - offset)?;
    // Relaxed: ordered by the commit word.
    let tag = Tag::from_bits(tag.load(Ordering::Relaxed));
    if (tag.bits() >> 32) as u32 != entered.usual {
        return None;
    }
    let mut checksum = entered.usual_seed.for_number(tag.number()).start(record_len);
    checksum.update(ring.committed_payload(pin, file_offset, record_len));
    let epoch = entered.epoch;
    (checksum.finish(at) == word.crc()).then_some(Located {
        lsn: at,
        tag,
        epoch,
        file_offset,
        record_len,
        verified: true,
    })
}

/// The committed record at `at`, which `entered` holds, if there is one, checked against its
/// checksum. A record starts there, unless it is published.
pub(crate) fn locate(
    ring: &Ring,
    pin: &Pin<'_>,
    entered: &mut Entered,
    at: Lsn,
) -> Option<Located> {
    let (WordState::Committed(record_len), word, file_offset) = entered.word(ring, at) else {
        return None;
    };
    // Relaxed: ordered by the commit word.
    let tag = Tag::from_bits(ring.region().word(file_offset + 8).load(Ordering::Relaxed));
    // A segment holds fewer epochs than the low 16 bits can tell apart. Where no record starts, the
    // sum may pass the last epoch: then it is one that no checksum is of.
    let ahead = tag.epoch_low().wrapping_sub(entered.epoch as u16);
    let now = entered.with_epoch(ring, entered.epoch.wrapping_add(u64::from(ahead)));
    // Where no record starts, `locate_published` has seen to it that the bytes may be read; the
    // checksum then refuses them.
    let payload = match tag.kind() {
        Some(RecordKind::Pad) => &[],
        _ => ring.committed_payload(pin, file_offset, record_len),
    };
    let verified = tag.is_possible(record_len)
        && record_crc(now.seed, tag, record_len, payload, at) == word.crc()
        && (tag.kind() != Some(RecordKind::Batch) || is_batch(body(tag, payload)));
    if verified {
        *entered = now;
    }
    Some(Located { lsn: at, tag, epoch: now.epoch, file_offset, record_len, verified })
}

/// The header of a prepared segment under a pin.
pub(crate) fn segment_header<'p>(ring: &'p Ring, _pin: &'p Pin<'_>, sequence: u32) -> &'p [u8] {
    let offset = ring.geometry().segment_offset(sequence);
    // SAFETY: a prepared segment's header is written before `prepared` says so, which the caller
    // acquired, and not again while the pin keeps the segment.
    unsafe { ring.region().bytes(offset, FIRST_RECORD as usize) }
}

/// A record, lent by the reader that found it.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    located: Located,
    /// With the producer's stamp, if it has one.
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    #[inline]
    pub(crate) fn new(ring: &'a Ring, pin: &'a Pin<'_>, located: Located) -> Record<'a> {
        let bytes = ring.committed_payload(pin, located.file_offset, located.record_len);
        Record { located, bytes }
    }

    /// Where the record starts.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.located.lsn
    }

    /// Where the record ends: the position to checkpoint once it has been applied.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.located.end()
    }

    /// The caller's bytes; of a [batch](Record::is_batch), all its [entries](Record::entries) as
    /// they lie in the log.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        body(self.located.tag, self.bytes)
    }

    /// The payload as it lies in the log: of the usual record, the caller's bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Who appended the record, and as which of its appends, if it was appended
    /// [idempotently](crate::Wal::idempotent).
    #[must_use]
    pub fn producer(&self) -> Option<(ProducerId, u64)> {
        self.stamp().map(|stamp| (stamp.producer, stamp.sequence))
    }

    /// Where the record was appended first, if it was
    /// [moved](crate::Stream::move_forward).
    #[must_use]
    pub fn moved_from(&self) -> Option<Lsn> {
        self.origin().map(|origin| origin.first)
    }

    pub(crate) fn origin(&self) -> Option<Origin> {
        Origin::of(self.located.tag, self.bytes)
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        Stamp::of(self.located.tag, self.bytes)
    }

    /// The stream that the record belongs to, or all its entries; `None` if to none, or if the
    /// entries of a batch belong to several.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        self.located.tag.stream()
    }

    /// Was the record appended as a batch?
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.located.is_batch()
    }

    /// The record's entries, in order: of a batch, each; else the record itself.
    pub fn entries(&self) -> Entries<'a> {
        self.entries_from(0)
    }

    /// Those of its entries that lie at or behind `offset` in its payload, where one begins.
    pub(crate) fn entries_from(&self, offset: usize) -> Entries<'a> {
        Entries::of(self.located.tag, &self.payload()[offset..])
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("lsn", &self.lsn())
            .field("len", &self.payload().len())
            .finish()
    }
}

/// A record with a pin of its own: its bytes stay in the log for as long as it lives, and so do
/// all later ones. Do not keep it for long where space is short.
pub struct PinnedRecord<'w> {
    ring: &'w Ring,
    pin: Pin<'w>,
    located: Located,
}

impl<'w> PinnedRecord<'w> {
    pub(crate) fn new(ring: &'w Ring, pin: Pin<'w>, located: Located) -> PinnedRecord<'w> {
        PinnedRecord { ring, pin, located }
    }

    /// The record as a view that borrows this pin.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        Record::new(self.ring, &self.pin, self.located)
    }

    /// Where the record starts.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.located.lsn
    }

    /// Where the record ends.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.located.end()
    }

    /// The caller's bytes, as [`Record::payload`].
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.record().payload()
    }

    /// The producer, as [`Record::producer`].
    #[must_use]
    pub fn producer(&self) -> Option<(ProducerId, u64)> {
        self.record().producer()
    }

    /// The stream, as [`Record::stream`].
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        self.located.tag.stream()
    }

    /// The record's entries, as [`Record::entries`].
    pub fn entries(&self) -> Entries<'_> {
        self.record().entries()
    }
}

impl Deref for PinnedRecord<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.payload()
    }
}

impl fmt::Debug for PinnedRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record().fmt(f)
    }
}
