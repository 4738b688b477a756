//! The payload of a batch: several entries in one record, all or none.
//!
//! ```text
//!  0         4         8                8 + length      up to a multiple of 8
//!  +---------+---------+----------------+--------------+
//!  | length  | stream  | payload ...    | zeros        |  the next entry ...
//!  +---------+---------+----------------+--------------+
//! ```
//!
//! 1. A batch is one record with one commit word and one checksum. That is what makes it atomic.
//! 2. There is no count: the entries fill the payload exactly, and there is at least one.
//! 3. The record's own stream is that of all its entries, or 0 if they have several.

use super::{RecordKind, Tag};
use crate::stream_id::StreamId;

const ENTRY_HEADER_LEN: usize = 8;
const ENTRY_ALIGN: usize = 8;

/// One entry: the stream that it belongs to, and the caller's bytes.
///
/// # Example
///
/// ```
/// use kaelix_wal::{Entry, StreamId};
///
/// let third = StreamId::new(3).expect("3 is not 0");
/// assert_eq!(Entry::from(b"of no stream").stream, None);
/// assert_eq!(Entry::from((third, b"of stream 3")).stream, Some(third));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The stream, if it belongs to one.
    pub stream: Option<StreamId>,
    /// The caller's bytes.
    pub payload: &'a [u8],
}

impl<'a, P: AsRef<[u8]> + ?Sized> From<&'a P> for Entry<'a> {
    fn from(payload: &'a P) -> Entry<'a> {
        Entry { stream: None, payload: payload.as_ref() }
    }
}

impl<'a, P: AsRef<[u8]> + ?Sized> From<(StreamId, &'a P)> for Entry<'a> {
    fn from((stream, payload): (StreamId, &'a P)) -> Entry<'a> {
        Entry { stream: Some(stream), payload: payload.as_ref() }
    }
}

/// The space that an entry takes in a batch, in bytes; saturates where no log could take it.
#[inline]
pub(crate) const fn entry_space(payload_len: usize) -> usize {
    match payload_len.checked_add(ENTRY_HEADER_LEN + ENTRY_ALIGN - 1) {
        Some(space) => space & !(ENTRY_ALIGN - 1),
        None => usize::MAX,
    }
}

/// What lies in front of an entry's payload.
#[inline]
pub(crate) fn entry_header(entry: &Entry<'_>) -> [u8; ENTRY_HEADER_LEN] {
    let stream = u64::from(StreamId::number(entry.stream));
    (entry.payload.len() as u64 | stream << 32).to_le_bytes()
}

/// Writes `entry` to the front of `room`, whose bytes are zero and which is large enough; returns
/// what is left.
#[inline]
pub(crate) fn write_entry<'r>(room: &'r mut [u8], entry: Entry<'_>) -> &'r mut [u8] {
    let (space, rest) = room.split_at_mut(entry_space(entry.payload.len()));
    space[..ENTRY_HEADER_LEN].copy_from_slice(&entry_header(&entry));
    space[ENTRY_HEADER_LEN..][..entry.payload.len()].copy_from_slice(entry.payload);
    rest
}

/// The entries of a record, in order.
#[derive(Clone, Debug)]
pub struct Entries<'a>(Source<'a>);

#[derive(Clone, Debug)]
enum Source<'a> {
    /// What is left of a batch.
    Batch(&'a [u8]),
    /// A record that is its own only entry, until it has been given.
    Single(Option<Entry<'a>>),
}

impl<'a> Entries<'a> {
    /// The entries of a caller's record with this tag and payload.
    #[inline]
    pub(crate) fn of(tag: Tag, payload: &'a [u8]) -> Entries<'a> {
        Entries(match tag.kind() {
            Some(RecordKind::Batch) => Source::Batch(payload),
            _ => Source::Single(Some(Entry { stream: tag.stream(), payload })),
        })
    }
}

impl Entries<'_> {
    /// How many bytes of the payload have not been looked at.
    pub(crate) fn rest_len(&self) -> usize {
        match &self.0 {
            Source::Batch(rest) => rest.len(),
            Source::Single(_) => 0,
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        match &mut self.0 {
            Source::Batch(rest) => {
                let (entry, behind) = split_entry(rest)?;
                *rest = behind;
                Some(entry)
            }
            Source::Single(entry) => entry.take(),
        }
    }
}

/// The first entry of `bytes`, and what follows it; `None` if none is there whole.
#[inline]
fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<ENTRY_HEADER_LEN>()?;
    let header = u64::from_le_bytes(*header);
    let len = header as u32 as usize;
    let entry = Entry { stream: StreamId::new((header >> 32) as u32), payload: rest.get(..len)? };
    Some((entry, rest.get(entry_space(len) - ENTRY_HEADER_LEN..)?))
}

/// Is `payload` a batch (rule 2)? Bytes that verify are, unless something else wrote them.
#[inline]
pub(crate) fn is_batch(payload: &[u8]) -> bool {
    let mut rest = payload;
    while let Some((_, behind)) = split_entry(rest) {
        rest = behind;
    }
    rest.is_empty() && !payload.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(entries: &[Entry<'_>]) -> Vec<u8> {
        let len = entries.iter().map(|entry| entry_space(entry.payload.len())).sum();
        let mut bytes = vec![0; len];
        let mut room = &mut bytes[..];
        for entry in entries {
            room = write_entry(room, *entry);
        }
        assert!(room.is_empty());
        bytes
    }

    fn of(stream: u32, payload: &[u8]) -> Entry<'_> {
        Entry { stream: StreamId::new(stream), payload }
    }

    fn batch(payload: &[u8]) -> Entries<'_> {
        Entries::of(Tag::new(0, RecordKind::Batch, 0, 1), payload)
    }

    #[test]
    fn a_batch_holds_what_was_put_in() {
        for len in 0..40_u8 {
            let payload: Vec<u8> = (1..=len).collect();
            let entries =
                [Entry::from(&payload), of(u32::MAX, &payload[..usize::from(len / 2)]), of(1, b"")];
            let bytes = encode(&entries);
            assert!(bytes.len().is_multiple_of(8) && is_batch(&bytes));
            assert_eq!(batch(&bytes).collect::<Vec<_>>(), entries);
            for cut in 0..bytes.len() {
                let held: Vec<_> = batch(&bytes[..cut]).collect();
                assert_eq!(held, entries[..held.len()], "cut at {cut}");
                assert_eq!(is_batch(&bytes[..cut]), cut > 0 && encode(&held).len() == cut);
            }
        }
    }

    #[test]
    fn a_single_record_is_its_own_entry() {
        let entry = of(3, b"x");
        let tag = Tag::new(3, RecordKind::Data, 0, 1);
        assert_eq!(Entries::of(tag, b"x").collect::<Vec<_>>(), [entry]);
    }

    #[test]
    fn lengths_without_end_do_not_overflow() {
        assert_eq!(entry_space(usize::MAX), usize::MAX);
        assert!(!is_batch(&u64::MAX.to_le_bytes()));
        assert!(!is_batch(&[0xFF; 64]));
    }

    proptest::proptest! {
        /// Entries lie one behind the other, inside; and they fill what is a batch exactly.
        #[test]
        fn any_bytes_are_a_batch_or_the_beginning_of_one(
            mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            // Small lengths, or nothing would be found.
            places in proptest::collection::vec((0..25_usize, 0..40_u8), 0..6),
        ) {
            for (place, len) in places {
                if let Some(header) = bytes.get_mut(place * 8..place * 8 + 4) {
                    header.copy_from_slice(&[len, 0, 0, 0]);
                }
            }
            let mut at = 0;
            for entry in batch(&bytes) {
                let inside = &bytes[at + 8..][..entry.payload.len()];
                assert!(std::ptr::eq(inside, entry.payload), "out of order, or elsewhere");
                assert_eq!(StreamId::number(entry.stream).to_le_bytes(), bytes[at + 4..at + 8]);
                at += entry_space(entry.payload.len());
            }
            assert!(at <= bytes.len());
            assert_eq!(is_batch(&bytes), at == bytes.len() && at > 0);
        }
    }
}
