//! The orders that recovery and the janitor must keep, each with a test that breaks when the order
//! is broken.

use super::{boot, contents, head_of, kill, new_image, newest_checkpoint, open, tiny};
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::checkpoint::RecoverySummary;
use crate::layout::{CHECKPOINT_SLOT_OFFSETS, Checkpoint};
use crate::recovery::Head;
use crate::region::{Backing, Fault, Kind, Simulated};
use crate::simulation::{self, Stepped};
use crate::sync::Arc;
use crate::{
    AppendError, CheckpointError, Durability, Lsn, OnFull, OpenError, Options, RecoveryOutcome,
    WaitError,
};

const SECTOR: usize = Kind::Disk.unit();

fn record(byte: u8, len: usize) -> Vec<u8> {
    vec![byte; len]
}

/// A log with durable record A, and B and C behind it that the kernel has written back, B torn.
fn torn_image() -> (Vec<u8>, Lsn) {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    wal.append_durable(&record(b'A', 40)).expect("the disk takes it");
    let b = wal.append(&record(b'B', 40)).expect("there is room");
    wal.append(&record(b'C', 40)).expect("there is room");
    kill(wal);
    let mut image = disk.cache();
    image[tiny(4).file_offset(b) as usize + 20] ^= 0xFF;
    (image, b)
}

/// Order 1: what lies beyond a cut does not come back, neither at once nor after a second crash.
#[test]
fn records_beyond_a_cut_stay_dead() {
    let (image, b) = torn_image();
    let disk = Simulated::new(image);
    let wal = open(&disk, 2, Options::new()).expect("a torn tail is no corruption");
    let report = wal.recovery_report().clone();
    assert_eq!((report.outcome, report.end), (RecoveryOutcome::PowerLost, b));
    assert_eq!((report.records, report.cut_records), (1, 1), "{report}");
    assert_eq!((report.payload_bytes, report.cut_payload_bytes), (40, 40));
    assert_eq!(report.cut_bytes, 2 * 64, "to the end of C");
    assert_eq!(contents(&wal), [record(b'A', 40)]);
    // 40 bytes, less the record that opens the epoch: the next one ends where C starts.
    let end = wal.append(&record(b'X', 8)).expect("there is room") + 32;
    assert_eq!(end, b + 64);
    assert_eq!(wal.watermarks().published, end, "C is not published again");
    wal.sync().expect("the disk takes it");
    kill(wal);
    let disk = Simulated::new(disk.disk());
    let wal = open(&disk, 3, Options::new()).expect("it recovers");
    assert_eq!(contents(&wal), [record(b'A', 40), record(b'X', 8)]);
}

/// Order 1, the same without zeroing's help: the zeros never reach the disk, so the epoch alone
/// keeps C dead.
#[test]
fn an_older_epoch_behind_a_newer_one_is_a_leftover() {
    let (image, b) = torn_image();
    let disk = Simulated::new(image.clone());
    // Another epoch in between, of which nothing but its slot reached the disk.
    kill(open(&disk, 2, Options::new()).expect("a torn tail is no corruption"));
    let disk = Simulated::new(disk.disk());
    let wal = open(&disk, 2, Options::new()).expect("it recovers");
    wal.append(&record(b'X', 8)).expect("there is room");
    wal.sync().expect("the disk takes it");
    kill(wal);
    let mut second = disk.disk();
    let c = tiny(4).file_offset(b + 64) as usize;
    second[c..c + 64].copy_from_slice(&image[c..c + 64]);
    let disk = Simulated::new(second);
    let wal = open(&disk, 3, Options::new()).expect("a leftover is no corruption");
    assert_eq!(contents(&wal), [record(b'A', 40), record(b'X', 8)]);
    assert_eq!(wal.recovery_report().end_reason, "a leftover from before an earlier cut");
}

/// Order 1: of what lay beyond the cut in its segment, nothing is left on the medium.
#[test]
fn the_rest_of_a_cut_segment_is_zero() {
    let geometry = Geometry::checked(2 << 16, 1 << 16, 12_288).expect("in bounds");
    let disk = Simulated::new(new_image(geometry));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    wal.append_durable(b"durable").expect("the disk takes it");
    // Pages without a single zero, one of which only the end is not zero, and some that are zero.
    let torn = wal.append(&record(0xFF, 20_000)).expect("there is room");
    let mut zeros = record(0, 10_000);
    zeros.push(1);
    wal.append(&zeros).expect("there is room");
    kill(wal);
    let mut image = disk.cache();
    let at = geometry.file_offset(torn) as usize;
    image[at + 20] ^= 1;
    let disk = Simulated::new(image);
    let wal = open(&disk, 2, Options::new()).expect("a torn tail is no corruption");
    assert_eq!((wal.recovery_report().end, wal.recovery_report().cut_records), (torn, 1));
    kill(wal);
    let end = geometry.segment_offset(0) as usize + (1 << 16);
    assert!(disk.disk()[at..end].iter().all(|byte| *byte == 0));
}

/// A torn length that leads out of its segment, or out of the file, is no length.
#[test]
fn a_torn_length_leads_nowhere() {
    let geometry = tiny(2);
    for sequence in 0..2 {
        let disk = Simulated::new(new_image(geometry));
        let wal = open(&disk, 1, Options::new()).expect("a new log opens");
        let mut torn = wal.append(&record(b'A', 1200)).expect("there is room");
        while geometry.split(torn) < (sequence, 2000) {
            torn = wal.append(&record(b'A', 1200)).expect("there is room");
        }
        kill(wal);
        let mut image = disk.cache();
        let at = geometry.file_offset(torn) as usize;
        image[at..at + 4].copy_from_slice(&4096_u32.to_le_bytes());
        let wal = open(&Simulated::new(image), 2, Options::new()).expect("a torn tail");
        let report = wal.recovery_report();
        assert_eq!((report.end, report.end_reason), (torn, "a torn header"));
    }
}

/// Order 1: a segment that was prepared before a cut is not taken for the next one after it.
#[test]
fn a_segment_of_an_older_epoch_does_not_follow() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    let wal = open(&disk, 1, Options::new().durability(Durability::None)).expect("it opens");
    wal.append_durable(&record(b'A', 40)).expect("the disk takes it");
    let b = wal.append(&record(b'B', 1000)).expect("there is room");
    for _ in 0..3 {
        wal.append(&record(b'C', 2000)).expect("there is room");
    }
    kill(wal);
    // The kernel has written back the second segment, but nothing of the first beyond A.
    let second = geometry.segment_offset(1) as usize..geometry.segment_offset(2) as usize;
    disk.write_back(second.clone(), true);
    let before = disk.disk();
    let disk = Simulated::new(before.clone());
    let wal = open(&disk, 2, Options::new()).expect("it recovers");
    // The record before B is the evidence of A's sync, which nothing has synced.
    assert_eq!(wal.recovery_report().end + 16, b);
    assert!(wal.recovery_report().cut_records >= 1);
    // Fill the first segment to its end with the new epoch, and make that durable.
    let rest = 4096 - geometry.split(wal.watermarks().reserved).1 as usize;
    wal.append_durable(&record(b'X', rest - 16)).expect("the disk takes it");
    kill(wal);
    let mut image = disk.disk();
    // The second segment of the new epoch never reached the disk.
    image[second.clone()].copy_from_slice(&before[second]);
    let disk = Simulated::new(image);
    let wal = open(&disk, 3, Options::new()).expect("it recovers");
    assert_eq!(contents(&wal), [record(b'A', 40), record(b'X', rest - 16)]);
}

/// Order 1: the slot with the new epoch is on the medium before anything is appended.
#[test]
fn the_new_epoch_is_persisted_before_its_first_append() {
    let (image, b) = torn_image();
    let disk = Simulated::new(image);
    let wal = open(&disk, 2, Options::new()).expect("it recovers");
    kill(wal);
    let checkpoint = newest_checkpoint(&disk.disk());
    assert_eq!((checkpoint.epoch, checkpoint.epoch_start, checkpoint.durable), (2, b, b));
    assert_eq!(checkpoint.boot, boot(2));
    assert!(!checkpoint.clean);
    assert_ne!(checkpoint.recovery, RecoverySummary::default());
}

/// Order 2: pages that a failed write-back left clean are dirtied again before they are synced.
#[test]
fn what_a_failed_sync_left_clean_is_written_again() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    wal.append_durable(b"durable").expect("the disk takes it");
    let lsn = wal.append(b"in the cache only").expect("there is room");
    disk.inject(Fault::FailSync(0));
    assert!(matches!(wal.wait_durable(lsn), Err(WaitError::Poisoned(_))));
    assert!(matches!(wal.wait_durable(lsn), Err(WaitError::Poisoned(_))), "for good");
    assert!(matches!(wal.append(b"no more"), Err(AppendError::Poisoned(_))));
    assert!(matches!(wal.checkpoint(lsn), Err(CheckpointError::Poisoned(_))));
    kill(wal);
    // The machine goes on: the next process finds the page cache as it was.
    let wal = open(&disk, 1, Options::new()).expect("it recovers");
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::PowerLost, "a sync had failed");
    assert_eq!(contents(&wal), [&b"durable"[..], b"in the cache only"]);
    kill(wal);
    // It was served, so it must survive now.
    let wal = open(&Simulated::new(disk.disk()), 2, Options::new()).expect("it recovers");
    assert_eq!(contents(&wal), [&b"durable"[..], b"in the cache only"]);
}

/// Order 2: zeros that a failed write-back has left in the cache alone are not trusted either. The
/// last lap, which they hide, would come back when the kernel drops them.
#[test]
fn what_a_failed_sync_hides_beyond_the_cut_does_not_come_back() {
    let geometry = Geometry::checked(2 * 32_768, 32_768, 3 * PAGE_SIZE).expect("in bounds");
    let disk = Simulated::new(new_image(geometry));
    let options = Options::new().on_full(OnFull::Overwrite);
    let wal = open(&disk, 1, options).expect("a new log opens");
    let mut last = Lsn::ZERO;
    while geometry.sequence(last) < 2 {
        last = wal.append_durable(&record(b'A', 1500)).expect("the disk takes it");
    }
    let segment = geometry.segment_offset(2)..geometry.segment_offset(2) + geometry.segment_size();
    disk.write_back(segment.start as usize..segment.end as usize, false);
    let lsn = wal.append(b"in the cache only").expect("there is room");
    assert!(matches!(wal.wait_durable(lsn), Err(WaitError::Poisoned(_))));
    kill(wal);
    // The machine goes on: the next process finds the page cache as it was.
    let wal = open(&disk, 1, Options::new()).expect("it recovers");
    assert_eq!(contents(&wal).last().map(Vec::as_slice), Some(&b"in the cache only"[..]));
    let end = wal.watermarks().reserved;
    kill(wal);
    disk.evict(segment.clone());
    let beyond = geometry.file_offset(end) as usize..(segment.end - PAGE_SIZE) as usize;
    assert!(disk.cache()[beyond].iter().all(|byte| *byte == 0), "the last lap has come back");
}

/// Order 2 after a kill: what is served after recovery survives the power loss that follows.
#[test]
fn what_recovery_serves_is_durable() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1, Options::new().durability(Durability::None)).expect("it opens");
    wal.append(b"committed").expect("there is room");
    kill(wal);
    let wal = open(&disk, 1, Options::new()).expect("it recovers");
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::ProcessDied);
    assert_eq!(contents(&wal), [b"committed"]);
    kill(wal);
    let wal = open(&Simulated::new(disk.disk()), 2, Options::new()).expect("it recovers");
    assert_eq!(contents(&wal), [b"committed"]);
}

/// Order 4: no persisted position exceeds `durable`.
#[test]
fn a_checkpoint_is_clamped_to_durable() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    let first = wal.append_durable(b"durable").expect("the disk takes it");
    let durable = wal.watermarks().durable;
    wal.append(b"committed").expect("there is room");
    let end = wal.watermarks().published;
    assert_eq!(wal.checkpoint(end).expect("a boundary"), durable);
    assert_eq!(wal.sync_checkpoint().expect("the disk takes it"), durable);
    let checkpoint = newest_checkpoint(&disk.disk());
    assert!(checkpoint.trimmed > first && checkpoint.trimmed <= checkpoint.durable);
}

/// Trim: the new `trimmed` is on the medium before anything below it is recycled.
#[test]
fn trimmed_is_persisted_before_a_segment_is_recycled() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    let options = Options::new().on_full(OnFull::Overwrite);
    let wal = open(&disk, 1, options).expect("a new log opens");
    for lap in 0..40 {
        wal.append_durable(&record(lap, 1200)).expect("the disk takes it");
        // In this order: what was prepared, what of it is gone since, and what was said before.
        let prepared = geometry.sequence(wal.watermarks().writable);
        let image = disk.cache();
        let on_disk = newest_checkpoint(&disk.disk()).trimmed;
        for sequence in 0..prepared {
            let gone = image[geometry.segment_offset(sequence) as usize..][..8]
                != (u64::from(sequence) + 1).to_le_bytes();
            let end = geometry.lsn(sequence, geometry.record_end());
            assert!(!gone || on_disk >= end, "segment {sequence} recycled before its trim");
        }
    }
}

/// Order 5: whatever sync fails during recovery, the next one finds the same log.
#[test]
fn recovery_is_idempotent() {
    let (image, _) = torn_image();
    let want = {
        let disk = Simulated::new(image.clone());
        contents(&open(&disk, 2, Options::new()).expect("it recovers"))
    };
    let mut failures = 0;
    for n in 0.. {
        let disk = Simulated::new(image.clone());
        disk.inject(Fault::FailSync(n));
        match open(&disk, 2, Options::new()) {
            Ok(wal) => {
                // The last sync of recovery was not hit: all of them were tried.
                assert_eq!(contents(&wal), want);
                kill(wal);
                break;
            }
            Err(error) => assert!(matches!(error, OpenError::File(_)), "{error}"),
        }
        failures += 1;
        for (image, number) in [(disk.disk(), 3), (disk.cache(), 3), (disk.cache(), 2)] {
            let wal = open(&Simulated::new(image), number, Options::new()).expect("it recovers");
            assert_eq!(contents(&wal), want, "after failed sync {n}");
        }
    }
    assert!(failures >= 2, "recovery syncs records and a slot");
}

/// Damage below what is proven durable is refused, names the place, and changes nothing; also when
/// only a later record's evidence proves it.
#[test]
fn damage_to_durable_records_is_refused() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    // Without a flusher, which would write a slot if the test were held up for long enough.
    let options = Options::new().durability(Durability::None);
    let wal = open(&disk, 1, options).expect("a new log opens");
    let a = wal.append_durable(b"first").expect("the disk takes it");
    wal.append_durable(b"second").expect("the disk takes it");
    kill(wal);
    let sound = disk.disk();
    assert!(newest_checkpoint(&sound).durable <= a, "no slot proves it");
    let start = geometry.file_offset(a) as usize;
    for byte in start..start + 21 {
        let mut image = sound.clone();
        image[byte] ^= 0x40;
        let disk = Simulated::new(image.clone());
        match open(&disk, 2, Options::new()) {
            Err(OpenError::Corrupt { damage, .. }) => {
                assert_eq!((damage.lsn, damage.file_offset), (a, start as u64));
                assert!(damage.durable > a);
            }
            other => panic!("damage at byte {byte} was not refused: {other:?}"),
        }
        assert!(disk.disk() == image && disk.cache() == image, "nothing was changed");
    }
}

/// A killed process's open reservation becomes a pad; what was committed behind it survives.
#[test]
fn an_abandoned_reservation_becomes_a_pad() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    wal.append(b"before").expect("there is room");
    std::mem::forget(wal.reserve(100).expect("there is room"));
    wal.append(b"between").expect("there is room");
    std::mem::forget(wal.reserve(5000 / 2).expect("there is room"));
    wal.append(b"behind").expect("there is room");
    std::mem::forget(wal.reserve(10).expect("there is room"));
    kill(wal);
    let image = disk.cache();
    let wal = open(&Simulated::new(image.clone()), 1, Options::new()).expect("it recovers");
    assert_eq!(contents(&wal), [&b"before"[..], b"between", b"behind"]);
    assert_eq!(wal.recovery_report().holes_padded, 2, "{}", wal.recovery_report());
    kill(wal);
    // On another boot, or with another file, nothing is known of the holes: a prefix.
    let wal = open(&Simulated::new(image), 2, Options::new()).expect("it recovers");
    assert_eq!(contents(&wal), [b"before"]);
    assert_eq!(wal.recovery_report().cut_records, 2);
}

/// A claim whose owner died before it left its mark is zero up to the next owner's record, or to
/// the end of the segment. What the owner of a marked claim has written into it means nothing.
#[test]
fn unmarked_and_half_written_claims_become_pads() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    let mut unmarked = Vec::new();
    let mut forget_unmarked = |len| {
        let reservation = wal.reserve(len).expect("there is room");
        unmarked.push(geometry.file_offset(reservation.lsn()) as usize);
        std::mem::forget(reservation);
    };
    wal.append(b"a").expect("there is room");
    forget_unmarked(100);
    forget_unmarked(0);
    wal.append(b"b").expect("there is room");
    let mut half_written = wal.reserve(300).expect("there is room");
    half_written.fill(0xA5);
    std::mem::forget(half_written);
    wal.append(b"c").expect("there is room");
    let (_, offset) = geometry.split(wal.watermarks().reserved);
    forget_unmarked(4096 - offset as usize - 16);
    wal.append(b"of the next segment").expect("there is room");
    kill(wal);
    let mut image = disk.cache();
    for at in unmarked {
        image[at..at + 8].fill(0);
    }
    let disk = Simulated::new(image);
    for holes in [3, 0] {
        let wal = open(&disk, 1, Options::new()).expect("it recovers");
        assert_eq!(contents(&wal), [&b"a"[..], b"b", b"c", b"of the next segment"]);
        assert_eq!(wal.recovery_report().holes_padded, holes, "{}", wal.recovery_report());
        kill(wal);
    }
}

/// A full ring opens again, and takes records once there is room.
#[test]
fn a_full_ring_opens_and_goes_on() {
    let geometry = tiny(4);
    let disk = Simulated::new(new_image(geometry));
    let options = Options::new().on_full(OnFull::Fail);
    let wal = open(&disk, 1, options).expect("a new log opens");
    let mut written = Vec::new();
    for byte in 0_u8.. {
        match wal.append(&record(byte, 1328)) {
            Ok(_) => written.push(record(byte, 1328)),
            Err(AppendError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    wal.close().expect("it closes");
    drop(wal);
    for number in 2..6 {
        let wal = open(&disk, number, options).expect("a full ring opens");
        assert_eq!(contents(&wal), written);
        assert!(matches!(wal.append(b"more"), Err(AppendError::Full { .. })));
        if number % 2 == 0 { kill(wal) } else { drop(wal) }
    }
    let wal = open(&disk, 6, options).expect("a full ring opens");
    wal.checkpoint(wal.watermarks().published).expect("a boundary");
    let lsn = wal.append(b"more").expect("there is room now");
    kill(wal);
    let wal = open(&disk, 6, options).expect("it recovers");
    assert_eq!(wal.get(lsn).expect("it is there").payload(), b"more");
}

/// A log on a recording disk that syncs nothing by itself.
fn recorded(segments: u64) -> (Arc<Simulated>, Stepped) {
    let disk = Simulated::recording(new_image(tiny(segments)));
    let options = Options::new().durability(Durability::None).on_full(OnFull::Fail);
    let log = simulation::open(&disk, 1, options).expect("a new log opens");
    (disk, log)
}

/// Fills the segment up to 16 bytes before its end.
fn fill_but_16(log: &Stepped) {
    let rest = 4096 - log.watermarks().reserved.get() % 8192;
    log.append(&record(b'A', rest as usize - 32)).expect("there is room");
}

/// Orders 1 and 5: the pad over the last bytes of a cut segment led a recovery that came after a
/// crash over a lost record, on to what lay beyond the cut.
#[test]
fn the_rest_of_a_cut_segment_is_sealed_behind_the_slot() {
    let (disk, log) = recorded(3);
    fill_but_16(&log);
    let lost = log.append(b"").expect("16 bytes are left");
    log.step_janitor();
    log.append(b"beyond").expect("there is room");
    log.kill();
    let mut image = disk.cache();
    image[tiny(3).file_offset(lost) as usize..][..16].fill(0);
    let disk = Simulated::recording(image);
    simulation::open(&disk, 2, Options::new()).expect("a lost record is no damage").kill();
    let pad = disk.disk()[tiny(3).file_offset(lost) as usize];
    assert_eq!(pad, 16, "the next segment's records, once synced, are read over it");
    for moment in disk.stops() {
        let image = disk.at(moment).cache();
        let log = simulation::open(&Simulated::new(image), 3, Options::new()).expect("it opens");
        assert_eq!(contents(&log).len(), 1, "at {moment}: {}", log.recovery_report());
    }
}

/// Orders 3 and 5: a slot whose writer was killed lies in the cache alone. What it has released is
/// not used, and the other slot not touched, before it is on the medium.
#[test]
fn a_slot_that_was_read_is_synced_first() {
    let (disk, log) = recorded(3);
    while log.append(&record(b'A', 4096 - 96 - 16)).is_ok() {
        log.sync().expect("the disk takes it");
        log.step_janitor();
    }
    log.checkpoint(log.watermarks().published).expect("a boundary");
    let before = disk.syncs().len();
    log.sync_checkpoint().expect("the disk takes it");
    log.kill();
    let disk = disk.after_kill(disk.syncs()[before]);
    simulation::open(&disk, 1, Options::new()).expect("it opens").kill();
    for moment in disk.stops() {
        let medium = disk.at(moment);
        let mut torn = medium.oldest();
        for sector in medium.open_units().filter(|sector| sector * SECTOR < 3 * 4096) {
            let newest = medium.version(sector, medium.versions(sector) - 1);
            torn[sector * SECTOR..][..48].copy_from_slice(&newest[..48]);
        }
        for image in [medium.oldest(), torn] {
            let log = simulation::open(&Simulated::new(image), 2, Options::new());
            log.unwrap_or_else(|error| panic!("refused at {moment}: {error}")).kill();
        }
    }
}

/// A trim to 16 bytes before the end of a segment that never reached the disk: the new epoch's
/// record does not fit there.
#[test]
fn a_lost_segment_without_room_for_an_epoch_is_sealed() {
    let (disk, log) = recorded(3);
    fill_but_16(&log);
    log.append(b"").expect("16 bytes are left");
    log.step_janitor();
    log.append(b"the next segment").expect("there is room");
    fill_but_16(&log);
    log.checkpoint(log.watermarks().published).expect("a boundary");
    log.sync_checkpoint().expect("the disk takes it");
    log.kill();
    for number in 2..5 {
        let log = simulation::open(&Simulated::new(disk.disk()), number, Options::new());
        let log = log.expect("it opens");
        log.step_janitor();
        log.append_durable(b"goes on").expect("there is room");
        assert_eq!(contents(&log), [b"goes on"]);
        log.kill();
    }
}

/// A record's tag holds the low 16 bits of its epoch. A segment takes no more epochs than these
/// can tell apart: the next one begins in a segment of its own.
#[test]
fn a_segment_with_too_many_epochs_is_sealed() {
    for (opened, sealed) in [(65_534, false), (65_535, true), (70_000, true)] {
        let disk = Simulated::new(new_image(tiny(3)));
        let wal = open(&disk, 1, Options::new()).expect("a new log opens");
        wal.append(b"of the first epoch").expect("there is room");
        wal.close().expect("it closes");
        drop(wal);
        // As if it had been opened and closed so often.
        let mut image = disk.disk();
        let Head { log_id, checkpoint, slot, .. } = head_of(&image);
        let end = checkpoint.durable;
        let checkpoint = Checkpoint { epoch: opened, epoch_start: end, ..checkpoint };
        let slot = CHECKPOINT_SLOT_OFFSETS[slot] as usize;
        image[slot..slot + 4096].copy_from_slice(&checkpoint.encode(&log_id));
        let disk = Simulated::new(image);
        let wal = open(&disk, 2, Options::new()).expect("it opens");
        assert_eq!(wal.recovery_report().epoch, opened + 1);
        let lsn = wal.append_durable(b"of the last").expect("the disk takes it");
        assert_eq!(tiny(3).sequence(lsn) == 1, sealed, "after {opened}");
        kill(wal);
        let wal = open(&Simulated::new(disk.disk()), 3, Options::new()).expect("it recovers");
        assert_eq!(contents(&wal), [&b"of the first epoch"[..], b"of the last"]);
    }
}

/// A segment says that it is prepared when it is zero, and not before: whoever looks from another
/// process would take the last lap's bytes for records otherwise.
#[test]
fn a_segment_is_zero_before_its_header_is_whole() {
    let geometry = tiny(3);
    let disk = Simulated::recording(new_image(geometry));
    let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
    let log = simulation::open(&disk, 1, options).expect("a new log opens");
    for lap in 1..20 {
        log.append(&record(lap, 3000)).expect("the janitor has made room");
        disk.observe_now();
        log.step_janitor();
        disk.observe_now();
    }
    log.kill();
    let mut words = [0; 3];
    let mut prepared = 0;
    for moment in disk.stops() {
        let cache = disk.at(moment).cache();
        for (slot, word) in words.iter_mut().enumerate() {
            let start = geometry.slot_offset(slot as u32) as usize;
            let (header, rest) = cache[start..][..8192].split_at(64);
            let before = std::mem::replace(word, header[0]);
            if *word != before && *word > 3 {
                assert!(rest.iter().all(|byte| *byte == 0), "segment {} at {moment}", *word - 1);
                prepared += 1;
            }
        }
    }
    assert!(prepared > 10, "only {prepared} segments were prepared again");
}
