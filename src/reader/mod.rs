//! Reading records back: by position, in order, and as they come.
//!
//! 1. A reader needs no watermark: it looks at the commit word at its own position, after checking
//!    that the segment there is prepared. Acquiring a committed word acquires the record.
//! 2. Every record is verified against its checksum before it is handed out.
//! 3. A view into the ring lives only under a pin. A reader's pin follows it segment by segment.

mod record;
mod tail;

use crate::error::ReadError;
use crate::geometry::FIRST_RECORD;
use crate::layout::record::WordState;
use crate::layout::{RecordKind, SegmentHeader, SegmentHeaderEvidence};
use crate::lsn::Lsn;
use crate::ring::{PINS_MAX, Pin, PinRefusal, Ring};

pub use record::{PinnedRecord, Record};
pub use tail::Tail;

use record::Located;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At the oldest retained record.
    Oldest,
    /// After the newest committed record: only what comes from now on.
    Newest,
    /// At the record that starts at this LSN, or where the next one will.
    At(Lsn),
}

/// Pins `lsn` for a caller.
fn pin(ring: &Ring, lsn: Lsn) -> Result<Pin<'_>, ReadError> {
    ring.pin(lsn, false).map_err(|refusal| match refusal {
        PinRefusal::Trimmed => ReadError::Trimmed { lsn, oldest: ring.trimmed() },
        PinRefusal::NoSlot => ReadError::TooManyPins { max: PINS_MAX },
    })
}

/// The record at `lsn`, verified.
pub(crate) fn get(ring: &Ring, lsn: Lsn) -> Result<PinnedRecord<'_>, ReadError> {
    let (_, offset) = ring.geometry().split(lsn);
    if !lsn.get().is_multiple_of(16)
        || offset < FIRST_RECORD
        || offset >= ring.geometry().record_end()
    {
        return Err(ReadError::NotARecord { lsn });
    }
    let pin = pin(ring, lsn)?;
    let mut end = ring.published();
    if lsn >= end {
        end = ring.publish();
        if lsn >= end {
            return Err(ReadError::NotYet { lsn, end });
        }
    }
    let epoch = ring.identity().epoch;
    let located =
        record::locate_published(ring, &pin, lsn, epoch, end).filter(|located| located.verified);
    let located = match located {
        Some(located) => located,
        None => get_of_any_epoch(ring, &pin, lsn, end)?,
    };
    if located.tag.kind() != Some(RecordKind::Data) {
        return Err(ReadError::NotARecord { lsn });
    }
    Ok(PinnedRecord::new(ring, pin, located))
}

/// The record at `lsn`, if it is not of the current epoch; else the reason why it is none.
fn get_of_any_epoch(
    ring: &Ring,
    pin: &Pin<'_>,
    lsn: Lsn,
    published: Lsn,
) -> Result<Located, ReadError> {
    let epoch = segment_epoch(ring, pin, ring.geometry().sequence(lsn))?;
    let located = record::locate_published(ring, pin, lsn, epoch, published);
    match located.filter(|located| located.verified) {
        Some(located) => Ok(located),
        None => locate_at_boundary(ring, pin, lsn),
    }
}

/// The record at `lsn`, which is pinned and published, found by walking from its segment's start:
/// tells a damaged record from a position inside one.
fn locate_at_boundary(ring: &Ring, pin: &Pin<'_>, lsn: Lsn) -> Result<Located, ReadError> {
    let geometry = ring.geometry();
    let (sequence, _) = geometry.split(lsn);
    let mut at = geometry.first_record(sequence).max(ring.trimmed());
    // What lies below the pin may be recycled; its own segment is not.
    let epoch = segment_epoch(ring, pin, sequence)?;
    while at < lsn {
        let Some(located) = record::locate(ring, pin, at, epoch) else {
            return Err(damaged(ring, at));
        };
        at = located.end(geometry);
    }
    if at != lsn {
        return Err(match ring.trimmed() {
            oldest if oldest > lsn => ReadError::Trimmed { lsn, oldest },
            _ => ReadError::NotARecord { lsn },
        });
    }
    let located = record::locate(ring, pin, lsn, epoch).filter(|located| located.verified);
    located.ok_or_else(|| damaged(ring, lsn))
}

fn damaged(ring: &Ring, lsn: Lsn) -> ReadError {
    ReadError::Damaged {
        lsn,
        file_offset: ring.geometry().file_offset(lsn),
        reason: "its checksum does not match its bytes",
    }
}

/// The epoch in the header of a pinned segment.
fn segment_epoch(ring: &Ring, pin: &Pin<'_>, sequence: u32) -> Result<u64, ReadError> {
    let geometry = ring.geometry();
    let bytes = record::segment_header(ring, pin, sequence);
    let base = geometry.lsn(sequence, 0);
    match SegmentHeader::verify(bytes, &ring.identity().log_id, sequence, base) {
        SegmentHeaderEvidence::Expected(header) => Ok(header.epoch),
        _ => Err(ReadError::Damaged {
            lsn: base,
            file_offset: geometry.segment_offset(sequence),
            reason: "its segment header does not verify",
        }),
    }
}

/// Is `lsn` a place where a record starts, or where the next one will? It is retained and
/// published, up to and including the end.
/// Returns it in the form that watermarks have.
pub(crate) fn check_boundary(ring: &Ring, lsn: Lsn) -> Result<Lsn, ReadError> {
    let geometry = ring.geometry();
    let (_, offset) = geometry.split(lsn);
    if !lsn.get().is_multiple_of(16) || offset < FIRST_RECORD || offset > geometry.record_end() {
        return Err(ReadError::NotARecord { lsn });
    }
    let lsn = geometry.normalize(lsn);
    let pin = pin(ring, lsn)?;
    let mut end = ring.publish();
    if lsn > end && lsn <= ring.reserved() {
        // A caller need not know of the log's own records: they are no reason to refuse its own.
        end = ring.publish_past_own();
    }
    if lsn == end || lsn == ring.trimmed() {
        return Ok(lsn);
    }
    if lsn > end {
        return Err(ReadError::NotYet { lsn, end });
    }
    locate_at_boundary(ring, &pin, lsn).map(|_| lsn)
}

/// Reads records in order, each verified, as views into the log.
///
/// It holds a pin on the segment that it reads: a checkpoint may pass it, but the space is not
/// recycled before it has moved on. [`next`](Reader::next) lends one record at a time;
/// [`next_pinned`](Reader::next_pinned) gives one that may be kept.
///
/// # Example
///
/// ```
/// # use kaelix_wal::{Geometry, Options, Position, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// for order in ["first", "second"] {
///     wal.append(order.as_bytes())?;
/// }
/// let mut reader = wal.reader(Position::Oldest)?;
/// while let Some(record) = reader.next()? {
///     println!("{}: {}", record.lsn(), String::from_utf8_lossy(record.payload()));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<'w> {
    ring: &'w Ring,
    pin: Pin<'w>,
    /// Where the next record is looked for.
    at: Lsn,
    until: Lsn,
    durable_only: bool,
    /// The segment that was entered, and the epoch at `at`.
    entered: Option<(u32, u64)>,
}

impl<'w> Reader<'w> {
    pub(crate) fn new(ring: &'w Ring, from: Position) -> Result<Reader<'w>, ReadError> {
        let (pin, at) = match from {
            Position::At(lsn) => {
                let lsn = check_boundary(ring, lsn)?;
                (pin(ring, lsn)?, lsn)
            }
            Position::Newest => {
                let end = ring.publish();
                (pin(ring, end)?, end)
            }
            // Trimmed in the meantime: the oldest is another one by now.
            Position::Oldest => loop {
                let oldest = ring.trimmed();
                match pin(ring, oldest) {
                    Ok(pin) => break (pin, oldest),
                    Err(ReadError::Trimmed { .. }) => {}
                    Err(error) => return Err(error),
                }
            },
        };
        let until = Lsn::new(u64::MAX);
        Ok(Reader { ring, pin, at, until, durable_only: false, entered: None })
    }

    /// Shows only records that survive a power loss.
    #[must_use]
    pub fn durable_only(mut self) -> Reader<'w> {
        self.durable_only = true;
        self
    }

    /// Ends before the first record at or beyond `end`.
    #[must_use]
    pub fn until(mut self, end: Lsn) -> Reader<'w> {
        self.until = end;
        self
    }

    /// Where the next record is looked for: everything before has been handed out.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// The next record; `None` if there is none (yet).
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if the record's bytes do not match its checksum; the reader stays
    /// in front of it.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let located = self.step()?;
        Ok(located.map(|located| Record::new(self.ring, &self.pin, located)))
    }

    /// As [`next`](Reader::next), with a pin of its own: the record may be kept while the reader
    /// goes on.
    ///
    /// # Errors
    ///
    /// Those of `next`, and [`ReadError::TooManyPins`] if too many are held.
    pub fn next_pinned(&mut self) -> Result<Option<PinnedRecord<'w>>, ReadError> {
        let before = (self.at, self.entered);
        let Some(located) = self.step()? else {
            return Ok(None);
        };
        // The reader's own pin covers the record until the new one stands, whatever `trimmed` is.
        match self.ring.pin_again(&self.pin, located.lsn) {
            Some(pin) => Ok(Some(PinnedRecord::new(self.ring, pin, located))),
            None => {
                (self.at, self.entered) = before;
                Err(ReadError::TooManyPins { max: PINS_MAX })
            }
        }
    }

    /// Finds the next record and moves behind it.
    fn step(&mut self) -> Result<Option<Located>, ReadError> {
        let geometry = self.ring.geometry();
        loop {
            let at = geometry.normalize(self.at);
            if at >= self.until || (self.durable_only && at >= self.ring.durable()) {
                return Ok(None);
            }
            let (sequence, _) = geometry.split(at);
            let epoch = match self.entered {
                Some((entered, epoch)) if entered == sequence => epoch,
                _ => {
                    if u64::from(sequence) >= self.ring.prepared() {
                        return Ok(None);
                    }
                    self.pin.advance(at);
                    // Where the last record ended may have been the segment's end.
                    self.at = at;
                    segment_epoch(self.ring, &self.pin, sequence)?
                }
            };
            match record::state(self.ring, &self.pin, at) {
                WordState::Zero | WordState::Claimed(_) => return Ok(None),
                WordState::Committed(_) | WordState::Impossible => {}
            }
            let located = record::locate(self.ring, &self.pin, at, epoch)
                .filter(|located| located.verified)
                .ok_or_else(|| damaged(self.ring, at))?;
            self.entered = Some((sequence, located.epoch));
            self.at = located.end(geometry);
            if located.tag.kind() == Some(RecordKind::Data) {
                return Ok(Some(located));
            }
        }
    }

    /// Can nothing more come than what is there now?
    fn has_ended(&self) -> bool {
        if !self.ring.is_frozen() {
            return false;
        }
        let at = self.ring.geometry().normalize(self.at);
        at >= self.ring.reserved()
            || self.ring.is_finished()
            || (self.durable_only && self.ring.failure().is_some())
    }
}
