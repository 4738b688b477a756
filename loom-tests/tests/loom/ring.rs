//! Models of the ring: claim, commit, pad, rotate, publish, abort, freeze.

use crate::{check, in_turn, run};
use kaelix_wal::model::Log;
use loom::thread;

/// Two writers, one publisher: nobody overlaps, and whatever is published is whole.
#[test]
fn reserve_and_commit_against_the_publisher() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(b"one").expect("there is room"))
        };
        let two = log.append_once(b"two").expect("there is room");
        log.publish();
        for record in log.contents() {
            assert!(record == b"one" || record == b"two");
        }
        let one = writer.join().expect("no panic");
        log.publish();
        assert_eq!(log.contents().len(), 2);
        assert_eq!(log.read(one).as_deref(), Some(&b"one"[..]));
        assert_eq!(log.read(two).as_deref(), Some(&b"two"[..]));
    });
}

/// Two walkers: whoever is told that bytes are published may use them without looking at a commit
/// word, whichever of the two walked over them. Each record is counted once.
#[test]
fn what_is_published_can_be_used_unseen() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let start = log.published();
        in_turn([
            run(&log, |log| _ = log.append_once(b"one")),
            run(&log, |log| _ = log.publish()),
            run(&log, move |log| {
                let end = log.publish();
                assert_eq!(log.image(start, end).len(), usize::from(end > start));
            }),
        ]);
        log.publish();
        assert_eq!(log.metrics().records_published, 1);
    });
}

/// Two writers meet the end of a segment: one pads, anyone rotates, both find room.
#[test]
fn pad_and_rotation_raced_by_two_writers() {
    check(3, || {
        let log = Log::new(2, 2, 48);
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(&[1; 20]).expect("the next one is prepared"))
        };
        log.append_once(&[2; 20]).expect("the next one is prepared");
        writer.join().expect("no panic");
        log.publish();
        let mut contents = log.contents();
        contents.sort();
        assert_eq!(contents, [vec![1; 20], vec![2; 20]]);
    });
}

/// A long claim, which is a compare-and-swap, against short ones and the end of the segment.
#[test]
fn a_long_claim_against_short_ones() {
    check(3, || {
        let log = Log::new(2, 2, 1200);
        let writer = {
            let log = log.clone();
            thread::spawn(move || drop(log.try_reserve(1168).expect("the next one has room")))
        };
        log.append_once(b"one").expect("there is room");
        log.append_once(b"two").expect("there is room");
        writer.join().expect("no panic");
        let end = log.publish();
        assert_eq!(end, log.look().reserved, "without gap or overlap");
        assert_eq!(log.contents(), [b"one", b"two"]);
    });
}

/// Writers that are refused leave nothing behind, however far they overshot.
#[test]
fn refused_claims_leave_no_trace() {
    check(3, || {
        let log = Log::new(2, 1, 32);
        log.append_once(&[1; 16]).expect("there is room");
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(&[2; 64]))
        };
        assert!(log.append_once(&[3; 64]).is_none(), "it is full");
        assert!(log.trim_and_prepare(log.publish(), 1));
        log.append_once(&[4; 16]).expect("there is room");
        let late = writer.join().expect("no panic");
        let end = log.publish();
        assert_eq!(end, log.look().reserved);
        assert_eq!(log.contents().len(), 1 + usize::from(late.is_some()));
    });
}

/// An aborted reservation is a pad: what was committed behind it gets published.
#[test]
fn abort_on_drop_lets_the_log_go_on() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let aborter = {
            let log = log.clone();
            thread::spawn(move || {
                let mut reservation = log.try_reserve(16).expect("there is room");
                reservation[0] = 9;
            })
        };
        log.append_once(b"kept").expect("there is room");
        log.publish();
        aborter.join().expect("no panic");
        log.publish();
        assert_eq!(log.contents(), [b"kept"]);
    });
}

/// What a short commit leaves over is a pad before the record is there: a walk that passes the
/// record passes the pad as well.
#[test]
fn a_short_commit_leaves_no_hole() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let start = log.published();
        let writer = {
            let log = log.clone();
            thread::spawn(move || {
                let mut reservation = log.try_reserve(40).expect("there is room");
                reservation[..4].copy_from_slice(b"some");
                reservation.commit_len(4);
            })
        };
        let end = log.publish();
        assert!(end == start || end == log.look().reserved, "a walk passes all of it, or nothing");
        assert_eq!(log.image(start, end).len(), usize::from(end > start));
        writer.join().expect("no panic");
        assert_eq!(log.publish(), log.look().reserved);
    });
}

/// A claim counts if and only if it came before the freeze; the close waits for its commit.
#[test]
fn a_commit_against_the_close() {
    check(3, || {
        let log = Log::new(2, 2, 48);
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(&[1; 40]))
        };
        log.close().expect("the disk takes it");
        let end = log.durable();
        let appended = writer.join().expect("no panic");
        assert_eq!(log.publish(), end);
        assert_eq!(log.look().reserved, end);
        assert_eq!(log.contents().len(), usize::from(appended.is_some()));
        assert!(log.append_once(b"late").is_none());
    });
}

/// The same, when a failed sync freezes the log: what was claimed is committed all the same.
#[test]
fn a_commit_against_poisoning() {
    check(3, || {
        let log = Log::new(2, 2, 48);
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(&[1; 40]))
        };
        log.poison();
        let end = log.look().reserved;
        let appended = writer.join().expect("no panic");
        assert_eq!(log.publish(), end);
        assert_eq!(log.contents().len(), usize::from(appended.is_some()));
        assert!(log.append_once(b"late").is_none());
    });
}
