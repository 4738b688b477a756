//! Persistent memory with real files: on a tmpfs, where the mode can be asked for, the log lives in
//! memory that a processor's cache lines are written back to; elsewhere it is refused.

mod common;

use std::time::{Duration, Instant};

use common::{Place, bytes, fill, read_all, small};
use kaelix_wal::inspect::Observer;
use kaelix_wal::{
    CreateError, Durability, OnFull, OpenError, Options, Persistence, Position, RecoveryOutcome,
    WaitError, Wal,
};

fn memory() -> Options {
    Options::new().persistence(Persistence::PersistentMemory)
}

#[test]
fn what_is_no_memory_is_refused() {
    let place = Place::new();
    let wal = place.create(Options::new());
    // A machine whose temporary files lie in memory cannot show the refusal.
    let is_disk = wal.persistence() == Persistence::PageCache && {
        wal.append_durable(b"on a disk").expect("the disk takes it");
        drop(wal);
        match Wal::open(&place.path, memory()) {
            Err(OpenError::NotPersistentMemory { path, reason }) => {
                assert_eq!(path, place.ring());
                assert!(reason.contains("DAX"), "{reason}");
                true
            }
            Err(error) => panic!("{error}"),
            Ok(_) => false,
        }
    };
    if is_disk {
        let other = place.beside("other");
        let refused = Wal::create(&other, small(), memory());
        let is_refused =
            matches!(refused, Err(CreateError::Open(OpenError::NotPersistentMemory { .. })));
        assert!(is_refused, "{refused:?}");
        // As documented: there is a log, whole and empty.
        drop(Wal::open(&other, Options::new()).expect("it opens"));
        let wal = place.open(Options::new());
        assert_eq!(wal.recovery_report().records, 1, "a refusal changes nothing");
        assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::Clean);
    }
}

/// Memory that calls itself a file system is not taken for persistent unless that is asked for.
#[test]
fn a_tmpfs_is_not_chosen_by_itself() {
    let Some(place) = Place::on_tmpfs() else { return };
    let wal = place.create(Options::new());
    assert_eq!(wal.persistence(), Persistence::PageCache);
    drop(wal);
    let mut observer = Observer::open(&place.path).expect("it can be read");
    assert_eq!(observer.stat().expect("it can be read").persistence, Persistence::PageCache);
    let wal = place.open(memory());
    assert_eq!(wal.persistence(), Persistence::PersistentMemory);
}

#[test]
fn either_mode_opens_what_the_other_has_closed() {
    let Some(place) = Place::on_tmpfs() else { return };
    drop(place.create(memory()));
    let mut written = Vec::new();
    for round in 0..6 {
        let options = if round % 2 == 0 { Options::new() } else { memory() };
        let wal = place.open(options);
        assert_eq!(read_all(&wal, Position::Oldest), written);
        for number in 0..20 {
            let payload = bytes(round << 32 | number, number as usize * 37);
            let lsn = wal.append_durable(&payload).expect("there is room");
            assert!(lsn < wal.watermarks().durable);
            written.push((lsn, payload));
        }
        wal.close().expect("nothing is in the way");
    }
}

/// Laps of a small ring, by several threads that all wait, with records that are streamed past the
/// caches among them.
#[test]
fn every_record_is_durable_when_its_append_returns() {
    let Some(place) = Place::on_tmpfs() else { return };
    let wal = place.create(memory().on_full(OnFull::Overwrite));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let wal = &wal;
            scope.spawn(move || {
                for number in 0..400_u64 {
                    let key = thread << 32 | number;
                    let len = if number % 16 == 0 { 40_000 } else { key as usize * 31 % 700 };
                    let payload = bytes(key, len);
                    let lsn = wal.append_durable(&payload).expect("the oldest makes room");
                    assert!(lsn < wal.watermarks().durable);
                    if let Ok(found) = wal.get(lsn) {
                        assert!(*found.payload() == payload, "the record at {lsn}");
                    }
                }
            });
        }
    });
    let metrics = wal.metrics();
    assert!(metrics.syncs > 100, "{metrics:?}");
    // All but the footers' pages.
    assert!(metrics.sync_bytes > wal.watermarks().durable.get() / 8 * 7, "{metrics:?}");
    assert!(metrics.slots_written > 0 && metrics.bytes_overwritten > 0, "{metrics:?}");
    let expected = read_all(&wal, Position::Oldest);
    wal.close().expect("nothing is in the way");
    drop(wal);
    let wal = place.open(Options::new());
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::Clean);
    // The janitor may have made room for what came no more.
    let retained = read_all(&wal, Position::Oldest);
    assert!(!retained.is_empty() && expected.ends_with(&retained));
}

#[test]
fn an_open_reservation_holds_durability_back() {
    let Some(place) = Place::on_tmpfs() else { return };
    let wal = place.create(memory());
    let hole = wal.reserve(8).expect("there is room");
    let lsn = wal.append(b"behind it").expect("there is room");
    let soon = Instant::now() + Duration::from_millis(20);
    let waited = wal.wait_durable_deadline(lsn, soon);
    assert!(matches!(waited, Err(WaitError::HeldBack { .. })), "{waited:?}");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| wal.wait_durable(lsn));
        std::thread::park_timeout(Duration::from_millis(20));
        hole.commit();
        waiter.join().expect("no panic").expect("the hole is closed");
    });
}

/// What nobody waits for becomes durable all the same: at the interval, and behind the producers,
/// so that space is released.
#[test]
fn the_flusher_makes_durable_what_nobody_waits_for() {
    let Some(place) = Place::on_tmpfs() else { return };
    let wal = place.create(memory().durability(Durability::Interval(Duration::from_millis(2))));
    let lsn = wal.append(b"nobody waits").expect("there is room");
    common::wait_until("it is durable", || wal.watermarks().durable > lsn);
    drop(wal);
    let wal = place.open(memory().on_full(OnFull::Fail));
    for round in 0..8 {
        let (lsns, _full) = fill(&wal, round << 32, 500);
        let last = *lsns.last().expect("something was written");
        common::wait_until("the filled segments are durable", || {
            wal.watermarks().durable.get() / common::SEGMENT >= last.get() / common::SEGMENT
        });
        wal.checkpoint(last).expect("a boundary");
        common::wait_until("space is released", || {
            wal.try_reserve(500).map(|reservation| reservation.abort()).is_ok()
        });
    }
}
