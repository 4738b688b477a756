//! Streams, by number, and what they were created as.

use std::fmt;
use std::num::NonZeroU32;

/// A stream's number in its log: given in order from 1, and never to another stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct StreamId(NonZeroU32);

impl StreamId {
    /// The id `id`; `None` for 0, which means no stream.
    #[must_use]
    #[inline]
    pub const fn new(id: u32) -> Option<StreamId> {
        match NonZeroU32::new(id) {
            Some(id) => Some(StreamId(id)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The last of all.
    pub(crate) const MAX: StreamId = StreamId(NonZeroU32::MAX);

    /// The id of row `index` of a table of all streams, if there are so many ids.
    pub(crate) fn of_row(index: usize) -> Option<StreamId> {
        StreamId::new(u32::try_from(index.checked_add(1)?).ok()?)
    }

    /// Its row in a table of all streams.
    pub(crate) const fn row(self) -> usize {
        self.get() as usize - 1
    }

    /// The number of a stream, or 0 for none.
    #[inline]
    pub(crate) const fn number(stream: Option<StreamId>) -> u32 {
        match stream {
            Some(stream) => stream.get(),
            None => 0,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

/// What a stream was created as.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct StreamFlags(u8);

impl StreamFlags {
    /// A stream like any other.
    pub const NONE: StreamFlags = StreamFlags(0);
    /// A stream under version control: its last position is kept even when its last record is
    /// released.
    pub const VERSIONED: StreamFlags = StreamFlags(1);

    /// The flags with these bits; `None` if one of them has no meaning.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<StreamFlags> {
        if bits & !StreamFlags::VERSIONED.0 == 0 { Some(StreamFlags(bits)) } else { None }
    }

    /// The flags with these bits, which are those of a stream.
    pub(crate) const fn stored(bits: u8) -> StreamFlags {
        StreamFlags(bits)
    }

    /// The bits, as they are stored.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Is the stream versioned?
    #[must_use]
    pub const fn is_versioned(self) -> bool {
        self.0 & StreamFlags::VERSIONED.0 != 0
    }
}

impl fmt::Display for StreamFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_versioned() { "versioned" } else { "not versioned" })
    }
}

impl fmt::Debug for StreamFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamFlags({self})")
    }
}
