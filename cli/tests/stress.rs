//! Readers in other processes beside a writer at full speed in a ring that it laps all the time:
//! every record that they show is whole, and what they missed they are told of.

mod common;

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Place, spawn};
use kaelix_wal::inspect::{Cursor, Observer};
use kaelix_wal::{Durability, OnFull, Options, Position, ReadError, Wal};

const LASTS: Duration = Duration::from_secs(3);

/// The `n`-th record: its number, and a letter as often as the number says.
fn text(n: u64) -> String {
    let letter = char::from(b'a' + (n % 26) as u8);
    format!("{n} {}", letter.to_string().repeat((n * 7919 % 700) as usize))
}

#[track_caller]
fn check(found: &str) -> u64 {
    let (number, _) = found.split_once(' ').expect("a number and letters");
    let number = number.parse().expect("a number");
    assert!(found == text(number), "record {number} is torn");
    number
}

/// Follows the log with `tail`; returns how many records it showed, and how often it was overrun.
fn follow(log: &str, stop: &AtomicBool) -> (u64, usize) {
    let mut child = spawn(&["tail", log, "--follow", "--json"]);
    let words = common::collect(child.stderr.take().unwrap());
    let (mut shown, mut last) = (0, None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let record: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let number = check(record["text"].as_str().unwrap());
        let lsn = record["lsn"].as_u64().unwrap();
        assert!(last < Some((lsn, number)), "{last:?} came before LSN {lsn}");
        last = Some((lsn, number));
        shown += 1;
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let words = String::from_utf8(words.join().unwrap()).unwrap();
    let overruns = words.lines().filter(|line| line.contains("the writer overwrote")).count();
    assert_eq!(words.lines().count(), overruns, "{words}");
    (shown, overruns)
}

/// Reads the whole log with `cat`, again and again.
fn cat(log: &str, stop: &AtomicBool) -> u64 {
    let mut shown = 0;
    while !stop.load(Ordering::Relaxed) {
        let output = common::run(&["cat", log], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<u64> = output.lines().map(check).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        shown += numbers.len() as u64;
    }
    shown
}

/// Reads from the oldest record on, and again from there when it is overrun.
fn observe(log: &str, stop: &AtomicBool) -> (u64, u64) {
    let observer = Observer::open(log).unwrap();
    let oldest = || -> Cursor { observer.cursor(Position::Oldest).unwrap() };
    let (mut cursor, mut shown, mut overruns) = (oldest(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        match cursor.next() {
            Ok(Some(record)) => {
                check(std::str::from_utf8(record.payload()).unwrap());
                shown += 1;
            }
            Ok(None) => std::thread::yield_now(),
            Err(ReadError::Overwritten { lsn, oldest: left }) => {
                assert!(left > lsn, "{left} is not beyond {lsn}");
                overruns += 1;
                // It stands still for a moment, so that it is overrun again and again.
                cursor = oldest();
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
    (shown, overruns)
}

#[test]
fn readers_in_other_processes_see_whole_records_of_a_writer_at_full_speed() {
    let place = Place::with_log("512KiB", "64KiB");
    let options = Options::new().on_full(OnFull::Overwrite).durability(Durability::None);
    let wal = Wal::open(&place.log, options).unwrap();
    let stop = AtomicBool::new(false);
    let (written, followed, printed, observed) = std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&place.log, &stop));
        let printer = scope.spawn(|| cat(&place.log, &stop));
        let observer = scope.spawn(|| observe(&place.log, &stop));
        let deadline = Instant::now() + LASTS;
        let mut written = 0;
        // A reader that fails must not be waited for.
        let failed = || follower.is_finished() || printer.is_finished() || observer.is_finished();
        while Instant::now() < deadline && !failed() {
            for _ in 0..100 {
                wal.append(text(written).as_bytes()).unwrap();
                written += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        // The follower looks when a record comes.
        while !follower.is_finished() {
            wal.append(text(written).as_bytes()).unwrap();
            written += 1;
        }
        let followed = follower.join().unwrap();
        (written, followed, printer.join().unwrap(), observer.join().unwrap())
    });
    let laps = wal.watermarks().published.get() / (512 << 10);
    let told = format!("{written} written, {laps} laps: {followed:?}, {printed}, {observed:?}");
    assert!(laps > 20, "{told}");
    assert!(followed.0 > 0 && printed > 0 && observed.0 > 0, "{told}");
    assert!(observed.1 > 0, "nobody was overrun: {told}");
}
