//! What the writer tells the demo about each event, while it lives.
//!
//! One line an acknowledgement, written after the fact: `C event lsn` once the commit returned,
//! `D event lsn` once the event is durable, `H event lsn` for the reservation that stays open. The
//! writer may be killed inside a line, so one without a newline says nothing.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};

use kaelix_wal::Lsn;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Committed,
    Durable,
    Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    pub kind: Kind,
    pub event: u64,
    pub lsn: Lsn,
}

impl Ack {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        let kind = match words.next()? {
            "C" => Kind::Committed,
            "D" => Kind::Durable,
            "H" => Kind::Held,
            _ => return None,
        };
        let event = words.next()?.parse().ok()?;
        let lsn = Lsn::new(words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self { kind, event, lsn })
    }
}

/// Acknowledgements of one producer on their way out. They are sent late rather than early, so
/// what the demo holds the log to is only what surely happened.
#[derive(Default)]
pub struct Outbox {
    lines: String,
    waiting: usize,
}

/// A producer sends this many acknowledgements at a time: one system call for each would make
/// this a demo of pipes.
const SEND_COUNT: usize = 64;

impl Outbox {
    pub fn push(&mut self, kind: Kind, event: u64, lsn: Lsn) -> io::Result<()> {
        let letter = match kind {
            Kind::Committed => 'C',
            Kind::Durable => 'D',
            Kind::Held => 'H',
        };
        writeln!(self.lines, "{letter} {event} {lsn}").map_err(io::Error::other)?;
        self.waiting += 1;
        if self.waiting >= SEND_COUNT { self.send() } else { Ok(()) }
    }

    pub fn send(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.lines.as_bytes())?;
        out.flush()?;
        self.lines.clear();
        self.waiting = 0;
        Ok(())
    }
}

/// Reads the next whole acknowledgement; `None` once the writer is gone.
pub fn next(input: &mut impl BufRead, line: &mut String) -> io::Result<Option<Ack>> {
    line.clear();
    if input.read_line(line)? == 0 || !line.ends_with('\n') {
        return Ok(None);
    }
    let ack = Ack::parse(line);
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("not understood: {line}"));
    ack.map(Some).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_says_nothing() {
        let mut input: &[u8] = b"C 1 64\nD 20 128\nH 3 256\nC 4 51";
        let mut line = String::new();
        let mut read = Vec::new();
        while let Some(ack) = next(&mut input, &mut line).unwrap() {
            read.push((ack.kind, ack.event, ack.lsn.get()));
        }
        let expected = [(Kind::Committed, 1, 64), (Kind::Durable, 20, 128), (Kind::Held, 3, 256)];
        assert_eq!(read, expected);
    }
}
