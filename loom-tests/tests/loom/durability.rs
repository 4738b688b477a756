//! Models of durability: group commit, two syncers, what `durable` promises, poisoning, the close.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{check, in_turn, run};
use kaelix_wal::model::Log;
use kaelix_wal::{Lsn, Position, ReadError, WaitError};
use loom::thread;

/// Two waiters share syncs; neither sleeps for ever, and neither returns too early.
#[test]
fn group_commit_loses_no_wake_up() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let other = {
            let log = log.clone();
            thread::spawn(move || append_durable(&log, b"one"))
        };
        append_durable(&log, b"two");
        other.join().expect("no panic");
    });
}

/// Three, with fewer switches.
#[test]
fn three_waiters_share_syncs() {
    check(1, || {
        let log = Log::new(2, 1, 1024);
        let others = [b"one", b"two"].map(|payload| {
            let log = log.clone();
            thread::spawn(move || append_durable(&log, payload))
        });
        append_durable(&log, b"six");
        for other in others {
            other.join().expect("no panic");
        }
    });
}

fn append_durable(log: &Log, payload: &[u8]) {
    let lsn = log.append_once(payload).expect("there is room");
    log.wait_durable(lsn).expect("the sync succeeds");
    assert!(log.durable() > lsn);
    assert!(log.is_synced(lsn));
}

/// A task rings the flusher, which leads for it.
#[test]
fn a_task_is_woken_by_the_flusher() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let lsn = log.append_once(b"task").expect("there is room");
        let flusher = run(&log, |log| log.lead_once_rung());
        await_durable(&log, lsn);
        flusher.join().expect("no panic");
    });
}

/// A task is listed before it looks again, so a thread that syncs at the same time wakes it. The
/// flusher has gone.
#[test]
fn a_task_is_woken_by_a_thread() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let lsn = log.append_once(b"task").expect("there is room");
        let thread = run(&log, |log| log.sync_published());
        await_durable(&log, lsn);
        thread.join().expect("no panic");
    });
}

/// The same in persistent memory, where nobody is handed anything: by the flag alone.
#[test]
fn a_task_is_woken_by_whoever_raises_durable() {
    check(2, || {
        let log = Log::in_memory(2, 1, 1024);
        let lsn = log.append_once(b"task").expect("there is room");
        let thread = run(&log, |log| log.sync_published());
        await_durable(&log, lsn);
        thread.join().expect("no panic");
    });
}

fn await_durable(log: &Log, lsn: Lsn) {
    loom::future::block_on(log.until_durable(lsn)).expect("the disk takes it");
    assert!(log.durable() > lsn);
    assert!(log.is_synced(lsn));
}

/// A callback is called once, whoever syncs, and whether or not it came before the flusher's end.
#[test]
fn a_callback_is_called_once() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let lsn = log.append_once(b"callback").expect("there is room");
        let flusher = run(&log, |log| {
            log.lead_once_rung();
            log.end_completions();
        });
        let called = Arc::new(AtomicUsize::new(0));
        let counts = called.clone();
        log.on_durable(lsn, move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        flusher.join().expect("no panic");
        assert_eq!(called.load(Ordering::Relaxed), 1);
    });
}

/// A flusher that passes by leaves no waiter asleep that found its lock taken.
#[test]
fn a_passing_flusher_leaves_no_sleeper() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let flusher = run(&log, |log| log.pass_as_flusher());
        append_durable(&log, b"one");
        in_turn([flusher]);
    });
}

/// A waiter and someone who syncs everything, across a segment's end: two syncs are in flight, and
/// `durable` moves over what each has synced.
#[test]
fn two_syncers_move_one_watermark() {
    check(2, || {
        let log = Log::new(2, 2, 32);
        log.append_once(&[1; 16]).expect("there is room");
        let lsn = log.append_once(b"two").expect("there is room");
        let other = {
            let log = log.clone();
            thread::spawn(move || log.sync().expect("the disk takes it"))
        };
        log.wait_durable(lsn).expect("the disk takes it");
        let durable = other.join().expect("no panic");
        assert!(durable >= log.segment_start(1));
        assert!(durable <= log.durable());
    });
}

/// Whoever sees `durable` may use everything below without looking at a commit word, whoever
/// committed it and whoever synced it; and it has been on the disk.
#[test]
fn what_is_durable_is_on_the_disk_for_whoever_sees_it() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let start = log.durable();
        in_turn([
            run(&log, |log| _ = log.append_once(b"one")),
            run(&log, |log| log.sync_published()),
            run(&log, move |log| {
                let durable = log.durable();
                if durable > start {
                    assert!(log.is_synced(start));
                    assert_eq!(log.image(start, durable), [b"one"]);
                }
            }),
        ]);
    });
}

/// Persistent memory: two threads write back and raise one watermark, neither waiting for the
/// other; each finds its record there.
#[test]
fn two_helpers_raise_one_watermark() {
    check(3, || {
        let log = Log::in_memory(2, 1, 1024);
        let other = run(&log, |log| append_durable_alone(log, b"one"));
        append_durable_alone(&log, b"two");
        in_turn([other]);
    });
}

fn append_durable_alone(log: &Log, payload: &[u8]) {
    let lsn = log.append_durable(payload).expect("memory takes it");
    assert!(log.durable() > lsn);
    assert!(log.is_synced(lsn));
}

/// The same over a segment's end, which one of them crosses.
#[test]
fn two_helpers_enter_a_segment() {
    check(1, || {
        let log = Log::in_memory(2, 2, 32);
        log.append_once(&[1; 16]).expect("there is room");
        let other = run(&log, |log| append_durable_alone(log, b"one"));
        append_durable_alone(&log, b"two");
        in_turn([other]);
    });
}

/// Persistent memory: whoever sees `durable` may use everything below, whoever committed it,
/// published it and wrote it back; and every record of it is there.
#[test]
fn what_is_durable_is_in_memory_for_whoever_sees_it() {
    check(2, || {
        let log = Log::in_memory(2, 1, 1024);
        let start = log.durable();
        in_turn([
            run(&log, |log| _ = log.append_once(b"one")),
            run(&log, |log| _ = log.append_durable(b"two")),
            run(&log, move |log| {
                let durable = log.durable();
                let records = log.image(start, durable);
                assert!((0..records.len() as u64).all(|n| log.is_synced(start + 32 * n)));
            }),
        ]);
    });
}

/// A durable tail that sleeps is woken by whoever raises `durable`, who hands over to nobody.
#[test]
fn a_sleeping_durable_tail_is_woken() {
    check(2, || {
        let log = Log::in_memory(2, 1, 1024);
        // What is durable first leaves evidence behind it, whose commit would wake the tail too.
        let first = log.append_durable(b"old").expect("memory takes it");
        let tail = run(&log, move |log| {
            let mut tail = log.tail(Position::At(first + 32)).expect("a pin is free");
            tail = tail.durable_only();
            let record = tail.next(Duration::from_secs(3600)).expect("it is open");
            assert_eq!(record.expect("no time passes").payload(), b"news");
        });
        log.append_durable(b"news").expect("memory takes it");
        in_turn([tail]);
    });
}

/// A waiter behind a hole is served once that is closed, by whomever.
#[test]
fn a_waiter_behind_a_hole_is_served() {
    check(2, || {
        let log = Log::in_memory(2, 1, 1024);
        let hole = run(&log, |log| {
            let mut hole = log.try_reserve(3).expect("there is room");
            hole.copy_from_slice(b"one");
            hole.commit();
        });
        append_durable_alone(&log, b"two");
        in_turn([hole]);
    });
}

/// The first failed sync ends all waits, and nothing is accepted any more.
#[test]
fn a_failed_sync_ends_every_wait() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        log.break_disk();
        let wait = |log: &Log| {
            if let Some(lsn) = log.append_once(b"lost") {
                assert!(matches!(log.wait_durable(lsn), Err(WaitError::Poisoned(_))));
                assert!(log.durable() <= lsn);
            }
            assert!(log.append_once(b"late").is_none());
        };
        let other = {
            let log = log.clone();
            thread::spawn(move || wait(&log))
        };
        let lsn = log.append_once(b"lost");
        if let Some(lsn) = lsn {
            assert!(matches!(log.wait_durable(lsn), Err(WaitError::Poisoned(_))));
        }
        other.join().expect("no panic");
    });
}

/// A waiter against the close: both are served.
#[test]
fn a_waiter_against_the_close() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let waiter = {
            let log = log.clone();
            thread::spawn(move || {
                let lsn = log.append_once(b"kept")?;
                log.wait_durable(lsn).expect("the disk takes it");
                Some(lsn)
            })
        };
        log.close().expect("the disk takes it");
        let kept = waiter.join().expect("no panic");
        assert_eq!(log.durable(), log.look().reserved);
        assert_eq!(log.contents().len(), usize::from(kept.is_some()));
    });
}

/// A log with its janitor and its flusher closes, whatever they are doing.
#[test]
fn a_close_ends_the_threads() {
    check(2, || {
        let log = Log::new(2, 1, 64);
        log.start_threads();
        log.append_once(b"kept").expect("there is room");
        log.close().expect("the disk takes it");
        assert_eq!(log.contents(), [b"kept"]);
    });
}

/// Whoever sees the end sees all records before it, whoever committed and whoever synced them.
#[test]
fn the_end_comes_after_the_last_record_for_whoever_sees_it() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        log.append_once(b"first").expect("there is room");
        let mut tail = log.follow();
        assert!(tail.next(Duration::ZERO).expect("it is open").is_some());
        let writer = {
            let log = log.clone();
            thread::spawn(move || log.append_once(b"last"))
        };
        let others =
            [run(&log, |log| log.sync_published()), run(&log, |log| log.finish_if_settled())];
        let last = tail.next(Duration::ZERO).map(|record| record.is_some());
        let appended = writer.join().expect("no panic");
        in_turn(others);
        assert!(last.is_ok() || appended.is_none(), "the end comes after the last record");
    });
}

/// A tail shows the last record before it says that the log is closed.
#[test]
fn a_tail_shows_everything_before_the_end() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let tail = {
            let log = log.clone();
            thread::spawn(move || {
                let mut tail = log.follow();
                let mut records = 0;
                loop {
                    match tail.next(Duration::from_secs(3600)) {
                        Ok(Some(_)) => records += 1,
                        Ok(None) => unreachable!("no time passes"),
                        Err(ReadError::Closed) => return records,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        log.append_once(b"last").expect("there is room");
        log.close().expect("the disk takes it");
        assert_eq!(tail.join().expect("no panic"), 1);
    });
}
