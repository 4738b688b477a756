//! Transactions: entries gathered in memory, and committed as one batch.
//!
//! 1. Nothing is in the log before the commit, so a rollback has nothing to undo, and nobody can
//!    see a part. The batch is one record: after a crash all of it is there or nothing.
//! 2. Transactions are isolated by what they expect: that a stream's newest record is still the one
//!    that they have read. All versions that a commit looks at are held until it is in the log, so
//!    of two that expect the same, one succeeds.

use std::fmt;

use crate::batch::Batch;
use crate::error::{AppendError, Error};
use crate::layout::Entry;
use crate::layout::batch::entry_space;
use crate::lsn::Lsn;
use crate::stream::{Expected, Parts, Stream};

/// A transaction: appends to several streams, of which all take place or none.
///
/// Dropping it rolls it back. See [`Wal::begin`](crate::Wal::begin).
///
/// # Example
///
/// ```
/// # use kaelix_wal::{Geometry, Options, Position, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// let (from, to) = (wal.versioned_stream("account 1")?, wal.versioned_stream("account 2")?);
/// let mut transaction = wal.begin();
/// transaction.expect(&from, from.last_lsn()?)?;
/// transaction.append(&from, b"-10")?;
/// transaction.append(&to, b"+10")?;
/// assert_eq!(transaction.own(&to).count(), 1);
/// let lsn = transaction.commit_durable()?;
/// assert_eq!((from.last_lsn()?, to.last_lsn()?), (Some(lsn), Some(lsn)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction<'w> {
    parts: Parts<'w>,
    batch: Batch,
    expected: Expected,
}

impl<'w> Transaction<'w> {
    pub(crate) fn new(parts: Parts<'w>) -> Transaction<'w> {
        Transaction { parts, batch: Batch::new(), expected: Expected::new() }
    }

    /// Adds an entry to `stream`.
    ///
    /// # Errors
    ///
    /// [`AppendError::TooLarge`] if the transaction would not fit in a segment of the log. It stays
    /// as it was.
    ///
    /// # Panics
    ///
    /// If `stream` is of another log.
    pub fn append(&mut self, stream: &Stream<'_>, payload: &[u8]) -> Result<(), AppendError> {
        assert!(stream.is_of(&self.parts), "the stream is of another log");
        let len = self.batch.payload_len().saturating_add(entry_space(payload.len()));
        let max = self.parts.producer.ring().geometry().payload_len_max();
        if len > max {
            return Err(AppendError::TooLarge { len, max });
        }
        self.batch.push((stream.id(), payload));
        Ok(())
    }

    /// Says that the commit is to fail unless the newest record of `stream` is at `last` by then
    /// (`None`: unless it never had one). Said again, the last word counts.
    ///
    /// # Errors
    ///
    /// [`AppendError::NotVersioned`] if the stream is not under version control.
    ///
    /// # Panics
    ///
    /// If `stream` is of another log.
    pub fn expect(&mut self, stream: &Stream<'_>, last: Option<Lsn>) -> Result<(), AppendError> {
        assert!(stream.is_of(&self.parts), "the stream is of another log");
        if !stream.is_versioned() {
            return Err(AppendError::NotVersioned { stream: stream.id() });
        }
        self.expected.insert(stream.id(), last.unwrap_or(Lsn::ZERO));
        Ok(())
    }

    /// The entries that this transaction has added to `stream`, in order.
    pub fn own(&self, stream: &Stream<'_>) -> impl Iterator<Item = &[u8]> {
        let of_stream = move |entry: &Entry<'_>| entry.stream == Some(stream.id());
        self.batch.iter().filter(of_stream).map(|entry| entry.payload)
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Has it none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Commits: all entries are in the log, as one record, and visible to readers at once. Returns
    /// the record's LSN, which is the newest of every stream that was written to.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] if a stream is not where it was expected,
    /// [`AppendError::EmptyBatch`] if there are no entries, and those of
    /// [`Wal::reserve`](crate::Wal::reserve). Nothing is in the log then.
    pub fn commit(self) -> Result<Lsn, AppendError> {
        let Parts { producer, streams, .. } = self.parts;
        streams.commit(producer, &self.batch, &self.expected)
    }

    /// Commits, and waits until the transaction survives a power loss.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Transaction::commit); and those of
    /// [`Wal::wait_durable`](crate::Wal::wait_durable), after which the transaction is in the log
    /// but may be lost, as a whole.
    pub fn commit_durable(self) -> Result<Lsn, Error> {
        let (parts, len) = (self.parts, self.batch.payload_len());
        let lsn = self.commit()?;
        parts.wait_own(lsn, len)?;
        Ok(lsn)
    }

    /// Gives it up, as dropping does.
    pub fn rollback(self) {}
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("batch", &self.batch)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}
