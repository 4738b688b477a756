//! What the integration tests share: small logs, bytes that prove where they came from, random
//! numbers with a seed that replays them, and waiting for a condition instead of sleeping.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use kaelix_wal::{AppendError, Blocker, Durability, Geometry, Lsn, Options, Position, Wal};

pub const SEGMENT: u64 = 64 << 10;
/// Offset of a segment's first record.
pub const FIRST_RECORD: u64 = 64;
/// Offset in a segment at which its records end: the last page is the footer's.
pub const RECORD_END: u64 = SEGMENT - 4096;
/// Where the segments start in the ring file.
pub const DATA_OFFSET: u64 = 2 << 20;
/// Far longer than anything takes on a loaded machine; reaching it is a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Every durability mode, with an interval short enough to matter in a test.
pub const MODES: [Durability; 3] =
    [Durability::None, Durability::Interval(Duration::from_millis(2)), Durability::OnDemand];

/// Four of the smallest segments.
pub fn small() -> Geometry {
    Geometry::new(4 * SEGMENT, SEGMENT).expect("the smallest segments are possible")
}

/// A directory that is removed at the end, and in it the path of a log.
pub struct Place {
    _root: tempfile::TempDir,
    pub path: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        let path = root.path().join("log");
        Place { _root: root, path }
    }

    /// A place in memory, where the mode for persistent memory can be asked for; without one, says
    /// that a test is left out.
    #[allow(clippy::print_stderr, reason = "the harness shows it when asked to")]
    pub fn on_tmpfs() -> Option<Place> {
        // A directory of this name that is no tmpfs is refused by the log.
        let Ok(root) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("left out: there is no tmpfs in /dev/shm");
            return None;
        };
        let path = root.path().join("log");
        Some(Place { _root: root, path })
    }

    /// A log of the smallest size here.
    pub fn create(&self, options: Options) -> Wal {
        Wal::create(&self.path, small(), options).expect("a new log can be created")
    }

    pub fn open(&self, options: Options) -> Wal {
        Wal::open(&self.path, options).expect("the log can be opened again")
    }

    pub fn ring(&self) -> PathBuf {
        self.path.join("ring")
    }

    /// Another path beside the log.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }
}

/// Copies the log at `from` to `to`: another inode, so that it opens as after a power loss. Of a
/// log that is open, the caller keeps what is retained from being recycled meanwhile.
pub fn copy_log(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("the copy's directory is new");
    let head = || {
        let mut head = vec![0; 3 * 4096];
        let ring = File::open(from.join("ring")).expect("the ring is there");
        ring.read_exact_at(&mut head, 0).expect("it has a head");
        head
    };
    loop {
        let before = head();
        std::fs::copy(from.join("ring"), to.join("ring")).expect("the ring can be copied");
        // A checkpoint slot that was written meanwhile may have been copied half.
        if head() == before {
            break;
        }
    }
    for catalog in ["streams.a", "streams.b"] {
        if from.join(catalog).exists() {
            std::fs::copy(from.join(catalog), to.join(catalog)).expect("it can be copied");
        }
    }
}

/// A xorshift generator. The same seed gives the same numbers for ever.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        // Neighbouring seeds shall not give neighbouring streams, and 0 is no state.
        let mixed = (seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        Rng(mixed ^ mixed >> 29 | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// The seed of this run: `KAELIX_SEED`, or a new one. Printed, so that a failure can be replayed.
#[allow(clippy::print_stderr, reason = "the harness shows it when the test fails")]
pub fn seed(test: &str) -> u64 {
    let seed = number("KAELIX_SEED", 0);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let seed = if seed == 0 { since.as_nanos() as u64 | 1 } else { seed };
    eprintln!("{test}: replay with KAELIX_SEED={seed}");
    seed
}

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => {
            text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, and not a number"))
        }
        Err(_) => default,
    }
}

/// How much longer than in a quick run a stress test works: `KAELIX_STRESS`, 1 by default.
pub fn stress() -> u64 {
    number("KAELIX_STRESS", 1)
}

/// `len` bytes that follow from `key`: an altered, shifted or mixed-up record shows.
pub fn bytes(key: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(key ^ (len as u64) << 40);
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// A record that says who wrote it as which: writer, number, then bytes that follow from both.
pub fn numbered(writer: u32, number: u64, len: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(len.max(12));
    payload.extend_from_slice(&writer.to_le_bytes());
    payload.extend_from_slice(&number.to_le_bytes());
    let rest = len.saturating_sub(payload.len());
    payload.extend_from_slice(&bytes(u64::from(writer) << 48 ^ number, rest));
    payload
}

/// Who wrote a record of [`numbered`], as which; panics if a single byte of it was altered.
pub fn check_numbered(lsn: Lsn, payload: &[u8]) -> (u32, u64) {
    let (head, _) = payload
        .split_first_chunk::<12>()
        .unwrap_or_else(|| panic!("the record at {lsn} has only {} bytes", payload.len()));
    let writer = u32::from_le_bytes(*head.first_chunk().expect("12 bytes have 4"));
    let number = u64::from_le_bytes(*head.last_chunk().expect("12 bytes have 8"));
    let want = numbered(writer, number, payload.len());
    assert!(want == payload, "the record at {lsn} says {writer}:{number} and was altered");
    (writer, number)
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// Runs `body` in a thread and fails if it takes longer than `PATIENCE`, as a hang would.
pub fn within_patience<T: Send + 'static>(
    what: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let value = body();
        // The receiver is gone only if it has given up.
        let _ = sender.send(());
        value
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        },
        Err(RecvTimeoutError::Timeout) => panic!("{what} hangs"),
    }
}

/// A moment from now.
pub fn soon(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// Appends records of `len` bytes, numbered from `from`, until the ring is full; returns their
/// positions and the refusal.
pub fn fill(wal: &Wal, from: u64, len: usize) -> (Vec<Lsn>, AppendError) {
    let mut lsns = Vec::new();
    loop {
        match wal.reserve_deadline(len, soon(300)) {
            Ok(mut reservation) => {
                let number = from + lsns.len() as u64;
                reservation.copy_from_slice(&numbered(0, number, len));
                lsns.push(reservation.commit());
            }
            // It is not full: on a busy machine, what prepares segments has not been served yet.
            Err(AppendError::Full { retained, capacity, .. })
                if retained < capacity - wal.geometry().segment_size()
                    && !matches!(wal.who_blocks_reclaim(), Some(Blocker::Reader { .. })) => {}
            Err(refusal) => return (lsns, refusal),
        }
    }
}

/// All records from `from` on: position and payload.
pub fn read_all(wal: &Wal, from: Position) -> Vec<(Lsn, Vec<u8>)> {
    let mut reader = wal.reader(from).expect("the position can be read from");
    let mut records = Vec::new();
    while let Some(record) = reader.next().expect("no record is damaged") {
        records.push((record.lsn(), record.payload().to_vec()));
    }
    records
}

/// CRC-32 as in zlib, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32_from(bytes, 0)
}

/// Goes on from another CRC-32.
pub fn crc32_from(bytes: &[u8], start: u32) -> u32 {
    let mut crc = !start;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
