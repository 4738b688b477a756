//! The delivery: durable records to standard output, and space released behind the consumer.
//!
//! What was written to a pipe is not yet with its reader: the kernel holds some of it, and drops
//! it when the reader leaves. So *taken* is what was written less what the kernel still holds, and
//! only what is taken is released. Other outputs take what is written to them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use kaelix_wal::{Lsn, Position, ReadError, Tail, Wal};
use rustix::fs::{FileType, fstat};
use rustix::io::ioctl_fionread;

use super::feed::Feeder;
use crate::sink;

/// Standard output is flushed at least this often while records keep coming.
const FLUSH_LEN: usize = 256 << 10;

/// Records that together are this long are released together.
const MARK_LEN: u64 = 16 << 10;

/// How long to sleep for the next record before looking whether either end has gone.
const IDLE_WAIT: Duration = Duration::from_millis(10);

/// The same while the consumer has yet to take something: the feeder may wait for that space.
const TAKING_WAIT: Duration = Duration::from_millis(1);

/// After the end of the input, the consumer has this long to take what it was given. One that
/// begins to read only when this process has ended must not wait for it for ever.
const END_WAIT_MAX: Duration = Duration::from_secs(1);

/// A checkpoint reaches the disk this long after it was made, or a little later. This bounds what
/// a crash can deliver twice, for one small sync in each interval.
const NOTE_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub enum Ended {
    InputDelivered,
    OutputClosed,
}

/// A record boundary, in both counts.
struct Mark {
    /// Bytes of output before it.
    written: u64,
    /// Where the next record starts.
    next: Lsn,
}

pub struct Delivery<'w> {
    wal: &'w Wal,
    tail: Tail<'w>,
    out: BufWriter<File>,
    is_pipe: bool,
    /// Bytes given to `out`.
    written: u64,
    /// `written` when space was last looked for.
    looked_at: u64,
    /// Boundaries that the consumer has not reached yet, oldest first. They are as many as `out`
    /// and the kernel can hold bytes between them.
    marks: VecDeque<Mark>,
    /// `written` at the newest mark.
    marked_at: u64,
    /// Where the record after the last written one starts.
    next: Lsn,
    /// A checkpoint was made that is not on disk yet.
    unnoted: bool,
    noted_at: Instant,
}

impl<'w> Delivery<'w> {
    /// Begins at the oldest record: whatever an earlier run did not deliver comes first.
    pub fn new(wal: &'w Wal) -> anyhow::Result<Self> {
        let tail = wal.tail(Position::Oldest).context("cannot read the log")?.durable_only();
        let stdout = sink::stdout()?;
        let stat = fstat(&stdout).context("cannot look at standard output")?;
        Ok(Self {
            wal,
            next: tail.position(),
            tail,
            out: BufWriter::with_capacity(FLUSH_LEN, stdout),
            is_pipe: FileType::from_raw_mode(stat.st_mode) == FileType::Fifo,
            written: 0,
            looked_at: 0,
            marked_at: 0,
            marks: VecDeque::new(),
            unnoted: false,
            noted_at: Instant::now(),
        })
    }

    pub fn run(mut self, feeder: &Feeder) -> anyhow::Result<Ended> {
        match self.deliver(feeder) {
            Ok(()) => {
                self.checkpoint(self.next)?;
                Ok(Ended::InputDelivered)
            }
            Err(error) if sink::is_closed_output(&error) => {
                // The kernel still knows what the reader had not taken when it left.
                self.release_taken()?;
                Ok(Ended::OutputClosed)
            }
            Err(error) => Err(error),
        }
    }

    fn deliver(&mut self, feeder: &Feeder) -> anyhow::Result<()> {
        let mut ended_at = None;
        loop {
            // Asked before looking: an empty look after the end has nothing left to find.
            let ended = feeder.has_ended();
            if self.write_next(ended)? {
                if self.written - self.looked_at >= FLUSH_LEN as u64 {
                    self.release_taken()?;
                }
                continue;
            }
            self.out.flush().map_err(sink::output_error)?;
            self.mark();
            self.release_taken()?;
            sink::fail_if_closed()?;
            if ended {
                let since = ended_at.get_or_insert_with(Instant::now);
                if self.marks.is_empty() || since.elapsed() >= END_WAIT_MAX {
                    return Ok(());
                }
            }
        }
    }

    /// Writes the next record. False if there is none for now.
    fn write_next(&mut self, ended: bool) -> anyhow::Result<bool> {
        let wait = self.wait(ended);
        let record = match self.tail.next(wait) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(false),
            Err(ReadError::Gap { lsn, next }) => {
                eprintln!(
                    "warning: lines at LSN {lsn} were damaged and are lost; a repair has left a \
                     gap up to LSN {next}"
                );
                self.next = next;
                return Ok(true);
            }
            Err(error) => return Err(error).context("cannot read the next record"),
        };
        self.out.write_all(record.payload()).map_err(sink::output_error)?;
        self.written += record.payload().len() as u64;
        self.next = record.next_lsn();
        if self.written - self.marked_at >= MARK_LEN {
            self.mark();
        }
        Ok(true)
    }

    /// How long to wait for the next record.
    fn wait(&self, ended: bool) -> Duration {
        if !self.out.buffer().is_empty() {
            Duration::ZERO
        } else if !self.marks.is_empty() {
            TAKING_WAIT
        } else if ended {
            Duration::ZERO
        } else {
            IDLE_WAIT
        }
    }

    fn mark(&mut self) {
        if self.marked_at < self.written {
            self.marks.push_back(Mark { written: self.written, next: self.next });
            self.marked_at = self.written;
        }
    }

    /// Gives up what the consumer has taken, and sees to it that the disk hears of it in time.
    fn release_taken(&mut self) -> anyhow::Result<()> {
        self.looked_at = self.written;
        let taken = self.taken();
        let mut reached = None;
        while self.marks.front().is_some_and(|mark| mark.written <= taken) {
            reached = self.marks.pop_front().map(|mark| mark.next);
        }
        if let Some(next) = reached {
            self.checkpoint(next)?;
        }
        if self.unnoted && self.noted_at.elapsed() >= NOTE_INTERVAL {
            self.wal.sync_checkpoint().context("cannot note on disk what was delivered")?;
            self.unnoted = false;
            self.noted_at = Instant::now();
        }
        Ok(())
    }

    /// Bytes that the consumer has taken.
    fn taken(&self) -> u64 {
        // A pipe that cannot be asked is taken for a full one of the usual size.
        let in_kernel =
            if self.is_pipe { ioctl_fionread(self.out.get_ref()).unwrap_or(64 << 10) } else { 0 };
        self.written.saturating_sub(self.out.buffer().len() as u64).saturating_sub(in_kernel)
    }

    fn checkpoint(&mut self, next: Lsn) -> anyhow::Result<()> {
        self.wal.checkpoint(next).context("cannot release what was delivered")?;
        self.unnoted = true;
        Ok(())
    }
}
