//! The parity file, whose every write and sync may fail, or be the last thing that a process does.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kaelix_wal::repair::{Mode, Original, RepairPlan};
use kaelix_wal::verify::{Verdict, Verifier};
use kaelix_wal::{Options, Position, ReadError, Verify, Wal};

use crate::common::{DATA_OFFSET, Place, SEGMENT, check_numbered, numbered, read_all};
use crate::machine::{Injection, has_strace, run_with_fault, say, skip};

const SEGMENTS: u64 = 3;

/// The child's part: fills some segments, and then has them protected, all at once.
pub fn protect(dir: &Path) {
    let wal = Wal::open(dir, Options::new()).expect("the log is whole");
    let mut number = 0;
    while wal.watermarks().reserved.get() < SEGMENTS * SEGMENT + 3000 {
        wal.append(&numbered(0, number, 900)).expect("there is room");
        number += 1;
    }
    wal.close().expect("nothing is open");
    drop(wal);
    let wal = Wal::open(dir, Options::new().parity(true)).expect("it was closed in order");
    match wal.sync_parity() {
        Ok(protected) => say(format_args!("protected: {protected}")),
        Err(error) => say(format_args!("unprotected: {error}")),
    }
    wal.append_durable(&numbered(0, number, 900)).expect("the log goes on");
    wal.close().expect("and is closed in order");
}

/// Runs the child with a fault; what it said, if the fault's turn came.
fn run(place: &Place, call: &'static str, when: u32, fault: &'static str) -> Option<String> {
    drop(place.create(Options::new()));
    let injection = Injection { call, when, onwards: fault.starts_with("error"), fault };
    let (outcome, struck) = run_with_fault(place, "protect", injection);
    if outcome.killed_by().is_none() {
        outcome.expect_success(&format!("{injection:?}"));
    }
    struck.then_some(outcome.said)
}

/// The table vouches for pages of parity that are on the medium: without their sync, there is none.
#[test]
fn a_table_waits_for_the_sync_of_its_parity() {
    if !has_strace() {
        return skip("a_table_waits_for_the_sync_of_its_parity", "an strace that may inject");
    }
    let place = Place::new();
    let said = run(&place, "fdatasync", 1, "error=EIO").expect("there is a sync");
    let path = place.path.join("parity");
    let refused = format!("unprotected: cannot sync {}", path.display());
    assert!(said.contains(&refused), "{said}");
    assert!(fs::metadata(path).expect("it is there").len() > 0, "the parity was written");
    let found = Verifier::new(&place.path).run().expect("it can be read");
    assert_eq!((found.verdict(), found.footed_segments), (Verdict::Sound, SEGMENTS), "{found}");
    assert_eq!(found.protected_segments, 0, "{found}");
}

/// A process that dies at any write leaves tables that are whole, or none; what they give back is
/// what was there.
#[test]
fn whatever_a_death_leaves_of_parity_heals_or_says_no() {
    if !has_strace() {
        return skip("whatever_a_death_leaves_of_parity_heals_or_says_no", "an strace");
    }
    let mut deaths = 0;
    // Calls are counted by thread, and either of two protects: some turns do not come.
    for (call, times) in [("pwrite64", 8), ("fdatasync", 2)] {
        for when in 1..=times {
            let place = Place::new();
            if run(&place, call, when, "signal=KILL").is_none() {
                continue;
            }
            let wal = place.open(Options::new());
            let records = read_all(&wal, Position::Oldest);
            wal.close().expect("nothing is open");
            drop(wal);
            let found = Verifier::new(&place.path).run().expect("it can be read");
            assert_eq!(found.verdict(), Verdict::Sound, "{call} {when}: {found}");
            if found.footed_segments < SEGMENTS {
                // It died before.
                continue;
            }
            deaths += 1;
            let protected = found.protected_segments;
            damage(&place);
            let found = Verifier::new(&place.path).run().expect("it can be read");
            let rebuilt: usize = found.parity.iter().map(|it| it.rebuilt.len()).sum();
            assert_eq!(rebuilt as u64, protected, "{call} {when}: {found}");
            let plan = RepairPlan::new(&place.path, Mode::Salvage).expect("it can be planned");
            plan.apply(Original::Discard).expect("the disk takes it");
            check(&place, records.len(), rebuilt);
        }
    }
    assert!(deaths > 0, "nobody died at the sync");
}

/// Takes a page of each sealed segment.
fn damage(place: &Place) {
    let ring = fs::File::options().write(true).open(place.ring()).expect("it is there");
    for segment in 0..SEGMENTS {
        let page = DATA_OFFSET + segment * SEGMENT + 5 * 4096;
        ring.write_all_at(&[0; 4096], page).expect("it can be written");
    }
}

/// Nothing is altered, and nothing is lost where all was rebuilt.
fn check(place: &Place, records: usize, rebuilt: usize) {
    let wal = place.open(Options::new().verify(Verify::Full));
    let mut reader = wal.reader(Position::Oldest).expect("it can be read");
    let mut left = 0;
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                check_numbered(record.lsn(), record.payload());
                left += 1;
            }
            Ok(None) => break,
            Err(ReadError::Gap { .. }) if rebuilt < SEGMENTS as usize => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(left == records, rebuilt == SEGMENTS as usize, "{left} of {records}");
}
