//! Rows of comma-separated values: where each ends, and what stands in its columns.
//!
//! Contract:
//!
//! 1. The parser of the `csv` crate decides, everywhere the same: fields are separated by commas
//!    and may be quoted; within quotes a comma or a newline is a part of the field, and two quotes
//!    are one.
//! 2. A row's bytes are those of the input without the newline that ends it. A carriage return
//!    before that stays with the row, and is no part of its last field.
//! 3. An empty line is no row.

use std::io::{self, Read};

use anyhow::{Context, bail};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use super::blocks::read_piece;

/// The header is looked for in this many bytes: whatever has no row in them is no table.
const HEADER_LEN_MAX: usize = 1 << 20;
const READ_LEN: usize = 64 << 10;

fn reader() -> Reader {
    // A carriage return alone ends no row, as it ends no line.
    ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build()
}

/// Finds the ends of rows in an input that comes piece by piece.
pub struct RowEnds {
    reader: Box<Reader>,
    /// What is parsed goes here, and is not looked at.
    fields: Box<[u8]>,
    ends: Box<[usize]>,
}

impl RowEnds {
    pub fn new() -> Self {
        let (fields, ends) = (vec![0; READ_LEN].into(), vec![0; 256].into());
        Self { reader: Box::new(reader()), fields, ends }
    }

    /// Takes the next piece of the input; returns where in it the last row ends that does.
    pub fn last_in(&mut self, piece: &[u8]) -> Option<usize> {
        let (mut at, mut last) = (0, None);
        while at < piece.len() {
            let rest = &piece[at..];
            let (result, read, ..) =
                self.reader.read_record(rest, &mut self.fields, &mut self.ends);
            at += read;
            if result == ReadRecordResult::Record {
                last = Some(at);
            }
        }
        last
    }
}

/// Takes rows apart.
pub struct Parser {
    reader: Box<Reader>,
    fields: Vec<u8>,
    /// Where each field of the row ends in `fields`.
    ends: Vec<usize>,
    count: usize,
}

/// The bytes end within quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclosed;

impl Parser {
    pub fn new() -> Self {
        Self { reader: Box::new(reader()), fields: Vec::new(), ends: vec![0; 64], count: 0 }
    }

    /// Takes the row apart with which `bytes` begin; returns its length with its newline. The end
    /// of `bytes` ends a row too.
    pub fn row(&mut self, bytes: &[u8]) -> Result<usize, Unclosed> {
        let (mut at, mut written) = (0, 0);
        // As many as could be needed, so that the parser never stops for want of them.
        if self.fields.len() < bytes.len() + 2 {
            self.fields.resize(bytes.len() + 2, 0);
        }
        self.count = 0;
        loop {
            let input = if at < bytes.len() { &bytes[at..] } else { b"\n" };
            let (result, read, copied, ended) = self.reader.read_record(
                input,
                &mut self.fields[written..],
                &mut self.ends[self.count..],
            );
            let was_end = at >= bytes.len();
            at += read;
            written += copied;
            self.count += ended;
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => break,
                ReadRecordResult::InputEmpty if was_end => {
                    self.reader.reset();
                    return Err(Unclosed);
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull => {}
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
            }
        }
        let len = at.min(bytes.len());
        if line(&bytes[..len]).ends_with(b"\r")
            && let Some(end) = self.ends[..self.count].last_mut()
            && self.fields[..*end].ends_with(b"\r")
        {
            *end -= 1;
        }
        Ok(len)
    }

    /// How many fields the row has that was taken apart last.
    pub fn len(&self) -> usize {
        self.count
    }

    /// One of its fields, counted from 0, without quotes.
    pub fn field(&self, index: usize) -> Option<&[u8]> {
        let ends = &self.ends[..self.count];
        let end = *ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| ends[before]);
        Some(&self.fields[start..end])
    }
}

/// A line, or a row, without the newline at its end.
pub fn line(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\n").unwrap_or(bytes)
}

/// The empty lines with which `bytes` begin (rule 3): how many bytes.
pub fn blank_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(behind) = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n")) {
        rest = behind;
    }
    bytes.len() - rest.len()
}

pub fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// The column by which rows are sorted into streams.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Counted from 0.
    pub index: usize,
}

/// The first row of an input, which names its columns.
#[derive(Debug)]
pub struct Header {
    pub column: Column,
    /// The lines that it takes, with empty ones before it.
    pub lines: u64,
    /// What was read of the input behind it.
    pub rest: Vec<u8>,
}

impl Header {
    /// Reads the header, and finds the column of this name.
    pub fn read(input: &mut dyn Read, column: &str) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        let mut ends = RowEnds::new();
        loop {
            let start = bytes.len();
            let read = read_piece(input, &mut bytes, READ_LEN);
            let is_end = read.context("cannot read the header of the input")? == 0;
            if is_end || ends.last_in(&bytes[start..]).is_some() {
                break;
            }
            if bytes.len() > HEADER_LEN_MAX {
                bail!(
                    "the first row of the input is longer than {HEADER_LEN_MAX} bytes: \
                     --stream-by needs a table of comma-separated values with a header"
                );
            }
        }
        let blank = blank_len(&bytes);
        if blank == bytes.len() {
            bail!("the input is empty: --stream-by needs a first row that names the columns");
        }
        let mut parser = Parser::new();
        let Ok(len) = parser.row(&bytes[blank..]) else {
            bail!("the first row of the input has a quote that is never closed");
        };
        let index = find(&parser, column)?;
        let rest = bytes.split_off(blank + len);
        let column = Column { name: column.to_owned(), index };
        Ok(Self { column, lines: count_lines(&bytes), rest })
    }
}

fn find(header: &Parser, column: &str) -> anyhow::Result<usize> {
    let is_named = |index: &usize| header.field(*index) == Some(column.as_bytes());
    let mut found = (0..header.len()).filter(is_named);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => {
            bail!("the first row of the input names more than one column {column:?}")
        }
        (None, _) => {
            let names = (0..header.len()).filter_map(|index| header.field(index));
            let names: Vec<_> = names.map(String::from_utf8_lossy).collect();
            bail!(
                "the first row of the input names no column {column:?}; it names {}",
                names.join(", ")
            )
        }
    }
}

/// Everything that is left of an input whose header has been read.
pub fn behind_header<'r>(rest: Vec<u8>, input: Box<dyn Read + 'r>) -> Box<dyn Read + 'r> {
    Box::new(io::Cursor::new(rest).chain(input))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input, its only row, and that row's fields.
    type Case = (&'static [u8], &'static [u8], &'static [&'static [u8]]);

    /// The rows of `bytes`, each with its fields.
    fn rows(mut bytes: &[u8]) -> Vec<(&[u8], Vec<Vec<u8>>)> {
        let mut parser = Parser::new();
        let mut rows = Vec::new();
        loop {
            bytes = &bytes[blank_len(bytes)..];
            if bytes.is_empty() {
                return rows;
            }
            let len = parser.row(bytes).unwrap();
            let fields = (0..parser.len()).map(|index| parser.field(index).unwrap().to_vec());
            rows.push((line(&bytes[..len]), fields.collect()));
            bytes = &bytes[len..];
        }
    }

    #[test]
    fn a_row_is_its_line_and_its_fields_are_without_quotes() {
        let cases: [Case; 12] = [
            (b"a,b", b"a,b", &[b"a", b"b"]),
            (b"a,b\n", b"a,b", &[b"a", b"b"]),
            (b"a,b\r\n", b"a,b\r", &[b"a", b"b"]),
            (b"a,\"b\"\r\n", b"a,\"b\"\r", &[b"a", b"b"]),
            (b"a,\"b\r\"\n", b"a,\"b\r\"", &[b"a", b"b\r"]),
            (b",\n", b",", &[b"", b""]),
            (b"a,\r\n", b"a,\r", &[b"a", b""]),
            (b"\"a,1\",b\n", b"\"a,1\",b", &[b"a,1", b"b"]),
            (b"\"say \"\"a\"\"\",b\n", b"\"say \"\"a\"\"\",b", &[b"say \"a\"", b"b"]),
            (b"\"two\nlines\",b\n", b"\"two\nlines\",b", &[b"two\nlines", b"b"]),
            (b"a\"b,c\"\n", b"a\"b,c\"", &[b"a\"b", b"c\""]),
            (b"\n\r\n\n\xff,b", b"\xff,b", &[b"\xff", b"b"]),
        ];
        for (input, row, fields) in cases {
            let found = rows(input);
            assert_eq!(found.len(), 1, "{input:?}");
            assert_eq!(found[0].0, row, "{input:?}");
            assert_eq!(found[0].1, fields, "{input:?}");
        }
        let many = ["x"; 1000].join(",");
        assert_eq!(rows(many.as_bytes())[0].1.len(), 1000);
        assert!(rows(b"\n\r\n").is_empty());
    }

    #[test]
    fn an_open_quote_is_no_row() {
        let mut parser = Parser::new();
        for open in [&b"a,\"b"[..], b"\"", b"\"\"\"", b"a,\"b\n1,2\n"] {
            assert_eq!(parser.row(open), Err(Unclosed), "{open:?}");
        }
        // And the parser is as good as new.
        assert_eq!(parser.row(b"a,b\nc"), Ok(4));
        assert_eq!(parser.field(1), Some(&b"b"[..]));
    }

    #[test]
    fn rows_end_where_they_do_however_the_input_comes() {
        let input = b"a,\"b\nc\"\nd\n\ne,\"\"\"\n\"\nf,g";
        for step in 1..=input.len() {
            let mut ends = RowEnds::new();
            let mut last = 0;
            for (number, piece) in input.chunks(step).enumerate() {
                last = ends.last_in(piece).map_or(last, |at| number * step + at);
            }
            assert_eq!(&input[last..], b"f,g", "in steps of {step}");
        }
    }

    #[test]
    fn the_header_names_the_column_and_the_rest_is_untouched() {
        let input = b"\n\xef\xbb\xbfid,\"tail\nnumber\",id2\r\n1,2,3\n";
        let header = |column: &str| Header::read(&mut &input[..], column);
        let found = header("tail\nnumber").unwrap();
        assert_eq!((found.column.index, found.lines), (1, 3));
        assert_eq!(found.rest, b"1,2,3\n");
        assert_eq!(header("id2").unwrap().column.index, 2);
        let words = header("name").unwrap_err().to_string();
        assert!(words.contains("no column \"name\"") && words.contains("id2"), "{words}");
        for (input, expected) in [
            (&b""[..], "empty"),
            (b"\n\n", "empty"),
            (b"a,\"b\n", "never closed"),
            (b"a,b,a\n", "more than one"),
        ] {
            let words = Header::read(&mut &input[..], "a").unwrap_err().to_string();
            assert!(words.contains(expected), "{input:?}: {words}");
        }
        let mut endless = io::repeat(b'x');
        assert!(Header::read(&mut endless, "a").unwrap_err().to_string().contains("longer than"));
    }
}
