//! A producer: takes blocks of lines, or rows, and appends them, in input order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use indicatif::ProgressBar;
use kaelix_wal::{AppendError, Lsn, Stream, Wal};

use super::blocks::Block;
use super::rows::Column;
use super::sorter::Sorter;
use crate::args::{FullPolicy, SyncPolicy};

/// How long `--on-full wait` waits for space before it gives up.
pub const SPACE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the producers share.
pub struct Work<'a> {
    pub wal: &'a Wal,
    pub sync: SyncPolicy,
    pub on_full: FullPolicy,
    /// The lines are rows, and this column says to which stream each belongs.
    pub column: Option<&'a Column>,
    pub progress: &'a ProgressBar,
    /// A producer failed: nobody begins another block.
    pub stop: &'a AtomicBool,
}

/// What one producer did, or all of them together.
#[derive(Debug, Default)]
pub struct Tally {
    pub records: u64,
    /// Rows that belong to no stream.
    pub unnamed: u64,
    pub bytes: u64,
    pub lsn_first: Option<Lsn>,
    pub lsn_last: Option<Lsn>,
    pub failure: Option<Failure>,
}

/// The line at which a producer stopped.
#[derive(Debug)]
pub struct Failure {
    pub line: u64,
    /// The record is in the log, but its durability was not reached.
    pub appended: bool,
    pub cause: anyhow::Error,
}

impl Tally {
    fn count(&mut self, lsn: Lsn, len: usize) {
        self.records += 1;
        self.bytes += len as u64;
        self.lsn_first.get_or_insert(lsn);
        self.lsn_last = Some(lsn);
    }

    /// Adds another producer's tally. Of several failures the one at the earliest line is kept:
    /// every line before it is in the log.
    pub fn merge(&mut self, other: Self) {
        self.records += other.records;
        self.unnamed += other.unnamed;
        self.bytes += other.bytes;
        self.lsn_first = [self.lsn_first, other.lsn_first].into_iter().flatten().min();
        self.lsn_last = self.lsn_last.max(other.lsn_last);
        let failures = [self.failure.take(), other.failure];
        self.failure = failures.into_iter().flatten().min_by_key(|failure| failure.line);
    }
}

impl Work<'_> {
    /// Appends blocks until there are no more, or until somebody failed. Empty blocks go back so
    /// that their memory is used again.
    pub fn produce(&self, blocks: &Receiver<Block>, spent: &Sender<Vec<u8>>) -> Tally {
        let mut tally = Tally::default();
        let mut sorter = self.column.map(|column| Sorter::new(self.wal, column));
        for block in blocks {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            match &mut sorter {
                None => self.append_lines(&block, &mut tally),
                Some(sorter) => self.append_rows(&block, sorter, &mut tally),
            }
            if tally.failure.is_some() {
                self.stop.store(true, Ordering::Relaxed);
                break;
            }
            self.progress.inc(block.bytes.len() as u64);
            // The reading thread may be done and gone: then nobody needs the memory.
            let _ = spent.send(block.bytes);
        }
        tally
    }

    fn append_lines(&self, block: &Block, tally: &mut Tally) {
        let mut line_last = block.line_first;
        for (line, payload) in block.lines() {
            line_last = line;
            if !self.append(line, payload, None, tally) {
                return;
            }
        }
        self.end_block(line_last, tally);
    }

    fn append_rows(&self, block: &Block, sorter: &mut Sorter<'_>, tally: &mut Tally) {
        let failure = sorter.sort(block);
        let mut line_last = block.line_first;
        for (line, payload, stream) in sorter.rows(block) {
            line_last = line;
            if !self.append(line, payload, stream, tally) {
                return;
            }
            tally.unnamed += u64::from(stream.is_none());
        }
        self.end_block(line_last, tally);
        // All lines before it are in the log now.
        tally.failure = tally.failure.take().or(failure);
    }

    /// Appends one record. False if that failed.
    fn append(
        &self,
        line: u64,
        payload: &[u8],
        stream: Option<&Stream<'_>>,
        tally: &mut Tally,
    ) -> bool {
        let appended = match stream {
            None => self.append_to_log(payload),
            Some(stream) => self.append_to_stream(stream, payload),
        };
        match appended {
            Ok(lsn) => {
                tally.count(lsn, payload.len());
                self.sync != SyncPolicy::Each || self.persist(line, lsn, tally)
            }
            Err(error) => {
                tally.failure = Some(Failure { line, appended: false, cause: error.into() });
                false
            }
        }
    }

    fn append_to_log(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        if self.on_full != FullPolicy::Wait {
            return self.wal.append(payload);
        }
        // The clock is read only when there is something to wait for.
        let mut reservation = match self.wal.try_reserve(payload.len()) {
            Err(AppendError::Full { .. }) => {
                self.wal.reserve_deadline(payload.len(), Instant::now() + SPACE_WAIT_MAX)?
            }
            result => result?,
        };
        reservation.copy_from_slice(payload);
        Ok(reservation.commit())
    }

    fn append_to_stream(&self, stream: &Stream<'_>, payload: &[u8]) -> Result<Lsn, AppendError> {
        if self.on_full != FullPolicy::Wait {
            return stream.append(payload);
        }
        let deadline = Instant::now() + SPACE_WAIT_MAX;
        let mut reservation = stream.reserve_deadline(payload.len(), deadline)?;
        reservation.copy_from_slice(payload);
        Ok(reservation.commit())
    }

    fn end_block(&self, line_last: u64, tally: &mut Tally) {
        if let (SyncPolicy::Group, Some(lsn)) = (self.sync, tally.lsn_last) {
            self.persist(line_last, lsn, tally);
        }
    }

    /// Waits until the record at `lsn` is durable. False if that failed.
    fn persist(&self, line: u64, lsn: Lsn, tally: &mut Tally) -> bool {
        match self.wal.wait_durable(lsn) {
            Ok(()) => true,
            Err(error) => {
                tally.failure = Some(Failure { line, appended: true, cause: error.into() });
                false
            }
        }
    }
}
