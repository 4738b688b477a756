//! A disk that fails to write back: the kernel's own error, not an injected one.
//!
//! The disk is thin: a sparse file on a small memory file system, with a file system of its own in
//! it. Whatever was written as zeros is given back to the store and the store is filled, so that
//! the disk can still be read, and written where it is not zero, and nowhere else. That is what a
//! thin volume does whose pool is full.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use kaelix_wal::{AppendError, OpenError, Options, Position, RecoveryOutcome, WaitError, Wal};
use rustix::fs::{FallocateFlags, fallocate};

use crate::common::{numbered, read_all, small, within_patience};
use crate::machine::{must, run_with_mounts, skip};
use crate::steps::{endless, expect_kept, expect_poisoned};

const WRITERS: u32 = 3;
const PAGE: usize = 4096;

#[test]
fn a_failed_write_back_loses_nothing_that_was_acknowledged() {
    let test = "a_failed_write_back_loses_nothing_that_was_acknowledged";
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !rustix::process::geteuid().is_root() || !has("losetup") || !Path::new("/dev/loop0").exists()
    {
        return skip(test, "root and loop devices");
    }
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return skip(test, "mkfs.ext4");
    }
    run_with_mounts(test, "fail_to_write_back");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn mount_disk(disk: &Path, at: &Path) {
    must("mount", &["-t", "ext4", "-o", "loop,errors=continue", text(disk), text(at)]);
}

/// Gives the zeros of the disk back to the store, and fills the store.
fn use_up(disk: &Path, filler: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(disk).expect("the disk is there");
    let mut page = [0; PAGE];
    let len = file.metadata().expect("it is open").len();
    for offset in (0..len).step_by(PAGE) {
        file.read_exact_at(&mut page, offset).expect("the disk can be read");
        if page == [0; PAGE] {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, flags, offset, PAGE as u64).expect("the store takes it back");
        }
    }
    let filler = File::create(filler).expect("there is room for a name");
    for offset in (0..).step_by(PAGE) {
        if filler.write_all_at(&[1; PAGE], offset).is_err() {
            return;
        }
    }
}

/// Appends until a sync fails; what was acknowledged before, and whether it was told.
fn write(wal: &Wal, writer: u32) -> BTreeSet<(u32, u64)> {
    let mut acknowledged = BTreeSet::new();
    for number in 0..1000 {
        let lsn = match wal.append(&numbered(writer, number, 500)) {
            Ok(lsn) => lsn,
            Err(AppendError::Poisoned(_)) => return acknowledged,
            Err(error) => panic!("{error}"),
        };
        match wal.wait_durable(lsn) {
            Ok(()) => acknowledged.insert((writer, number)),
            Err(WaitError::Poisoned(_)) => return acknowledged,
            Err(error) => panic!("{error}"),
        };
    }
    panic!("no sync failed")
}

/// In a child with its own mounts.
pub fn fail_to_write_back(root: &Path) {
    must("mount", &["-t", "tmpfs", "-o", "size=24m", "faults", text(root)]);
    let [disk, at, filler, image, beside] =
        ["disk", "at", "filler", "image", "beside"].map(|name| root.join(name));
    File::create(&disk).and_then(|file| file.set_len(8 << 20)).expect("a sparse file can be made");
    must("mkfs.ext4", &["-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", text(&disk)]);
    fs::create_dir(&at).expect("a directory can be made");
    fs::create_dir(&beside).expect("a directory can be made");
    mount_disk(&disk, &at);
    let dir = at.join("log");

    let wal = Wal::create(&dir, small(), endless()).expect("there is room");
    let first = wal.append_durable(&numbered(WRITERS, 0, 500)).expect("the disk works");
    must("sync", &["-f", text(&dir)]);
    use_up(&disk, &filler);
    let acknowledged = within_patience("a log whose disk fails", move || {
        let mut acknowledged: BTreeSet<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn({
                        let wal = &wal;
                        move || write(wal, writer)
                    })
                })
                .collect();
            writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect()
        });
        acknowledged.insert((WRITERS, 0));
        assert!(wal.get(first).is_ok(), "what is there can still be read");
        expect_poisoned(&wal);
        acknowledged
    });

    // The disk is as it was: nothing that was not durable can be made so.
    match Wal::open(&dir, Options::new()) {
        Err(OpenError::File(error)) => {
            assert_eq!((error.operation, error.path), ("sync", dir.join("ring")));
        }
        other => panic!("{other:?}"),
    }
    fs::remove_file(&filler).expect("it is ours");
    let wal = Wal::open(&dir, Options::new()).expect("there is room again");
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::PowerLost);
    expect_kept(&wal, &acknowledged, "after the failure");
    let served = read_all(&wal, Position::Oldest);

    // What that recovery served was on the medium before: the disk alone has it.
    fs::copy(&disk, &image).expect("the disk can be copied");
    mount_disk(&image, &beside);
    let copy = Wal::open(beside.join("log"), Options::new()).expect("the disk has a whole log");
    expect_kept(&copy, &acknowledged, "on the disk");
    assert!(read_all(&copy, Position::Oldest) == served, "served, and not on the disk");
    drop(copy);
    drop(wal);
    must("umount", &[text(&beside)]);
    must("umount", &[text(&at)]);
}
