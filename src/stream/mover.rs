//! Moving the tail of a quiet stream forward, so that it does not keep the ring from being reused.
//!
//! 1. An entry is moved by appending a copy of it, which says where it comes from. The copy
//!    survives a power loss before the caller hears of it, and so before anybody releases the
//!    original.
//! 2. Until it is released, the original is what readers are shown, and from then on the copy is
//!    (`Reader::shows`). So whoever reads from the oldest record on is shown each entry once,
//!    whenever the trim comes between.
//! 3. A record is copied once, whatever crashes come between: one of which there is a copy is left
//!    alone; if that lies too far back itself, it is the copy that is copied.
//! 4. Under version control the stream is held meanwhile, and its version is the last copy.

use super::Stream;
use super::read::EntryReader;
use super::version::Hold;
use crate::error::{AppendError, Error, ReadError};
use crate::layout::RecordKind;
use crate::layout::origin::{MOVED, ORIGIN_LEN, Origin};
use crate::lsn::Lsn;
use crate::reader::{Position, Reader};
use crate::sync::lock;

/// What [`Stream::move_forward`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// Entries that were appended again.
    pub entries: u64,
    /// Their payload, in bytes.
    pub payload_bytes: u64,
    /// The record of the last of them.
    pub last_lsn: Option<Lsn>,
}

/// An entry to move.
struct Found {
    origin: Origin,
    payload: Vec<u8>,
}

impl Stream<'_> {
    /// Appends the stream's entries below `below` again, at the end of the log, so that a
    /// checkpoint may pass where they were: a quiet stream, of which a little is still needed, does
    /// not keep the ring from being reused. When this returns, they survive a power loss.
    ///
    /// A moved entry is shown once, by whatever reads from the oldest record on: as it was, until
    /// that has been released; from then on, as it was moved. Its
    /// [`moved_from`](crate::LogEntry::moved_from) says where it was appended first. Readers that
    /// start further on, and consumers, have been past the first, and are not shown the copy. An
    /// entry of a batch is moved alone.
    ///
    /// The order of the stream's entries is kept if all of them lie below `below`, and nobody
    /// appends to the stream meanwhile (under version control nobody can). Else what is moved comes
    /// behind what is not. A moved entry has lost its producer's sequence, if it had one.
    ///
    /// # Errors
    ///
    /// [`AppendError::TooLarge`] if the entries have more bytes, 32 for each besides its payload,
    /// than the largest record: this is for little that is left. Those of
    /// [`Wal::append`](crate::Wal::append), [`Wal::wait_durable`](crate::Wal::wait_durable) and
    /// [`Wal::reader`](crate::Wal::reader). After an error some may have been moved; they are not
    /// moved again.
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::{Geometry, Options, Position, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
    /// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
    /// let (quiet, busy) = (wal.stream("quiet")?, wal.stream("busy")?);
    /// let first = quiet.append(b"still needed")?;
    /// busy.append(b"applied elsewhere")?;
    /// let end = wal.watermarks().reserved;
    /// quiet.move_forward(end)?;
    /// wal.checkpoint(end)?;
    /// wal.sync_checkpoint()?;
    ///
    /// let mut reader = quiet.read(Position::Oldest)?;
    /// let entry = reader.next()?.expect("it was moved");
    /// assert_eq!((entry.payload, entry.moved_from), (&b"still needed"[..], Some(first)));
    /// assert!(reader.next()?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn move_forward(&self, below: Lsn) -> Result<Moved, Error> {
        let streams = self.parts.streams;
        // Two who move one stream would copy the same entries.
        let _alone = lock(&streams.moving);
        let mut hold = self.version.as_ref().map(|version| self.hold(version)).transpose()?;
        let found = self.find_to_move(below)?;
        let mut moved = Moved::default();
        let appended = self.append_moved(&found, &mut hold, &mut moved);
        drop(hold);
        appended?;
        if let (Some(lsn), Some(last)) = (moved.last_lsn, found.last()) {
            self.parts.wait_own(lsn, ORIGIN_LEN + last.payload.len())?;
        }
        Ok(moved)
    }

    fn append_moved(
        &self,
        found: &[Found],
        hold: &mut Option<Hold<'_>>,
        moved: &mut Moved,
    ) -> Result<(), AppendError> {
        let producer = self.parts.producer;
        let label = producer.ring().label(RecordKind::Data, Some(self.id), MOVED);
        for Found { origin, payload } in found {
            let parts = [&origin.encode()[..], payload];
            let len = ORIGIN_LEN + payload.len();
            let lsn = producer.append_parts(&label, len, parts.into_iter())?;
            if let Some(hold) = hold {
                hold.advance(lsn);
            }
            moved.entries += 1;
            moved.payload_bytes += payload.len() as u64;
            moved.last_lsn = Some(lsn);
        }
        Ok(())
    }

    /// Rule 3: what lies below `below`, and has no copy. Nothing is pinned afterwards.
    fn find_to_move(&self, below: Lsn) -> Result<Vec<Found>, Error> {
        let streams = self.parts.streams;
        let ring = streams.ring();
        // From before the first look at copies, so that none of an entry that we find is released.
        let reader = Reader::new(ring, Position::Oldest)?;
        let copied = streams.index.look(ring, |index| index.copied(self.id))?;
        let reader = reader.with_copies().until(below);
        let mut reader = EntryReader::of_streams(reader, &streams.index, vec![self.id]);
        let max = ring.geometry().payload_len_max();
        let (mut found, mut len) = (Vec::new(), 0);
        let (mut record, mut nth) = (Lsn::ZERO, 0);
        loop {
            let entry = match reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(found),
                // What a repair could not keep cannot be moved.
                Err(ReadError::Gap { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            // The entries of a batch were copied in their order: those that come first.
            nth = if entry.lsn == record { nth + 1 } else { 0 };
            record = entry.lsn;
            let first = copied.partition_point(|copied| *copied < record);
            if copied.get(first + nth) == Some(&record) {
                continue;
            }
            len += entry.payload.len() + 2 * ORIGIN_LEN;
            if len > max {
                return Err(AppendError::TooLarge { len, max }.into());
            }
            let first = entry.moved_from.unwrap_or(record);
            let origin = Origin { first, previous: record };
            found.push(Found { origin, payload: entry.payload.to_vec() });
        }
    }
}
