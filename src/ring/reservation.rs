//! Reservations: a claimed range, as a guard.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};

use bytes::BufMut;
use bytes::buf::UninitSlice;

use super::{Claim, Label, Ring};
use crate::geometry::RECORD_HEADER_LEN;
use crate::lsn::Lsn;
use crate::metrics::count;

/// Space in the log that belongs to you until you commit it.
///
/// It is a zeroed `&mut [u8]` in the log itself: what you write is not copied again. It is also an
/// [`io::Write`] and a [`BufMut`], which fill it from the front.
///
/// While it is open, later records are committed but not published, and nothing behind it becomes
/// durable. Dropping it (an unwinding panic included) aborts: the space becomes a pad record, and
/// the log moves on. `mem::forget` leaves a hole that holds the log back until it is reopened.
///
/// # Example
///
/// ```
/// use std::io::Write;
/// # use kaelix_wal::{Geometry, Options, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// let mut reservation = wal.reserve(64)?;
/// write!(reservation, "order {}", 4711)?;
/// let lsn = reservation.commit_written();
/// assert_eq!(wal.get(lsn)?.payload(), b"order 4711");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reservation<'a> {
    ring: &'a Ring,
    /// There until the commit or the drop.
    claim: Option<Claim>,
    label: Label,
    len: usize,
    written: usize,
}

impl Ring {
    /// Wraps a claim for a payload of `len` bytes.
    pub(crate) fn reservation(&self, claim: Claim, label: Label, len: usize) -> Reservation<'_> {
        self.mark_claimed(&claim, (len + RECORD_HEADER_LEN) as u32);
        Reservation { ring: self, claim: Some(claim), label, len, written: 0 }
    }
}

impl Reservation<'_> {
    /// The LSN that the record will have.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.claim().lsn()
    }

    /// How many bytes `io::Write` and `BufMut` have filled from the front.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Commits the whole reserved length; bytes that were not written are zero.
    ///
    /// The record is visible to readers as soon as everything before it is committed too. It is
    /// not durable yet: see [`Wal::wait_durable`](crate::Wal::wait_durable).
    pub fn commit(self) -> Lsn {
        let len = self.len;
        self.commit_len(len)
    }

    /// Commits the first `len` bytes; the rest becomes filler.
    ///
    /// # Panics
    ///
    /// If `len` is more than was reserved.
    pub fn commit_len(mut self, len: usize) -> Lsn {
        assert!(len <= self.len, "{len} bytes committed of {} reserved", self.len);
        let claim = self.claim.take().expect("a reservation has its claim until it is committed");
        self.ring.commit_in_place(claim, &self.label, len)
    }

    /// Commits what `io::Write` and `BufMut` have filled; the rest becomes filler.
    pub fn commit_written(self) -> Lsn {
        let written = self.written;
        self.commit_len(written)
    }

    /// Gives the space up, as dropping does: it becomes filler.
    pub fn abort(self) {}

    fn claim(&self) -> &Claim {
        self.claim.as_ref().expect("a reservation has its claim until it is committed")
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            count(&self.ring.counters.aborts, 1);
            self.ring.commit_pad(claim);
        }
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.ring.payload(self.claim(), self.len)
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let claim = self.claim.as_mut().expect("a reservation has its claim until it is committed");
        self.ring.payload_mut(claim, self.len)
    }
}

impl io::Write for Reservation<'_> {
    /// Fills from the front; writes fewer bytes, in the end 0, when the reservation is full.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.written;
        let room = &mut self[written..];
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.written += len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// SAFETY: `chunk_mut` returns the bytes from `written` on, `remaining_mut` their number, and
// `advance_mut` moves `written` over bytes that are initialised, because all of them are (zeroed
// before they were claimed); it checks that it stays in bounds.
unsafe impl BufMut for Reservation<'_> {
    fn remaining_mut(&self) -> usize {
        self.len - self.written
    }

    /// # Safety
    ///
    /// As the trait demands; every byte is initialised here, so there is nothing to violate.
    unsafe fn advance_mut(&mut self, count: usize) {
        assert!(count <= self.remaining_mut(), "advanced beyond the reserved length");
        self.written += count;
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        let written = self.written;
        UninitSlice::new(&mut self[written..])
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("lsn", &self.lsn())
            .field("len", &self.len)
            .field("written", &self.written)
            .finish()
    }
}
