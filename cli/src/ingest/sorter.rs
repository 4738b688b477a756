//! Which row goes to which stream.
//!
//! Contract:
//!
//! 1. A row belongs to the stream that its value in the column names; a row without a value there
//!    belongs to none.
//! 2. The streams that a block is the first to name are created together, in one addition to the
//!    catalog: two syncs for a block, and none for one that names none.
//! 3. Rows keep the order of their block.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::anyhow;
use kaelix_wal::{Stream, Wal};

use super::blocks::Block;
use super::producer::Failure;
use super::rows::{Column, Parser, blank_len, count_lines, line};
use crate::display::plural;

/// Longest possible name of a stream in bytes, as `Wal::stream` documents it.
const NAME_LEN_MAX: usize = 255;

/// Sorts the rows of blocks; each producer has its own.
pub struct Sorter<'a> {
    wal: &'a Wal,
    column: &'a Column,
    parser: Parser,
    /// Where a name's stream is in `streams`.
    known: HashMap<Box<str>, usize>,
    streams: Vec<Stream<'a>>,
    rows: Vec<Row>,
}

/// A row of the block that was sorted last.
struct Row {
    line: u64,
    bytes: Range<usize>,
    /// Where its stream is in `streams`, if it belongs to one.
    stream: Option<usize>,
}

impl<'a> Sorter<'a> {
    pub fn new(wal: &'a Wal, column: &'a Column) -> Self {
        let (known, streams, rows) = (HashMap::new(), Vec::new(), Vec::new());
        Self { wal, column, parser: Parser::new(), known, streams, rows }
    }

    /// Sorts the rows of a block, which [`rows`](Self::rows) then yields. If that fails, those
    /// before the failure are sorted.
    pub fn sort(&mut self, block: &Block) -> Option<Failure> {
        self.rows.clear();
        let mut new = Vec::new();
        let failure = self.parse(block, &mut new);
        if new.is_empty() {
            return failure;
        }
        let names: Vec<&str> = new.iter().map(|name| &**name).collect();
        match self.wal.streams(&names) {
            Ok(streams) => {
                self.streams.extend(streams);
                failure
            }
            Err(error) => {
                let created = self.streams.len();
                let is_new = |row: &Row| row.stream.is_some_and(|stream| stream >= created);
                let first = self.rows.iter().position(is_new).unwrap_or(0);
                let line = self.rows[first].line;
                self.rows.truncate(first);
                self.known.retain(|_, stream| *stream < created);
                let cause = anyhow!(error).context("its stream could not be created");
                Some(Failure { line, appended: false, cause })
            }
        }
    }

    /// The sorted rows: line number, bytes, stream.
    pub fn rows<'b>(
        &self,
        block: &'b Block,
    ) -> impl Iterator<Item = (u64, &'b [u8], Option<&Stream<'a>>)> {
        self.rows.iter().map(|row| {
            let stream = row.stream.map(|stream| &self.streams[stream]);
            (row.line, &block.bytes[row.bytes.clone()], stream)
        })
    }

    /// Takes the rows apart; names that are not known go to `new`.
    fn parse(&mut self, block: &Block, new: &mut Vec<Box<str>>) -> Option<Failure> {
        let (mut at, mut line_number) = (0, block.line_first);
        loop {
            let blank = blank_len(&block.bytes[at..]);
            line_number += count_lines(&block.bytes[at..at + blank]);
            at += blank;
            let rest = &block.bytes[at..];
            if rest.is_empty() {
                return None;
            }
            let found = match self.parser.row(rest) {
                Ok(len) => self.stream_of_row(new).map(|stream| (len, stream)),
                Err(_) => Err(anyhow!(
                    "a quote opens in this row, and none closes it before the end of the input or \
                     the length of the largest record"
                )),
            };
            let (len, stream) = match found {
                Ok(found) => found,
                Err(cause) => return Some(Failure { line: line_number, appended: false, cause }),
            };
            let bytes = at..at + line(&rest[..len]).len();
            self.rows.push(Row { line: line_number, bytes, stream });
            line_number += count_lines(&rest[..len]);
            at += len;
        }
    }

    /// Rule 1, for the row that was taken apart last.
    fn stream_of_row(&mut self, new: &mut Vec<Box<str>>) -> anyhow::Result<Option<usize>> {
        let Column { name: column, index } = self.column;
        let Some(value) = self.parser.field(*index) else {
            return Err(anyhow!(
                "the row has {}, and the column {column:?} is number {}",
                plural(self.parser.len() as u64, "field"),
                index + 1
            ));
        };
        if value.is_empty() {
            return Ok(None);
        }
        let Ok(name) = std::str::from_utf8(value) else {
            return Err(anyhow!("its value of {column:?} is not UTF-8, and names no stream"));
        };
        if name.len() > NAME_LEN_MAX {
            return Err(anyhow!(
                "its value of {column:?} has {} bytes, and the name of a stream {NAME_LEN_MAX} at \
                 most",
                name.len()
            ));
        }
        if let Some(stream) = self.known.get(name) {
            return Ok(Some(*stream));
        }
        let stream = self.streams.len() + new.len();
        new.push(name.into());
        self.known.insert(name.into(), stream);
        Ok(Some(stream))
    }
}
