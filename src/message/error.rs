//! What can be wrong with a message: when it is written, and when bytes are taken for one.

/// Bytes are not a message that this build can read.
///
/// Offsets are in bytes from the start of the message. Nothing was changed, and reading the same
/// bytes again gives the same error: the record is not a message, or of a newer writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A part reaches beyond the end of the bytes.
    #[error(
        "no message: the {part} at byte {offset} has {needed} bytes, and {available} are left \
         there: the bytes were cut, or are something else"
    )]
    Truncated {
        /// Which part ("topic", "header table").
        part: &'static str,
        /// Where it starts.
        offset: u64,
        /// Its length in bytes, as the lengths before it say.
        needed: u64,
        /// How many bytes are there.
        available: u64,
    },
    /// The lengths of all parts add up to less than there is.
    #[error(
        "no message: the payload ends at byte {offset}, and {count} more bytes follow: commit a \
         reservation with the length that was encoded"
    )]
    TrailingBytes {
        /// Where the message ends.
        offset: u64,
        /// How many bytes lie behind it.
        count: u64,
    },
    /// The version is not this build's.
    #[error(
        "no message: the version at byte 0 is {found}, and this build reads version 1: read it \
         with a newer build, or as something else"
    )]
    Version {
        /// The version found.
        found: u8,
    },
    /// Flags are set that have no meaning in this version.
    #[error(
        "no message: the flags at byte 1 are {found:#04x}, and this build knows bit 0: read it \
         with a newer build"
    )]
    Flags {
        /// All flags.
        found: u8,
    },
    /// The flags say that there is no key, and the key has a length.
    #[error(
        "no message: the key length at byte 4 is {found}, and the flags say that there is none"
    )]
    KeyLength {
        /// The length found, in bytes.
        found: u32,
    },
    /// Text is not UTF-8, or a character straddles two texts.
    #[error("no message: the {part} at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// Which text ("topic", "header name").
        part: &'static str,
        /// Its first byte that is not part of a character.
        offset: u64,
    },
    /// An optional field is not known and must not be skipped.
    #[error(
        "the optional field at byte {offset} has tag {tag:#06x}, which this build does not know \
         and must not skip: read the message with a newer build"
    )]
    UnknownField {
        /// The field's tag: bit 15 is set, or it is 0, which is no tag.
        tag: u16,
        /// Where the field starts.
        offset: u64,
    },
    /// The bytes in front of the payload are not zero.
    #[error("no message: the padding at byte {offset} is not zero")]
    Padding {
        /// The first byte that is not zero.
        offset: u64,
    },
}

impl MessageError {
    /// Which part of the message is at fault.
    #[must_use]
    pub fn part(&self) -> &'static str {
        match self {
            MessageError::Truncated { part, .. } | MessageError::NotUtf8 { part, .. } => part,
            MessageError::TrailingBytes { .. } => "payload",
            MessageError::Version { .. } => "version",
            MessageError::Flags { .. } => "flags",
            MessageError::KeyLength { .. } => "key length",
            MessageError::UnknownField { .. } => "optional field",
            MessageError::Padding { .. } => "padding",
        }
    }

    /// Where the fault is, in bytes from the start of the message.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match *self {
            MessageError::Truncated { offset, .. }
            | MessageError::TrailingBytes { offset, .. }
            | MessageError::NotUtf8 { offset, .. }
            | MessageError::UnknownField { offset, .. }
            | MessageError::Padding { offset } => offset,
            MessageError::Version { .. } => 0,
            MessageError::Flags { .. } => 1,
            MessageError::KeyLength { .. } => 4,
        }
    }
}

/// A message could not be encoded. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageEncodeError {
    /// A part is longer than the format can say.
    #[error("cannot encode a message: its {part} has {len} {unit}; at most {max} are possible")]
    TooLong {
        /// Which part ("topic", "header name").
        part: &'static str,
        /// Its length.
        len: u64,
        /// The longest possible.
        max: u64,
        /// What is counted ("bytes", "entries").
        unit: &'static str,
    },
    /// The target is too short.
    #[error(
        "cannot encode a message of {needed} bytes into {available}: reserve what `encoded_len` \
         says"
    )]
    NoRoom {
        /// The message's encoded length, in bytes.
        needed: u64,
        /// How many bytes the target has left.
        available: u64,
    },
}
