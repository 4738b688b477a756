//! Messages: an id, a topic, a key, headers and a time in front of a payload, in one entry.
//!
//! The log keeps bytes and does not look into them; this module is one way to use those bytes.
//! `docs/messages.md` has the map, and a test compares it with the structures here.
//!
//! 1. *Nothing is copied on the way.* [`Message`] borrows what it is made of and is written
//!    straight into a reservation, each byte once. [`MessageView`] borrows the record's payload.
//!    Neither allocates.
//! 2. *Lengths come first.* A fixed header and one row for each message header hold every length,
//!    so a view finds all parts by adding up, before it looks at any of them. Lists whose next
//!    entry is found only through the last one would make it wait for memory again and again.
//! 3. *All text lies together*, the topic and then the headers' names, and one pass checks that it
//!    is UTF-8. So text is checked up front, and every accessor of a view is infallible: a view is
//!    the trusted type. Values, key and payload are bytes and mean what their user says.
//! 4. *A message has one encoding* as long as it has no optional fields: lengths add up to the
//!    last byte, padding is zero, unused flags are zero. Whoever parses and encodes again gets the
//!    same bytes, and a byte that was changed is either another message or an error.
//! 5. *What is new comes as an optional field*, a tag and a length, which a reader that does not
//!    know it skips, unless bit 15 of the tag says that it must not. A longer fixed header would
//!    be a second way to say the same, could not say that it must be understood, and would be paid
//!    for by every message. What changes the meaning of the rest is another version.
//! 6. *Bytes are hostile until they are parsed.* Every sum saturates, and no saturated sum fits a
//!    slice; what has been checked once is only ever split where it was checked.
//! 7. There is no checksum: the record has one. Whoever sends messages elsewhere adds theirs.
//! 8. The payload starts at a multiple of 8 bytes from the message, and an entry's payload at a
//!    multiple of 8 in the log: a payload whose layout wants alignment has it in place.

mod encode;
mod error;
#[cfg(test)]
mod format_doc;
mod owned;
mod raw;
#[cfg(test)]
mod tests;
mod view;

pub use encode::Message;
pub use error::{MessageEncodeError, MessageError};
pub use owned::OwnedMessage;
pub use view::{MessageHeaders, MessageView};
