//! Waiting for durability without a thread: futures and callbacks.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{MODES, Place, wait_until, within_patience};
use kaelix_wal::{Lsn, Options, RecoveryOutcome, WaitError};

/// Counts how often it was woken.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_future_completes_in_every_mode() {
    for mode in MODES {
        let place = Place::new();
        let wal = place.create(Options::new().durability(mode));
        within_patience("futures complete", move || {
            for n in 0..20_u32 {
                let lsn = wal.append(&n.to_le_bytes()).expect("there is room");
                pollster::block_on(wal.durable(lsn)).expect("the disk takes it");
                assert!(wal.watermarks().durable > lsn);
            }
        });
    }
}

#[test]
fn a_future_of_something_durable_or_unknown_is_ready_at_once() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let lsn = wal.append_durable(b"durable").expect("the disk takes it");
    let counting = Arc::new(Counting::default());
    let waker = Waker::from(counting.clone());
    let mut context = Context::from_waker(&waker);
    let ready = pin!(wal.durable(lsn)).poll(&mut context);
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    let beyond = pin!(wal.durable(Lsn::new(1 << 40))).poll(&mut context);
    assert!(matches!(beyond, Poll::Ready(Err(WaitError::NotReserved { .. }))));
    assert_eq!(counting.0.load(Ordering::SeqCst), 0);
}

#[test]
fn many_tasks_share_syncs() {
    let place = Place::new();
    let wal = Arc::new(place.create(Options::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let tasks: Vec<_> = (0..64_u32)
        .map(|task| {
            let wal = wal.clone();
            runtime.spawn(async move {
                for n in 0..20_u32 {
                    let lsn = wal.append(&(task << 16 | n).to_le_bytes()).expect("there is room");
                    wal.durable(lsn).await.expect("the disk takes it");
                    assert!(wal.watermarks().durable > lsn);
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("no panic");
        }
    });
    let metrics = wal.metrics();
    assert!(metrics.syncs < 64 * 20 / 2, "{metrics:?}");
}

/// All threads wait behind one that has not committed: what it holds back becomes durable at once.
#[test]
fn waiting_threads_share_syncs() {
    let (threads, rounds) = (16, 10);
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(Options::new().durability(durability));
        let mut syncs = 0;
        for _ in 0..rounds {
            let hole = wal.reserve(8).expect("there is room");
            let end = wal.watermarks().reserved.get() + threads * 32;
            let before = wal.metrics().syncs;
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let lsn = wal.append_durable(b"sixteen bytes ok").expect("room");
                        assert!(wal.watermarks().durable > lsn);
                    });
                }
                wait_until("all wait", || wal.watermarks().reserved.get() >= end);
                hole.commit();
            });
            syncs += wal.metrics().syncs - before;
        }
        // One of what lay before, and one for all of them.
        assert!(syncs <= 4 * rounds, "{durability:?}: {syncs} syncs");
    }
}

#[test]
fn a_future_moves_to_the_waker_of_its_last_poll() {
    let place = Place::new();
    let wal = place.create(Options::new());
    // An open reservation keeps what follows from becoming durable.
    let open = wal.try_reserve(16).expect("there is room");
    let lsn = wal.append(b"held back").expect("there is room");
    let (first, last) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
    let mut future = pin!(wal.durable(lsn));
    for counting in [&first, &last] {
        let waker = Waker::from(counting.clone());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(open);
    wait_until("the task is woken", || last.0.load(Ordering::SeqCst) > 0);
    assert_eq!(first.0.load(Ordering::SeqCst), 0);
    let waker = Waker::from(last);
    let ready = future.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
}

#[test]
fn a_cancelled_wait_leaves_nothing() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let open = wal.try_reserve(16).expect("there is room");
    let lsn = wal.append(b"held back").expect("there is room");
    let counting = Arc::new(Counting::default());
    for _ in 0..100 {
        let waker = Waker::from(counting.clone());
        let mut future = pin!(wal.durable(lsn));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // The log holds none of the wakers any more.
    assert_eq!(Arc::strong_count(&counting), 1);
    drop(open);
    wal.wait_durable(lsn).expect("the disk takes it");
    assert_eq!(counting.0.load(Ordering::SeqCst), 0);
}

#[test]
fn a_hole_ends_the_patience_of_tasks_and_callbacks() {
    let place = Place::new();
    let wal = Arc::new(place.create(Options::new().hole_age_max(Duration::from_millis(100))));
    let before = wal.append(b"before the hole").expect("there is room");
    let open = wal.try_reserve(16).expect("there is room");
    let hole = open.lsn();
    let lsn = wal.append(b"behind the hole").expect("there is room");
    let (sender, outcomes) = mpsc::channel();
    wal.on_durable(lsn, move |outcome| sender.send(outcome).expect("somebody listens"));
    pollster::block_on(wal.durable(before)).expect("it lies before the hole");
    for outcome in [pollster::block_on(wal.durable(lsn)), outcomes.recv().expect("it is called")] {
        match outcome {
            Err(WaitError::HeldBack { lsn, age }) => {
                assert_eq!(lsn, hole);
                assert!(age >= Duration::from_millis(100));
            }
            other => panic!("{other:?}"),
        }
    }
    drop(open);
    pollster::block_on(wal.durable(lsn)).expect("the hole is closed");
}

#[test]
fn a_callback_is_called_once_with_the_outcome() {
    for mode in MODES {
        let place = Place::new();
        let wal = place.create(Options::new().durability(mode));
        let (sender, outcomes) = mpsc::channel();
        let mut lsns = Vec::new();
        for n in 0..100_u32 {
            let lsn = wal.append(&n.to_le_bytes()).expect("there is room");
            let sender = sender.clone();
            wal.on_durable(lsn, move |outcome| {
                outcome.expect("the disk takes it");
                sender.send(lsn).expect("somebody listens");
            });
            lsns.push(lsn);
        }
        drop(sender);
        let mut called: Vec<Lsn> = outcomes.iter().collect();
        assert!(wal.watermarks().durable > lsns[99]);
        called.sort();
        assert_eq!(called, lsns);
    }
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let open = wal.try_reserve(16).expect("there is room");
    let lsn = wal.append(b"waited for").expect("there is room");
    wal.on_durable(lsn, |_| panic!("on purpose"));
    drop(open);
    wal.wait_durable(lsn).expect("the disk takes it");
    let after = wal.append(b"after").expect("the log goes on");
    pollster::block_on(wal.durable(after)).expect("and so does its flusher");
}

#[test]
fn the_last_handle_may_go_in_a_callback() {
    let place = Place::new();
    let wal = Arc::new(place.create(Options::new()));
    let open = wal.try_reserve(16).expect("there is room");
    let lsn = wal.append(b"waited for").expect("there is room");
    let (sender, gone) = mpsc::channel();
    let last = wal.clone();
    wal.on_durable(lsn, move |outcome| {
        outcome.expect("the disk takes it");
        while Arc::strong_count(&last) > 1 {
            std::thread::yield_now();
        }
        drop(last);
        sender.send(()).expect("somebody listens");
    });
    drop(open);
    drop(wal);
    gone.recv_timeout(Duration::from_secs(60)).expect("the log closes in its own thread");
    let wal = place.open(Options::new());
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::Clean);
}

#[test]
fn a_closed_log_answers_at_once() {
    let place = Place::new();
    let wal = place.create(Options::new().hole_age_max(Duration::from_millis(50)));
    let durable = wal.append(b"before").expect("there is room");
    let open = wal.try_reserve(16).expect("there is room");
    let never = wal.append(b"behind a hole").expect("there is room");
    wal.close().expect_err("a reservation is open");
    let start = Instant::now();
    pollster::block_on(wal.durable(durable)).expect("the close has made it durable");
    let held_back = pollster::block_on(wal.durable(never));
    assert!(matches!(held_back, Err(WaitError::HeldBack { .. })), "{held_back:?}");
    let (sender, outcomes) = mpsc::channel();
    wal.on_durable(never, move |outcome| sender.send(outcome).expect("somebody listens"));
    let held_back = outcomes.recv().expect("it is called");
    assert!(matches!(held_back, Err(WaitError::HeldBack { .. })), "{held_back:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(open);
}
