//! File systems that are too small, or may not be written to.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use kaelix_wal::inspect::Observer;
use kaelix_wal::verify::{Verdict, Verifier};
use kaelix_wal::{CreateError, FileError, OpenError, Options, PathError, Position, Wal};

use crate::common::{check_numbered, numbered, read_all, small};
use crate::machine::{must, run_with_mounts};

#[test]
fn a_disk_of_every_size_holds_a_whole_log_or_none() {
    run_with_mounts("a_disk_of_every_size_holds_a_whole_log_or_none", "fill_a_small_disk");
}

#[test]
fn a_full_disk_costs_parity_and_nothing_else() {
    run_with_mounts("a_full_disk_costs_parity_and_nothing_else", "fill_the_disk_under_parity");
}

#[test]
fn a_disk_without_inodes_holds_no_log() {
    run_with_mounts("a_disk_without_inodes_holds_no_log", "use_up_the_inodes");
}

#[test]
fn a_read_only_disk_is_named() {
    run_with_mounts("a_read_only_disk_is_named", "write_to_a_read_only_disk");
}

pub fn mount(dir: &Path, options: &str) {
    let dir = dir.to_str().expect("temporary paths are text");
    must("mount", &["-t", "tmpfs", "-o", options, "faults", dir]);
}

fn remount(dir: &Path, options: &str) {
    let dir = dir.to_str().expect("temporary paths are text");
    // Without the present options, which name user ids that a user namespace does not know.
    must("mount", &["--options-mode=ignore", "-o", &format!("remount,{options}"), dir]);
}

fn file_error(error: CreateError) -> FileError {
    match error {
        CreateError::Path(PathError::File(error)) => error,
        other => panic!("{other}"),
    }
}

/// In a child: a disk of each size, from one page to enough.
pub fn fill_a_small_disk(root: &Path) {
    mount(root, "size=4k");
    let dir = root.join("log");
    let needed = small().file_len() / 4096;
    for pages in 1..needed {
        remount(root, &format!("size={}k", 4 * pages));
        let error = Wal::create(&dir, small(), Options::new()).expect_err("it does not fit");
        let error = file_error(error);
        assert_eq!((error.operation, &error.path), ("write", &dir.join("ring.new")), "{error}");
        assert_eq!(error.source.kind(), ErrorKind::StorageFull, "{pages}: {error}");
        let left: Vec<_> = fs::read_dir(&dir).expect("it was made").collect();
        assert_eq!(left.len(), 1, "{pages}: more than the lock is left: {left:?}");
        assert!(matches!(Wal::open(&dir, Options::new()), Err(OpenError::NoLog(_))));
    }
    remount(root, &format!("size={}k", 4 * needed));
    let wal = Wal::create(&dir, small(), Options::new()).expect("it fits");
    let full = fs::write(root.join("more"), [1; 4096]).expect_err("there is no page left");
    assert_eq!(full.kind(), ErrorKind::StorageFull);

    // Every block is there already: three times round the ring without another page.
    let mut lsns = Vec::new();
    for number in 0..3 * small().capacity() / 1000 {
        let lsn = wal.append(&numbered(0, number, 1000)).expect("space");
        lsns.push(lsn);
        if number % 50 == 49 {
            wal.wait_durable(lsn).expect("no sync fails");
            wal.checkpoint(lsn).expect("a record starts there");
        }
    }
    wal.close().expect("no sync fails");
    drop(wal);
    let wal = Wal::open(&dir, Options::new()).expect("it was closed in order");
    let records = read_all(&wal, Position::Oldest);
    let kept = &lsns[lsns.len() - records.len()..];
    assert!(!records.is_empty() && records.iter().map(|(lsn, _)| lsn).eq(kept));
    for (lsn, payload) in records {
        check_numbered(lsn, &payload);
    }
}

/// In a child: room for the log and for some of the six pages that parity of three segments takes.
pub fn fill_the_disk_under_parity(root: &Path) {
    mount(root, "size=4m");
    let dir = root.join("log");
    let needed = small().file_len() / 4096;
    let wal = Wal::create(&dir, small(), Options::new()).expect("it fits");
    let mut number = 0;
    while wal.watermarks().reserved.get() < 3 * (64 << 10) {
        wal.append(&numbered(0, number, 1000)).expect("space");
        number += 1;
    }
    wal.close().expect("no sync fails");
    drop(wal);
    remount(root, &format!("size={}k", 4 * needed));
    let wal = Wal::open(&dir, Options::new().parity(true)).expect("it was closed in order");
    for pages in 0..6 {
        remount(root, &format!("size={}k", 4 * (needed + pages)));
        let error = wal.sync_parity().expect_err("it does not fit");
        assert_eq!(error.source.kind(), ErrorKind::StorageFull, "{pages}: {error}");
        assert_eq!((error.operation, error.path), ("write", dir.join("parity")));
        wal.append_durable(&numbered(0, number, 1000)).expect("no sync fails");
        number += 1;
    }
    assert!(wal.metrics().parity_failures > 0);
    remount(root, &format!("size={}k", 4 * (needed + 6)));
    assert_eq!(wal.sync_parity().expect("there is room"), 3);
    let records = read_all(&wal, Position::Oldest);
    assert_eq!(records.len() as u64, number);
    wal.close().expect("no sync fails");
    drop(wal);
    let found = Verifier::new(&dir).run().expect("it can be read");
    assert_eq!((found.verdict(), found.protected_segments), (Verdict::Sound, 3), "{found}");
}

/// In a child: room for the root, then for each file more.
pub fn use_up_the_inodes(root: &Path) {
    mount(root, "size=16m,nr_inodes=1");
    let dir = root.join("log");
    let refusals = [
        ("create directory", &dir),
        ("open", &dir.join("lock")),
        ("create", &dir.join("ring.new")),
    ];
    for (inodes, (operation, path)) in (1..).zip(refusals) {
        remount(root, &format!("nr_inodes={inodes}"));
        let error = Wal::create(&dir, small(), Options::new()).expect_err("it needs another inode");
        let error = file_error(error);
        assert_eq!((error.operation, &error.path), (operation, path), "{inodes}: {error}");
        assert_eq!(error.source.kind(), ErrorKind::StorageFull, "{inodes}: {error}");
        assert!(matches!(Wal::open(&dir, Options::new()), Err(OpenError::NoLog(_))));
    }
    remount(root, "nr_inodes=4");
    drop(Wal::create(&dir, small(), Options::new()).expect("it fits"));
}

/// In a child: nothing can be made or opened for writing; what is there can be looked at.
pub fn write_to_a_read_only_disk(root: &Path) {
    mount(root, "size=16m");
    let (dir, empty, none) = (root.join("log"), root.join("empty"), root.join("none"));
    let wal = Wal::create(&dir, small(), Options::new()).expect("it fits");
    wal.append(b"there").expect("space");
    wal.close().expect("no hole");
    drop(wal);
    fs::create_dir(&empty).expect("a directory can be made");
    remount(root, "ro");

    let refused = |dir: &Path| {
        let created = Wal::create(dir, small(), Options::new());
        file_error(created.expect_err("nothing can be written"))
    };
    for (dir, operation, path) in
        [(&none, "create directory", none.clone()), (&empty, "open", empty.join("lock"))]
    {
        let error = refused(dir);
        assert_eq!((error.operation, &error.path), (operation, &path), "{error}");
        assert_eq!(error.source.kind(), ErrorKind::ReadOnlyFilesystem, "{error}");
    }
    match Wal::open(&dir, Options::new()) {
        Err(OpenError::File(error)) => {
            assert_eq!((error.operation, &error.path), ("open", &dir.join("ring")), "{error}");
            assert_eq!(error.source.kind(), ErrorKind::ReadOnlyFilesystem, "{error}");
        }
        other => panic!("{other:?}"),
    }
    let mut observer = Observer::open(&dir).expect("looking needs no right to write");
    assert_eq!(observer.stat().expect("it is sound").records, 1);
    remount(root, "rw");
    let wal = Wal::open(&dir, Options::new()).expect("it is as it was");
    assert_eq!(wal.recovery_report().records, 1);
}
