//! Syncs that fail at run time, one by one.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use kaelix_wal::{
    AppendError, CheckpointError, CloseError, Options, Position, RecoveryOutcome, WaitError, Wal,
};

use crate::common::{Place, check_numbered, numbered, read_all, within_patience};
use crate::machine::{Injection, has_strace, run_with_fault, say, skip};

const WRITERS: u32 = 3;
const RECORDS: u64 = 40;

/// The child's part: writers that wait for each record, until a sync fails; then all of them are
/// told, and nothing is accepted any more.
pub fn append_durable(dir: &Path) {
    let dir = dir.to_owned();
    within_patience("a log with a failed sync", move || {
        let wal = match Wal::open(&dir, endless()) {
            Ok(wal) => wal,
            Err(error) => return say(format_args!("refused: {error}")),
        };
        let failures: usize = thread::scope(|scope| {
            let wal = &wal;
            let writers: Vec<_> =
                (0..WRITERS).map(|writer| scope.spawn(move || write(wal, writer))).collect();
            let failed = writers.into_iter().map(|writer| writer.join().expect("no panic"));
            failed.filter(|failed| *failed).count()
        });
        if failures == 0 {
            return say(match wal.close() {
                Ok(()) => "closed",
                Err(_) => "unclean",
            });
        }
        assert_eq!(failures, WRITERS as usize, "a waiter was told nothing");
        expect_poisoned(&wal);
        say("poisoned");
    });
}

/// With a patience that would outlast the test: who is not woken hangs.
pub fn endless() -> Options {
    Options::new().hole_age_max(Duration::from_secs(3600))
}

/// Writes until a sync fails; true if one did.
fn write(wal: &Wal, writer: u32) -> bool {
    for number in 0..RECORDS {
        let lsn = match wal.append(&numbered(writer, number, 500)) {
            Ok(lsn) => lsn,
            Err(AppendError::Poisoned(_)) => return true,
            Err(error) => panic!("{error}"),
        };
        match wal.wait_durable(lsn) {
            Ok(()) => say(format_args!("durable: {writer} {number}")),
            Err(WaitError::Poisoned(_)) => return true,
            Err(error) => panic!("{error}"),
        }
    }
    false
}

/// No call pretends that the log still works, and none hangs.
pub fn expect_poisoned(wal: &Wal) {
    let append = wal.append(b"too late");
    assert!(matches!(append, Err(AppendError::Poisoned(_))), "{append:?}");
    let reserve = wal.try_reserve(10).map(drop);
    assert!(matches!(reserve, Err(AppendError::Poisoned(_))), "{reserve:?}");
    let sync = wal.sync();
    assert!(matches!(sync, Err(WaitError::Poisoned(_))), "{sync:?}");
    let checkpoint = wal.checkpoint(wal.watermarks().trimmed);
    assert!(matches!(checkpoint, Err(CheckpointError::Poisoned(_))), "{checkpoint:?}");
    let trim = wal.sync_checkpoint();
    assert!(matches!(trim, Err(CheckpointError::Poisoned(_))), "{trim:?}");
    for _ in 0..2 {
        let close = wal.close();
        assert!(matches!(close, Err(CloseError::Poisoned(_))), "{close:?}");
    }
}

/// What the child said was durable.
fn acknowledged(said: &str) -> BTreeSet<(u32, u64)> {
    let acks = said.lines().filter_map(|line| line.strip_prefix("durable: "));
    let pair = |ack: &str| {
        let (writer, number) = ack.split_once(' ').expect("two numbers");
        (writer.parse().expect("a number"), number.parse().expect("a number"))
    };
    acks.map(pair).collect()
}

/// Everything that was acknowledged is in the log, once.
pub fn expect_kept(wal: &Wal, acknowledged: &BTreeSet<(u32, u64)>, what: &str) {
    let records = read_all(wal, Position::Oldest);
    let found: BTreeSet<_> =
        records.iter().map(|(lsn, payload)| check_numbered(*lsn, payload)).collect();
    assert_eq!(found.len(), records.len(), "{what}: something is there twice");
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{what}: {lost:?} lost; {}", wal.recovery_report());
}

#[test]
fn a_sync_that_fails_tells_everyone_and_loses_nothing() {
    if !has_strace() {
        return skip("a_sync_that_fails_tells_everyone_and_loses_nothing", "strace");
    }
    let (mut refused, mut poisoned) = (0, 0);
    // Counted in each thread by itself: first the syncs of the recovery, then those of a writer.
    // Either one fails, or all from there on, so that the mark of the failure fails too.
    for onwards in [false, true] {
        for when in 1..=7 {
            let place = Place::new();
            drop(place.create(Options::new()));
            let injection = Injection { call: "msync", when, onwards, fault: "error=EIO" };
            let (outcome, struck) = run_with_fault(&place, "append_durable", injection);
            let what = format!("{injection:?}");
            assert!(struck, "{what}: {outcome:?}");
            outcome.expect_success(&what);
            let acknowledged = acknowledged(&outcome.said);
            if let Some(error) = outcome.says("refused:") {
                refused += 1;
                let ring = place.ring();
                assert!(error.starts_with(&format!("cannot sync {}: ", ring.display())), "{error}");
                assert!(acknowledged.is_empty());
            } else {
                poisoned += 1;
                assert!(outcome.says("poisoned").is_some(), "{what}: {outcome:?}");
            }
            let wal = place.open(Options::new());
            if !acknowledged.is_empty() {
                // The page cache is no witness any more.
                assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::PowerLost, "{what}");
            }
            expect_kept(&wal, &acknowledged, &what);
        }
    }
    assert!(refused > 1 && poisoned > 1, "{refused} and {poisoned}");
}
