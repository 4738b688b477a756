//! Records as views into the ring: where a pin turns into a slice.

use std::fmt;
use std::ops::Deref;

use crate::geometry::{FIRST_RECORD, Geometry, RECORD_HEADER_LEN};
use crate::layout::record::{WordState, aligned_len, record_crc};
use crate::layout::{CommitWord, RecordKind, Tag};
use crate::lsn::Lsn;
use crate::ring::{Pin, Ring};
use crate::sync::Ordering;

/// A committed record that was found under a pin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) lsn: Lsn,
    pub(crate) tag: Tag,
    pub(crate) epoch: u64,
    pub(crate) record_len: u32,
    /// Its bytes match its checksum.
    pub(crate) verified: bool,
}

impl Located {
    /// Where the record ends.
    pub(crate) fn end(&self, geometry: &Geometry) -> Lsn {
        let (sequence, offset) = geometry.split(self.lsn);
        geometry.lsn(sequence, offset + aligned_len(self.record_len))
    }
}

/// What the commit word at `at` says. The segment there is prepared, and kept by the pin.
pub(crate) fn state(ring: &Ring, _pin: &Pin<'_>, at: Lsn) -> WordState {
    word(ring, at).0
}

fn word(ring: &Ring, at: Lsn) -> (WordState, CommitWord, u64) {
    let (sequence, offset) = ring.geometry().split(at);
    let file_offset = ring.geometry().segment_offset(sequence) + u64::from(offset);
    // Acquire: takes over the record from its owner's commit.
    let word = CommitWord::from_bits(ring.region().word(file_offset).load(Ordering::Acquire));
    (word.state(ring.geometry().record_end() - offset), word, file_offset)
}

/// As [`locate`], at a published position at which perhaps no record starts: whatever stands there,
/// only published bytes are looked at.
pub(crate) fn locate_published(
    ring: &Ring,
    pin: &Pin<'_>,
    at: Lsn,
    epoch: u64,
    published: Lsn,
) -> Option<Located> {
    match word(ring, at).0 {
        WordState::Committed(len) if at + u64::from(aligned_len(len)) <= published => {
            locate(ring, pin, at, epoch)
        }
        _ => None,
    }
}

/// The committed record at `at`, if there is one, checked against its checksum. A record starts
/// there, unless it is published. `epoch` is that of a record not far before it, or of its
/// segment's header.
pub(crate) fn locate(ring: &Ring, pin: &Pin<'_>, at: Lsn, epoch: u64) -> Option<Located> {
    let (WordState::Committed(record_len), word, file_offset) = word(ring, at) else {
        return None;
    };
    // Relaxed: ordered by the commit word.
    let tag = Tag::from_bits(ring.region().word(file_offset + 8).load(Ordering::Relaxed));
    // A segment holds fewer epochs than the low 16 bits can tell apart. Where no record starts, the
    // sum may pass the last epoch: then it is one that no checksum is of.
    let epoch = epoch.wrapping_add(u64::from(tag.epoch_low().wrapping_sub(epoch as u16)));
    let seed = ring.seed(epoch);
    let payload =
        if tag.kind() == Some(RecordKind::Pad) { &[] } else { payload(ring, pin, at, record_len) };
    let verified =
        tag.kind().is_some() && record_crc(seed, tag, record_len, payload, at) == word.crc();
    Some(Located { lsn: at, tag, epoch, record_len, verified })
}

/// The payload of a committed record under a pin.
fn payload<'p>(ring: &'p Ring, _pin: &'p Pin<'_>, at: Lsn, record_len: u32) -> &'p [u8] {
    let offset = ring.geometry().file_offset(at) + RECORD_HEADER_LEN as u64;
    // SAFETY:
    // - Nobody writes: the caller acquired a committed word at `at`, a record position that is
    //   published or reached by walking records, so its owner is done with the bytes; and the
    //   janitor leaves the segment alone while `_pin`, at or below `at`, stands.
    // - Ordered: by that acquire.
    // - Where no record starts, `locate_published` has checked that all bytes are published, so
    //   that nobody writes them either; the checksum then refuses them.
    unsafe { ring.region().bytes(offset, record_len as usize - RECORD_HEADER_LEN) }
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
    end: Lsn,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn new(ring: &'a Ring, pin: &'a Pin<'_>, located: Located) -> Record<'a> {
        let payload = payload(ring, pin, located.lsn, located.record_len);
        Record { located, end: located.end(ring.geometry()), payload }
    }

    /// Where the record starts.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.located.lsn
    }

    /// Where the record ends: the position to checkpoint once it has been applied.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.end
    }

    /// The caller's bytes.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The stream that the record belongs to; 0 if to none.
    #[must_use]
    pub fn stream(&self) -> u32 {
        self.located.tag.stream()
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("lsn", &self.lsn())
            .field("len", &self.payload.len())
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
        self.located.end(self.ring.geometry())
    }

    /// The caller's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.record().payload
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
