//! What is not a log, or not a sound one, is refused with the reason, and left as it was.

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{DATA_OFFSET, Place, SEGMENT, crc32, numbered, read_all, small, wait_until};
use kaelix_wal::inspect::Observer;
use kaelix_wal::{CreateError, Error, Lsn, OpenError, Options, PathError, Position, Wal};

const SLOTS: [u64; 2] = [4096, 8192];

fn open(path: &Path) -> Result<Wal, OpenError> {
    Wal::open(path, Options::new())
}

/// A closed log with some records, all durable.
fn sample(place: &Place) -> Vec<(Lsn, Vec<u8>)> {
    let wal = place.create(Options::new());
    let record = |number| {
        let payload = numbered(0, number, 10 + 300 * number as usize);
        (wal.append(&payload).expect("space"), payload)
    };
    let records = (0..20).map(record).collect();
    wal.close().expect("no hole");
    records
}

fn ring(place: &Place) -> File {
    let file = OpenOptions::new().read(true).write(true).open(place.ring());
    file.expect("the ring is there")
}

fn patch(place: &Place, offset: u64, bytes: &[u8]) {
    ring(place).write_all_at(bytes, offset).expect("the ring can be written");
}

fn flip(place: &Place, offset: u64) {
    let mut byte = [0];
    ring(place).read_exact_at(&mut byte, offset).expect("in the file");
    patch(place, offset, &[byte[0] ^ 0x10]);
}

/// Changes the superblock and makes its checksum right again.
fn patch_superblock(place: &Place, offset: u64, bytes: &[u8]) {
    patch(place, offset, bytes);
    let mut block = [0; 124];
    ring(place).read_exact_at(&mut block, 0).expect("in the file");
    patch(place, 124, &crc32(&block).to_le_bytes());
}

/// The open fails, and the ring is the same afterwards.
fn refused(place: &Place) -> OpenError {
    let before = fs::read(place.ring()).expect("the ring can be read");
    let error = open(&place.path).expect_err("it cannot be opened");
    assert!(fs::read(place.ring()).expect("the ring can be read") == before, "{error}: changed it");
    error
}

#[test]
fn a_path_that_is_none_for_a_log_is_named() {
    let place = Place::new();
    let fifo = place.beside("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is there");
    assert!(made.success());
    let file = place.beside("file");
    fs::write(&file, b"not a log").expect("a file can be written");
    for (path, what) in [(&fifo, "a FIFO"), (&file, "a regular file")] {
        let check = |error: PathError| match error {
            PathError::NotADirectory { path: named, found } => {
                assert_eq!((&named, found), (path, what));
            }
            other => panic!("{other}"),
        };
        match open(path) {
            Err(OpenError::Path(error)) => check(error),
            other => panic!("{other:?}"),
        }
        match Wal::create(path, small(), Options::new()) {
            Err(CreateError::Path(error)) => check(error),
            other => panic!("{other:?}"),
        }
        assert!(!Wal::exists(path));
        assert!(matches!(Observer::open(path), Err(OpenError::Path(_))));
    }
}

#[test]
fn a_symbolic_link_is_refused() {
    let place = Place::new();
    sample(&place);
    let link = place.beside("link");
    symlink(&place.path, &link).expect("a link can be made");
    let is_link = |error: &PathError| matches!(error, PathError::Symlink(path) if *path == link);
    assert!(matches!(open(&link), Err(OpenError::Path(error)) if is_link(&error)));
    let created = Wal::create(&link, small(), Options::new());
    assert!(matches!(created, Err(CreateError::Path(error)) if is_link(&error)));
    let dangling = place.beside("dangling");
    symlink(place.beside("nowhere"), &dangling).expect("a link can be made");
    assert!(matches!(open(&dangling), Err(OpenError::Path(PathError::Symlink(_)))));
    let created = Wal::create(&dangling, small(), Options::new());
    assert!(matches!(created, Err(CreateError::Path(PathError::Symlink(_)))));
    assert!(!place.beside("nowhere").exists());

    let moved = place.beside("moved");
    fs::rename(place.ring(), &moved).expect("the ring can be moved");
    symlink(&moved, place.ring()).expect("a link can be made");
    match open(&place.path) {
        Err(OpenError::Path(PathError::NotAFile { found, .. })) => {
            assert_eq!(found, "a symbolic link");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_no_log_is_none_is_opened_or_left() {
    let place = Place::new();
    let missing = open(&place.path);
    assert!(matches!(missing, Err(OpenError::NoLog(path)) if path == place.path));
    assert!(!place.path.exists(), "nothing was made");
    fs::create_dir(&place.path).expect("a directory can be made");
    assert!(matches!(open(&place.path), Err(OpenError::NoLog(_))));
    assert_eq!(fs::read_dir(&place.path).expect("a directory").count(), 0, "nothing was made");
    assert!(!Wal::exists(&place.path));
    // What a killed creation leaves behind is invisible, and in nobody's way.
    fs::write(place.path.join("ring.new"), b"half a ring").expect("a file can be written");
    assert!(matches!(open(&place.path), Err(OpenError::NoLog(_))));
    let wal = Wal::open_or_create(&place.path, small(), Options::new()).expect("a new log");
    assert!(!place.path.join("ring.new").exists());
    drop(wal);
    let again = Wal::create(&place.path, small(), Options::new());
    assert!(matches!(again, Err(CreateError::Exists(path)) if path == place.path));
    drop(Wal::open_or_create(&place.path, small(), Options::new()).expect("the same log"));
}

#[test]
fn a_ring_of_another_length_is_refused() {
    let head_alone = 3 * 4096 - small().file_len() as i64;
    for (change, found) in
        [(-1_i64, "cut"), (1, "grown"), (-4096, "cut"), (1 << 20, "grown"), (head_alone, "cut")]
    {
        let place = Place::new();
        sample(&place);
        let len = small().file_len();
        let changed = len.checked_add_signed(change).expect("positive");
        ring(&place).set_len(changed).expect("it can be");
        match refused(&place) {
            OpenError::Length { path, found, expected } => {
                assert_eq!((path, found, expected), (place.ring(), changed, len));
            }
            other => panic!("{found}: {other}"),
        }
        assert!(matches!(Observer::open(&place.path), Err(OpenError::Length { .. })));
    }
    for len in [0, 1, 127, 4096, 3 * 4096 - 1] {
        let place = Place::new();
        sample(&place);
        ring(&place).set_len(len).expect("it can be");
        let error = refused(&place);
        assert!(matches!(error, OpenError::NotALog { .. }), "{len}: {error}");
    }
}

#[test]
fn another_version_is_named_and_unknown_features_too() {
    let place = Place::new();
    sample(&place);
    patch_superblock(&place, 8, &7_u32.to_le_bytes());
    let error = refused(&place);
    assert!(matches!(error, OpenError::Version { found: 7, supported: 1, .. }), "{error}");
    // The version counts before the checksum, which another version may keep elsewhere.
    patch(&place, 124, &[0; 4]);
    assert!(matches!(refused(&place), OpenError::Version { found: 7, .. }));
    patch_superblock(&place, 8, &1_u32.to_le_bytes());
    patch_superblock(&place, 24, &6_u64.to_le_bytes());
    let error = refused(&place);
    assert!(matches!(error, OpenError::Features { unknown: 6, .. }), "{error}");
    patch_superblock(&place, 24, &0_u64.to_le_bytes());
    // Features that a reader may ignore.
    patch_superblock(&place, 16, &u64::MAX.to_le_bytes());
    drop(open(&place.path).expect("everything is as it should be"));
}

#[test]
fn every_byte_of_the_superblock_counts() {
    let place = Place::new();
    sample(&place);
    for offset in 0..128 {
        flip(&place, offset);
        let error = refused(&place);
        match error {
            OpenError::Version { .. } => assert!((8..12).contains(&offset)),
            OpenError::NotALog { path, .. } => assert_eq!(path, place.ring()),
            other => panic!("byte {offset}: {other}"),
        }
        flip(&place, offset);
    }
    // A geometry that no log has, with the right checksum.
    for (offset, value) in [(48, 0), (48, 4095), (48, 1 << 40), (56, 0), (56, 1), (64, 1 << 40)] {
        let mut before = [0; 8];
        ring(&place).read_exact_at(&mut before, offset).expect("in the file");
        let len = if offset == 56 { 4 } else { 8 };
        patch_superblock(&place, offset, &u64::to_le_bytes(value)[..len]);
        let error = refused(&place);
        assert!(matches!(error, OpenError::NotALog { .. }), "{offset} = {value}: {error}");
        patch_superblock(&place, offset, &before);
    }
    drop(open(&place.path).expect("everything is as it was"));
}

#[test]
fn one_damaged_checkpoint_slot_is_enough_two_are_too_many() {
    for damaged in SLOTS {
        let place = Place::new();
        let records = sample(&place);
        for offset in [0, 8, 40, 100, 255] {
            flip(&place, damaged + offset);
            let wal = open(&place.path).expect("the other slot is whole");
            assert_eq!(read_all(&wal, Position::Oldest), records);
        }
    }
    let place = Place::new();
    sample(&place);
    for slot in SLOTS {
        flip(&place, slot + 20);
    }
    let error = refused(&place);
    assert!(matches!(error, OpenError::NoCheckpoint(ref path) if *path == place.ring()), "{error}");
}

/// Each byte of a durable record, header included; padding behind a payload means nothing.
#[test]
fn a_flipped_byte_in_a_durable_record_is_found() {
    let place = Place::new();
    let records = sample(&place);
    let (lsn, payload) = &records[1];
    let end = 16 + payload.len() as u64;
    for offset in (0..end).step_by(7).chain(0..20).chain(end - 3..end) {
        let position = DATA_OFFSET + lsn.get() + offset;
        flip(&place, position);
        match refused(&place) {
            OpenError::Corrupt { path, damage } => {
                assert_eq!(path, place.ring());
                assert_eq!((damage.lsn, damage.file_offset), (*lsn, DATA_OFFSET + lsn.get()));
                assert!(damage.durable > records[19].0 && !damage.reason.is_empty());
            }
            other => panic!("byte {offset}: {other}"),
        }
        flip(&place, position);
    }
    // A zeroed record, a zeroed page, a segment's header.
    for (offset, len) in [(lsn.get(), 16), (4096, 4096), (0, 64)] {
        let place = Place::new();
        sample(&place);
        patch(&place, DATA_OFFSET + offset, &vec![0; len]);
        let error = refused(&place);
        assert!(matches!(error, OpenError::Corrupt { .. }), "{offset}: {error}");
    }
    let wal = open(&place.path).expect("everything is as it was");
    assert_eq!(read_all(&wal, Position::Oldest), records);
}

/// The log of another process or of an earlier lap, byte for byte valid, is not this log's.
#[test]
fn another_logs_segment_is_not_believed() {
    let (place, other) = (Place::new(), Place::new());
    sample(&place);
    sample(&other);
    let mut segment = vec![0; SEGMENT as usize];
    ring(&other).read_exact_at(&mut segment, DATA_OFFSET).expect("in the file");
    patch(&place, DATA_OFFSET, &segment);
    let error = refused(&place);
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn a_log_has_one_writer_in_a_process() {
    let place = Place::new();
    let wal = place.create(Options::new());
    for _ in 0..3 {
        match open(&place.path) {
            Err(OpenError::Path(PathError::Locked { path, by })) => {
                assert!(path == place.path && by.contains("this process"), "{by}");
            }
            other => panic!("{other:?}"),
        }
        let created = Wal::create(&place.path, small(), Options::new());
        assert!(matches!(created, Err(CreateError::Path(PathError::Locked { .. }))), "{created:?}");
    }
    // By another name of the same directory, too.
    let roundabout = place.path.join("..").join("log");
    let result = Wal::open_or_create(&roundabout, small(), Options::new());
    let refused = matches!(result, Err(Error::Open(OpenError::Path(PathError::Locked { .. }))));
    assert!(refused, "{result:?}");
    // The attempts and an observer have not loosened the lock.
    drop(Observer::open(&place.path).expect("looking is allowed").stat().expect("it is sound"));
    assert_eq!(try_in_another_process(&place.path), "locked");
    wal.append(b"still ours").expect("space");
    drop(wal);
    assert_eq!(try_in_another_process(&place.path), "opened");
    drop(open(&place.path).expect("free again"));
}

/// Opens the log in a child: "opened", "locked", or what else was said.
fn try_in_another_process(path: &Path) -> String {
    let output = Command::new(std::env::current_exe().expect("this binary has a path"))
        .args(["other_process", "--exact", "--nocapture"])
        .env("KAELIX_OPEN", path)
        .output()
        .expect("this binary can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ["opened", "locked"].into_iter().find(|word| said.contains(word)).unwrap_or(&said).to_owned()
}

/// Not a test by itself: the other process.
#[test]
#[allow(clippy::print_stderr, reason = "its parent reads this")]
fn other_process() {
    let Some(path) = std::env::var_os("KAELIX_OPEN").map(PathBuf::from) else { return };
    match open(&path) {
        Ok(_) => eprintln!("opened"),
        Err(OpenError::Path(PathError::Locked { by, .. })) => {
            let parent = std::os::unix::process::parent_id().to_string();
            assert!(by.contains(&parent), "the lock's holder is named: {by}");
            eprintln!("locked");
        }
        Err(error) => eprintln!("{error}"),
    }
}

#[test]
fn a_child_process_does_not_keep_the_lock() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let mut child =
        Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep is there");
    let held = format!("/proc/{}/fd", child.id());
    wait_until("the child has become another program", || {
        fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name == "sleep\n")
    });
    let links =
        fs::read_dir(held).expect("it is ours").filter_map(|fd| fd.ok()?.path().read_link().ok());
    let inherited: Vec<PathBuf> = links.filter(|path| path.starts_with(&place.path)).collect();
    drop(wal);
    let reopened = open(&place.path).map(drop);
    let elsewhere = try_in_another_process(&place.path);
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert!(inherited.is_empty(), "left open in a child: {inherited:?}");
    reopened.expect("the lock is free");
    assert_eq!(elsewhere, "opened");
}

#[test]
fn the_ring_is_private_and_takes_all_its_space() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let metadata = fs::metadata(place.ring()).expect("it is there");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), small().file_len());
    assert!(metadata.blocks() * 512 >= metadata.len(), "{} blocks", metadata.blocks());
    let directory = fs::metadata(&place.path).expect("it is there");
    assert_eq!(directory.permissions().mode() & 0o077, 0);
    drop(wal);
    assert_eq!(fs::metadata(place.ring()).expect("it is there").len(), metadata.len());
}

#[test]
fn a_log_that_may_not_be_read_is_refused_by_name() {
    let place = Place::new();
    sample(&place);
    fs::remove_file(place.ring()).expect("it can be removed");
    fs::create_dir(place.ring()).expect("a directory can be made");
    let refused = matches!(
        open(&place.path),
        Err(OpenError::Path(PathError::NotAFile { found: "a directory", .. }))
    );
    assert!(refused);
    assert!(format!("{}", open(&place.path).expect_err("no file")).contains("ring"));
}
