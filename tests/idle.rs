//! A log with nothing to do uses no processor time: alone in its file, so that nothing else runs.

mod common;

use std::time::{Duration, Instant};

use common::{MODES, Place, numbered, wait_until};
use kaelix_wal::{OnFull, Options, Position, Wal};

/// Processor time of this process so far, in milliseconds.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("utime and stime are numbers"))
        .sum();
    // A tick is a hundredth of a second on all Linux systems.
    ticks * 10
}

/// Processor time used while this thread sleeps.
fn used_while_asleep(time: Duration) -> u64 {
    let (start, before) = (Instant::now(), processor_ms());
    while start.elapsed() < time {
        std::thread::sleep(time.saturating_sub(start.elapsed()));
    }
    processor_ms() - before
}

#[test]
fn an_idle_log_uses_no_processor_time() {
    let places: Vec<Place> = (0..6).map(|_| Place::new()).collect();
    let mut logs: Vec<Wal> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let on_full = if index < 3 { OnFull::Wait } else { OnFull::Overwrite };
        let options = Options::new().durability(MODES[index % 3]).on_full(on_full);
        let wal = place.create(options);
        for number in 0..150 {
            wal.append(&numbered(0, number, 1000)).expect("space");
        }
        wal.append_durable(b"the last one").expect("no hole");
        logs.push(wal);
    }
    // A tail sleeps in each of them, for longer than the test.
    std::thread::scope(|scope| {
        for wal in &logs {
            scope.spawn(move || {
                let mut tail = wal.tail(Position::Newest).expect("the end");
                while tail.next(Duration::from_secs(600)).is_ok() {}
            });
        }
        let mut used = u64::MAX;
        // What was under way comes to its end first; it has as long as it takes.
        wait_until("the logs are quiet", || {
            used = used_while_asleep(Duration::from_secs(2));
            used < 20
        });
        let before: Vec<_> = logs.iter().map(Wal::metrics).collect();
        used = used_while_asleep(Duration::from_secs(2));
        let after: Vec<_> = logs.iter().map(Wal::metrics).collect();
        let behind_holes = used_behind_a_hole(&logs);
        for wal in &logs {
            wal.close().expect("no hole");
        }
        assert!(used < 20, "{used} ms in 2 s by six idle logs");
        assert_eq!(before, after, "they do nothing");
        assert!(behind_holes < 400, "{behind_holes} ms in 1 s by a waiter in each of six logs");
    });
}

/// Processor time used in a second by a waiter in each log whose record a reservation holds back:
/// it looks again from time to time.
fn used_behind_a_hole(logs: &[Wal]) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(2);
    let holes: Vec<_> = logs.iter().map(|wal| wal.reserve(10).expect("space")).collect();
    let used = std::thread::scope(|scope| {
        for wal in logs {
            let behind = wal.append(b"behind").expect("space");
            scope.spawn(move || wal.wait_durable_deadline(behind, deadline).expect_err("a hole"));
        }
        // They nap for ever longer.
        std::thread::sleep(Duration::from_millis(500));
        used_while_asleep(Duration::from_secs(1))
    });
    drop(holes);
    used
}
