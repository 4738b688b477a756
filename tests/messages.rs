//! Messages through a real log: written in place, read in place, and still there after a reopen.

mod common;

use bytes::{BufMut, Bytes};
use common::{Place, Rng, bytes, read_all, small};
use kaelix_wal::{
    Durability, Entry, Lsn, Message, MessageEncodeError, MessageError, MessageView, OnFull,
    Options, OwnedMessage, Position, Wal,
};

/// Message `number`, from which everything in it follows, for `body`.
fn with_message<T>(number: u64, body: impl FnOnce(Message<'_, Vec<u8>>) -> T) -> T {
    let mut rng = Rng::new(number);
    let topic = format!("topic-{}-é", rng.below(3));
    let key = bytes(number, rng.below(20) as usize);
    let values: Vec<Vec<u8>> =
        (0..rng.below(5)).map(|n| bytes(n, rng.below(30) as usize)).collect();
    let names = ["trace", "", "ключ", "trace"];
    let headers: Vec<(&str, &[u8])> =
        names.into_iter().zip(values.iter().map(Vec::as_slice)).collect();
    let message = Message::new(bytes(!number, rng.below(2000) as usize))
        .id(u128::from(number) << 64 | 0xFF)
        .timestamp_nanos(number as i64 - 50)
        .topic(&topic)
        .headers(&headers);
    // Every third has no key, and some of the others have an empty one.
    body(if number.is_multiple_of(3) { message } else { message.key(&key) })
}

fn append(wal: &Wal, number: u64) -> Lsn {
    with_message(number, |message| {
        let mut space = wal.reserve(message.encoded_len()).expect("there is room");
        let len = message.encode_into(&mut space);
        assert_eq!(len, Ok(space.len()), "the length that was announced");
        space.commit()
    })
}

fn encoded(number: u64) -> Vec<u8> {
    with_message(number, |message| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).expect("a vector grows");
        bytes
    })
}

/// Panics unless `view` is message `number`, part by part, and lies where the payload is aligned.
fn check(view: &MessageView<'_>, number: u64) {
    let want = encoded(number);
    assert!(view.as_bytes() == want, "message {number} was altered");
    assert_eq!(view.id() >> 64, u128::from(number));
    assert_eq!(view.timestamp_nanos(), number as i64 - 50);
    assert_eq!(view.key().is_none(), number.is_multiple_of(3));
    let headers: Vec<(&str, &[u8])> = view.headers().collect();
    let payload = view.payload();
    let again = Message::new(payload)
        .id(view.id())
        .timestamp_nanos(view.timestamp_nanos())
        .topic(view.topic())
        .headers(&headers);
    let again = match view.key() {
        Some(key) => again.key(key),
        None => again,
    };
    let mut bytes = Vec::new();
    again.encode(&mut bytes).expect("a vector grows");
    assert!(bytes == want, "message {number} reads as another");
}

#[test]
fn messages_come_back_from_the_log_and_over_a_reopen() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let mut lsns: Vec<Lsn> = (0..40).map(|number| append(&wal, number)).collect();
    wal.wait_durable(lsns[39]).expect("the disk takes it");
    let check_all = |wal: &Wal, lsns: &[Lsn]| {
        let mut reader = wal.reader(Position::Oldest).expect("all is retained");
        let mut number = 0;
        while let Some(record) = reader.next().expect("no record is damaged") {
            let view = MessageView::parse(record.payload()).expect("it is a message");
            assert_eq!(record.lsn(), lsns[number as usize]);
            assert_eq!(view.payload().as_ptr() as usize % 8, 0, "aligned in the mapping");
            check(&view, number);
            number += 1;
        }
        assert_eq!(number, lsns.len() as u64);
    };
    check_all(&wal, &lsns);
    wal.close().expect("the disk takes it");
    drop(wal);
    let wal = place.open(Options::new());
    check_all(&wal, &lsns);
    lsns.extend((40..50).map(|number| append(&wal, number)));
    check_all(&wal, &lsns);
}

#[test]
fn an_owned_message_outlives_its_place_in_the_ring() {
    let place = Place::new();
    let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
    let wal = place.create(options);
    let lsn = append(&wal, 1);
    let owned: OwnedMessage = {
        let record = wal.get(lsn).expect("it is there");
        MessageView::parse(record.payload()).expect("it is a message").to_owned_message()
    };
    // Twice round the ring.
    let mut written = 0;
    while written < 2 * small().capacity() {
        written += wal.append(&[0; 4000]).map(|_| 4000).expect("the oldest makes room");
    }
    assert!(wal.get(lsn).is_err(), "its place was used again");
    check(&owned.view(), 1);
    let payload: Bytes = owned.payload();
    let share = owned.as_ref().as_ptr_range();
    assert!(share.contains(&payload.as_ptr()), "the payload shares the message's memory");
    // What was kept can be appended again as it is.
    let lsn = wal.append(owned.as_ref()).expect("the oldest makes room");
    let record = wal.get(lsn).expect("it was appended a moment ago");
    check(&MessageView::parse(record.payload()).expect("it is a message"), 1);
}

#[test]
fn messages_of_a_batch_are_read_one_by_one() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let messages: Vec<OwnedMessage> = (0..20)
        .map(|number| OwnedMessage::new(encoded(number)).expect("it is a message"))
        .collect();
    let lsn = wal.append_batch(messages.iter().map(Entry::from)).expect("there is room");
    let record = wal.get(lsn).expect("it is committed");
    assert_eq!(record.entries().count(), 20);
    for (number, entry) in (0..).zip(record.entries()) {
        let view = MessageView::parse(entry.payload).expect("it is a message");
        assert_eq!(view.payload().as_ptr() as usize % 8, 0, "aligned in the mapping");
        check(&view, number);
    }
}

/// A reservation as a `BufMut`: several messages, each behind its length, in one record.
#[test]
fn messages_fill_a_reservation_from_the_front() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let mut space = wal.reserve(16 << 10).expect("there is room");
    for number in 0..5 {
        with_message(number, |message| {
            space.put_u32_le(message.encoded_len() as u32);
            assert_eq!(message.encode(&mut space), Ok(message.encoded_len()));
        });
    }
    space.commit_written();
    let records = read_all(&wal, Position::Oldest);
    let mut rest = &records[0].1[..];
    for number in 0..5 {
        let (len, behind) = rest.split_first_chunk().expect("a length");
        let (message, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        check(&MessageView::parse(message).expect("it is a message"), number);
        rest = behind;
    }
    assert!(rest.is_empty());
}

#[test]
fn a_reservation_of_another_length_is_noticed() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let message = Message::new(b"payload");
    let mut short = wal.reserve(message.encoded_len() - 1).expect("there is room");
    let refusal = message.encode_into(&mut short);
    assert_eq!(refusal, Err(MessageEncodeError::NoRoom { needed: 55, available: 54 }));
    drop(short);
    let mut long = wal.reserve(message.encoded_len() + 2).expect("there is room");
    assert_eq!(message.encode_into(&mut long), Ok(55));
    long.commit();
    wal.append(b"no message").expect("there is room");
    let records = read_all(&wal, Position::Oldest);
    let results: Vec<_> = records.iter().map(|(_, bytes)| MessageView::parse(bytes)).collect();
    let trailing = MessageError::TrailingBytes { offset: 55, count: 2 };
    assert_eq!(results[0].as_ref().err(), Some(&trailing));
    assert_eq!(results[1].as_ref().err(), Some(&MessageError::Version { found: b'n' }));
    assert_eq!(results.len(), 2, "what was refused left no record");
}
