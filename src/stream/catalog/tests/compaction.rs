//! The catalog without positions that have been replaced: it says the same, whatever a power loss,
//! an error or damage makes of the files, and it stays small.

use super::medium::{Fault, SharedDisk};
use super::steps::{after, break_off_repairs, go_on, open, open_image};
use super::*;
use crate::error::CatalogError;
use crate::stream::catalog::Catalog;

/// A catalog with positions that have been replaced.
fn replaced() -> (SharedDisk, Catalog<SharedDisk>) {
    let (disk, mut catalog) = after(4);
    for lsn in [4096, 12_288, 16_384, 20_480] {
        let positions = [(id(1), 3, Lsn::new(lsn))];
        catalog.record_positions(&positions, Lsn::ZERO).expect("the disk takes it");
    }
    (disk, catalog)
}

#[test]
fn it_says_the_same_in_fewer_bytes_and_goes_on() {
    let (disk, mut catalog) = replaced();
    let (want, before) = (contents(&catalog.streams), disk.borrow().cached());
    catalog.compact(Lsn::new(20_481)).expect("the disk takes it");
    let now = disk.borrow().cached();
    assert_eq!(now[0], now[1]);
    let [len, before] = [&now, &before].map(|files| files[0].as_ref().expect("there").len());
    // Six positions, of which one is left.
    assert_eq!(len, before - 5 * 32);
    assert_eq!(contents(&catalog.streams), want);
    go_on(&now, &want);
    let position = [(id(1), 4, Lsn::new(24_576))];
    catalog.record_positions(&position, Lsn::ZERO).expect("the disk takes it");
    let again = open(&disk).expect("it is whole");
    assert_eq!(again.position(id(1)), Some((4, Lsn::new(24_576))));
}

#[test]
fn a_power_loss_at_any_step_changes_nothing() {
    let mut images = 0;
    for step in 0.. {
        let (disk, mut catalog) = replaced();
        let want = contents(&catalog.streams);
        let began = disk.borrow().steps;
        disk.borrow_mut().plan(step, Fault::Crash);
        let _ = catalog.compact(Lsn::new(20_481));
        let steps = disk.borrow().steps - began;
        disk.borrow_mut().crash();
        for image in disk.borrow().images() {
            assert_eq!(open_image(&image), want, "step {step}");
            break_off_repairs(&image, &want);
            go_on(&image, &want);
            images += 1;
        }
        // The process alone: what is in the cache is what the next one finds.
        let cached = disk.borrow().cached();
        assert_eq!(open_image(&cached), want, "step {step}");
        if steps == step {
            assert_eq!(step, 7, "two files written and synced, two names given, and synced");
            break;
        }
    }
    assert!(images >= 12, "{images}");
}

#[test]
fn a_step_that_fails_loses_nothing() {
    for (step, is_poisoned) in (0..7).map(|step| (step, step >= 4)) {
        let (disk, mut catalog) = replaced();
        let (want, before) = (contents(&catalog.streams), disk.borrow().cached());
        disk.borrow_mut().plan(step, Fault::Error);
        let compacted = catalog.compact(Lsn::new(20_481));
        assert_eq!(compacted.is_err(), is_poisoned, "step {step}");
        assert_eq!(contents(&catalog.streams), want);
        let created = catalog.create(&[("and one more", NONE)]);
        if is_poisoned {
            assert!(matches!(created, Err(CatalogError::Poisoned(_))), "step {step}");
            let again = open(&disk).expect("one of them is whole");
            assert_eq!(contents(&again.streams), want);
        } else {
            created.expect("nothing is in its way");
            let now = disk.borrow().cached();
            for side in 0..2 {
                let [now, before] = [&now, &before].map(|files| files[side].as_ref());
                let before = before.expect("it is there");
                assert!(now.expect("it is there").starts_with(before), "step {step}");
            }
        }
        disk.borrow_mut().crash();
        for image in disk.borrow().images() {
            let found = open_image(&image);
            assert!(found.starts_with(&want) && found.len() <= want.len() + 1, "step {step}");
        }
    }
}

/// Between the two renames the files are of two generations; damage to either is repaired from the
/// other, or refused.
#[test]
fn damage_between_the_two_names_is_repaired_or_refused() {
    let (disk, mut catalog) = replaced();
    let want = contents(&catalog.streams);
    let old = disk.borrow().cached()[1].clone().expect("it is there");
    catalog.compact(Lsn::new(20_481)).expect("the disk takes it");
    let new = disk.borrow().cached()[0].clone().expect("it is there");
    let mut repaired = 0;
    for (files, side) in [([&new, &old], 0), ([&new, &old], 1)] {
        for at in 0..files[side].len() {
            let mut files = files.map(Clone::clone);
            files[side][at] ^= 4;
            if let Ok(decision) = decide::read(&files[0], &files[1], &LOG_ID) {
                assert_eq!(contents(&decision.streams), want, "byte {at} of {side}");
                repaired += 1;
            }
        }
    }
    assert!(repaired > new.len() + old.len() - 2 * HEADER_LEN - 1, "{repaired}");
}

/// What an epoch that begins anywhere from `sure` on gets back is still there.
#[test]
fn the_positions_that_may_be_needed_are_kept() {
    let mut state = 7_u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (state >> 33) % bound
    };
    for _ in 0..500 {
        let mut script = Script::new();
        script.add(|addition| (1..4).for_each(|id| addition.created(id, 1, &format!("{id}"))));
        for _ in 0..below(20) {
            script.add(|it| it.position(1 + below(3) as u32, 1, Lsn::new(below(12) * 16)));
        }
        let sure = Lsn::new(below(14) * 16);
        let (compacted, superseded) =
            decide::compacted(&script.file, &LOG_ID, sure).expect("it is whole");
        for end in (0..200).map(Lsn::new).filter(|end| *end >= sure) {
            let position = |(id, (epoch, lsn)): (u32, (u64, Lsn))| {
                (lsn != Lsn::ZERO).then_some((id, epoch, lsn))
            };
            let [before, after] = [&script.file, &compacted].map(|image| {
                let found = decide::positions_below(image, end).into_iter();
                found.filter_map(position).collect::<std::collections::BTreeSet<_>>()
            });
            assert_eq!(before, after, "{end} of {sure}");
        }
        let (_, found) = read(&compacted, &compacted).expect("it is whole");
        assert_eq!(found, read(&script.file, &script.file).expect("it is whole").1);
        assert!(superseded <= compacted.len() && compacted.len() <= script.file.len());
    }
}

#[test]
fn a_damaged_image_is_not_compacted() {
    let script = Script::sample();
    for at in HEADER_LEN..script.file.len() {
        let mut file = script.file.clone();
        file[at] ^= 1;
        assert_eq!(decide::compacted(&file, &LOG_ID, Lsn::ZERO), None);
    }
}
