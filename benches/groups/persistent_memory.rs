//! Appends that become durable in persistent memory, beside the floor: claim, copy, write the lines
//! back, fence. On tmpfs, where the mode is asked for: what is measured is the work, not a medium.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use crossbeam_utils::CachePadded;
use kaelix_wal::{Geometry, OnFull, Options, Persistence, Wal};
use memmap2::MmapRaw;

use crate::support::results::Row;
use crate::support::{ROUNDS, median, seconds, time_threads};

const TMPFS: &str = "/dev/shm";
const RING: u64 = 64 << 20;
const SEGMENT: u64 = 4 << 20;
const SIZES: [(usize, &str); 3] = [(64, "64B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];
const THREADS: [u64; 2] = [1, 8];

/// The group; where there is no tmpfs, or no floor for this processor, it says so.
pub fn run(criterion: &mut Criterion) {
    let Ok(dir) = tempfile::tempdir_in(TMPFS) else {
        println!("\npersistent_memory: left out, since {TMPFS} cannot be written to");
        return;
    };
    let geometry = Geometry::new(RING, SEGMENT).expect("valid sizes");
    let options =
        Options::new().persistence(Persistence::PersistentMemory).on_full(OnFull::Overwrite);
    let wal = match Wal::create(dir.path().join("log"), geometry, options) {
        Ok(wal) => wal,
        Err(error) => return println!("\npersistent_memory: left out: {error}"),
    };
    let floor = Floor::new(dir.path()).expect("a floor");
    let append = |payload: &[u8]| {
        black_box(wal.append_durable(black_box(payload)).expect("memory takes it"));
    };
    let mut group = criterion.benchmark_group("persistent_memory");
    group.sample_size(10).measurement_time(seconds(2.0)).warm_up_time(Duration::from_secs(1));
    let mut rows = Vec::new();
    for (size, name) in SIZES {
        let payload = vec![0xA5_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        for threads in THREADS {
            let id = format!("{name}/{threads}");
            group.bench_function(BenchmarkId::new("wal", &id), |bencher| {
                bencher.iter_custom(|n| time_threads(threads, n, || append(&payload)));
            });
            group.bench_function(BenchmarkId::new("floor", &id), |bencher| {
                bencher.iter_custom(|n| time_threads(threads, n, || floor.append(&payload)));
            });
            let wal_append = || append(&payload);
            rows.push(ratio(&wal_append, &|| floor.append(&payload), size, threads, &id));
        }
    }
    group.finish();
    println!("\npersistent_memory: ns for each durable append, medians of {ROUNDS} rounds in turn");
    println!("| size/threads | floor | log | floor/log |\n|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
}

/// One row: floor and log in turn.
fn ratio(
    log: &(dyn Fn() + Sync),
    floor: &(dyn Fn() + Sync),
    size: usize,
    threads: u64,
    id: &str,
) -> String {
    let count = (seconds(2.0).as_secs_f64() * 1e9 / 4.0 / (400.0 + size as f64 / 2.0)) as u64;
    let nanos = |time: Duration| time.as_nanos() as f64 / count as f64;
    let (mut floors, mut logs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(nanos(time_threads(threads, count, floor)));
        logs.push(nanos(time_threads(threads, count, log)));
    }
    let row = Row::new("persistent_memory", id, "each append", "ns").log(&logs);
    row.floor("claim, copy, write back, fence", &floors).write();
    let ratio = median(floors.iter().zip(&logs).map(|(floor, log)| floor / log).collect());
    format!("| {id} | {:.0} | {:.0} | {ratio:.2} |", median(floors), median(logs))
}

/// A prefaulted ring, to which records are copied and written back: nobody could find them again.
struct Floor {
    map: MmapRaw,
    tail: CachePadded<AtomicU64>,
}

impl Floor {
    fn new(dir: &Path) -> std::io::Result<Floor> {
        let path = dir.join("floor");
        std::fs::write(&path, vec![0; RING as usize])?;
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
        let map = memmap2::MmapOptions::new().map_raw(&file)?;
        // SAFETY: the mapping is so long, writable, and not shared with anyone yet.
        unsafe { std::ptr::write_bytes(map.as_mut_ptr(), 0, RING as usize) };
        Ok(Floor { map, tail: CachePadded::new(AtomicU64::new(0)) })
    }

    /// Header and payload, in memory when this returns.
    #[inline]
    fn append(&self, payload: &[u8]) {
        let len = (16 + payload.len() as u64).next_multiple_of(16);
        let at = self.tail.fetch_add(len, Ordering::Relaxed) % RING;
        let offset = if at + len > RING { 0 } else { at };
        // SAFETY: `offset + len` lies in the mapping, and so does all that is computed from it.
        let record = unsafe { self.map.as_mut_ptr().add(offset as usize) };
        // SAFETY: in the mapping and aligned to 16, as the offset is.
        unsafe { record.cast::<[u64; 2]>().write([len, at]) };
        // SAFETY: as above; 16 header bytes come first.
        let target = unsafe { record.add(16) };
        // SAFETY: claims of different laps may overlap, but nobody looks at the bytes; `payload` is
        // not in the mapping.
        unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), target, payload.len()) };
        let misaligned = record as usize % 64;
        for line in (0..misaligned + len as usize).step_by(64) {
            write_back(record.wrapping_sub(misaligned).wrapping_add(line));
        }
        fence();
    }
}

#[cfg(target_arch = "x86_64")]
fn write_back(line: *const u8) {
    // SAFETY: the line is mapped. This machine has the instruction: the log, which was opened
    // before, uses the same where there is one, and the benchmark is for machines that have it.
    unsafe {
        std::arch::asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags));
    };
}

#[cfg(target_arch = "x86_64")]
fn fence() {
    // SAFETY: SSE is part of the architecture.
    unsafe { std::arch::x86_64::_mm_sfence() };
}

#[cfg(target_arch = "aarch64")]
fn write_back(line: *const u8) {
    // SAFETY: the line is mapped; nothing is changed.
    unsafe {
        std::arch::asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags));
    };
}

#[cfg(target_arch = "aarch64")]
fn fence() {
    // SAFETY: a barrier changes nothing.
    unsafe { std::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Elsewhere the log has refused the mode.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write_back(_line: *const u8) {}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fence() {}
