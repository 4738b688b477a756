//! Opening, verifying and repairing logs of 1 MB to 1 GB, clean, killed, torn and corrupted, beside
//! the floor of walking and checking the same number of the same records in memory, on one core.
//!
//! *Killed* is what a process leaves that ends by SIGKILL while it writes, *torn* a copy of a log
//! that is being written: it is recovered as after a power loss. All of it is warm: the files are
//! in the page cache. The last table is cold: the file has been evicted, and beside it is a
//! sequential read of as many bytes. With `KAELIX_BENCH_LARGE=1` there is a log of 16 GB as well,
//! which takes as much of the disk, and of memory if it is to be warm.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::Criterion;
use kaelix_wal::repair::{Mode, Original, RepairPlan};
use kaelix_wal::verify::{Verdict, Verifier};
use kaelix_wal::{Durability, Geometry, OnFull, Options, Verify, Wal};

use crate::support::results::Row;
use crate::support::scan_floor::ScanFloor;
use crate::support::{median, seconds};

const MB: u64 = 1 << 20;
/// Sizes of the ring, and of its segments.
const SIZES: [(u64, u64); 4] =
    [(MB, 64 << 10), (10 * MB, 512 << 10), (100 * MB, 4 * MB), (1024 * MB, 16 * MB)];
const PAYLOADS: [usize; 2] = [64, 1 << 10];
const ROUNDS: usize = 5;
/// A disk that is shared is several times as fast in one round as in the next.
const COLD_ROUNDS: usize = 9;
/// The columns of the table.
const MEASURES: [&str; 9] = [
    "floor",
    "open, clean",
    "open, killed",
    "open, torn",
    "open in full",
    "verify",
    "verify, corrupt",
    "plan a salvage",
    "salvage",
];
/// Where the ring begins in its file.
const DATA_OFFSET: u64 = 2 * MB;
/// In the environment of the process that is killed: the directory of the log that it writes.
const VICTIM: &str = "KAELIX_RECOVERY_OPERATIONS_DIR";

pub fn run(_: &mut Criterion) {
    if let Some(dir) = std::env::var_os(VICTIM) {
        be_killed(Path::new(&dir));
    }
    println!("\nrecovery_operations: milliseconds, medians of {ROUNDS}; in brackets, of the floor");
    println!("| ring, payload | {} |", MEASURES.join(" | "));
    println!("|---|{}", "---|".repeat(MEASURES.len()));
    let short = seconds(1.0) < Duration::from_millis(200);
    for (size, segment) in SIZES {
        for payload in PAYLOADS {
            // The largest is left out of the shortest runs.
            if !short || size < SIZES[3].0 {
                warm(size, segment, payload);
            }
        }
    }
    if !short {
        cold();
    }
    if std::env::var_os("KAELIX_BENCH_LARGE").is_some() {
        large();
    }
}

/// A log of this size in three states.
struct Logs {
    _root: tempfile::TempDir,
    clean: PathBuf,
    torn: PathBuf,
    corrupt: PathBuf,
}

impl Logs {
    fn new(size: u64, segment: u64, payload: usize) -> Logs {
        let root = tempfile::tempdir().expect("a temporary directory");
        let [clean, torn, corrupt] = ["clean", "torn", "corrupt"].map(|it| root.path().join(it));
        let wal = fill(&clean, size, segment, payload);
        // What follows has not been synced when the power goes.
        wal.append(&vec![0xA5; payload]).expect("there is room");
        copy(&clean, &torn);
        let middle = size / 2 / segment * segment + DATA_OFFSET;
        wal.close().expect("nothing is open");
        drop(wal);
        copy(&clean, &corrupt);
        let ring = File::options().write(true).open(corrupt.join("ring"));
        ring.and_then(|ring| ring.write_all_at(&[0; 4096], middle + 8192)).expect("it is there");
        Logs { _root: root, clean, torn, corrupt }
    }
}

/// A new log in which little room is left, durable.
fn fill(dir: &Path, size: u64, segment: u64, payload: usize) -> Wal {
    let geometry = Geometry::new(size, segment).expect("valid sizes");
    let options = Options::new().durability(Durability::OnDemand).on_full(OnFull::Fail);
    let wal = Wal::create(dir, geometry, options).expect("it is new");
    let (bytes, end) = (vec![0xA5; payload], size - segment);
    while wal.watermarks().reserved.get() < end - segment / 2 {
        for _ in 0..segment / 4 / (payload as u64 + 16) {
            while wal.append(black_box(&bytes)).is_err() {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
    wal.sync().expect("the disk takes it");
    wal
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("it is new");
    fs::copy(from.join("ring"), to.join("ring")).expect("there is room");
    let ring = File::open(to.join("ring")).expect("it is there");
    ring.sync_all().expect("the disk takes it");
}

/// Milliseconds.
fn time<T>(operation: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    let result = operation();
    let took = start.elapsed().as_secs_f64() * 1e3;
    drop(result);
    took
}

/// Lets a process write to the log and be killed.
fn kill_a_writer(dir: &Path) {
    let exe = std::env::current_exe().expect("this binary has a path");
    let mut victim = Command::new(exe);
    victim.arg("recovery_operations").arg("--bench").env(VICTIM, dir);
    let status = victim.output().expect("it can be started").status;
    assert_eq!(status.signal(), Some(9), "it was not killed");
}

/// The victim's part: something is durable, and some more is only committed.
fn be_killed(dir: &Path) -> ! {
    let wal = open(dir, Verify::Lazy);
    wal.append_durable(&[0xA5; 64]).expect("there is room");
    for _ in 0..100 {
        wal.append(&[0xA5; 64]).expect("there is room");
    }
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("it may");
    unreachable!("a process outlives SIGKILL")
}

fn open(dir: &Path, verify: Verify) -> Wal {
    Wal::open(dir, Options::new().verify(verify)).expect("nothing that is read is damaged")
}

fn verify(dir: &Path, want: Verdict) {
    let found = Verifier::new(dir).run().expect("it can be read");
    assert_eq!(found.verdict(), want);
}

fn warm(size: u64, segment: u64, payload: usize) {
    let logs = Logs::new(size, segment, payload);
    let floor = ScanFloor::new(payload, (size - segment) as usize);
    let (mut columns, mut ratios) = (vec![Vec::new(); 9], vec![Vec::new(); 9]);
    for _ in 0..ROUNDS {
        let plan = || RepairPlan::new(&logs.corrupt, Mode::Salvage).expect("it can be planned");
        let saved = logs.corrupt.with_file_name("saved");
        copy(&logs.corrupt, &saved);
        let times = [
            time(|| black_box(floor.scan())),
            time(|| open(&logs.clean, Verify::Lazy)),
            {
                kill_a_writer(&logs.clean);
                time(|| open(&logs.clean, Verify::Lazy))
            },
            {
                let torn = logs.torn.with_file_name("power-lost");
                copy(&logs.torn, &torn);
                time(|| open(&torn, Verify::Lazy))
            },
            time(|| open(&logs.clean, Verify::Full)),
            time(|| verify(&logs.clean, Verdict::Sound)),
            time(|| verify(&logs.corrupt, Verdict::Corrupt)),
            time(plan),
            time(|| {
                let plan = RepairPlan::new(&saved, Mode::Salvage).expect("it can be planned");
                plan.apply(Original::Discard).expect("the disk takes it")
            }),
        ];
        for (at, took) in times.into_iter().enumerate() {
            columns[at].push(took);
            ratios[at].push(took / times[0]);
        }
    }
    for (measure, rounds) in MEASURES.iter().zip(&columns).skip(1) {
        let case = format!("{} MB, {payload} B", size / MB);
        let row = Row::new("recovery_operations", &case, measure, "ms").log(rounds);
        row.floor("the same records in memory, walked and checked", &columns[0]).write();
    }
    let cells = columns.into_iter().zip(ratios).enumerate().map(|(at, (column, ratios))| {
        let (took, ratio) = (median(column), median(ratios));
        if at == 0 { format!("{took:.2}") } else { format!("{took:.2} ({ratio:.2})") }
    });
    let cells: Vec<String> = cells.collect();
    println!("| {} MB, {payload} B | {} |", size / MB, cells.join(" | "));
}

/// Opens that read no records but those of the last segment.
fn large() {
    let (size, segment) = (16 * SIZES[3].0, SIZES[3].1);
    println!("\nrecovery_operations, large: milliseconds, medians of {ROUNDS}");
    println!("| ring, payload | open, clean | open, killed |\n|---|---|---|");
    let root = tempfile::tempdir().expect("a temporary directory");
    let log = root.path().join("log");
    drop(fill(&log, size, segment, 64));
    let [mut clean, mut killed] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        clean.push(time(|| open(&log, Verify::Lazy)));
        kill_a_writer(&log);
        killed.push(time(|| open(&log, Verify::Lazy)));
    }
    let case = format!("{} MB, 64 B", size / MB);
    Row::new("recovery_operations", &case, "open, clean", "ms").log(&clean).write();
    Row::new("recovery_operations", &case, "open, killed", "ms").log(&killed).write();
    println!("| {case} | {:.2} | {:.2} |", median(clean), median(killed));
}

/// The whole file, from the disk.
fn cold() {
    let (size, segment) = SIZES[3];
    let case = format!("{} MB, 1024 B", size / MB);
    println!(
        "\nrecovery_operations, cold: milliseconds, medians of {COLD_ROUNDS}; the read's range"
    );
    println!("| ring, payload | sequential read | verify | ratio |\n|---|---|---|---|");
    let logs = Logs::new(size, segment, 1 << 10);
    let ring = logs.clean.join("ring");
    let evict = || {
        let file = File::open(&ring).expect("it is there");
        file.sync_all().expect("the disk takes it");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("a hint");
    };
    let [mut reads, mut verified, mut ratios] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..COLD_ROUNDS {
        evict();
        let read = time(|| {
            let mut file = File::open(&ring).expect("it is there");
            let mut piece = vec![0; 1 << 20];
            while file.read(&mut piece).expect("it can be read") > 0 {
                black_box(&piece);
            }
        });
        evict();
        let took = time(|| verify(&logs.clean, Verdict::Sound));
        reads.push(read);
        verified.push(took);
        ratios.push(took / read);
    }
    let row = Row::new("recovery_operations", &case, "verify, cold", "ms").log(&verified);
    row.floor("a sequential read of as many bytes", &reads).write();
    let [least, most] = [f64::min, f64::max]
        .map(|either| reads.iter().copied().reduce(either).expect("there are rounds"));
    let [read, took, ratio] = [reads, verified, ratios].map(median);
    println!("| {case} | {read:.0} ({least:.0} to {most:.0}) | {took:.0} | {ratio:.2} |");
}
