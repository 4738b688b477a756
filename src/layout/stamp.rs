//! A producer's stamp: who appended a record, as which of its appends.
//!
//! ```text
//!  0               8               16
//!  +---------------+---------------+
//!  | producer      | sequence      |  the caller's bytes, or a batch's entries ...
//!  +---------------+---------------+
//! ```
//!
//! 1. A record whose flags say [`STAMPED`] begins its payload with a stamp; it is data or a batch.
//! 2. Callers never see the stamp among their bytes: whoever hands out a payload goes through
//!    [`body`].
//! 3. The checksum covers it like the rest of the payload.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Tag;
use super::origin::ORIGIN_LEN;
use crate::producer_id::ProducerId;

/// The flag of records that begin with a stamp.
pub(crate) const STAMPED: u8 = 1;

/// Bytes of a stamp.
pub(crate) const STAMP_LEN: usize = size_of::<RawStamp>();

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawStamp {
    producer: U64,
    sequence: U64,
}

const_assert_eq!(size_of::<RawStamp>(), 16);
const_assert_eq!(offset_of!(RawStamp, sequence), 8);

/// Who appended a record, as which of its appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer: ProducerId,
    /// Larger than that of the producer's record before.
    pub(crate) sequence: u64,
}

impl Stamp {
    /// The bytes to put in front of a payload.
    #[inline]
    pub(crate) fn encode(self) -> [u8; STAMP_LEN] {
        let raw =
            RawStamp { producer: U64::new(self.producer.get()), sequence: U64::new(self.sequence) };
        zerocopy::transmute!(raw)
    }

    /// The stamp of the record with this tag and these payload bytes, if it has one.
    #[inline]
    pub(crate) fn of(tag: Tag, payload: &[u8]) -> Option<Stamp> {
        if !tag.is_stamped() {
            return None;
        }
        let (raw, _) = RawStamp::read_from_prefix(payload).ok()?;
        let producer = ProducerId::new(raw.producer.get());
        Some(Stamp { producer, sequence: raw.sequence.get() })
    }
}

/// The caller's part of the payload of a record with this tag: without a stamp, and without an
/// [origin](super::origin).
#[inline]
pub(crate) fn body(tag: Tag, payload: &[u8]) -> &[u8] {
    let prefix_len = match (tag.is_stamped(), tag.is_moved()) {
        (true, _) => STAMP_LEN,
        (_, true) => ORIGIN_LEN,
        _ => return payload,
    };
    payload.get(prefix_len..).unwrap_or_default()
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawStamp { producer, sequence });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RecordKind;

    #[test]
    fn a_stamp_says_what_was_put_in_and_is_no_part_of_the_body() {
        let stamp = Stamp { producer: ProducerId::new(7), sequence: u64::MAX - 1 };
        let payload = [&stamp.encode()[..], b"body"].concat();
        for kind in [RecordKind::Data, RecordKind::Batch] {
            let (stamped, plain) = (Tag::new(0, kind, STAMPED, 1), Tag::new(0, kind, 0, 1));
            assert_eq!(Stamp::of(stamped, &payload), Some(stamp));
            assert_eq!(body(stamped, &payload), b"body");
            assert_eq!(Stamp::of(plain, &payload), None);
            assert_eq!(body(plain, &payload), payload);
            // Such a record does not verify; nothing is made of it.
            assert_eq!(Stamp::of(stamped, &payload[..15]), None);
            assert_eq!(body(stamped, &payload[..15]), b"");
        }
    }

    #[test]
    fn the_logs_own_records_have_no_stamp() {
        // Flag 1 of a control record means that it opens an epoch.
        let tag = Tag::new(0, RecordKind::Control, STAMPED, 1);
        assert_eq!(Stamp::of(tag, &[0; 16]), None);
        assert_eq!(body(tag, &[1; 16]), [1; 16]);
    }
}
