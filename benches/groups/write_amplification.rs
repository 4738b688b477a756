//! What the disk writes for each byte that is committed: for a new file, after it has been read
//! back from the disk, and after laps; beside it, the trap of large folios.
//!
//! The disk's own counter is read, so other writers on the disk spoil a run.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use criterion::Criterion;
use kaelix_wal::{Durability, OnFull, Options, Wal};
use rustix::fs::Advice;

use crate::support::results::Row;
use crate::support::{RING, append, mapped_file, median, open};

const PAYLOAD: usize = 1 << 10;
/// Bytes of records in each measurement: half a ring.
const BYTES: u64 = RING / 2;
const ROUNDS: usize = 3;
/// Single pages that are dirtied and synced, each by itself.
const SINGLES: u64 = 256;

pub fn run(_: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = Disk::under(dir.path()) else {
        println!("\nwrite_amplification: skipped, no counters for the disk under the directory");
        return;
    };
    println!("\nwrite_amplification: bytes the disk wrote for each byte, medians of {ROUNDS}");
    println!("| what | ratio |\n|---|---|");
    let row = |what: &str, ratio: f64| println!("| {what} | {ratio:.2} |");
    for (name, unit) in [("4 KiB", 4 << 10), ("1 MiB", 1 << 20)] {
        let ratio = median((0..ROUNDS).map(|_| folios(dir.path(), &disk, unit)).collect());
        row(&format!("single pages dirtied and synced, file filled in writes of {name}"), ratio);
    }
    let (mut new, mut laps, mut cold, mut cold_singles) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let path = dir.path().join(round.to_string());
        let wal = open(&path, Durability::OnDemand);
        new.push(ingest(&wal, &disk));
        for _ in 0..4 {
            ingest(&wal, &disk);
        }
        laps.push(ingest(&wal, &disk));
        wal.close().expect("the disk takes it");
        drop(wal);
        evict(&path.join("log/ring"));
        let options = Options::new().on_full(OnFull::Overwrite);
        let wal = Wal::open(path.join("log"), options).expect("it was closed in order");
        cold_singles.push(singles(&wal, &disk));
        cold.push(ingest(&wal, &disk));
    }
    for (case, rounds) in [("new file", &new), ("after laps", &laps), ("cold open", &cold)] {
        let row = Row::new("write_amplification", case, "written for each byte", "bytes");
        row.log(rounds).write();
    }
    row("log, sustained ingest, new file", median(new));
    row("log, sustained ingest, after laps", median(laps));
    row("log, sustained ingest, after a cold open", median(cold));
    row("log, 1 KiB made durable at a time after a cold open, for each page", median(cold_singles));
}

/// Records as fast as they are taken, durable at the end.
fn ingest(wal: &Wal, disk: &Disk) -> f64 {
    let payload = vec![0xA5_u8; PAYLOAD];
    let before = disk.written();
    for _ in 0..BYTES / (PAYLOAD as u64 + 16) {
        append(wal, &payload);
    }
    wal.sync().expect("the disk takes it");
    (disk.written() - before) as f64 / BYTES as f64
}

/// Records made durable one by one; a record of this size is on one page or two.
fn singles(wal: &Wal, disk: &Disk) -> f64 {
    let payload = vec![0xA5_u8; PAYLOAD];
    let before = (disk.written(), wal.metrics().sync_bytes);
    for _ in 0..SINGLES {
        wal.append_durable(&payload).expect("the disk takes it");
    }
    (disk.written() - before.0) as f64 / (wal.metrics().sync_bytes - before.1) as f64
}

/// Pages of a mapped file, far from each other, each dirtied and synced by itself.
fn folios(dir: &Path, disk: &Disk, unit: usize) -> f64 {
    let mut map = mapped_file(dir, RING, unit).expect("a mapping");
    let before = disk.written();
    for single in 0..SINGLES {
        let at = (single * (RING / SINGLES)) as usize;
        map[at] ^= 1;
        map.flush_range(at, 1).expect("the disk takes it");
    }
    (disk.written() - before) as f64 / (SINGLES * 4096) as f64
}

/// Takes the file out of the page cache.
fn evict(path: &Path) {
    let file = File::open(path).expect("the ring file");
    file.sync_all().expect("the disk takes it");
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice is free");
}

/// The disk's count of sectors written.
struct Disk {
    counters: std::path::PathBuf,
}

impl Disk {
    fn under(dir: &Path) -> Option<Disk> {
        let device = std::fs::metadata(dir).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let counters = format!("/sys/dev/block/{major}:{minor}/stat").into();
        let disk = Disk { counters };
        disk.sectors().map(|_| disk)
    }

    fn sectors(&self) -> Option<u64> {
        let text = std::fs::read_to_string(&self.counters).ok()?;
        text.split_whitespace().nth(6)?.parse().ok()
    }

    fn written(&self) -> u64 {
        self.sectors().expect("the counters were there") * 512
    }
}
