//! Standard output for records: buffered, as lines or as JSON, and with a reader that may leave.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kaelix_wal::{Entry, Lsn, StreamId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

const BUFFER_LEN: usize = 256 << 10;

/// Standard output was closed by its reader. `cat | head` is no failure, so this is an error of
/// its own, which ends the command with status 0.
#[derive(Debug, Clone, Copy)]
pub struct ClosedOutput;

impl std::fmt::Display for ClosedOutput {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("standard output was closed")
    }
}

impl std::error::Error for ClosedOutput {}

pub fn is_closed_output(error: &anyhow::Error) -> bool {
    error.is::<ClosedOutput>()
}

/// What an I/O error on standard output means to the command.
pub fn output_error(error: io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::BrokenPipe {
        anyhow::Error::new(ClosedOutput)
    } else {
        anyhow::Error::new(error).context(
            "cannot write to standard output; free space where it goes, then run the command again",
        )
    }
}

/// Prints a line for people. Unlike `println!`, it does not panic when nobody listens.
pub fn say(line: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").map_err(output_error)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Lines,
    Json,
}

impl Format {
    pub const fn from_flag(json: bool) -> Self {
        if json { Self::Json } else { Self::Lines }
    }
}

/// Where records are printed.
pub struct Sink {
    out: BufWriter<File>,
    format: Format,
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    lsn: u64,
    len: usize,
    stream: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Sink {
    pub fn new(format: Format) -> anyhow::Result<Self> {
        Ok(Self { out: BufWriter::with_capacity(BUFFER_LEN, stdout()?), format })
    }

    pub fn entry(&mut self, lsn: Lsn, entry: Entry<'_>) -> anyhow::Result<()> {
        let written = match self.format {
            Format::Lines => self.line(entry.payload),
            Format::Json => self.json(lsn, entry),
        };
        written.map_err(output_error)
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().map_err(output_error)
    }

    fn line(&mut self, payload: &[u8]) -> io::Result<()> {
        self.out.write_all(payload)?;
        if payload.last() == Some(&b'\n') { Ok(()) } else { self.out.write_all(b"\n") }
    }

    fn json(&mut self, lsn: Lsn, entry: Entry<'_>) -> io::Result<()> {
        let (stream, payload) = (entry.stream.map_or(0, StreamId::get), entry.payload);
        let text = std::str::from_utf8(payload).ok();
        let base64 = if text.is_none() { Some(STANDARD.encode(payload)) } else { None };
        let record = JsonRecord { lsn: lsn.get(), len: payload.len(), stream, text, base64 };
        serde_json::to_writer(&mut self.out, &record).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }
}

/// Standard output without the line buffer that the standard library puts before it, which would
/// write once for every few lines.
pub fn stdout() -> anyhow::Result<File> {
    let descriptor = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot use standard output; raise the limit on open files")?;
    Ok(File::from(descriptor))
}

/// Sleeps, but ends with [`ClosedOutput`] as soon as the reader of standard output is gone: who
/// only finds out at the next write outlives the reader on a quiet log.
pub fn sleep_unless_closed(duration: Duration) -> anyhow::Result<()> {
    let stdout = rustix::stdio::stdout();
    let mut descriptors = [PollFd::new(&stdout, PollFlags::empty())];
    let timeout = Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    };
    // An interrupted sleep is a short one, which does no harm.
    let ready = poll(&mut descriptors, Some(&timeout)).unwrap_or(0);
    let gone = descriptors[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    if ready > 0 && gone { Err(anyhow::Error::new(ClosedOutput)) } else { Ok(()) }
}

/// The same without sleeping.
pub fn fail_if_closed() -> anyhow::Result<()> {
    sleep_unless_closed(Duration::ZERO)
}
