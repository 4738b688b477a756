//! Races and corners that were once bugs, each with its exact geometry.

use std::time::{Duration, Instant};

use super::{contents, kill, new_image, open, tiny};
use crate::error::ReadError;
use crate::geometry::Geometry;
use crate::inspect::Observer;
use crate::layout::Identity;
use crate::reader::pin_found;
use crate::region::{Region, Simulated};
use crate::ring::{CLOSED, Ring, StartPositions};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::{CloseError, Durability, OnFull, Options, Position, Wal};

fn on_new_disk(geometry: Geometry, options: Options) -> (Arc<Simulated>, Wal) {
    let disk = Simulated::new(new_image(geometry));
    let wal = open(&disk, 1, options).expect("a new log opens");
    (disk, wal)
}

/// A reader that was to start behind the newest record was refused as trimmed: between its look and
/// its pin, the log had gone round.
#[test]
fn a_start_that_is_released_before_it_is_pinned_is_looked_for_again() {
    let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
    let (_, wal) = on_new_disk(tiny(4), options);
    let mut looks = 0;
    let (_pin, at) = pin_found(&wal.ring, || {
        looks += 1;
        let newest = wal.ring.publish();
        if looks == 1 {
            while wal.watermarks().trimmed <= newest {
                wal.append(&[1; 1000]).expect("the oldest makes room");
            }
        }
        newest
    })
    .expect("a pin is free");
    assert_eq!((looks, at), (2, wal.watermarks().published));
}

/// Two trims at a time moved a slot's `trimmed` backwards, below a segment recycled by then.
#[test]
fn trims_do_not_overtake_each_other() {
    let (_, wal) = on_new_disk(tiny(4), Options::new().durability(Durability::None));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    wal.sync_checkpoint().expect("the disk takes it");
                }
            });
        }
        for _ in 0..20_000 {
            let lsn = wal.append(&[1; 100]).expect("the checkpoints make room");
            wal.checkpoint(lsn).expect("a boundary");
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A sync that started at `trimmed`, in the middle of a segment, left that segment's header out.
#[test]
fn a_sync_that_starts_at_trimmed_covers_the_segment_header() {
    let geometry = Geometry::checked(4 * 65_536, 65_536, 12_288).expect("in bounds");
    let options = Options::new().durability(Durability::None);
    for later in [false, true] {
        let (mut disk, mut wal) = on_new_disk(geometry, options);
        let mut last = wal.watermarks().reserved;
        while geometry.split(last) < (1, 30_000) {
            last = wal.append(&[5; 1000]).expect("there is room");
        }
        wal.checkpoint(last).expect("a boundary");
        assert_eq!(wal.sync_checkpoint().expect("the disk takes it"), last);
        if later {
            // The same after a power loss in between, by a log that does promise durability.
            kill(wal);
            disk = Simulated::new(disk.disk());
            wal = open(&disk, 2, Options::new()).expect("it recovers");
        }
        let lsn = wal.append_durable(b"acknowledged").expect("the disk takes it");
        kill(wal);
        let wal = open(&Simulated::new(disk.disk()), 3, Options::new()).expect("it recovers");
        assert_eq!(wal.get(lsn).expect("it was durable").payload(), b"acknowledged");
    }
}

/// A close between a rotation and the next claim waited for a position that nobody would claim.
#[test]
fn a_close_at_a_rotation_ends() {
    for round in 0..300 {
        let (_, wal) = on_new_disk(tiny(3), Options::new().on_full(OnFull::Overwrite));
        let started = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let largest = vec![7; wal.geometry().payload_len_max()];
            let (wal, started) = (&wal, &started);
            scope.spawn(move || {
                while wal.append(&largest).is_ok() {
                    started.store(true, Ordering::Relaxed);
                }
            });
            while !started.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            for _ in 0..round * 37 {
                std::hint::spin_loop();
            }
            wal.close().expect("nothing is in the way");
        });
        let watermarks = wal.watermarks();
        assert_eq!(watermarks.durable, watermarks.reserved);
    }
}

/// A tail on a log that was closed around a forgotten reservation spun and never said so.
#[test]
fn a_tail_says_closed_before_a_forgotten_reservation() {
    let options = Options::new().hole_age_max(Duration::from_millis(20));
    let (_, wal) = on_new_disk(tiny(4), options);
    std::mem::forget(wal.reserve(10).expect("there is room"));
    wal.append(b"behind").expect("there is room");
    let mut tail = wal.tail(Position::Oldest).expect("the oldest can be read");
    assert!(tail.next(Duration::from_millis(1)).expect("it is open").is_none());
    assert!(matches!(wal.close(), Err(CloseError::HeldBack { .. })));
    let start = Instant::now();
    assert!(matches!(tail.next(Duration::from_secs(10)), Err(ReadError::Closed)));
    let mut durable = wal.tail(Position::Oldest).expect("it can be read").durable_only();
    assert!(matches!(durable.next(Duration::from_secs(10)), Err(ReadError::Closed)));
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// What was claimed before the close is still to come, until the close gives up waiting for it.
#[test]
fn a_tail_waits_for_what_a_close_waits_for() {
    let (_, wal) = on_new_disk(tiny(4), Options::new());
    let mut tail = wal.tail(Position::Oldest).expect("the oldest can be read");
    let claimed = wal.reserve(10).expect("there is room");
    wal.ring.freeze(CLOSED, None);
    assert!(tail.next(Duration::ZERO).expect("more may come").is_none());
    claimed.commit();
    assert!(tail.next(Duration::ZERO).expect("it is read").is_some());
    assert!(matches!(tail.next(Duration::ZERO), Err(ReadError::Closed)));
    drop(tail);
    kill(wal);
}

/// A janitor that was blocked by an open reservation was not rung when that was committed.
#[test]
fn try_reserve_finds_room_after_a_hole() {
    let (_, wal) = on_new_disk(tiny(2), Options::new().on_full(OnFull::Overwrite));
    let hole = wal.try_reserve(10).expect("there is room");
    while let Ok(reservation) = wal.try_reserve(1000) {
        reservation.commit();
    }
    std::thread::sleep(Duration::from_millis(20));
    hole.commit();
    let start = Instant::now();
    while wal.try_reserve(1000).is_err() {
        assert!(start.elapsed() < Duration::from_secs(5), "full for ever");
        std::thread::yield_now();
    }
}

/// "Never" overflowed the clock.
#[test]
fn the_longest_times_are_long_enough() {
    let options =
        Options::new().durability(Durability::Interval(Duration::MAX)).hole_age_max(Duration::MAX);
    let (_, wal) = on_new_disk(tiny(4), options);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    wal.append_durable(b"x").expect("the disk takes it");
                }
            });
        }
    });
    let mut tail = wal.tail(Position::Oldest).expect("the oldest can be read");
    assert!(tail.next(Duration::MAX).expect("it is open").is_some());
}

/// At the end of the last segment that a log can have, a walk did not come back.
#[test]
fn the_last_position_of_all_can_be_published() {
    let geometry = tiny(2);
    let end = geometry.lsn(u32::MAX, geometry.record_end());
    let start = StartPositions {
        trimmed: geometry.first_record(u32::MAX),
        end: geometry.lsn(u32::MAX, geometry.record_end() - 32),
        prepared: 1 << 32,
    };
    let region = Region::new(Simulated::new(new_image(geometry)));
    let identity = Identity { log_id: *b"a log under test", epoch: 1 };
    let ring = Ring::new(region, geometry, identity, start);
    let claim = ring.try_claim(32).expect("there is room");
    ring.commit_pad(claim);
    assert_eq!(ring.publish(), end);
    assert_eq!(ring.try_claim(16).err(), Some(crate::ring::Refusal::Exhausted));
    assert_eq!(ring.watermarks().reserved, end);
}

/// An observer that walked into a new epoch under the old rule, or past evidence that a reopen
/// dropped, reported a cut that no caller's record had suffered.
#[test]
fn an_observer_follows_through_reopens() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().join("log");
    let geometry = Geometry::new(1 << 18, 1 << 16).expect("in bounds");
    drop(Wal::create(&dir, geometry, Options::new()).expect("it can be created"));
    let observer = Observer::open(&dir).expect("it is there");
    let mut cursor = observer.cursor(Position::Oldest).expect("nothing is trimmed");
    for round in 0..200_u32 {
        let wal = Wal::open(&dir, Options::new()).expect("it opens");
        let lsn = wal.append(&round.to_le_bytes()).expect("there is room");
        if round % 3 == 0 {
            wal.wait_durable(lsn).expect("the disk takes it");
        }
        if round % 2 == 0 {
            wal.die();
        } else {
            drop(wal);
        }
        if round % 5 != 4 {
            let end = observer.cursor(Position::Newest).expect("it can be walked").position();
            observer.cursor(Position::At(end)).expect("the next record will start there");
            continue;
        }
        for want in round - 4..=round {
            let record = cursor.next().expect("nothing was cut").expect("it was appended");
            assert_eq!(record.payload(), want.to_le_bytes());
        }
        assert!(cursor.next().expect("nothing was cut").is_none());
    }
}

/// A reservation that was open exactly at `trimmed`, in a segment that an older epoch had prepared,
/// became a pad of that older epoch, which the next open took for damage.
#[test]
fn a_hole_at_trimmed_is_padded_in_the_newest_epoch() {
    let (disk, wal) = on_new_disk(tiny(4), Options::new());
    wal.append(&[1; 100]).expect("there is room");
    wal.close().expect("nothing is in the way");
    drop(wal);
    let wal = open(&disk, 1, Options::new()).expect("it opens");
    wal.append_durable(&[2; 100]).expect("the disk takes it");
    wal.sync().expect("the disk takes it");
    let reservation = wal.reserve(50).expect("there is room");
    wal.append(&[3; 100]).expect("there is room");
    let hole = reservation.lsn();
    std::mem::forget(reservation);
    let soon = Instant::now() + Duration::from_millis(20);
    assert!(wal.wait_durable_deadline(hole, soon).is_err(), "it is held back");
    assert_eq!(wal.watermarks().durable, hole);
    wal.checkpoint(hole).expect("a boundary");
    assert_eq!(wal.sync_checkpoint().expect("the disk takes it"), hole);
    kill(wal);
    let wal = open(&disk, 1, Options::new()).expect("it recovers");
    assert_eq!(wal.recovery_report().holes_padded, 1);
    wal.append_durable(&[4; 100]).expect("the disk takes it");
    wal.close().expect("nothing is in the way");
    drop(wal);
    let wal = open(&disk, 1, Options::new()).expect("it opens again");
    assert_eq!(contents(&wal), [[3; 100], [4; 100]]);
}

/// A checkpoint at the end of a record that ends its segment released nothing.
#[test]
fn a_checkpoint_at_a_segment_end_releases_the_segment() {
    let options = Options::new().durability(Durability::None).on_full(OnFull::Fail);
    let (_, wal) = on_new_disk(tiny(2), options);
    wal.append(&[1; 4096 - 96 - 16]).expect("the rest of the first segment");
    wal.append(&[2; 4096 - 64 - 16]).expect("the whole second segment");
    let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
    let end = reader.next().expect("it verifies").expect("it is there").next_lsn();
    drop(reader);
    wal.checkpoint(end).expect("a boundary");
    assert!(wal.reader(Position::At(end)).is_ok());
    wal.append(&[3; 100]).expect("there is room now");
}

/// The log's own record, claimed before a caller's and not committed yet, is no reason to refuse a
/// checkpoint there, or a look.
#[test]
fn what_needs_a_record_waits_for_the_logs_own_before_it() {
    let (_, wal) = on_new_disk(tiny(4), Options::new());
    let (own, claim) = wal.ring.own_record_under_way();
    let lsn = wal.append(b"behind it").expect("there is room");
    let end = wal.ring.reserved();
    std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| wal.checkpoint(lsn));
        let at_end = scope.spawn(|| wal.checkpoint(end));
        let record = scope.spawn(|| wal.get(lsn).map(|record| record.payload().to_vec()));
        std::thread::sleep(Duration::from_millis(20));
        wal.ring.commit_pad(claim);
        drop(own);
        checkpoint.join().expect("no panic").expect("a record starts there");
        at_end.join().expect("no panic").expect("a record ends there");
        assert_eq!(record.join().expect("no panic").expect("it is committed"), b"behind it");
    });
}
