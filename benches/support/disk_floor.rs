//! The floors of durability: what the disk itself takes, by plain writes and data syncs of blocks
//! that are written already, on the same file system in the same run.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::written_file;

const PAGE: usize = 4096;

/// Sequential overwrites of one file, one caller.
pub struct DiskFloor {
    file: File,
    size: u64,
}

impl DiskFloor {
    /// A file of `size` bytes in `dir`, written once.
    pub fn new(dir: &Path, size: u64) -> std::io::Result<DiskFloor> {
        Ok(DiskFloor { file: written_file(dir, size)?, size })
    }

    /// Writes and syncs `bytes` in units of `unit`, round and round; returns the time taken.
    pub fn overwrite(&self, bytes: u64, unit: usize) -> std::io::Result<Duration> {
        let data = vec![0x5A_u8; unit];
        let start = Instant::now();
        let mut offset = 0;
        for _ in 0..bytes.div_ceil(unit as u64) {
            if offset + unit as u64 > self.size {
                offset = 0;
            }
            self.file.write_all_at(&data, offset)?;
            self.file.sync_data()?;
            offset += unit as u64;
        }
        Ok(start.elapsed())
    }

    /// One page, written and synced: the `n`th of the file, round and round.
    pub fn page(&self, n: u64) -> std::io::Result<()> {
        let offset = n * PAGE as u64 % self.size;
        self.file.write_all_at(&[0x5A_u8; PAGE], offset)?;
        self.file.sync_data()
    }
}

/// Group commit as plainly as it can be had: callers put records in a buffer; whoever finds no
/// leader writes what has come together and syncs it, the others wait. No checksum, no header, and
/// nothing could be recovered from it.
pub struct GroupFloor {
    file: File,
    size: u64,
    state: Mutex<Group>,
    led: Condvar,
}

#[derive(Default)]
struct Group {
    buffer: Vec<u8>,
    /// Bytes appended and bytes durable since the start.
    appended: u64,
    durable: u64,
    led: bool,
}

impl GroupFloor {
    /// A file of `size` bytes in `dir`, written once.
    pub fn new(dir: &Path, size: u64) -> std::io::Result<GroupFloor> {
        let file = written_file(dir, size)?;
        Ok(GroupFloor { file, size, state: Mutex::default(), led: Condvar::new() })
    }

    /// Appends a record and returns once it is durable.
    pub fn append(&self, record: &[u8]) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.buffer.extend_from_slice(record);
        state.appended += record.len() as u64;
        let goal = state.appended;
        while state.durable < goal {
            if state.led {
                state = self.led.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.led = true;
            let bytes = std::mem::take(&mut state.buffer);
            let (from, to) = (state.durable, state.appended);
            drop(state);
            let offset = (from % self.size).min(self.size - bytes.len() as u64);
            let written = self.file.write_all_at(&bytes, offset);
            let synced = written.and_then(|()| self.file.sync_data());
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.led = false;
            synced?;
            state.durable = to;
            self.led.notify_all();
        }
        Ok(())
    }
}
