//! Streams: independent sequences of entries in one log, each known by its name.

mod catalog;
mod index;
mod mover;
mod read;
mod streams;
mod version;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::durability::Durable;
use crate::error::{AppendError, CatalogError, Error, ReadError, WaitError};
use crate::geometry::RECORD_HEADER_LEN;
use crate::layout::RecordKind;
use crate::layout::record::aligned_len;
use crate::lsn::Lsn;
use crate::producer::Producer;
use crate::reader::{Position, Reader};
use crate::ring::{Label, Reservation};
use crate::stream_id::{StreamFlags, StreamId};
use crate::sync::Arc;

#[cfg(feature = "fuzzing")]
pub(crate) use catalog::fuzzing;
pub(crate) use catalog::{Catalog, RawCatalog};
#[cfg(any(test, feature = "simulation"))]
pub(crate) use catalog::{Files as CatalogFiles, Side};
pub use mover::Moved;
pub use read::{Copied, EntryReader, Followed, LogEntry, OwnedEntry};
pub(crate) use streams::{Expected, Streams};

use streams::conflict;
use version::{Hold, Version};

/// What handles to streams, and transactions, need of their log.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'w> {
    pub(crate) producer: &'w Producer,
    pub(crate) durable: &'w Durable,
    pub(crate) streams: &'w Streams,
}

/// A stream of a log: the entries that were appended to it, by whatever handle, alone or in
/// batches.
///
/// A handle is cheap, and may be cloned; appending by it costs what [`Wal::append`] costs, but for
/// a stream under version control. Those who append to one of these take turns from the look at its
/// version to the commit.
///
/// [`Wal::append`]: crate::Wal::append
///
/// # Example
///
/// ```
/// # use kaelix_wal::{AppendError, Geometry, Options, Position, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// let orders = wal.stream("orders")?;
/// orders.append(b"apples")?;
/// assert_eq!(orders.len()?, 1);
///
/// let account = wal.versioned_stream("account 7")?;
/// let first = account.append_if(None, b"opened")?;
/// // Somebody who believes that there is nothing yet:
/// let refused = account.append_if(None, b"opened");
/// assert!(matches!(refused, Err(AppendError::Conflict { actual, .. }) if actual == Some(first)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Stream<'w> {
    parts: Parts<'w>,
    id: StreamId,
    label: Label,
    version: Option<Arc<Version>>,
}

impl<'w> Parts<'w> {
    /// Opens or creates streams: each as it is if it is there, unless `exactly` as `flags` says.
    pub(crate) fn open_streams(
        self,
        names: &[&str],
        flags: StreamFlags,
        exactly: bool,
    ) -> Result<Vec<Stream<'w>>, CatalogError> {
        let found = self.streams.open(names, flags, exactly)?;
        found.into_iter().map(|(id, is_versioned)| self.handle(id, is_versioned)).collect()
    }

    pub(crate) fn handle(
        self,
        id: StreamId,
        is_versioned: bool,
    ) -> Result<Stream<'w>, CatalogError> {
        let label = self.producer.ring().label(RecordKind::Data, Some(id), 0);
        let version = if is_versioned { self.streams.version(id)? } else { None };
        Ok(Stream { parts: self, id, label, version })
    }

    /// Waits until the calling thread's own record at `lsn`, with a payload of `len` bytes,
    /// survives a power loss.
    pub(crate) fn wait_own(self, lsn: Lsn, len: usize) -> Result<(), WaitError> {
        let space = aligned_len((len + RECORD_HEADER_LEN) as u32);
        let end = self.streams.ring().geometry().normalize(lsn + u64::from(space));
        self.durable.wait_own(lsn, end)
    }

    /// Reads the entries of `streams`.
    pub(crate) fn read_streams(
        self,
        streams: Vec<StreamId>,
        from: Position,
    ) -> Result<EntryReader<'w>, ReadError> {
        let reader = Reader::new(self.streams.ring(), from)?;
        Ok(EntryReader::of_streams(reader, &self.streams.index, streams))
    }
}

impl<'w> Stream<'w> {
    /// Is it a stream of the log that `parts` are of?
    pub(crate) fn is_of(&self, parts: &Parts<'_>) -> bool {
        std::ptr::eq(self.parts.streams, parts.streams)
    }

    /// The stream's number in its log.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> String {
        let name =
            self.parts.streams.with_catalog(|catalog| catalog.name(self.id).map(str::to_owned));
        name.flatten().unwrap_or_default()
    }

    /// Is the stream under version control?
    #[must_use]
    pub fn is_versioned(&self) -> bool {
        self.version.is_some()
    }

    /// Appends an entry; returns its LSN. As [`Wal::append`](crate::Wal::append).
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append`](crate::Wal::append).
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        match &self.version {
            None => self.parts.producer.append(&self.label, payload),
            Some(version) => self.append_under(self.hold(version)?, payload),
        }
    }

    /// Appends an entry if the stream's newest record is at `expected` (`None`: if the stream never
    /// had one). Of several who expect the same, one succeeds.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] with the actual LSN, [`AppendError::NotVersioned`] if the stream
    /// is not under version control, and those of [`append`](Stream::append). Nothing is appended
    /// then.
    pub fn append_if(&self, expected: Option<Lsn>, payload: &[u8]) -> Result<Lsn, AppendError> {
        let version = self.version.as_ref().ok_or(AppendError::NotVersioned { stream: self.id })?;
        let hold = self.hold(version)?;
        let expected = expected.unwrap_or(Lsn::ZERO);
        if hold.last() != expected {
            return Err(conflict(self.id, expected, hold.last()));
        }
        self.append_under(hold, payload)
    }

    fn hold<'a>(&'a self, version: &'a Version) -> Result<Hold<'a>, AppendError> {
        self.parts.streams.hold(self.id, version)
    }

    fn append_under(&self, mut hold: Hold<'_>, payload: &[u8]) -> Result<Lsn, AppendError> {
        let lsn = self.parts.producer.append(&self.label, payload)?;
        hold.advance(lsn);
        Ok(lsn)
    }

    /// Appends an entry and waits until it survives a power loss.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append_durable`](crate::Wal::append_durable).
    pub fn append_durable(&self, payload: &[u8]) -> Result<Lsn, Error> {
        let lsn = self.append(payload)?;
        self.parts.wait_own(lsn, payload.len())?;
        Ok(lsn)
    }

    /// Reserves space for an entry of `len` bytes, as [`Wal::reserve`](crate::Wal::reserve). A
    /// stream under version control takes no other entry until it is committed or dropped.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::reserve`](crate::Wal::reserve), and [`AppendError::StreamHeld`] if a stream
    /// under version control is held by another reservation (perhaps the caller's own).
    pub fn reserve(&self, len: usize) -> Result<StreamReservation<'_>, AppendError> {
        self.reserve_until(len, None)
    }

    /// As [`reserve`](Stream::reserve), waiting for space no longer than until `deadline`.
    ///
    /// # Errors
    ///
    /// At the deadline, those of [`Wal::reserve_deadline`](crate::Wal::reserve_deadline); and
    /// those of [`reserve`](Stream::reserve).
    pub fn reserve_deadline(
        &self,
        len: usize,
        deadline: Instant,
    ) -> Result<StreamReservation<'_>, AppendError> {
        self.reserve_until(len, Some(deadline))
    }

    fn reserve_until(
        &self,
        len: usize,
        deadline: Option<Instant>,
    ) -> Result<StreamReservation<'_>, AppendError> {
        let hold = self.version.as_ref().map(|version| self.hold(version)).transpose()?;
        let reservation = self.parts.producer.reserve(self.label, len, deadline)?;
        Ok(StreamReservation { reservation, hold })
    }

    /// The LSN of the stream's newest record; `None` if it has none that is retained (under version
    /// control: if it never had one).
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if the log is.
    pub fn last_lsn(&self) -> Result<Option<Lsn>, ReadError> {
        let last = match &self.version {
            Some(version) => version.last(),
            None => {
                let streams = self.parts.streams;
                let newest = streams.index.look(streams.ring(), |index| index.newest(self.id))?;
                if newest < streams.ring().trimmed() { Lsn::ZERO } else { newest }
            }
        };
        Ok(Some(last).filter(|last| *last != Lsn::ZERO))
    }

    /// How many of the stream's entries are retained.
    ///
    /// # Errors
    ///
    /// As [`last_lsn`](Stream::last_lsn).
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> Result<u64, ReadError> {
        let streams = self.parts.streams;
        let oldest = streams.ring().trimmed();
        let counted = streams.index.look(streams.ring(), |index| {
            (index.start() <= oldest).then(|| index.count(self.id, oldest))
        })?;
        if let Some(count) = counted {
            return Ok(count);
        }
        let (mut reader, mut count) = (self.read(Position::Oldest)?, 0);
        loop {
            match reader.next() {
                Ok(Some(_)) => count += 1,
                Ok(None) => return Ok(count),
                Err(ReadError::Gap { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the stream's entries, in order.
    ///
    /// # Errors
    ///
    /// As [`Wal::reader`](crate::Wal::reader).
    pub fn read(&self, from: Position) -> Result<EntryReader<'w>, ReadError> {
        self.parts.read_streams(vec![self.id], from)
    }

    /// Reads what is appended to the stream from now on: see
    /// [`next_timeout`](EntryReader::next_timeout).
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn tail(&self) -> Result<EntryReader<'w>, ReadError> {
        self.read(Position::Newest)
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("name", &self.name()).finish()
    }
}

/// As a [`Reservation`], of an entry of a stream: a zeroed `&mut [u8]` in the log, and an
/// [`io::Write`] that fills it from the front.
pub struct StreamReservation<'a> {
    // Dropped first: the space is given up before others may append.
    reservation: Reservation<'a>,
    hold: Option<Hold<'a>>,
}

impl<'a> StreamReservation<'a> {
    /// As [`Reservation::lsn`].
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.reservation.lsn()
    }

    /// As [`Reservation::commit`].
    pub fn commit(self) -> Lsn {
        self.finish(Reservation::commit)
    }

    /// As [`Reservation::commit_len`].
    ///
    /// # Panics
    ///
    /// If `len` is more than was reserved.
    pub fn commit_len(self, len: usize) -> Lsn {
        self.finish(|reservation| reservation.commit_len(len))
    }

    /// As [`Reservation::commit_written`].
    pub fn commit_written(self) -> Lsn {
        self.finish(Reservation::commit_written)
    }

    fn finish(self, commit: impl FnOnce(Reservation<'a>) -> Lsn) -> Lsn {
        let StreamReservation { reservation, hold } = self;
        let lsn = commit(reservation);
        if let Some(mut hold) = hold {
            hold.advance(lsn);
        }
        lsn
    }
}

impl Deref for StreamReservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.reservation
    }
}

impl DerefMut for StreamReservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.reservation
    }
}

impl io::Write for StreamReservation<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reservation.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.reservation.flush()
    }
}

impl fmt::Debug for StreamReservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reservation.fmt(f)
    }
}
