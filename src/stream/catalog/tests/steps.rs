//! The protocol, broken off at each step, and failed at each step.

use super::medium::{Fault, Image, SharedDisk, disk};
use super::*;
use crate::stream::catalog::{Catalog, CatalogError};

pub(super) fn open(disk: &SharedDisk) -> Result<Catalog<SharedDisk>, CatalogError> {
    Catalog::open_in(disk.clone(), &LOG_ID, true)
}

/// One call that adds something.
enum Call {
    Create(Vec<(String, StreamFlags)>),
    Record(Vec<(u32, u64, u64)>),
}

/// Calls that cross sectors: one stream, 30 of them, positions, two more.
fn calls() -> Vec<Call> {
    let name = |number: u32| (format!("stream number {number}"), NONE);
    vec![
        Call::Create(vec![("first".to_owned(), VERSIONED)]),
        Call::Create((2..32).map(name).collect()),
        Call::Record(vec![(1, 3, 4096), (1, 3, 8192)]),
        Call::Create(vec![name(40), name(41)]),
    ]
}

fn make(catalog: &mut Catalog<SharedDisk>, call: &Call) -> Result<(), CatalogError> {
    match call {
        Call::Create(wanted) => {
            let wanted: Vec<_> = wanted.iter().map(|(name, flags)| (&**name, *flags)).collect();
            catalog.create(&wanted).map(drop)
        }
        Call::Record(positions) => {
            let positions: Vec<_> = positions
                .iter()
                .map(|(at, epoch, lsn)| (id(*at), *epoch, Lsn::new(*lsn)))
                .collect();
            catalog.record_positions(&positions, Lsn::ZERO)
        }
    }
}

/// What the catalog may hold after `done` calls, while the next was under way: at least the first,
/// at most the last.
fn expected(done: usize) -> Vec<Contents> {
    let mut contents: Contents = Vec::new();
    let mut states = Vec::new();
    for (index, call) in calls().iter().enumerate().take(done + 1) {
        if index == done {
            states.push(contents.clone());
        }
        match call {
            Call::Create(wanted) => {
                for (name, flags) in wanted {
                    contents.push((name.clone(), *flags, None));
                    states.push(contents.clone());
                }
            }
            Call::Record(positions) => {
                for (at, epoch, lsn) in positions {
                    contents[*at as usize - 1].2 = Some((*epoch, Lsn::new(*lsn)));
                    states.push(contents.clone());
                }
            }
        }
        if index < done {
            states.clear();
        }
    }
    if states.is_empty() {
        states.push(contents);
    }
    states
}

/// Makes the calls on a new disk until one fails; how many succeeded.
fn run(disk: &SharedDisk) -> usize {
    let mut catalog = open(disk).expect("nothing is there");
    calls().iter().take_while(|call| make(&mut catalog, call).is_ok()).count()
}

/// Opens what a power loss left: both files are the same then, and a second open finds the same.
pub(super) fn open_image(image: &Image) -> Contents {
    let disk = disk(image);
    let catalog = open(&disk).unwrap_or_else(|error| panic!("{error}"));
    let found = contents(&catalog.streams);
    drop(catalog);
    let cached = disk.borrow().cached();
    assert_eq!(cached[0], cached[1]);
    let steps = disk.borrow().steps;
    let again = open(&disk).expect("it was repaired");
    assert_eq!(contents(&again.streams), found);
    let repaired = disk.borrow().steps - steps;
    // Two files and their directory are synced.
    assert!(repaired <= 3, "a second open repairs again: {repaired} steps");
    found
}

/// Every image that a repair which breaks off leaves is opened with the same answer.
pub(super) fn break_off_repairs(image: &Image, want: &Contents) {
    for step in 0.. {
        let disk = disk(image);
        disk.borrow_mut().plan(step, Fault::Crash);
        if open(&disk).is_ok() {
            break;
        }
        for image in disk.borrow().images() {
            assert_eq!(open_image(&image), *want, "a repair that broke off at step {step}");
        }
    }
}

/// Goes on with a catalog, and loses the power at each step of that.
pub(super) fn go_on(image: &Image, before: &Contents) {
    let mut added = before.clone();
    added.push(("and one more".to_owned(), NONE, None));
    for step in 0.. {
        let disk = disk(image);
        let mut catalog = open(&disk).expect("it was opened before");
        disk.borrow_mut().plan(step, Fault::Crash);
        let is_added = catalog.create(&[("and one more", NONE)]).is_ok();
        disk.borrow_mut().crash();
        for image in disk.borrow().images() {
            let found = open_image(&image);
            assert!(found == added || (!is_added && found == *before), "step {step}");
        }
        if is_added {
            break;
        }
    }
}

#[test]
fn a_power_loss_at_any_step_loses_nothing_acknowledged_and_invents_nothing() {
    let (mut images, mut step, mut broken_off) = (0, 0, 0);
    loop {
        let disk = disk(&[None, None]);
        disk.borrow_mut().plan(step, Fault::Crash);
        let done = run(&disk);
        let expected = expected(done);
        disk.borrow_mut().crash();
        for image in disk.borrow().images() {
            let found = open_image(&image);
            assert!(expected.contains(&found), "step {step}: {} streams", found.len());
            if images % 5 == 0 {
                break_off_repairs(&image, &found);
                go_on(&image, &found);
                broken_off += 1;
            }
            images += 1;
        }
        step += 1;
        if done == calls().len() {
            break;
        }
    }
    assert!(step > 15 && images > 100 && broken_off > 20, "{step}, {images}, {broken_off}");
}

/// The disk after `done` calls.
pub(super) fn after(done: usize) -> (SharedDisk, Catalog<SharedDisk>) {
    let disk = disk(&[None, None]);
    let mut catalog = open(&disk).expect("nothing is there");
    for call in &calls()[..done] {
        make(&mut catalog, call).expect("the disk takes it");
    }
    (disk, catalog)
}

#[test]
fn a_step_that_fails_changes_nothing() {
    for done in 0..calls().len() {
        for step in 0.. {
            let (disk, mut catalog) = after(done);
            let (before, cached) = (contents(&catalog.streams), disk.borrow().cached());
            disk.borrow_mut().plan(step, Fault::Error);
            let Err(error) = make(&mut catalog, &calls()[done]) else {
                assert!(step >= 4, "{done}: {step} steps");
                break;
            };
            assert_eq!(contents(&catalog.streams), before);
            assert_eq!(disk.borrow().cached(), cached, "call {done}, step {step}");
            // It is not in the way of the next, unless a sync failed.
            let is_sync = error.to_string().contains("cannot sync");
            let again = make(&mut catalog, &calls()[done]);
            match error {
                CatalogError::NotAdded(_) => assert!(!is_sync && again.is_ok(), "{again:?}"),
                CatalogError::Poisoned(_) => {
                    assert!(is_sync && matches!(again, Err(CatalogError::Poisoned(_))));
                    // Streams that exist go on working.
                    for (name, flags, _) in &before {
                        catalog.create(&[(name, *flags)]).expect("it exists");
                    }
                    assert_eq!(disk.borrow().cached(), cached);
                }
                other => panic!("{other}"),
            }
            let mut catalog = open(&disk).expect("it can be reopened");
            make(&mut catalog, &calls()[done]).expect("and goes on");
            assert_eq!(contents(&catalog.streams), expected(done + 1)[0]);
        }
    }
}

#[test]
fn an_addition_that_cannot_be_taken_back_poisons_the_catalog() {
    for done in 0..calls().len() {
        for step in 0.. {
            let (disk, mut catalog) = after(done);
            disk.borrow_mut().plan(step, Fault::Dead);
            let Err(error) = make(&mut catalog, &calls()[done]) else { break };
            assert!(matches!(error, CatalogError::Poisoned(_)), "{error}");
            assert_eq!(contents(&catalog.streams), expected(done)[0]);
            disk.borrow_mut().crash();
            for image in disk.borrow().images() {
                assert!(expected(done).contains(&open_image(&image)), "call {done}, step {step}");
            }
            // The same without a power loss.
            let cached = disk.borrow().cached();
            assert!(expected(done).contains(&open_image(&cached)), "call {done}, step {step}");
        }
    }
}

/// A taking back that is broken off by a power loss.
#[test]
fn a_power_loss_while_an_addition_is_taken_back_leaves_a_catalog() {
    for write in [0, 2] {
        for steps in 1..6 {
            let (disk, mut catalog) = after(1);
            // The first fault is a write's; the second comes while it is taken back.
            disk.borrow_mut().plan(write, Fault::Error);
            let undo = write + steps;
            disk.borrow_mut().plan_crash(undo);
            make(&mut catalog, &calls()[1]).expect_err("a write fails");
            disk.borrow_mut().crash();
            for image in disk.borrow().images() {
                assert!(expected(1).contains(&open_image(&image)), "step {undo}");
            }
        }
    }
}

#[test]
fn an_open_that_fails_to_repair_says_so_and_the_next_repairs() {
    let (disk, catalog) = after(4);
    let sound = disk.borrow().cached();
    let want = contents(&catalog.streams);
    for side in 0..2 {
        for missing in [false, true] {
            let mut image = sound.clone();
            match &mut image[side] {
                file if missing => *file = None,
                Some(bytes) => bytes[100] ^= 1,
                None => panic!("it is there"),
            }
            for step in 0.. {
                let disk = super::medium::disk(&image);
                disk.borrow_mut().plan(step, Fault::Error);
                let Err(error) = open(&disk) else {
                    assert!(step >= 3);
                    break;
                };
                assert!(error.to_string().starts_with("cannot "), "{error}");
                let catalog = open(&disk).expect("the next open repairs it");
                assert_eq!(contents(&catalog.streams), want);
                let cached = disk.borrow().cached();
                assert_eq!(cached, sound);
            }
        }
    }
}

/// A writer that is killed when a sync has failed leaves an addition in the cache that no later
/// sync writes. The next open finds it there; wherever that is broken off, what is on the disk is
/// a catalog.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_again() {
    for done in 1..calls().len() {
        let failed = || {
            let (disk, mut catalog) = after(done);
            // Its first step is to write to A, its second to sync that.
            disk.borrow_mut().plan(1, Fault::Dead);
            make(&mut catalog, &calls()[done]).expect_err("a sync fails");
            disk.borrow_mut().restart();
            disk
        };
        for step in 0.. {
            let disk = failed();
            disk.borrow_mut().plan(step, Fault::Crash);
            let opened = open(&disk).map(|catalog| contents(&catalog.streams));
            disk.borrow_mut().crash();
            for image in disk.borrow().images() {
                let found = open_image(&image);
                assert!(expected(done).contains(&found), "call {done}, step {step}");
                assert!(opened.as_ref().map_or(true, |opened| *opened == found));
            }
            if opened.is_ok() {
                assert!(step >= 5, "{step} steps");
                break;
            }
        }
    }
}

/// What a writer that was killed left in the page cache alone, names among it, is found, used, and
/// so made durable.
#[test]
fn what_an_open_finds_in_the_cache_outlives_a_power_loss() {
    let creation = (0..7).map(|step| (0, step));
    for (done, step) in creation.chain((0..4).map(|step| (1, step))) {
        let (disk, mut catalog) = after(done);
        disk.borrow_mut().plan(step, Fault::Crash);
        let is_added = make(&mut catalog, &calls()[done]).is_ok();
        assert!(!is_added);
        disk.borrow_mut().restart();
        let found = contents(&open(&disk).expect("one of them is whole").streams);
        disk.borrow_mut().crash();
        for image in disk.borrow().images() {
            assert_eq!(open_image(&image), found, "killed at step {step}");
        }
    }
}
