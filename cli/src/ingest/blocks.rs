//! Blocks of whole lines, or rows: what the reading thread hands to the producers.
//!
//! Contract:
//!
//! 1. The blocks, one after the other, are the input: no byte is lost, moved or added.
//! 2. A block ends behind a line, or where rows are read, behind a row. The last one may end
//!    anywhere; so may a block whose only line is longer than the largest record: its producer
//!    refuses it, and it is the last one too.
//! 3. A block is handed out as soon as the input pauses, so a slow pipe is not held back.

use std::io::{self, Read};

use super::rows::{RowEnds, count_lines, line};

/// A block is about this long: large enough that handing it over costs nothing beside its lines,
/// small enough that several producers share even a modest file.
pub const BLOCK_LEN: usize = 128 << 10;

/// Whole lines of the input.
#[derive(Debug, Default)]
pub struct Block {
    /// Number of the first line, counted from 1.
    pub line_first: u64,
    pub bytes: Vec<u8>,
}

impl Block {
    /// The lines without their newlines, with their numbers.
    pub fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = if self.bytes.is_empty() { None } else { Some(line(&self.bytes)) };
        let lines = std::iter::from_fn(move || {
            let bytes = rest?;
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                rest = None;
                return Some(bytes);
            };
            rest = Some(&bytes[end + 1..]);
            Some(&bytes[..end])
        });
        (self.line_first..).zip(lines)
    }
}

/// Where an input may be cut.
pub enum Cut {
    Lines,
    Rows(RowEnds),
}

impl Cut {
    /// The last place in the next piece of the input at which it may be cut.
    fn last_in(&mut self, piece: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => memchr::memrchr(b'\n', piece).map(|newline| newline + 1),
            Self::Rows(ends) => ends.last_in(piece),
        }
    }
}

/// Cuts an input into blocks.
pub struct Blocks<R> {
    input: R,
    cut: Cut,
    line_len_max: usize,
    line_next: u64,
    /// The beginning of the line that the last block left unfinished.
    carry: Vec<u8>,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    /// Cuts `input`, which begins with line `line_first`.
    pub fn new(input: R, cut: Cut, line_len_max: usize, line_first: u64) -> Self {
        Self { input, cut, line_len_max, line_next: line_first, carry: Vec::new(), ended: false }
    }

    /// Fills `bytes`, which is emptied first, with the next block. After an error, what was read
    /// before it can still be had by calling once more.
    pub fn next(&mut self, mut bytes: Vec<u8>) -> io::Result<Option<Block>> {
        bytes.clear();
        bytes.append(&mut self.carry);
        while !self.ended {
            let read = match read_piece(&mut self.input, &mut bytes, BLOCK_LEN) {
                Ok(read) => read,
                Err(error) => {
                    self.ended = true;
                    self.carry = bytes;
                    return Err(error);
                }
            };
            if read == 0 {
                self.ended = true;
            } else if let Some(end) = self.cut.last_in(&bytes[bytes.len() - read..]) {
                let whole = bytes.len() - read + end;
                self.carry.extend_from_slice(&bytes[whole..]);
                bytes.truncate(whole);
                break;
            } else if bytes.len() > self.line_len_max {
                self.ended = true;
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let line_first = self.line_next;
        self.line_next += count_lines(&bytes);
        Ok(Some(Block { line_first, bytes }))
    }
}

/// One read of at most `len_max` bytes, to the end of `bytes`.
pub fn read_piece<R>(input: &mut R, bytes: &mut Vec<u8>, len_max: usize) -> io::Result<usize>
where
    R: Read + ?Sized,
{
    let start = bytes.len();
    bytes.resize(start + len_max, 0);
    let result = loop {
        match input.read(&mut bytes[start..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    bytes.truncate(start + result.as_ref().map_or(0, |read| *read));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most `step` bytes a read, as a pipe may.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.step.min(self.bytes.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&self.bytes[..len]);
            self.bytes = &self.bytes[len..];
            Ok(len)
        }
    }

    fn lines_of(bytes: &[u8], step: usize) -> Vec<(u64, Vec<u8>)> {
        let mut blocks = Blocks::new(Trickle { bytes, step }, Cut::Lines, 1 << 20, 1);
        let mut lines = Vec::new();
        while let Some(block) = blocks.next(Vec::new()).unwrap() {
            lines.extend(block.lines().map(|(number, line)| (number, line.to_vec())));
        }
        lines
    }

    #[test]
    fn every_line_comes_out_once_whatever_the_reads() {
        let inputs: [(&[u8], usize); 8] = [
            (b"", 0),
            (b"\n", 1),
            (b"\n\n", 2),
            (b"a", 1),
            (b"a\n", 1),
            (b"a\n\nb", 3),
            (b"\r\n\0\nlong line\n", 3),
            (b"one\ntwo\nthree", 3),
        ];
        for (input, count) in inputs {
            for step in 1..=input.len().max(1) {
                let lines = lines_of(input, step);
                assert_eq!(lines.len(), count, "{input:?} in steps of {step}");
                let numbers: Vec<u64> = lines.iter().map(|(number, _)| *number).collect();
                assert_eq!(numbers, (1..=count as u64).collect::<Vec<_>>());
                let mut joined =
                    lines.iter().map(|(_, line)| &line[..]).collect::<Vec<_>>().join(&b'\n');
                if input.ends_with(b"\n") {
                    joined.push(b'\n');
                }
                assert_eq!(joined, input, "in steps of {step}");
            }
        }
    }

    #[test]
    fn no_row_is_cut_whatever_the_reads() {
        let input = b"1,a\n2,\"b\nb\"\n\n3,\"\"\"\n\"\n4,d";
        for step in 1..=input.len() {
            let trickle = Trickle { bytes: input, step };
            let mut blocks = Blocks::new(trickle, Cut::Rows(RowEnds::new()), 1 << 20, 7);
            let mut joined = Vec::new();
            while let Some(block) = blocks.next(Vec::new()).unwrap() {
                let before = joined.iter().filter(|byte| **byte == b'\n').count() as u64;
                assert_eq!(block.line_first, 7 + before);
                let first = line(&block.bytes).iter().find(|byte| **byte != b'\n').unwrap();
                assert!(first.is_ascii_digit(), "in steps of {step}: {block:?}");
                joined.extend_from_slice(&block.bytes);
            }
            assert_eq!(joined, input, "in steps of {step}");
        }
    }

    #[test]
    fn an_endless_line_ends_the_input_instead_of_filling_memory() {
        let mut blocks = Blocks::new(io::repeat(b'x'), Cut::Lines, 1000, 1);
        let block = blocks.next(Vec::new()).unwrap().unwrap();
        assert!(block.bytes.len() > 1000 && block.bytes.len() <= 1000 + BLOCK_LEN);
        assert_eq!(block.lines().count(), 1);
        assert!(blocks.next(Vec::new()).unwrap().is_none());
    }
}
