//! Backups of logs that are written meanwhile, and rings that change their size.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kaelix_wal::inspect::Observer;
use kaelix_wal::{
    BackupError, Geometry, Lsn, OnFull, Options, Position, ReadError, ResizeError, Wal,
};

const SEGMENT: u64 = 64 << 10;

fn create(dir: &Path, segments: u64, options: Options) -> Wal {
    Wal::create(dir, Geometry::new(segments * SEGMENT, SEGMENT).unwrap(), options).unwrap()
}

/// All records with their positions.
fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let mut reader = wal.reader(Position::Oldest).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push((record.lsn(), record.payload().to_vec()));
    }
    records
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(*payload.first_chunk().unwrap())
}

/// The `n`-th record, of a length of its own.
fn payload(n: u64) -> Vec<u8> {
    let mut payload = n.to_le_bytes().to_vec();
    payload.resize(8 + (n * 37 % 900) as usize, n as u8);
    payload
}

/// Also if the test fails: else the scope waits for its thread for ever.
struct StopAtTheEnd<'a>(&'a AtomicBool);

impl Drop for StopAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_of_a_log_that_is_being_written_is_a_prefix_with_all_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(&dir.path().join("log"), 64, Options::new());
    let (stop, appended) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut lsns: VecDeque<Lsn> = (0..2000).map(|n| wal.append(&payload(n)).unwrap()).collect();
    appended.store(2000, Ordering::Release);
    std::thread::scope(|scope| {
        let _stop = StopAtTheEnd(&stop);
        scope.spawn(|| {
            for n in 2000.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                lsns.push_back(wal.append(&payload(n)).unwrap());
                appended.store(n + 1, Ordering::Release);
                // About a third of the ring is kept; segments are recycled under the backup.
                if lsns.len() > 3000 {
                    wal.sync().unwrap();
                    lsns.drain(..200);
                    wal.checkpoint(lsns[0]).unwrap();
                }
            }
        });
        for round in 0..8 {
            let to = dir.path().join(format!("copy{round}"));
            let before = appended.load(Ordering::Acquire);
            let backup = Observer::open(dir.path().join("log")).unwrap().backup(&to).unwrap();
            let copy = Wal::open(&to, Options::new()).unwrap();
            let report = copy.recovery_report();
            assert_eq!((report.records, report.cut_bytes), (backup.records, 0), "{report}");
            let records = records(&copy);
            assert_eq!(records.len() as u64, backup.records);
            let first = number(&records[0].1);
            for (n, (_, found)) in (first..).zip(&records) {
                assert!(*found == payload(n), "record {n} of round {round}");
            }
            assert!(first + backup.records >= before, "round {round} misses some");
            copy.checkpoint(records.last().unwrap().0).unwrap();
            copy.append(b"it goes on").unwrap();
        }
    });
}

/// Either of its checkpoint slots may be lost before it has been opened.
#[test]
fn a_copy_has_both_slots() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let wal = create(&log, 4, Options::new());
    wal.append_durable(b"before it was opened again").unwrap();
    drop(wal);
    drop(Wal::open(&log, Options::new()).unwrap());
    for slot in [4096, 8192] {
        let to = dir.path().join(slot.to_string());
        Observer::open(&log).unwrap().backup(&to).unwrap();
        let ring = std::fs::File::options().write(true).open(to.join("ring")).unwrap();
        ring.write_all_at(&[0; 4096], slot).unwrap();
        let copy = Wal::open(&to, Options::new()).unwrap();
        assert_eq!(records(&copy).len(), 1);
        assert_eq!(copy.recovery_report().epoch, 3);
    }
}

#[test]
fn streams_consumers_and_producers_come_along() {
    let dir = tempfile::tempdir().unwrap();
    let (log, to) = (dir.path().join("log"), dir.path().join("copy"));
    let wal = create(&log, 8, Options::new());
    let orders = wal.versioned_stream("orders").unwrap();
    let last = orders.append(b"apples").unwrap();
    wal.append_durable(b"of no stream").unwrap();
    let consumer = wal.consumer("billing").unwrap();
    consumer.ack(last).unwrap();
    wal.sync_consumers().unwrap();
    let position = consumer.position().unwrap();
    Observer::open(&log).unwrap().backup(&to).unwrap();

    let copy = Wal::open(&to, Options::new()).unwrap();
    assert_eq!(copy.consumer("billing").unwrap().position().unwrap().lsn, position.lsn);
    let orders = copy.versioned_stream("orders").unwrap();
    assert_eq!(orders.last_lsn().unwrap(), Some(last));
    assert!(records(&copy) == records(&wal));
    copy.check_position(position).unwrap();
    drop(copy);
    // There is a log now: it is not written over.
    let again = Observer::open(&log).unwrap().backup(&to);
    assert!(matches!(again, Err(BackupError::Exists(path)) if path == to));
}

#[test]
fn a_version_whose_record_was_released_is_in_the_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (log, to) = (dir.path().join("log"), dir.path().join("copy"));
    let wal = create(&log, 4, Options::new().on_full(OnFull::Overwrite));
    let last = wal.versioned_stream("orders").unwrap().append(b"apples").unwrap();
    for n in 0..2000 {
        wal.append(&payload(n)).unwrap();
    }
    let backup = Observer::open(&log).unwrap().backup(&to).unwrap();
    assert!(backup.start > last);
    let copy = Wal::open(&to, Options::new()).unwrap();
    assert_eq!(copy.versioned_stream("orders").unwrap().last_lsn().unwrap(), Some(last));
}

#[test]
fn an_open_reservation_ends_the_copy_and_nothing_behind_it_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, to) = (dir.path().join("log"), dir.path().join("copy"));
    let wal = create(&log, 4, Options::new());
    wal.append(b"before").unwrap();
    let hole = wal.reserve(100).unwrap();
    wal.append(b"behind").unwrap();
    let backup = Observer::open(&log).unwrap().backup(&to).unwrap();
    assert_eq!((backup.records, backup.end), (1, hole.lsn()));
    let copy = Wal::open(&to, Options::new()).unwrap();
    assert_eq!(copy.recovery_report().cut_bytes, 0);
    assert_eq!(records(&copy).len(), 1);
}

#[test]
fn no_copy_is_made_of_a_damaged_log() {
    let dir = tempfile::tempdir().unwrap();
    let (log, to) = (dir.path().join("log"), dir.path().join("copy"));
    let wal = create(&log, 4, Options::new());
    let damaged = wal.append(b"one").unwrap();
    wal.append_durable(b"two").unwrap();
    wal.close().unwrap();
    drop(wal);
    let ring = std::fs::OpenOptions::new().write(true).open(log.join("ring")).unwrap();
    ring.write_all_at(b"!", (2 << 20) + damaged.get() + 17).unwrap();
    let refused = Observer::open(&log).unwrap().backup(&to);
    assert!(
        matches!(refused, Err(BackupError::Read(ReadError::Damaged { lsn, .. })) if lsn == damaged),
        "{refused:?}"
    );
    assert!(!Wal::exists(&to));
    let refused = Wal::resize(&log, 8 * SEGMENT);
    assert!(matches!(refused, Err(ResizeError::Read(ReadError::Damaged { .. }))), "{refused:?}");
    assert_eq!(Observer::open(&log).unwrap().geometry().capacity(), 4 * SEGMENT);
}

#[test]
fn a_ring_grows_and_shrinks_and_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let options = Options::new();
    let wal = create(&log, 4, options);
    let mut n = 0;
    // Several laps, so that sequences and ring slots have little to do with each other.
    for _ in 0..900 {
        wal.append(&payload(n)).unwrap();
        n += 1;
        if n % 50 == 0 {
            wal.sync().unwrap();
            wal.checkpoint(wal.watermarks().durable).unwrap();
        }
    }
    let stream = wal.stream("kept").unwrap();
    stream.append(b"entry").unwrap();
    wal.sync_checkpoint().unwrap();
    let mut expected = records(&wal);
    wal.close().unwrap();
    drop(wal);
    for segments in [8, 9, 64, 7, 3, 2, 5] {
        let resized = Wal::resize(&log, segments * SEGMENT).unwrap();
        assert_eq!(resized.to.capacity(), segments * SEGMENT);
        let wal = Wal::open(&log, options).unwrap();
        assert_eq!(wal.recovery_report().cut_bytes, 0);
        assert!(records(&wal) == expected, "{segments} segments");
        assert_eq!(wal.stream_names().len(), 1);
        // It goes on, also round the new ring.
        wal.checkpoint(expected.last().unwrap().0).unwrap();
        for _ in 0..segments * 150 {
            wal.append(&payload(n)).unwrap();
            n += 1;
            if n % 25 == 0 {
                wal.sync().unwrap();
                wal.checkpoint(wal.watermarks().durable).unwrap();
            }
        }
        wal.append(&payload(n)).unwrap();
        wal.sync_checkpoint().unwrap();
        expected = records(&wal);
        wal.close().unwrap();
    }
}

#[test]
fn a_size_that_cannot_be_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let wal = create(&log, 8, Options::new());
    assert!(matches!(Wal::resize(&log, 16 * SEGMENT), Err(ResizeError::Open(_))), "it is open");
    for n in 0..700 {
        wal.append(&payload(n)).unwrap();
    }
    wal.close().unwrap();
    drop(wal);
    let before = std::fs::read(log.join("ring")).unwrap();
    let small = Wal::resize(&log, 2 * SEGMENT);
    assert!(matches!(small, Err(ResizeError::TooSmall { retained: 6, segments: 2 })), "{small:?}");
    assert!(matches!(Wal::resize(&log, SEGMENT + 1), Err(ResizeError::Geometry(_))));
    assert!(matches!(Wal::resize(dir.path().join("none"), SEGMENT), Err(ResizeError::Open(_))));
    assert!(std::fs::read(log.join("ring")).unwrap() == before);
    assert!(!log.join("ring.new").exists());
    // What an interrupted resize has left is in nobody's way.
    std::fs::write(log.join("ring.new"), b"half a ring").unwrap();
    assert_eq!(Wal::open(&log, Options::new()).unwrap().recovery_report().records, 700);
    Wal::resize(&log, 6 * SEGMENT).unwrap();
    assert_eq!(Wal::open(&log, Options::new()).unwrap().recovery_report().records, 700);
}

#[test]
fn a_log_that_was_not_closed_is_not_resized() {
    let dir = tempfile::tempdir().unwrap();
    let (log, copy) = (dir.path().join("log"), dir.path().join("copy"));
    let wal = create(&log, 4, Options::new());
    wal.append_durable(b"record").unwrap();
    // As a power loss would leave it, or nearly.
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(log.join("ring"), copy.join("ring")).unwrap();
    assert!(matches!(Wal::resize(&copy, 8 * SEGMENT), Err(ResizeError::NotClosed(_))));
}
