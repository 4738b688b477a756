//! Verification of logs that are in use, and repairs that are interrupted.

mod common;

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use common::{DATA_OFFSET, Place, SEGMENT, numbered, small};
use kaelix_wal::inspect::Observer;
use kaelix_wal::repair::{Mode, Original, RepairError, RepairPlan};
use kaelix_wal::verify::{Verdict, Verifier};
use kaelix_wal::{
    Durability, Geometry, OnFull, OpenError, Options, PathError, Position, ReadError, StreamId,
    Verify, Wal,
};

/// A closed log with damage in the payload of its fifth record.
fn damaged(place: &Place) -> Vec<kaelix_wal::Lsn> {
    let wal = place.create(Options::new());
    let lsns: Vec<_> =
        (0..20).map(|n| wal.append_durable(&numbered(0, n, 500)).expect("room")).collect();
    wal.close().expect("nothing is open");
    drop(wal);
    let ring = fs::File::options().write(true).open(place.ring()).expect("the ring is there");
    ring.write_all_at(b"damage", DATA_OFFSET + lsns[4].get() + 100).expect("it can be written");
    lsns
}

/// While a log is appended to as fast as it goes, wrapped and recycled, it is sound at every look.
#[test]
fn a_log_that_is_written_is_sound() {
    for durability in [Durability::None, Durability::OnDemand] {
        let place = Place::new();
        let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
        let wal = place.create(options);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for producer in 0..2 {
                let (wal, done) = (&wal, &done);
                scope.spawn(move || {
                    let mut number = 0;
                    while !done.load(Ordering::Relaxed) {
                        let bytes = numbered(producer, number, number as usize * 7 % 900);
                        let lsn = wal.append(&bytes).expect("the oldest makes room");
                        if number % 64 == 0 {
                            wal.wait_durable(lsn).expect("the disk takes it");
                        }
                        number += 1;
                    }
                });
            }
            for look in 0..60 {
                let found = Verifier::new(&place.path).threads(1 + look % 2).run();
                let found = found.expect("it can be read");
                assert_eq!(found.verdict(), Verdict::Sound, "{found}");
                assert!(found.writer.is_some());
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn an_open_claim_is_said_to_be_open() {
    let place = Place::new();
    let wal = place.create(Options::new());
    wal.append(b"before").expect("room");
    let open = wal.reserve(100).expect("room");
    wal.append(b"behind").expect("room");
    let found = Verifier::new(&place.path).run().expect("it can be read");
    let claim = found.findings.iter().find(|it| it.lsn == open.lsn()).expect("it is found");
    assert_eq!((claim.verdict, claim.len_bytes()), (Verdict::OpenClaim, 128));
    assert_eq!((claim.records_beyond, found.records), (1, 2));
    assert_eq!(found.verdict(), Verdict::Sound);
}

/// Before the first open a log has one slot; from then on a slot that is zero has been lost.
#[test]
fn a_slot_that_is_zero_is_found() {
    let place = Place::new();
    let wal = place.create(Options::new());
    wal.append_durable(b"acknowledged").expect("room");
    wal.close().expect("nothing is open");
    drop(wal);
    let ring = fs::File::options().read(true).write(true).open(place.ring()).expect("it is there");
    let mut slots = [0; 8192];
    ring.read_exact_at(&mut slots, 4096).expect("it can be read");
    for slot in [4096, 8192] {
        ring.write_all_at(&slots, 4096).expect("it can be written");
        ring.write_all_at(&[0; 4096], slot).expect("it can be written");
        let found = Verifier::new(&place.path).run().expect("it can be read");
        let [file] = &found.files[..] else { panic!("{found}") };
        assert_eq!((file.file_offset, file.verdict), (slot, Verdict::TornInFlight), "{found}");
        assert_eq!((found.verdict(), found.records), (Verdict::Sound, 1), "{found}");
    }
}

#[test]
fn damage_is_found_where_it_is_with_what_proves_it() {
    let place = Place::new();
    let lsns = damaged(&place);
    let found = Verifier::new(&place.path).run().expect("it can be read");
    assert_eq!(found.verdict(), Verdict::Corrupt);
    let [damage, end] = &found.findings[..] else { panic!("{found}") };
    assert_eq!((damage.lsn, damage.segment), (lsns[4], 0));
    assert_eq!(damage.file_offset, DATA_OFFSET + lsns[4].get());
    assert!(damage.end > lsns[4] + 500 && damage.end <= lsns[5]);
    assert!(damage.proof.is_some());
    assert_eq!((damage.records_beyond, found.records), (15, 19));
    assert_eq!((end.verdict, end.lsn), (Verdict::NeverWritten, found.end));
}

/// A plan changes nothing, nobody opens the log under it, and what an interrupted repair has left
/// neither keeps the log from being opened nor the next repair from being made.
#[test]
fn an_interrupted_repair_is_harmless() {
    let place = Place::new();
    damaged(&place);
    let before = fs::read(place.ring()).expect("it can be read");
    let plan = RepairPlan::new(&place.path, Mode::Salvage).expect("it can be planned");
    let refused = Wal::open(&place.path, Options::new()).expect_err("it is being repaired");
    assert!(matches!(refused, OpenError::Path(PathError::Locked { .. })), "{refused}");
    drop(plan);
    // Whatever was written of the copy.
    for len in [0, 5000, before.len()] {
        fs::write(place.path.join("ring.repair"), &before[..len]).expect("room");
        assert!(fs::read(place.ring()).expect("it can be read") == before);
        Observer::open(&place.path).expect("it can be looked at");
    }
    // The second name of the damaged file was given, and then it was interrupted.
    fs::hard_link(place.ring(), place.path.join("ring.damaged")).expect("a second name");
    let plan = RepairPlan::new(&place.path, Mode::Salvage).expect("it can be planned");
    let repaired = plan.apply(Original::Keep).expect("the disk takes it");
    let original = repaired.original.expect("it was kept");
    assert_eq!(original.file_name().and_then(|name| name.to_str()), Some("ring.damaged.2"));
    for name in ["ring.damaged", "ring.damaged.2"] {
        assert!(fs::read(place.path.join(name)).expect("it was kept") == before);
    }
    assert!(!place.path.join("ring.repair").exists());
    // Once more, there is nothing to do.
    assert!(!RepairPlan::new(&place.path, Mode::Salvage).expect("it can be planned").is_needed());
    place.open(Options::new());
}

/// Where there is no room for the copy, the log is as it was.
#[test]
fn a_repair_that_fails_leaves_the_log_as_it_was() {
    let place = Place::new();
    damaged(&place);
    let before = fs::read(place.ring()).expect("it can be read");
    let plan = RepairPlan::new(&place.path, Mode::Truncate).expect("it can be planned");
    // A directory is in its way.
    fs::create_dir(place.path.join("ring.repair")).expect("a new directory");
    let refused = plan.apply(Original::Keep).expect_err("the copy cannot be made");
    assert!(matches!(refused, RepairError::File(_)), "{refused}");
    assert!(fs::read(place.ring()).expect("it can be read") == before);
    assert!(!place.path.join("ring.damaged").exists());
}

/// Readers of all kinds report a gap once, and go on behind it.
#[test]
fn every_reader_reports_a_gap_once() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.stream("orders").expect("a new stream");
    let id: StreamId = stream.id();
    let lsns: Vec<_> = (0..9_u8).map(|n| stream.append(&[n; 100]).expect("room")).collect();
    drop(stream);
    wal.close().expect("nothing is open");
    drop(wal);
    let ring = fs::File::options().write(true).open(place.ring()).expect("the ring is there");
    ring.write_all_at(b"damage", DATA_OFFSET + lsns[3].get() + 50).expect("it can be written");
    let plan = RepairPlan::new(&place.path, Mode::Salvage).expect("it can be planned");
    plan.apply(Original::Discard).expect("the disk takes it");
    assert!(!place.path.join("ring.damaged").exists());

    let wal = place.open(Options::new());
    let shown = |mut next: Box<dyn FnMut() -> Result<Option<kaelix_wal::Lsn>, ReadError> + '_>| {
        let (mut seen, mut gaps) = (Vec::new(), Vec::new());
        loop {
            match next() {
                Ok(Some(lsn)) => seen.push(lsn),
                Ok(None) => break,
                Err(ReadError::Gap { lsn, next }) => gaps.push((lsn, next)),
                Err(error) => panic!("{error}"),
            }
        }
        let kept: Vec<_> = lsns.iter().copied().filter(|lsn| *lsn != lsns[3]).collect();
        assert_eq!((seen, gaps), (kept, vec![(lsns[3], lsns[4])]));
    };
    let mut reader = wal.reader(Position::Oldest).expect("the oldest");
    shown(Box::new(|| Ok(reader.next()?.map(|record| record.lsn()))));
    let mut tail = wal.tail(Position::Oldest).expect("the oldest");
    let now = std::time::Duration::ZERO;
    shown(Box::new(|| Ok(tail.next(now)?.map(|record| record.lsn()))));
    for _ in 0..2 {
        // By the index of streams, which knows of it by now; each reader is told.
        let stream = wal.stream("orders").expect("it is there");
        assert_eq!(stream.id(), id);
        let mut entries = stream.read(Position::Oldest).expect("the oldest");
        shown(Box::new(|| Ok(entries.next()?.map(|entry| entry.lsn))));
        assert_eq!(stream.len().expect("it can be counted"), 8);
    }
    let observer = Observer::open(&place.path).expect("it can be looked at");
    let mut cursor = observer.cursor(Position::Oldest).expect("the oldest");
    shown(Box::new(|| Ok(cursor.next()?.map(|record| record.lsn()))));
    drop(observer);
    let stat = Observer::open(&place.path).map(|mut it| it.stat().expect("counted"));
    assert_eq!(stat.expect("it can be looked at").records, 8);
    let found = Verifier::new(&place.path).run().expect("it can be read");
    assert_eq!(found.verdict(), Verdict::Salvaged);
    assert_eq!(small().segment_size(), SEGMENT);
}

/// Segments of many pieces, as a walk reads them, of records of all lengths.
#[test]
fn what_is_verified_is_counted() {
    let place = Place::new();
    let geometry = Geometry::new(8 << 20, 2 << 20).expect("valid sizes");
    let options = Options::new().durability(Durability::None).on_full(OnFull::Fail);
    let wal = Wal::create(&place.path, geometry, options).expect("it is new");
    let (mut records, mut bytes) = (0, 0);
    for number in 0..2500_u64 {
        let len = (number * 7919 % 3000) as usize;
        wal.append(&vec![number as u8; len]).expect("there is room");
        (records, bytes) = (records + 1, bytes + len as u64);
    }
    wal.close().expect("nothing is open");
    drop(wal);
    for threads in [1, 3] {
        let found = Verifier::new(&place.path).threads(threads).run().expect("it can be read");
        assert_eq!((found.records, found.payload_bytes), (records, bytes), "{threads} threads");
    }
    for verify in [Verify::Full, Verify::Lazy] {
        let wal = Wal::open(&place.path, options.verify(verify)).expect("it is whole");
        let report = wal.recovery_report();
        assert_eq!((report.records, report.payload_bytes), (records, bytes), "{verify:?}");
    }
}
