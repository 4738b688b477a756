//! Larger configurations than loom can exhaust, under random schedules.
//!
//! Shuttle knows no weak memory: it interleaves, and treats every atomic as sequentially
//! consistent. It finds wrong interleavings, accesses that nothing orders, and lost wake-ups, in
//! runs of several laps with all the log's threads. A failing seed is printed;
//! `SHUTTLE_RANDOM_SEED=<seed> KAELIX_SHUTTLE_ITERATIONS=1 bash scripts/loom.sh <model>` replays
//! it. (Where the output says "all of this again", leave out the iterations: they are one draw.)
#![cfg(wal_shuttle)]

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use kaelix_wal::model::Log;
use kaelix_wal::{CheckpointError, Durability, Options, Position, ReadError};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

/// Runs `model` under as many schedules as the environment says, or `share` by default.
fn explore(share: usize, model: impl Fn() + Send + Sync + 'static) {
    Runner::new(RandomScheduler::new(iterations(share)), config()).run(model);
}

/// As `explore`, where a thread runs on until one of few random places: finds what takes few
/// switches, but each at its place.
fn explore_by_priority(switches: usize, share: usize, model: impl Fn() + Send + Sync + 'static) {
    // Shuttle takes the variable's seed itself, but says nothing about either.
    let given = std::env::var("SHUTTLE_RANDOM_SEED").ok();
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(share).to_string());
    eprintln!("all of this again: SHUTTLE_RANDOM_SEED={seed}");
    let seed = seed.parse().expect("SHUTTLE_RANDOM_SEED is a number");
    let scheduler = PctScheduler::new_from_seed(seed, switches, iterations(share));
    Runner::new(scheduler, config()).run(model);
}

fn iterations(share: usize) -> usize {
    match std::env::var("KAELIX_SHUTTLE_ITERATIONS") {
        Ok(text) => text.parse().expect("KAELIX_SHUTTLE_ITERATIONS is a number"),
        Err(_) => share,
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.silence_warnings = true;
    config.max_steps = shuttle::MaxSteps::FailAfter(2_000_000);
    config
}

/// A record that says who wrote it and which of his it is, filled up to `len` bytes.
fn record(writer: u8, number: u8, len: usize) -> Vec<u8> {
    let mut record = vec![writer ^ number; len];
    record[..2].copy_from_slice(&[writer, number]);
    record
}

/// Starts a writer of `count` records, `len` bytes each, that wait for room.
fn writer(log: &Log, writer: u8, count: u8, len: usize) -> thread::JoinHandle<()> {
    let log = log.clone();
    thread::spawn(move || {
        for number in 0..count {
            log.append(&record(writer, number, len)).expect("room is made");
        }
    })
}

/// Starts three threads that each do `work`, with a name.
fn three_threads(log: &Log, work: fn(&Log, u8)) -> Vec<thread::JoinHandle<()>> {
    let start = |name| {
        let log = log.clone();
        thread::spawn(move || work(&log, name))
    };
    (0..3).map(start).collect()
}

/// Follows the log to its end, and checks that nothing is missing, doubled, altered or out of a
/// writer's order. With `releases`, what was read is released.
fn follow(log: &Log, writers: u8, count: u8, releases: bool) {
    let mut tail = log.tail(Position::Oldest).expect("a pin is free");
    let mut next = vec![0; usize::from(writers)];
    loop {
        match tail.next(Duration::from_secs(3600)) {
            Ok(Some(found)) => {
                let payload = found.payload();
                let expected = next[usize::from(payload[0])];
                assert_eq!(payload, record(payload[0], expected, payload.len()));
                next[usize::from(payload[0])] += 1;
                let end = found.next_lsn();
                if releases {
                    match log.checkpoint(end) {
                        Ok(_) | Err(CheckpointError::Closed) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Ok(None) => unreachable!("no time passes"),
            Err(ReadError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(next.iter().all(|number| *number == count), "{next:?} of {count} each");
}

/// Three writers, several laps, janitor, flusher, and a tail that releases what it has read.
fn laps(durability: Durability) {
    let log = Log::with_options(3, 1, 4032, Options::new().durability(durability));
    log.start_threads();
    let writers: Vec<_> = (0..3).map(|name| writer(&log, name, 4, 1900)).collect();
    let tail = {
        let log = log.clone();
        thread::spawn(move || follow(&log, 3, 4, true))
    };
    for writer in writers {
        writer.join().expect("no panic");
    }
    log.close().expect("the disk takes it");
    tail.join().expect("no panic");
    let now = log.look();
    assert_eq!(now.durable, now.reserved);
}

#[test]
fn laps_with_syncs_on_demand() {
    explore(1000, || laps(Durability::OnDemand));
}

#[test]
fn laps_with_syncs_at_an_interval() {
    explore(1000, || laps(Durability::Interval(Duration::from_millis(5))));
}

#[test]
fn laps_without_durability() {
    explore(1000, || laps(Durability::None));
}

/// Three writers that each wait for their records, a reader beside them.
#[test]
fn waiters_and_a_reader() {
    explore(4000, || {
        let log = Log::new(3, 1, 4032);
        log.start_threads();
        let writers = three_threads(&log, |log, name| {
            for number in 0..3 {
                let lsn = log.append_durable(&record(name, number, 24));
                let lsn = lsn.expect("the disk takes it");
                assert!(log.durable() > lsn && log.is_synced(lsn));
            }
        });
        let tail = {
            let log = log.clone();
            thread::spawn(move || follow(&log, 3, 3, false))
        };
        for writer in writers {
            writer.join().expect("no panic");
        }
        log.close().expect("the disk takes it");
        tail.join().expect("no panic");
    });
}

/// A disk that fails under load ends every wait, and every writer.
#[test]
fn a_disk_that_fails_ends_everything() {
    explore(2000, || {
        let log = Log::new(3, 1, 4032);
        log.start_threads();
        let writers = three_threads(&log, |log, name| {
            for number in 0..3 {
                if log.append_durable(&record(name, number, 1200)).is_err() {
                    return;
                }
            }
        });
        log.break_disk();
        for writer in writers {
            writer.join().expect("no panic");
        }
        let _ = log.close();
    });
}

/// A waiter looks whether it may lead, and finds itself served. Another may have found the lock
/// taken just then, and must not sleep for ever. (Three switches, more than loom gets through.)
#[test]
fn who_is_served_while_it_looks_leaves_no_sleeper() {
    explore_by_priority(5, 100_000, || {
        let log = Log::new(2, 1, 1024);
        let old = log.append_once(b"old").expect("there is room");
        let served = {
            let log = log.clone();
            thread::spawn(move || log.wait_durable(old).expect("the disk takes it"))
        };
        let late = {
            let log = log.clone();
            thread::spawn(move || log.append_durable(b"new").expect("the disk takes it"))
        };
        log.sync_published();
        served.join().expect("no panic");
        late.join().expect("no panic");
    });
}
