//! What a million streams cost: memory beyond their names, and the time until they are known again.
//!
//! Memory is what a process has resident more after an open than before (`/proc/self/status`), a
//! process of its own, since one that has freed memory before uses that again. Floors of an open
//! are a plain read of both files, and that together with one CRC-32 over one of them.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use criterion::Criterion;
use kaelix_wal::fuzzing::StoredCatalog;

use crate::support::median;
use crate::support::results::Row;

const STREAMS: usize = 1_000_000;
const NAME_LEN: usize = 20;
const ROUNDS: usize = 7;
const LOG_ID: &[u8; 16] = b"a million names!";
/// In the environment of the process that measures its memory: the catalog's directory.
const CHILD: &str = "KAELIX_MEMORY_EFFICIENCY_DIR";

pub fn run(_: &mut Criterion) {
    if let Some(dir) = std::env::var_os(CHILD) {
        return measure_memory(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let names: Vec<String> = (0..STREAMS).map(name).collect();
    println!("\nmemory_efficiency: {STREAMS} streams, names of {NAME_LEN} bytes");
    println!("| what | value |\n|---|---|");
    let start = Instant::now();
    StoredCatalog::open(dir.path(), LOG_ID).create(&names);
    println!("| created in one call, durably | {:.0} ms |", millis(start));
    drop(names);
    let exe = std::env::current_exe().expect("this binary has a path");
    let mut child = Command::new(exe);
    child.arg("memory_efficiency").arg("--bench").env(CHILD, dir.path());
    assert!(child.output().expect("it can be started").status.success());
    let grown = fs::read_to_string(dir.path().join("grown")).expect("the child has written it");
    println!("| resident beyond the name, bytes a stream | {grown} |");
    let row = Row::new("memory_efficiency", "idle stream", "resident beyond its name", "bytes");
    row.log(&[grown.parse().expect("the child has written a number")]).write();
    measure_opens(dir.path());
}

fn name(number: usize) -> String {
    format!("customer/{number:07}/evt")
}

/// The child's part.
fn measure_memory(dir: &Path) {
    let before = resident_bytes();
    let catalog = StoredCatalog::open(dir, LOG_ID);
    let grown = resident_bytes() - before;
    assert_eq!(catalog.get(&name(STREAMS - 1)), Some(STREAMS as u32));
    let each = grown / STREAMS as f64 - NAME_LEN as f64;
    fs::write(dir.join("grown"), format!("{each:.1}")).expect("the directory can be written");
}

/// Floors and opens in turn.
fn measure_opens(dir: &Path) {
    let (mut opens, mut reads, mut sums) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let files = ["streams.a", "streams.b"].map(|name| fs::read(dir.join(name)));
        let files = files.map(|file| file.expect("it was written"));
        reads.push(millis(start));
        black_box(crc32fast::hash(&files[0]));
        sums.push(millis(start));
        drop(files);
        let start = Instant::now();
        let catalog = StoredCatalog::open(dir, LOG_ID);
        opens.push(millis(start));
        drop(catalog);
    }
    let row = Row::new("memory_efficiency", "a million streams", "open", "ms").log(&opens);
    row.floor("both files read, one CRC-32", &sums).write();
    let (open, read, sum) = (median(opens), median(reads), median(sums));
    println!("| floor: both files read | {read:.1} ms |");
    println!("| floor: both files read, one CRC-32 over one | {sum:.1} ms |");
    println!("| open | {open:.1} ms |");
    println!("| open / floor with CRC-32 | {:.1} |", open / sum);
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// What the process has resident.
fn resident_bytes() -> f64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its line");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    (kib << 10) as f64
}
