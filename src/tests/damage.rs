//! One damaged place, far from the records that it would hide: they are returned, or the log is
//! refused. Most of these were found by a fuzzer.

use super::{contents, head_of, kill, new_image, newest_checkpoint, open, tiny};
use crate::layout::CHECKPOINT_SLOT_OFFSETS;
use crate::region::Simulated;
use crate::simulation;
use crate::sync::Arc;
use crate::{Durability, OnFull, OpenError, Options, RecoveryOutcome, Wal};

/// A log without a flusher, so that no slot is written but by the test.
fn open_manual(disk: &Arc<Simulated>, number: u8) -> Wal {
    open(disk, number, manual()).expect("it opens")
}

fn manual() -> Options {
    Options::new().durability(Durability::None).on_full(OnFull::Fail)
}

fn append_durable(wal: &Wal, payload: &[u8]) {
    wal.append_durable(payload).expect("the disk takes it");
}

/// The image without the newest of its two slots.
fn without_newest_slot(mut image: Vec<u8>) -> Vec<u8> {
    let slot = CHECKPOINT_SLOT_OFFSETS[head_of(&image).slot] as usize;
    image[slot + 40] ^= 1;
    image
}

/// The image with the slots that `old` has.
fn with_slots_of(old: &[u8], mut image: Vec<u8>) -> Vec<u8> {
    for slot in CHECKPOINT_SLOT_OFFSETS.map(|offset| offset as usize) {
        image[slot..slot + 4096].copy_from_slice(&old[slot..slot + 4096]);
    }
    image
}

/// The record that opens an epoch names it for all that follow. Without it their evidence must
/// still count.
#[test]
fn a_damaged_opening_of_an_epoch_hides_no_evidence() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open_manual(&disk, 1);
    append_durable(&wal, b"of the first epoch");
    kill(wal);
    let disk = Simulated::new(disk.disk());
    let wal = open_manual(&disk, 2);
    append_durable(&wal, b"of the second");
    append_durable(&wal, b"and after its evidence");
    kill(wal);
    let sound = disk.disk();
    let opening = newest_checkpoint(&sound).epoch_start;
    for byte in 0..24 {
        let mut image = sound.clone();
        image[tiny(4).file_offset(opening) as usize + byte] ^= 0x10;
        match open(&Simulated::new(image), 3, Options::new()) {
            Err(OpenError::Corrupt { damage, .. }) => assert_eq!(damage.lsn, opening),
            other => panic!("damage at byte {byte} was not refused: {other:?}"),
        }
    }
}

/// The same where the evidence lies in later segments alone: behind the header that names the
/// epoch, or behind a header that is damaged as well.
#[test]
fn evidence_in_a_later_segment_counts() {
    let geometry = tiny(4);
    for damaged_header in [false, true] {
        let disk = Simulated::new(new_image(geometry));
        let wal = open_manual(&disk, 1);
        append_durable(&wal, b"of the first epoch");
        kill(wal);
        let disk = Simulated::new(disk.disk());
        let wal = open_manual(&disk, 2);
        let (_, offset) = geometry.split(wal.watermarks().reserved);
        wal.append(&vec![2; 4096 - offset as usize - 16]).expect("the rest of the segment");
        append_durable(&wal, b"of the next segment");
        append_durable(&wal, b"and after its evidence");
        kill(wal);
        let mut image = disk.disk();
        let opening = newest_checkpoint(&image).epoch_start;
        // No footer says it.
        let footer = geometry.footer_offset(0) as usize;
        image[footer..footer + 4096].fill(0);
        let header = geometry.segment_offset(1) as usize;
        image[header + 9] ^= u8::from(damaged_header);
        let damaged = if damaged_header { opening + 32 } else { opening };
        image[geometry.file_offset(damaged) as usize + 17] ^= 1;
        match open(&Simulated::new(image), 3, Options::new()) {
            Err(OpenError::Corrupt { damage, .. }) => assert_eq!(damage.lsn, damaged),
            other => panic!("the evidence was not seen, {damaged_header}: {other:?}"),
        }
    }
}

/// An old page comes back, whole, where the newest epoch begins: its records are of an older one,
/// and dead.
#[test]
fn an_old_page_behind_the_start_of_the_newest_epoch_stays_dead() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    let wal = open_manual(&disk, 1);
    append_durable(&wal, b"durable");
    let cut = wal.append(b"written back, and lost").expect("there is room");
    wal.append(b"the same").expect("there is room");
    kill(wal);
    let old = disk.cache();
    let page = geometry.segment_offset(0) as usize..geometry.footer_offset(0) as usize;
    let mut image = old.clone();
    image[geometry.file_offset(cut) as usize..page.end].fill(0);
    let disk = Simulated::new(image);
    let wal = simulation::open(&disk, 2, Options::new()).expect("it recovers");
    assert_eq!(wal.recovery_report().end, cut);
    wal.kill();
    let mut image = disk.disk();
    assert_eq!(newest_checkpoint(&image).epoch_start, cut);
    let opening = geometry.file_offset(cut) as usize;
    // Before the new epoch's first record is written, and behind it.
    for from in [opening, opening + 48] {
        image[from..page.end].copy_from_slice(&old[from..page.end]);
        let wal = open(&Simulated::new(image.clone()), 3, Options::new()).expect("a leftover");
        assert_eq!(contents(&wal), [b"durable"]);
    }
}

/// An old segment comes back, whole, between durable ones of a later epoch.
#[test]
fn an_old_segment_between_later_ones_is_refused() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    let wal = open_manual(&disk, 1);
    append_durable(&wal, b"durable");
    let cut = wal.append(&[1; 3000]).expect("there is room");
    for _ in 0..3 {
        wal.append(&[1; 1200]).expect("there is room");
    }
    kill(wal);
    // Of all this the kernel has written back the second segment alone.
    let second = geometry.segment_offset(1) as usize..geometry.segment_offset(2) as usize;
    disk.write_back(second.clone(), true);
    let old = disk.disk();
    let disk = Simulated::new(old.clone());
    let wal = open_manual(&disk, 2);
    assert!(wal.recovery_report().end < cut, "the cut takes the evidence in front of it too");
    while geometry.sequence(wal.watermarks().reserved) < 2 {
        append_durable(&wal, &[2; 1200]);
    }
    append_durable(&wal, &[2; 1200]);
    kill(wal);
    kill(open_manual(&disk, 3));
    let mut image = disk.disk();
    assert!(newest_checkpoint(&image).epoch_start > geometry.first_record(2));
    image[second.clone()].copy_from_slice(&old[second]);
    match open(&Simulated::new(image), 4, Options::new()) {
        Err(OpenError::Corrupt { damage, .. }) => {
            assert_eq!(damage.lsn, geometry.first_record(1));
            assert_eq!(damage.reason, "an older epoch's segment where a durable one was");
        }
        other => panic!("old records came back to life: {other:?}"),
    }
}

/// A clean mark is worth nothing once the log has been opened again, even if both slots that say so
/// were never written, as far as the disk knows.
#[test]
fn a_clean_mark_from_before_lost_slots_hides_nothing() {
    // Also where the next epoch begins in a segment of its own.
    for fill in [40, 4096 - 64 - 32 - 16] {
        let disk = Simulated::new(new_image(tiny(4)));
        let wal = open_manual(&disk, 1);
        append_durable(&wal, &vec![1; fill]);
        wal.close().expect("it closes");
        drop(wal);
        let closed = disk.disk();
        let wal = open_manual(&disk, 2);
        append_durable(&wal, &[2; 30]);
        append_durable(&wal, &[3; 30]);
        kill(wal);
        let disk = Simulated::new(with_slots_of(&closed, disk.disk()));
        let wal = open(&disk, 3, Options::new()).expect("old slots do");
        assert_eq!(contents(&wal), [vec![1; fill], vec![2; 30], vec![3; 30]]);
        assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::PowerLost);
    }
}

/// The same, where what would show the later epoch first is damaged too: its opening record, or the
/// header of the segment that it begins with. What lies further on shows it.
#[test]
fn a_clean_mark_hides_nothing_behind_a_damaged_beginning() {
    let geometry = tiny(4);
    for fill in [40, 4096 - 64 - 32 - 16] {
        let disk = Simulated::new(new_image(geometry));
        // Without a janitor, which might prepare the next segment for the first epoch.
        let wal = simulation::open(&disk, 1, manual()).expect("it opens");
        append_durable(&wal, &vec![1; fill]);
        wal.close().expect("it closes");
        drop(wal);
        let closed = disk.disk();
        let wal = open_manual(&disk, 2);
        while geometry.sequence(wal.watermarks().reserved) < 3 {
            append_durable(&wal, &[2; 1000]);
        }
        kill(wal);
        let begins = newest_checkpoint(&disk.disk()).epoch_start;
        let begins = geometry.normalize(begins);
        let damaged = match geometry.split(begins) {
            (sequence, 64) => geometry.segment_offset(sequence),
            _ => geometry.file_offset(begins),
        };
        let mut image = with_slots_of(&closed, disk.disk());
        image[damaged as usize + 9] ^= 1;
        match open(&Simulated::new(image), 3, Options::new()) {
            Err(OpenError::Corrupt { damage, .. }) => assert_eq!(damage.lsn, begins),
            other => panic!("durable records were given up, {fill}: {other:?}"),
        }
    }
}

/// A log that was closed in order says so, wherever it ends: also at the end of a segment, whether
/// or not the next one was prepared, and if all of it has been released.
#[test]
fn a_clean_end_is_reported_as_such() {
    let largest = 4096 - 64 - 16;
    for (fills, released) in [
        (vec![40], false),
        (vec![40], true),
        (vec![largest - 32, 40], false),
        (vec![largest - 32, largest], false),
    ] {
        let disk = Simulated::new(new_image(tiny(4)));
        let wal = open_manual(&disk, 1);
        for fill in &fills {
            wal.append(&vec![1; *fill]).expect("there is room");
        }
        wal.sync().expect("the disk takes it");
        if released {
            wal.checkpoint(wal.watermarks().published).expect("a boundary");
        }
        wal.close().expect("it closes");
        drop(wal);
        let wal = open(&disk, 2, Options::new()).expect("it opens");
        let report = wal.recovery_report();
        assert_eq!(report.outcome, RecoveryOutcome::Clean, "{fills:?}");
        assert_eq!(report.end_reason, "the end of a log that was closed in order", "{fills:?}");
    }
}

/// An epoch that was used is used once, whichever slot is lost: what a damaged header hides from
/// the next recovery would count as its own otherwise, if it came back.
#[test]
fn a_lost_slot_never_gives_an_epoch_away_twice() {
    let geometry = tiny(4);
    for slot in CHECKPOINT_SLOT_OFFSETS.map(|offset| offset as usize) {
        let disk = Simulated::new(new_image(geometry));
        let wal = open_manual(&disk, 1);
        append_durable(&wal, b"of the first epoch");
        kill(wal);
        let mut image = disk.disk();
        let epoch = newest_checkpoint(&image).epoch;
        // Nothing else tells which epoch it was.
        image[geometry.segment_offset(0) as usize..].fill(0);
        image[slot..slot + 4096].fill(0);
        let wal = open(&Simulated::new(image), 2, Options::new()).expect("the other slot does");
        assert_eq!((epoch, wal.recovery_report().epoch), (1, 2));
    }
}

/// Where the ring has gone round since the slot that is left, nothing of the log can be found.
#[test]
fn a_ring_that_has_gone_round_since_the_slot_that_is_left_is_refused() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    let wal = open_manual(&disk, 1);
    for lap in 0..2 {
        // Records that fill their segments.
        while wal.append(&vec![lap; geometry.payload_len_max()]).is_ok() {}
        wal.sync().expect("the disk takes it");
        if lap == 0 {
            wal.checkpoint(wal.watermarks().published).expect("a boundary");
            wal.sync_checkpoint().expect("the disk takes it");
        }
    }
    kill(wal);
    let image = without_newest_slot(disk.disk());
    assert_eq!(newest_checkpoint(&image).trimmed, geometry.first_record(0));
    match open(&Simulated::new(image), 2, Options::new()) {
        Err(OpenError::Corrupt { damage, .. }) => assert_eq!(damage.lsn, geometry.first_record(0)),
        other => panic!("a log without its slot was not refused: {other:?}"),
    }
}
