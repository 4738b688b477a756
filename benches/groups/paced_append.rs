//! Appends at a fixed rate while the log flushes, wraps and recycles: does a producer notice?
//!
//! A latency counts from the moment at which the append was due, so that whatever delays one
//! append counts for all that come due meanwhile. The yardstick is the same producer at the same
//! rate with a prefaulted private ring, while another thread writes and syncs as many bytes to the
//! same disk: what is left then is the machine's own noise.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use criterion::Criterion;
use kaelix_wal::{Durability, Wal};

use crate::support::append_floor::FloorRing;
use crate::support::disk_floor::DiskFloor;
use crate::support::paced::{Paced, beside, paced};
use crate::support::plot;
use crate::support::results::Row;
use crate::support::{RING, SEGMENT, append, median, open, seconds};

const PAYLOAD: usize = 64;
const PERIOD: Duration = Duration::from_micros(1);
/// Many short rounds: a median of them leaves out those in which the machine itself stood still.
const ROUNDS: usize = 21;
const QUANTILES: [(f64, &str); 4] =
    [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];

/// How the log is made to flush.
#[derive(Clone, Copy)]
enum Flush {
    /// By itself: the segments that the producer has left.
    Segments,
    /// All that is new, every 5 ms.
    Interval,
    /// By itself, and ten times a second the kernel writes back all that is dirty, prepared
    /// segments too, as it does by itself every 30 seconds or so.
    Kernel,
    /// All that is new, as fast as the disk takes it, because somebody waits.
    Waiter,
}

pub fn run(_: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = DiskFloor::new(dir.path(), RING).expect("a floor");
    let floor = FloorRing::private(RING).expect("a floor");
    println!(
        "\npaced_append: 1 M appends/s of 64 B, microseconds from the intended start: medians"
    );
    println!("of {ROUNDS} rounds in turn, of their ratios, and the worst of all");
    println!("| flushing | | p50 | p99 | p99.9 | p99.99 | worst | faults per million |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, flush) in [
        ("segments (default)", Flush::Segments),
        ("every 5 ms", Flush::Interval),
        ("segments, and the kernel", Flush::Kernel),
        ("a waiter, all the time", Flush::Waiter),
    ] {
        let durability = match flush {
            Flush::Interval => Durability::Interval(Duration::from_millis(5)),
            _ => Durability::OnDemand,
        };
        let path = dir.path().join(name);
        let wal = open(&path, durability);
        compare(name, flush, &wal, &path, &floor, &disk);
        wal.close().expect("the disk takes it");
        drop(wal);
        std::fs::remove_dir_all(path).expect("a temporary directory");
    }
}

fn compare(name: &str, flush: Flush, wal: &Wal, path: &Path, floor: &FloorRing, disk: &DiskFloor) {
    let time = seconds(1.0);
    let payload = [0xA5_u8; PAYLOAD];
    let [mut idle, mut yardstick, mut log] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        idle.push(paced(time, PERIOD, || {
            floor.append(&payload);
        }));
        let appended = AtomicU64::new(0);
        let beside_disk = || {
            paced(time, PERIOD, || {
                floor.append(&payload);
                appended.store(appended.load(Ordering::Relaxed) + 80, Ordering::Relaxed);
            })
        };
        yardstick.push(beside(|stop| load(flush, disk, &appended, stop), beside_disk));
        let beside_waiter = || paced(time, PERIOD, || append(wal, &payload));
        log.push(beside(|stop| provoke(flush, wal, &path.join("log/ring"), stop), beside_waiter));
    }
    for (what, rounds) in [("idle", &idle), ("yardstick", &yardstick), ("log", &log)] {
        let cells = cells(|quantile| median(rounds.iter().map(|r| r.at(quantile)).collect()));
        let worst = rounds.iter().map(|round| round.times.max()).max().unwrap_or(0) as f64 / 1e3;
        let (faults, appends) = rounds.iter().fold((0, 0), |(faults, appends), round| {
            (faults + round.faults, appends + round.times.len())
        });
        let faults = faults as f64 * 1e6 / appends as f64;
        println!("| {name} | {what} | {cells} | {worst:.0} | {faults:.2} |");
    }
    let case = name.replace(" (default)", "");
    for (quantile, measure) in QUANTILES {
        let row = Row::new("paced_append", &case, measure, "us").log(&Paced::each(&log, quantile));
        let row = row.floor("private ring beside plain syncs", &Paced::each(&yardstick, quantile));
        row.write();
    }
    let [idle_all, yardstick_all, log_all] =
        [&idle, &yardstick, &log].map(|rounds| Paced::all(rounds));
    plot::percentiles(
        &format!("paced_append-{}", name.replace(|c: char| !c.is_alphanumeric(), "_")),
        &format!("1 M appends/s of 64 B, flushing {name}"),
        &[("idle ring", &idle_all), ("yardstick", &yardstick_all), ("log", &log_all)],
    );
    Row::new("paced_append", &case, "latency", "ns")
        .percentiles("idle ring", &idle_all)
        .percentiles("private ring beside plain syncs", &yardstick_all)
        .percentiles("log", &log_all)
        .write();
    for (what, rounds) in [("log/yardstick", &yardstick), ("log/idle", &idle)] {
        let cells = cells(|quantile| {
            median(log.iter().zip(rounds).map(|(l, r)| l.at(quantile) / r.at(quantile)).collect())
        });
        println!("| {name} | {what} | {cells} | | |");
    }
}

/// A cell for each quantile.
fn cells(at: impl Fn(f64) -> f64) -> String {
    let cells: Vec<_> = QUANTILES.iter().map(|(q, _)| format!("{:.2}", at(*q))).collect();
    cells.join(" | ")
}

/// Makes the log flush, or the kernel.
fn provoke(flush: Flush, wal: &Wal, ring: &Path, stop: &AtomicBool) {
    let ring = File::open(ring).expect("the ring file");
    while !stop.load(Ordering::Acquire) {
        match flush {
            Flush::Segments | Flush::Interval => return,
            Flush::Waiter => drop(wal.sync().expect("the disk takes it")),
            Flush::Kernel => {
                ring.sync_data().expect("the disk takes it");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// What the log's flushing costs the disk, done by plain writes: as many bytes, as often.
fn load(flush: Flush, disk: &DiskFloor, appended: &AtomicU64, stop: &AtomicBool) {
    let mut written = appended.load(Ordering::Relaxed);
    while !stop.load(Ordering::Acquire) {
        let new = appended.load(Ordering::Relaxed) - written;
        let (due, nap) = match flush {
            Flush::Segments => (new >= SEGMENT, Duration::from_millis(1)),
            Flush::Kernel => (true, Duration::from_millis(100)),
            Flush::Interval => (true, Duration::from_millis(5)),
            Flush::Waiter => (true, Duration::ZERO),
        };
        if due && new > 0 {
            disk.overwrite(new, new.next_multiple_of(4096) as usize).expect("the disk takes it");
            written += new;
        }
        std::thread::sleep(nap);
    }
}
