//! Tests of the catalog: the decision over bytes, the protocol on a disk that fails or stops at
//! any step, and the real files.

mod compaction;
mod damage;
mod medium;
mod real;
mod steps;

use super::decide::{self, Decision, Refusal};
use super::{Side, StreamFlags, StreamId, Streams};
use crate::layout::LogId;
use crate::layout::catalog::{Addition, HEADER_LEN, encode_header};
use crate::lsn::Lsn;

const LOG_ID: LogId = *b"a log with names";

const NONE: StreamFlags = StreamFlags::NONE;
const VERSIONED: StreamFlags = StreamFlags::VERSIONED;

fn id(number: u32) -> StreamId {
    StreamId::new(number).expect("not zero")
}

/// All that streams say: name, flags and position, in the order of their ids.
type Contents = Vec<(String, StreamFlags, Option<(u64, Lsn)>)>;

fn contents(streams: &Streams) -> Contents {
    streams
        .iter()
        .enumerate()
        .map(|(index, (id, name, flags))| {
            assert_eq!(id.get() as usize, index + 1);
            assert_eq!((streams.get(name), streams.name(id)), (Some(id), Some(name)));
            (name.to_owned(), flags, streams.position(id))
        })
        .collect()
}

/// A catalog file to which additions are made by hand.
#[derive(Clone)]
struct Script {
    file: Vec<u8>,
    /// Where each entry starts; the end of the file is the last.
    boundaries: Vec<usize>,
    /// Where each addition starts.
    additions: Vec<usize>,
}

impl Script {
    fn new() -> Script {
        let file = encode_header(&LOG_ID, 0).to_vec();
        Script { file, boundaries: vec![HEADER_LEN], additions: Vec::new() }
    }

    fn add(&mut self, write: impl FnOnce(&mut Addition)) {
        let start = self.file.len();
        let mut addition = Addition::new(&LOG_ID, start);
        write(&mut addition);
        self.additions.push(start);
        self.file.extend_from_slice(addition.bytes());
        let mut at = start;
        while at < self.file.len() {
            let length = u32::from_le_bytes(self.file[at + 4..at + 8].try_into().expect("4 bytes"));
            at += (length as usize).next_multiple_of(8);
            self.boundaries.push(at);
        }
    }

    /// Three additions: one stream; three with a position; two.
    fn sample() -> Script {
        let mut script = Script::new();
        script.add(|addition| addition.created(1, 0, "orders"));
        script.add(|addition| {
            addition.created(2, 1, "payments of the year 2031");
            addition.position(2, 7, Lsn::new(4096));
            addition.created(3, 0, "ü");
        });
        script.add(|addition| {
            addition.created(4, 0, "x");
            addition.created(5, 0, "the last of them");
        });
        script
    }
}

/// What the files say; the bytes that a repair makes of each are checked.
fn read(a: &[u8], b: &[u8]) -> Result<(Vec<u8>, Contents), Refusal> {
    let Decision { image, lacks_a, lacks_b, replaced, streams, .. } = decide::read(a, b, &LOG_ID)?;
    for (side, file, lacks) in [(Side::A, a, lacks_a), (Side::B, b, lacks_b)] {
        if replaced == Some(side) {
            continue;
        }
        let mut repaired = file.to_vec();
        repaired.resize(image.len(), 0);
        for range in lacks {
            repaired[range.clone()].copy_from_slice(&image[range]);
        }
        assert!(repaired == *image, "a repair that does not repair");
    }
    let again = decide::read(&image, &image, &LOG_ID).expect("what is repaired is whole");
    assert!(again.lacks_a.is_empty() && again.lacks_b.is_empty());
    assert_eq!(contents(&again.streams), contents(&streams));
    Ok((image.to_vec(), contents(&streams)))
}
