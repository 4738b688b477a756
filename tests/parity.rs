//! Parity: what it heals, what it does not and says so, and that nothing depends on it.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{
    DATA_OFFSET, MODES, Place, SEGMENT, check_numbered, numbered, read_all, small, wait_until,
};
use kaelix_wal::inspect::Observer;
use kaelix_wal::repair::{Mode, Original, RepairError, RepairPlan};
use kaelix_wal::verify::{Verdict, Verification, Verifier};
use kaelix_wal::{Geometry, Lsn, OnFull, Options, Persistence, Position, Verify, Wal};

const PAGE: u64 = 4096;
/// What is protected of the smallest segment; the rest is the footer's.
const PAGES: u64 = SEGMENT / PAGE - 1;
/// The parity file of the smallest segments: a table of one page, and one page of parity.
const AREA: u64 = 2 * PAGE;

type Records = Vec<(Lsn, Vec<u8>)>;

fn parity() -> Options {
    Options::new().parity(true).on_full(OnFull::Fail)
}

/// Appends until `segments` are sealed, and a little more; what the log then holds.
fn fill(wal: &Wal, segments: u64) -> Records {
    let mut number = 0;
    while wal.watermarks().reserved.get() < segments * wal.geometry().segment_size() + 3000 {
        wal.append(&numbered(0, number, 700 + number as usize % 300)).expect("there is room");
        number += 1;
    }
    wal.sync().expect("the disk takes it");
    read_all(wal, Position::Oldest)
}

/// A closed log of this geometry with so many sealed segments, all protected.
fn protected(place: &Place, geometry: Geometry, segments: u64) -> Records {
    let wal = Wal::create(&place.path, geometry, parity()).expect("it is new");
    let records = fill(&wal, segments);
    assert_eq!(wal.sync_parity().expect("the disk takes it"), segments);
    wal.close().expect("nothing is open");
    records
}

fn page_at(sequence: u64, page: u64) -> u64 {
    DATA_OFFSET + sequence * SEGMENT + page * PAGE
}

fn change(path: &Path, offset: u64, change: impl FnOnce(&mut [u8])) {
    let file = fs::File::options().read(true).write(true).open(path).expect("it is there");
    let mut page = vec![0; PAGE as usize];
    file.read_exact_at(&mut page, offset).expect("it can be read");
    let before = page.clone();
    change(&mut page);
    assert!(page != before, "nothing was damaged");
    file.write_all_at(&page, offset).expect("it can be written");
}

fn flip(place: &Place, offset: u64) {
    change(&place.ring(), offset, |page| page[777] ^= 0x20);
}

fn verify(place: &Place) -> Verification {
    Verifier::new(&place.path).run().expect("it can be read")
}

fn plan(place: &Place, mode: Mode) -> Result<RepairPlan, RepairError> {
    RepairPlan::new(&place.path, mode)
}

/// Repairs in this mode, and nothing is lost.
fn heals(place: &Place, mode: Mode, records: &Records, pages: &[u64]) {
    let found = verify(place);
    assert_eq!(found.verdict(), Verdict::Corrupt, "{found}");
    assert!(found.is_healable, "{found}");
    let rebuilt: Vec<u64> = found.parity.iter().flat_map(|it| it.rebuilt.clone()).collect();
    assert_eq!(rebuilt, pages, "{found}");
    let text = found.to_string();
    for page in pages {
        assert!(text.contains(&format!("the page at file offset {page} of segment")), "{text}");
    }
    let before = fs::read(place.ring()).expect("it can be read");
    let plan = plan(place, mode).expect("it can be planned");
    assert!(plan.is_needed() && plan.losses().next().is_none(), "{plan:?}");
    assert_eq!((plan.parity(), plan.records()), (&found.parity[..], records.len() as u64));
    assert!(fs::read(place.ring()).expect("it is there") == before, "a plan changes nothing");
    let repaired = plan.apply(Original::Keep).expect("the disk takes it");
    let original = repaired.original.expect("it was kept");
    assert!(fs::read(&original).expect("it is there") == before);
    fs::remove_file(original).expect("it is there");
    is_whole(place, records);
}

fn is_whole(place: &Place, records: &Records) {
    assert_eq!(verify(place).verdict(), Verdict::Sound);
    let wal = place.open(Options::new().verify(Verify::Full));
    assert!(read_all(&wal, Position::Oldest) == *records);
    wal.close().expect("nothing is open");
}

/// No page is healed, for this reason, and what is left is saved as without parity.
fn does_not_heal(place: &Place, reason: &str) {
    let found = verify(place);
    assert!(!found.is_healable && found.verdict() == Verdict::Corrupt, "{found}");
    let [segment] = &found.parity[..] else { panic!("{found}") };
    assert!(segment.rebuilt.is_empty(), "{found}");
    assert!(segment.reason.is_some_and(|it| it.contains(reason)), "{found}");
    let refused = plan(place, Mode::Heal).expect_err("something is lost");
    assert!(matches!(&refused, RepairError::NotHealed { .. }), "{refused}");
    assert!(refused.to_string().contains(reason), "{refused}");
    let salvage = plan(place, Mode::Salvage).expect("it can be planned");
    assert!(salvage.losses().next().is_some());
}

/// Copies a log's files to a new place.
fn copy(from: &Place) -> Place {
    let to = Place::new();
    fs::create_dir(&to.path).expect("it is new");
    for name in ["ring", "parity"] {
        fs::copy(from.path.join(name), to.path.join(name)).expect("there is room");
    }
    to
}

/// Each protected page of a segment, damaged in each of several ways.
#[test]
fn any_one_page_of_a_sealed_segment_is_healed() {
    let place = Place::new();
    let records = protected(&place, small(), 3);
    for page in 0..PAGES {
        for way in 0..4 {
            let damaged = copy(&place);
            let at = page_at(1, page);
            let other = page_at(2, (page + 3) % PAGES);
            let mut swapped = vec![0; PAGE as usize];
            let ring = fs::File::open(damaged.ring()).expect("it is there");
            ring.read_exact_at(&mut swapped, other).expect("it can be read");
            change(&damaged.ring(), at, |bytes| match way {
                // The header of the segment or of records.
                0 => bytes[..64].iter_mut().for_each(|byte| *byte ^= 0xFF),
                1 => bytes.fill(0),
                2 => bytes.fill(0xA5),
                _ => bytes.copy_from_slice(&swapped),
            });
            let mode = [Mode::Heal, Mode::Salvage, Mode::Truncate][(page + way) as usize % 3];
            heals(&damaged, mode, &records, &[at]);
        }
    }
}

#[test]
fn every_sealed_segment_can_be_healed_at_once() {
    let place = Place::new();
    let records = protected(&place, small(), 3);
    let pages = [page_at(0, 4), page_at(1, 0), page_at(2, 14)];
    for page in pages {
        change(&place.ring(), page, |bytes| bytes.fill(0));
    }
    heals(&place, Mode::Heal, &records, &pages);
    // The repaired log is protected as before: its footers are what they were.
    assert_eq!(verify(&place).protected_segments, 3);
    flip(&place, page_at(1, 7));
    heals(&place, Mode::Heal, &records, &[page_at(1, 7)]);
}

/// Neighbours are in different groups; two of one group are not healed, and those of the other
/// groups are.
#[test]
fn a_page_of_each_group_is_healed_and_two_of_one_are_not() {
    let place = Place::new();
    let size = 512 << 10;
    let records = protected(&place, Geometry::new(4 * size, size).expect("in bounds"), 2);
    let page_at = |page| DATA_OFFSET + size + page * PAGE;
    let neighbours = copy(&place);
    let pages = [page_at(60), page_at(61)];
    for page in pages {
        change(&neighbours.ring(), page, |bytes| bytes.fill(0));
    }
    heals(&neighbours, Mode::Heal, &records, &pages);

    let both = copy(&place);
    for page in [60, 62] {
        change(&both.ring(), page_at(page), |bytes| bytes.fill(0));
    }
    does_not_heal(&both, "more than one page of a group");
    assert_eq!(verify(&both).parity[0].lost, [page_at(60), page_at(62)]);

    // One more in the other group: it is put back, and no more is lost than without it.
    let salvage = |place: &Place| plan(place, Mode::Salvage).expect("it can be planned");
    let left = salvage(&both).records();
    assert!(left < records.len() as u64);
    for page in [60, 62, 101] {
        change(&place.ring(), page_at(page), |bytes| bytes.fill(0));
    }
    let found = verify(&place);
    assert!(!found.is_healable);
    assert_eq!(found.parity[0].rebuilt, [page_at(101)]);
    assert!(matches!(plan(&place, Mode::Heal), Err(RepairError::NotHealed { .. })));
    let repaired = salvage(&place).apply(Original::Keep).expect("the disk takes it");
    assert_eq!(repaired.records, left);
    assert_eq!(verify(&place).verdict(), Verdict::Salvaged);
}

type Damage = &'static dyn Fn(&Place);

/// The parity file.
fn file(place: &Place) -> PathBuf {
    place.path.join("parity")
}

/// What is damaged of the parity file, or torn by a crash, heals nothing and does no harm.
#[test]
fn damaged_parity_heals_nothing_and_says_so() {
    let place = Place::new();
    let records = protected(&place, small(), 3);
    const TABLE: u64 = AREA;
    const SUMS: u64 = AREA + PAGE;
    let cases: [(&str, Damage); 6] = [
        ("the table is damaged", &|place| change(&file(place), TABLE, |bytes| bytes[70] ^= 1)),
        ("there is no table", &|place| change(&file(place), TABLE, |bytes| bytes.fill(0))),
        ("page of parity is damaged", &|place| change(&file(place), SUMS, |bytes| bytes[9] ^= 1)),
        ("another segment", &|place| {
            let bytes = fs::read(file(place)).expect("it is there");
            change(&file(place), TABLE, |page| page.copy_from_slice(&bytes[..PAGE as usize]));
        }),
        // The file lost its end.
        ("there is no table", &|place| {
            let file = fs::File::options().write(true).open(file(place)).expect("it is there");
            file.set_len(TABLE).expect("it can be cut");
        }),
        // Half of a table, behind which the old one stands.
        ("the table is damaged", &|place| {
            change(&file(place), TABLE, |bytes| bytes[64..].fill(0x77));
        }),
    ];
    for (reason, damage) in cases {
        let damaged = copy(&place);
        damage(&damaged);
        // By itself it is nobody's concern,
        let found = verify(&damaged);
        assert_eq!((found.verdict(), found.parity.len()), (Verdict::Sound, 0), "{found}");
        assert!(plan(&damaged, Mode::Heal).is_ok_and(|plan| !plan.is_needed()));
        is_whole(&damaged, &records);
        // and an open with the option makes it anew, but for a page that nobody looks at.
        let damaged = copy(&place);
        damage(&damaged);
        flip(&damaged, page_at(1, 5));
        does_not_heal(&damaged, reason);
    }
    let removed = copy(&place);
    fs::remove_file(file(&removed)).expect("it is there");
    flip(&removed, page_at(1, 5));
    let found = verify(&removed);
    assert!(!found.is_healable && found.parity.is_empty());
    let refused = plan(&removed, Mode::Heal).expect_err("something is lost").to_string();
    assert!(refused.contains("nobody has protected it"), "{refused}");
}

/// What is damaged in the active segment, or in the footer of one that parity must agree with, is
/// not healed.
#[test]
fn what_is_not_sealed_or_has_no_footer_is_not_healed() {
    let place = Place::new();
    let records = protected(&place, small(), 2);
    let active = copy(&place);
    let (lsn, _) = records[records.len() - 2];
    change(&active.ring(), (DATA_OFFSET + lsn.get()) / PAGE * PAGE, |page| page.fill(0));
    does_not_heal(&active, "it has no footer");
    flip(&place, page_at(1, 3));
    change(&place.ring(), page_at(1, PAGES), |page| page.fill(0));
    does_not_heal(&place, "it has no footer");
}

/// The ring has gone round since: the table of the lap before gives nothing back.
#[test]
fn parity_of_an_earlier_lap_is_not_used() {
    let place = Place::new();
    protected(&place, small(), 3);
    let stale = fs::read(place.path.join("parity")).expect("it is there");
    let wal = place.open(parity());
    let mut number = 0;
    while wal.watermarks().reserved.get() < 7 * SEGMENT + 3000 {
        let lsn = wal.append_durable(&numbered(1, number, 700)).expect("there is room");
        if lsn.get() < 5 * SEGMENT {
            let end = wal.reader(Position::Newest).expect("it can be read").position();
            wal.checkpoint(end).expect("a boundary");
        }
        number += 1;
    }
    wal.close().expect("nothing is open");
    drop(wal);
    fs::write(place.path.join("parity"), stale).expect("there is room");
    let found = verify(&place);
    assert_eq!((found.verdict(), found.protected_segments), (Verdict::Sound, 0), "{found}");
    flip(&place, page_at(6 % 4, 5));
    does_not_heal(&place, "another segment");
}

/// A log was cut within a segment that had been protected, and filled again: the old table has the
/// right place and the right log, and even most of the right pages, and gives nothing back.
#[test]
fn parity_of_what_was_cut_off_does_not_come_back() {
    let place = Place::new();
    protected(&place, small(), 3);
    for page in [13, 14] {
        change(&place.ring(), page_at(1, page), |bytes| bytes.fill(0));
    }
    let cut = plan(&place, Mode::Truncate).expect("it can be planned");
    cut.apply(Original::Discard).expect("the disk takes it");
    let wal = place.open(Options::new());
    assert!(wal.watermarks().reserved.get() / SEGMENT == 1, "it ends within the segment");
    fill(&wal, 3);
    wal.close().expect("nothing is open");
    drop(wal);
    let found = verify(&place);
    assert_eq!((found.footed_segments, found.protected_segments), (3, 1), "{found}");
    for page in [0, 5, 13, 14] {
        let damaged = copy(&place);
        flip(&damaged, page_at(1, page));
        does_not_heal(&damaged, "other contents");
    }
}

/// A repair that is interrupted, wherever, is made again.
#[test]
fn an_interrupted_repair_heals_the_next_time() {
    let place = Place::new();
    let records = protected(&place, small(), 3);
    flip(&place, page_at(1, 5));
    let ring = fs::read(place.ring()).expect("it is there");
    let parity = fs::read(place.path.join("parity")).expect("it is there");
    drop(plan(&place, Mode::Heal).expect("it can be planned"));
    fs::write(place.path.join("ring.repair"), &ring[..ring.len() / 2]).expect("there is room");
    fs::hard_link(place.ring(), place.path.join("ring.damaged")).expect("a second name");
    heals(&place, Mode::Heal, &records, &[page_at(1, 5)]);
    assert!(fs::read(place.path.join("parity")).expect("it is there") == parity);
}

/// The option protects what a log has sealed without it; without the option, nothing is touched.
#[test]
fn an_existing_log_is_protected_from_the_next_open_on() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let records = fill(&wal, 3);
    assert_eq!(wal.sync_parity().expect("it has nothing to do"), 0);
    wal.close().expect("nothing is open");
    drop(wal);
    assert!(!place.path.join("parity").exists());
    let wal = place.open(parity());
    wait_until("all is protected", || wal.metrics().segments_protected == 3);
    assert_eq!(wal.sync_parity().expect("the disk takes it"), 3);
    wal.close().expect("nothing is open");
    drop(wal);
    let mode = fs::metadata(place.path.join("parity")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(place.path.join("parity")).expect("it is there");
    // What is protected is not written again.
    let wal = place.open(parity());
    assert_eq!(wal.sync_parity().expect("it is all there"), 3);
    assert_eq!(wal.metrics().segments_protected, 0);
    wal.close().expect("nothing is open");
    drop(wal);
    drop(place.open(Options::new()));
    assert!(fs::read(place.path.join("parity")).expect("it is there") == before);
    flip(&place, page_at(0, 5));
    heals(&place, Mode::Heal, &records, &[page_at(0, 5)]);
}

/// Each segment is protected soon after it has become durable, without being asked for.
#[test]
fn the_keeper_comes_when_a_segment_is_durable() {
    let place = Place::new();
    let wal = place.create(parity());
    for segments in 1..4 {
        fill(&wal, segments);
        let protected = || wal.metrics().segments_protected == segments;
        wait_until("the segment is protected", protected);
    }
    wal.close().expect("nothing is open");
}

/// What is sealed in a run is protected by its close, without being asked for.
#[test]
fn a_close_leaves_what_was_sealed_protected() {
    let place = Place::new();
    let wal = place.create(parity());
    fill(&wal, 3);
    wal.close().expect("nothing is open");
    assert_eq!(wal.metrics().segments_protected, 3);
    drop(wal);
    let found = verify(&place);
    assert_eq!(found.protected_segments, 3, "{found}");
    assert!(Observer::open(&place.path).is_ok());
}

/// Where footers are left to the flusher, and where nothing is durable before somebody waits for it
/// or the log is closed.
#[test]
fn every_mode_is_protected() {
    let mut places: Vec<_> = MODES.map(|mode| (Place::new(), parity().durability(mode))).into();
    let memory = parity().persistence(Persistence::PersistentMemory);
    places.extend(Place::on_tmpfs().map(|place| (place, memory)));
    for (place, options) in places {
        let wal = place.create(options);
        let mut number = 0;
        while wal.watermarks().reserved.get() < 3 * SEGMENT {
            wal.append(&numbered(0, number, 700)).expect("there is room");
            number += 1;
        }
        let records = read_all(&wal, Position::Oldest);
        wal.close().expect("nothing is open");
        drop(wal);
        assert_eq!(verify(&place).protected_segments, 3, "{options:?}");
        flip(&place, page_at(2, 8));
        heals(&place, Mode::Heal, &records, &[page_at(2, 8)]);
    }
}

/// Parity of damaged pages would keep the damage.
#[test]
fn a_damaged_segment_is_never_protected() {
    let place = Place::new();
    let wal = place.create(Options::new());
    fill(&wal, 3);
    wal.close().expect("nothing is open");
    drop(wal);
    flip(&place, page_at(1, 5));
    let wal = place.open(parity());
    assert_eq!(wal.sync_parity().expect("the disk takes it"), 2);
    let metrics = wal.metrics();
    assert_eq!((metrics.segments_protected, metrics.parity_failures), (2, 1));
    wal.close().expect("nothing is open");
    drop(wal);
    does_not_heal(&place, "there is no table");
}

/// A damaged segment that was protected keeps the parity that it has, through any number of opens.
#[test]
fn parity_outlives_opens_of_a_damaged_log() {
    let place = Place::new();
    let records = protected(&place, small(), 3);
    flip(&place, page_at(1, 5));
    for _ in 0..2 {
        let wal = place.open(parity());
        assert_eq!(wal.sync_parity().expect("it is all there"), 3);
        wal.close().expect("nothing is open");
    }
    heals(&place, Mode::Heal, &records, &[page_at(1, 5)]);
}

/// Whatever is wrong with the file, the log goes on, says so, and protects again once it can.
#[test]
fn a_file_that_cannot_be_written_does_not_disturb_the_log() {
    for is_link in [false, true] {
        let place = Place::new();
        let wal = place.create(parity());
        let file = place.path.join("parity");
        // Before there is a segment to protect: what is not there is made at any time.
        match is_link {
            true => symlink(place.beside("elsewhere"), &file).expect("nothing is there yet"),
            false => fs::create_dir(&file).expect("nothing is there yet"),
        }
        let records = fill(&wal, 2);
        let error = wal.sync_parity().expect_err("it is no regular file").to_string();
        assert!(error.contains("parity"), "{error}");
        assert!(!place.beside("elsewhere").exists());
        wal.append_durable(b"it goes on").expect("the disk takes it");
        assert!(wal.metrics().parity_failures >= 1);
        match is_link {
            true => fs::remove_file(&file).expect("it is there"),
            false => fs::remove_dir(&file).expect("it is empty"),
        }
        assert_eq!(wal.sync_parity().expect("the disk takes it"), 2);
        for (lsn, payload) in &records {
            check_numbered(*lsn, payload);
        }
        wal.close().expect("nothing is open");
    }
}

/// Neither is a log taken for damaged whose parity file cannot be opened, nor is one repaired that
/// the file might heal.
#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let place = Place::new();
    let records = protected(&place, small(), 3);
    let (file, aside) = (place.path.join("parity"), place.beside("parity"));
    fs::rename(&file, &aside).expect("it is there");
    fs::create_dir(&file).expect("nothing is there");
    let found = verify(&place);
    assert_eq!(found.verdict(), Verdict::Sound, "{found}");
    let [finding] = &found.files[..] else { panic!("{found}") };
    assert_eq!(finding.path, file);
    assert!(finding.reason.contains("the log does not depend on it"), "{found}");
    flip(&place, page_at(1, 5));
    assert_eq!(verify(&place).verdict(), Verdict::Corrupt);
    for mode in [Mode::Heal, Mode::Salvage, Mode::Truncate] {
        let error = plan(&place, mode).expect_err("it may heal").to_string();
        assert!(error.contains(&*file.to_string_lossy()), "{error}");
    }
    fs::remove_dir(&file).expect("it is empty");
    fs::rename(&aside, &file).expect("it is there");
    heals(&place, Mode::Heal, &records, &[page_at(1, 5)]);
}

/// A ring of another size keeps what its segments have where they still lie in the same place, and
/// the rest is made again; a backup has none.
#[test]
fn copies_are_protected_by_their_next_open() {
    let place = Place::new();
    let records = protected(&place, small(), 3);
    let to = place.beside("backup");
    let observer = Observer::open(&place.path).expect("it is there");
    observer.backup(&to).expect("there is room");
    assert!(!to.join("parity").exists());
    for size in [9 * SEGMENT, 5 * SEGMENT] {
        Wal::resize(&place.path, size).expect("it fits");
        let wal = place.open(parity());
        assert_eq!(wal.sync_parity().expect("the disk takes it"), 3);
        wal.close().expect("nothing is open");
        drop(wal);
        let len = fs::metadata(place.path.join("parity")).expect("it is there").len();
        assert!(len <= size / SEGMENT * AREA, "{len}");
        flip(&place, page_at(2, 5));
        heals(&place, Mode::Heal, &records, &[page_at(2, 5)]);
    }
}

/// While records are appended as fast as it goes and the ring goes round, each table that counts is
/// of what is there.
#[test]
fn a_keeper_that_lags_protects_what_is_left() {
    let place = Place::new();
    let wal = place.create(Options::new().parity(true).on_full(OnFull::Overwrite));
    for number in 0..20_000 {
        wal.append(&numbered(0, number, 500)).expect("the oldest makes room");
    }
    wal.sync().expect("the disk takes it");
    let protected = wal.sync_parity().expect("the disk takes it");
    assert!(protected >= 1);
    assert_eq!(wal.metrics().parity_failures, 0);
    let newest = wal.watermarks().durable.get() / SEGMENT - 1;
    wal.close().expect("nothing is open");
    drop(wal);
    // Until then the janitor may have made room.
    let observer = Observer::open(&place.path).expect("it is there");
    let mut cursor = observer.cursor(Position::Oldest).expect("nothing is trimmed");
    let mut records = Vec::new();
    while let Some(record) = cursor.next().expect("every record verifies") {
        records.push((record.lsn(), record.payload().to_vec()));
    }
    let page = page_at(newest % 4, 9);
    change(&place.ring(), page, |bytes| bytes.fill(1));
    heals(&place, Mode::Salvage, &records, &[page]);
}
