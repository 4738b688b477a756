//! Consumers: named positions in a log, kept with it.
//!
//! 1. A consumer's position says that everything below has been processed. It is written behind its
//!    acknowledgements, never ahead, and never beyond what is durable: after a crash a consumer
//!    reads some records again, and misses none (at least once).
//! 2. A position is an LSN with its epoch. Recovery gives the LSNs above a cut to other records, so
//!    a position beyond a cut is refused until its owner resets it.
//! 3. What consumers have not acknowledged is kept, if the retention says so. Nothing of this is on
//!    the append path.

mod age;
mod blocker;
mod history;
mod register;
pub(crate) mod store;

use std::fmt;

use crate::error::ConsumerError;
use crate::lsn::{EpochLsn, Lsn};
use crate::reader::{Position, Reader, Tail};

pub use blocker::Blocker;
pub(crate) use blocker::find as find_blocker;
pub(crate) use register::Consumers;
use register::Entry;

/// How far a consumer is behind, in bytes of log: payloads, headers and what fills up segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// From its position to the end of the published records.
    pub bytes: u64,
    /// Of what it has acknowledged, how much is not written yet: a crash now would repeat it.
    pub unsaved_bytes: u64,
    /// How much of what it has not acknowledged is released already, and can be read no more.
    pub released_bytes: u64,
}

/// A consumer, as [`Wal::consumers`](crate::Wal::consumers) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStat {
    /// Its name.
    pub name: String,
    /// Everything below has been processed.
    pub position: EpochLsn,
    /// How far it is behind; from the cut, if it is cut.
    pub lag: Lag,
    /// Recovery cut the log below its position when this epoch began: it has to be
    /// [reset](crate::Wal::reset_consumer).
    pub cut: Option<EpochLsn>,
}

/// A named position in a log.
///
/// Handles to one consumer share its position; acknowledgements only advance it. To process each
/// record at least once, read from here, and acknowledge what is processed.
///
/// # Example
///
/// ```
/// # use kaelix_wal::{Geometry, Options, Retention, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// let options = Options::new().retention(Retention::Consumers);
/// let wal = Wal::create(dir.path().join("log"), geometry, options)?;
/// let billing = wal.consumer("billing")?;
/// wal.append(b"one order")?;
///
/// let mut reader = billing.reader()?;
/// while let Some(record) = reader.next()? {
///     // ... charge it, then:
///     billing.ack(record.next_lsn())?;
/// }
/// wal.sync()?;
/// wal.sync_consumers()?; // after this, no crash repeats it
/// assert_eq!(billing.lag()?.unsaved_bytes, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Consumer<'w> {
    consumers: &'w Consumers,
    name: String,
}

impl<'w> Consumer<'w> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything below has been processed. The epoch is the running one, unless the position was
    /// cut: it may be kept elsewhere, and [checked](crate::Wal::check_position) later.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Unknown`] if it was removed.
    pub fn position(&self) -> Result<EpochLsn, ConsumerError> {
        let (entry, epoch) = self.consumers.get(&self.name)?;
        Ok(stat(self.consumers, String::new(), &entry, epoch).position)
    }

    /// Reads what it has not acknowledged.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Cut`]; [`ReadError::Trimmed`](crate::ReadError::Trimmed), in
    /// [`ConsumerError::Read`], if the position has been released; [`ConsumerError::Unknown`].
    pub fn reader(&self) -> Result<Reader<'w>, ConsumerError> {
        self.consumers.reader(&self.name)
    }

    /// As [`reader`](Consumer::reader), waiting for more.
    ///
    /// # Errors
    ///
    /// As `reader`.
    pub fn tail(&self) -> Result<Tail<'w>, ConsumerError> {
        let at = self.consumers.reader(&self.name)?.position();
        Ok(Tail::new(self.consumers.ring(), Position::At(at))?.without_copies())
    }

    /// Says that everything below `lsn`, a record's [`next_lsn`](crate::Record::next_lsn), has been
    /// processed. A lower position than before changes nothing.
    ///
    /// It is remembered in memory, and written in the background within about a second, once what
    /// was acknowledged is durable: what a crash takes is read again. To have it written now, call
    /// [`Wal::sync_consumers`](crate::Wal::sync_consumers). Costs a look at the header of each
    /// record acknowledged, at most those of one segment.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotARecord`](crate::ReadError::NotARecord) or
    /// [`ReadError::NotYet`](crate::ReadError::NotYet), in [`ConsumerError::Read`], if that is no
    /// record boundary; [`ConsumerError::Cut`], [`ConsumerError::Unknown`],
    /// [`ConsumerError::Closed`].
    pub fn ack(&self, lsn: Lsn) -> Result<(), ConsumerError> {
        self.consumers.ack(&self.name, lsn)
    }

    /// How far it is behind.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Unknown`] if it was removed.
    pub fn lag(&self) -> Result<Lag, ConsumerError> {
        let (entry, _) = self.consumers.get(&self.name)?;
        Ok(self.consumers.lag(&entry))
    }
}

impl fmt::Debug for Consumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).finish_non_exhaustive()
    }
}

fn stat(consumers: &Consumers, name: String, entry: &Entry, epoch: u64) -> ConsumerStat {
    let (position, cut) = match entry.cut {
        Some((position, by)) => (position, Some(by)),
        None => (EpochLsn { epoch, lsn: entry.acked }, None),
    };
    ConsumerStat { name, position, lag: consumers.lag(entry), cut }
}

impl Consumers {
    /// See [`Wal::consumer_at`](crate::Wal::consumer_at).
    pub(crate) fn consumer(
        &self,
        name: &str,
        from: Position,
    ) -> Result<Consumer<'_>, ConsumerError> {
        self.open(name, from)?;
        Ok(Consumer { consumers: self, name: name.to_owned() })
    }

    /// See [`Wal::reset_consumer`](crate::Wal::reset_consumer).
    pub(crate) fn reset_consumer(&self, name: &str, to: Position) -> Result<(), ConsumerError> {
        self.reset(name, to)
    }

    /// See [`Wal::remove_consumer`](crate::Wal::remove_consumer).
    pub(crate) fn remove_consumer(&self, name: &str) -> Result<(), ConsumerError> {
        self.remove(name)
    }

    /// See [`Wal::consumers`](crate::Wal::consumers).
    pub(crate) fn stats(&self) -> Vec<ConsumerStat> {
        let list = self.list().into_iter();
        list.map(|(name, entry, epoch)| stat(self, name, &entry, epoch)).collect()
    }

    /// See [`Wal::check_position`](crate::Wal::check_position).
    pub(crate) fn check_position(&self, position: EpochLsn) -> Result<(), ConsumerError> {
        self.check(position)
    }
}
