//! Models of sleeping and waking: tail readers, the flusher, writers at a full ring. A lost wake-up
//! is a deadlock, which loom reports.

use std::time::Duration;

use crate::check;
use kaelix_wal::model::Log;
use kaelix_wal::{Durability, Options};
use loom::thread;

const NEVER: Duration = Duration::from_secs(3600);

/// Waits for the first record.
fn first(log: &Log) -> Vec<u8> {
    let mut tail = log.follow();
    let record = tail.next(NEVER).expect("it is open").expect("it comes");
    record.payload().to_vec()
}

/// A tail reader that sleeps is woken by the record it waits for.
#[test]
fn a_sleeping_tail_is_woken() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let reader = {
            let log = log.clone();
            thread::spawn(move || assert_eq!(first(&log), b"news"))
        };
        log.append_once(b"news").expect("there is room");
        reader.join().expect("no panic");
    });
}

/// A flag that one record's producer clears while another's has still to commit.
#[test]
fn a_flag_cleared_by_a_later_record_wakes_for_the_earlier() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let reader = {
            let log = log.clone();
            thread::spawn(move || drop(first(&log)))
        };
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(b"one"))
        };
        log.append_once(b"two").expect("there is room");
        writer.join().expect("no panic");
        reader.join().expect("no panic");
    });
}

/// Two readers: one's flag is cleared on behalf of the other.
#[test]
fn two_tails_go_to_sleep() {
    check(1, || {
        let log = Log::new(2, 1, 1024);
        let readers = [(), ()].map(|()| {
            let log = log.clone();
            thread::spawn(move || assert_eq!(first(&log), b"news"))
        });
        log.append_once(b"news").expect("there is room");
        for reader in readers {
            reader.join().expect("no panic");
        }
    });
}

/// A tail of durable records is woken by the sync, not by the commit.
#[test]
fn a_durable_tail_is_woken_by_the_sync() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let reader = {
            let log = log.clone();
            thread::spawn(move || {
                let mut tail = log.follow().durable_only();
                let record = tail.next(NEVER).expect("it is open").expect("it comes");
                let lsn = record.lsn();
                assert!(log.durable() > lsn && log.is_synced(lsn));
            })
        };
        let lsn = log.append_once(b"news").expect("there is room");
        log.wait_durable(lsn).expect("the disk takes it");
        reader.join().expect("no panic");
    });
}

/// A flusher that sleeps without a timer is rung by the first sync: it has a slot to write then.
#[test]
fn an_idle_flusher_is_rung_by_the_first_sync() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let flusher = {
            let log = log.clone();
            thread::spawn(move || log.nap_as_flusher())
        };
        let lsn = log.append_once(b"one").expect("there is room");
        log.wait_durable(lsn).expect("the disk takes it");
        flusher.join().expect("no panic");
    });
}

/// A flusher that syncs at an interval, asleep because all is settled, is rung by the next claim.
#[test]
fn a_sleeping_flusher_is_rung_by_the_next_record() {
    check(3, || {
        let interval = Durability::Interval(Duration::from_millis(5));
        let log = Log::with_options(2, 1, 1024, Options::new().durability(interval));
        let flusher = {
            let log = log.clone();
            thread::spawn(move || log.nap_as_flusher())
        };
        log.append_once(b"one").expect("there is room");
        flusher.join().expect("no panic");
    });
}

/// A writer that waits at a full ring is woken once there is room.
#[test]
fn a_writer_at_a_full_ring_is_woken() {
    check(3, || {
        let options = Options::new().durability(Durability::None);
        let log = Log::with_options(2, 2, 32, options);
        log.append_once(&[1; 16]).expect("there is room");
        log.fill_segment(4032);
        let end = log.publish();
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append(&[2; 16]).expect("room is made"))
        };
        assert!(log.trim_and_prepare(end, 2));
        let lsn = writer.join().expect("no panic");
        log.publish();
        assert_eq!(log.read(lsn).as_deref(), Some(&[2; 16][..]));
    });
}
