//! Following a log from a task.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use common::{MODES, Place, within_patience};
use futures_util::StreamExt;
use kaelix_wal::inspect::Observer;
use kaelix_wal::{Durability, EntryReader, Options, OwnedEntry, Position, Wal};

fn collect(reader: EntryReader<'_>) -> Vec<OwnedEntry> {
    pollster::block_on(reader.followed().map(|entry| entry.expect("it verifies")).collect())
}

#[test]
fn a_task_follows_a_stream_to_the_end_in_every_mode() {
    for mode in MODES {
        let place = Place::new();
        let wal = Arc::new(place.create(Options::new().durability(mode)));
        within_patience("a task gets all entries", move || {
            let writer = wal.clone();
            let appending = std::thread::spawn(move || {
                let stream = writer.stream("numbers").expect("it is created");
                for number in 0..3000_u32 {
                    stream.append(&number.to_le_bytes()).expect("there is room");
                    writer.append(b"of no stream").expect("there is room");
                    if number % 300 == 0 {
                        std::thread::yield_now();
                    }
                }
                writer.close().expect("nothing is in the way");
            });
            let stream = wal.stream("numbers").expect("it is there");
            let found = collect(stream.read(Position::Oldest).expect("it can be read"));
            appending.join().expect("no panic");
            let numbers = found
                .iter()
                .map(|entry| u32::from_le_bytes(entry.payload[..].try_into().expect("four bytes")));
            assert!(numbers.eq(0..3000));
        });
    }
}

/// The claim was made before the task slept: its owner knows of nobody who waits.
#[test]
fn a_task_finds_what_was_reserved_before_it_slept() {
    let place = Place::new();
    let wal = Arc::new(place.create(Options::new().durability(Durability::OnDemand)));
    within_patience("a task is woken", move || {
        for round in 0..20_u64 {
            let mut reservation = wal.reserve(8).expect("there is room");
            reservation.copy_from_slice(&round.to_le_bytes());
            let follower = wal.clone();
            let (asleep, is_asleep) = std::sync::mpsc::channel();
            let following = std::thread::spawn(move || {
                let reader = follower.entries(Position::Newest).expect("a pin is free");
                let mut followed = pin!(reader.followed());
                pollster::block_on(async {
                    let sleeps = poll_fn(|context| {
                        Poll::Ready(followed.as_mut().poll_next_unpin(context).is_pending())
                    });
                    asleep.send(sleeps.await).expect("somebody listens");
                    followed.next().await.expect("the log is open").expect("it verifies")
                })
            });
            assert!(is_asleep.recv().expect("it says so"), "round {round}");
            reservation.commit();
            let entry = following.join().expect("no panic");
            assert_eq!(entry.payload[..], round.to_le_bytes());
        }
    });
}

#[test]
fn a_task_that_wants_durable_entries_alone_waits_for_the_sync() {
    let place = Place::new();
    let wal = Arc::new(place.create(Options::new()));
    within_patience("a task gets what is durable", move || {
        let follower = wal.clone();
        let following = std::thread::spawn(move || {
            let reader = follower.entries(Position::Oldest).expect("a pin is free");
            let mut followed = pin!(reader.durable_only().followed());
            let first = pollster::block_on(followed.next());
            let entry = first.expect("the log is open").expect("it verifies");
            assert!(follower.watermarks().durable > entry.lsn);
        });
        let lsn = wal.append(b"x").expect("there is room");
        wal.wait_durable(lsn).expect("the disk takes it");
        following.join().expect("no panic");
    });
}

#[test]
fn many_tasks_that_come_and_go_leave_nothing() {
    let place = Place::new();
    let wal = Arc::new(place.create(Options::new()));
    within_patience("tasks come and go", move || {
        for round in 0..200_u32 {
            let reader = wal.entries(Position::Newest).expect("a pin is free");
            let mut followed = pin!(reader.followed());
            let polled = pollster::block_on(poll_fn(|context| {
                Poll::Ready(followed.as_mut().poll_next_unpin(context).is_pending())
            }));
            assert!(polled, "round {round}");
        }
        wal.append(b"nobody is woken").expect("there is room");
        wal.close().expect("nothing is in the way");
    });
}

/// Segments of 64 KiB, of which this log keeps few ready.
#[test]
fn nothing_is_missed_since_a_time() {
    let place = Place::new();
    let wal = place.create(Options::new().durability(Durability::None));
    // How many are found from inside and from outside. Where each starts differs, if a segment is
    // prepared between the two.
    let all = |wal: &Wal, time| {
        let observer = Observer::open(&place.path).expect("it can be read");
        let seen = observer.since(time).expect("it can be read");
        let from = wal.since(time).expect("it can be read");
        [from, seen].map(|from| collect_now(wal.entries(from).expect("it can be read")).len())
    };
    let before = SystemTime::now();
    wal.append(b"first").expect("there is room");
    assert_eq!(all(&wal, before), [1, 1]);
    assert_eq!(all(&wal, SystemTime::UNIX_EPOCH), [1, 1]);
    // Long ahead of every segment: all that is certain is that the newest have to be looked at.
    let later = SystemTime::now() + Duration::from_secs(3600);
    assert!(all(&wal, later).iter().all(|found| *found <= 1));
    let mut times = Vec::new();
    let mut appended = 1;
    for round in 0..40_u32 {
        times.push((SystemTime::now(), appended));
        for _ in 0..20 {
            let lsn = wal.append(&[round as u8; 3000]).expect("checkpoints make room");
            appended += 1;
            if round % 2 == 0 {
                wal.checkpoint(lsn).expect("a boundary");
            }
        }
    }
    for (time, before) in times {
        let [inside, outside] = all(&wal, time);
        let retained = collect_now(wal.entries(Position::Oldest).expect("it can be read")).len();
        let found = inside.min(outside);
        assert!(found >= retained.min(appended - before), "{found} since {time:?}");
    }
}

fn collect_now(reader: EntryReader<'_>) -> Vec<OwnedEntry> {
    reader.copied().map(|entry| entry.expect("it verifies")).collect()
}
