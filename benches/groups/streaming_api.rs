//! Reading back: all entries of a full ring of 1 GiB against a bare scan, and single streams of
//! its ten thousand by the index.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use kaelix_wal::{Durability, EntryReader, Geometry, OnFull, Options, Position, Stream, Wal};

use crate::support::results::Row;
use crate::support::scan_floor::ScanFloor;
use crate::support::{ROUNDS, median};

const RING: u64 = 1 << 30;
const SEGMENT: u64 = 16 << 20;
const STREAMS: usize = 10_000;
const PAYLOAD: [u8; 64] = [0xA5; 64];
/// How many streams are read one by one.
const READ: usize = 1000;

pub fn run(_criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = filled(dir.path());
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let streams = wal.streams(&names).expect("they are there");

    let start = Instant::now();
    let retained = streams[0].len().expect("the log is whole");
    let build = start.elapsed();
    let (first, rate) = read_streams(&streams);
    let (ratio, nanos) = replay(&wal);
    let row = Row::new("streaming_api", "first entry of a stream", "median", "us");
    row.log(&[first]).write();
    let row = Row::new("streaming_api", "entries of one stream", "rate", "M/s");
    row.log(&[rate]).write();
    println!("\nstreaming_api: a ring of 1 GiB, full of 64 B entries of {STREAMS} streams");
    println!("| | |");
    println!("|---|---|");
    println!("| entries of a stream | {retained} |");
    println!("| building the index, once, ms | {:.0} |", build.as_secs_f64() * 1e3);
    println!("| first entry of a stream, µs, median of {READ} streams | {first:.0} |");
    println!("| entries of one stream a second, millions | {rate:.1} |");
    println!("| replay of all, ns an entry, median of {ROUNDS} rounds | {nanos:.1} |");
    println!("| replay of all / bare scan and CRC, entries a second | {ratio:.2} |");
}

fn names() -> Vec<String> {
    (0..STREAMS).map(|number| format!("stream {number}")).collect()
}

/// A log that has been filled, stream by stream in turn, until its ring has been round.
fn filled(dir: &Path) -> Wal {
    let geometry = Geometry::new(RING, SEGMENT).expect("valid sizes");
    let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
    let wal = Wal::create(dir.join("log"), geometry, options).expect("a log can be created");
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let streams = wal.streams(&names).expect("they are created");
    // Not in the order of their ids.
    for number in 0..RING as usize / 80 + STREAMS {
        let stream = &streams[number.wrapping_mul(7919) % STREAMS];
        stream.append(&PAYLOAD).expect("the oldest makes room");
    }
    drop(streams);
    wal
}

/// Microseconds to the first entry, and millions of entries a second from there on.
fn read_streams(streams: &[Stream<'_>]) -> (f64, f64) {
    let (mut firsts, mut entries, mut time) = (Vec::new(), 0_u64, Duration::ZERO);
    for stream in streams.iter().step_by(STREAMS / READ) {
        let start = Instant::now();
        let mut reader = stream.read(Position::Oldest).expect("it can be read");
        assert!(reader.next().expect("every record verifies").is_some());
        firsts.push(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        entries += count(&mut reader);
        time += start.elapsed();
    }
    (median(firsts), entries as f64 / time.as_secs_f64() / 1e6)
}

fn count(reader: &mut EntryReader<'_>) -> u64 {
    let mut entries = 0;
    while let Some(entry) = reader.next().expect("every record verifies") {
        black_box(entry.payload);
        entries += 1;
    }
    entries
}

/// Replay against the floor, as a ratio of rates, and nanoseconds an entry.
fn replay(wal: &Wal) -> (f64, f64) {
    let floor = ScanFloor::new(PAYLOAD.len(), RING as usize);
    let [mut ratios, mut nanos, mut bares] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let records = floor.scan();
        let bare = start.elapsed().as_nanos() as f64 / records as f64;
        let start = Instant::now();
        let mut reader = wal.entries(Position::Oldest).expect("it can be read");
        let entries = count(&mut reader);
        let ours = start.elapsed().as_nanos() as f64 / entries as f64;
        ratios.push(bare / ours);
        nanos.push(ours);
        bares.push(bare);
    }
    let row = Row::new("streaming_api", "replay of all", "each entry", "ns").log(&nanos);
    row.floor("bare scan and CRC", &bares).write();
    (median(ratios), median(nanos))
}
