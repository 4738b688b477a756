//! The structures of a message, and where its parts lie.

use std::mem::offset_of;
use std::mem::size_of;

use static_assertions::const_assert_eq;
use zerocopy::little_endian::{I64, U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version that this build writes, and the only one that it reads.
pub(super) const VERSION: u8 = 1;
/// The message has a key, if only an empty one.
pub(super) const HAS_KEY: u8 = 1;
/// Bit of an optional field's tag: who does not know it must refuse the message.
pub(super) const MUST_UNDERSTAND: u16 = 1 << 15;
/// The payload starts at a multiple of this, in bytes from the start of the message.
pub(super) const PAYLOAD_ALIGN: u64 = 8;

/// The fixed header. A message begins with it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) version: u8,
    pub(super) flags: u8,
    pub(super) topic_len: U16,
    pub(super) key_len: U32,
    pub(super) header_count: U32,
    pub(super) fields_len: U32,
    pub(super) payload_len: U64,
    pub(super) timestamp_nanos: I64,
    pub(super) id: U128,
}

const_assert_eq!(size_of::<RawHeader>(), 48);
const_assert_eq!(offset_of!(RawHeader, topic_len), 2);
const_assert_eq!(offset_of!(RawHeader, key_len), 4);
const_assert_eq!(offset_of!(RawHeader, header_count), 8);
const_assert_eq!(offset_of!(RawHeader, fields_len), 12);
const_assert_eq!(offset_of!(RawHeader, payload_len), 16);
const_assert_eq!(offset_of!(RawHeader, timestamp_nanos), 24);
const_assert_eq!(offset_of!(RawHeader, id), 32);

/// A row of the header table: the lengths of one header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RawRow {
    pub(super) name_len: U16,
    pub(super) value_len: U32,
}

const_assert_eq!(size_of::<RawRow>(), 6);
const_assert_eq!(offset_of!(RawRow, value_len), 2);

/// What stands in front of an optional field's value.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawField {
    pub(super) tag: U16,
    pub(super) value_len: U32,
}

const_assert_eq!(size_of::<RawField>(), 6);
const_assert_eq!(offset_of!(RawField, value_len), 2);

/// Where the parts of a message start, in bytes from its own start; each part ends where the next
/// one starts. Sums saturate.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) topic: u64,
    pub(super) names: u64,
    pub(super) key: u64,
    pub(super) values: u64,
    pub(super) fields: u64,
    pub(super) padding: u64,
    pub(super) payload: u64,
    /// The message's length.
    pub(super) end: u64,
}

/// The lengths of a message's parts, in bytes.
pub(super) struct Lengths {
    pub(super) rows: u64,
    pub(super) topic: u64,
    pub(super) names: u64,
    pub(super) key: u64,
    pub(super) values: u64,
    pub(super) fields: u64,
    pub(super) payload: u64,
}

impl Places {
    #[inline]
    pub(super) fn new(lengths: &Lengths) -> Places {
        let rows = lengths.rows.saturating_mul(size_of::<RawRow>() as u64);
        let topic = rows.saturating_add(size_of::<RawHeader>() as u64);
        let names = topic.saturating_add(lengths.topic);
        let key = names.saturating_add(lengths.names);
        let values = key.saturating_add(lengths.key);
        let fields = values.saturating_add(lengths.values);
        let padding = fields.saturating_add(lengths.fields);
        // A sum that has saturated is no multiple: it becomes the last one, too long all the same.
        let payload = padding.saturating_add(PAYLOAD_ALIGN - 1) & !(PAYLOAD_ALIGN - 1);
        let end = payload.saturating_add(lengths.payload);
        Places { topic, names, key, values, fields, padding, payload, end }
    }

    /// The parts behind the header table: name, start, end.
    pub(super) fn parts(&self) -> [(&'static str, u64, u64); 7] {
        [
            ("topic", self.topic, self.names),
            ("header names", self.names, self.key),
            ("key", self.key, self.values),
            ("header values", self.values, self.fields),
            ("optional fields", self.fields, self.padding),
            ("padding", self.padding, self.payload),
            ("payload", self.payload, self.end),
        ]
    }
}

/// Name, offset and size of each field, for the test of `docs/messages.md`.
#[cfg(test)]
pub(super) const HEADER_FIELDS: &[(&str, usize, usize)] = crate::layout::fields!(RawHeader {
    version,
    flags,
    topic_len,
    key_len,
    header_count,
    fields_len,
    payload_len,
    timestamp_nanos,
    id,
});
#[cfg(test)]
pub(super) const ROW_FIELDS: &[(&str, usize, usize)] =
    crate::layout::fields!(RawRow { name_len, value_len });
#[cfg(test)]
pub(super) const FIELD_FIELDS: &[(&str, usize, usize)] =
    crate::layout::fields!(RawField { tag, value_len });
