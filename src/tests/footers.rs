//! Order 3: a footer is written only when its segment is durable. What footers prove, and what
//! becomes of those that are missing, stale, or at odds with their records.

use super::{boot, contents, head_of, kill, new_image, newest_checkpoint, open, tiny};
use crate::geometry::Geometry;
use crate::layout::footer::Contents;
use crate::layout::{Footer, Identity, Superblock};
use crate::recovery::scan::survey;
use crate::recovery::sealed::{Effort, OnDamage};
use crate::region::{Fault, Simulated};
use crate::sync::Arc;
use crate::{Durability, OnFull, OpenError, Options, Position, ReadError, Verify, Wal};

const PAYLOAD: usize = 1000;

fn geometry() -> Geometry {
    tiny(4)
}

fn open_manual(disk: &Arc<Simulated>, number: u8) -> Wal {
    // Without a flusher, so that nothing is synced but what a test syncs.
    let options = Options::new().durability(Durability::None).on_full(OnFull::Fail);
    open(disk, number, options).expect("it opens")
}

fn full() -> Options {
    Options::new().verify(Verify::Full)
}

/// The footer of segment `sequence` on an image.
fn footer(image: &[u8], sequence: u32) -> Option<Footer> {
    let superblock = Superblock::verify(image).expect("the superblock is whole");
    let at = geometry().footer_offset(sequence) as usize;
    Footer::verify(&image[at..], &superblock.log_id, geometry().lsn(sequence, 0))
}

/// Where the records of segment `sequence` lie.
fn records(sequence: u32) -> std::ops::Range<usize> {
    let start = geometry().segment_offset(sequence) as usize;
    start..start + geometry().record_end() as usize
}

/// Two full segments and the beginning of a third, all durable, the footers with the rest.
fn synced_image() -> (Vec<u8>, usize) {
    let disk = Simulated::new(new_image(geometry()));
    let wal = open_manual(&disk, 1);
    let mut count = 0;
    while geometry().sequence(wal.watermarks().reserved) < 2 {
        wal.append_durable(&[count as u8; PAYLOAD]).expect("the disk takes it");
        count += 1;
    }
    wal.append_durable(&[count as u8; PAYLOAD]).expect("the disk takes it");
    kill(wal);
    (disk.disk(), count + 1)
}

/// Whichever sync fails: a footer that the kernel could write back has its records on the disk.
#[test]
fn a_footer_waits_for_its_segment() {
    let mut footers = 0;
    for n in 0..40 {
        let disk = Simulated::new(new_image(geometry()));
        let wal = open_manual(&disk, 1);
        disk.inject(Fault::FailSync(n));
        for byte in 0..8 {
            let _ = wal.append(&[byte; PAYLOAD]);
            let _ = wal.append_durable(&[byte; PAYLOAD]);
        }
        kill(wal);
        let (cache, disk) = (disk.cache(), disk.disk());
        for sequence in 0..3 {
            if footer(&cache, sequence).is_some() {
                footers += 1;
                let records = records(sequence);
                assert!(cache[records.clone()] == disk[records], "segment {sequence}, sync {n}");
            }
        }
    }
    assert!(footers >= 40, "{footers} footers were looked at");
}

#[test]
fn a_footer_reaches_the_disk_with_what_follows_and_at_the_close() {
    let (image, count) = synced_image();
    let [first, second] = [0, 1].map(|sequence| footer(&image, sequence).expect("a footer"));
    assert_eq!((first.epoch, second.epoch), (1, 1));
    let both = first.contents.records + second.contents.records;
    assert_eq!(both, count as u64 - 2, "the third segment has two");
    assert_eq!(first.contents.payload_bytes, first.contents.records * PAYLOAD as u64);
    assert!(first.contents.first < first.contents.last);
    assert!(first.contents.last < second.contents.first);
    assert_eq!(footer(&image, 2), None, "it is active");

    let disk = Simulated::new(image);
    let wal = open_manual(&disk, 2);
    while geometry().sequence(wal.watermarks().reserved) < 3 {
        wal.append(&[9; 100]).expect("there is room");
    }
    wal.close().expect("it closes");
    let footer = footer(&disk.disk(), 2).expect("the close has written it");
    assert_eq!(footer.epoch, 2);
}

/// Where the log ends with a segment, nothing follows that would take the footer along.
#[test]
fn the_close_writes_the_footer_of_a_segment_that_ends_the_log() {
    let disk = Simulated::new(new_image(geometry()));
    let wal = open_manual(&disk, 1);
    let (_, offset) = geometry().split(wal.watermarks().reserved);
    let rest = (geometry().record_end() - offset) as usize - 16;
    wal.append(&vec![1; rest]).expect("there is room");
    wal.close().expect("it closes");
    assert!(footer(&disk.disk(), 0).is_some());
}

/// Alone, a footer makes of a record that is missing before it the corruption that it is.
#[test]
fn a_footer_proves_its_segment() {
    let disk = Simulated::new(new_image(geometry()));
    let wal = open_manual(&disk, 1);
    wal.append(&[1; PAYLOAD]).expect("there is room");
    let (_, offset) = geometry().split(wal.watermarks().reserved);
    let rest = (geometry().record_end() - offset) as usize - 16;
    let last = wal.append_durable(&vec![2; rest]).expect("the disk takes it");
    kill(wal);
    // One sync, whose evidence, like the footer, has not reached the disk.
    let at = geometry().file_offset(last) as usize;
    let damage = |mut image: Vec<u8>| {
        image[at + 100] ^= 1;
        Simulated::new(image)
    };
    let wal = open(&damage(disk.disk()), 2, Options::new()).expect("nothing says it was durable");
    assert_eq!(wal.recovery_report().end, last);
    kill(wal);
    // The kernel has written the footer.
    let page = geometry().footer_offset(0) as usize;
    disk.write_back(page..page + 1, true);
    match open(&damage(disk.disk()), 2, full()) {
        Err(OpenError::Corrupt { damage, .. }) => {
            assert_eq!((damage.lsn, damage.file_offset), (last, at as u64));
            assert_eq!(damage.durable, geometry().first_record(1));
        }
        other => panic!("a damaged durable record was not refused: {other:?}"),
    }
    // Also from the segment before, and if the header is what is damaged.
    let (mut image, _) = synced_image();
    assert!(newest_checkpoint(&image).durable < geometry().first_record(1), "no slot says so");
    image[records(2).start..records(2).end].fill(0);
    image[records(1).start + 9] ^= 1;
    match open(&Simulated::new(image), 2, Options::new()) {
        Err(OpenError::Corrupt { damage, .. }) => {
            assert_eq!(damage.lsn, geometry().first_record(1));
            assert_eq!(damage.durable, geometry().first_record(2));
        }
        other => panic!("a damaged segment header was not refused: {other:?}"),
    }
}

fn rewrite(image: &mut [u8], sequence: u32, identity: Identity, contents: &Contents) {
    let base = geometry().lsn(sequence, 0);
    let bytes = Footer::encode(contents, Default::default(), &identity, base);
    let at = geometry().footer_offset(sequence) as usize;
    image[at..at + bytes.len()].copy_from_slice(&bytes);
}

#[test]
fn a_footer_that_disagrees_is_corruption() {
    let (image, count) = synced_image();
    let log_id = Superblock::verify(&image).expect("the superblock is whole").log_id;
    let honest = footer(&image, 1).expect("a footer").contents;
    let identity = Identity { log_id, epoch: 1 };
    for wrong in [
        Contents { records: honest.records + 1, ..honest },
        Contents { payload_bytes: honest.payload_bytes - 1, ..honest },
        Contents { last: honest.first, ..honest },
        Contents { roll_up: !honest.roll_up, ..honest },
    ] {
        let mut image = image.clone();
        rewrite(&mut image, 1, identity, &wrong);
        match open(&Simulated::new(image), 2, full()) {
            Err(OpenError::Corrupt { damage, .. }) => {
                assert_eq!(damage.lsn, geometry().first_record(1));
                assert_eq!(damage.file_offset, geometry().footer_offset(1));
            }
            other => panic!("{wrong:?} was not refused: {other:?}"),
        }
    }
    // None at all, one of another log, of an epoch to come, or of one before the segment's: not
    // believed, and so no evidence against the records either.
    let lie = Contents { records: 77, ..honest };
    for identity in [
        Identity { log_id: [9; 16], epoch: 1 },
        Identity { log_id, epoch: 2 },
        Identity { log_id, epoch: 0 },
    ] {
        let mut image = image.clone();
        rewrite(&mut image, 1, identity, &lie);
        let wal = open(&Simulated::new(image), 2, full()).expect("it is not believed");
        assert_eq!(contents(&wal).len(), count);
        kill(wal);
    }
    let mut image = image;
    let page = geometry().footer_offset(1) as usize;
    image[page..page + 4096].fill(0);
    let wal = open(&Simulated::new(image), 2, Options::new()).expect("it may be missing");
    assert_eq!(contents(&wal).len(), count);
}

/// What a truncation keeps of a log whose second segment has a lying footer: what lies before it. A
/// salvage keeps everything, and says whose footer lies.
#[test]
fn a_footer_that_disagrees_is_cut_off_or_passed_over() {
    let (mut image, count) = synced_image();
    let head = head_of(&image);
    let honest = footer(&image, 1).expect("a footer").contents;
    let first = footer(&image, 0).expect("a footer").contents;
    let lie = Contents { records: honest.records + 1, ..honest };
    rewrite(&mut image, 1, Identity { log_id: head.log_id, epoch: 1 }, &lie);
    let read = |offset: u64, bytes: &mut [u8]| {
        bytes.copy_from_slice(&image[offset as usize..][..bytes.len()]);
        Ok(())
    };
    let look = |on_damage, threads| {
        let effort = Effort { on_damage, threads, ..Effort::default() };
        survey(&read, &head, boot(2), &effort).unwrap_or_else(|_| panic!("refused"))
    };
    for threads in [1, 2] {
        let cut = look(OnDamage::Cut, threads);
        assert_eq!(cut.cut, geometry().first_record(1));
        assert_eq!((cut.records, cut.payload_bytes), (first.records, first.payload_bytes));
        assert!(cut.liars.is_empty());
        let salvaged = look(OnDamage::Skip, threads);
        let payload_bytes = (count * PAYLOAD) as u64;
        assert_eq!((salvaged.records, salvaged.payload_bytes), (count as u64, payload_bytes));
        assert_eq!(salvaged.liars, [1]);
        assert!(salvaged.gaps.is_empty() && salvaged.cut > geometry().first_record(2));
    }
}

/// A recovery that ends where a segment ends leaves the segment's footer where it is.
#[test]
fn recovery_keeps_the_footer_of_a_full_segment() {
    let (mut image, _) = synced_image();
    image[records(2).start..records(2).end].fill(0);
    let disk = Simulated::new(image);
    // The third segment, whose only record no evidence proves, is gone.
    let wal = open(&disk, 2, Options::new()).expect("it recovers");
    assert_eq!(wal.recovery_report().end, geometry().lsn(1, geometry().record_end()));
    kill(wal);
    assert!(footer(&disk.disk(), 1).is_some());
}

/// A segment that never reached the disk, trimmed to its middle, has a footer like any other in the
/// end: what is missing in front of `trimmed` is a pad.
#[test]
fn a_segment_that_begins_in_its_middle_gets_a_footer() {
    let disk = Simulated::new(new_image(geometry()));
    let wal = open_manual(&disk, 1);
    while geometry().sequence(wal.watermarks().reserved) < 1 {
        wal.append(&[1; PAYLOAD]).expect("there is room");
    }
    let middle = wal.append(&[2; PAYLOAD]).expect("there is room");
    wal.checkpoint(middle).expect("a boundary");
    assert_eq!(wal.sync_checkpoint().expect("the disk takes it"), middle);
    kill(wal);
    let disk = Simulated::new(disk.disk());
    let wal = open_manual(&disk, 2);
    assert_eq!((wal.recovery_report().end, wal.recovery_report().records), (middle, 0));
    let first = wal.append(&[3; PAYLOAD]).expect("there is room");
    wal.append_durable(&[4; 3 * PAYLOAD]).expect("the next segment's");
    let contents = footer(&disk.cache(), 1).expect("a footer").contents;
    assert_eq!((contents.first, contents.last, contents.records), (first, first, 1));
}

/// Round and round, on the same boot and on others: footers of earlier laps, of segments that
/// checkpoints cut into and of earlier epochs never disagree with what is there.
#[test]
fn footers_of_all_laps_agree() {
    let disk = Simulated::new(new_image(geometry()));
    let mut seen = 0;
    for number in 1..60_u8 {
        let wal = open_manual(&disk, 1 + number / 2);
        for byte in 0..number % 13 {
            let lsn = wal.append_durable(&[byte; 700]).expect("the disk takes it");
            if byte % 3 == 0 {
                wal.checkpoint(lsn).expect("a boundary");
                wal.sync_checkpoint().expect("the disk takes it");
            }
        }
        let end = wal.watermarks().published;
        wal.checkpoint(end).expect("a boundary");
        wal.sync_checkpoint().expect("the disk takes it");
        seen += (0..40).filter(|n| footer(&disk.disk(), *n).is_some()).count();
        kill(wal);
    }
    assert!(seen > 30, "{seen} footers were there");
}

/// A lazy open does not read what a footer vouches for: whoever reads a record there finds what
/// became of it. Everything else it reads.
#[test]
fn a_lazy_open_leaves_a_sealed_segment_to_its_readers() {
    let (sound, count) = synced_image();
    for segment in 0..3 {
        let mut image = sound.clone();
        // In the payload of the segment's first data record.
        image[geometry().segment_offset(segment) as usize + 500] ^= 1;
        let refused = open(&Simulated::new(image.clone()), 2, full());
        let lazy = open(&Simulated::new(image), 2, Options::new());
        if segment == 2 {
            // The active one has no footer, and evidence behind the record.
            assert!(matches!(refused, Err(OpenError::Corrupt { .. })));
            assert!(matches!(lazy, Err(OpenError::Corrupt { .. })));
            continue;
        }
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "segment {segment}");
        let wal = lazy.expect("its footer vouches for it");
        let report = wal.recovery_report();
        assert_eq!((report.records, report.records_unread), (count as u64, count as u64 - 2));
        let mut reader = wal.reader(Position::Oldest).expect("the oldest");
        let damaged = loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the damage in segment {segment} was passed over"),
                Err(error) => break error,
            }
        };
        let ReadError::Damaged { lsn, .. } = damaged else { panic!("{damaged}") };
        assert_eq!(geometry().sequence(lsn), segment);
        drop(reader);
        kill(wal);
    }
}
