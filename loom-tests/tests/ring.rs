//! Models of the ring: reserve, commit, publish, rotate, recycle, pin, close, sleep and wake.
//!
//! The code under the models is the shipped code; payload bytes are watched by loom's cells, so a
//! missing happens-before edge is reported as a data race.
#![cfg(wal_loom)]

use std::time::Duration;

use kaelix_wal::model::Log;
use loom::thread;

/// Explores all executions with at most `preemptions` involuntary switches.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder.check(model);
}

/// Two writers, one publisher: nobody overlaps, and whatever is published is whole.
#[test]
fn reserve_and_commit_against_the_publisher() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append(b"one").expect("there is room"))
        };
        let two = log.append(b"two").expect("there is room");
        log.publish();
        for record in log.contents() {
            assert!(record == b"one" || record == b"two");
        }
        let one = writer.join().expect("no panic");
        log.publish();
        assert_eq!(log.contents().len(), 2);
        assert_eq!(log.get(one).as_deref(), Some(&b"one"[..]));
        assert_eq!(log.get(two).as_deref(), Some(&b"two"[..]));
    });
}

/// Two writers meet the end of a segment: one pads, anyone rotates, both find room.
#[test]
fn pad_and_rotation_raced_by_two_writers() {
    check(3, || {
        let log = Log::new(2, 2, 48);
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append(&[1; 20]).expect("the next one is prepared"))
        };
        log.append(&[2; 20]).expect("the next one is prepared");
        writer.join().expect("no panic");
        log.publish();
        let mut contents = log.contents();
        contents.sort();
        assert_eq!(contents, [vec![1; 20], vec![2; 20]]);
    });
}

/// The ring is full; the janitor trims, zeroes and hands over; a writer claims what was recycled.
#[test]
fn full_then_recycled_then_claimed_again() {
    check(3, || {
        let log = Log::new(2, 2, 32);
        let first = log.append(&[1; 16]).expect("there is room");
        log.append(&vec![2; 4016]).expect("the second segment takes it");
        let end = log.publish();
        assert!(end > first && log.append(&[3; 16]).is_none(), "the ring is full");
        let writer = {
            let log = log.clone();
            thread::spawn(move || {
                while log.append(&[4; 16]).is_none() {
                    thread::yield_now();
                }
            })
        };
        assert!(log.trim_and_prepare(end, 2), "nothing is pinned");
        writer.join().expect("no panic");
        log.publish();
        assert_eq!(log.contents(), [vec![4; 16]]);
    });
}

/// The janitor against a reader that takes a pin: either the reader gives up, or its bytes stay.
#[test]
fn a_pin_against_the_janitor() {
    check(3, || {
        let log = Log::new(2, 2, 64);
        let lsn = log.append(&[1; 16]).expect("there is room");
        log.append(&vec![2; 4016]).expect("the second segment takes it");
        let end = log.publish();
        let reader = {
            let log = log.clone();
            thread::spawn(move || log.get(lsn))
        };
        log.trim_and_prepare(end, 2);
        if let Some(bytes) = reader.join().expect("no panic") {
            assert_eq!(bytes, [1; 16]);
        }
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
                let mut reservation = log.reserve(16).expect("there is room");
                reservation[0] = 9;
            })
        };
        log.append(b"kept").expect("there is room");
        log.publish();
        aborter.join().expect("no panic");
        log.publish();
        assert_eq!(log.contents(), [b"kept"]);
    });
}

/// A claim counts if and only if it came before the freeze.
#[test]
fn a_claim_against_the_close() {
    check(3, || {
        let log = Log::new(2, 2, 48);
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append(&[1; 40]))
        };
        let end = log.close();
        let appended = writer.join().expect("no panic");
        assert_eq!(log.publish(), end);
        assert_eq!(log.contents().len(), usize::from(appended.is_some()));
        assert!(log.append(b"late").is_none());
    });
}

/// A tail reader that sleeps is woken by the record it waits for: a lost wake-up is a deadlock.
#[test]
fn a_sleeping_tail_is_woken() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let reader = {
            let log = log.clone();
            thread::spawn(move || {
                let mut tail = log.tail();
                let record = tail.next(Duration::from_secs(3600)).expect("it is open");
                assert_eq!(record.expect("it comes").payload(), b"news");
            })
        };
        log.append(b"news").expect("there is room");
        reader.join().expect("no panic");
    });
}

/// Two waiters share syncs; neither sleeps for ever, and neither returns too early.
#[test]
fn group_commit_loses_no_wake_up() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let other = {
            let log = log.clone();
            thread::spawn(move || {
                let lsn = log.append(b"one").expect("there is room");
                log.wait_durable(lsn).expect("the sync succeeds");
                assert!(log.durable() > lsn);
            })
        };
        let lsn = log.append(b"two").expect("there is room");
        log.wait_durable(lsn).expect("the sync succeeds");
        assert!(log.durable() > lsn);
        other.join().expect("no panic");
    });
}
