//! One message: any bytes as a record's payload.
//!
//! Input: one byte of flags (bit 0: put version and flags right; bit 1: cut the lengths down to
//! what little there is; bit 2: put the payload's length right, so that all lengths add up), then
//! the bytes.

use kaelix_wal::{Message, MessageView, OwnedMessage};

use crate::format::{put, u32_at, u64_at};

const FIXED_LEN: usize = 48;
const ROW_LEN: usize = 6;

/// A message as the second reader finds it.
struct Found<'a> {
    topic: &'a str,
    key: Option<&'a [u8]>,
    headers: Vec<(&'a str, &'a [u8])>,
    has_fields: bool,
    payload: &'a [u8],
}

pub fn run(data: &[u8]) {
    let Some((flags, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if flags & 1 != 0 {
        let key = bytes.get(1).copied().unwrap_or(0) & 1;
        put(&mut bytes, 0, &[1, key]);
    }
    if flags & 2 != 0 {
        for high in [3, 5, 6, 7, 9, 10, 11, 13, 14, 15] {
            put(&mut bytes, high, &[0]);
        }
    }
    if flags & 4 != 0 {
        let len = bytes.len() as u64;
        let payload_len = places(&bytes).map_or(0, |places| len.saturating_sub(places[6]));
        put(&mut bytes, 16, &payload_len.to_le_bytes());
    }
    let expected = reference(&bytes);
    let view = match MessageView::parse(&bytes) {
        Ok(view) => view,
        Err(error) => {
            assert!(expected.is_none(), "refused without a reason: {error}");
            assert!(error.offset() <= bytes.len() as u64, "{error}");
            assert!(!error.part().is_empty() && !error.to_string().is_empty());
            assert_eq!(OwnedMessage::new(bytes.clone()), Err(error));
            return;
        }
    };
    let expected = expected.expect("believed without a reason");
    compare(&bytes, &view, &expected);
}

fn compare(bytes: &[u8], view: &MessageView<'_>, expected: &Found<'_>) {
    assert_eq!(view.topic(), expected.topic);
    assert_eq!(view.key(), expected.key);
    assert_eq!(view.payload(), expected.payload);
    assert_eq!(view.headers().len(), expected.headers.len());
    assert!(view.headers().eq(expected.headers.iter().copied()));
    assert_eq!(view.timestamp_nanos() as u64, u64_at(bytes, 24));
    let id = u128::from(u64_at(bytes, 40)) << 64 | u128::from(u64_at(bytes, 32));
    assert_eq!(view.id(), id);
    let owned = view.to_owned_message();
    assert_eq!(owned.as_ref(), bytes);
    assert_eq!((owned.payload().as_ref(), owned.key().as_deref()), (view.payload(), view.key()));

    let message = Message::new(expected.payload)
        .id(id)
        .timestamp_nanos(view.timestamp_nanos())
        .topic(expected.topic)
        .headers(&expected.headers);
    let message = match expected.key {
        Some(key) => message.key(key),
        None => message,
    };
    let mut again = Vec::new();
    message.encode(&mut again).expect("it was encoded once");
    assert_eq!(message.encoded_len(), again.len());
    if expected.has_fields {
        // They are left out, and the rest is the same.
        let again = MessageView::parse(&again).expect("it was encoded a moment ago");
        assert!(again.headers().eq(view.headers()) && again.payload() == view.payload());
    } else {
        assert_eq!(again, bytes, "a second encoding of one message");
    }
}

/// Where topic, names, key, values, fields, padding and payload start, if the header table is
/// whole: `docs/messages.md`, "The bytes".
fn places(bytes: &[u8]) -> Option<[u64; 7]> {
    let rows = u64::from(u32_at(bytes, 8));
    let topic = FIXED_LEN as u64 + rows * ROW_LEN as u64;
    let table = bytes.get(FIXED_LEN..usize::try_from(topic).ok()?)?;
    let (mut names, mut values) = (0, 0);
    for row in table.chunks(ROW_LEN) {
        names += u64::from(u32_at(row, 0) as u16);
        values += u64::from(u32_at(row, 2));
    }
    let topic_len = u64::from(u32_at(bytes, 2) as u16);
    let lens = [topic_len, names, u32_at(bytes, 4).into(), values, u32_at(bytes, 12).into()];
    let mut places = [topic; 7];
    for (at, len) in lens.into_iter().enumerate() {
        places[at + 1] = places[at] + len;
    }
    places[6] = places[5].next_multiple_of(8);
    Some(places)
}

/// The message in `bytes`, if there is one.
fn reference(bytes: &[u8]) -> Option<Found<'_>> {
    let (version, flags) = (*bytes.first()?, *bytes.get(1)?);
    let (has_key, key_len) = (flags & 1 != 0, u32_at(bytes, 4));
    if bytes.len() < FIXED_LEN || version != 1 || flags > 1 || (!has_key && key_len != 0) {
        return None;
    }
    let [topic, names, key, values, fields, padding, payload] = places(bytes)?;
    if payload.checked_add(u64_at(bytes, 16))? != bytes.len() as u64 {
        return None;
    }
    let part = |start: u64, end: u64| &bytes[start as usize..end as usize];
    let (mut name, mut value) = (names, values);
    let mut headers = Vec::new();
    for row in part(FIXED_LEN as u64, topic).chunks(ROW_LEN) {
        let (name_end, value_end) =
            (name + u64::from(u32_at(row, 0) as u16), value + u64::from(u32_at(row, 2)));
        headers.push((std::str::from_utf8(part(name, name_end)).ok()?, part(value, value_end)));
        (name, value) = (name_end, value_end);
    }
    let mut rest = part(fields, padding);
    while !rest.is_empty() {
        let (head, behind) = rest.split_at_checked(6)?;
        let tag = u32_at(head, 0) as u16;
        if tag == 0 || tag >= 0x8000 {
            return None;
        }
        rest = behind.get(u32_at(head, 2) as usize..)?;
    }
    let is_zero = part(padding, payload).iter().all(|byte| *byte == 0);
    is_zero.then_some(Found {
        topic: std::str::from_utf8(part(topic, names)).ok()?,
        key: has_key.then(|| part(key, values)),
        headers,
        has_fields: fields != padding,
        payload: part(payload, bytes.len() as u64),
    })
}
