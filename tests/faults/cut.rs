//! A ring file that is cut short, replaced, or stops answering while it is in use.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use kaelix_wal::inspect::Observer;
use kaelix_wal::{Lsn, OpenError, Options, Position, ReadError, Wal};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::{
    DATA_OFFSET, Place, SEGMENT, check_numbered, copy_log, number, numbered, read_all, small,
    wait_until,
};
use crate::machine::{
    Injection, Outcome, has_strace, run_with_fault, say, skip, stop_behind, task,
};

const SIGBUS: i32 = 7;

fn set_len(path: &Path, len: u64) {
    let ring = OpenOptions::new().write(true).open(path).expect("the ring is there");
    ring.set_len(len).expect("its length can be set");
}

/// A log as a power loss leaves it: not closed, and what is in its three segments was durable.
fn crashed() -> (Place, Vec<(Lsn, Vec<u8>)>) {
    let (source, place) = (Place::new(), Place::new());
    let wal = source.create(Options::new());
    let record = |number| {
        let payload = numbered(0, number, 1000);
        (wal.append(&payload).expect("space"), payload)
    };
    let records: Vec<_> = (0..140).map(record).collect();
    wal.sync().expect("no sync fails");
    copy_log(&source.path, &place.path);
    (place, records)
}

fn expect_all(place: &Place, records: &[(Lsn, Vec<u8>)]) {
    let wal = place.open(Options::new());
    assert!(read_all(&wal, Position::Oldest) == records, "{}", wal.recovery_report());
}

#[test]
fn cut_short_during_recovery_is_an_error() {
    if !has_strace() {
        return skip("cut_short_during_recovery_is_an_error", "strace");
    }
    let (place, records) = crashed();
    let bytes = fs::read(place.ring()).expect("the ring can be read");
    // Behind superblock and slots it goes segment by segment. What was read before was whole.
    for (when, segments) in [(4, 0), (4, 1), (5, 0), (5, 2), (6, 0), (6, 2)] {
        let len = DATA_OFFSET + segments * SEGMENT + 5000;
        let opening = stop_behind(&place, "open", "pread64", when);
        set_len(&place.ring(), len);
        let outcome = opening.go_on();
        let error = outcome.says("refused:").unwrap_or_else(|| panic!("{when}: {outcome:?}"));
        let start = format!("cannot read {}: ", place.ring().display());
        assert!(error.starts_with(&start), "{error}");
        let left = fs::read(place.ring()).expect("it is there");
        assert!(bytes.starts_with(&left), "the refusal changed the ring");
        match Wal::open(&place.path, Options::new()) {
            Err(OpenError::Length { path, expected, .. }) => {
                assert_eq!((path, expected), (place.ring(), small().file_len()));
            }
            other => panic!("{other:?}"),
        }
        fs::write(place.ring(), &bytes).expect("the ring can be restored");
    }
    expect_all(&place, &records);
}

/// A segment that recovery need not read is missed when the file is mapped.
#[test]
fn cut_short_before_it_is_mapped_is_an_error() {
    if !has_strace() {
        return skip("cut_short_before_it_is_mapped_is_an_error", "strace");
    }
    let place = Place::new();
    let wal = place.create(Options::new());
    wal.append(&numbered(0, 0, 1000)).expect("space");
    wal.close().expect("no hole");
    drop(wal);
    for when in 1..=3 {
        let opening = stop_behind(&place, "open", "pread64", when);
        let len = small().file_len() - SEGMENT;
        set_len(&place.ring(), len);
        let outcome = opening.go_on();
        let error = outcome.says("refused:").unwrap_or_else(|| panic!("{when}: {outcome:?}"));
        let start = format!("{} is {len} bytes long", place.ring().display());
        assert!(error.starts_with(&start), "{when}: {error}");
        set_len(&place.ring(), small().file_len());
    }
    assert_eq!(place.open(Options::new()).recovery_report().records, 1);
}

#[test]
fn replaced_during_recovery_is_an_error() {
    if !has_strace() {
        return skip("replaced_during_recovery_is_an_error", "strace");
    }
    let (place, records) = crashed();
    let aside = place.beside("aside");
    fs::copy(place.ring(), &aside).expect("the ring can be copied");
    let bytes = fs::read(&aside).expect("it was just written");
    let opening = stop_behind(&place, "open", "pread64", 4);
    fs::rename(&aside, place.ring()).expect("the ring can be replaced");
    let outcome = opening.go_on();
    let error = outcome.says("refused:").unwrap_or_else(|| panic!("{outcome:?}"));
    let start = format!("cannot open {}: the ring file was replaced", place.ring().display());
    assert!(error.starts_with(&start), "{error}");
    assert!(fs::read(place.ring()).expect("it is there") == bytes, "it wrote to the other file");
    expect_all(&place, &records);
}

/// A block that stays bad, from each read on; and one that can be read when it is tried again, as
/// the walk that decides does with what was read ahead of it.
#[test]
fn a_bad_block_at_any_read_is_an_error() {
    if !has_strace() {
        return skip("a_bad_block_at_any_read_is_an_error", "strace");
    }
    for (name, onwards) in [("open", true), ("open", false), ("observe", true)] {
        let (place, records) = crashed();
        let (mut reads, mut survived) = (0, 0);
        loop {
            let injection =
                Injection { call: "pread64", when: reads + 1, onwards, fault: "error=EIO" };
            let (outcome, struck) = run_with_fault(&place, name, injection);
            if !struck {
                assert_eq!(outcome.says("opened:"), Some("140"), "{outcome:?}");
                break;
            }
            reads += 1;
            if !onwards && outcome.says("opened:") == Some("140") {
                survived += 1;
                continue;
            }
            let refused = outcome.says("refused:");
            let error = refused.unwrap_or_else(|| panic!("{injection:?}: {outcome:?}"));
            let start = format!("cannot read {}: Input/output error", place.ring().display());
            assert!(error.starts_with(&start), "{injection:?}: {error}");
        }
        assert!(reads > 5, "only {reads} reads");
        assert!(survived < reads, "no failed read was refused");
        expect_all(&place, &records);
    }
}

#[test]
fn cut_short_under_an_observer_is_an_error() {
    let (place, records) = crashed();
    let mut observer = Observer::open(&place.path).expect("it can be looked at");
    let mut cursor = observer.cursor(Position::Oldest).expect("it can be read");
    let first = cursor.next().expect("it is sound").expect("there are records");
    assert_eq!(first.lsn(), records[0].0);
    set_len(&place.ring(), DATA_OFFSET + SEGMENT + 20_000);
    let mut read = 1;
    let error = loop {
        match cursor.next() {
            Ok(Some(record)) => {
                assert_eq!(check_numbered(record.lsn(), record.payload()), (0, read));
                read += 1;
            }
            Ok(None) => panic!("the end, after {read} records"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::File(_)), "{error}");
    let start = format!("cannot read {}: ", place.ring().display());
    assert!(error.to_string().starts_with(&start), "{error}");
    let error = observer.stat().expect_err("it is cut short");
    assert!(error.to_string().starts_with(&start), "{error}");
}

/// The child's part: a writer whose ring is cut short at `KAELIX_FAULTS_LIMIT` under its mapping.
pub fn append(dir: &Path) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).expect("limits can be lowered");
    let wal = Wal::create(dir, small(), Options::new()).expect("a new log");
    for number in 0..100 {
        wal.append(&numbered(0, number, 1000)).expect("space");
    }
    wal.sync().expect("no sync fails");
    wait_until("a slot says what is durable", || wal.metrics().slots_written > 0);
    let lsn = wal.append(&numbered(0, 100, 1000)).expect("space");
    say(format_args!("committed: {}", lsn.get()));
    set_len(&dir.join("ring"), number("KAELIX_FAULTS_LIMIT", 0));
    for number in 101.. {
        match wal.append(&numbered(0, number, 1000)) {
            Ok(_) => say("more"),
            Err(error) => return say(format_args!("refused: {error}")),
        }
    }
}

/// Lets a writer's ring be cut at `len`, of which it dies; gives the ring its length again.
fn cut_under_a_writer(place: &Place, len: u64) -> u64 {
    let mut command = task(&[], "append", &place.path);
    command.env("KAELIX_FAULTS_LIMIT", len.to_string());
    let outcome = Outcome::of(command);
    assert_eq!(outcome.killed_by(), Some(SIGBUS), "{outcome:?}");
    assert_eq!(fs::metadata(place.ring()).expect("it is there").len(), len);
    match Wal::open(&place.path, Options::new()) {
        Err(OpenError::Length { found, expected, .. }) => {
            assert_eq!((found, expected), (len, small().file_len()));
        }
        other => panic!("{other:?}"),
    }
    set_len(&place.ring(), small().file_len());
    101 + outcome.said.lines().filter(|line| *line == "more").count() as u64
}

#[test]
fn cut_short_under_a_writer_is_a_sigbus_and_what_lies_before_the_cut_is_kept() {
    // Behind all records: nothing is lost, not even what nobody had synced.
    let place = Place::new();
    let committed = cut_under_a_writer(&place, DATA_OFFSET + 3 * SEGMENT);
    let wal = place.open(Options::new());
    let records = read_all(&wal, Position::Oldest);
    // The record that met the cut may have been committed and not reported.
    assert!(records.len() as u64 >= committed, "{} of {committed}", records.len());
    for (index, (lsn, payload)) in records.iter().enumerate() {
        assert_eq!(check_numbered(*lsn, payload), (0, index as u64));
    }

    // Through what was durable: the open names the first record that is not there any more, and
    // all before it can be read.
    let place = Place::new();
    let cut = DATA_OFFSET + SEGMENT + 20_000;
    cut_under_a_writer(&place, cut);
    let damage = match Wal::open(&place.path, Options::new()) {
        Err(OpenError::Corrupt { damage, .. }) => damage,
        other => panic!("{other:?}"),
    };
    assert!((cut - 1016..cut).contains(&damage.file_offset), "{damage}");
    let observer = Observer::open(&place.path).expect("its head is whole");
    let mut cursor = observer.cursor(Position::Oldest).expect("the oldest is there");
    let mut read = 0;
    let mut end = Lsn::ZERO;
    let error = loop {
        match cursor.next() {
            Ok(Some(record)) => {
                assert_eq!(check_numbered(record.lsn(), record.payload()), (0, read));
                read += 1;
                end = record.next_lsn();
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert_eq!(end, damage.lsn, "{read} records, then {error:?}");
    let mut byte = [0];
    let ring = File::open(place.ring()).expect("it is there");
    ring.read_exact_at(&mut byte, damage.file_offset).expect("its start is there");
    assert_ne!(byte, [0]);
}
