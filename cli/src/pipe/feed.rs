//! The feeder: standard input into the log.
//!
//! One read takes many lines, and a line may take many reads. Whole lines are appended before the
//! next read, so they never wait for the input to go on; an unfinished one waits in the buffer.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use kaelix_wal::{AppendError, Wal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// One read asks for this much, and a line longer than this is split, whatever the log could hold:
/// the buffer is twice as long and never grows.
const READ_LEN: usize = 256 << 10;

/// How the feeding ended.
#[derive(Debug)]
pub enum FeedEnd {
    /// All that was read is in the log.
    Complete,
    /// The log was closed before the last bytes that were read fitted in.
    Lost {
        bytes: usize,
    },
    Failed(anyhow::Error),
}

/// The running feeder, as the delivering thread sees it.
pub struct Feeder {
    thread: JoinHandle<FeedEnd>,
    ended: Arc<AtomicBool>,
    /// The feeder polls the other end beside standard input: dropping this one wakes it up.
    stop: Option<OwnedFd>,
}

/// Tells the delivering thread that nothing more comes, also when the feeder panics.
struct EndedOnDrop(Arc<AtomicBool>);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Feeder {
    pub fn start(wal: Arc<Wal>) -> anyhow::Result<Self> {
        let (stopped, stop) = rustix::pipe::pipe().context("cannot make a pipe")?;
        // Standard input without the standard library's buffer: ours is larger.
        let input = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("cannot use standard input; raise the limit on open files")?;
        let input = File::from(input);
        let ended = Arc::new(AtomicBool::new(false));
        let guard = EndedOnDrop(Arc::clone(&ended));
        let thread = thread::Builder::new()
            .name("feeder".to_owned())
            .spawn(move || {
                let _guard = guard;
                Feed::new(&wal, stopped, input).run()
            })
            .context("cannot start a thread; raise the limit on processes")?;
        Ok(Self { thread, ended, stop: Some(stop) })
    }

    /// Nothing more comes into the log, and what there is, is durable, unless the feeder failed.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Asks the feeder to read no more.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    pub fn join(self) -> FeedEnd {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

enum Input {
    More,
    Ended,
}

struct Feed<'a> {
    wal: &'a Wal,
    input: File,
    stopped: OwnedFd,
    record_len_max: usize,
    buffer: Box<[u8]>,
    /// `buffer[start..end]` was read and is not yet in the log.
    start: usize,
    end: usize,
}

impl<'a> Feed<'a> {
    fn new(wal: &'a Wal, stopped: OwnedFd, input: File) -> Self {
        Self {
            wal,
            input,
            stopped,
            record_len_max: wal.geometry().payload_len_max().min(READ_LEN),
            buffer: vec![0; 2 * READ_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn run(mut self) -> FeedEnd {
        match self.feed() {
            Ok(()) => FeedEnd::Complete,
            Err(error) if matches!(error.downcast_ref(), Some(AppendError::Closed)) => {
                FeedEnd::Lost { bytes: self.end - self.start }
            }
            Err(error) => FeedEnd::Failed(error),
        }
    }

    fn feed(&mut self) -> anyhow::Result<()> {
        let result = loop {
            match self.read() {
                Ok(Input::More) => self.append_lines()?,
                Ok(Input::Ended) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // An unfinished line was taken from the producer like any other.
        self.append_rest()?;
        self.wal.sync().context("the input could not be made durable")?;
        result.context("cannot read standard input; everything that could be read is in the log")
    }

    fn read(&mut self) -> io::Result<Input> {
        // Making room at the front costs a copy of less than a record a read.
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        loop {
            if self.is_stopped()? {
                return Ok(Input::Ended);
            }
            match self.input.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(0) => return Ok(Input::Ended),
                Ok(len) => {
                    self.end += len;
                    return Ok(Input::More);
                }
            }
        }
    }

    /// Waits until there is input, or until the feeder is asked to stop.
    fn is_stopped(&self) -> io::Result<bool> {
        let mut descriptors =
            [PollFd::new(&self.input, PollFlags::IN), PollFd::new(&self.stopped, PollFlags::IN)];
        loop {
            match poll(&mut descriptors, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(!descriptors[1].revents().is_empty()),
            }
        }
    }

    fn append_lines(&mut self) -> anyhow::Result<()> {
        loop {
            let pending = &self.buffer[self.start..self.end];
            let window = &pending[..pending.len().min(self.record_len_max)];
            match memchr::memchr(b'\n', window) {
                Some(newline) => self.append(newline + 1)?,
                None if pending.len() >= self.record_len_max => self.append(self.record_len_max)?,
                None => return Ok(()),
            }
        }
    }

    fn append_rest(&mut self) -> anyhow::Result<()> {
        // Whole lines are gone, and so is all but a part of a record.
        if self.start < self.end { self.append(self.end - self.start) } else { Ok(()) }
    }

    fn append(&mut self, len: usize) -> anyhow::Result<()> {
        self.wal.append(&self.buffer[self.start..self.start + len])?;
        self.start += len;
        Ok(())
    }
}
