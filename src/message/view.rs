//! Reading: a message in the bytes where it lies.

use std::fmt;
use std::iter::FusedIterator;
use std::mem::size_of;
use std::slice;

use zerocopy::FromBytes;

use super::error::MessageError;
use super::owned::OwnedMessage;
use super::raw::{HAS_KEY, Lengths, MUST_UNDERSTAND, Places, RawField, RawHeader, RawRow, VERSION};

/// A message in the payload of an [`Entry`](crate::Entry). It borrows the bytes; to look at a part
/// costs nothing more.
///
/// All that can be wrong is found by [`parse`](MessageView::parse).
///
/// # Example
///
/// ```
/// use kaelix_wal::{Message, MessageView};
///
/// let headers: [(&str, &[u8]); 2] = [("trace", b"1"), ("trace", b"2")];
/// let mut bytes = Vec::new();
/// Message::new(b"payload").topic("orders").headers(&headers).encode(&mut bytes)?;
///
/// let view = MessageView::parse(&bytes)?;
/// assert_eq!(view.key(), None);
/// assert_eq!(view.header("trace"), Some(&b"1"[..]));
/// assert!(view.headers().eq(headers));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct MessageView<'a> {
    bytes: &'a [u8],
    header: &'a RawHeader,
    rows: &'a [RawRow],
    /// The topic, and each name, starts and ends at a character.
    topic: &'a str,
    names: &'a str,
    key: Option<&'a [u8]>,
    values: &'a [u8],
    payload: &'a [u8],
}

impl<'a> MessageView<'a> {
    /// Takes `bytes`, all of them, for one message: an entry's payload, for example.
    ///
    /// Checks the version, that all parts lie in bounds and add up to `bytes`, that topic and
    /// header names are UTF-8, and that no optional field must be understood that is not known.
    /// Other optional fields are skipped.
    ///
    /// # Errors
    ///
    /// The first of these that does not hold, with its place. Whatever the bytes are, it does not
    /// panic.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<MessageView<'a>, MessageError> {
        let (header, behind) = fixed_header(bytes)?;
        let count = header.header_count.get() as usize;
        let Ok((rows, parts)) = <[RawRow]>::ref_from_prefix_with_elems(behind, count) else {
            let needed = count as u64 * size_of::<RawRow>() as u64;
            return Err(truncated(
                "header table",
                size_of::<RawHeader>() as u64,
                needed,
                behind.len(),
            ));
        };
        let places = places(header, rows);
        if places.end != bytes.len() as u64 {
            return Err(misfit(&places, bytes.len() as u64));
        }
        // Everything lies in `parts`, in this order and with nothing left over.
        let (text, parts) = parts.split_at((places.key - places.topic) as usize);
        let (key, parts) = parts.split_at((places.values - places.key) as usize);
        let (values, parts) = parts.split_at((places.fields - places.values) as usize);
        let (_, payload) = parts.split_at((places.payload - places.fields) as usize);

        let (topic, names) = check_text(text, rows, &places)?;
        if places.fields != places.padding {
            check_fields(bytes, &places)?;
        }
        check_padding(bytes, &places)?;
        let key = (header.flags & HAS_KEY != 0).then_some(key);
        Ok(MessageView { bytes, header, rows, topic, names, key, values, payload })
    }

    /// What tells it from all others; 0 if its writer gave it none.
    #[must_use]
    #[inline]
    pub fn id(&self) -> u128 {
        self.header.id.get()
    }

    /// When it happened, in nanoseconds since 1970-01-01 UTC; 0 if its writer did not say.
    #[must_use]
    #[inline]
    pub fn timestamp_nanos(&self) -> i64 {
        self.header.timestamp_nanos.get()
    }

    /// What it is about; perhaps empty.
    #[must_use]
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// What it is ordered or compacted by. An empty key is a key.
    #[must_use]
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Names and values, in the order of the writer.
    #[must_use]
    #[inline]
    pub fn headers(&self) -> MessageHeaders<'a> {
        MessageHeaders { rows: self.rows.iter(), names: self.names, values: self.values }
    }

    /// The value of the first header of this name.
    #[must_use]
    #[inline]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|header| header.0 == name).map(|header| header.1)
    }

    /// The payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The whole message, optional fields that this build does not know included: what to pass on.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The message as a value of its own. This copies its bytes, all of them, once: what the view
    /// borrows belongs to the log, which uses the space again.
    #[must_use]
    #[inline]
    pub fn to_owned_message(&self) -> OwnedMessage {
        OwnedMessage::copy_of(self)
    }
}

impl fmt::Debug for MessageView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageView")
            .field("id", &self.id())
            .field("timestamp_nanos", &self.timestamp_nanos())
            .field("topic", &self.topic)
            .field("key", &self.key)
            .field("headers", &self.rows.len())
            .field("payload_len", &self.payload.len())
            .finish()
    }
}

/// The headers of a message, names with values, in the order of the writer.
#[derive(Clone, Debug)]
pub struct MessageHeaders<'a> {
    rows: slice::Iter<'a, RawRow>,
    names: &'a str,
    values: &'a [u8],
}

impl<'a> Iterator for MessageHeaders<'a> {
    type Item = (&'a str, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(&'a str, &'a [u8])> {
        let row = self.rows.next()?;
        // `parse` has found all names and values in bounds, and each name to be whole characters.
        let (name, names) = self.names.split_at(usize::from(row.name_len.get()));
        let (value, values) = self.values.split_at(row.value_len.get() as usize);
        (self.names, self.values) = (names, values);
        Some((name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

impl ExactSizeIterator for MessageHeaders<'_> {}

impl FusedIterator for MessageHeaders<'_> {}

/// The fixed header, if it is one of this version, and what follows it.
#[inline]
fn fixed_header(bytes: &[u8]) -> Result<(&RawHeader, &[u8]), MessageError> {
    // The version comes first: another one may have another header.
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&found) => return Err(MessageError::Version { found }),
        None => return Err(truncated("version", 0, 1, 0)),
    }
    let Ok((header, behind)) = RawHeader::ref_from_prefix(bytes) else {
        return Err(truncated("fixed header", 0, size_of::<RawHeader>() as u64, bytes.len()));
    };
    if header.flags & !HAS_KEY != 0 {
        return Err(MessageError::Flags { found: header.flags });
    }
    let key_len = header.key_len.get();
    if header.flags & HAS_KEY == 0 && key_len != 0 {
        return Err(MessageError::KeyLength { found: key_len });
    }
    Ok((header, behind))
}

#[inline]
fn places(header: &RawHeader, rows: &[RawRow]) -> Places {
    let (mut names, mut values) = (0_u64, 0_u64);
    for row in rows {
        // No overflow: fewer than 2^32 rows, each of less than 2^32.
        names += u64::from(row.name_len.get());
        values += u64::from(row.value_len.get());
    }
    Places::new(&Lengths {
        rows: rows.len() as u64,
        topic: u64::from(header.topic_len.get()),
        names,
        key: u64::from(header.key_len.get()),
        values,
        fields: u64::from(header.fields_len.get()),
        payload: header.payload_len.get(),
    })
}

/// Topic and names, if all of it is UTF-8 and no character straddles two of them.
#[inline]
fn check_text<'a>(
    text: &'a [u8],
    rows: &[RawRow],
    places: &Places,
) -> Result<(&'a str, &'a str), MessageError> {
    let text = match str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(places, error.valid_up_to())),
    };
    let topic_len = (places.names - places.topic) as usize;
    let Some((topic, names)) = text.split_at_checked(topic_len) else {
        return Err(not_utf8(places, character_at(text, topic_len)));
    };
    let mut end = 0;
    for row in rows {
        end += usize::from(row.name_len.get());
        if !names.is_char_boundary(end) {
            return Err(not_utf8(places, topic_len + character_at(names, end)));
        }
    }
    Ok((topic, names))
}

/// Where the character starts in which `index` lies.
#[cold]
fn character_at(text: &str, index: usize) -> usize {
    (0..=index).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Walks the optional fields: in bounds, and none that must be understood, since this build knows
/// none. Zeroes are no field, so that padding is none.
#[cold]
fn check_fields(bytes: &[u8], places: &Places) -> Result<(), MessageError> {
    let mut at = places.fields;
    while at != places.padding {
        let (offset, rest) = (at, &bytes[at as usize..places.padding as usize]);
        let Ok((field, behind)) = RawField::ref_from_prefix(rest) else {
            let needed = size_of::<RawField>() as u64;
            return Err(truncated("optional field", offset, needed, rest.len()));
        };
        let (tag, needed) = (field.tag.get(), u64::from(field.value_len.get()));
        if tag & MUST_UNDERSTAND != 0 || tag == 0 {
            return Err(MessageError::UnknownField { tag, offset });
        }
        at += size_of::<RawField>() as u64;
        if needed > behind.len() as u64 {
            return Err(truncated("optional field's value", at, needed, behind.len()));
        }
        at += needed;
    }
    Ok(())
}

/// The bytes in front of the payload are zero: fewer than 8, so they lie in the one word there.
#[inline]
fn check_padding(bytes: &[u8], places: &Places) -> Result<(), MessageError> {
    let (_, word) = bytes[..places.payload as usize]
        .split_last_chunk()
        .expect("the fixed header lies in front of the payload");
    let len = (places.payload - places.padding) as u32;
    let padding = u64::from_le_bytes(*word).checked_shr(64 - 8 * len).unwrap_or(0);
    if padding != 0 {
        let before = u64::from(padding.trailing_zeros() / 8);
        return Err(MessageError::Padding { offset: places.padding + before });
    }
    Ok(())
}

#[cold]
fn truncated(part: &'static str, offset: u64, needed: u64, available: usize) -> MessageError {
    MessageError::Truncated { part, offset, needed, available: available as u64 }
}

/// The parts do not add up to `len`: which of them does not fit?
#[cold]
fn misfit(places: &Places, len: u64) -> MessageError {
    for (part, start, end) in places.parts() {
        if end > len {
            let available = len.saturating_sub(start);
            return MessageError::Truncated { part, offset: start, needed: end - start, available };
        }
    }
    MessageError::TrailingBytes { offset: places.end, count: len - places.end }
}

/// The text is wrong at `at`, in bytes from its start.
#[cold]
fn not_utf8(places: &Places, at: usize) -> MessageError {
    let offset = places.topic + at as u64;
    let part = if offset < places.names { "topic" } else { "header name" };
    MessageError::NotUtf8 { part, offset }
}
