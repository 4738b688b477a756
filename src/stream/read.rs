//! Reading entries: of all streams, or of some, by the index.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::index::{Found, StreamIndex};
use crate::error::ReadError;
use crate::layout::Entry;
use crate::lsn::Lsn;
use crate::reader::{Located, Reader, Record, await_news, has_ended, wait_for_news};
use crate::stream_id::StreamId;
use crate::sync::{self, Backoff};

/// How many records are looked up at a time where the index does not reach.
const WALKED: usize = 256;

/// So many records before a record is read, memory is asked for it: those of one stream lie far
/// apart, and each would be waited for.
const AHEAD: usize = 8;

/// An entry, lent by the reader that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// Where its record starts; entries of one batch share it.
    pub lsn: Lsn,
    /// Where its record ends: the position to acknowledge or checkpoint, once all entries of the
    /// record have been applied.
    pub next_lsn: Lsn,
    /// The stream, if it belongs to one.
    pub stream: Option<StreamId>,
    /// The caller's bytes.
    pub payload: &'a [u8],
    /// Where it was appended first, if it was [moved](crate::Stream::move_forward).
    pub moved_from: Option<Lsn>,
}

/// An entry with a copy of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    /// As [`LogEntry::lsn`].
    pub lsn: Lsn,
    /// As [`LogEntry::next_lsn`].
    pub next_lsn: Lsn,
    /// As [`LogEntry::stream`].
    pub stream: Option<StreamId>,
    /// The caller's bytes.
    pub payload: Bytes,
    /// As [`LogEntry::moved_from`].
    pub moved_from: Option<Lsn>,
}

impl<'a> LogEntry<'a> {
    /// A record that is its own only entry.
    #[inline]
    fn whole(record: &Record<'a>) -> LogEntry<'a> {
        LogEntry {
            lsn: record.lsn(),
            next_lsn: record.next_lsn(),
            stream: record.stream(),
            payload: record.payload(),
            moved_from: record.moved_from(),
        }
    }
}

impl From<LogEntry<'_>> for OwnedEntry {
    fn from(entry: LogEntry<'_>) -> OwnedEntry {
        let LogEntry { lsn, next_lsn, stream, payload, moved_from } = entry;
        let payload = Bytes::copy_from_slice(payload);
        OwnedEntry { lsn, next_lsn, stream, payload, moved_from }
    }
}

/// Reads entries in the order of the log, each verified: of all streams, or of some of them.
///
/// It holds a pin, as a [`Reader`](crate::Reader) does. [`next`](EntryReader::next) lends one entry
/// at a time, [`next_timeout`](EntryReader::next_timeout) waits for one; as an [`Iterator`], by
/// [`copied`](EntryReader::copied), it yields copies.
///
/// # Example
///
/// ```
/// # use kaelix_wal::{Geometry, Options, Position, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// let (eu, us) = (wal.stream("orders.eu")?, wal.stream("orders.us")?);
/// eu.append(b"one")?;
/// us.append(b"two")?;
/// eu.append(b"three")?;
/// let mut reader = eu.read(Position::Oldest)?;
/// assert_eq!(reader.next()?.map(|entry| entry.payload), Some(&b"one"[..]));
/// assert_eq!(reader.next()?.map(|entry| entry.payload), Some(&b"three"[..]));
/// assert!(reader.next()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EntryReader<'w> {
    reader: Reader<'w>,
    selection: Option<Selection<'w>>,
    /// A batch with entries to come, and where in its payload the next one is looked for.
    current: Option<(Located, usize)>,
}

/// The streams that are read, and where their next records are.
struct Selection<'w> {
    index: &'w StreamIndex,
    /// In order.
    streams: Box<[StreamId]>,
    found: Vec<Found>,
    used: usize,
}

impl<'w> EntryReader<'w> {
    /// Reads all entries that `reader` finds.
    pub(crate) fn of_all(reader: Reader<'w>) -> EntryReader<'w> {
        EntryReader { reader, selection: None, current: None }
    }

    /// Reads the entries of `streams` from where `reader` stands.
    pub(crate) fn of_streams(
        reader: Reader<'w>,
        index: &'w StreamIndex,
        mut streams: Vec<StreamId>,
    ) -> EntryReader<'w> {
        streams.sort_unstable();
        streams.dedup();
        let streams = streams.into_boxed_slice();
        let selection = Selection { index, streams, found: Vec::new(), used: 0 };
        EntryReader { reader, selection: Some(selection), current: None }
    }

    /// Shows only entries that survive a power loss.
    #[must_use]
    pub fn durable_only(self) -> EntryReader<'w> {
        EntryReader { reader: self.reader.durable_only(), ..self }
    }

    /// Ends before the first record at or beyond `end`.
    #[must_use]
    pub fn until(self, end: Lsn) -> EntryReader<'w> {
        EntryReader { reader: self.reader.until(end), ..self }
    }

    /// Where the next entry is looked for: every record before has been handed out whole.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.current.map_or(self.reader.position(), |(located, _)| located.lsn)
    }

    /// The next entry; `None` if there is none (yet).
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if the record's bytes do not match its checksum; the reader stays
    /// in front of it.
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn next(&mut self) -> Result<Option<LogEntry<'_>>, ReadError> {
        let usual = match (&self.current, &mut self.selection) {
            (Some(_), _) => None,
            // The usual entry of all is the record that comes next.
            (None, None) => self.reader.step_as_usual(),
            (None, Some(selection)) => selection.step_as_usual(&mut self.reader),
        };
        if let Some(located) = usual {
            return Ok(Some(LogEntry {
                lsn: located.lsn,
                next_lsn: located.end(),
                stream: located.tag.stream(),
                payload: self.reader.lend(located).bytes(),
                moved_from: None,
            }));
        }
        self.next_anyhow()
    }

    #[cold]
    fn next_anyhow(&mut self) -> Result<Option<LogEntry<'_>>, ReadError> {
        let Some((located, offset)) = self.advance()? else {
            return Ok(None);
        };
        let record = self.reader.lend(located);
        if !located.is_batch() {
            return Ok(Some(LogEntry::whole(&record)));
        }
        let entry = record.entries_from(offset).next();
        Ok(entry.map(|Entry { stream, payload }| LogEntry {
            stream,
            payload,
            ..LogEntry::whole(&record)
        }))
    }

    /// The next entry, waiting for it at most `timeout`; `None` if none has come.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] at the end of a closed or poisoned log, [`ReadError::Damaged`] as for
    /// [`next`](EntryReader::next).
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<LogEntry<'_>>, ReadError> {
        let deadline = sync::now().checked_add(timeout);
        let backoff = Backoff::new();
        loop {
            // Before the look: what was committed by then is seen by it.
            let ended = has_ended(&self.reader);
            if let Some(place) = self.advance()? {
                // Given by `next`, which looks there first.
                self.current = Some(place);
                return self.next();
            }
            if ended {
                return Err(ReadError::Closed);
            }
            if !wait_for_news(&self.reader, &backoff, deadline) {
                return Ok(None);
            }
        }
    }

    /// An iterator that copies each entry out of the log.
    pub fn copied(self) -> Copied<'w> {
        Copied(self)
    }

    /// A [`futures_core::Stream`] of copies, for whatever runtime: it follows the log, and ends
    /// where that is closed or poisoned.
    pub fn followed(self) -> Followed<'w> {
        Followed { reader: self, ticket: None }
    }

    /// The record of the next entry to show, and where in its payload that entry begins.
    fn advance(&mut self) -> Result<Option<(Located, usize)>, ReadError> {
        loop {
            let (located, start) = match self.current.take() {
                Some(place) => place,
                None => match self.locate()? {
                    Some(located) => (located, 0),
                    None => return Ok(None),
                },
            };
            if !located.is_batch() {
                if self.is_selected(located.tag.stream()) && self.reader.shows(&located) {
                    return Ok(Some((located, 0)));
                }
                continue;
            }
            let record = self.reader.lend(located);
            let len = record.payload().len();
            let mut entries = record.entries_from(start);
            let mut offset = start;
            while let Some(entry) = entries.next() {
                let behind = len - entries.rest_len();
                if self.is_selected(entry.stream) {
                    self.current = (behind < len).then_some((located, behind));
                    return Ok(Some((located, offset)));
                }
                offset = behind;
            }
        }
    }

    fn is_selected(&self, stream: Option<StreamId>) -> bool {
        self.selection.as_ref().is_none_or(|selection| selection.holds(stream))
    }

    /// The next record that holds entries to show.
    fn locate(&mut self) -> Result<Option<Located>, ReadError> {
        let Some(selection) = &mut self.selection else {
            return self.reader.step();
        };
        loop {
            if selection.go_to_next(&mut self.reader) {
                let located = self.reader.step();
                let is_passed = matches!(located, Ok(Some(_)) | Err(ReadError::Gap { .. }));
                selection.used += usize::from(is_passed);
                return located;
            }
            if !selection.refill(&mut self.reader)? {
                return Ok(None);
            }
            for found in selection.found.iter().take(AHEAD) {
                self.reader.prefetch(found.lsn);
            }
        }
    }
}

impl Selection<'_> {
    fn holds(&self, stream: Option<StreamId>) -> bool {
        stream.is_some_and(|stream| self.streams.binary_search(&stream).is_ok())
    }

    /// Goes to the next record that is known of; false if there is none.
    #[inline]
    fn go_to_next(&self, reader: &mut Reader<'_>) -> bool {
        let Some(found) = self.found.get(self.used) else { return false };
        if let Some(later) = self.found.get(self.used + AHEAD) {
            reader.prefetch(later.lsn);
        }
        reader.skip_to(found.lsn, found.epoch);
        true
    }

    /// A step to the next record that is known of, if it is like most.
    #[inline]
    fn step_as_usual(&mut self, reader: &mut Reader<'_>) -> Option<Located> {
        if !self.go_to_next(reader) {
            return None;
        }
        let located = reader.step_as_usual()?;
        self.used += 1;
        Some(located).filter(|located| self.holds(located.tag.stream()))
    }

    /// Looks up what comes next; false if nothing does, for now.
    fn refill(&mut self, reader: &mut Reader<'_>) -> Result<bool, ReadError> {
        self.found.clear();
        self.used = 0;
        let ring = reader.ring();
        // The end of a segment is the start of the next: else there would be nothing to walk
        // between the two, and no end to it.
        let at = ring.geometry().normalize(reader.position());
        let (covered, followed) = self.index.look_so_far(ring, |index| {
            if at < index.start() {
                return Err(index.start());
            }
            index.find(&self.streams, at, &mut self.found);
            Ok(index.end())
        });
        match covered {
            Ok(_) if !self.found.is_empty() => Ok(true),
            Ok(end) => {
                reader.skip_to_place(end);
                followed.map(|()| false)
            }
            Err(start) => self.walk(reader, start).map(|()| true),
        }
    }

    /// Looks at record after record, where the index does not reach: below `end`.
    fn walk(&mut self, reader: &mut Reader<'_>, end: Lsn) -> Result<(), ReadError> {
        let mut walker = reader.fork()?.until(end);
        let walked = loop {
            match walker.step() {
                Ok(Some(located)) => {
                    if walker.lend(located).entries().any(|entry| self.holds(entry.stream)) {
                        self.found.push(Found { lsn: located.lsn, epoch: located.epoch });
                    }
                    if self.found.len() == WALKED {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                // The reader is told when it comes there.
                Err(ReadError::Gap { lsn, .. }) => {
                    self.found.push(Found { lsn, epoch: walker.place().epoch() });
                }
                Err(error) => break Err(error),
            }
        };
        if self.found.is_empty() {
            reader.skip_to_place(walker.place());
            return walked;
        }
        // What could not be read is met again, behind what was found.
        Ok(())
    }
}

impl fmt::Debug for EntryReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryReader").field("position", &self.position()).finish_non_exhaustive()
    }
}

/// Yields copies of the entries that an [`EntryReader`] finds, as they come.
///
/// # Example
///
/// ```
/// use futures_util::StreamExt;
/// # use kaelix_wal::{Geometry, Options, Position, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// let orders = wal.stream("orders")?;
/// orders.append(b"apples")?;
/// # pollster::block_on(async {
/// let mut followed = orders.read(Position::Oldest)?.followed();
/// let first = followed.next().await.expect("the log is open")?;
/// assert_eq!(&first.payload[..], b"apples");
/// # Ok::<(), kaelix_wal::ReadError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct Followed<'w> {
    reader: EntryReader<'w>,
    /// The place in the ring's list of tasks, once there is one.
    ticket: Option<u64>,
}

impl Followed<'_> {
    /// Where the next entry is looked for.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.reader.position()
    }
}

impl futures_core::Stream for Followed<'_> {
    type Item = Result<OwnedEntry, ReadError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<OwnedEntry, ReadError>>> {
        let Followed { reader, ticket } = &mut *self;
        loop {
            // Before the look: what was committed by then is seen by it.
            let ended = has_ended(&reader.reader);
            match reader.next() {
                Ok(Some(entry)) => return Poll::Ready(Some(Ok(entry.into()))),
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) if ended => return Poll::Ready(None),
                Ok(None) => {}
            }
            if await_news(&reader.reader, ticket, context.waker()) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.reader.reader.ring().tail_tasks.leave(ticket);
        }
    }
}

impl fmt::Debug for Followed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followed").field(&self.reader).finish()
    }
}

/// Yields copies of the entries that an [`EntryReader`] finds; ends where nothing more is found.
/// After an error it stays where it was.
pub struct Copied<'w>(EntryReader<'w>);

impl<'w> Copied<'w> {
    /// The reader, where the iterator stands.
    #[must_use]
    pub fn into_reader(self) -> EntryReader<'w> {
        self.0
    }
}

impl Iterator for Copied<'_> {
    type Item = Result<OwnedEntry, ReadError>;

    fn next(&mut self) -> Option<Result<OwnedEntry, ReadError>> {
        self.0.next().map(|entry| entry.map(OwnedEntry::from)).transpose()
    }
}

impl fmt::Debug for Copied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Copied").field(&self.0).finish()
    }
}
