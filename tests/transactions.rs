//! Transactions over streams: all or nothing, isolated by what they expect.

mod common;

use std::collections::BTreeMap;

use common::{Place, within_patience};
use kaelix_wal::{AppendError, Durability, Options, Position};

#[test]
fn a_transaction_is_one_record_of_several_streams() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let streams = wal.streams(&["a", "b", "c"]).expect("new");
    let mut transaction = wal.begin();
    assert!(transaction.is_empty());
    for n in 0..10_u8 {
        transaction.append(&streams[usize::from(n) % 3], &[n]).expect("it is small");
    }
    assert_eq!(transaction.len(), 10);
    assert!(transaction.own(&streams[1]).eq([[1], [4], [7]]));
    // Nobody sees anything before the commit.
    assert!(streams.iter().all(|stream| stream.len().expect("it can be counted") == 0));
    let before = wal.watermarks().reserved;
    let lsn = transaction.commit().expect("there is room");
    assert_eq!(lsn, before);
    for (at, stream) in streams.iter().enumerate() {
        assert_eq!(stream.last_lsn().expect("it is known"), Some(lsn));
        let reader = stream.read(Position::Oldest).expect("it can be read");
        let payloads: Vec<u8> =
            reader.copied().map(|entry| entry.expect("it verifies").payload[0]).collect();
        assert!(payloads.iter().all(|n| usize::from(*n) % 3 == at) && payloads.is_sorted());
    }
}

#[test]
fn what_is_rolled_back_or_empty_leaves_nothing() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.stream("s").expect("new");
    let before = wal.watermarks().reserved;
    let mut transaction = wal.begin();
    transaction.append(&stream, b"never").expect("it is small");
    transaction.rollback();
    let mut transaction = wal.begin();
    transaction.append(&stream, b"never").expect("it is small");
    drop(transaction);
    assert!(matches!(wal.begin().commit(), Err(AppendError::EmptyBatch)));
    assert_eq!(wal.watermarks().reserved, before);
}

#[test]
fn what_fits_no_segment_is_refused_when_it_is_added() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.stream("s").expect("new");
    let before = wal.watermarks().reserved;
    let mut transaction = wal.begin();
    transaction.append(&stream, b"small").expect("it is small");
    let large = vec![0; wal.geometry().payload_len_max()];
    let refused = transaction.append(&stream, &large);
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })));
    assert_eq!(wal.watermarks().reserved, before);
    assert_eq!(transaction.len(), 1);
    transaction.commit().expect("the rest fits");
    assert_eq!(stream.len().expect("it can be counted"), 1);
}

#[test]
fn a_transaction_that_expects_what_is_not_so_changes_nothing() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let (a, b) = (wal.versioned_stream("a").expect("new"), wal.stream("b").expect("new"));
    let first = a.append(b"first").expect("there is room");
    let mut transaction = wal.begin();
    transaction.expect(&a, None).expect("it is versioned");
    transaction.append(&b, b"never").expect("it is small");
    let refused = transaction.commit();
    assert!(matches!(refused, Err(AppendError::Conflict { actual, .. }) if actual == Some(first)));
    assert_eq!(b.len().expect("it can be counted"), 0);
    // A stream that is only read does not move.
    let mut transaction = wal.begin();
    transaction.expect(&a, Some(first)).expect("it is versioned");
    transaction.append(&b, b"now").expect("it is small");
    transaction.commit().expect("nothing has changed");
    assert_eq!(a.last_lsn().expect("it is known"), Some(first));
    assert!(matches!(wal.begin().expect(&b, None), Err(AppendError::NotVersioned { .. })));
}

/// Money moves between accounts; the sum stays, whatever reader looks, in whatever moment.
#[test]
fn transfers_are_serial() {
    const ACCOUNTS: usize = 3;
    let place = Place::new();
    let wal = place.create(Options::new().durability(Durability::None));
    let names: Vec<String> = (0..ACCOUNTS).map(|n| format!("account {n}")).collect();
    let accounts: Vec<_> =
        names.iter().map(|name| wal.versioned_stream(name).expect("new")).collect();
    let mut start = wal.begin();
    for account in &accounts {
        start.append(account, &100_i64.to_le_bytes()).expect("it is small");
    }
    start.commit().expect("there is room");
    std::thread::scope(|scope| {
        for seed in 0..4_usize {
            let (wal, accounts) = (&wal, &accounts);
            scope.spawn(move || {
                for round in 0..50 {
                    let (from, to) = ((seed + round) % ACCOUNTS, (seed + round + 1) % ACCOUNTS);
                    let pair = [&accounts[from], &accounts[to]];
                    loop {
                        let mut transaction = wal.begin();
                        for (stream, change) in pair.iter().zip([-7_i64, 7]) {
                            let last = stream.last_lsn().expect("it is known").expect("started");
                            let record = wal.get(last).expect("it is retained");
                            let balance = record
                                .entries()
                                .filter(|entry| entry.stream == Some(stream.id()))
                                .last()
                                .expect("it is in there");
                            let balance =
                                i64::from_le_bytes(balance.payload.try_into().expect("8 bytes"));
                            transaction.expect(stream, Some(last)).expect("it is versioned");
                            let changed = (balance + change).to_le_bytes();
                            transaction.append(stream, &changed).expect("it is small");
                        }
                        match transaction.commit() {
                            Ok(_) => break,
                            Err(AppendError::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    let mut reader = wal.reader(Position::Oldest).expect("it can be read");
    let (mut balances, mut commits) = (BTreeMap::new(), 0);
    while let Some(record) = reader.next().expect("every record verifies") {
        for entry in record.entries() {
            let balance = i64::from_le_bytes(entry.payload.try_into().expect("8 bytes"));
            balances.insert(entry.stream, balance);
        }
        commits += 1;
        assert_eq!(balances.values().sum::<i64>(), 300, "after commit {commits}");
    }
    assert_eq!(commits, 1 + 4 * 50);
}

#[test]
fn a_durable_commit_survives_and_waits_for_one_sync() {
    let place = Place::new();
    let wal = place.create(Options::new());
    within_patience("a commit becomes durable", move || {
        let streams = wal.streams(&["a", "b"]).expect("new");
        wal.sync().expect("the disk takes it");
        let before = wal.metrics().syncs;
        let mut transaction = wal.begin();
        for stream in &streams {
            transaction.append(stream, b"x").expect("it is small");
        }
        let lsn = transaction.commit_durable().expect("the disk takes it");
        assert!(wal.watermarks().durable > lsn);
        assert_eq!(wal.metrics().syncs, before + 1);
    });
}
