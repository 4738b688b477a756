//! Idempotent producers over crashes: a sequence that the retained log holds is never appended
//! again, and what the log knows of it comes from footers where there are some.

use super::{contents, new_image, tiny};
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::producers::{PRODUCERS_MAX, PRODUCERS_OFFSET, ProducersTally};
use crate::layout::record::record_crc;
use crate::layout::{CommitWord, Footer, Identity, RecordKind, Stamp, Superblock, Tag};
use crate::region::{Kind, Simulated};
use crate::simulation::{self, Stepped};
use crate::sync::{Arc, Ordering};
use crate::{
    AppendError, Appended, Durability, Lsn, OnFull, Options, Position, ProducerId, ReadError,
};

/// Nothing is synced but what a test syncs, and a full log is not waited for.
fn manual() -> Options {
    Options::new().durability(Durability::None).on_full(OnFull::Fail)
}

fn open(disk: &Arc<Simulated>, number: u8) -> Stepped {
    simulation::open(disk, number, manual()).expect("it opens")
}

fn id(number: u64) -> ProducerId {
    ProducerId::new(number)
}

fn append(wal: &Stepped, producer: u64, sequence: u64, payload: &[u8]) -> Appended {
    wal.step_janitor();
    let producer = wal.idempotent(id(producer)).expect("nothing is damaged");
    producer.append(sequence, payload).expect("there is room")
}

/// Producer, sequence and position of all that was appended idempotently and is retained.
fn stamped(wal: &Stepped) -> Vec<(u64, u64, Lsn)> {
    let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
    let mut found = Vec::new();
    while let Some(record) = reader.next().expect("every record verifies") {
        if let Some((producer, sequence)) = record.producer() {
            found.push((producer.get(), sequence, record.lsn()));
        }
    }
    found
}

/// Tries all of `known` again: each is where it was, and nothing is appended.
fn all_are_recognised(wal: &Stepped, known: &[(u64, u64, Lsn)]) {
    let before = wal.watermarks().reserved;
    for (producer, sequence, lsn) in known {
        let again = append(wal, *producer, *sequence, b"again");
        let want = Appended { lsn: *lsn, duplicate: true };
        assert_eq!(again, want, "{producer}:{sequence}");
    }
    assert_eq!(wal.watermarks().reserved, before);
}

/// The footer of segment `sequence`, and the list behind it if that verifies.
fn footer(image: &[u8], geometry: &Geometry, sequence: u32) -> Option<(Footer, Option<usize>)> {
    let superblock = Superblock::verify(image).expect("the superblock is whole");
    let page = &image[geometry.footer_offset(sequence) as usize..][..PAGE_SIZE as usize];
    let footer = Footer::verify(page, &superblock.log_id, geometry.lsn(sequence, 0))?;
    let list = footer.producers.verify(&page[PRODUCERS_OFFSET..]);
    Some((footer, list.map(|ranges| ranges.len())))
}

#[test]
fn a_retry_gets_the_position_of_the_first_try_and_leaves_no_trace() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1);
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    assert_eq!((producer.id(), producer.last_sequence()), (id(7), None));
    let first = producer.append(3, b"three").expect("there is room");
    let batch = producer.append_batch(10, ["a", "bc"]).expect("there is room");
    assert!(!first.duplicate && !batch.duplicate && first.lsn < batch.lsn);
    let other = wal.idempotent(id(8)).expect("there is nothing to read");
    let others = other.append(3, b"another's three").expect("there is room");
    assert!(!others.duplicate);
    all_are_recognised(&wal, &[(7, 3, first.lsn), (7, 10, batch.lsn), (8, 3, others.lsn)]);
    // A batch is recognised by its sequence, whatever is in it.
    let again = producer.append_batch(3, ["what it was does not matter"]).expect("it is known");
    assert_eq!(again, Appended { lsn: first.lsn, duplicate: true });
    assert_eq!((producer.last_sequence(), other.last_sequence()), (Some(10), Some(3)));

    let record = wal.get(first.lsn).expect("it is there");
    assert_eq!((record.payload(), record.producer()), (&b"three"[..], Some((id(7), 3))));
    let record = wal.get(batch.lsn).expect("it is there");
    let entries: Vec<_> = record.entries().map(|entry| entry.payload.to_vec()).collect();
    assert_eq!(
        (entries, record.producer()),
        (vec![b"a".to_vec(), b"bc".to_vec()], Some((id(7), 10)))
    );
}

#[test]
fn a_sequence_below_the_newest_that_is_not_there_is_refused() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1);
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    for sequence in [5, 9] {
        let appended = producer.append(sequence, b"x").expect("there is room");
        assert!(!appended.duplicate);
    }
    let reserved = wal.watermarks().reserved;
    for number in 2..4 {
        let wal = if number == 2 { None } else { Some(open(&disk, number)) };
        let reopened = wal.as_ref().map(|wal| wal.idempotent(id(7)).expect("nothing is damaged"));
        let producer = reopened.as_ref().unwrap_or(&producer);
        for sequence in [0, 4, 6, 8] {
            match producer.append(sequence, b"late") {
                Err(AppendError::SequenceTooOld { newest: 9, oldest_retained, .. }) => {
                    assert_eq!(oldest_retained, Some(5));
                }
                other => panic!("{sequence} was not refused: {other:?}"),
            }
        }
        wal.into_iter().for_each(Stepped::kill);
    }
    assert_eq!(wal.watermarks().reserved, reserved, "nothing was claimed");
    wal.kill();
}

/// Three producers, over several segments, the last of them active; synced, so that the sealed ones
/// have footers.
fn several_segments(disk: &Arc<Simulated>) -> Vec<(u64, u64, Lsn)> {
    let wal = open(disk, 1);
    for sequence in 0..40 {
        let _ = append(&wal, sequence % 3, sequence, &[sequence as u8; 300]);
        wal.step_janitor();
        wal.append(b"without a sequence").expect("there is room");
    }
    wal.sync().expect("the disk takes it");
    wal.append_durable(b"takes the last footer along").expect("the disk takes it");
    let known = stamped(&wal);
    wal.kill();
    known
}

#[test]
fn retries_are_recognised_after_a_reopen() {
    for (what, same_boot) in [("killed", true), ("power lost", false)] {
        let disk = Simulated::new(new_image(tiny(8)));
        let known = several_segments(&disk);
        assert_eq!(known.len(), 40);
        let (disk, boot) = if same_boot { (disk, 1) } else { (Simulated::new(disk.disk()), 2) };
        assert!(footer(&disk.disk(), &tiny(8), 0).is_some_and(|(_, listed)| listed == Some(3)));
        let wal = open(&disk, boot);
        for (producer, newest) in [(0, 39), (1, 37), (2, 38)] {
            let producer = wal.idempotent(id(producer)).expect("nothing is damaged");
            assert_eq!(producer.last_sequence(), Some(newest), "{what}");
        }
        all_are_recognised(&wal, &known);
        let next = append(&wal, 0, 42, b"goes on");
        assert!(!next.duplicate);
        all_are_recognised(&wal, &known);
        all_are_recognised(&wal, &[(0, 42, next.lsn)]);
        wal.kill();
    }
}

/// Writes a footer's list of producers anew.
fn forge(image: &mut [u8], sequence: u32, stamps: &[(u64, u64)]) {
    let geometry = tiny(8);
    let log_id = Superblock::verify(image).expect("the superblock is whole").log_id;
    let (footer, _) = footer(image, &geometry, sequence).expect("there is a footer");
    let mut tally = ProducersTally::for_footer();
    for (producer, sequence) in stamps {
        tally.add(Stamp { producer: id(*producer), sequence: *sequence });
    }
    let (digest, list) = tally.encode();
    let identity = Identity { log_id, epoch: footer.epoch };
    let base = geometry.lsn(sequence, 0);
    let bytes = Footer::encode(&footer.contents, digest, &identity, base);
    let at = geometry.footer_offset(sequence) as usize;
    image[at..at + bytes.len()].copy_from_slice(&bytes);
    image[at + PRODUCERS_OFFSET..][..list.len()].copy_from_slice(&list);
}

/// Sealed segments are not walked: what their footers say is taken at its word.
#[test]
fn footers_tell_what_sealed_segments_hold() {
    let disk = Simulated::new(new_image(tiny(8)));
    several_segments(&disk);
    let mut image = disk.disk();
    forge(&mut image, 1, &[(0, 9), (0, 12), (77, 5)]);
    let wal = open(&Simulated::new(image.clone()), 2);
    let last = |wal: &Stepped, producer| {
        wal.idempotent(id(producer)).expect("nothing is damaged").last_sequence()
    };
    assert_eq!(last(&wal, 77), Some(5), "only a footer says so");
    let refused = wal.idempotent(id(77)).expect("nothing is damaged").append(5, b"");
    assert!(matches!(refused, Err(AppendError::SequenceTooOld { newest: 5, .. })), "{refused:?}");
    wal.kill();
    // With a list that is torn, the segment is walked; the footer stands.
    let at = tiny(8).footer_offset(1) as usize + PRODUCERS_OFFSET + 30;
    image[at] ^= 1;
    let wal = open(&Simulated::new(image.clone()), 2);
    assert_eq!(last(&wal, 77), None);
    all_are_recognised(&wal, &stamped(&wal));
    wal.kill();
    // And so it is with a beginning that was released, however little of it.
    image[at] ^= 1;
    let wal = open(&Simulated::new(image.clone()), 2);
    let known = stamped(&wal);
    let in_second = known.iter().filter(|(_, _, lsn)| tiny(8).sequence(*lsn) == 1);
    let (_, _, second) = in_second.clone().nth(1).expect("there are several");
    wal.checkpoint(*second).expect("a boundary");
    wal.sync_checkpoint().expect("the disk takes it");
    assert_eq!(last(&wal, 77), None);
    let retained: Vec<_> = known.iter().filter(|(_, _, lsn)| lsn >= second).copied().collect();
    all_are_recognised(&wal, &retained);
    wal.kill();
}

/// A footer that recovery does not believe is not believed here either.
#[test]
fn a_footer_of_another_epoch_tells_nothing() {
    let disk = Simulated::new(new_image(tiny(8)));
    let known = several_segments(&disk);
    let mut image = disk.disk();
    forge(&mut image, 1, &[(77, 5)]);
    let (geometry, superblock) = (tiny(8), Superblock::verify(&image).expect("it is whole"));
    let (footer, _) = footer(&image, &geometry, 1).expect("there is one");
    for epoch in [0, 2] {
        let identity = Identity { log_id: superblock.log_id, epoch };
        let bytes =
            Footer::encode(&footer.contents, footer.producers, &identity, geometry.lsn(1, 0));
        let at = geometry.footer_offset(1) as usize;
        image[at..at + bytes.len()].copy_from_slice(&bytes);
        let wal = open(&Simulated::new(image.clone()), 2);
        let producer = wal.idempotent(id(77)).expect("nothing is damaged");
        assert_eq!(producer.last_sequence(), None, "epoch {epoch}");
        all_are_recognised(&wal, &known);
        wal.kill();
    }
}

#[test]
fn segments_with_more_producers_than_a_footer_holds_are_walked() {
    let geometry = Geometry::checked(4 << 14, 1 << 14, 3 * PAGE_SIZE).expect("in bounds");
    for count in [PRODUCERS_MAX as u64, PRODUCERS_MAX as u64 + 1, 300] {
        let disk = Simulated::new(new_image(geometry));
        let wal = open(&disk, 1);
        for round in 0..2 {
            for producer in 0..count {
                let appended = append(&wal, producer << 40, 10 * round + producer % 2, b"");
                assert!(!appended.duplicate);
            }
            let (_, offset) = geometry.split(wal.watermarks().reserved);
            wal.try_reserve((geometry.record_end() - offset) as usize - 16).expect("room").abort();
        }
        wal.sync().expect("the disk takes it");
        wal.append_durable(b"takes the last footer along").expect("the disk takes it");
        let known = stamped(&wal);
        wal.kill();
        let (_, listed) = footer(&disk.disk(), &geometry, 0).expect("it is sealed and durable");
        assert_eq!(listed, (count <= PRODUCERS_MAX as u64).then_some(PRODUCERS_MAX));
        let wal = open(&Simulated::new(disk.disk()), 2);
        all_are_recognised(&wal, &known);
        assert_eq!(wal.idempotent(id(1)).expect("nothing is damaged").last_sequence(), None);
        wal.kill();
    }
}

/// In persistent memory the list is written back with the footer.
#[test]
fn a_list_is_on_the_medium_in_persistent_memory() {
    let disk = Simulated::new_of(Kind::Memory, new_image(tiny(4)));
    let options = manual().hole_age_max(std::time::Duration::ZERO);
    let log = simulation::open(&disk, 1, options).expect("a new log opens");
    for producer in 0..60 {
        assert!(!append(&log, producer, 5, &[1; 20]).duplicate);
    }
    log.append_durable(&[2; 3000]).expect("memory takes it");
    log.step_flusher(false);
    log.kill();
    let listed = footer(&disk.disk(), &tiny(4), 0).map(|(_, listed)| listed);
    assert!(listed.is_some_and(|listed| listed.is_some_and(|count| count > 20)), "{listed:?}");
}

#[test]
fn what_is_released_is_forgotten_at_the_next_open() {
    let disk = Simulated::new(new_image(tiny(8)));
    several_segments(&disk);
    let wal = open(&disk, 1);
    let producer = wal.idempotent(id(0)).expect("nothing is damaged");
    let last = append(&wal, 0, 100, b"the last of this producer");
    let end = wal.append(b"another's").expect("there is room");
    wal.checkpoint(end).expect("a boundary");
    wal.sync_checkpoint().expect("the disk takes it");
    // As long as it is known, it is a duplicate; what is not known any more is refused.
    all_are_recognised(&wal, &[(0, 100, last.lsn)]);
    let refused = producer.append(39, b"");
    assert!(matches!(refused, Err(AppendError::SequenceTooOld { newest: 100, .. })), "{refused:?}");
    wal.kill();
    let wal = open(&disk, 1);
    assert_eq!(wal.idempotent(id(0)).expect("nothing is damaged").last_sequence(), None);
    assert!(!append(&wal, 0, 39, b"a new beginning").duplicate);
    wal.kill();
}

#[test]
fn producers_of_whom_nothing_is_retained_take_no_memory() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1);
    let held = wal.idempotent(id(u64::MAX)).expect("there is nothing to read");
    assert!(!held.append(1, b"held").expect("there is room").duplicate);
    for number in 0..3000_u64 {
        let lsn = append(&wal, number, 1, &[0; 100]).lsn;
        if number % 10 == 0 {
            wal.checkpoint(lsn).expect("a boundary");
            wal.sync_checkpoint().expect("the disk takes it");
        }
    }
    // 4 segments hold 4 × 4032 / 144 records.
    assert!(wal.producers.len() < 2 * (4 * 4032 / 144), "{} are known", wal.producers.len());
    assert!(
        held.append(1, b"held").expect("it is known").duplicate,
        "who holds one is not forgotten"
    );
    let another = wal.idempotent(id(u64::MAX)).expect("nothing is damaged");
    assert_eq!(another.last_sequence(), Some(1), "and knows what the other knows");
    wal.kill();
}

/// Far older than what is remembered, behind a reservation that is still open.
#[test]
fn an_old_sequence_is_found_behind_an_open_reservation() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1);
    let open = wal.reserve(100).expect("there is room");
    for sequence in 0..70 {
        assert!(!append(&wal, 7, sequence, b"").duplicate);
    }
    let known: Vec<_> = (0..70).map(|n| (7, n, open.lsn() + 128 + 32 * n)).collect();
    all_are_recognised(&wal, &known);
    drop(open);
    assert_eq!(stamped(&wal), known);
    wal.kill();
}

#[test]
fn an_append_that_fails_can_be_tried_again() {
    let disk = Simulated::new(new_image(tiny(2)));
    let wal = open(&disk, 1);
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    let mut sequence = 0;
    let refused = loop {
        wal.step_janitor();
        match producer.append(sequence, &[1; 1000]) {
            Ok(appended) => assert!(!appended.duplicate),
            Err(error) => break error,
        }
        sequence += 1;
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    assert_eq!(producer.last_sequence(), Some(sequence - 1));
    // A duplicate is one in a full log too.
    all_are_recognised(&wal, &stamped(&wal));
    wal.checkpoint(wal.watermarks().published).expect("a boundary");
    wal.sync_checkpoint().expect("the disk takes it");
    wal.step_janitor();
    let appended = producer.append(sequence, &[1; 1000]).expect("there is room again");
    assert!(!appended.duplicate);
    let too_large = producer.append(sequence + 1, &[0; 4032 - 31]);
    assert!(matches!(too_large, Err(AppendError::TooLarge { len: 4001, max: 4000 })));
    wal.kill();
}

#[test]
fn damage_that_a_walk_meets_is_said_to_whoever_asked() {
    let disk = Simulated::new(new_image(tiny(4)));
    let wal = open(&disk, 1);
    for sequence in 0..70 {
        assert!(!append(&wal, 7, sequence, b"x").duplicate);
    }
    let at = stamped(&wal)[2].2;
    // Its stream is another one.
    let tag = wal.ring.region().word(tiny(4).file_offset(at) + 8);
    tag.fetch_xor(1, Ordering::Relaxed);
    let producer = wal.idempotent(id(7)).expect("it is known");
    match producer.append(3, b"") {
        Err(AppendError::Lookup { sequence: 3, source }) => {
            assert!(matches!(*source, ReadError::Damaged { lsn, .. } if lsn == at), "{source}");
        }
        other => panic!("damage was not reported: {other:?}"),
    }
    wal.kill();
}

/// Every image that a power loss may leave of a small run: what is there is recognised, what is not
/// is appended, and in the end each sequence is there once.
#[test]
fn a_retry_after_any_crash_leaves_each_sequence_once() {
    let mut kept_some = [0; 7];
    for kind in [Kind::Disk, Kind::Memory] {
        let disk = Simulated::recording_of(kind, new_image(tiny(3)));
        let log = simulation::open(&disk, 1, manual()).expect("a new log opens");
        let mut acknowledged = Vec::new();
        for sequence in 0..6 {
            let appended = append(&log, 7, sequence, &[sequence as u8; 900]);
            if sequence % 3 == 1 {
                log.sync().expect("the disk takes it");
                acknowledged.push((disk.observe_now(), sequence, appended.lsn));
            }
        }
        log.kill();
        for moment in 0..=disk.observe_now() {
            let medium = disk.at(moment);
            for seed in 0..12 {
                let mut random = super::Random::new(seed);
                let image =
                    medium.image(|unit| random.below(medium.versions(unit) as u64) as usize);
                let image = Simulated::new_of(kind, image);
                let log = simulation::open(&image, 2, manual()).expect("it recovers");
                let known = stamped(&log);
                kept_some[known.len()] += 1;
                for (at, sequence, lsn) in &acknowledged {
                    let is_there = known.contains(&(7, *sequence, *lsn));
                    assert!(is_there || moment < *at, "{sequence} was durable at {moment}");
                }
                for sequence in 0..6 {
                    let again = append(&log, 7, sequence, &[sequence as u8; 900]);
                    let was_there = known.iter().find(|(_, known, _)| *known == sequence);
                    assert_eq!(again.duplicate, was_there.is_some());
                    assert!(was_there.is_none_or(|(_, _, lsn)| *lsn == again.lsn));
                }
                let all: Vec<_> = stamped(&log).iter().map(|(_, sequence, _)| *sequence).collect();
                assert_eq!(all, [0, 1, 2, 3, 4, 5], "{kind:?}, moment {moment}, seed {seed}");
                log.kill();
            }
        }
    }
    assert!(kept_some.iter().all(|count| *count > 0), "prefixes of each length: {kept_some:?}");
}

/// What this version does not know may change what a payload means.
#[test]
fn a_record_with_an_unknown_flag_does_not_verify() {
    let stamped = [(1, 32, true), (1, 31, false)];
    let moved = [(2, 32, true), (2, 31, false), (3, 64, false)];
    let others = [(0, 16, true), (4, 64, false)];
    for (flags, len, verifies) in [&stamped[..], &moved, &others].concat() {
        let disk = Simulated::new(new_image(tiny(3)));
        let wal = open(&disk, 1);
        let end = wal.append_durable(b"before").expect("the disk takes it") + 32;
        let end = end + 16;
        assert_eq!(wal.watermarks().reserved, end, "behind the evidence");
        let seed = wal.ring.seed(1);
        wal.kill();
        let mut image = disk.cache();
        let tag = Tag::new(0, RecordKind::Data, flags, 1);
        let crc = record_crc(seed, tag, len, &vec![9; len as usize - 16], end);
        let at = tiny(3).file_offset(end) as usize;
        image[at..at + 8].copy_from_slice(&CommitWord::committed(len, crc).bits().to_le_bytes());
        image[at + 8..at + 16].copy_from_slice(&tag.bits().to_le_bytes());
        image[at + 16..at + len as usize].fill(9);
        let wal = open(&Simulated::new(image), 2);
        // One that says it was moved from a place that is still there is shown at that place.
        let is_shown = verifies && flags & 2 == 0;
        let records = contents(&wal).len();
        assert_eq!(records, 1 + usize::from(is_shown), "flags {flags}, {len} bytes");
        let reason = wal.recovery_report().end_reason;
        assert_eq!(reason == "a torn record", !verifies, "{reason}");
        wal.kill();
    }
}
