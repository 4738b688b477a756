//! Creation is complete or invisible, wherever it fails or dies.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use kaelix_wal::{CreateError, OpenError, Options, Wal};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::{Place, number, small};
use crate::machine::{
    Injection, Outcome, has_strace, run_with_fault, say, skip, stop_behind, task,
};

const SIGXFSZ: i32 = 25;

/// The child's part: creates a log, with a limit on the size of files if there is one.
pub fn create(dir: &Path) {
    let limit = number("KAELIX_FAULTS_LIMIT", u64::MAX);
    if limit != u64::MAX {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none).expect("limits can be lowered");
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(Resource::Fsize, limit).expect("limits can be lowered");
    }
    match Wal::create(dir, small(), Options::new()) {
        Ok(wal) => {
            wal.append(b"the first").expect("space");
            match wal.close() {
                Ok(()) => say("created"),
                Err(error) => say(format_args!("unclean: {error}")),
            }
        }
        Err(CreateError::Open(error)) => say(format_args!("unopened: {error}")),
        Err(error) => say(format_args!("refused: {error}")),
    }
}

/// What a creation that did not come back with a log has left blocks nothing: there is a whole log
/// or none, and then one can be created.
fn check_what_is_left(place: &Place, what: &str) {
    let there = Wal::exists(&place.path);
    let opened = Wal::open(&place.path, Options::new());
    match &opened {
        Ok(wal) => wal.append(b"whole").map(drop).expect("space"),
        Err(OpenError::NoLog(_)) => assert!(!there, "{what}: it is there and it is not"),
        Err(error) => panic!("{what}: {error}"),
    }
    drop(opened);
    let again = Wal::create(&place.path, small(), Options::new());
    match again {
        Err(CreateError::Exists(_)) => assert!(there, "{what}"),
        Ok(wal) => assert!(!there && wal.append(b"a new one").is_ok(), "{what}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

/// A creation that failed left no ring under any name, unless it was only the open that failed.
fn check_failure(place: &Place, outcome: &Outcome, what: &str) {
    let there = Wal::exists(&place.path);
    let root = place.path.parent().and_then(Path::to_str).expect("a place has a root");
    if let Some(error) = outcome.says("refused:") {
        assert!(!there && !place.path.join("ring.new").exists(), "{what}: left a ring: {error}");
        assert!(error.contains(root), "{what}: no path: {error}");
    } else if let Some(error) = outcome.says("unopened:") {
        assert!(there && error.contains(root), "{what}: {error}");
    } else {
        let unclean = outcome.says("unclean:");
        assert!(there && unclean.is_some(), "{what}: {} {}", outcome.status, outcome.said);
    }
    check_what_is_left(place, what);
}

#[test]
fn a_limit_on_the_size_of_files_leaves_no_log() {
    let len = small().file_len();
    for limit in [0, 1, 4095, 4096, 8192, len / 2, len - 4096, len - 1, len] {
        let place = Place::new();
        let ignore = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
        let mut command = task(&ignore, "create", &place.path);
        command.env("KAELIX_FAULTS_LIMIT", limit.to_string());
        let outcome = Outcome::of(command);
        if limit == len {
            assert!(outcome.says("created").is_some(), "{outcome:?}");
            continue;
        }
        let error = outcome.says("refused:").unwrap_or_else(|| panic!("{limit}: {outcome:?}"));
        let aside = place.path.join("ring.new");
        assert!(error.contains(&format!("cannot write {}", aside.display())), "{error}");
        check_failure(&place, &outcome, &format!("limit {limit}"));
    }
}

#[test]
fn killed_in_a_write_of_the_ring_a_creation_is_invisible() {
    let len = small().file_len();
    for limit in [0, 4096, len / 2, len - 1] {
        let place = Place::new();
        let mut command = task(&[], "create", &place.path);
        command.env("KAELIX_FAULTS_LIMIT", limit.to_string());
        let outcome = Outcome::of(command);
        assert_eq!(outcome.killed_by(), Some(SIGXFSZ), "{limit}: {outcome:?}");
        let aside = fs::metadata(place.path.join("ring.new")).expect("it was being written");
        assert_eq!(aside.len(), limit);
        check_what_is_left(&place, &format!("killed at {limit}"));
    }
}

/// The system calls of a creation, with an error that each can meet; of the many writes, some.
const STEPS: &[(&str, &str, &[u32])] = &[
    ("statx", "error=EIO", &[]),
    ("mkdir", "error=ENOSPC", &[]),
    ("openat", "error=ENOSPC", &[]),
    ("fcntl", "error=ENOLCK", &[]),
    ("write", "error=ENOSPC", &[1, 2, 3, 300, 575, 576, 577]),
    ("pwrite64", "error=EIO", &[]),
    ("fsync", "error=EIO", &[]),
    ("rename", "error=EIO", &[]),
    ("pread64", "error=EIO", &[]),
    ("mmap", "error=ENOMEM", &[]),
    ("msync", "error=EIO", &[]),
    ("clone3", "error=EAGAIN", &[]),
];

/// Among these are calls whose answer does not matter: a look that finds no directory, so that one
/// more is synced, what the standard library checks when it closes a file, and reads ahead of the
/// walk that decides, which reads again.
const SURVIVABLE: &[&str] = &["statx", "fcntl", "pread64"];

/// Runs a creation with `fault` in each of its steps, and `check`s each.
fn at_every_step(
    fault: impl Fn(&'static str) -> &'static str,
    check: impl Fn(&Place, &Outcome, &str),
) -> usize {
    let mut struck_count = 0;
    for (call, error, whens) in STEPS {
        for index in 0.. {
            let when = if whens.is_empty() {
                index as u32 + 1
            } else {
                let Some(when) = whens.get(index) else { break };
                *when
            };
            let place = Place::new();
            // Without threads for its tests, the child's harness makes do: all of them fail.
            let onwards = *call == "clone3";
            let injection = Injection { call, when, onwards, fault: fault(error) };
            let (outcome, struck) = run_with_fault(&place, "create", injection);
            let what = format!("{injection:?}");
            if !struck {
                assert!(outcome.says("created").is_some(), "{what}: {outcome:?}");
                assert!(index > 0, "{what}: a creation makes no such call");
                break;
            }
            struck_count += 1;
            check(&place, &outcome, &what);
        }
    }
    struck_count
}

#[test]
fn a_failure_at_any_step_of_a_creation_blocks_nothing() {
    if !has_strace() {
        return skip("a_failure_at_any_step_of_a_creation_blocks_nothing", "strace");
    }
    let said = RefCell::new(String::new());
    let count = at_every_step(
        |error| error,
        |place, outcome, what| {
            said.borrow_mut().push_str(&outcome.said);
            match outcome.says("created") {
                Some(_) if SURVIVABLE.iter().any(|call| what.contains(call)) => {
                    check_what_is_left(place, what);
                }
                _ => check_failure(place, outcome, what),
            }
        },
    );
    let said = said.into_inner();
    let operations = ["look at", "create directory", "open", "lock", "create", "write", "sync"];
    for operation in operations.into_iter().chain(["rename", "read", "map", "start a thread for"]) {
        assert!(said.contains(&format!("cannot {operation} /")), "no failure to {operation}");
    }
    assert!(count > 30, "only {count} steps");
}

#[test]
fn a_log_that_cannot_be_looked_at_is_not_overwritten() {
    if !has_strace() {
        return skip("a_log_that_cannot_be_looked_at_is_not_overwritten", "strace");
    }
    let place = Place::new();
    drop(place.create(Options::new()));
    let ring = fs::read(place.ring()).expect("the ring can be read");
    for when in 1.. {
        let injection = Injection { call: "statx", when, onwards: false, fault: "error=EIO" };
        let (outcome, struck) = run_with_fault(&place, "create", injection);
        assert!(outcome.says("refused:").is_some(), "{injection:?}: {outcome:?}");
        let now = fs::read(place.ring()).expect("the ring is there");
        assert!(now == ring, "{injection:?} changed the ring");
        if !struck {
            assert!(when > 3, "only {when} looks");
            break;
        }
    }
}

#[test]
fn killed_at_any_step_a_creation_blocks_nothing() {
    if !has_strace() {
        return skip("killed_at_any_step_a_creation_blocks_nothing", "strace");
    }
    let count = at_every_step(
        |_| "signal=KILL",
        |place, outcome, what| {
            assert_eq!(outcome.killed_by(), Some(9), "{what}: {outcome:?}");
            check_what_is_left(place, what);
        },
    );
    assert!(count > 30, "only {count} steps");
}

#[test]
fn while_a_log_is_being_created_there_is_none_and_its_place_is_taken() {
    if !has_strace() {
        return skip("while_a_log_is_being_created", "strace");
    }
    let place = Place::new();
    let creation = stop_behind(&place, "create", "write", 200);
    assert!(!Wal::exists(&place.path));
    let opened = Wal::open(&place.path, Options::new());
    let created = Wal::create(&place.path, small(), Options::new());
    let outcome = creation.go_on();
    assert!(matches!(opened, Err(OpenError::NoLog(_))), "{opened:?}");
    let error = created.expect_err("it is being created").to_string();
    assert!(error.contains("already open for writing by process"), "{error}");
    assert!(outcome.says("created").is_some(), "{outcome:?}");
    drop(Wal::open(&place.path, Options::new()).expect("it is whole"));
}
