//! Reading back: in order, one at a time by position, and ranges that begin anywhere.
//!
//! The floor walks or visits records of the same size in memory, in the same order, and checks
//! each; it takes no pin, and nobody could overwrite what it reads. Single reads are also timed one
//! by one beside a producer that overwrites the ring as fast as it can.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, Lsn, Position, ReadError, Wal};

use crate::support::check::{self, Stamped};
use crate::support::paced::beside;
use crate::support::results::Row;
use crate::support::scan_floor::ScanFloor;
use crate::support::{ROUNDS, append, histogram, median, open, seconds};

const GROUP: &str = "read_operations";
const SIZES: [(usize, &str); 3] = [(64, "64B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];
/// Records of a range.
const RANGE: usize = 100;
/// Bytes of records that are there to be read: so few that the janitor trims none of them.
const FILLED: usize = 128 << 20;
const FLOOR: &str = "records in memory, each checked";

pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    println!("\n{GROUP}: ns a record, medians of {ROUNDS} rounds in turn; floor/log");
    println!(
        "| size | sequential | floor | ratio | random | floor | ratio | range | floor | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut latencies = Vec::new();
    for (size, name) in SIZES {
        let path = dir.path().join(name);
        let wal = open(&path, Durability::None);
        let subject = Subject::filled(&wal, size);
        println!("| {name} | {} |", subject.rows(name));
        latencies.push(subject.latencies(name));
        subject.sample(criterion, name);
        drop(wal);
        std::fs::remove_dir_all(path).expect("a temporary directory");
    }
    println!("\n{GROUP}: microseconds of a single read by position, the clock read for each");
    println!("| size | | p50 | p99 | p99.9 | worst |\n|---|---|---|---|---|---|");
    latencies.iter().for_each(|rows| println!("{rows}"));
}

/// A full log, and the same records in plain memory.
struct Subject<'w> {
    wal: &'w Wal,
    size: usize,
    lsns: Vec<Lsn>,
    floor: ScanFloor,
}

impl Subject<'_> {
    fn filled(wal: &Wal, size: usize) -> Subject<'_> {
        let floor = ScanFloor::new(size, FILLED);
        let mut payload = Stamped::new(0, size);
        let lsns: Vec<Lsn> = (0..floor.records())
            .map(|_| wal.append(payload.next()).expect("the oldest makes room"))
            .collect();
        assert_eq!(
            check::stamped(wal, Position::Oldest, size, &[payload.count()]),
            payload.count()
        );
        Subject { wal, size, lsns, floor }
    }

    /// Each way of reading and its floor, in turn, as cells of a table.
    fn rows(&self, name: &str) -> String {
        let ways: [(&str, Timed<'_>, Timed<'_>); 3] = [
            ("sequential", &|n| self.sequential(n), &|n| self.floor_range(0, n)),
            ("random", &|n| self.random(n), &|n| self.floor_random(n)),
            ("range", &|n| self.ranges(n), &|n| self.floor_ranges(n)),
        ];
        let share = seconds(2.0).as_secs_f64() / ROUNDS as f64 / 3.0;
        let cells = ways.map(|(way, log, floor)| {
            let once = log(RANGE).max(1.0);
            let count = ((share * 1e9 / once) as usize).clamp(RANGE, self.lsns.len());
            let (mut logs, mut floors) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                floors.push(floor(count));
                logs.push(log(count));
            }
            let row = Row::new(GROUP, &format!("{way} {name}"), "each record", "ns").log(&logs);
            row.floor(FLOOR, &floors).write();
            let ratio = median(floors.iter().zip(&logs).map(|(floor, log)| floor / log).collect());
            format!("{:.1} | {:.1} | {ratio:.2}", median(logs), median(floors))
        });
        cells.join(" | ")
    }

    /// Nanoseconds a record, as for all below.
    fn sequential(&self, count: usize) -> f64 {
        self.range(0, count)
    }

    fn range(&self, first: usize, count: usize) -> f64 {
        let start = Instant::now();
        let mut reader = self.wal.reader(Position::At(self.lsns[first])).expect("it is retained");
        for _ in 0..count {
            let record = reader.next().expect("every record verifies").expect("it is committed");
            assert_eq!(black_box(record.payload()).len(), self.size);
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }

    fn ranges(&self, count: usize) -> f64 {
        self.scattered(count, |first| self.range(first, RANGE))
    }

    fn random(&self, count: usize) -> f64 {
        let mut places = Places::new(self.lsns.len());
        let start = Instant::now();
        for _ in 0..count {
            self.get(places.next());
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }

    #[inline]
    fn get(&self, place: usize) {
        let record = self.wal.get(self.lsns[place]).expect("it is retained");
        assert_eq!(black_box(record.payload()).len(), self.size);
    }

    fn floor_range(&self, first: usize, count: usize) -> f64 {
        let start = Instant::now();
        for place in first..first + count {
            self.floor.visit(place);
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }

    fn floor_ranges(&self, count: usize) -> f64 {
        self.scattered(count, |first| self.floor_range(first, RANGE))
    }

    fn floor_random(&self, count: usize) -> f64 {
        let mut places = Places::new(self.lsns.len());
        let start = Instant::now();
        for _ in 0..count {
            self.floor.visit(places.next());
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }

    /// Ranges that begin anywhere, `count` records in all or a few more.
    fn scattered(&self, count: usize, range: impl Fn(usize) -> f64) -> f64 {
        let mut places = Places::new(self.lsns.len() - RANGE);
        let ranges = count.div_ceil(RANGE);
        (0..ranges).map(|_| range(places.next())).sum::<f64>() / ranges as f64
    }

    /// Single reads, each timed: of a log at rest, and beside a producer.
    fn latencies(&self, name: &str) -> String {
        let share = seconds(2.0) / ROUNDS as u32 / 3;
        let [mut floor_p99, mut rest_p99, mut beside_p99] = [const { Vec::new() }; 3];
        let [mut floor, mut rest, mut busy] = std::array::from_fn(|_| histogram());
        for _ in 0..ROUNDS {
            for (all, p99, work) in
                [(&mut floor, &mut floor_p99, Work::Floor), (&mut rest, &mut rest_p99, Work::Rest)]
            {
                let mut places = Places::new(self.lsns.len());
                let round = crate::support::time_calls(share, || match work {
                    Work::Floor => self.floor.visit(places.next()),
                    Work::Rest => self.get(places.next()),
                });
                p99.push(round.value_at_quantile(0.99) as f64 / 1e3);
                all.add(round).expect("same bounds");
            }
        }
        // Last: it overwrites what the others read.
        for _ in 0..ROUNDS {
            let round = self.beside_a_producer(share);
            beside_p99.push(round.value_at_quantile(0.99) as f64 / 1e3);
            busy.add(round).expect("same bounds");
        }
        let case = format!("random {name}");
        Row::new(GROUP, &case, "p99", "us").log(&rest_p99).floor(FLOOR, &floor_p99).write();
        let row = Row::new(GROUP, &case, "p99 beside a producer", "us").log(&beside_p99);
        row.write();
        Row::new(GROUP, &case, "latency", "ns")
            .percentiles(FLOOR, &floor)
            .percentiles("log at rest", &rest)
            .percentiles("log beside a producer", &busy)
            .write();
        let rows = [("floor", &floor), ("log", &rest), ("log, beside a producer", &busy)];
        let rows = rows.map(|(what, times)| {
            let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
            let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
            let worst = times.max() as f64 / 1e3;
            format!("| {name} | {what} | {p50:.2} | {p99:.2} | {p999:.2} | {worst:.0} |")
        });
        rows.join("\n")
    }

    /// Reads of records that a producer has just appended, while it goes on.
    fn beside_a_producer(&self, share: Duration) -> hdrhistogram::Histogram<u64> {
        let payload = vec![0xA5; self.size];
        let produce = |stop: &AtomicBool| {
            while !stop.load(Ordering::Acquire) {
                append(self.wal, &payload);
            }
        };
        let mut times = histogram();
        beside(produce, || {
            let start = Instant::now();
            while start.elapsed() < share {
                let mut reader = self.wal.reader(Position::Newest).expect("the newest is there");
                let mut lsns = Vec::with_capacity(RANGE);
                while lsns.len() < RANGE {
                    lsns.extend(reader.next().expect("it verifies").map(|record| record.lsn()));
                }
                drop(reader);
                for lsn in lsns {
                    let before = Instant::now();
                    match self.wal.get(lsn) {
                        Ok(record) => assert_eq!(black_box(record.payload()).len(), self.size),
                        Err(ReadError::Trimmed { .. }) => continue,
                        Err(error) => panic!("{error}"),
                    }
                    times.saturating_record(before.elapsed().as_nanos() as u64);
                }
            }
        });
        times
    }

    /// Criterion's own figures.
    fn sample(&self, criterion: &mut Criterion, name: &str) {
        let oldest = self.wal.watermarks().trimmed;
        let mut places = Places::new(self.lsns.len());
        let mut group = criterion.benchmark_group(GROUP);
        group.throughput(Throughput::Bytes(self.size as u64));
        group.sample_size(10).measurement_time(seconds(1.0));
        group.warm_up_time(Duration::from_millis(300));
        group.bench_function(BenchmarkId::new("random floor", name), |bencher| {
            bencher.iter(|| self.floor.visit(places.next()));
        });
        let mut reader = self.wal.reader(Position::Oldest).expect("it can be read");
        group.bench_function(BenchmarkId::new("sequential", name), |bencher| {
            bencher.iter(|| {
                if black_box(reader.next().expect("every record verifies")).is_none() {
                    reader = self.wal.reader(Position::At(oldest)).expect("nobody trims");
                }
            });
        });
        group.finish();
    }
}

/// Nanoseconds a record for so many of them.
type Timed<'a> = &'a dyn Fn(usize) -> f64;

enum Work {
    Floor,
    Rest,
}

/// Places in no order that a prefetcher knows, the same in each round.
struct Places {
    state: u64,
    len: u64,
}

impl Places {
    fn new(len: usize) -> Places {
        Places { state: 0x9E37_79B9_7F4A_7C15, len: len as u64 }
    }

    #[inline]
    fn next(&mut self) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The upper half of a product is as even as a remainder, and no division.
        ((u128::from(self.state) * u128::from(self.len)) >> 64) as usize
    }
}
