//! Many threads, a small ring, no pause: nothing is lost, doubled, altered or out of order.
//!
//! `KAELIX_STRESS` makes each test longer by that factor.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use common::{
    MODES, PATIENCE, Place, Rng, check_numbered, numbered, read_all, seed, stress, within_patience,
};
use kaelix_wal::inspect::{Cursor, Observer};
use kaelix_wal::{
    AppendError, CloseError, Durability, Geometry, Lsn, OnFull, Options, Position, ReadError, Wal,
};

fn create(place: &Place, size: u64, options: Options) -> Arc<Wal> {
    let geometry = Geometry::new(size, 64 << 10).expect("possible sizes");
    Arc::new(Wal::create(&place.path, geometry, options).expect("a new log"))
}

/// Appends records of random lengths in random ways; some reservations are given up.
fn produce(wal: &Wal, writer: u32, count: u64, seed: u64) {
    let mut rng = Rng::new(seed ^ u64::from(writer) << 32);
    for number in 0..count {
        let bound = [30, 200, 2000, 20_000][rng.below(4) as usize];
        let payload = numbered(writer, number, rng.below(bound) as usize);
        match rng.below(4) {
            0 => {
                let extra = rng.below(100) as usize;
                let mut space = wal.reserve(payload.len() + extra).expect("space");
                space[..payload.len()].copy_from_slice(&payload);
                space.commit_len(payload.len());
            }
            1 => {
                let mut given_up = wal.reserve(rng.below(200) as usize).expect("space");
                given_up.fill(0xEE);
                let lsn = given_up.lsn();
                drop(given_up);
                assert!(wal.append(&payload).expect("space") > lsn);
            }
            _ => {
                wal.append(&payload).expect("space");
            }
        }
    }
}

#[test]
fn everything_arrives_once_and_in_order() {
    let seed = seed("everything_arrives_once_and_in_order");
    let count = 2500 * stress();
    for (durability, size) in MODES.into_iter().zip([256 << 10, 512 << 10, 1 << 20]) {
        let place = Place::new();
        let wal = create(&place, size, Options::new().durability(durability));
        let mut next = [0_u64; 8];
        let reader = wal.clone();
        let reader = thread::spawn(move || {
            let mut tail = reader.tail(Position::Oldest).expect("the start");
            let mut last = Lsn::ZERO;
            while next.iter().sum::<u64>() < 8 * count {
                let record = tail.next(PATIENCE).expect("intact").expect("they are not that slow");
                let (writer, number) = check_numbered(record.lsn(), record.payload());
                assert!(record.lsn() > last);
                last = record.lsn();
                assert_eq!(next[writer as usize], number, "of writer {writer} at {last}");
                next[writer as usize] += 1;
                let to = record.next_lsn();
                reader.checkpoint(to).expect("the next record starts there");
            }
        });
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let wal = wal.clone();
                thread::spawn(move || produce(&wal, writer, count, seed))
            })
            .collect();
        for thread in writers.into_iter().chain([reader]) {
            thread.join().expect("no panic");
        }
        wal.close().expect("no hole");
        let marks = wal.watermarks();
        assert!(marks.published == marks.reserved && marks.durable == marks.published);
        assert!(wal.metrics().records_published >= 8 * count);
    }
}

/// The end of a scope waits for its threads too, but in a way that no race detector sees.
fn join(threads: Vec<ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        thread.join().expect("no panic");
    }
}

#[test]
fn the_watermarks_keep_their_order() {
    let place = Place::new();
    let wal = create(&place, 256 << 10, Options::new().on_full(OnFull::Overwrite));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (wal, stop) = (&wal, &stop);
        let write = move |writer| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let payload = numbered(writer, number, (number % 3000) as usize);
                wal.append(&payload).expect("never full");
                number += 1;
            }
        };
        let writers: Vec<_> = (0..3).map(|writer| scope.spawn(move || write(writer))).collect();
        let start = Instant::now();
        let mut before = wal.watermarks();
        while start.elapsed() < Duration::from_millis(500) * stress() as u32 {
            let now = wal.watermarks();
            let ordered = now.trimmed <= now.durable
                && now.durable <= now.published
                && now.published <= now.reserved
                && now.reserved <= now.writable;
            assert!(ordered, "{now:?}");
            // Each is read after the one below it, and all of them grow.
            let grown = before.trimmed <= now.trimmed
                && before.durable <= now.durable
                && before.published <= now.published
                && before.reserved <= now.reserved
                && before.writable <= now.writable;
            assert!(grown, "{before:?}, then {now:?}");
            before = now;
        }
        stop.store(true, Ordering::Relaxed);
        join(writers);
    });
}

/// Pinned records stay what they were while the ring is overwritten around them.
#[test]
fn a_slow_reader_of_a_flight_recorder_sees_no_altered_record() {
    let seed = seed("a_slow_reader_of_a_flight_recorder_sees_no_altered_record");
    for durability in [Durability::None, Durability::OnDemand] {
        let place = Place::new();
        let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
        let wal = create(&place, 256 << 10, options);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (wal, stop) = (&wal, &stop);
            let write = move |writer| {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    wal.append(&numbered(writer, number, 700)).expect("never full");
                    number += 1;
                }
            };
            let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || write(writer))).collect();
            let readers: Vec<_> =
                (0..3).map(|reader| scope.spawn(move || look_slowly(wal, seed ^ reader))).collect();
            for reader in readers {
                reader.join().expect("no panic");
            }
            stop.store(true, Ordering::Relaxed);
            join(writers);
        });
        assert!(wal.metrics().bytes_overwritten > 0);
    }
}

fn look_slowly(wal: &Wal, seed: u64) {
    let mut rng = Rng::new(seed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(600) * stress() as u32 {
        let mut reader = wal.reader(Position::Oldest).expect("the oldest");
        let mut kept = Vec::new();
        for _ in 0..rng.below(60) {
            match reader.next_pinned().expect("intact") {
                Some(record) if rng.below(4) == 0 => kept.push(record),
                _ => {}
            }
            if kept.len() > 5 {
                kept.swap_remove(rng.below(5) as usize);
            }
            thread::park_timeout(Duration::from_micros(rng.below(300)));
            for record in &kept {
                check_numbered(record.lsn(), record);
            }
        }
        for record in kept {
            // By its position it is found as long as it is pinned.
            match wal.get(record.lsn()) {
                Ok(again) => assert_eq!(&again[..], &record[..]),
                Err(ReadError::Trimmed { oldest, .. }) => assert!(oldest > record.lsn()),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// Whether they share syncs depends on who is served when: `tests/durable_waits.rs` has a test of
/// it that does not.
#[test]
fn waiters_are_acknowledged_when_their_records_are_durable() {
    for durability in MODES {
        let place = Place::new();
        let wal = create(&place, 16 << 20, Options::new().durability(durability));
        let (writers, each) = (16, 60 * stress());
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let wal = wal.clone();
                thread::spawn(move || {
                    for number in 0..each {
                        let payload = numbered(writer, number, 200);
                        let lsn = wal.append_durable(&payload).expect("no hole");
                        assert!(wal.watermarks().durable > lsn, "acknowledged too early");
                    }
                })
            })
            .collect();
        for thread in threads {
            within_patience("a waiter", || thread.join()).expect("no panic");
        }
        let appends = u64::from(writers) * each;
        assert_eq!(read_all(&wal, Position::Oldest).len() as u64, appends);
    }
}

/// A close at any moment, also just when the producers go on to the next segment.
#[test]
fn a_close_beside_producers_ends() {
    let seed = seed("a_close_beside_producers_ends");
    let mut rng = Rng::new(seed);
    let place = Place::new();
    let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
    drop(create(&place, 1 << 20, options));
    for _ in 0..150 * stress() {
        let wal = Arc::new(place.open(options));
        let accepted = Arc::new(AtomicU64::new(0));
        let largest = wal.geometry().payload_len_max();
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let (wal, accepted) = (wal.clone(), accepted.clone());
                thread::spawn(move || {
                    let payload = vec![7; largest];
                    loop {
                        match wal.append(&payload) {
                            Ok(lsn) => accepted.fetch_max(lsn.get(), Ordering::Relaxed),
                            Err(AppendError::Closed) => return,
                            Err(other) => panic!("{other}"),
                        };
                    }
                })
            })
            .collect();
        let tail = wal.clone();
        let tail = thread::spawn(move || {
            let mut tail = tail.tail(Position::Newest).expect("the end");
            while tail.next(PATIENCE).is_ok_and(|record| record.is_some()) {}
        });
        thread::park_timeout(Duration::from_micros(rng.below(2000)));
        let closing = wal.clone();
        let closed: Result<(), CloseError> = within_patience("a close", move || closing.close());
        closed.expect("no hole");
        for thread in producers.into_iter().chain([tail]) {
            within_patience("a thread of a closed log", || thread.join()).expect("no panic");
        }
        let marks = wal.watermarks();
        assert_eq!((marks.durable, marks.published), (marks.reserved, marks.reserved));
        assert!(accepted.load(Ordering::Relaxed) < marks.durable.get(), "accepted and lost");
    }
}

/// Epochs on epochs, while an observer looks on: it sees all of them, and never damage.
#[test]
fn an_observer_follows_through_reopenings() {
    let place = Place::new();
    let options = Options::new().durability(Durability::OnDemand);
    let wal = create(&place, 1 << 20, options);
    let observer = Observer::open(&place.path).expect("it is there");
    let mut cursor = observer.cursor(Position::Oldest).expect("the start");
    drop(wal);
    let mut seen = 0;
    for round in 0..20 {
        let wal = place.open(options);
        for number in 0..30 {
            let lsn = wal.append(&numbered(round, number, 100)).expect("space");
            if number % 10 == 0 {
                wal.wait_durable(lsn).expect("no hole");
            }
            if number % 3 == 0 {
                seen += drain(&mut cursor, |_, _| {});
                assert_eq!(seen, u64::from(round) * 30 + number + 1);
            }
        }
        let newest = observer.cursor(Position::Newest).expect("the end").position();
        assert_eq!(newest, wal.watermarks().published);
    }
    seen += drain(&mut cursor, |_, _| {});
    assert_eq!(seen, 20 * 30);
}

/// Reads what an observer can see now.
fn drain(cursor: &mut Cursor, mut each: impl FnMut(Lsn, (u32, u64))) -> u64 {
    let mut records = 0;
    while let Some(record) = cursor.next().expect("nothing is damaged") {
        each(record.lsn(), check_numbered(record.lsn(), record.payload()));
        records += 1;
    }
    records
}

#[test]
fn an_observer_of_a_ring_at_full_speed_is_never_wrong() {
    for durability in [Durability::None, Durability::OnDemand] {
        let place = Place::new();
        let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
        let wal = create(&place, 512 << 10, options);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (wal, stop) = (&wal, &stop);
            let write = move |writer| {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let len = 12 + (number * 13 % 900) as usize;
                    wal.append(&numbered(writer, number, len)).expect("never full");
                    number += 1;
                }
            };
            let writers: Vec<_> = (0..2).map(|writer| scope.spawn(move || write(writer))).collect();
            let result = scope.spawn(|| observe(&place, durability)).join();
            stop.store(true, Ordering::Relaxed);
            join(writers);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

fn observe(place: &Place, durability: Durability) {
    let mut observer = Observer::open(&place.path).expect("it is there");
    let mut cursor = observer.cursor(Position::Oldest).expect("the oldest");
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut records, mut overwritten) = (0_u64, 0_u64);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) * stress() as u32 {
        match cursor.next() {
            Ok(Some(record)) => {
                let (writer, number) = check_numbered(record.lsn(), record.payload());
                let last = newest.insert(writer, number);
                assert!(last.is_none_or(|last| last < number), "{writer}:{number} after {last:?}");
                assert!(record.next_lsn() > record.lsn());
                records += 1;
            }
            Ok(None) => thread::yield_now(),
            Err(ReadError::Overwritten { lsn, oldest }) => {
                assert!(oldest > lsn, "{lsn} is overwritten, and {oldest} is the oldest");
                overwritten += 1;
                // It may be gone again by now.
                match observer.cursor(Position::At(oldest)) {
                    Ok(at_oldest) => cursor = at_oldest,
                    Err(ReadError::Trimmed { .. } | ReadError::Overwritten { .. }) => {
                        cursor = observer.cursor(Position::Oldest).expect("the oldest");
                    }
                    Err(other) => panic!("{durability:?}, going on at {oldest}: {other}"),
                }
            }
            Err(other) => panic!("{durability:?}, after {records} records: {other}"),
        }
        if records % 5000 == 4999 {
            let stat = observer.stat().expect("it can be walked");
            assert!(stat.trimmed <= stat.committed && stat.durable <= stat.committed);
            records += 1;
        }
    }
    assert!(records > 1000, "{records} records, {overwritten} times overwritten");
}
