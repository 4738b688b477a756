//! Files that are something else than they should be, or may not be touched.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use kaelix_wal::inspect::Observer;
use kaelix_wal::{CreateError, OpenError, Options, PathError, Wal};

use crate::common::{Place, small};
use crate::machine::{Outcome, run_powerless, say};

/// The child's part: opens a log.
pub fn open(dir: &Path) {
    match Wal::open(dir, Options::new()) {
        Ok(wal) => say(format_args!("opened: {}", wal.recovery_report().records)),
        Err(error) => say(format_args!("refused: {error}")),
    }
}

/// The child's part: looks at a log.
pub fn observe(dir: &Path) {
    match Observer::open(dir).map_err(Into::into).and_then(|mut observer| observer.stat()) {
        Ok(stat) => say(format_args!("opened: {}", stat.records)),
        Err(error) => say(format_args!("refused: {error}")),
    }
}

/// A closed log of three records.
fn sample() -> Place {
    let place = Place::new();
    let wal = place.create(Options::new());
    for payload in [&b"one"[..], b"two", b"three"] {
        wal.append(payload).expect("space");
    }
    wal.close().expect("no hole");
    place
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

fn expect_refusal(outcome: &Outcome, operation: &str, path: &Path) {
    let error = outcome.says("refused:").unwrap_or_else(|| panic!("{outcome:?}"));
    let start = format!("cannot {operation} {}: Permission denied", path.display());
    assert!(error.starts_with(&start), "{error}\nand not: {start}");
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    let place = sample();
    let (dir, ring, lock) = (place.path.clone(), place.ring(), place.path.join("lock"));
    let modes = |dir_mode, ring_mode, lock_mode| {
        set_mode(&dir, 0o777);
        set_mode(&ring, ring_mode);
        set_mode(&lock, lock_mode);
        set_mode(&dir, dir_mode);
    };
    let all = |outcome: &Outcome| assert_eq!(outcome.says("opened:"), Some("3"), "{outcome:?}");

    modes(0o777, 0o000, 0o666);
    expect_refusal(&run_powerless(&place, "open"), "open", &ring);
    expect_refusal(&run_powerless(&place, "observe"), "open", &ring);
    modes(0o777, 0o444, 0o666);
    expect_refusal(&run_powerless(&place, "open"), "open", &ring);
    all(&run_powerless(&place, "observe"));
    modes(0o777, 0o666, 0o444);
    expect_refusal(&run_powerless(&place, "open"), "open", &lock);
    all(&run_powerless(&place, "observe"));
    modes(0o444, 0o666, 0o666);
    expect_refusal(&run_powerless(&place, "open"), "open", &ring);
    // A directory in which nothing can be made is enough for a log that is there.
    modes(0o555, 0o666, 0o666);
    all(&run_powerless(&place, "observe"));
    all(&run_powerless(&place, "open"));
    set_mode(&dir, 0o777);
    fs::remove_file(&lock).expect("it can be removed");
    set_mode(&dir, 0o555);
    expect_refusal(&run_powerless(&place, "open"), "open", &lock);
    set_mode(&dir, 0o777);
    all(&run_powerless(&place, "open"));
}

#[test]
fn where_nothing_may_be_made_no_log_is() {
    let place = Place::new();
    let root = place.path.parent().expect("a place has a root").to_owned();
    let nothing = run_powerless(&place, "open");
    assert!(nothing.says("refused:").is_some_and(|error| error.starts_with("there is no log")));
    set_mode(&root, 0o555);
    let outcome = run_powerless(&place, "create");
    expect_refusal(&outcome, "create directory", &place.path);
    set_mode(&root, 0o755);
    fs::create_dir(&place.path).expect("a directory can be made");
    set_mode(&place.path, 0o555);
    let outcome = run_powerless(&place, "create");
    expect_refusal(&outcome, "open", &place.path.join("lock"));
    // The lock is there, but no ring can be written.
    set_mode(&place.path, 0o755);
    fs::write(place.path.join("lock"), b"").expect("a file can be made");
    set_mode(&place.path.join("lock"), 0o666);
    set_mode(&place.path, 0o555);
    let outcome = run_powerless(&place, "create");
    expect_refusal(&outcome, "create", &place.path.join("ring.new"));
    assert!(!Wal::exists(&place.path));
    set_mode(&place.path, 0o777);
    let outcome = run_powerless(&place, "create");
    assert!(outcome.says("created").is_some(), "{outcome:?}");
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo is there");
    assert!(made.success());
}

/// Puts each thing that is no regular file at `path`, and removes it after `check`.
fn each_impostor(path: &Path, check: impl Fn(&'static str)) {
    fs::create_dir(path).expect("a directory can be made");
    check("a directory");
    fs::remove_dir(path).expect("it is empty");
    let elsewhere = path.with_file_name("elsewhere");
    fs::write(&elsewhere, b"untouched").expect("a file can be written");
    symlink(&elsewhere, path).expect("a link can be made");
    check("a symbolic link");
    assert_eq!(fs::read(&elsewhere).expect("it is there"), b"untouched");
    fs::remove_file(path).expect("a link can be removed");
    fs::remove_file(&elsewhere).expect("a file can be removed");
    symlink(&elsewhere, path).expect("a link can be made");
    check("a symbolic link");
    assert!(!elsewhere.exists(), "made through a link");
    fs::remove_file(path).expect("a link can be removed");
    make_fifo(path);
    check("a FIFO");
    fs::remove_file(path).expect("a FIFO can be removed");
}

#[test]
fn a_lock_that_is_no_file_is_refused_and_a_lost_one_is_made_again() {
    let place = sample();
    let lock = place.path.join("lock");
    let before = fs::read(place.ring()).expect("the ring can be read");
    fs::remove_file(&lock).expect("it can be removed");
    each_impostor(&lock, |what| {
        match Wal::open(&place.path, Options::new()) {
            Err(OpenError::Path(PathError::NotAFile { path, found })) => {
                assert_eq!((&path, found), (&lock, what));
            }
            other => panic!("{what}: {other:?}"),
        }
        let created = Wal::create(&place.path, small(), Options::new());
        let refused = matches!(created, Err(CreateError::Path(PathError::NotAFile { .. })));
        assert!(refused, "{what}: {created:?}");
        // Whoever only looks asks for no lock, and does not wait at a FIFO for a writer.
        let mut observer = Observer::open(&place.path).expect("the ring is sound");
        let stat = observer.stat().expect("the ring is sound");
        assert_eq!((stat.records, stat.writer), (3, None), "{what}");
    });
    assert!(fs::read(place.ring()).expect("it is there") == before, "a refusal changed the ring");
    let wal = Wal::open(&place.path, Options::new()).expect("a missing lock is made");
    assert_eq!(wal.recovery_report().records, 3);
    assert!(lock.is_file());
}

#[test]
fn a_ring_that_is_no_file_is_refused() {
    let place = sample();
    fs::remove_file(place.ring()).expect("it can be removed");
    each_impostor(&place.ring(), |what| {
        match Wal::open(&place.path, Options::new()) {
            Err(OpenError::Path(PathError::NotAFile { path, found })) => {
                assert_eq!((&path, found), (&place.ring(), what));
            }
            other => panic!("{what}: {other:?}"),
        }
        let created = Wal::create(&place.path, small(), Options::new());
        assert!(matches!(created, Err(CreateError::Exists(_))), "{what}: {created:?}");
    });
}

#[test]
fn what_stands_in_the_place_of_a_new_ring_is_named() {
    let place = Place::new();
    let aside = place.path.join("ring.new");
    fs::create_dir_all(aside.join("full")).expect("directories can be made");
    let error = Wal::create(&place.path, small(), Options::new()).expect_err("it is in the way");
    let start = format!("cannot create {}: ", aside.display());
    assert!(error.to_string().starts_with(&start), "{error}");
    fs::remove_dir_all(&aside).expect("directories can be removed");
    let elsewhere = place.beside("elsewhere");
    fs::write(&elsewhere, b"untouched").expect("a file can be written");
    symlink(&elsewhere, &aside).expect("a link can be made");
    let error = Wal::create(&place.path, small(), Options::new()).expect_err("it is in the way");
    assert!(error.to_string().starts_with(&start), "{error}");
    assert_eq!(fs::read(&elsewhere).expect("it is there"), b"untouched");
    drop(Wal::create(&place.path, small(), Options::new()).expect("the link is gone"));
}
