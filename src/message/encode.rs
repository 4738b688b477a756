//! Writing: what a message is made of, borrowed, and its bytes.

use bytes::BufMut;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U16, U32, U64, U128};

use super::error::MessageEncodeError;
use super::raw::{HAS_KEY, Lengths, Places, RawHeader, RawRow, VERSION};

/// A message to be written. It borrows its parts; the payload may be a `&[u8]`, a `Vec<u8>`, a
/// [`Bytes`](bytes::Bytes), or whatever else is bytes.
///
/// # Example
///
/// ```
/// use kaelix_wal::{Message, MessageView};
/// # use kaelix_wal::{Geometry, Options, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
/// # let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
/// let headers: [(&str, &[u8]); 1] = [("content-type", b"application/json")];
/// let message = Message::new(br#"{"amount": 12}"#)
///     .id(0x0193_5c1e_6d3a_7b52_9c04_6e1f_0a8b_2d47)
///     .timestamp_nanos(1_700_000_000_000_000_000)
///     .topic("orders")
///     .key(b"customer-17")
///     .headers(&headers);
///
/// let mut reservation = wal.reserve(message.encoded_len())?;
/// message.encode_into(&mut reservation)?; // into the log itself
/// let lsn = reservation.commit();
///
/// let record = wal.get(lsn)?;
/// let view = MessageView::parse(record.payload())?;
/// assert_eq!((view.topic(), view.payload()), ("orders", &br#"{"amount": 12}"#[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a message is written nowhere before it is encoded"]
pub struct Message<'a, P> {
    id: u128,
    timestamp_nanos: i64,
    topic: &'a str,
    key: Option<&'a [u8]>,
    headers: &'a [(&'a str, &'a [u8])],
    payload: P,
}

impl<'a, P: AsRef<[u8]>> Message<'a, P> {
    /// A message with this payload, id 0, time 0, an empty topic, no key and no headers.
    pub const fn new(payload: P) -> Message<'a, P> {
        Message { id: 0, timestamp_nanos: 0, topic: "", key: None, headers: &[], payload }
    }

    /// What tells this message from all others, if its user wants it to: a UUID, for example.
    #[inline]
    pub fn id(mut self, id: u128) -> Message<'a, P> {
        self.id = id;
        self
    }

    /// When it happened, in nanoseconds since 1970-01-01 UTC; negative before.
    #[inline]
    pub fn timestamp_nanos(mut self, timestamp_nanos: i64) -> Message<'a, P> {
        self.timestamp_nanos = timestamp_nanos;
        self
    }

    /// What it is about, at most 65,535 bytes; empty where the record's stream says it.
    #[inline]
    pub fn topic(mut self, topic: &'a str) -> Message<'a, P> {
        self.topic = topic;
        self
    }

    /// What it is ordered or compacted by, at most 4,294,967,295 bytes. An empty key is a key.
    #[inline]
    pub fn key(mut self, key: &'a [u8]) -> Message<'a, P> {
        self.key = Some(key);
        self
    }

    /// Names (at most 65,535 bytes each) with values (at most 4,294,967,295 bytes each). The order
    /// is kept, and a name may be there more than once.
    #[inline]
    pub fn headers(mut self, headers: &'a [(&'a str, &'a [u8])]) -> Message<'a, P> {
        self.headers = headers;
        self
    }

    /// How many bytes the message takes, exactly: what to reserve. `usize::MAX` if they cannot be
    /// counted.
    #[must_use]
    #[inline]
    pub fn encoded_len(&self) -> usize {
        self.measure(self.payload.as_ref()).0.end as usize
    }

    /// Writes the message to the front of `target`; returns its length in bytes. The rest of
    /// `target` is left alone.
    ///
    /// # Errors
    ///
    /// A part is too long for the format, or `target` is too short. Nothing was written then.
    #[inline]
    pub fn encode_into(&self, mut target: &mut [u8]) -> Result<usize, MessageEncodeError> {
        self.encode(&mut target)
    }

    /// Writes the message to the end of a `Vec<u8>`, a `BytesMut`, what is left of a
    /// [`Reservation`](crate::Reservation), or any other [`BufMut`]; returns its length in bytes.
    ///
    /// The payload is aligned to the message's start, wherever that is.
    ///
    /// # Errors
    ///
    /// As [`encode_into`](Message::encode_into).
    #[inline]
    pub fn encode(&self, target: &mut impl BufMut) -> Result<usize, MessageEncodeError> {
        // Asked once: nobody promises that an `AsRef` gives the same bytes twice.
        let payload = self.payload.as_ref();
        let (places, fits) = self.measure(payload);
        if !fits {
            return Err(self.too_long());
        }
        let available = target.remaining_mut() as u64;
        if places.end > available {
            return Err(MessageEncodeError::NoRoom { needed: places.end, available });
        }
        // Every length fits its field.
        let key = self.key.unwrap_or_default();
        let header = RawHeader {
            version: VERSION,
            flags: if self.key.is_some() { HAS_KEY } else { 0 },
            topic_len: U16::new(self.topic.len() as u16),
            key_len: U32::new(key.len() as u32),
            header_count: U32::new(self.headers.len() as u32),
            fields_len: U32::ZERO,
            payload_len: U64::new(payload.len() as u64),
            timestamp_nanos: I64::new(self.timestamp_nanos),
            id: U128::new(self.id),
        };
        target.put_slice(header.as_bytes());
        for (name, value) in self.headers {
            let name_len = U16::new(name.len() as u16);
            let row = RawRow { name_len, value_len: U32::new(value.len() as u32) };
            target.put_slice(row.as_bytes());
        }
        target.put_slice(self.topic.as_bytes());
        for (name, _) in self.headers {
            target.put_slice(name.as_bytes());
        }
        target.put_slice(key);
        for (_, value) in self.headers {
            target.put_slice(value);
        }
        target.put_slice(&[0; 8][..(places.payload - places.padding) as usize]);
        target.put_slice(payload);
        Ok(places.end as usize)
    }

    /// Where the parts will lie, and whether every length fits its field.
    #[inline]
    pub(super) fn measure(&self, payload: &[u8]) -> (Places, bool) {
        let key_len = self.key.map_or(0, <[u8]>::len);
        // The bits of all lengths together tell whether one of them is too long.
        let (mut short, mut long) = (self.topic.len(), key_len | self.headers.len());
        let (mut names, mut values) = (0_u64, 0_u64);
        for (name, value) in self.headers {
            short |= name.len();
            long |= value.len();
            names = names.saturating_add(name.len() as u64);
            values = values.saturating_add(value.len() as u64);
        }
        let places = Places::new(&Lengths {
            rows: self.headers.len() as u64,
            topic: self.topic.len() as u64,
            names,
            key: key_len as u64,
            values,
            fields: 0,
            payload: payload.len() as u64,
        });
        (places, short <= SHORT_MAX && long <= LONG_MAX)
    }

    /// The first part that is too long for its field.
    #[cold]
    fn too_long(&self) -> MessageEncodeError {
        let names = self.headers.iter().map(|(name, _)| ("header name", name.len(), SHORT_MAX));
        let values = self.headers.iter().map(|(_, value)| ("header value", value.len(), LONG_MAX));
        let parts = [
            ("topic", self.topic.len(), SHORT_MAX),
            ("key", self.key.map_or(0, <[u8]>::len), LONG_MAX),
            ("list of headers", self.headers.len(), LONG_MAX),
        ];
        let mut parts = parts.into_iter().chain(names).chain(values);
        let (part, len, max) = parts.find(|(_, len, max)| len > max).unwrap_or_default();
        let unit = if part == "list of headers" { "entries" } else { "bytes" };
        MessageEncodeError::TooLong { part, len: len as u64, max: max as u64, unit }
    }
}

/// The longest topic and name, in bytes; one less than a power of two.
const SHORT_MAX: usize = u16::MAX as usize;
/// The longest key and value, in bytes, and most headers; one less than a power of two.
const LONG_MAX: usize = u32::MAX as usize;
