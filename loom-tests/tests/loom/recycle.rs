//! Models of recycling: zeroing, pins, walks, the janitor and what it sleeps for.

use crate::{check, in_turn, run};
use kaelix_wal::model::Log;
use kaelix_wal::{Durability, Lsn, Options, Position};
use loom::thread;

/// Bytes of a whole segment's records.
const WHOLE: u32 = 4032;

/// A ring of two segments: the first holds `records` of 16 bytes from its start, then a pad; the
/// second is one pad. Returns what was appended, and the end.
fn full(records: u8) -> (Log, Vec<Lsn>, Lsn) {
    let log = Log::new(2, 2, WHOLE);
    let lsns = (1..=records).map(|n| log.append_once(&[n; 16]).expect("there is room")).collect();
    log.fill_segment(WHOLE - 32 * u32::from(records));
    log.fill_segment(WHOLE);
    let end = log.publish();
    (log, lsns, end)
}

/// The ring is full; the janitor trims, zeroes and hands over; a writer claims what was recycled.
#[test]
fn full_then_recycled_then_claimed_again() {
    check(3, || {
        let (log, _, end) = full(1);
        assert!(log.append_once(&[3; 16]).is_none(), "the ring is full");
        let writer = {
            let log = log.clone();
            thread::spawn(move || {
                while log.append_once(&[4; 16]).is_none() {
                    thread::yield_now();
                }
            })
        };
        assert!(log.trim_and_prepare(end, 2), "nothing is pinned");
        writer.join().expect("no panic");
        log.publish();
        assert_eq!(log.contents(), [[4; 16]]);
    });
}

/// A claim in a recycled segment takes over its zeroing from whoever rotated, without a look at
/// `prepared` of its own: a single `fetch_add`, or a compare-and-swap.
#[test]
fn a_claim_takes_over_the_zeroing_from_the_rotation() {
    for len in [16, 1500] {
        check(3, move || {
            let (log, _, end) = full(1);
            let writers = [16, len].map(|len| {
                let log = log.clone();
                thread::spawn(move || {
                    let reservation = log.try_reserve(len).ok()?;
                    assert!(reservation[..16].iter().all(|byte| *byte == 0), "it was zeroed");
                    Some(reservation.commit())
                })
            });
            assert!(log.trim_and_prepare(end, 2));
            let lsns = writers.map(|writer| writer.join().expect("no panic"));
            let claimed = lsns.iter().flatten().count();
            log.publish();
            assert_eq!(log.contents().len(), claimed);
        });
    }
}

/// Nothing of a segment's last lap shows in its next one.
#[test]
fn a_recycled_segment_holds_nothing() {
    check(2, || {
        let (log, _, end) = full(2);
        assert!(log.trim_and_prepare(end, 2));
        assert_eq!(log.publish(), end, "nothing was claimed");
        let open = log.try_reserve(16).expect("there is room");
        let walker = {
            let log = log.clone();
            thread::spawn(move || assert_eq!(log.publish(), end, "nothing was committed"))
        };
        assert_eq!(open[..], [0; 16]);
        walker.join().expect("no panic");
        drop(open);
    });
}

/// The janitor against a reader that takes a pin: either the reader gives up, or its bytes stay.
#[test]
fn a_pin_against_the_janitor() {
    check(3, || {
        let (log, lsns, end) = full(1);
        let reader = {
            let (log, lsn) = (log.clone(), lsns[0]);
            thread::spawn(move || log.read(lsn))
        };
        log.trim_and_prepare(end, 2);
        if let Some(bytes) = reader.join().expect("no panic") {
            assert_eq!(bytes, [1; 16]);
        }
    });
}

/// A reader goes on to the next segment: what it has read may then be zeroed, not before.
#[test]
fn a_pin_that_moves_on_against_the_janitor() {
    check(3, || {
        let (log, _, end) = full(1);
        let reader = {
            let log = log.clone();
            thread::spawn(move || {
                let mut reader = log.reader(Position::Oldest).expect("a pin is free");
                while let Some(record) = reader.next().expect("every record verifies") {
                    assert_eq!(record.payload(), [1; 16]);
                }
            })
        };
        log.trim_and_prepare(end, 2);
        reader.join().expect("no panic");
    });
}

/// A slot that changes hands: its second owner's release stands for what the first has read.
#[test]
fn a_slot_that_changes_hands_against_the_janitor() {
    check(3, || {
        let (log, lsns, end) = full(1);
        let readers = [lsns[0], log.segment_start(1)].map(|lsn| {
            let log = log.clone();
            thread::spawn(move || drop(log.read(lsn)))
        });
        log.trim_and_prepare(end, 2);
        for reader in readers {
            reader.join().expect("no panic");
        }
    });
}

/// A reader gives a record a pin of its own in an earlier slot, and then moves its own pin on: the
/// janitor's first look at the slots can miss both, its second cannot.
#[test]
fn a_pin_handed_from_slot_to_slot_against_the_janitor() {
    check(3, || {
        let (log, lsns, end) = full(1);
        let reader = {
            let (log, lsn) = (log.clone(), lsns[0]);
            thread::spawn(move || {
                let Ok(first) = log.get(lsn) else { return };
                let Ok(mut reader) = log.reader(Position::At(lsn)) else { return };
                // The reader's pin is in the later slot; the earlier one becomes free.
                drop(first);
                let kept = reader.next_pinned().expect("a pin is free").expect("it is there");
                assert!(reader.next().expect("every record verifies").is_none());
                assert!(reader.position() > log.segment_start(1), "its pin has moved on");
                assert_eq!(kept.payload(), [1; 16]);
            })
        };
        log.trim_and_prepare(end, 2);
        reader.join().expect("no panic");
    });
}

/// A walker that sleeps while the ring goes round reads no bytes of the next lap.
#[test]
fn a_walker_sleeps_while_the_ring_goes_round() {
    check(3, || {
        // Where the walk starts, the next lap will have payload.
        let log = Log::new(2, 2, WHOLE - 32);
        log.append_once(&[1; 16]).expect("there is room");
        log.fill_segment(WHOLE - 64);
        log.fill_segment(WHOLE);
        let walker = {
            let log = log.clone();
            thread::spawn(move || log.publish())
        };
        let end = log.publish();
        assert_eq!(end, log.segment_start(2));
        if log.trim_and_prepare(end, 2) {
            log.append_once(&[2; 80]).expect("there is room");
        }
        let seen = walker.join().expect("no panic");
        assert!(seen >= end, "a walker returns what is published, or more");
        assert_eq!(log.publish(), log.look().reserved);
    });
}

/// The watermarks stand in their order for whoever looks, at every moment, whoever moves them.
#[test]
fn watermarks_keep_their_order_for_every_looker() {
    check(1, || {
        let log = Log::new(2, 1, 32);
        in_turn([
            run(&log, |log| _ = log.append_once(&[1; 16])),
            run(&log, |log| log.sync_published()),
            run(&log, |log| _ = log.trim_and_prepare(log.durable(), 1)),
            run(&log, |log| {
                let now = log.look();
                assert!(now.trimmed <= now.durable, "{now:?}");
                assert!(now.durable <= now.published, "{now:?}");
                assert!(now.published <= now.reserved, "{now:?}");
                assert!(now.reserved <= now.writable, "{now:?}");
            }),
        ]);
    });
}

/// The same, where a segment is prepared and then entered.
#[test]
fn watermarks_keep_their_order_across_a_rotation() {
    check(2, || {
        let log = Log::new(2, 1, 32);
        log.append_once(&[1; 16]).expect("there is room");
        in_turn([
            run(&log, |log| _ = log.trim_and_prepare(log.look().trimmed, 1)),
            run(&log, |log| _ = log.append_once(&[2; 16])),
            run(&log, |log| {
                let now = log.look();
                assert!(now.reserved <= now.writable, "{now:?}");
            }),
        ]);
    });
}

/// A process that copies from the file never takes one lap's words for another's.
#[test]
fn a_copier_sees_one_lap_or_none() {
    check(3, || {
        let (log, _, end) = full(1);
        let old = log.observe(0, 64).expect("nobody writes");
        let copier = {
            let log = log.clone();
            thread::spawn(move || {
                match log.observe(0, 64) {
                    // Half prepared: a copier waits.
                    None | Some((0, _)) => {}
                    Some((sequence, word)) if sequence == old.0 => assert_eq!(word, old.1),
                    Some((_, word)) => assert_eq!(word, 0, "a word of the last lap"),
                }
            })
        };
        assert!(log.trim_and_prepare(end, 2));
        copier.join().expect("no panic");
    });
}

/// A checkpoint comes while the janitor goes to sleep: it is seen, or it rings.
#[test]
fn a_checkpoint_against_a_janitor_going_to_sleep() {
    check(2, || {
        let options = Options::new().durability(Durability::None);
        let log = Log::with_options(2, 2, 32, options);
        log.append_once(&[1; 16]).expect("there is room");
        let end = log.publish();
        let janitor = log.start_janitor();
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(&[2; 16]))
        };
        log.request_trim(end);
        log.wait_prepared(2);
        log.stop_janitor();
        writer.join().expect("no panic");
        janitor.join().expect("no panic");
    });
}

/// The janitor waits for a sync: it sees the new `durable`, or whoever moved it rings.
#[test]
fn a_sync_against_a_janitor_going_to_sleep() {
    check(3, || {
        let log = Log::new(2, 2, 32);
        let lsn = log.append_once(&[1; 16]).expect("there is room");
        log.append_once(&[2; 16]).expect("there is room");
        let end = log.publish();
        log.checkpoint(end).expect("a boundary");
        let janitor = log.start_janitor();
        log.wait_durable(lsn).expect("the disk takes it");
        log.wait_prepared(2);
        log.stop_janitor();
        janitor.join().expect("no panic");
    });
}

/// The janitor waits for a pin that goes, or moves on: it sees that, or it is rung.
#[test]
fn a_pin_that_goes_against_a_janitor_going_to_sleep() {
    for moves_on in [false, true] {
        check(3, move || {
            let options = Options::new().durability(Durability::None);
            let log = Log::with_options(2, 2, 32, options);
            log.append_once(&[1; 16]).expect("there is room");
            log.fill_segment(WHOLE);
            log.checkpoint(log.publish()).expect("a boundary");
            let mut reader = log.reader(Position::Oldest).expect("a pin is free");
            let janitor = log.start_janitor();
            if moves_on {
                while reader.next().expect("every record verifies").is_some() {}
                log.wait_prepared(2);
                drop(reader);
            } else {
                drop(reader);
                log.wait_prepared(2);
            }
            log.append_once(&[2; 16]).expect("room was made");
            log.stop_janitor();
            janitor.join().expect("no panic");
        });
    }
}
