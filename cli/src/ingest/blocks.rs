//! Blocks of whole lines: what the reading thread hands to the producers.
//!
//! Contract:
//!
//! 1. The blocks, one after the other, are the input: no byte is lost, moved or added.
//! 2. A block ends after a newline, except the last one, and except a block whose only line is
//!    longer than the largest record: its producer refuses it, and it is the last one too.
//! 3. A block is handed out as soon as the input pauses, so a slow pipe is not held back.

use std::io::{self, Read};

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
        let body = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let mut rest = if self.bytes.is_empty() { None } else { Some(body) };
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

/// Cuts an input into blocks.
pub struct Blocks<R> {
    input: R,
    line_len_max: usize,
    line_next: u64,
    /// The beginning of the line that the last block left unfinished.
    carry: Vec<u8>,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    pub fn new(input: R, line_len_max: usize) -> Self {
        Self { input, line_len_max, line_next: 1, carry: Vec::new(), ended: false }
    }

    /// Fills `bytes`, which is emptied first, with the next block. After an error, what was read
    /// before it can still be had by calling once more.
    pub fn next(&mut self, mut bytes: Vec<u8>) -> io::Result<Option<Block>> {
        bytes.clear();
        bytes.append(&mut self.carry);
        while !self.ended {
            let read = match self.fill(&mut bytes) {
                Ok(read) => read,
                Err(error) => {
                    self.ended = true;
                    self.carry = bytes;
                    return Err(error);
                }
            };
            if read == 0 {
                self.ended = true;
            } else if let Some(newline) = memchr::memrchr(b'\n', &bytes[bytes.len() - read..]) {
                let whole = bytes.len() - read + newline + 1;
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
        self.line_next += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Some(Block { line_first, bytes }))
    }

    /// One read of the input at the end of `bytes`, of what a block still lacks.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let start = bytes.len();
        bytes.resize(start + BLOCK_LEN, 0);
        let result = loop {
            match self.input.read(&mut bytes[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        bytes.truncate(start + result.as_ref().map_or(0, |read| *read));
        result
    }
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
        let mut blocks = Blocks::new(Trickle { bytes, step }, 1 << 20);
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
    fn an_endless_line_ends_the_input_instead_of_filling_memory() {
        let mut blocks = Blocks::new(io::repeat(b'x'), 1000);
        let block = blocks.next(Vec::new()).unwrap().unwrap();
        assert!(block.bytes.len() > 1000 && block.bytes.len() <= 1000 + BLOCK_LEN);
        assert_eq!(block.lines().count(), 1);
        assert!(blocks.next(Vec::new()).unwrap().is_none());
    }
}
