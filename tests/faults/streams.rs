//! The stream catalog on a disk that is full, or that fails: no stream is lost, nothing is released
//! that was not recorded first, and who needs the space is told why.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kaelix_wal::{
    AppendError, CatalogError, CheckpointError, Durability, Lsn, OnFull, Options, Wal,
};

use crate::common::{PATIENCE, Place, small};
use crate::machine::{Injection, has_strace, run_with_fault, run_with_mounts, say, skip};
use crate::mounts::mount;

const PAGE: u64 = 4096;

#[test]
fn on_a_full_disk_no_stream_is_created_and_nothing_is_released() {
    let name = "on_a_full_disk_no_stream_is_created_and_nothing_is_released";
    run_with_mounts(name, "fill_the_disk_under_a_catalog");
}

fn options(on_full: OnFull) -> Options {
    Options::new()
        .durability(Durability::None)
        .on_full(on_full)
        .hole_age_max(Duration::from_millis(100))
}

/// Takes what is left of the disk.
fn fill(root: &Path) {
    let mut bytes = 1 << 20;
    let mut filler = Vec::new();
    while bytes >= 1 {
        filler.resize(filler.len() + bytes, 1);
        if fs::write(root.join("filler"), &filler).is_err() {
            filler.truncate(filler.len() - bytes);
            bytes /= 2;
        }
    }
    // A file that could not be written whole takes up what there was.
    fs::write(root.join("filler"), &filler).expect("as much as was there before");
    let full = fs::write(root.join("more"), [1]).expect_err("nothing is left");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

fn empty(root: &Path) {
    fs::remove_file(root.join("filler")).expect("it is there");
}

/// In a child: a disk that is full, and is not any more.
pub fn fill_the_disk_under_a_catalog(root: &Path) {
    mount(root, "size=8m");
    for on_full in [OnFull::Wait, OnFull::Fail] {
        let dir = root.join("log");
        let wal = Wal::create(&dir, small(), options(on_full)).expect("it fits");
        create_on_a_full_disk(&wal, root);
        release_on_a_full_disk(&wal, root, on_full);
        wal.close().expect("the cause is gone");
        drop(wal);
        fs::remove_dir_all(&dir).expect("it is ours");
    }
}

/// The first streams, and one that needs another page.
fn create_on_a_full_disk(wal: &Wal, root: &Path) {
    fill(root);
    let refused = wal.versioned_stream("account");
    assert!(matches!(refused, Err(CatalogError::NotAdded(_))), "{refused:?}");
    assert!(wal.stream_names().is_empty());
    empty(root);
    wal.versioned_stream("account").expect("there is room");
    let file = root.join("log/streams.a");
    let len = || fs::metadata(&file).expect("it is there").len();
    // Up to where not even a position fits in the page.
    for number in 0.. {
        let room = PAGE - len();
        if room < 32 {
            break;
        }
        let name = format!("{number:03}{}", "x".repeat((room.min(256) as usize - 32) / 8 * 8));
        wal.stream(&name).expect("there is room");
    }
    fill(root);
    let before = wal.stream_names().len();
    let refused = wal.stream("one more, which needs another page");
    assert!(matches!(refused, Err(CatalogError::NotAdded(_))), "{refused:?}");
    assert_eq!(wal.stream_names().len(), before);
    empty(root);
    assert_eq!(len().div_ceil(PAGE), 1, "it is as it was");
}

/// Appends until the ring has gone round, or an error comes.
fn go_round(wal: &Wal) -> Result<(), AppendError> {
    let end = wal.watermarks().reserved + 2 * small().capacity();
    while wal.watermarks().reserved < end {
        let lsn = wal.append(&[7; 1000])?;
        wal.checkpoint(lsn).expect("a boundary");
    }
    Ok(())
}

/// The position of the stream's newest record has no room.
fn release_on_a_full_disk(wal: &Wal, root: &Path, on_full: OnFull) {
    let account = wal.versioned_stream("account").expect("it is there");
    let last = account.append(b"opened").expect("there is room");
    fill(root);
    let refused = go_round(wal).expect_err("nothing may be released");
    assert!(
        matches!(&refused, AppendError::Unrecorded(CatalogError::NotAdded(_))),
        "{on_full:?}: {refused}"
    );
    assert!(wal.watermarks().trimmed <= last, "released, and nobody knows where it was");
    let refused = wal.sync_checkpoint().expect_err("nothing may be released");
    assert!(matches!(refused, CheckpointError::Unrecorded(_)), "{refused}");
    assert_eq!(wal.get(last).expect("it is there").payload(), b"opened");
    empty(root);
    let start = Instant::now();
    // Who fails at once may be told of the last try; each starts another.
    while let Err(error) = go_round(wal) {
        let is_right = matches!(error, AppendError::Unrecorded(_) | AppendError::Full { .. });
        assert!(is_right, "{error}");
        assert!(start.elapsed() < PATIENCE, "the cause is gone, and it goes on: {error}");
    }
    assert!(wal.watermarks().trimmed > last);
    assert_eq!(account.last_lsn().expect("it is known"), Some(last));
}

/// In a child: a step fails while the log is opened, or while a version is recorded.
pub fn release_without_a_catalog(dir: &Path) {
    let wal = match Wal::open(dir, options(OnFull::Wait)) {
        Ok(wal) => wal,
        Err(error) => return say(format_args!("not opened: {error}")),
    };
    let account = wal.versioned_stream("account").expect("it is there");
    let last = account.append(b"opened").expect("there is room");
    let end = wal.append(b"more").expect("there is room");
    wal.checkpoint(end).expect("a boundary");
    // In this thread: system calls are counted for each.
    match wal.sync_checkpoint() {
        Ok(trimmed) => assert_eq!(trimmed, end),
        Err(CheckpointError::Unrecorded(error)) => {
            assert!(wal.watermarks().trimmed <= last, "released, and nobody knows where it was");
            say(format_args!("refused: {error}"));
        }
        Err(CheckpointError::Poisoned(error)) => say(format_args!("poisoned: {error}")),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(account.last_lsn().expect("it is known"), Some(last));
    let newer = account.append_if(Some(last), b"goes on").ok();
    say(format_args!("last: {}", newer.unwrap_or(last)));
}

/// Each write and each sync fails in turn, those of the catalog among them: nothing is released
/// then, and the version is known when the log is opened again.
#[test]
fn what_fails_before_a_trim_releases_nothing_and_is_named() {
    let name = "what_fails_before_a_trim_releases_nothing_and_is_named";
    if !has_strace() {
        return skip(name, "strace");
    }
    let mut refusals = Vec::new();
    for call in ["pwrite64", "fdatasync", "ftruncate"] {
        for when in 1.. {
            let place = Place::new();
            let wal = place.create(options(OnFull::Wait));
            let account = wal.versioned_stream("account").expect("new");
            let before = account.append(b"before").expect("there is room");
            drop(wal);
            let injection =
                Injection { call, when, onwards: call == "ftruncate", fault: "error=EIO" };
            let (outcome, struck) = run_with_fault(&place, "release_without_a_catalog", injection);
            outcome.expect_success(&format!("{call} {when}"));
            let wal = place.open(options(OnFull::Wait));
            let account = wal.versioned_stream("account").expect("it is there");
            let found = account.last_lsn().expect("it is known");
            match outcome.says("last: ").and_then(|last| last.parse().ok()) {
                // It was closed in order, or died with its pages in the cache.
                Some(last) => assert_eq!(found, Some(Lsn::new(last)), "{call} {when}"),
                None => assert_eq!(found, Some(before), "{call} {when}"),
            }
            if outcome.says("refused: ").is_some() {
                refusals.push((call, when));
            }
            if !struck {
                break;
            }
        }
    }
    // The write and the sync of either file.
    assert_eq!(refusals.len(), 4, "{refusals:?}");
}
