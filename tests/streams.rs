//! Streams by name: appending, reading by the index, versions, over laps and reopens.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use common::{FIRST_RECORD, Place, RECORD_END, Rng, SEGMENT, seed, within_patience};
use kaelix_wal::inspect::Observer;
use kaelix_wal::{
    AppendError, CatalogError, Durability, Entry, Geometry, Lsn, Options, Position, ReadError,
    StreamId, Wal,
};

fn read(wal: &Wal, name: &str, from: Position) -> Vec<Vec<u8>> {
    let stream = wal.stream(name).expect("it is there");
    let reader = stream.read(from).expect("it can be read");
    let payload = |entry: Result<kaelix_wal::OwnedEntry, _>| {
        let entry: kaelix_wal::OwnedEntry = entry.expect("every record verifies");
        assert_eq!(entry.stream, Some(stream.id()));
        entry.payload.to_vec()
    };
    reader.copied().map(payload).collect()
}

#[test]
fn a_stream_is_the_same_by_its_name_after_a_reopen() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let names = ["orders.eu", "orders.us", "ünïcode \u{1F980}", &"x".repeat(255)];
    let ids: Vec<StreamId> =
        names.iter().map(|name| wal.stream(name).expect("it is created").id()).collect();
    for (name, id) in names.iter().zip(&ids) {
        let stream = wal.stream(name).expect("it is there");
        assert_eq!((stream.id(), stream.name().as_str()), (*id, *name));
        stream.append(name.as_bytes()).expect("there is room");
    }
    drop(wal);
    let wal = place.open(Options::new());
    for (name, id) in names.iter().zip(&ids) {
        assert_eq!(wal.stream(name).expect("it is there").id(), *id);
        assert_eq!(read(&wal, name, Position::Oldest), [name.as_bytes()]);
    }
    let listed: Vec<_> = wal.stream_names().into_iter().map(|(_, name)| name).collect();
    assert_eq!(listed, names);
    for (name, len) in [("", 0), (&"x".repeat(256)[..], 256)] {
        let refused = wal.stream(name);
        assert!(matches!(refused, Err(CatalogError::NameLength { len: l, .. }) if l == len));
    }
}

#[test]
fn many_streams_are_created_at_once() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let names: Vec<String> = (0..10_000).map(|n| format!("stream {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let streams = wal.streams(&names).expect("they are created");
    assert!(streams.iter().zip(1..).all(|(stream, id)| stream.id().get() == id));
    let again = wal.streams(&names[5000..5002]).expect("they are there");
    assert_eq!(again[1].id(), streams[5001].id());
}

/// What the index says against what was appended: singly, in batches, through reservations, by
/// several threads, over laps, with blocks of the index that come and go.
#[test]
fn every_stream_reads_as_it_was_appended() {
    // All in one block; in many; in few, with a walk before them; hardly any.
    for index_bytes in [128 << 20, 256 << 10, 16 << 10, 0] {
        streams_read_as_they_were_appended(index_bytes);
    }
}

fn streams_read_as_they_were_appended(index_bytes: usize) {
    let place = Place::new();
    let geometry = Geometry::new(1 << 20, 1 << 16).expect("in bounds");
    let options = Options::new().durability(Durability::None).stream_index_bytes(index_bytes);
    let wal = Wal::create(&place.path, geometry, options).expect("a new log");
    let seed = seed("every_stream_reads_as_it_was_appended");
    let names = ["a", "b", "c", "d", "e"];
    let streams = wal.streams(&names).expect("they are created");
    for round in 0..20 {
        release_half(&wal);
        std::thread::scope(|scope| {
            for writer in 0..3_u64 {
                let (wal, streams) = (&wal, &streams);
                scope.spawn(move || {
                    let mut random = Rng::new(seed + round * 10 + writer);
                    for _ in 0..300 {
                        let stream = &streams[random.below(5) as usize];
                        let payload = vec![random.next() as u8; random.below(200) as usize];
                        match random.below(4) {
                            0 => drop(stream.append(&payload).expect("there is room")),
                            1 => {
                                let mut reservation = stream.reserve(300).expect("there is room");
                                reservation.write_all(&payload).expect("it fits");
                                reservation.commit_written();
                            }
                            2 => drop(wal.append(&payload).expect("there is room")),
                            _ => {
                                let other = &streams[random.below(5) as usize];
                                let entries = [
                                    Entry::from((stream.id(), &payload)),
                                    Entry::from(&payload),
                                    Entry::from((other.id(), &payload[..payload.len() / 2])),
                                ];
                                wal.append_batch(entries).expect("there is room");
                            }
                        }
                    }
                });
            }
        });
        check_streams(&wal, &names);
        check_observed(&wal, &place, &names);
    }
}

/// Releases the older half of what is retained, but for a part of a segment.
fn release_half(wal: &Wal) {
    let mut reader = wal.entries(Position::Oldest).expect("it can be read");
    let half = reader.position() + (wal.watermarks().published - reader.position()) / 2;
    while reader.position() < half && reader.next().expect("every record verifies").is_some() {}
    wal.checkpoint(reader.position()).expect("a boundary");
    wal.sync_checkpoint().expect("the disk takes it");
}

/// Compares each stream, and pairs of them, with a walk over the whole log.
fn check_streams(wal: &Wal, names: &[&str]) {
    let mut want: BTreeMap<u32, Vec<(kaelix_wal::Lsn, Vec<u8>)>> = BTreeMap::new();
    let mut all = wal.entries(Position::Oldest).expect("it can be read");
    let start = all.position();
    while let Some(entry) = all.next().expect("every record verifies") {
        if let Some(stream) = entry.stream {
            want.entry(stream.get()).or_default().push((entry.lsn, entry.payload.to_vec()));
        }
    }
    for name in names {
        let stream = wal.stream(name).expect("it is there");
        let want = want.get(&stream.id().get()).cloned().unwrap_or_default();
        let found: Vec<_> = stream
            .read(Position::At(start))
            .expect("it can be read")
            .copied()
            .map(|entry| entry.expect("every record verifies"))
            .map(|entry| (entry.lsn, entry.payload.to_vec()))
            .collect();
        assert_eq!(found, want, "{name}");
        assert_eq!(stream.len().expect("it can be counted"), want.len() as u64);
        let last = want.last().map(|(lsn, _)| *lsn);
        assert_eq!(stream.last_lsn().expect("it is known"), last);
        if let Some((lsn, _)) = want.get(want.len() / 2) {
            let half = read(wal, name, Position::At(*lsn));
            let expected = want.iter().filter(|(at, _)| at >= lsn);
            assert!(half.iter().eq(expected.map(|(_, payload)| payload)));
        }
    }
    let pair = [names[1], names[3]].map(|name| wal.stream(name).expect("it is there").id());
    let mut both: Vec<_> =
        pair.iter().flat_map(|id| want.get(&id.get()).cloned().unwrap_or_default()).collect();
    // Stable: entries of one record stay in their order only within a stream.
    both.sort_by_key(|(lsn, _)| *lsn);
    let reader = wal.read_streams(pair, Position::At(start)).expect("it can be read");
    let mut found: Vec<_> = reader
        .copied()
        .map(|entry| entry.expect("every record verifies"))
        .map(|entry| (entry.lsn, entry.payload.to_vec()))
        .collect();
    found.sort();
    both.sort();
    assert_eq!(found, both);
}

/// What an observer counts, against the log's own count.
fn check_observed(wal: &Wal, place: &Place, names: &[&str]) {
    let observer = Observer::open(&place.path).expect("it can be read");
    let summaries = observer.streams().expect("every record verifies");
    // Those of no stream come first.
    assert_eq!(summaries.len(), 1 + names.len());
    assert_eq!((summaries[0].id, summaries[0].name.as_deref()), (None, None));
    for (summary, name) in summaries[1..].iter().zip(names) {
        let stream = wal.stream(name).expect("it is there");
        assert_eq!((summary.id, summary.name.as_deref()), (Some(stream.id()), Some(*name)));
        assert_eq!(summary.entries, stream.len().expect("it can be counted"), "{name}");
        assert_eq!(summary.last_lsn, stream.last_lsn().expect("it is known"), "{name}");
        let mut reader = stream.read(Position::Oldest).expect("it can be read");
        let first = reader.next().expect("it verifies").map(|entry| entry.lsn);
        assert_eq!(summary.first_lsn, first, "{name}");
    }
    let all = wal.entries(Position::Oldest).expect("it can be read").copied();
    let payload_len = |entry: Result<kaelix_wal::OwnedEntry, _>| {
        entry.expect("every record verifies").payload.len() as u64
    };
    let payload_bytes: u64 = all.map(payload_len).sum();
    assert_eq!(summaries.iter().map(|summary| summary.payload_bytes).sum::<u64>(), payload_bytes);
}

/// The index covers everything from a segment's start, and what is walked before it ends with the
/// segment before, filled to the byte: two names for one place.
#[test]
fn a_walk_meets_the_index_at_the_end_of_a_segment() {
    let place = Place::new();
    let wal = place.create(Options::new().durability(Durability::None).stream_index_bytes(0));
    within_patience("a stream is read", move || {
        let stream = wal.stream("s").expect("new");
        // 64 postings are a block, and there is no memory for it once the next one begins.
        for n in 0..63_u8 {
            stream.append(&[n; 928]).expect("there is room");
        }
        let rest = RECORD_END - wal.watermarks().reserved.get() - 16;
        stream.append(&vec![63; rest as usize]).expect("it fills the segment");
        stream.append(&[64]).expect("there is room");
        assert_eq!(stream.last_lsn().expect("known"), Some(Lsn::new(SEGMENT + FIRST_RECORD)));
        let read = read(&wal, "s", Position::Oldest);
        assert!(read.iter().map(|payload| payload[0]).eq(0..65));
    });
}

#[test]
fn a_tail_of_a_stream_gets_its_entries_alone_and_ends_with_the_log() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let (quiet, busy) = (wal.stream("quiet").expect("new"), wal.stream("busy").expect("new"));
    std::thread::scope(|scope| {
        let mut tail = quiet.tail().expect("a pin is free");
        let follower = scope.spawn(move || {
            let mut got = Vec::new();
            loop {
                match tail.next_timeout(Duration::from_secs(60)) {
                    Ok(Some(entry)) => got.push(entry.payload.to_vec()),
                    Ok(None) => panic!("the log is closed long before"),
                    Err(ReadError::Closed) => return got,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for n in 0..1000_u32 {
            busy.append(&[0; 50]).expect("there is room");
            if n % 100 == 0 {
                quiet.append(&n.to_le_bytes()).expect("there is room");
                std::thread::yield_now();
            }
        }
        wal.close().expect("nothing is in the way");
        let want: Vec<_> = (0..10_u32).map(|n| (n * 100).to_le_bytes().to_vec()).collect();
        assert_eq!(follower.join().expect("no panic"), want);
    });
}

#[test]
fn a_durable_only_reader_of_a_stream_waits_for_the_sync() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.stream("s").expect("new");
    let mut reader = stream.read(Position::Oldest).expect("it can be read").durable_only();
    let lsn = stream.append(b"not yet").expect("there is room");
    assert!(reader.next().expect("it verifies").is_none());
    wal.wait_durable(lsn).expect("the disk takes it");
    assert_eq!(reader.next().expect("it verifies").map(|entry| entry.lsn), Some(lsn));
    assert!(reader.next().expect("it verifies").is_none());
}

#[test]
fn of_those_who_expect_the_same_version_one_succeeds() {
    let place = Place::new();
    let wal = place.create(Options::new().durability(Durability::None));
    let stream = wal.versioned_stream("account").expect("new");
    let wins: usize = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4_u8)
            .map(|name| {
                let (stream, wal) = (stream.clone(), &wal);
                scope.spawn(move || {
                    let mut wins = 0;
                    let mut last = stream.last_lsn().expect("it is known");
                    for round in 0..500_u32 {
                        let appended = if round % 2 == 0 {
                            stream.append_if(last, &[name])
                        } else {
                            let mut transaction = wal.begin();
                            transaction.expect(&stream, last).expect("it is versioned");
                            transaction.append(&stream, &[name]).expect("it is small");
                            transaction.commit()
                        };
                        last = match appended {
                            Ok(lsn) => {
                                wins += 1;
                                Some(lsn)
                            }
                            Err(AppendError::Conflict { expected, actual, .. }) => {
                                assert!(expected == last && actual > last);
                                // What it is at is committed, and nobody claims anything else.
                                let actual = actual.expect("somebody was there");
                                wal.get(actual).expect("it can be read");
                                Some(actual)
                            }
                            Err(error) => panic!("{error}"),
                        };
                    }
                    wins
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).sum()
    });
    assert_eq!(stream.len().expect("it can be counted"), wins as u64);
}

#[test]
fn plain_appends_and_batches_move_a_version_and_aborted_ones_do_not() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.versioned_stream("account").expect("new");
    assert_eq!(stream.last_lsn().expect("it is known"), None);
    let first = stream.append(b"plain").expect("there is room");
    assert_eq!(stream.last_lsn().expect("it is known"), Some(first));
    let second = wal.append_batch([(stream.id(), b"in a batch")]).expect("there is room");
    assert_eq!(stream.last_lsn().expect("it is known"), Some(second));
    drop(stream.reserve(10).expect("there is room"));
    assert_eq!(stream.last_lsn().expect("it is known"), Some(second));
    let reservation = stream.reserve(10).expect("there is room");
    let third = reservation.commit_len(3);
    assert_eq!(stream.last_lsn().expect("it is known"), Some(third));
    let refused = stream.append_if(Some(first), b"late");
    assert!(matches!(
        refused,
        Err(AppendError::Conflict { stream: s, expected, actual })
            if s == stream.id() && expected == Some(first) && actual == Some(third)
    ));
    // A stream that is not under version control says so.
    let plain = wal.stream("plain").expect("new");
    let refused = plain.append_if(None, b"x");
    assert!(matches!(refused, Err(AppendError::NotVersioned { .. })));
    let refused = wal.versioned_stream("plain");
    assert!(matches!(refused, Err(CatalogError::FlagsDiffer { .. })));
    assert!(wal.stream("account").expect("it is there").is_versioned());
}

/// A version is known when its record is committed. It is read when all before it is, too.
#[test]
fn what_is_in_the_way_is_read_when_what_was_claimed_before_it_is_committed() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.versioned_stream("account").expect("new");
    let hole = wal.reserve(5).expect("there is room");
    let first = stream.append(b"first").expect("there is room");
    match stream.append_if(None, b"late") {
        Err(AppendError::Conflict { actual, .. }) => assert_eq!(actual, Some(first)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(wal.get(first), Err(ReadError::NotYet { .. })));
    hole.commit();
    assert_eq!(wal.get(first).expect("all before it is committed").payload(), b"first");
}

#[test]
fn an_open_reservation_of_a_versioned_stream_is_named_and_not_waited_for_without_end() {
    let place = Place::new();
    let wal = place.create(Options::new().hole_age_max(Duration::from_millis(30)));
    let stream = wal.versioned_stream("account").expect("new");
    let reservation = stream.reserve(10).expect("there is room");
    let refused = stream.append(b"behind one's own back");
    assert!(matches!(refused, Err(AppendError::StreamHeld { stream: s, .. }) if s == stream.id()));
    drop(reservation);
    stream.append(b"now").expect("nobody holds it");
}

/// All of a stream's records are released: its version is not forgotten, nor is it by a reopen.
#[test]
fn a_version_outlives_its_records() {
    for durability in [Durability::OnDemand, Durability::None] {
        let place = Place::new();
        let options = Options::new().durability(durability);
        let geometry = Geometry::new(1 << 18, 1 << 16).expect("in bounds");
        let wal = Wal::create(&place.path, geometry, options).expect("a new log");
        let account = wal.versioned_stream("account").expect("new");
        let other = wal.versioned_stream("never used").expect("new");
        let last = account.append(b"old").expect("there is room");
        assert_eq!(other.last_lsn().expect("it is known"), None);
        let fill = |wal: &Wal| {
            for _ in 0..400 {
                let lsn = wal.append(&[7; 4000]).expect("checkpoints make room");
                wal.checkpoint(lsn).expect("a boundary");
            }
            assert!(wal.watermarks().trimmed > last);
        };
        fill(&wal);
        let account = wal.stream("account").expect("it is there");
        assert_eq!(account.last_lsn().expect("it is known"), Some(last));
        wal.close().expect("nothing is in the way");
        drop(wal);
        for _ in 0..2 {
            let wal = place.open(options);
            fill(&wal);
            let account = wal.stream("account").expect("it is there");
            assert_eq!(account.last_lsn().expect("it is known"), Some(last));
            let refused = account.append_if(None, b"as if it were new");
            assert!(matches!(refused, Err(AppendError::Conflict { .. })));
        }
        let wal = place.open(options);
        let account = wal.stream("account").expect("it is there");
        let newer = account.append_if(Some(last), b"new").expect("it is at that version");
        assert!(newer > last);
    }
}

#[test]
fn an_entry_of_an_unknown_stream_is_refused() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.stream("one").expect("new");
    let unknown = StreamId::new(stream.id().get() + 1).expect("not 0");
    let refused = wal.append_batch([(stream.id(), b"known"), (unknown, b"other")]);
    assert!(
        matches!(refused, Err(AppendError::NoStream { stream, known: 1 }) if stream == unknown)
    );
}

#[test]
fn a_catalog_that_stays_behind_is_not_taken_over_by_a_new_log() {
    let place = Place::new();
    drop(place.create(Options::new()).stream("old").expect("new"));
    std::fs::remove_file(place.ring()).expect("it was there");
    let refused = Wal::create(&place.path, common::small(), Options::new());
    let text = refused.expect_err("the streams are of another log").to_string();
    assert!(text.contains("another log"), "{text}");
    assert!(!Wal::exists(&place.path));
}

#[test]
fn a_handle_waits_for_durability_as_the_log_does() {
    let place = Place::new();
    let wal = place.create(Options::new());
    within_patience("an entry becomes durable", move || {
        let stream = wal.stream("s").expect("new");
        let lsn = stream.append_durable(b"kept").expect("the disk takes it");
        assert!(wal.watermarks().durable > lsn);
    });
}
