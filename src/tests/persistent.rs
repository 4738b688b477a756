//! Persistent memory: what is said to be durable is on the medium line by line, fenced, whoever
//! wrote it; and the orders that hold for syncs of pages hold for lines.

use std::time::{Duration, Instant};

use super::{contents, kill, new_image, newest_checkpoint, open, tiny};
use crate::layout::{Footer, Superblock};
use crate::region::{Kind, Simulated};
use crate::simulation::{self, Stepped};
use crate::sync::{Arc, spawn};
use crate::{Durability, Error, OnFull, OpenError, Options, Persistence, Position, WaitError, Wal};

/// Nothing is written back but what the test asks for.
fn manual() -> Options {
    Options::new().durability(Durability::None).hole_age_max(Duration::ZERO)
}

fn recorded(segments: u64, options: Options) -> (Arc<Simulated>, Stepped) {
    let disk = Simulated::recording_of(Kind::Memory, new_image(tiny(segments)));
    let log = simulation::open(&disk, 1, options).expect("a new log opens");
    assert_eq!(log.persistence(), Persistence::PersistentMemory);
    (disk, log)
}

/// What the log holds on a medium that got nothing but what was fenced.
fn after_power_loss(disk: &Simulated) -> Vec<Vec<u8>> {
    let survived = Simulated::new_of(Kind::Memory, disk.disk());
    let log = simulation::open(&survived, 2, manual()).expect("it recovers");
    let contents = contents(&log);
    log.kill();
    contents
}

#[test]
fn what_is_durable_is_on_the_medium_with_all_before_it() {
    let (disk, log) = recorded(3, manual());
    log.append(b"a neighbour's").expect("there is room");
    log.append(b"another's").expect("there is room");
    log.append_durable(b"mine").expect("memory takes it");
    log.append(b"nobody waits for it").expect("there is room");
    assert_eq!(after_power_loss(&disk), [&b"a neighbour's"[..], b"another's", b"mine"]);
    log.append_durable(b"the next").expect("memory takes it");
    assert_eq!(after_power_loss(&disk).len(), 5);
    log.kill();
}

#[test]
fn a_commit_behind_a_hole_is_not_durable() {
    let (disk, log) = recorded(3, manual());
    log.append_durable(b"first").expect("memory takes it");
    let durable = log.watermarks().durable;
    let hole = log.reserve(8).expect("there is room");
    let lsn = log.append(b"behind it").expect("there is room");
    assert!(matches!(log.wait_durable(lsn), Err(WaitError::HeldBack { .. })));
    let appended = log.append_durable(b"behind it too");
    assert!(matches!(appended, Err(Error::Wait(WaitError::HeldBack { .. }))), "{appended:?}");
    assert_eq!(log.watermarks().durable, durable);
    assert_eq!(after_power_loss(&disk), [b"first"]);
    hole.commit();
    log.wait_durable(lsn).expect("memory takes it");
    assert_eq!(after_power_loss(&disk).len(), 4);
    log.kill();
}

#[test]
fn a_segment_is_entered_with_its_header() {
    let (disk, log) = recorded(4, manual());
    let mut written = 0;
    while log.watermarks().reserved.get() < 3 * 8192 {
        log.step_janitor();
        log.append_durable(&[written; 900]).expect("memory takes it");
        written += 1;
        assert_eq!(after_power_loss(&disk).len(), usize::from(written));
    }
    log.kill();
}

/// Order 4 of the design, at every moment of a run of several laps.
#[test]
fn a_trim_is_on_the_medium_before_its_segment_is_recycled() {
    let geometry = tiny(3);
    let (disk, log) = recorded(3, Options::new().on_full(OnFull::Overwrite));
    for number in 0..60_u8 {
        log.step_janitor();
        log.append_durable(&[number; 900]).expect("the oldest makes room");
    }
    log.kill();
    let mut recycled = 0;
    for moment in 0..disk.observe_now() {
        let medium = disk.at(moment);
        let cache = medium.cache();
        let trimmed = newest_checkpoint(&medium.oldest()).trimmed;
        for slot in 0..3 {
            let start = geometry.slot_offset(slot) as usize;
            let sequence = u64::from_le_bytes(cache[start..start + 8].try_into().expect("8 bytes"));
            // The word is one more than the sequence that is prepared; the place held the one that
            // is a lap lower.
            if let Some(before) = sequence.checked_sub(4) {
                recycled += 1;
                let end = geometry.first_record(before as u32 + 1);
                assert!(end <= trimmed, "segment {before} is gone at {moment}, not {trimmed}");
            }
        }
    }
    assert!(recycled > 0);
}

#[test]
fn evidence_and_footers_are_left_and_believed() {
    let (disk, log) = recorded(4, Options::new());
    let append = |byte| {
        log.step_janitor();
        log.append_durable(&[byte; 700]).expect("memory takes it")
    };
    let lsns: Vec<_> = (1..10).map(append).collect();
    log.step_flusher(false);
    log.append_durable(b"after the evidence").expect("memory takes it");
    log.kill();
    let mut image = disk.disk();
    assert!(newest_checkpoint(&image).durable <= lsns[0], "no slot says what is durable");
    let id = Superblock::verify(&image).expect("it is whole").log_id;
    let footer = &image[tiny(4).footer_offset(0) as usize..];
    let footer = Footer::verify(footer, &id, tiny(4).lsn(0, 0)).expect("it is on the medium");
    assert_eq!((footer.contents.first, footer.contents.records), (lsns[0], 5));
    // The newest evidence lies a little behind.
    image[tiny(4).file_offset(lsns[6]) as usize + 20] ^= 1;
    let refused = simulation::open(&Simulated::new_of(Kind::Memory, image), 2, manual());
    assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{refused:?}");
}

/// The file of a process that was killed in one mode opens in the other: nothing is lost.
#[test]
fn either_mode_opens_what_the_other_has_left() {
    for (from, to) in [(Kind::Memory, Kind::Disk), (Kind::Disk, Kind::Memory)] {
        let disk = Simulated::new_of(from, new_image(tiny(3)));
        let log = simulation::open(&disk, 1, manual()).expect("a new log opens");
        log.append_durable(b"durable").expect("it is taken");
        log.append(b"committed").expect("there is room");
        log.kill();
        let next = Simulated::new_of(to, disk.cache());
        let log = simulation::open(&next, 1, manual()).expect("it opens");
        assert_eq!(contents(&log), [&b"durable"[..], b"committed"]);
        log.append_durable(b"more").expect("it is taken");
        log.kill();
        let log = simulation::open(&Simulated::new_of(from, next.disk()), 2, manual());
        assert_eq!(contents(&log.expect("it opens")).len(), 3);
    }
}

/// With its threads: a durable tail that sleeps is woken by whoever makes a record durable, and the
/// flusher notices that the log has gone quiet.
#[test]
fn sleepers_are_woken_and_a_quiet_log_is_proven() {
    let disk = Simulated::new_of(Kind::Memory, new_image(tiny(3)));
    let wal = Arc::new(open(&disk, 1, Options::new()).expect("a new log opens"));
    let follow = |wal: &Wal| {
        let mut tail = wal.tail(Position::Oldest).expect("a pin is free").durable_only();
        let record = tail.next(Duration::from_secs(60)).expect("it is open");
        record.map(|record| record.payload().to_vec())
    };
    let tail = spawn("tail", {
        let wal = wal.clone();
        move || assert_eq!(follow(&wal).as_deref(), Some(&b"news"[..]))
    });
    std::hint::black_box(wal.append(b"news").expect("there is room"));
    let start = Instant::now();
    wal.sync().expect("memory takes it");
    tail.expect("a thread starts").join().expect("the tail is woken");
    let durable = wal.watermarks().durable;
    while newest_checkpoint(&disk.disk()).durable < durable {
        assert!(start.elapsed() < Duration::from_secs(30), "the log is quiet, and no slot says so");
        crate::sync::park_timeout(Duration::from_millis(5));
    }
    kill(Arc::into_inner(wal).expect("the tail is done"));
}
