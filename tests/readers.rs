//! Reading back: by position, in order, up to an end, durable records only, and as they come.

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    DATA_OFFSET, FIRST_RECORD, MODES, PATIENCE, Place, RECORD_END, SEGMENT, check_numbered, fill,
    numbered, read_all, soon, wait_until, within_patience,
};
use kaelix_wal::inspect::Observer;
use kaelix_wal::{
    AppendError, Durability, Lsn, OnFull, Options, PinnedRecord, Position, ReadError, Wal,
};

const HOLE_AGE: Duration = Duration::from_millis(150);

fn options(durability: Durability) -> Options {
    Options::new().durability(durability).hole_age_max(HOLE_AGE)
}

/// `count` records of different lengths, and where they are.
fn some_records(wal: &Wal, count: u64) -> Vec<(Lsn, Vec<u8>)> {
    let record = |number| {
        let payload = numbered(0, number, (number as usize * 37) % 3000);
        (wal.append(&payload).expect("space"), payload)
    };
    (0..count).map(record).collect()
}

#[test]
fn get_says_what_is_not_there() {
    let place = Place::new();
    let wal = place.create(options(Durability::None));
    let records = some_records(&wal, 30);
    let end = wal.watermarks().published;
    let starts: Vec<Lsn> = records.iter().map(|(lsn, _)| *lsn).collect();
    for at in 0..end.get() + 1 {
        let lsn = Lsn::new(at);
        match wal.get(lsn) {
            Ok(record) => {
                let index = starts.binary_search(&lsn).expect("only where one starts");
                assert_eq!((record.lsn(), &record[..]), (lsn, &*records[index].1));
                let next = starts.get(index + 1).copied().unwrap_or(end);
                assert_eq!(record.next_lsn(), next);
            }
            Err(ReadError::NotARecord { lsn: named }) => {
                assert!(named == lsn && !starts.contains(&lsn), "{lsn}");
            }
            Err(ReadError::NotYet { lsn: named, end: to }) => {
                assert_eq!((named, to, lsn), (lsn, end, end));
            }
            Err(other) => panic!("{lsn}: {other}"),
        }
    }
    for at in [end.get() + 16, SEGMENT + FIRST_RECORD, !(SEGMENT - 1) | 64] {
        let result = wal.get(Lsn::new(at));
        assert!(matches!(result, Err(ReadError::NotYet { .. })), "{at}: {result:?}");
    }
    for at in [SEGMENT, SEGMENT + 48, SEGMENT + RECORD_END, u64::MAX] {
        let result = wal.get(Lsn::new(at));
        assert!(matches!(result, Err(ReadError::NotARecord { .. })), "{at}: {result:?}");
    }
}

/// A payload that is the log's own bytes, shifted or not, is a payload and nothing more.
#[test]
fn a_payload_full_of_records_is_one_record() {
    let place = Place::new();
    let wal = place.create(options(Durability::None));
    let mut records = some_records(&wal, 8);
    let file = std::fs::read(place.ring()).expect("the ring can be read");
    let end = (DATA_OFFSET + wal.watermarks().published.get()) as usize;
    let copied = &file[DATA_OFFSET as usize + FIRST_RECORD as usize..end];
    for shift in 0..3 {
        let mut payload = vec![0; shift * 8];
        payload.extend_from_slice(copied);
        records.push((wal.append(&payload).expect("space"), payload));
    }
    let starts: Vec<Lsn> = records.iter().map(|(lsn, _)| *lsn).collect();
    for at in (0..wal.watermarks().published.get()).step_by(16) {
        let found = wal.get(Lsn::new(at)).is_ok();
        assert_eq!(found, starts.contains(&Lsn::new(at)), "{at}");
    }
    assert_eq!(read_all(&wal, Position::Oldest), records);
    // The same with what an open reservation leaves behind, over which recovery has to walk.
    let mut open = wal.reserve(copied.len()).expect("space");
    open.copy_from_slice(copied);
    std::mem::forget(open);
    records.push((wal.append(b"behind").expect("space"), b"behind".to_vec()));
    drop(wal);
    let wal = place.open(options(Durability::None));
    assert_eq!(read_all(&wal, Position::Oldest), records);
}

#[test]
fn get_finds_records_of_every_epoch() {
    let place = Place::new();
    drop(place.create(options(Durability::OnDemand)));
    let mut records = Vec::new();
    for round in 0..12 {
        let wal = place.open(options(Durability::OnDemand));
        for number in 0..5 {
            let payload = numbered(round, number, 100 * round as usize);
            records.push((wal.append(&payload).expect("space"), payload));
        }
        for (lsn, payload) in &records {
            assert_eq!(&wal.get(*lsn).expect("retained")[..], payload);
            let result = wal.get(*lsn + 16).map(|record| record.lsn());
            let other = records.iter().any(|(start, _)| *start == *lsn + 16);
            assert!(other || result.is_err(), "{lsn}: {result:?}");
        }
        assert_eq!(read_all(&wal, Position::Oldest), records);
        for index in [0, records.len() / 2, records.len() - 1] {
            let rest = read_all(&wal, Position::At(records[index].0));
            assert_eq!(rest, records[index..]);
        }
    }
}

#[test]
fn trimmed_records_are_named_as_such() {
    let place = Place::new();
    let wal = place.create(options(Durability::None));
    let records = some_records(&wal, 30);
    let oldest = records[13].0;
    wal.checkpoint(oldest).expect("a record starts there");
    assert_eq!(wal.sync_checkpoint().expect("no sync failed"), oldest);
    for (lsn, _) in &records[..13] {
        let expect = |error: ReadError| match error {
            ReadError::Trimmed { lsn: at, oldest: to } => assert_eq!((at, to), (*lsn, oldest)),
            other => panic!("{lsn}: {other}"),
        };
        expect(wal.get(*lsn).expect_err("trimmed"));
        expect(wal.reader(Position::At(*lsn)).err().expect("trimmed"));
        expect(wal.tail(Position::At(*lsn)).err().expect("trimmed"));
    }
    assert_eq!(read_all(&wal, Position::Oldest), records[13..]);
    assert_eq!(read_all(&wal, Position::At(oldest)), records[13..]);
}

#[test]
fn readers_start_where_they_are_told() {
    let place = Place::new();
    let wal = place.create(options(Durability::None));
    let records = some_records(&wal, 100);
    let end = wal.watermarks().published;
    let mut newest = wal.reader(Position::Newest).expect("the end is a position");
    assert_eq!(newest.position(), end);
    assert!(newest.next().expect("no damage").is_none());
    let mut at_end = wal.reader(Position::At(end)).expect("the end is a position");
    for index in (0..records.len()).step_by(7) {
        let from = Position::At(records[index].0);
        assert_eq!(read_all(&wal, from), records[index..]);
        for offset in [1, 8, 16, 24] {
            let lsn = records[index].0 + offset;
            if records.iter().all(|(start, _)| *start != lsn) && lsn != end {
                let result = wal.reader(Position::At(lsn)).map(|reader| reader.position());
                assert!(matches!(result, Err(ReadError::NotARecord { .. })), "{lsn}: {result:?}");
            }
        }
    }
    let result = wal.reader(Position::At(end + 16)).map(|reader| reader.position());
    assert!(matches!(result, Err(ReadError::NotYet { .. })), "{result:?}");
    let lsn = wal.append(b"news").expect("space");
    for reader in [&mut newest, &mut at_end] {
        let record = reader.next().expect("no damage").expect("it has come");
        assert_eq!((record.lsn(), record.payload()), (lsn, &b"news"[..]));
        let next = record.next_lsn();
        assert_eq!(reader.position(), next);
        assert!(reader.next().expect("no damage").is_none());
    }
}

#[test]
fn a_range_ends_before_its_end() {
    let place = Place::new();
    let wal = place.create(options(Durability::None));
    let records = some_records(&wal, 150);
    assert!(records.last().expect("150").0 > Lsn::new(SEGMENT), "over segments");
    let count = |from: Lsn, to: Lsn| {
        let mut reader = wal.reader(Position::At(from)).expect("a record").until(to);
        let mut lsns = Vec::new();
        while let Some(record) = reader.next().expect("no damage") {
            lsns.push(record.lsn());
        }
        lsns
    };
    let all: Vec<Lsn> = records.iter().map(|(lsn, _)| *lsn).collect();
    for from in (0..all.len()).step_by(11) {
        for to in (0..all.len()).step_by(7) {
            let want = &all[from.min(to)..to];
            let want = if to < from { &[] } else { want };
            assert_eq!(count(all[from], all[to]), want);
            // One byte further and the record at the end belongs to the range.
            let with = if to < from { &[] } else { &all[from..=to] };
            assert_eq!(count(all[from], all[to] + 1), with);
        }
    }
    assert_eq!(count(all[0], Lsn::new(SEGMENT)), count(all[0], Lsn::new(SEGMENT + 64)));
    assert!(count(all[0], Lsn::ZERO).is_empty());
}

#[test]
fn durable_only_shows_nothing_before_a_sync() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand));
    let mut reader = wal.reader(Position::Oldest).expect("the start").durable_only();
    let mut tail = wal.tail(Position::Oldest).expect("the start").durable_only();
    let records = some_records(&wal, 20);
    assert!(reader.next().expect("no damage").is_none());
    assert!(tail.next(Duration::from_millis(30)).expect("no damage").is_none());
    wal.wait_durable(records[9].0).expect("no hole");
    let durable = wal.watermarks().durable;
    let later = wal.append(b"later").expect("space");
    let mut seen = Vec::new();
    while let Some(record) = reader.next().expect("no damage") {
        assert!(record.next_lsn() <= durable);
        seen.push((record.lsn(), record.payload().to_vec()));
    }
    assert_eq!(seen, records, "the sync took all that was there");
    for (lsn, payload) in &records {
        let record = tail.next(PATIENCE).expect("no damage").expect("durable");
        assert_eq!((record.lsn(), record.payload()), (*lsn, &payload[..]));
    }
    // The tail sleeps, and a sync by someone else wakes it.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let start = Instant::now();
            let record = tail.next(PATIENCE).expect("no damage").expect("durable");
            (record.lsn(), start.elapsed())
        });
        wal.wait_durable(later).expect("no hole");
        let (lsn, waited) = waiting.join().expect("no panic");
        assert!(lsn == later && waited < PATIENCE / 2);
    });
}

#[test]
fn a_tail_times_out_and_wakes() {
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(options(durability));
        let mut tail = wal.tail(Position::Oldest).expect("the start");
        for milliseconds in [0, 1, 60] {
            let start = Instant::now();
            let timeout = Duration::from_millis(milliseconds);
            assert!(tail.next(timeout).expect("no damage").is_none());
            assert!(start.elapsed() >= timeout && start.elapsed() < PATIENCE / 2);
        }
        let asked = AtomicUsize::new(0);
        let mut delays = Vec::new();
        thread::scope(|scope| {
            let (wal, asked) = (&wal, &asked);
            let writer = scope.spawn(move || {
                let mut times = Vec::new();
                for number in 0..50 {
                    wait_until("the tail has asked", || asked.load(Ordering::SeqCst) > number);
                    // Long enough for the tail to be asleep most of the time, never needed.
                    thread::park_timeout(Duration::from_millis(2));
                    times.push(Instant::now());
                    wal.append(&numbered(0, number as u64, 100)).expect("space");
                }
                times
            });
            let mut seen = Vec::new();
            for number in 0..50 {
                asked.store(number + 1, Ordering::SeqCst);
                let record = tail.next(PATIENCE).expect("no damage").expect("it comes");
                seen.push(Instant::now());
                assert_eq!(check_numbered(record.lsn(), record.payload()).1, number as u64);
            }
            let times = writer.join().expect("no panic");
            delays.extend(times.iter().zip(&seen).map(|(put, got)| got.duration_since(*put)));
        });
        delays.sort();
        // A lost wake-up would sleep for as long as the time-out; half of them are quick.
        assert!(delays[49] < PATIENCE / 2, "{durability:?}: {delays:?}");
        assert!(delays[25] < Duration::from_millis(100), "{durability:?}: {delays:?}");
    }
}

#[test]
fn a_tail_wakes_when_an_older_reservation_is_committed_last() {
    let place = Place::new();
    let wal = place.create(options(Durability::None));
    for _ in 0..20 {
        let mut tail = wal.tail(Position::Newest).expect("the end");
        let open = wal.reserve(50).expect("space");
        let behind = wal.append(b"behind").expect("space");
        assert!(tail.next(Duration::from_millis(5)).expect("no damage").is_none());
        let at = open.lsn();
        thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let first = tail.next(PATIENCE).expect("no damage").expect("committed").lsn();
                (first, tail.next(PATIENCE).expect("no damage").expect("behind").lsn())
            });
            open.commit();
            assert_eq!(waiting.join().expect("no panic"), (at, behind));
        });
        wal.checkpoint(wal.watermarks().published).expect("the end is a boundary");
    }
}

#[test]
fn all_tails_see_the_same_sequence() {
    for durability in MODES {
        let place = Place::new();
        let wal = Arc::new(place.create(options(durability)));
        // A tail that starts late would start behind the first one's checkpoints.
        let all_stand = Arc::new(Barrier::new(5));
        let tails: Vec<_> = (0..4)
            .map(|reader| {
                let (wal, all_stand) = (wal.clone(), all_stand.clone());
                thread::spawn(move || follow(&wal, &all_stand, reader == 0))
            })
            .collect();
        all_stand.wait();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let wal = wal.clone();
                thread::spawn(move || {
                    for number in 0..400 {
                        let len = 12 + (number as usize * 131 + writer as usize * 7) % 2000;
                        wal.append(&numbered(writer, number, len)).expect("space");
                    }
                })
            })
            .collect();
        for writer in writers {
            within_patience("a writer", || writer.join()).expect("no panic");
        }
        wal.close().expect("no hole");
        let mut sequences: Vec<_> = tails
            .into_iter()
            .map(|tail| within_patience("a tail", || tail.join()).expect("no panic"))
            .collect();
        let first = sequences.pop().expect("four");
        assert_eq!(first.len(), 1600);
        assert!(sequences.iter().all(|sequence| *sequence == first), "{durability:?}");
        for writer in 0..4 {
            let numbers = first.iter().filter(|record| record.1 == writer);
            assert!(numbers.map(|record| record.2).eq(0..400));
        }
    }
}

/// Reads to the end of a log that is being closed. One of the readers releases the space, a
/// little behind itself; the others hold what they have not read by their pins.
fn follow(wal: &Wal, all_stand: &Barrier, checkpoints: bool) -> Vec<(Lsn, u32, u64)> {
    let mut tail = wal.tail(Position::Oldest).expect("nothing is trimmed yet");
    all_stand.wait();
    let mut seen = Vec::new();
    let mut behind = VecDeque::new();
    loop {
        match tail.next(PATIENCE) {
            Ok(Some(record)) => {
                let (writer, number) = check_numbered(record.lsn(), record.payload());
                seen.push((record.lsn(), writer, number));
                behind.push_back(record.next_lsn());
            }
            Ok(None) => panic!("the writers are not that slow"),
            Err(ReadError::Closed) => return seen,
            Err(other) => panic!("{other}"),
        }
        if checkpoints && behind.len() > 20 {
            let lsn = behind.pop_front().expect("20 of them");
            // The log may have been closed in the meantime.
            let _ = wal.checkpoint(lsn);
        }
    }
}

#[test]
fn a_closed_log_ends_every_tail() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand));
    let records = some_records(&wal, 3);
    thread::scope(|scope| {
        let asleep = scope.spawn(|| {
            let mut tail = wal.tail(Position::Newest).expect("the end");
            tail.next(PATIENCE).map(|record| record.is_some())
        });
        thread::park_timeout(Duration::from_millis(20));
        wal.close().expect("no hole");
        let result = asleep.join().expect("no panic");
        assert!(matches!(result, Err(ReadError::Closed)), "{result:?}");
    });
    for durable_only in [false, true] {
        let mut tail = wal.tail(Position::Oldest).expect("the start");
        if durable_only {
            tail = tail.durable_only();
        }
        for (lsn, _) in &records {
            let record = tail.next(PATIENCE).expect("no damage").expect("retained");
            assert_eq!(record.lsn(), *lsn);
        }
        for _ in 0..2 {
            let result = tail.next(PATIENCE).map(|record| record.is_some());
            assert!(matches!(result, Err(ReadError::Closed)), "{result:?}");
        }
    }
}

/// Behind a reservation that was still open at the close nothing can come any more.
#[test]
fn a_log_closed_with_a_hole_ends_every_tail_too() {
    for durable_only in [false, true] {
        let place = Place::new();
        let wal = place.create(options(Durability::OnDemand));
        let first = wal.append_durable(b"before the hole").expect("no hole yet");
        std::mem::forget(wal.reserve(100).expect("space"));
        wal.append(b"behind the hole").expect("space");
        wal.close().expect_err("a hole");
        let mut tail = wal.tail(Position::Oldest).expect("the start");
        if durable_only {
            tail = tail.durable_only();
        }
        let record = tail.next(PATIENCE).expect("no damage").expect("retained");
        assert_eq!(record.lsn(), first);
        let result = tail.next(Duration::from_secs(2)).map(|record| record.is_some());
        assert!(matches!(result, Err(ReadError::Closed)), "{durable_only}: {result:?}");
    }
}

#[test]
fn pins_run_out_and_come_back() {
    let place = Place::new();
    let wal = place.create(options(Durability::None));
    let lsn = wal.append(b"held by many").expect("space");
    let mut pins = Vec::new();
    let max = loop {
        match wal.get(lsn) {
            Ok(record) => pins.push(record),
            Err(ReadError::TooManyPins { max }) => break max,
            Err(other) => panic!("{other}"),
        }
        assert!(pins.len() < 100_000, "there is a limit");
    };
    assert_eq!(pins.len(), max);
    let result = wal.reader(Position::Oldest).map(|reader| reader.position());
    assert!(matches!(result, Err(ReadError::TooManyPins { .. })), "{result:?}");
    // The log itself goes on.
    wal.append_durable(b"still possible").expect("no hole");
    pins.pop();
    let mut reader = wal.reader(Position::Oldest).expect("one is free");
    let result = reader.next_pinned().map(|record| record.is_some());
    assert!(matches!(result, Err(ReadError::TooManyPins { .. })), "{result:?}");
    pins.pop();
    let record = reader.next_pinned().expect("one is free").expect("not skipped");
    assert_eq!((record.lsn(), &record[..]), (lsn, &b"held by many"[..]));
}

#[test]
fn pinned_records_are_kept_across_laps() {
    let place = Place::new();
    let wal = place.create(options(Durability::None).on_full(OnFull::Overwrite));
    let mut kept: VecDeque<PinnedRecord<'_>> = VecDeque::new();
    let mut reader = wal.reader(Position::Oldest).expect("the start");
    let (mut written, mut held) = (0, 0);
    while held < 12 * 4 * 12 {
        match wal.reserve_deadline(5000, soon(20)) {
            Ok(mut space) => {
                space.copy_from_slice(&numbered(0, written, 5000));
                space.commit();
                written += 1;
            }
            Err(AppendError::Full { .. }) => {
                // The reader and the oldest kept record are in the way: both move on a little.
                for _ in 0..13 {
                    kept.extend(reader.next_pinned().expect("free pins"));
                    held += 1;
                    if kept.len() > 14 {
                        kept.pop_front();
                    }
                }
                for record in &kept {
                    check_numbered(record.lsn(), record.payload());
                    assert_eq!(record.record().lsn(), record.lsn());
                }
                let order: Vec<Lsn> = kept.iter().map(PinnedRecord::lsn).collect();
                assert!(order.is_sorted());
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(wal.watermarks().trimmed > Lsn::new(8 * 4 * SEGMENT));
}

/// Ends the threads of a test that has failed, too: its failure is to be seen.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A reader that is started while the log is overwritten at full speed starts somewhere sensible.
#[test]
fn readers_start_on_a_busy_log() {
    let place = Place::new();
    let wal = place.create(options(Durability::None).on_full(OnFull::Overwrite));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                wal.append(&numbered(0, number, 2000)).expect("never full");
                number += 1;
            }
        });
        let _stops = StopOnDrop(&stop);
        let start = Instant::now();
        let mut rounds = 0;
        while start.elapsed() < Duration::from_millis(700) || rounds < 100 {
            let from = if rounds % 2 == 0 { Position::Oldest } else { Position::Newest };
            let mut reader = wal.reader(from).unwrap_or_else(|error| panic!("{from:?}: {error}"));
            let mut last = None;
            for _ in 0..rounds % 50 {
                if let Some(record) = reader.next().expect("never overtaken") {
                    let (_, number) = check_numbered(record.lsn(), record.payload());
                    assert!(last.is_none_or(|last| number == last + 1));
                    last = Some(number);
                }
            }
            rounds += 1;
        }
    });
}

/// The same of one that looks on from outside, and finds the end by a walk.
#[test]
fn observers_start_behind_the_newest_of_a_busy_log() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand).on_full(OnFull::Overwrite));
    let observer = Observer::open(&place.path).expect("it is there");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                wal.append(&numbered(0, number, 2000)).expect("never full");
                number += 1;
            }
        });
        let _stops = StopOnDrop(&stop);
        let begun = || wal.watermarks().trimmed.get() > 4 * SEGMENT;
        wait_until("the ring has gone round", begun);
        for _ in 0..100 {
            let published = wal.watermarks().published;
            let cursor = observer.cursor(Position::Newest).expect("it is walked again");
            let at = cursor.position().get();
            // The end of a segment's records is where those of the next one start.
            let at =
                if at % SEGMENT == RECORD_END { at.next_multiple_of(SEGMENT) + 64 } else { at };
            assert!(at >= published.get(), "{at} < {published}");
        }
    });
}

/// Everything, in a ring that is full to its last byte, closed, and opened again.
#[test]
fn a_full_ring_reads_back_after_reopening() {
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(options(durability));
        let (lsns, _) = fill(&wal, 0, 700);
        let before = read_all(&wal, Position::Oldest);
        assert_eq!(before.len(), lsns.len());
        drop(wal);
        let wal = place.open(options(durability).on_full(OnFull::Fail));
        assert_eq!(read_all(&wal, Position::Oldest), before);
        let end = wal.watermarks().published;
        let mut tail = wal.tail(Position::At(end)).expect("the end is a position");
        assert!(tail.next(Duration::ZERO).expect("no damage").is_none());
        assert!(matches!(wal.append(b"full"), Err(AppendError::Full { .. })));
        wal.checkpoint(end).expect("the end is a boundary");
        let lsn = wal.append(b"space again").expect("everything was released");
        let record = tail.next(PATIENCE).expect("no damage").expect("it has come");
        assert_eq!((record.lsn(), record.payload()), (lsn, &b"space again"[..]));
    }
}
