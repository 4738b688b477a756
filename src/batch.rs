//! Collecting a batch.

use std::fmt;

use crate::layout::batch::{entry_header, entry_space};
use crate::layout::{Entries, Entry, RecordKind, Tag};
use crate::stream_id::StreamId;

/// The memory with which a batch begins, in bytes.
const FIRST_BYTES: usize = 1 << 10;

/// Entries gathered for [`Wal::append_batch`](crate::Wal::append_batch), which takes any iterator
/// that can be looked at twice: this is for what cannot. It can be cleared and used again.
///
/// # Example
///
/// ```
/// use kaelix_wal::{Batch, Geometry, Options, StreamId, Wal};
///
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// let mut batch = Batch::new();
/// for number in 0..3 {
///     batch.push(format!("order {number}").as_bytes());
/// }
/// let lsn = wal.append_batch(&batch)?;
/// assert_eq!(wal.get(lsn)?.entries().count(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Batch {
    /// The entries, as they lie in a record.
    bytes: Vec<u8>,
    len: usize,
}

impl Batch {
    /// A batch without entries.
    #[must_use]
    pub const fn new() -> Batch {
        Batch { bytes: Vec::new(), len: 0 }
    }

    /// Adds an entry.
    ///
    /// # Panics
    ///
    /// If its payload has 4 GiB or more, which no log takes.
    pub fn push<'e>(&mut self, entry: impl Into<Entry<'e>>) {
        let entry = entry.into();
        assert!(u32::try_from(entry.payload.len()).is_ok(), "an entry of 4 GiB or more");
        let end = self.bytes.len() + entry_space(entry.payload.len());
        if self.bytes.is_empty() {
            self.bytes.reserve(FIRST_BYTES);
        }
        self.bytes.extend_from_slice(&entry_header(&entry));
        self.bytes.extend_from_slice(entry.payload);
        self.bytes.resize(end, 0);
        self.len += 1;
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How large the record's payload will be, in bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes out all entries, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
    }

    /// The record's payload.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// The stream of all entries, if they have one.
    pub(crate) fn stream(&self) -> Option<StreamId> {
        let mut streams = self.iter().map(|entry| entry.stream);
        let first = streams.next()??;
        streams.all(|stream| stream == Some(first)).then_some(first)
    }

    /// The entries, in order.
    pub fn iter(&self) -> Entries<'_> {
        Entries::of(Tag::new(0, RecordKind::Batch, 0, 0), &self.bytes)
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Entry<'a>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

impl<'e, E: Into<Entry<'e>>> Extend<E> for Batch {
    fn extend<I: IntoIterator<Item = E>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}

impl<'e, E: Into<Entry<'e>>> FromIterator<E> for Batch {
    fn from_iter<I: IntoIterator<Item = E>>(entries: I) -> Batch {
        let mut batch = Batch::new();
        batch.extend(entries);
        batch
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    #[should_panic(expected = "an entry of 4 GiB or more")]
    fn an_entry_whose_length_does_not_fit_is_refused_before_it_is_copied() {
        // Address space alone: nobody touches it.
        let len = u32::MAX as usize + 1;
        let payload = memmap2::MmapOptions::new().len(len).no_reserve_swap().map_anon();
        let payload = payload.expect("there is so much address space");
        Batch::new().push(&payload[..]);
    }
}
