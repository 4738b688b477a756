//! The two files in a directory.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use super::*;
use crate::error::PathError;
use crate::stream::catalog::{Catalog, CatalogError};

/// A directory that is removed at the end, and the paths of the two files in it.
struct Place {
    root: tempfile::TempDir,
    files: [PathBuf; 2],
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        let files = ["streams.a", "streams.b"].map(|name| root.path().join(name));
        Place { root, files }
    }

    /// A place with a catalog of three streams.
    fn with_streams() -> Place {
        let place = Place::new();
        let mut catalog = place.open(true).expect("nothing is there");
        catalog.create(&[("one", NONE), ("two", VERSIONED)]).expect("the disk takes it");
        catalog
            .record_positions(&[(id(2), 1, Lsn::new(96))], Lsn::ZERO)
            .expect("the disk takes it");
        catalog.create(&[("three", NONE)]).expect("the disk takes it");
        place
    }

    fn open(&self, writable: bool) -> Result<Catalog, CatalogError> {
        Catalog::open(self.root.path(), &LOG_ID, writable)
    }

    fn bytes(&self) -> [Vec<u8>; 2] {
        self.files.clone().map(|path| fs::read(path).expect("it is there"))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).expect("it is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    fn flip(&self, side: usize, offset: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.files[side]);
        let file = file.expect("it is there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("it is so long");
        file.write_all_at(&[byte[0] ^ 4], offset).expect("it can be written");
    }
}

#[test]
fn there_are_no_files_before_the_first_stream() {
    let place = Place::new();
    let mut catalog = place.open(true).expect("nothing is there");
    assert_eq!((catalog.len(), catalog.get("one")), (0, None));
    catalog.create(&[]).expect("nothing to do");
    catalog.record_positions(&[], Lsn::ZERO).expect("nothing to do");
    assert!(place.names().is_empty());
    assert_eq!(catalog.create(&[("one", NONE)]).expect("the disk takes it"), [id(1)]);
    assert_eq!(place.names(), ["streams.a", "streams.b"]);
    for path in &place.files {
        let mode = fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn streams_keep_ids_names_flags_and_positions() {
    let place = Place::with_streams();
    let [a, b] = place.bytes();
    assert!(a == b);
    for writable in [true, false] {
        let catalog = place.open(writable).expect("it is whole");
        let all: Vec<_> = catalog.iter().collect();
        assert_eq!(all, [(id(1), "one", NONE), (id(2), "two", VERSIONED), (id(3), "three", NONE)]);
        assert_eq!((catalog.len(), catalog.name(id(4)), catalog.flags(id(4))), (3, None, None));
        assert_eq!(catalog.position(id(2)), Some((1, Lsn::new(96))));
        assert_eq!((catalog.position(id(1)), catalog.position(id(9))), (None, None));
        assert_eq!((catalog.get("two"), catalog.get("Two")), (Some(id(2)), None));
    }
    assert!(place.bytes() == [a, b]);
}

/// Records beyond the start of an epoch are lost, and so are positions of theirs: in this epoch and
/// in all that follow.
#[test]
fn positions_beyond_a_cut_are_withdrawn() {
    let place = Place::with_streams();
    let mut catalog = place.open(true).expect("it is whole");
    let lsn = Lsn::new;
    catalog.record_positions(&[(id(2), 1, lsn(640))], Lsn::ZERO).expect("the disk takes it");
    for (epoch, start, left) in
        [(2, 656, Some((1, lsn(640)))), (3, 640, Some((1, lsn(96)))), (4, 96, None), (5, 64, None)]
    {
        catalog.begin_epoch(epoch, lsn(start)).expect("the disk takes it");
        assert_eq!(catalog.position(id(2)), left);
        assert_eq!(place.open(true).expect("whole").position(id(2)), left);
    }
    catalog.record_positions(&[(id(2), 5, lsn(96))], Lsn::ZERO).expect("the disk takes it");
    assert_eq!(place.open(true).expect("whole").position(id(2)), Some((5, lsn(96))));
}

#[test]
fn the_newest_position_counts() {
    let place = Place::with_streams();
    let mut catalog = place.open(true).expect("it is whole");
    let lsn = Lsn::new;
    catalog
        .record_positions(&[(id(2), 5, lsn(640)), (id(2), 4, lsn(32))], Lsn::ZERO)
        .expect("it takes it");
    assert_eq!(catalog.position(id(2)), Some((4, lsn(32))));
    assert_eq!(place.open(true).expect("whole").position(id(2)), Some((4, lsn(32))));
}

/// However often positions are replaced, and the catalog is opened.
#[test]
fn the_files_do_not_grow_with_positions_that_are_replaced() {
    let place = Place::with_streams();
    let mut catalog = place.open(true).expect("it is whole");
    let len = |place: &Place| place.bytes().iter().map(Vec::len).max().expect("two");
    let first = len(&place);
    for number in 1..3000 {
        let lsn = Lsn::new(number * 16);
        catalog.record_positions(&[(id(2), 1, lsn)], lsn).expect("the disk takes it");
        if number % 700 == 0 {
            drop(catalog);
            catalog = place.open(true).expect("it is whole");
            catalog.begin_epoch(number, lsn + 16).expect("the disk takes it");
        }
        assert!(len(&place) < 2 * (first + 4096 + 64), "{} at {number}", len(&place));
        assert_eq!(catalog.position(id(2)), Some((1, lsn)));
    }
    let again = place.open(true).expect("it is whole");
    assert_eq!(again.position(id(2)), Some((1, Lsn::new(2999 * 16))));
    assert_eq!(place.names(), ["streams.a", "streams.b"], "nothing else is left");
}

#[test]
fn names_that_exist_return_their_ids() {
    let place = Place::with_streams();
    let before = place.bytes();
    let mut catalog = place.open(true).expect("it is whole");
    let ids = catalog.create(&[("three", NONE), ("one", NONE)]).expect("they exist");
    assert_eq!(ids, [id(3), id(1)]);
    assert!(place.bytes() == before);
    let wanted = [("five", NONE), ("one", NONE), ("six", VERSIONED), ("five", NONE)];
    assert_eq!(catalog.create(&wanted).expect("it takes them"), [id(4), id(1), id(5), id(4)]);
    assert_eq!(place.open(true).expect("whole").len(), 5);
}

#[test]
fn impossible_requests_add_nothing() {
    let place = Place::with_streams();
    let before = place.bytes();
    let mut catalog = place.open(true).expect("it is whole");
    let error = catalog.create(&[("new", NONE), ("two", NONE)]).expect_err("two is versioned");
    let text = "the stream \"two\" is versioned and was asked for as not versioned: open it as it \
                is, or choose another name";
    assert_eq!(error.to_string(), text);
    let error = catalog.create(&[("new", NONE), ("new", VERSIONED)]).expect_err("two kinds");
    assert!(matches!(error, CatalogError::FlagsDiffer { .. }), "{error}");
    let long = "x".repeat(256);
    for name in ["", &long] {
        let error = catalog.create(&[("new", NONE), (name, NONE)]).expect_err("its length");
        assert!(matches!(error, CatalogError::NameLength { .. }), "{error}");
    }
    let lsn = Lsn::new(64);
    let error =
        catalog.record_positions(&[(id(2), 1, lsn), (id(9), 1, lsn)], Lsn::ZERO).expect_err("none");
    assert!(matches!(error, CatalogError::NoStream(of) if of == id(9)), "{error}");
    let error = catalog
        .record_positions(&[(id(2), 1, lsn), (id(1), 1, lsn)], Lsn::ZERO)
        .expect_err("flags");
    assert!(matches!(error, CatalogError::NotVersioned(of) if of == id(1)), "{error}");
    assert!(place.bytes() == before && catalog.get("new").is_none());
}

#[test]
fn any_text_is_a_name_and_no_two_are_the_same() {
    let longest = "\u{1F980}".repeat(63) + "abc";
    let names = [longest.as_str(), "é", "e\u{301}", " ", "\0", "a/b", "..", "A", "a"];
    let place = Place::new();
    let mut catalog = place.open(true).expect("nothing is there");
    let ids = catalog.create(&names.map(|name| (name, NONE))).expect("the disk takes it");
    let catalog = place.open(true).expect("it is whole");
    for (name, id) in names.iter().zip(ids) {
        assert_eq!((catalog.get(name), catalog.name(id)), (Some(id), Some(*name)));
    }
    assert_eq!((longest.len(), catalog.len()), (255, names.len()));
}

#[test]
fn a_lost_or_damaged_file_is_repaired_from_the_other() {
    for side in 0..2 {
        let place = Place::with_streams();
        let sound = place.bytes();
        fs::remove_file(&place.files[side]).expect("it is there");
        assert_eq!(place.open(true).expect("one is whole").len(), 3);
        assert!(place.bytes() == sound);
        for offset in [0, 40, 70, sound[0].len() as u64 - 1] {
            place.flip(side, offset);
            assert_eq!(place.open(true).expect("one is whole").len(), 3);
            assert!(place.bytes() == sound);
        }
        fs::write(&place.files[side], &sound[0][..100]).expect("it can be written");
        assert_eq!(place.open(true).expect("one is whole").len(), 3);
        assert!(place.bytes() == sound);
        assert_eq!(place.names(), ["streams.a", "streams.b"]);
    }
}

#[test]
fn a_torn_addition_is_cut_off_and_overwritten() {
    let place = Place::with_streams();
    let sound = place.bytes();
    fs::write(&place.files[0], [&sound[0][..], &[7; 50]].concat()).expect("it can be written");
    let mut catalog = place.open(true).expect("it is torn");
    assert!(place.bytes() == sound);
    catalog.create(&[("four", NONE)]).expect("it goes on");
    assert_eq!(place.open(true).expect("it is whole").get("four"), Some(id(4)));
}

#[test]
fn damage_in_both_is_refused_by_place_and_changes_nothing() {
    let place = Place::with_streams();
    place.flip(0, 70);
    place.flip(1, 71);
    let before = place.bytes();
    for writable in [true, false] {
        let error = place.open(writable).expect_err("neither is whole");
        let text = error.to_string();
        assert!(matches!(error, CatalogError::Corrupt { file_offset: 64, .. }), "{text}");
        let start = "the stream catalog is damaged at file offset 64 of ";
        let path = place.files[0].display().to_string();
        assert!(text.starts_with(start) && text.contains(&path), "{text}");
    }
    assert!(place.bytes() == before);
}

#[test]
fn what_is_not_a_file_of_this_log_is_refused() {
    let refused = |spoil: &dyn Fn(&PathBuf)| {
        for side in 0..2 {
            let place = Place::with_streams();
            fs::remove_file(&place.files[side]).expect("it is there");
            spoil(&place.files[side]);
            let other = fs::read(&place.files[1 - side]).expect("it is there");
            for writable in [true, false] {
                let error = place.open(writable).expect_err("it is none");
                let CatalogError::Path(error) = error else { panic!("{error}") };
                assert!(matches!(*error, PathError::NotAFile { .. }), "{error}");
                assert!(error.to_string().contains(&place.files[side].display().to_string()));
            }
            assert!(fs::read(&place.files[1 - side]).expect("it is there") == other);
        }
    };
    refused(&|path| fs::create_dir(path).expect("it can be made"));
    refused(&|path| std::os::unix::fs::symlink("elsewhere", path).expect("it can be made"));
    refused(&|path| {
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("it can be made");
    });
    let place = Place::with_streams();
    let error = Catalog::open(place.root.path(), &[9; 16], true).expect_err("another log's");
    assert!(matches!(error, CatalogError::AnotherLog(_)), "{error}");
}

#[test]
fn a_catalog_that_is_read_repairs_nothing_and_takes_nothing() {
    let place = Place::with_streams();
    let sound = place.bytes();
    fs::write(&place.files[0], [&sound[0][..], &[7; 50]].concat()).expect("it can be written");
    place.flip(1, 70);
    let before = place.bytes();
    let mut catalog = place.open(false).expect("a torn tail, and one damaged copy");
    assert_eq!(catalog.len(), 3);
    let error = catalog.create(&[("four", NONE)]).expect_err("it is read");
    assert!(matches!(error, CatalogError::ReadOnly), "{error}");
    assert_eq!(catalog.create(&[("one", NONE)]).expect("it exists"), [id(1)]);
    fs::remove_file(&place.files[1]).expect("it is there");
    fs::write(&place.files[0], &sound[0]).expect("it can be written");
    assert_eq!(place.open(false).expect("one is whole").len(), 3);
    assert!(place.bytes_of_a() == sound[0] && before[0] != sound[0]);
    assert_eq!(place.names(), ["streams.a"]);
}

impl Place {
    fn bytes_of_a(&self) -> Vec<u8> {
        fs::read(&self.files[0]).expect("it is there")
    }
}

#[test]
fn a_creation_that_broke_off_is_not_in_the_way() {
    let place = Place::new();
    fs::write(place.root.path().join("streams.a.new"), [1; 1000]).expect("it can be written");
    let mut catalog = place.open(true).expect("nothing is there");
    assert_eq!(catalog.len(), 0);
    catalog.create(&[("one", NONE)]).expect("the disk takes it");
    assert_eq!(place.names(), ["streams.a", "streams.b"]);
    // Broken off between the two names.
    fs::rename(&place.files[1], place.root.path().join("streams.b.new")).expect("it is there");
    assert_eq!(place.open(true).expect("one is whole").len(), 1);
    assert_eq!(place.names(), ["streams.a", "streams.b"]);
}

#[test]
fn a_directory_that_takes_no_file_leaves_none() {
    let place = Place::new();
    // In the way of the second file, where even root cannot write.
    fs::create_dir(place.root.path().join("streams.b.new")).expect("it can be made");
    let mut catalog = place.open(true).expect("nothing is there");
    let error = catalog.create(&[("one", NONE)]).expect_err("there is a directory");
    assert!(error.to_string().contains("streams.b.new"), "{error}");
    assert_eq!(catalog.len(), 0);
    assert_eq!(place.names(), ["streams.b.new"]);
}
