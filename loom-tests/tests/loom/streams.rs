//! Models of streams under version control, of batches, and of what the index and the janitor are
//! told of them. A lost wake-up, or two who wait for each other, is a deadlock, which loom reports.

use crate::{check, in_turn, run};
use kaelix_wal::model::Log;
use kaelix_wal::{AppendError, Entry, Lsn, Position, StreamId};

/// Streams 1 and 2, both under version control.
fn versioned() -> Log {
    let log = Log::new(2, 1, 1024);
    log.announce_streams(2, &[1, 2]);
    log
}

fn id(stream: u32) -> StreamId {
    StreamId::new(stream).expect("not 0")
}

fn append(log: &Log, stream: u32, payload: &[u8]) {
    log.stream_of(stream, true).append(payload).expect("room");
}

/// Appends if the stream is new. Whoever is refused can read the record that was in the way.
fn append_first(log: &Log) -> Option<Lsn> {
    match log.stream_of(1, true).append_if(None, b"first") {
        Ok(lsn) => Some(lsn),
        Err(AppendError::Conflict { actual: Some(lsn), .. }) => {
            assert!(log.read(lsn).is_some(), "what is in the way at {lsn} is committed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Two who expect the same: one succeeds, the other is told of the record.
#[test]
fn of_two_who_expect_the_same_one_succeeds() {
    check(2, || {
        let log = versioned();
        let other = {
            let log = log.clone();
            loom::thread::spawn(move || append_first(&log))
        };
        let ours = append_first(&log);
        let theirs = other.join().expect("no panic");
        assert!(ours.is_some() != theirs.is_some(), "{ours:?} and {theirs:?}");
        let last = log.stream_of(1, true).last_lsn().expect("every record verifies");
        assert_eq!(last, ours.or(theirs));
        assert_eq!(log.contents(), [b"first"]);
    });
}

/// Who expects nothing, who expects nothing in particular, and who gives up: only what was first
/// was right to expect nothing.
#[test]
fn a_plain_append_counts_and_an_aborted_reservation_does_not() {
    check(2, || {
        let log = versioned();
        let first = {
            let log = log.clone();
            loom::thread::spawn(move || append_first(&log))
        };
        let plain = {
            let log = log.clone();
            loom::thread::spawn(move || log.stream_of(1, true).append(b"plain").expect("room"))
        };
        let stream = log.stream_of(1, true);
        drop(stream.reserve(8).expect("room"));
        let plain = plain.join().expect("no panic");
        let first = first.join().expect("no panic");
        assert!(first.is_none_or(|first| first < plain), "{first:?} behind {plain}");
        assert_eq!(stream.last_lsn().expect("every record verifies"), Some(plain));
        assert_eq!(log.contents().len(), 1 + usize::from(first.is_some()));
    });
}

/// What the version word says can be read, without a hold.
#[test]
fn a_version_that_is_told_can_be_read() {
    check(2, || {
        let log = versioned();
        let writer = run(&log, |log| append(log, 1, b"news"));
        if let Some(lsn) = log.stream_of(1, true).last_lsn().expect("every record verifies") {
            assert_eq!(log.read(lsn).as_deref(), Some(&b"news"[..]));
        }
        in_turn([writer]);
    });
}

/// Three who append to one stream: whoever finds it held sleeps, and is woken.
#[test]
fn who_waits_for_a_hold_is_woken() {
    check(2, || {
        let log = versioned();
        let threads = [1, 2].map(|_| run(&log, |log| append(log, 1, b"one")));
        log.stream_of(1, true).append(b"one").expect("room");
        in_turn(threads);
        assert_eq!(log.contents().len(), 3);
    });
}

/// Who waits for one stream is on the list of those who wait for any.
#[test]
fn two_streams_share_a_list_of_waiters() {
    check(1, || {
        let log = versioned();
        let threads = [1, 2, 1].map(|stream| run(&log, move |log| append(log, stream, b"one")));
        log.stream_of(2, true).append(b"one").expect("room");
        in_turn(threads);
        assert_eq!(log.contents().len(), 4);
    });
}

/// Two batches name two streams in different orders.
#[test]
fn two_batches_do_not_wait_for_each_other() {
    check(2, || {
        let log = versioned();
        let append = |log: &Log, streams: [u32; 2]| {
            log.append_batch(streams.map(|stream| Entry::from((id(stream), b"x")))).expect("room")
        };
        let other = {
            let log = log.clone();
            loom::thread::spawn(move || append(&log, [1, 2]))
        };
        let ours = append(&log, [2, 1]);
        let last = Some(other.join().expect("no panic").max(ours));
        for stream in [1, 2] {
            let stream = log.stream_of(stream, true);
            assert_eq!(stream.last_lsn().expect("every record verifies"), last);
        }
    });
}

/// Whoever sees an entry of a batch sees all of them.
fn expect_whole(log: &Log) {
    let mut reader = log.entries(Position::Oldest).expect("a pin is free");
    let mut seen = Vec::new();
    while let Some(entry) = reader.next().expect("every record verifies") {
        seen.push((entry.stream.map(StreamId::get), entry.payload.to_vec()));
    }
    let whole = [(Some(1), b"debit".to_vec()), (Some(2), b"credit".to_vec())];
    assert!(seen.is_empty() || seen == whole, "a part of a batch: {seen:?}");
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    check(2, || {
        let log = versioned();
        let writer = run(&log, |log| {
            let entries = [Entry::from((id(1), b"debit")), Entry::from((id(2), b"credit"))];
            log.append_batch(entries).expect("room");
        });
        expect_whole(&log);
        in_turn([writer]);
    });
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    check(2, || {
        let log = versioned();
        let writer = run(&log, |log| {
            let (from, to) = (log.stream_of(1, true), log.stream_of(2, true));
            let mut transaction = log.begin();
            transaction.expect(&from, None).expect("it has a version");
            transaction.append(&from, b"debit").expect("it fits");
            transaction.append(&to, b"credit").expect("it fits");
            transaction.commit().expect("nobody else appends");
        });
        expect_whole(&log);
        in_turn([writer]);
    });
}

/// A batch to a stream that is just being created is refused, or moves its version.
#[test]
fn who_knows_a_stream_knows_its_version() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        log.announce_streams(0, &[]);
        let creator = run(&log, |log| log.announce_streams(1, &[1]));
        let appended = log.append_batch([Entry::from((id(1), b"x"))]);
        in_turn([creator]);
        let last = log.stream_of(1, true).last_lsn().expect("every record verifies");
        match appended {
            Ok(lsn) => assert_eq!(last, Some(lsn)),
            Err(AppendError::NoStream { .. }) => assert_eq!(last, None),
            Err(error) => panic!("{error}"),
        }
    });
}

/// The index meets the first record of a stream that was not there when it set out.
#[test]
fn the_index_knows_a_stream_by_its_first_record() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        log.announce_streams(0, &[]);
        let creator = {
            let log = log.clone();
            loom::thread::spawn(move || {
                log.announce_streams(1, &[]);
                log.stream_of(1, false).append(b"first").expect("room")
            })
        };
        log.stream_of(1, false).last_lsn().expect("every record verifies");
        let lsn = creator.join().expect("no panic");
        let last = log.stream_of(1, false).last_lsn().expect("every record verifies");
        assert_eq!(last, Some(lsn));
    });
}

/// The janitor asks for the newest published records while an appender has still to tell of its
/// own.
#[test]
fn a_record_is_not_released_before_its_version_is_known() {
    check(3, || {
        let log = versioned();
        let start = log.published();
        let writer = run(&log, |log| append(log, 1, b"news"));
        let end = log.publish();
        let last = log.last_records()[0];
        assert!(end == start || last >= start, "a record below {end} that nobody knows of");
        in_turn([writer]);
    });
}
