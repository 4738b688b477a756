//! Reading records back: by position, in order, and as they come.
//!
//! 1. A reader needs no watermark: it looks at the commit word at its own position, after checking
//!    that the segment there is prepared. Acquiring a committed word acquires the record. (Only
//!    where there is none it looks at `published`: below that, its absence is damage.)
//! 2. Every record is verified against its checksum before it is handed out.
//! 3. A view into the ring lives only under a pin. A reader's pin follows it segment by segment.

mod record;
mod segment;
pub(crate) mod since;
mod tail;

use crate::error::ReadError;
use crate::geometry::FIRST_RECORD;
use crate::layout::record::{CONTROL_GAP, WordState, aligned_len};
use crate::layout::{SegmentHeader, SegmentHeaderEvidence};
use crate::lsn::Lsn;
use crate::ring::{PINS_MAX, Pin, PinRefusal, Ring};

pub use record::{PinnedRecord, Record};
pub(crate) use segment::walk as walk_segment;
pub use tail::Tail;

use record::Entered;
pub(crate) use record::Located;
pub(crate) use tail::{await_news, has_ended, wait_for_news};

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

/// Pins the position that `find` finds. If that was released in the meantime (at full speed, a ring
/// goes round in a moment), it is another one by now.
pub(crate) fn pin_found(
    ring: &Ring,
    mut find: impl FnMut() -> Lsn,
) -> Result<(Pin<'_>, Lsn), ReadError> {
    loop {
        let lsn = find();
        match pin(ring, lsn) {
            Ok(pin) => return Ok((pin, lsn)),
            Err(ReadError::Trimmed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
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
        end = ring.publish_for(lsn);
        if lsn >= end {
            return Err(ReadError::NotYet { lsn, end });
        }
    }
    let located = locate_published(ring, &pin, lsn, end)?;
    if !located.tag.is_callers() {
        return Err(ReadError::NotARecord { lsn });
    }
    Ok(PinnedRecord::new(ring, pin, located))
}

/// The record at `lsn`, which is pinned and below `published`. A checksum that matches, and covers
/// the position, proves that a record starts there: only who has none walks.
fn locate_published(
    ring: &Ring,
    pin: &Pin<'_>,
    lsn: Lsn,
    published: Lsn,
) -> Result<Located, ReadError> {
    let mut entered = Entered::new(ring, ring.geometry().sequence(lsn), ring.identity().epoch);
    let located = record::locate_published(ring, pin, &mut entered, lsn, published);
    match located.filter(|located| located.verified) {
        Some(located) => Ok(located),
        None => locate_of_any_epoch(ring, pin, lsn, published),
    }
}

/// The record at `lsn`, if it is not of the current epoch; else the reason why it is none.
fn locate_of_any_epoch(
    ring: &Ring,
    pin: &Pin<'_>,
    lsn: Lsn,
    published: Lsn,
) -> Result<Located, ReadError> {
    let mut entered = enter(ring, pin, ring.geometry().sequence(lsn))?;
    let located = record::locate_published(ring, pin, &mut entered, lsn, published);
    match located.filter(|located| located.verified) {
        Some(located) => Ok(located),
        None => locate_at_boundary(ring, pin, lsn),
    }
}

/// The record at `lsn`, which is pinned and published, found by walking from its segment's start:
/// tells a damaged record from a position inside one.
fn locate_at_boundary(ring: &Ring, pin: &Pin<'_>, lsn: Lsn) -> Result<Located, ReadError> {
    let sequence = ring.geometry().sequence(lsn);
    let mut at = ring.geometry().first_record(sequence).max(ring.trimmed());
    // What lies below the pin may be recycled; its own segment is not.
    let mut entered = enter(ring, pin, sequence)?;
    while at < lsn {
        let Some(located) = record::locate(ring, pin, &mut entered, at) else {
            return Err(damaged(ring, at));
        };
        at = located.end();
    }
    if at != lsn {
        return Err(match ring.trimmed() {
            oldest if oldest > lsn => ReadError::Trimmed { lsn, oldest },
            _ => ReadError::NotARecord { lsn },
        });
    }
    let located = record::locate(ring, pin, &mut entered, lsn);
    located.filter(|located| located.verified).ok_or_else(|| damaged(ring, lsn))
}

/// Is a record committed at `at`, where one starts, as far as its first word says? Below what is
/// published one was, and not to find it is damage.
fn is_committed(ring: &Ring, pin: &Pin<'_>, entered: &Entered, at: Lsn) -> Result<bool, ReadError> {
    let state = || record::state(ring, pin, entered, at);
    let is_there = || !matches!(state(), WordState::Zero | WordState::Claimed(_));
    if is_there() {
        return Ok(true);
    }
    if at >= ring.published() {
        return Ok(false);
    }
    // It may have been committed, and published, since the first look.
    if is_there() { Ok(true) } else { Err(damaged(ring, at)) }
}

fn damaged(ring: &Ring, lsn: Lsn) -> ReadError {
    ReadError::Damaged {
        lsn,
        file_offset: ring.geometry().file_offset(lsn),
        reason: "its checksum does not match its bytes",
    }
}

/// Enters a pinned segment, at its start.
fn enter(ring: &Ring, pin: &Pin<'_>, sequence: u32) -> Result<Entered, ReadError> {
    let header = verified_header(ring, pin, sequence)?;
    Ok(Entered::new(ring, sequence, header.epoch))
}

/// The header of a pinned segment.
fn verified_header(ring: &Ring, pin: &Pin<'_>, sequence: u32) -> Result<SegmentHeader, ReadError> {
    let geometry = ring.geometry();
    let bytes = record::segment_header(ring, pin, sequence);
    let base = geometry.lsn(sequence, 0);
    match SegmentHeader::verify(bytes, &ring.identity().log_id, sequence, base) {
        SegmentHeaderEvidence::Expected(header) => Ok(header),
        _ => Err(ReadError::Damaged {
            lsn: base,
            file_offset: geometry.segment_offset(sequence),
            reason: "its segment header does not verify",
        }),
    }
}

/// Where to start so that no record is missed that was appended at or after a time, in Unix
/// milliseconds of the clock that prepared the segments.
pub(crate) fn since(ring: &Ring, unix_ms: u64) -> Result<Position, ReadError> {
    let reader = Reader::new(ring, Position::Oldest)?;
    let geometry = ring.geometry();
    let first = geometry.sequence(geometry.normalize(reader.at));
    since::start(geometry, first..=ring.active_sequence(), unix_ms, |sequence| {
        verified_header(ring, &reader.pin, sequence).map(|header| header.prepared_unix_ms)
    })
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
    let end = ring.publish_for(lsn);
    if lsn == end || lsn == ring.trimmed() {
        return Ok(lsn);
    }
    if lsn > end {
        return Err(ReadError::NotYet { lsn, end });
    }
    locate_published(ring, &pin, lsn, end).map(|_| lsn)
}

/// As [`check_boundary`], for a caller who knows that `known`, below, is such a place. It looks at
/// headers alone, of the records between the two that lie in the segment of `lsn`.
pub(crate) fn check_boundary_behind(ring: &Ring, known: Lsn, lsn: Lsn) -> Result<Lsn, ReadError> {
    let geometry = ring.geometry();
    let (sequence, offset) = geometry.split(lsn);
    if !lsn.get().is_multiple_of(16) || offset < FIRST_RECORD || offset > geometry.record_end() {
        return Err(ReadError::NotARecord { lsn });
    }
    let pin = pin(ring, lsn)?;
    let mut end = ring.published();
    if lsn > end {
        end = ring.publish_for(lsn);
    }
    if lsn > end {
        return Err(ReadError::NotYet { lsn, end });
    }
    // The pin keeps all of its segment, which starts with a record.
    let mut at = geometry.first_record(sequence).max(known);
    // The epoch does not matter to those who look at lengths alone.
    let entered = Entered::new(ring, sequence, ring.identity().epoch);
    while at < lsn {
        let WordState::Committed(len) = record::state(ring, &pin, &entered, at) else {
            return Err(damaged(ring, at));
        };
        at = at + u64::from(aligned_len(len));
    }
    if geometry.normalize(at) == geometry.normalize(lsn) {
        Ok(geometry.normalize(lsn))
    } else {
        Err(ReadError::NotARecord { lsn })
    }
}

/// When segment `sequence`, which is retained or prepared, was prepared, by the wall clock of then;
/// `None` if its header does not verify.
pub(crate) fn prepared_unix_ms(ring: &Ring, sequence: u32) -> Option<u64> {
    let geometry = ring.geometry();
    let pin = ring.pin(geometry.first_record(sequence), true).ok()?;
    let bytes = record::segment_header(ring, &pin, sequence);
    let base = geometry.lsn(sequence, 0);
    match SegmentHeader::verify(bytes, &ring.identity().log_id, sequence, base) {
        SegmentHeaderEvidence::Expected(header) => Some(header.prepared_unix_ms),
        _ => None,
    }
}

/// Where a reader stands: the position, and the segment that it has entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) at: Lsn,
    entered: Option<Entered>,
}

impl Place {
    /// The epoch of the record before.
    pub(crate) fn epoch(&self) -> u64 {
        self.entered.map_or(0, |entered| entered.epoch())
    }

    /// At a record's start, or where the next one will be.
    pub(crate) fn at(lsn: Lsn) -> Place {
        Place { at: lsn, entered: None }
    }
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
    /// Copies of records below this are shown: it is where the reader began, if that was the oldest
    /// record.
    copied_below: Lsn,
    /// The segment that was entered.
    entered: Option<Entered>,
}

impl<'w> Reader<'w> {
    pub(crate) fn new(ring: &'w Ring, from: Position) -> Result<Reader<'w>, ReadError> {
        let (pin, at) = match from {
            Position::At(lsn) => {
                let lsn = check_boundary(ring, lsn)?;
                (pin(ring, lsn)?, lsn)
            }
            Position::Newest => pin_found(ring, || ring.publish())?,
            Position::Oldest => pin_found(ring, || ring.trimmed())?,
        };
        // What was released before we stood there has its copy shown; the rest, ourselves.
        let copied_below = match from {
            Position::Oldest => at,
            Position::At(_) if at == ring.trimmed() => at,
            _ => Lsn::ZERO,
        };
        let until = Lsn::new(u64::MAX);
        Ok(Reader { ring, pin, at, until, durable_only: false, copied_below, entered: None })
    }

    /// Shows no copies: what they are copies of has been processed.
    pub(crate) fn without_copies(self) -> Reader<'w> {
        Reader { copied_below: Lsn::ZERO, ..self }
    }

    /// Shows all copies, also of records that it shows.
    pub(crate) fn with_copies(self) -> Reader<'w> {
        Reader { copied_below: Lsn::new(u64::MAX), ..self }
    }

    /// Is the record that `step` has found to be shown? A [moved](crate::Stream::move_forward) one
    /// is, unless what it was copied from was.
    #[inline]
    pub(crate) fn shows(&self, located: &Located) -> bool {
        !located.tag.is_moved() || self.shows_copy(*located)
    }

    #[cold]
    fn shows_copy(&self, located: Located) -> bool {
        let origin = self.lend(located).origin();
        origin.is_none_or(|origin| origin.previous < self.copied_below)
    }

    /// As `step`, to a record that is to be shown.
    #[inline]
    pub(crate) fn step_to_shown(&mut self) -> Result<Option<Located>, ReadError> {
        match self.step_as_usual() {
            Some(located) => Ok(Some(located)),
            None => self.step_to_shown_anyhow(),
        }
    }

    #[cold]
    fn step_to_shown_anyhow(&mut self) -> Result<Option<Located>, ReadError> {
        loop {
            match self.step()? {
                Some(located) if !self.shows(&located) => {}
                found => return Ok(found),
            }
        }
    }

    /// Goes on where another reader stood. `None` if what was there has been released.
    pub(crate) fn resume(ring: &'w Ring, place: Place) -> Result<Option<Reader<'w>>, ReadError> {
        let Place { at, entered } = place;
        match pin(ring, ring.geometry().normalize(at)) {
            Ok(pin) => {
                let until = Lsn::new(u64::MAX);
                let (durable_only, copied_below) = (false, until);
                Ok(Some(Reader { ring, pin, at, until, durable_only, copied_below, entered }))
            }
            Err(ReadError::Trimmed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the reader stands.
    pub(crate) fn place(&self) -> Place {
        Place { at: self.at, entered: self.entered }
    }

    /// Goes forward to `lsn`, where a record of epoch `epoch` starts.
    pub(crate) fn skip_to(&mut self, lsn: Lsn, epoch: u64) {
        debug_assert!(lsn >= self.at);
        self.entered = Some(match self.entered {
            Some(entered) if entered.holds(lsn) => entered.with_epoch(self.ring, epoch),
            _ => {
                self.pin.advance(lsn);
                Entered::new(self.ring, self.ring.geometry().sequence(lsn), epoch)
            }
        });
        self.at = lsn;
    }

    /// Asks memory for the record at `lsn`, which is going to be read soon.
    #[inline]
    pub(crate) fn prefetch(&self, lsn: Lsn) {
        self.ring.region().prefetch(self.ring.geometry().file_offset(lsn));
    }

    /// Goes forward to `place`, where another reader has found the end.
    pub(crate) fn skip_to_place(&mut self, place: Place) {
        if place.at > self.at {
            self.pin.advance(self.ring.geometry().normalize(place.at));
            (self.at, self.entered) = (place.at, place.entered);
        }
    }

    /// Another reader, at the same place.
    pub(crate) fn fork(&self) -> Result<Reader<'w>, ReadError> {
        let pin = self.ring.pin_again(&self.pin, self.ring.geometry().normalize(self.at));
        let pin = pin.ok_or(ReadError::TooManyPins { max: PINS_MAX })?;
        Ok(Reader { pin, until: Lsn::new(u64::MAX), durable_only: false, ..*self })
    }

    /// A view of what `step` has found last.
    #[inline]
    pub(crate) fn lend(&self, located: Located) -> Record<'_> {
        Record::new(self.ring, &self.pin, located)
    }

    pub(crate) fn ring(&self) -> &'w Ring {
        self.ring
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
    /// in front of it. [`ReadError::Gap`] where a repair has left one; the reader goes on behind
    /// it.
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let located = self.step_to_shown()?;
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
        let Some(located) = self.step_to_shown()? else {
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
    #[inline]
    pub(crate) fn step(&mut self) -> Result<Option<Located>, ReadError> {
        match self.step_as_usual() {
            Some(located) => Ok(Some(located)),
            None => self.step_anyhow(),
        }
    }

    /// A step to a record that is like most, in a segment that is entered.
    #[inline(always)]
    pub(crate) fn step_as_usual(&mut self) -> Option<Located> {
        let at = self.at;
        let entered = self.entered.as_ref().filter(|entered| entered.holds(at))?;
        if at >= self.until || (self.durable_only && at >= self.ring.durable()) {
            return None;
        }
        let located = record::locate_usual(self.ring, &self.pin, entered, at)?;
        self.at = located.end();
        Some(located)
    }

    /// A step to whatever comes.
    #[cold]
    fn step_anyhow(&mut self) -> Result<Option<Located>, ReadError> {
        loop {
            let inside = self.entered.filter(|entered| entered.holds(self.at));
            let at = match inside {
                Some(_) => self.at,
                None => self.ring.geometry().normalize(self.at),
            };
            if at >= self.until || (self.durable_only && at >= self.ring.durable()) {
                return Ok(None);
            }
            let mut entered = match inside {
                Some(entered) => entered,
                None => match self.enter_at(at)? {
                    Some(entered) => entered,
                    None => return Ok(None),
                },
            };
            let Some(located) = record::locate(self.ring, &self.pin, &mut entered, at) else {
                match record::state(self.ring, &self.pin, &entered, at) {
                    // In between.
                    WordState::Committed(_) => continue,
                    WordState::Impossible => return Err(damaged(self.ring, at)),
                    WordState::Zero | WordState::Claimed(_) => {}
                }
                if is_committed(self.ring, &self.pin, &entered, at)? {
                    continue;
                }
                return Ok(None);
            };
            if !located.verified {
                return Err(damaged(self.ring, at));
            }
            (self.at, self.entered) = (located.end(), Some(entered));
            if located.tag.is_callers() {
                return Ok(Some(located));
            }
            if located.tag.is_control(CONTROL_GAP) {
                let next = self.ring.geometry().normalize(self.at);
                return Err(ReadError::Gap { lsn: at, next });
            }
        }
    }

    /// Enters the segment of `at`, and moves the pin and the reader there; `None` if it is not
    /// prepared.
    #[cold]
    fn enter_at(&mut self, at: Lsn) -> Result<Option<Entered>, ReadError> {
        let sequence = self.ring.geometry().sequence(at);
        if u64::from(sequence) >= self.ring.prepared() {
            return Ok(None);
        }
        self.pin.advance(at);
        // Where the last record ended may have been the segment's end.
        self.at = at;
        enter(self.ring, &self.pin, sequence).map(Some)
    }
}
