//! Whatever was written is read again; whatever else the bytes are, they are an error or a message.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::raw::MUST_UNDERSTAND;
use super::{Message, MessageEncodeError, MessageError, MessageView, OwnedMessage};

const FIXED_LEN: usize = 48;
const FIELDS_LEN_AT: usize = 12;

/// What a message is made of.
#[derive(Clone, Debug, PartialEq)]
struct Parts {
    id: u128,
    timestamp_nanos: i64,
    topic: String,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    payload: Vec<u8>,
}

impl Parts {
    fn of(view: &MessageView<'_>) -> Parts {
        let headers = view.headers().map(|(name, value)| (name.to_owned(), value.to_vec()));
        Parts {
            id: view.id(),
            timestamp_nanos: view.timestamp_nanos(),
            topic: view.topic().to_owned(),
            key: view.key().map(<[u8]>::to_vec),
            headers: headers.collect(),
            payload: view.payload().to_vec(),
        }
    }

    /// Runs `body` with the message that these are parts of.
    fn message<T>(&self, body: impl FnOnce(Message<'_, &Vec<u8>>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let message = Message::new(&self.payload)
            .id(self.id)
            .timestamp_nanos(self.timestamp_nanos)
            .topic(&self.topic)
            .headers(&headers);
        body(match &self.key {
            Some(key) => message.key(key),
            None => message,
        })
    }

    fn encode(&self) -> Vec<u8> {
        self.message(|message| {
            let mut bytes = Vec::new();
            let len = message.encode(&mut bytes).expect("short enough, and a vector grows");
            assert_eq!((len, message.encoded_len()), (bytes.len(), bytes.len()));
            bytes
        })
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    // Characters of one to four bytes.
    let text = || "[ -~éア🦀]{0,9}";
    let bytes = |len: usize| vec(any::<u8>(), 0..len);
    let key = proptest::option::of(bytes(12));
    let headers = vec((text(), bytes(20)), 0..6);
    (any::<u128>(), any::<i64>(), text(), key, headers, bytes(40)).prop_map(
        |(id, timestamp_nanos, topic, key, headers, payload)| Parts {
            id,
            timestamp_nanos,
            topic,
            key,
            headers,
            payload,
        },
    )
}

/// A message with something in every part.
fn full() -> Parts {
    Parts {
        id: 7,
        timestamp_nanos: -1,
        topic: "été".to_owned(),
        key: Some(b"key".to_vec()),
        headers: [("a", "1"), ("é", "two"), ("", ""), ("a", "3")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .to_vec(),
        payload: b"payload".to_vec(),
    }
}

/// Bytes that are taken for a message are the ones that it would be encoded to, if it has no
/// optional fields; and nobody who looks at it panics.
fn judge(bytes: &[u8]) -> Result<Parts, MessageError> {
    let view = MessageView::parse(bytes)?;
    let parts = Parts::of(&view);
    assert_eq!(view.headers().len(), parts.headers.len());
    for (name, _) in &parts.headers {
        let first = parts.headers.iter().find(|(other, _)| other == name);
        assert_eq!(view.header(name), first.map(|(_, value)| &**value));
    }
    if bytes[FIELDS_LEN_AT..][..4] == [0; 4] {
        assert_eq!(parts.encode(), bytes);
    }
    Ok(parts)
}

/// `bytes`, a message, with optional fields of these tags and values.
fn with_fields(parts: &Parts, fields: &[(u16, &[u8])]) -> Vec<u8> {
    let without = parts.encode();
    let padding_at = parts.message(|message| message.measure(&parts.payload).0.padding as usize);
    let mut bytes = without[..padding_at].to_vec();
    for (tag, value) in fields {
        bytes.extend(tag.to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend(*value);
    }
    let fields_len = (bytes.len() - padding_at) as u32;
    bytes[FIELDS_LEN_AT..][..4].copy_from_slice(&fields_len.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(&parts.payload);
    bytes
}

proptest! {
    #[test]
    fn what_was_encoded_is_viewed(parts in parts()) {
        let bytes = parts.encode();
        prop_assert_eq!(judge(&bytes), Ok(parts.clone()));
        let view = MessageView::parse(&bytes).expect("it was parsed a moment ago");
        let offset = view.payload().as_ptr() as usize - bytes.as_ptr() as usize;
        prop_assert_eq!(offset % 8, 0);
        prop_assert_eq!(bytes.len() - offset, parts.payload.len());
        // Into a slice with room behind it, which stays as it was.
        let mut slice = std::vec![0xA5; bytes.len() + 3];
        let len = parts.message(|message| message.encode_into(&mut slice));
        prop_assert_eq!(len, Ok(bytes.len()));
        prop_assert_eq!(&slice[..bytes.len()], &bytes[..]);
        prop_assert_eq!(&slice[bytes.len()..], &[0xA5; 3]);
    }

    #[test]
    fn an_owned_message_is_the_same_message(parts in parts()) {
        let bytes = parts.encode();
        let view = MessageView::parse(&bytes).expect("well-formed");
        let owned = view.to_owned_message();
        prop_assert_eq!(Parts::of(&owned.view()), parts.clone());
        prop_assert_eq!(owned.payload(), Bytes::from(parts.payload.clone()));
        prop_assert_eq!(owned.key(), parts.key.clone().map(Bytes::from));
        prop_assert_eq!(OwnedMessage::new(bytes.clone()), Ok(owned.clone()));
        prop_assert_eq!(owned.into_bytes(), Bytes::from(bytes));
    }

    #[test]
    fn every_truncation_is_an_error(parts in parts()) {
        let bytes = parts.encode();
        for len in 0..bytes.len() {
            let error = judge(&bytes[..len]).expect_err("lengths add up to more");
            let truncated = matches!(error, MessageError::Truncated { .. });
            prop_assert!(truncated && error.offset() <= len as u64, "{}: {:?}", len, error);
        }
    }

    #[test]
    fn every_changed_byte_is_an_error_or_another_message(parts in parts(), change in 1..=255_u8) {
        let bytes = parts.encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            if let Ok(other) = judge(&changed) {
                prop_assert!(other != parts, "byte {}", at);
            }
        }
    }

    #[test]
    fn whatever_the_bytes_are_nobody_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = judge(&bytes);
        let mut versioned = bytes;
        // Past the first gates: version, flags, and lengths of one byte.
        for (at, byte) in versioned.iter_mut().enumerate().take(24) {
            match at {
                0 => *byte = 1,
                1 => *byte &= 1,
                2 | 4 | 8 | 12 | 16 => *byte %= 16,
                _ => *byte = 0,
            }
        }
        let _ = judge(&versioned);
    }

    #[test]
    fn unknown_fields_are_skipped(
        parts in parts(),
        fields in vec((1..MUST_UNDERSTAND, vec(any::<u8>(), 0..9)), 1..5),
        at in any::<prop::sample::Index>(),
    ) {
        let mut fields: Vec<(u16, &[u8])> =
            fields.iter().map(|(tag, value)| (*tag, &**value)).collect();
        prop_assert_eq!(judge(&with_fields(&parts, &fields)), Ok(parts.clone()));
        // One of them must be understood.
        let at = at.index(fields.len());
        let before: usize = fields[..at].iter().map(|(_, value)| 6 + value.len()).sum();
        fields[at].0 |= MUST_UNDERSTAND;
        let fields_at = parts.message(|message| message.measure(&parts.payload).0.fields);
        let error = MessageError::UnknownField {
            tag: fields[at].0,
            offset: fields_at + before as u64,
        };
        prop_assert_eq!(judge(&with_fields(&parts, &fields)), Err(error));
        // Zeroes are no field.
        fields[at].0 = 0;
        let zero = MessageError::UnknownField { tag: 0, offset: error.offset() };
        prop_assert_eq!(judge(&with_fields(&parts, &fields)), Err(zero));
    }
}

#[test]
fn every_single_bit_and_every_byte_of_a_full_message_counts() {
    let parts = full();
    let bytes = parts.encode();
    for at in 0..bytes.len() {
        for change in 1..=255 {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            assert_ne!(judge(&changed), Ok(parts.clone()), "byte {at} xor {change}");
        }
    }
}

/// These bytes stand for all that have been written: they are read and written for ever.
#[test]
fn the_bytes_are_frozen() {
    let golden: [&[u8]; 9] = [
        &[1, 1, 5, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        &[0xFF; 8],
        &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 1, 0, 0, 0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0],
        "étéaéa".as_bytes(),
        b"key",
        b"1two3",
        &[0; 7],
        b"payload",
    ];
    let golden = golden.concat();
    assert_eq!(full().encode(), golden);
    assert_eq!(judge(&golden), Ok(full()));
    let least = [&[1][..], &[0; 47]].concat();
    let empty = Message::new([]);
    let mut bytes = BytesMut::new();
    assert_eq!(empty.encode(&mut bytes), Ok(FIXED_LEN));
    assert_eq!(bytes, least);
    // A field that nobody knows yet, and one that must be understood.
    let mut fielded = with_fields(&full(), &[(9, b"?")]);
    assert_eq!(fielded[89..][..7], [9, 0, 1, 0, 0, 0, b'?']);
    assert_eq!(judge(&fielded), Ok(full()));
    fielded[90] = 0x80;
    assert_eq!(judge(&fielded), Err(MessageError::UnknownField { tag: 0x8009, offset: 89 }));
}

#[test]
fn every_error_names_its_part_and_its_place() {
    let bytes = full().encode();
    let edit = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        judge(&bytes).expect_err("it is no message any more")
    };
    let truncated = |part, offset, needed, available| MessageError::Truncated {
        part,
        offset,
        needed,
        available,
    };
    assert_eq!(judge(&[]), Err(truncated("version", 0, 1, 0)));
    assert_eq!(judge(&[2]), Err(MessageError::Version { found: 2 }));
    assert_eq!(judge(&bytes[..47]), Err(truncated("fixed header", 0, 48, 47)));
    assert_eq!(judge(&bytes[..71]), Err(truncated("header table", 48, 24, 23)));
    assert_eq!(judge(&bytes[..76]), Err(truncated("topic", 72, 5, 4)));
    assert_eq!(judge(&bytes[..80]), Err(truncated("header names", 77, 4, 3)));
    assert_eq!(judge(&bytes[..83]), Err(truncated("key", 81, 3, 2)));
    assert_eq!(judge(&bytes[..84]), Err(truncated("header values", 84, 5, 0)));
    assert_eq!(judge(&bytes[..90]), Err(truncated("padding", 89, 7, 1)));
    assert_eq!(judge(&bytes[..102]), Err(truncated("payload", 96, 7, 6)));
    assert_eq!(
        judge(&[&bytes[..], &[0; 2]].concat()),
        Err(MessageError::TrailingBytes { offset: 103, count: 2 })
    );
    assert_eq!(edit(1, 3), MessageError::Flags { found: 3 });
    assert_eq!(edit(1, 0), MessageError::KeyLength { found: 3 });
    assert_eq!(edit(95, 1), MessageError::Padding { offset: 95 });
    assert_eq!(edit(73, b'x'), MessageError::NotUtf8 { part: "topic", offset: 72 });
    assert_eq!(edit(80, 0xC3), MessageError::NotUtf8 { part: "header name", offset: 80 });
    // Fields that end too early: in the tag or length, in the value.
    assert_eq!(edit(12, 5), truncated("optional field", 89, 6, 5));
    let mut fielded = with_fields(&full(), &[(9, b"?")]);
    fielded[91] = 2;
    assert_eq!(judge(&fielded), Err(truncated("optional field's value", 95, 2, 1)));
    // Lengths whose sum is beyond all numbers.
    let mut endless = bytes.clone();
    endless[16..24].fill(0xFF);
    assert_eq!(judge(&endless), Err(truncated("payload", 96, u64::MAX - 96, 7)));
    let error = edit(8, 0xFF);
    assert_eq!(error, truncated("header table", 48, 255 * 6, 55));
    assert_eq!((error.part(), error.offset()), ("header table", 48));
    assert!(error.to_string().contains("header table at byte 48"), "{error}");
}

/// All text is checked in one go, but each text must be text by itself.
#[test]
fn a_character_between_two_texts_belongs_to_neither() {
    let with = |topic: &str, names: [&str; 2]| Parts {
        topic: topic.to_owned(),
        headers: names.map(|name| (name.to_owned(), Vec::new())).to_vec(),
        ..full()
    };
    // The text is "é" + "é" + "é"; each length is moved to the middle of a character.
    let bytes = with("é", ["é", "é"]).encode();
    let mut topic = bytes.clone();
    (topic[2], topic[48]) = (1, 3);
    assert_eq!(judge(&topic), Err(MessageError::NotUtf8 { part: "topic", offset: 60 }));
    let mut name = bytes.clone();
    (name[48], name[54]) = (1, 3);
    assert_eq!(judge(&name), Err(MessageError::NotUtf8 { part: "header name", offset: 62 }));
    // Moved by whole characters, it is another message.
    let mut other = bytes;
    (other[48], other[54]) = (0, 4);
    assert_eq!(judge(&other), Ok(with("é", ["", "éé"])));
}

#[test]
fn what_is_too_long_is_refused_before_a_byte_is_written() {
    let text = "x".repeat(65_536);
    let mut target = vec![0xA5; 70_000];
    let mut refusal = |message: Message<'_, &[u8]>| {
        let refusal = message.encode_into(&mut target).expect_err("too long");
        assert!(target.iter().all(|byte| *byte == 0xA5));
        refusal
    };
    let too_long =
        |part| MessageEncodeError::TooLong { part, len: 65_536, max: 65_535, unit: "bytes" };
    let message = Message::new(&b""[..]);
    assert_eq!(refusal(message.topic(&text)), too_long("topic"));
    let headers = [(&*text, &b""[..])];
    assert_eq!(refusal(message.headers(&headers)), too_long("header name"));
    let no_room = MessageEncodeError::NoRoom { needed: 56, available: 55 };
    assert_eq!(message.topic("x").encode_into(&mut target[..55]), Err(no_room));
    assert!(target.iter().all(|byte| *byte == 0xA5));
    let headers = [(&text[1..], &b""[..])];
    let longest = message.topic(&text[1..]).headers(&headers);
    let mut bytes = Vec::new();
    assert_eq!(longest.encode(&mut bytes), Ok(longest.encoded_len()));
    let view = MessageView::parse(&bytes).expect("the longest is possible");
    assert!(view.topic() == &text[1..] && view.headers().eq(headers));
}

/// 4 GiB that are never touched, so that they take no memory.
#[cfg(not(wal_sanitized))]
#[test]
fn a_value_of_four_gibibytes_is_refused() {
    let long = vec![0_u8; 1 << 32];
    let too_long = |part| MessageEncodeError::TooLong {
        part,
        len: 1 << 32,
        max: (1 << 32) - 1,
        unit: "bytes",
    };
    let mut target = [0; 100];
    let headers: [(&str, &[u8]); 1] = [("name", &long)];
    let refusal = Message::new([]).headers(&headers).encode_into(&mut target);
    assert_eq!(refusal, Err(too_long("header value")));
    let refusal = Message::new([]).key(&long).encode_into(&mut target);
    assert_eq!(refusal, Err(too_long("key")));
    // One byte less is possible, and there is no room for it.
    let refusal = Message::new([]).key(&long[1..]).encode_into(&mut target);
    let needed = (48 + (1 << 32) - 1_u64).next_multiple_of(8);
    assert_eq!(refusal, Err(MessageEncodeError::NoRoom { needed, available: 100 }));
}

/// The same payload must be measured and copied, whatever an `AsRef` gives out.
#[test]
fn a_payload_that_changes_makes_no_torn_message() {
    struct Fickle(std::cell::Cell<usize>);
    impl AsRef<[u8]> for Fickle {
        fn as_ref(&self) -> &[u8] {
            self.0.set(self.0.get() + 1);
            &b"twelve bytes"[..self.0.get()]
        }
    }
    let message = Message::new(Fickle(std::cell::Cell::new(0)));
    let mut target = vec![0; message.encoded_len()];
    let refusal = message.encode_into(&mut target);
    assert_eq!(refusal, Err(MessageEncodeError::NoRoom { needed: 50, available: 49 }));
    let mut bytes = Vec::new();
    assert_eq!(message.encode(&mut bytes), Ok(51));
    assert_eq!(MessageView::parse(&bytes).expect("whole").payload(), b"twe");
}

#[test]
fn an_empty_key_is_a_key() {
    let encode = |message: Message<'_, &[u8]>| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).expect("short");
        bytes
    };
    let (without, with) = (Message::new(&b"p"[..]), Message::new(&b"p"[..]).key(b""));
    assert_eq!(judge(&encode(without)).expect("well-formed").key, None);
    assert_eq!(judge(&encode(with)).expect("well-formed").key, Some(Vec::new()));
}
