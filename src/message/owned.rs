//! Keeping: a message that owns its bytes.

use std::fmt;

use bytes::Bytes;

use super::error::MessageError;
use super::view::MessageView;

/// A message that owns its bytes, to be kept or handed to another thread.
///
/// It is one [`Bytes`]: a clone shares it, and so do [`payload`](OwnedMessage::payload) and
/// [`key`](OwnedMessage::key), which keep the whole message in memory. As a `&[u8]` it is the
/// encoded message, ready to be appended or sent.
///
/// # Example
///
/// ```
/// use kaelix_wal::{Message, MessageView, OwnedMessage};
///
/// let mut bytes = Vec::new();
/// Message::new(b"payload").topic("orders").encode(&mut bytes)?;
/// let kept: OwnedMessage = MessageView::parse(&bytes)?.to_owned_message();
/// drop(bytes);
/// let payload: bytes::Bytes = std::thread::spawn(move || kept.payload()).join().unwrap();
/// assert_eq!(payload, &b"payload"[..]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedMessage {
    /// A message that has been parsed.
    bytes: Bytes,
}

impl OwnedMessage {
    /// Takes an encoded message, without a copy.
    ///
    /// # Errors
    ///
    /// As [`MessageView::parse`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<OwnedMessage, MessageError> {
        let bytes = bytes.into();
        MessageView::parse(&bytes)?;
        Ok(OwnedMessage { bytes })
    }

    pub(super) fn copy_of(view: &MessageView<'_>) -> OwnedMessage {
        OwnedMessage { bytes: Bytes::copy_from_slice(view.as_bytes()) }
    }

    /// The message, to look at. It is parsed each time: keep the view while you look at more than
    /// one part.
    #[must_use]
    pub fn view(&self) -> MessageView<'_> {
        MessageView::parse(&self.bytes).expect("these bytes were parsed when they came in")
    }

    /// The payload, without a copy.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.bytes.slice_ref(self.view().payload())
    }

    /// The key, without a copy.
    #[must_use]
    pub fn key(&self) -> Option<Bytes> {
        self.view().key().map(|key| self.bytes.slice_ref(key))
    }

    /// The encoded message.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl AsRef<[u8]> for OwnedMessage {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<MessageView<'_>> for OwnedMessage {
    /// Copies the bytes.
    fn from(view: MessageView<'_>) -> OwnedMessage {
        view.to_owned_message()
    }
}

impl fmt::Debug for OwnedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedMessage").field(&self.view()).finish()
    }
}
