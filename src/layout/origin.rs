//! Where a moved record comes from: it was appended once, and again further on, so that the first
//! may be released.
//!
//! ```text
//!  0               8               16
//!  +---------------+---------------+
//!  | first         | previous      |  the caller's bytes ...
//!  +---------------+---------------+
//! ```
//!
//! 1. A record whose flags say [`MOVED`] begins its payload with its origin; it is data.
//! 2. Callers never see the origin among their bytes: [`body`](super::stamp::body) leaves it out.
//! 3. `previous` is the record that it was copied from, which may have been moved itself. A record
//!    and its copy have the same bytes, and lie in the same stream.
//! 4. What a producer's [stamp](super::stamp) said of the first is not said of a copy.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Tag;
use crate::lsn::Lsn;

/// The flag of records that begin with an origin.
pub(crate) const MOVED: u8 = 2;

/// Bytes of an origin.
pub(crate) const ORIGIN_LEN: usize = size_of::<RawOrigin>();

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawOrigin {
    first: U64,
    previous: U64,
}

const_assert_eq!(size_of::<RawOrigin>(), 16);
const_assert_eq!(offset_of!(RawOrigin, previous), 8);

/// Where a moved record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Where it was appended first.
    pub(crate) first: Lsn,
    /// The record that it is a copy of.
    pub(crate) previous: Lsn,
}

impl Origin {
    /// The bytes to put in front of a payload.
    pub(crate) fn encode(self) -> [u8; ORIGIN_LEN] {
        let raw = RawOrigin {
            first: U64::new(self.first.get()),
            previous: U64::new(self.previous.get()),
        };
        zerocopy::transmute!(raw)
    }

    /// The origin of the record with this tag and these payload bytes, if it was moved.
    #[inline]
    pub(crate) fn of(tag: Tag, payload: &[u8]) -> Option<Origin> {
        if !tag.is_moved() {
            return None;
        }
        let (raw, _) = RawOrigin::read_from_prefix(payload).ok()?;
        Some(Origin { first: Lsn::new(raw.first.get()), previous: Lsn::new(raw.previous.get()) })
    }
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawOrigin { first, previous });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RecordKind;
    use crate::layout::stamp::body;

    #[test]
    fn an_origin_comes_back_and_is_not_shown() {
        let origin = Origin { first: Lsn::new(64), previous: Lsn::new(1 << 40) };
        let bytes = [&origin.encode()[..], b"abc"].concat();
        let moved = Tag::new(7, RecordKind::Data, MOVED, 1);
        assert_eq!(Origin::of(moved, &bytes), Some(origin));
        assert_eq!(body(moved, &bytes), b"abc");
        let data = Tag::new(7, RecordKind::Data, 0, 1);
        assert_eq!(Origin::of(data, &bytes), None);
        assert_eq!(body(data, &bytes), bytes);
        assert_eq!(Origin::of(moved, &bytes[..15]), None);
    }
}
