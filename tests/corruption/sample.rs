//! The log that is damaged: two epochs, a stream, consumers, records in every state.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kaelix_wal::{Durability, Geometry, Lsn, OnFull, Options, Wal};

use crate::common::{DATA_OFFSET, RECORD_END, SEGMENT};

pub const SEGMENTS: u64 = 6;

/// The files of a log, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A log as a power loss has left it.
pub struct Sample {
    pub files: Files,
    /// The parity of its sealed segments, which is not among the files.
    pub parity: Vec<u8>,
    /// The ring at an earlier moment: its newest page was not yet full, nothing was released.
    pub early: Vec<u8>,
    /// All retained records, in order.
    pub records: Vec<(Lsn, Vec<u8>)>,
    /// Nobody was told that records from here on are durable.
    pub unacknowledged: Lsn,
    /// Where the second epoch begins: in the middle of segment 2.
    pub epoch: Lsn,
}

/// A directory for logs: in memory, if there is a place.
pub fn directory() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).expect("a temporary directory can be made")
}

pub fn read_files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).expect("the log is there");
    let names = entries.map(|entry| entry.expect("it can be listed").file_name());
    let names = names.map(|name| name.into_string().expect("names are plain"));
    let file = |name: String| {
        let bytes = fs::read(dir.join(&name)).expect("it can be read");
        (name, bytes)
    };
    names.filter(|name| name != "lock").map(file).collect()
}

/// Puts a log with these files into `root`.
pub fn put(root: &Path, files: &Files) -> PathBuf {
    let dir = root.join("log");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("it is new");
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).expect("there is room");
    }
    dir
}

/// The file offset of an LSN.
pub fn file_offset(lsn: Lsn) -> usize {
    let (segment, offset) = (lsn.get() / SEGMENT, lsn.get() % SEGMENT);
    segment_offset(segment) + offset as usize
}

/// The file offset of a segment.
pub fn segment_offset(sequence: u64) -> usize {
    (DATA_OFFSET + sequence % SEGMENTS * SEGMENT) as usize
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..892).map(|at| (number * 31 + at * 7) as u8));
    bytes
}

impl Sample {
    pub fn new(root: &Path) -> Sample {
        let dir = root.join("sample");
        let geometry = Geometry::new(SEGMENTS * SEGMENT, SEGMENT).expect("valid sizes");
        // No flusher: only what is waited for is synced.
        let options = Options::new().durability(Durability::None).on_full(OnFull::Fail);
        let options = options.parity(true);
        let wal = Wal::create(&dir, geometry, options).expect("it is new");
        wal.stream("orders").expect("a new stream");
        for name in ["billing", "search"] {
            wal.consumer(name).expect("a new consumer");
        }
        let mut records = Vec::new();
        let mut append = |wal: &Wal| {
            let bytes = payload(records.len() as u64);
            let lsn = wal.append_durable(&bytes).expect("there is room");
            records.push((lsn, bytes));
            lsn
        };
        // The early moment is half a page before the end of the epoch.
        while append(&wal).get() < 2 * SEGMENT + 20_000 {}
        let early = fs::read(dir.join("ring")).expect("it can be read");
        append(&wal);
        append(&wal);
        let released = wal.checkpoint(Lsn::new(SEGMENT + 64)).expect("segment 1's first record");
        assert_eq!(released, Lsn::new(SEGMENT + 64));
        wal.sync_checkpoint().expect("the disk takes it");
        wal.close().expect("nothing is open");
        drop(wal);
        let wal = Wal::open(&dir, options).expect("it was closed in order");
        let epoch = wal.recovery_report().end;
        while append(&wal).get() < 4 * SEGMENT + 20_000 {}
        let unacknowledged = wal.watermarks().published;
        for _ in 0..3 {
            let bytes = payload(records.len() as u64);
            records.push((wal.append(&bytes).expect("there is room"), bytes));
        }
        assert_eq!(wal.sync_parity().expect("the disk takes it"), 3);
        // A segment that was released is prepared in the background for its next lap.
        let head = segment_offset(0)..segment_offset(0) + 64;
        let is_prepared = |files: &Files| files["ring"][head.clone()] != early[head.clone()];
        let mut files = read_files(&dir);
        while !is_prepared(&files) {
            std::thread::yield_now();
            files = read_files(&dir);
        }
        drop(wal);
        records.retain(|(lsn, _)| *lsn >= released);
        let parity = files.remove("parity").expect("three segments are protected");
        Sample { files, parity, early, records, unacknowledged, epoch }
    }

    /// The first of the retained records in a segment, but for so many.
    pub fn record(&self, sequence: u64, skip: usize) -> Lsn {
        let inside = |lsn: &Lsn| lsn.get() / SEGMENT == sequence;
        let mut lsns = self.records.iter().map(|(lsn, _)| *lsn).filter(inside);
        lsns.nth(skip).expect("it has so many")
    }

    /// The first evidence record of a segment behind some records: at its start, whether a sync
    /// finds room for evidence depends on how soon the segment was prepared.
    pub fn evidence(&self, sequence: u64) -> usize {
        let ring = &self.files["ring"];
        let mut at = file_offset(self.record(sequence, 3));
        let end = segment_offset(sequence) + RECORD_END as usize;
        while at < end {
            let len = u32::from_le_bytes(ring[at..at + 4].try_into().expect("4 bytes"));
            if ring[at + 12..at + 14] == [5, 2] {
                return at;
            }
            at += len.next_multiple_of(16) as usize;
        }
        panic!("segment {sequence} has no evidence")
    }
}
