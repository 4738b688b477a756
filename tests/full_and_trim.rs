//! A full ring: what each policy promises, what a checkpoint releases, and who is named when
//! something holds the log back.

mod common;

use std::io::{IoSlice, Write};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BufMut;
use common::{
    FIRST_RECORD, MODES, Place, RECORD_END, SEGMENT, check_numbered, fill, numbered, read_all,
    soon, wait_until, within_patience,
};
use kaelix_wal::{
    AppendError, CheckpointError, CloseError, Durability, Error, Lsn, OnFull, Options, Position,
    ReadError, RecoveryOutcome, WaitError,
};

/// How long a test tolerates a hole where it wants to see the patience end.
const HOLE_AGE: Duration = Duration::from_millis(150);

fn options(durability: Durability, on_full: OnFull) -> Options {
    Options::new().durability(durability).on_full(on_full).hole_age_max(HOLE_AGE)
}

#[test]
fn full_is_reported_with_the_right_numbers() {
    let place = Place::new();
    // Without durability the log puts no records of its own between ours.
    let wal = place.create(options(Durability::None, OnFull::Fail));
    let mut lsns = Vec::new();
    let refusal = loop {
        match wal.append(&[7; 1000]) {
            Ok(lsn) => lsns.push(lsn),
            Err(refusal) => break refusal,
        }
    };
    // 59 records of 1,024 bytes fit between header and footer page, beside the epoch's record too.
    assert_eq!(lsns.len(), 4 * 59);
    // The end of a segment's records is given as the start of the next segment's.
    let end = 4 * SEGMENT + FIRST_RECORD;
    for _ in 0..3 {
        let again = wal.append(&[7; 1000]).expect_err("it is still full");
        assert_eq!(format!("{again}"), format!("{refusal}"));
    }
    let AppendError::Full { trimmed, retained, capacity } = refusal else {
        panic!("{refusal}");
    };
    assert_eq!(trimmed, Lsn::new(FIRST_RECORD));
    assert_eq!(retained, end - FIRST_RECORD);
    assert_eq!(capacity, 4 * SEGMENT);
    assert_eq!(wal.watermarks().published, Lsn::new(end));
    assert_eq!(wal.watermarks().reserved, Lsn::new(end));
    let found: Vec<Lsn> =
        read_all(&wal, Position::Oldest).into_iter().map(|(lsn, _)| lsn).collect();
    assert_eq!(found, lsns, "what was accepted is there");
}

#[test]
fn waiting_ends_with_a_checkpoint() {
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(options(durability, OnFull::Wait));
        let (lsns, refusal) = fill(&wal, 0, 1000);
        assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let before = wal.metrics().full_hits;
            let writer = scope.spawn(|| {
                let lsn = wal.append(&numbered(1, 0, 500));
                done.store(true, Ordering::SeqCst);
                lsn
            });
            wait_until("the writer has met the full ring", || wal.metrics().full_hits > before);
            assert!(!done.load(Ordering::SeqCst), "{durability:?}: it waits");
            wal.sync().expect("nothing holds the log back");
            // The log's own record may come first in the second segment.
            let second = lsns.iter().find(|lsn| lsn.get() >= SEGMENT + FIRST_RECORD);
            wal.checkpoint(*second.expect("four are full")).expect("a record starts there");
            wait_until("the writer has its space", || done.load(Ordering::SeqCst));
            let lsn = writer.join().expect("no panic").expect("there is space");
            assert_eq!(wal.get(lsn).expect("published")[..], numbered(1, 0, 500));
        });
    }
}

#[test]
fn a_checkpoint_of_what_is_not_durable_yet_releases_in_the_end() {
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(options(durability, OnFull::Fail));
        let mut newest = Lsn::new(FIRST_RECORD);
        // Nobody asks for a sync, and still five laps go through.
        for number in 0..5 * 4 * 3_u64 {
            newest = wal
                .append(&numbered(0, number, 20_000))
                .unwrap_or_else(|error| panic!("{durability:?}, record {number}: {error}"));
            let allowed = wal.checkpoint(newest).expect("a record starts there");
            assert!(allowed <= newest);
        }
        assert!(newest > Lsn::new(4 * 4 * SEGMENT));
    }
}

#[test]
fn overwriting_displaces_the_oldest_and_nothing_else() {
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(options(durability, OnFull::Overwrite));
        let laps = 10;
        let mut last = (Lsn::ZERO, 0);
        for number in 0..laps * 4 * 60 {
            let lsn = wal.append(&numbered(0, number, 1000)).expect("never full");
            assert!(lsn > last.0);
            last = (lsn, number);
        }
        let records = read_all(&wal, Position::Oldest);
        let numbers: Vec<u64> =
            records.iter().map(|(lsn, payload)| check_numbered(*lsn, payload).1).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert_eq!(numbers.last(), Some(&last.1), "the newest is there");
        assert!(numbers.len() >= 59, "at least one whole segment is kept");
        assert!(wal.metrics().bytes_overwritten > (laps - 2) * 4 * SEGMENT);
        let first = Lsn::new(FIRST_RECORD + 32);
        match wal.get(first) {
            Err(ReadError::Trimmed { lsn, oldest }) => {
                // The janitor may go on overwriting meanwhile.
                assert!(lsn == first && first < oldest && oldest <= wal.watermarks().trimmed);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_checkpoint_is_clamped_persisted_and_never_goes_back() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let lsns: Vec<Lsn> =
        (0..10).map(|number| wal.append(&numbered(0, number, 100)).expect("space")).collect();
    let start = wal.watermarks().durable;
    assert_eq!(wal.checkpoint(lsns[5]).expect("a record starts there"), start);
    assert_eq!(wal.sync_checkpoint().expect("no sync failed"), start);
    wal.wait_durable(lsns[9]).expect("no hole");
    assert_eq!(wal.checkpoint(lsns[5]).expect("a record starts there"), lsns[5]);
    assert_eq!(wal.sync_checkpoint().expect("no sync failed"), lsns[5]);
    assert_eq!(wal.watermarks().trimmed, lsns[5]);
    wal.checkpoint(lsns[2]).expect("a lower one is no error");
    assert_eq!(wal.sync_checkpoint().expect("no sync failed"), lsns[5]);
    for lsn in &lsns[..5] {
        assert!(matches!(wal.get(*lsn), Err(ReadError::Trimmed { .. })));
    }
    let kept = read_all(&wal, Position::Oldest);
    assert_eq!(kept.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), lsns[5..]);
    drop(wal);
    let wal = place.open(Options::new());
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::Clean);
    assert_eq!(wal.recovery_report().start, lsns[5]);
    assert_eq!(read_all(&wal, Position::Oldest), kept);
}

#[test]
fn a_checkpoint_off_a_boundary_is_refused() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let first = wal.append(&numbered(0, 0, 100)).expect("space");
    let second = wal.append(&numbered(0, 1, 5000)).expect("space");
    let end = wal.watermarks().published;
    for lsn in 0..end.get() + 1 {
        let lsn = Lsn::new(lsn);
        let boundary = [FIRST_RECORD, first.get(), second.get(), end.get()];
        let result = wal.checkpoint(lsn);
        if boundary.contains(&lsn.get()) {
            result.unwrap_or_else(|error| panic!("{lsn}: {error}"));
        } else {
            let refused =
                matches!(result, Err(CheckpointError::NotARecord { lsn: at }) if at == lsn);
            assert!(refused, "{lsn}: {result:?}");
        }
    }
    for beyond in [end.get() + 16, end.get() + SEGMENT, !(SEGMENT - 1) | FIRST_RECORD] {
        let result = wal.checkpoint(Lsn::new(beyond));
        let Err(CheckpointError::Beyond { lsn, published }) = result else {
            panic!("{beyond}: {result:?}");
        };
        assert_eq!((lsn.get(), published), (beyond, end));
    }
    let open = wal.reserve(100).expect("space");
    let behind = wal.append(b"behind the hole").expect("space");
    wal.checkpoint(open.lsn()).expect("published up to here");
    let result = wal.checkpoint(behind);
    assert!(matches!(result, Err(CheckpointError::Beyond { .. })), "{result:?}");
}

#[test]
fn a_pin_holds_back_recycling_and_its_bytes_stay() {
    for durability in MODES {
        for by_reader in [false, true] {
            let place = Place::new();
            let wal = Arc::new(place.create(options(durability, OnFull::Overwrite)));
            let first = wal.append(&numbered(0, 0, 3000)).expect("space");
            let mut reader = wal.reader(Position::Oldest).expect("the oldest is there");
            let record = reader.next_pinned().expect("intact").expect("published");
            assert_eq!(record.lsn(), first);
            let (mut reader, mut record) = (Some(reader), Some(record));
            if by_reader {
                record = None;
            } else {
                reader = None;
            }
            let pushed = AtomicU64::new(0);
            thread::scope(|scope| {
                for writer in 1..4 {
                    let (wal, pushed) = (&wal, &pushed);
                    scope.spawn(move || {
                        let payload = numbered(writer, 0, 3000);
                        while let Ok(mut space) = wal.reserve_deadline(3000, soon(300)) {
                            space.copy_from_slice(&payload);
                            space.commit();
                            pushed.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            // 20 of them fit a segment; then the pin is in the way, and nothing else.
            assert_eq!(pushed.load(Ordering::Relaxed) / 10, 7, "{durability:?}");
            let refusal = wal.reserve_deadline(3000, soon(50)).expect_err("held");
            assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
            if let Some(record) = &record {
                assert_eq!(record[..], numbered(0, 0, 3000));
            }
            let writer = wal.clone();
            let waiting = thread::spawn(move || writer.append(&numbered(9, 9, 3000)));
            drop((reader, record));
            let lsn = within_patience("an append after the pin has gone", || waiting.join());
            assert!(lsn.expect("no panic").expect("space") > first);
        }
    }
}

#[test]
fn a_moving_reader_lets_go_segment_by_segment() {
    let place = Place::new();
    let wal = place.create(options(Durability::None, OnFull::Overwrite));
    let mut reader = wal.reader(Position::Oldest).expect("the oldest is there");
    let mut written = 0;
    let mut seen = 0;
    // Both go round ten times; the reader is never overtaken, since its pin stops the writer.
    while seen < 10 * 4 * 20 {
        while let Ok(mut space) = wal.reserve_deadline(3000, soon(20)) {
            space.copy_from_slice(&numbered(0, written, 3000));
            space.commit();
            written += 1;
        }
        for _ in 0..25 {
            if let Some(record) = reader.next().expect("never overwritten") {
                assert_eq!(check_numbered(record.lsn(), record.payload()), (0, seen));
                seen += 1;
            }
        }
    }
}

#[test]
fn try_reserve_never_blocks() {
    for durability in MODES {
        for on_full in [OnFull::Wait, OnFull::Fail, OnFull::Overwrite] {
            let place = Place::new();
            let wal = place.create(options(durability, on_full));
            let _pin = wal.reader(Position::Oldest).expect("the oldest is there");
            fill(&wal, 0, 1000);
            let start = Instant::now();
            for _ in 0..1000 {
                let refusal = wal.try_reserve(1000).expect_err("it is full");
                assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
            }
            // A thousand waits of any kind would take longer; a stall of the machine may not.
            assert!(start.elapsed() < Duration::from_millis(900));
        }
    }
}

#[test]
fn a_deadline_ends_a_wait_for_space_with_the_reason() {
    for on_full in [OnFull::Wait, OnFull::Overwrite] {
        let place = Place::new();
        let wal = place.create(options(Durability::OnDemand, on_full));
        let open = wal.reserve(100).expect("space");
        let start = Instant::now();
        let (_, refusal) = fill(&wal, 0, 1000);
        assert!(start.elapsed() >= Duration::from_millis(300));
        let AppendError::HeldBack { lsn, age } = refusal else {
            panic!("{on_full:?}: {refusal}");
        };
        assert_eq!(lsn, open.lsn());
        assert!(age <= start.elapsed());
        // Without a deadline, patience with one reservation ends too.
        let wal = &wal;
        let start = Instant::now();
        let result = wal.append(&[1; 1000]);
        let Err(AppendError::HeldBack { lsn, age }) = result else {
            panic!("{on_full:?}: {result:?}");
        };
        assert_eq!(lsn, open.lsn());
        assert!(age >= HOLE_AGE && start.elapsed() < Duration::from_secs(20));
        let end = open.lsn() + 1;
        open.commit();
        wal.wait_durable(Lsn::new(end.get() - 1)).expect("the hole has gone");
        wal.checkpoint(wal.watermarks().published).expect("the end is a boundary");
        wal.append(&[1; 1000]).expect("space again");
    }
}

#[test]
fn a_full_ring_without_a_hole_ends_with_full_at_the_deadline() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    fill(&wal, 0, 1000);
    for milliseconds in [0, 1, 50, 400] {
        let start = Instant::now();
        let refusal = wal.reserve_deadline(1000, soon(milliseconds)).expect_err("full");
        assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
        assert!(start.elapsed() >= Duration::from_millis(milliseconds));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn waiting_for_durability_behind_ones_own_reservation_ends() {
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(options(durability, OnFull::Wait));
        let before = wal.append(b"before").expect("space");
        let open = wal.reserve(100).expect("space");
        let behind = wal.append(b"behind").expect("space");
        wal.wait_durable(before).expect("nothing is in its way");

        let start = Instant::now();
        let result = wal.wait_durable_deadline(behind, soon(30));
        let Err(WaitError::HeldBack { lsn, age }) = result else {
            panic!("{durability:?}: {result:?}");
        };
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert!(lsn == open.lsn() && age <= start.elapsed());

        for attempt in 0..2 {
            let start = Instant::now();
            let result = match attempt {
                0 => wal.wait_durable(behind),
                _ => wal.sync().map(|_| ()),
            };
            let Err(WaitError::HeldBack { lsn, age }) = result else {
                panic!("{durability:?}: {result:?}");
            };
            assert!(lsn == open.lsn() && age >= HOLE_AGE);
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        let result = wal.append_durable(b"also behind");
        assert!(matches!(result, Err(Error::Wait(WaitError::HeldBack { .. }))), "{result:?}");
        let lsn = open.commit();
        wal.wait_durable(behind).expect("the hole has gone");
        assert!(wal.watermarks().durable > lsn);
    }
}

/// What an older reservation has held back is not charged to the next one.
#[test]
fn the_age_of_a_hole_is_its_own() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let (first, second) = (wal.reserve(10).expect("space"), wal.reserve(10).expect("space"));
    let behind = wal.append(b"behind").expect("space");
    let look = || match wal.wait_durable_deadline(behind, Instant::now()) {
        Err(WaitError::HeldBack { lsn, age }) => (lsn, age),
        result => panic!("{result:?}"),
    };
    assert_eq!(look(), (first.lsn(), Duration::ZERO));
    std::thread::sleep(Duration::from_millis(5));
    let (lsn, age) = look();
    assert!(lsn == first.lsn() && age >= Duration::from_millis(5));
    first.commit();
    assert_eq!(look(), (second.lsn(), Duration::ZERO));
    second.commit();
    wal.wait_durable(behind).expect("nothing is in its way");
}

#[test]
fn patience_can_be_endless() {
    let place = Place::new();
    let wal = place.create(Options::new().hole_age_max(Duration::MAX));
    fill(&wal, 0, 1000);
    let open = AtomicBool::new(false);
    thread::scope(|scope| {
        let before = wal.metrics().full_hits;
        let writer = scope.spawn(|| wal.append(b"waits for ever if it must"));
        wait_until("the writer waits", || wal.metrics().full_hits > before);
        open.store(true, Ordering::Relaxed);
        let end = wal.sync().expect("no hole");
        assert!(end <= wal.watermarks().published);
        wal.checkpoint(wal.watermarks().published).expect("the end is a boundary");
        let result = writer.join().expect("an endless patience is no overflow");
        result.expect("space");
    });
    drop(wal);
    let options = Options::new().durability(Durability::Interval(Duration::MAX));
    let wal = place.open(options);
    wal.append_durable(b"asked for").expect("a wait does not need the interval");
}

/// What has been written into a reservation can be read there before it is committed, and lies
/// where it did then.
#[test]
fn a_reservation_shows_what_it_holds() {
    let place = Place::new();
    let wal = place.create(Options::new().durability(Durability::None));
    wal.append(b"before").expect("space");
    let mut space = wal.reserve(11).expect("space");
    assert_eq!(&space[..], [0; 11], "nothing yet");
    space[..5].copy_from_slice(b"hello");
    space[6..].copy_from_slice(b"again");
    assert_eq!(&space[..], b"hello\0again");
    let lsn = space.commit();
    assert_eq!(wal.get(lsn).expect("it was committed").payload(), b"hello\0again");
}

/// A reservation is filled from the front by whatever writes to an `io::Write` or a `BufMut`.
#[test]
fn a_reservation_is_filled_like_a_writer() {
    let place = Place::new();
    let wal = place.create(Options::new().durability(Durability::None));
    let mut space = wal.reserve(10).expect("space");
    assert_eq!((space.written(), space.remaining_mut()), (0, 10));
    assert_eq!(space.write(b"abc").expect("there is room"), 3);
    space.put_slice(b"de");
    assert_eq!((space.written(), space.remaining_mut()), (5, 5));
    assert_eq!(space.write(b"fghijkl").expect("there is room"), 5, "as many as fit");
    assert_eq!(space.write(b"x").expect("no error"), 0);
    assert_eq!((space.written(), space.remaining_mut()), (10, 0));
    let lsn = space.commit();
    assert_eq!(wal.get(lsn).expect("it was committed").payload(), b"abcdefghij");

    let mut space = wal.reserve(100).expect("space");
    space.write_all(b"some").expect("there is room");
    let lsn = space.lsn();
    assert_eq!(space.commit_written(), lsn);
    assert_eq!(wal.get(lsn).expect("it was committed").payload(), b"some");
}

#[test]
fn a_forgotten_reservation_becomes_a_pad() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let mut kept = Vec::new();
    let mut holes = Vec::new();
    for (number, len) in [0, 1, 15, 16, 17, 4096, 30_000].into_iter().enumerate() {
        let mut reservation = wal.reserve(len).expect("space");
        reservation.fill(0xEE);
        holes.push(reservation.lsn());
        mem::forget(reservation);
        let payload = numbered(0, number as u64, 500);
        kept.push((wal.append(&payload).expect("space"), payload));
    }
    let last = wal.reserve(64).expect("space");
    mem::forget(last);
    let result = wal.close();
    let Err(CloseError::HeldBack { lsn, age }) = result else {
        panic!("{result:?}");
    };
    assert!(lsn == holes[0] && age >= HOLE_AGE);
    assert!(matches!(wal.close(), Err(CloseError::HeldBack { .. })), "the same again");
    drop(wal);

    let wal = place.open(Options::new());
    let report = wal.recovery_report();
    assert_eq!(report.outcome, RecoveryOutcome::ProcessDied);
    assert_eq!(report.holes_padded, holes.len() as u64, "the last one is cut off");
    assert_eq!(report.records, kept.len() as u64);
    assert_eq!(read_all(&wal, Position::Oldest), kept);
    for hole in &holes {
        assert!(matches!(wal.get(*hole), Err(ReadError::NotARecord { .. })));
    }
    for (lsn, payload) in &kept {
        assert_eq!(&wal.get(*lsn).expect("kept")[..], payload);
    }
    drop(wal);
    let wal = place.open(Options::new());
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::Clean);
    assert_eq!(read_all(&wal, Position::Oldest), kept);
}

#[test]
fn a_commit_after_the_close_gave_up_is_kept() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let mut open = wal.reserve(100).expect("space");
    let behind = wal.append(b"behind").expect("space");
    assert!(matches!(wal.close(), Err(CloseError::HeldBack { .. })));
    open.copy_from_slice(&numbered(0, 0, 100));
    let late = open.commit();
    drop(wal);
    let wal = place.open(Options::new());
    let want = [(late, numbered(0, 0, 100)), (behind, b"behind".to_vec())];
    assert_eq!(read_all(&wal, Position::Oldest), want);
}

#[test]
fn dropping_aborting_and_unwinding_give_the_space_up() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let mut gone = Vec::new();
    let mut reservation = wal.reserve(100).expect("space");
    gone.push(reservation.lsn());
    reservation.write_all(b"half a reco").expect("there is room");
    drop(reservation);
    let reservation = wal.reserve(0).expect("space");
    gone.push(reservation.lsn());
    reservation.abort();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut reservation = wal.reserve(2000).expect("space");
        gone.push(reservation.lsn());
        reservation.fill(9);
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    let too_long = catch_unwind(AssertUnwindSafe(|| {
        let reservation = wal.reserve(20).expect("space");
        gone.push(reservation.lsn());
        reservation.commit_len(21)
    }));
    assert!(too_long.is_err(), "more than was reserved cannot be committed");
    assert_eq!(wal.metrics().aborts, 4);
    let lsn = wal.append_durable(b"goes on").expect("nothing is in the way");
    for lsn in &gone {
        assert!(matches!(wal.get(*lsn), Err(ReadError::NotARecord { .. })));
    }
    let want = [(lsn, b"goes on".to_vec())];
    assert_eq!(read_all(&wal, Position::Oldest), want);
    wal.close().expect("no hole");
    drop(wal);
    assert_eq!(read_all(&place.open(Options::new()), Position::Oldest), want);
}

#[test]
fn too_large_is_refused_for_good() {
    let place = Place::new();
    let wal = place.create(options(Durability::None, OnFull::Wait));
    let max = wal.geometry().payload_len_max();
    assert_eq!(max as u64, RECORD_END - FIRST_RECORD - 16);
    let check = |result: Result<(), AppendError>, wanted: usize| match result {
        Err(AppendError::TooLarge { len, max: limit }) => assert_eq!((len, limit), (wanted, max)),
        other => panic!("{wanted}: {other:?}"),
    };
    for len in [max + 1, max + 16, 1 << 20, usize::MAX - 15, usize::MAX] {
        check(wal.try_reserve(len).map(|_| ()), len);
        check(wal.reserve(len).map(|_| ()), len);
        check(wal.reserve_deadline(len, soon(1)).map(|_| ()), len);
    }
    let buffer = vec![0; max + 1];
    check(wal.append(&buffer).map(|_| ()), max + 1);
    let many = vec![IoSlice::new(&buffer); 3];
    check(wal.append_vectored(&many).map(|_| ()), 3 * (max + 1));
    let before = wal.watermarks().reserved;
    assert_eq!(before, Lsn::new(FIRST_RECORD + 32), "nothing was claimed");
    let lsn = wal.append(&buffer[..max]).expect("the largest fits");
    assert_eq!(lsn, Lsn::new(SEGMENT + FIRST_RECORD), "in a segment of its own");
    assert_eq!(wal.get(lsn).expect("published").len(), max);
}

#[test]
fn a_closed_log_accepts_nothing_and_can_be_read() {
    let place = Place::new();
    let wal = Arc::new(place.create(options(Durability::OnDemand, OnFull::Wait)));
    let (lsns, _) = fill(&wal, 0, 1000);
    let other = wal.clone();
    let before = wal.metrics().full_hits;
    let waiting = thread::spawn(move || other.append(&[1; 1000]));
    wait_until("the writer waits", || wal.metrics().full_hits > before);
    wal.close().expect("nothing is in the way");
    let result = within_patience("a producer of a closed log", || waiting.join());
    let result = result.expect("no panic");
    assert!(matches!(result, Err(AppendError::Closed)), "{result:?}");
    wal.close().expect("closing again is no error");

    assert!(matches!(wal.append(b""), Err(AppendError::Closed)));
    assert!(matches!(wal.try_reserve(1), Err(AppendError::Closed)));
    assert!(matches!(wal.reserve(1), Err(AppendError::Closed)));
    let result = wal.reserve_deadline(1, soon(1));
    assert!(matches!(result, Err(AppendError::Closed)), "{result:?}");
    let result = wal.append_durable(b"");
    assert!(matches!(result, Err(Error::Append(AppendError::Closed))), "{result:?}");
    assert!(matches!(wal.checkpoint(lsns[1]), Err(CheckpointError::Closed)));
    wal.wait_durable(lsns[0]).expect("it is durable");
    wal.sync().expect("everything is durable");
    assert_eq!(read_all(&wal, Position::Oldest).len(), lsns.len());
    assert_eq!(wal.watermarks().durable, wal.watermarks().reserved);
}

#[test]
fn waiting_for_what_was_never_reserved_is_an_error() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let lsn = wal.append(b"one").expect("space");
    for beyond in [lsn.get() + 32, lsn.get() + 33, SEGMENT, u64::MAX] {
        let result = wal.wait_durable(Lsn::new(beyond));
        let Err(WaitError::NotReserved { lsn: at, end }) = result else {
            panic!("{beyond}: {result:?}");
        };
        assert_eq!((at, end), (Lsn::new(beyond), lsn + 32));
    }
    wal.wait_durable(lsn).expect("this one was");
    wal.wait_durable(Lsn::ZERO).expect("everything below is durable");
}

#[test]
fn concurrent_checkpoints_never_move_trim_back() {
    let place = Place::new();
    let wal = place.create(options(Durability::OnDemand, OnFull::Wait));
    let highest = AtomicU64::new(0);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (wal, highest) = (&wal, &highest);
            scope.spawn(move || {
                for number in 0..300 {
                    let payload = numbered(writer, number, 900);
                    let lsn = wal.append_durable(&payload).expect("space");
                    wal.checkpoint(lsn).expect("a record starts there");
                    let trimmed = wal.sync_checkpoint().expect("no sync failed");
                    let before = highest.fetch_max(trimmed.get(), Ordering::SeqCst);
                    let now = wal.watermarks().trimmed.get();
                    assert!(now >= before, "trimmed went back from {before} to {now}");
                }
            });
        }
    });
    let end = wal.watermarks().published;
    wal.checkpoint(end).expect("the end is a boundary");
    drop(wal);
    let wal = place.open(Options::new());
    assert!(wal.recovery_report().start.get() >= highest.load(Ordering::SeqCst));
}
