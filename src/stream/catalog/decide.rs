//! What two files say together. Nothing here touches a disk: bytes in, a decision out.
//!
//! A writer appends an addition to A, syncs A, appends the same to B, syncs B. So there are two
//! states in which it can be interrupted, and only one in which something verifies in neither file:
//!
//! 1. A is being written: B is whole and ends where the addition begins.
//! 2. B is being written: A is whole.
//!
//! An entry is believed if it verifies in A or in B, and lacking or damaged copies of it are
//! repaired. Where neither verifies, that is a *torn addition* if and only if
//!
//! 3. B ends, at an entry's end, there or before: a B that goes on proves that A was synced; and
//! 4. no entry behind B's end in A starts an addition (`MARK_FIRST`): one that does proves that
//!    everything before it was synced in both.
//!
//! A torn addition is cut off; it was never acknowledged. The entries in front of the torn place
//! stay, since each is what a caller asked for. Everything else is corruption. So what was
//! acknowledged is lost unnoticed only if both files are damaged: B has become shorter, by whole
//! entries, and from there on A has lost an entry, and every entry that starts another addition.
//!
//! A catalog is compacted by writing both files anew, of the next generation; nothing is added
//! before both have their names. So if they are of two generations, they say the same, and
//! whichever is whole is believed, the newer first.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::names::{Streams, Taken};
use crate::layout::LogId;
use crate::layout::catalog::{
    self, Addition, ENTRY_ALIGN, ENTRY_HEADER_LEN, Entry, EntrySeed, HEADER_LEN, HeaderEvidence,
    POSITION_LEN,
};
use crate::lsn::Lsn;
use crate::stream_id::{StreamFlags, StreamId};

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::A, Side::B];
}

/// What the catalog is, and what its files lack of it.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    /// The whole catalog as each file should be.
    pub(crate) image: Cow<'a, [u8]>,
    /// Which parts of the image A does not have, in order.
    pub(crate) lacks_a: Vec<Range<usize>>,
    /// Which parts B does not have.
    pub(crate) lacks_b: Vec<Range<usize>>,
    /// This file is of another generation, and is to be replaced.
    pub(crate) replaced: Option<Side>,
    /// What the entries say.
    pub(crate) streams: Streams,
    /// Bytes of positions that are followed by newer ones.
    pub(crate) superseded: usize,
}

/// Why the catalog is not to be used. Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    AnotherLog(Side),
    Version(Side, u32),
    Features(Side, u64),
    UnknownEntry { offset: usize, what: String },
    Corrupt { offset: usize, reason: &'static str },
}

fn corrupt<T>(offset: usize, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal::Corrupt { offset, reason })
}

/// Reads the catalog of the log `log_id` from both files; of one that is missing, from nothing.
pub(crate) fn read<'a>(a: &'a [u8], b: &'a [u8], log_id: &LogId) -> Result<Decision<'a>, Refusal> {
    let (mut lacks_a, mut lacks_b) = (Vec::new(), Vec::new());
    match headers(a, b, log_id)? {
        (true, true) if catalog::generation(a) != catalog::generation(b) => {
            return read_generations(a, b, log_id);
        }
        (true, true) => (),
        (true, false) => lacks_b.push(0..HEADER_LEN),
        (false, _) => lacks_a.push(0..HEADER_LEN),
    }
    let seed = EntrySeed::new(log_id);
    let mut at = HEADER_LEN;
    let mut is_end_of_b_seen = false;
    while at < a.len().max(b.len()) {
        is_end_of_b_seen |= at == b.len();
        let in_a = Entry::verify(a, at, seed).map(|entry| entry.size);
        let in_b = match in_a {
            Some(size) if b.get(at..at + size) == Some(&a[at..at + size]) => in_a,
            _ => Entry::verify(b, at, seed).map(|entry| entry.size),
        };
        let size = match (in_a, in_b) {
            (Some(size), None) => {
                push(&mut lacks_b, at..at + size);
                size
            }
            (None, Some(size)) => {
                push(&mut lacks_a, at..at + size);
                size
            }
            (Some(size), Some(_)) if a.get(at..at + size) == b.get(at..at + size) => size,
            (Some(_), Some(_)) => return corrupt(at, "the two files hold different entries"),
            (None, None) if !is_end_of_b_seen => {
                return corrupt(at, "no whole entry is there in either file, and one was");
            }
            (None, None) if is_added_to(a, b.len(), seed) => {
                return corrupt(at, "no whole entry is there, and additions follow");
            }
            (None, None) => break,
        };
        at += size;
    }
    let image = assemble(a, b, at, &lacks_a, lacks_b.is_empty());
    let (streams, superseded) = interpret(&image, seed)?;
    Ok(Decision { image, lacks_a, lacks_b, replaced: None, streams, superseded })
}

/// Files of two generations.
fn read_generations<'a>(a: &'a [u8], b: &'a [u8], log_id: &LogId) -> Result<Decision<'a>, Refusal> {
    let seed = EntrySeed::new(log_id);
    let mut files = [(a, Side::B), (b, Side::A)];
    files.sort_by_key(|(file, _)| std::cmp::Reverse(catalog::generation(file)));
    let Some((file, other)) = files.iter().find(|(file, _)| end_of_whole(file, seed) == file.len())
    else {
        let at = end_of_whole(files[0].0, seed);
        return corrupt(at, "the two files are of two generations, and neither is whole");
    };
    let (streams, superseded) = interpret(file, seed)?;
    let (lacks_a, lacks_b) = (Vec::new(), Vec::new());
    let image = Cow::Borrowed(*file);
    Ok(Decision { image, lacks_a, lacks_b, replaced: Some(*other), streams, superseded })
}

/// How far a file consists of entries that verify.
fn end_of_whole(file: &[u8], seed: EntrySeed) -> usize {
    let mut at = HEADER_LEN;
    while let Some(entry) = Entry::verify(file, at, seed) {
        at += entry.size;
    }
    at
}

/// Which of the headers are sound; one of them is.
fn headers(a: &[u8], b: &[u8], log_id: &LogId) -> Result<(bool, bool), Refusal> {
    use HeaderEvidence::{AnotherLog, Damaged, Features, Sound, Version};
    let found = [(Side::A, a), (Side::B, b)];
    let found = found.map(|(side, bytes)| (side, catalog::judge_header(bytes, log_id)));
    for (side, evidence) in found {
        match evidence {
            AnotherLog => return Err(Refusal::AnotherLog(side)),
            Features(unknown) => return Err(Refusal::Features(side, unknown)),
            Sound | Damaged | Version(_) => (),
        }
    }
    match found.map(|(_, evidence)| evidence) {
        [Sound, Sound]
            if catalog::generation(a) == catalog::generation(b)
                && a[..HEADER_LEN] != b[..HEADER_LEN] =>
        {
            corrupt(0, "the two files have different headers")
        }
        [Sound, Sound] => Ok((true, true)),
        // A version that only one of them has is damage.
        [Sound, _] => Ok((true, false)),
        [_, Sound] => Ok((false, true)),
        [Version(version), _] => Err(Refusal::Version(Side::A, version)),
        [_, Version(version)] => Err(Refusal::Version(Side::B, version)),
        _ => corrupt(0, "neither file has a whole header"),
    }
}

/// Rule 4: does an addition start behind `end` in `file`, whatever stands in between?
fn is_added_to(file: &[u8], end: usize, seed: EntrySeed) -> bool {
    (end + ENTRY_ALIGN..file.len())
        .step_by(ENTRY_ALIGN)
        .any(|at| Entry::starts_addition(file, at, seed))
}

/// Appends a range to others, or to the last of them.
fn push(ranges: &mut Vec<Range<usize>>, range: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// The catalog up to `end`: one of the files if that has all of it, else made of both.
fn assemble<'a>(
    a: &'a [u8],
    b: &'a [u8],
    end: usize,
    lacks_a: &[Range<usize>],
    is_b_whole: bool,
) -> Cow<'a, [u8]> {
    if lacks_a.is_empty() {
        return Cow::Borrowed(&a[..end]);
    }
    if is_b_whole {
        return Cow::Borrowed(&b[..end]);
    }
    let mut image = a[..a.len().min(end)].to_vec();
    image.resize(end, 0);
    for range in lacks_a {
        image[range.clone()].copy_from_slice(&b[range.clone()]);
    }
    Cow::Owned(image)
}

/// What the entries of a whole catalog say, and how many bytes of positions are followed by newer
/// ones. Each of them verifies.
fn interpret(image: &[u8], seed: EntrySeed) -> Result<(Streams, usize), Refusal> {
    let (mut streams, mut superseded) = (Streams::default(), 0);
    let (count, bytes) = count(image);
    streams.reserve(count, bytes);
    let mut at = HEADER_LEN;
    while let Some(entry) = Entry::trusted(image, at) {
        debug_assert_eq!(Entry::verify(image, at, seed), Some(entry));
        if entry.kind == catalog::KIND_POSITION
            && StreamId::new(entry.id).is_some_and(|id| streams.position(id).is_some())
        {
            superseded += entry.size;
        }
        apply(&mut streams, &entry, at)?;
        at += entry.size;
    }
    Ok((streams, superseded))
}

/// A catalog of the next generation that says the same, and the bytes of positions in it that are
/// followed by newer ones: of the positions of a stream, it has the newest below `sure`, and what
/// follows that. `None` if not all of `image` verifies any more.
pub(crate) fn compacted(image: &[u8], log_id: &LogId, sure: Lsn) -> Option<(Vec<u8>, usize)> {
    let seed = EntrySeed::new(log_id);
    if end_of_whole(image, seed) != image.len() {
        return None;
    }
    let generation = catalog::generation(image).checked_add(1)?;
    let mut addition = Addition::new(log_id, HEADER_LEN);
    let mut positions: BTreeMap<u32, Vec<(u64, Lsn)>> = BTreeMap::new();
    let mut at = HEADER_LEN;
    while let Some(entry) = Entry::trusted(image, at) {
        match catalog::decode_position(entry.body) {
            Some((epoch, lsn)) if entry.kind == catalog::KIND_POSITION => {
                let kept = positions.entry(entry.id).or_default();
                if lsn < sure {
                    kept.clear();
                }
                kept.push((epoch, lsn));
            }
            _ => addition.push(entry.id, entry.kind, entry.flags, entry.body),
        }
        at += entry.size;
    }
    let mut superseded = 0;
    for (id, kept) in &positions {
        kept.iter().for_each(|(epoch, lsn)| addition.position(*id, *epoch, *lsn));
        superseded += (kept.len() - 1) * POSITION_LEN;
    }
    let header = catalog::encode_header(log_id, generation);
    Some(([&header, addition.bytes()].concat(), superseded))
}

/// The newest position of each stream that lies below `end`, in a whole catalog: epoch and LSN.
pub(crate) fn positions_below(image: &[u8], end: Lsn) -> HashMap<u32, (u64, Lsn)> {
    let (mut positions, mut at) = (HashMap::new(), HEADER_LEN);
    while let Some(entry) = Entry::trusted(image, at) {
        let position = catalog::decode_position(entry.body);
        if let Some((epoch, lsn)) = position.filter(|(_, lsn)| *lsn < end)
            && entry.kind == catalog::KIND_POSITION
        {
            positions.insert(entry.id, (epoch, lsn));
        }
        at += entry.size;
    }
    positions
}

/// How many streams there are in a whole catalog, and how long their names are together.
fn count(image: &[u8]) -> (usize, usize) {
    let (mut streams, mut bytes, mut at) = (0, 0, HEADER_LEN);
    while let Some(entry) = Entry::trusted(image, at) {
        if entry.kind == catalog::KIND_CREATED {
            streams += 1;
            bytes += entry.body.len();
        }
        at += entry.size;
    }
    (streams, bytes)
}

fn apply(streams: &mut Streams, entry: &Entry<'_>, offset: usize) -> Result<(), Refusal> {
    match entry.kind {
        catalog::KIND_CREATED => created(streams, entry, offset),
        catalog::KIND_POSITION => position(streams, entry, offset),
        kind if kind & catalog::KIND_OPTIONAL != 0 => Ok(()),
        kind => Err(Refusal::UnknownEntry { offset, what: format!("kind {kind}") }),
    }
}

fn created(streams: &mut Streams, entry: &Entry<'_>, offset: usize) -> Result<(), Refusal> {
    let Some(flags) = StreamFlags::from_bits(entry.flags) else {
        let what = format!("flags {:#x} of a stream", entry.flags);
        return Err(Refusal::UnknownEntry { offset, what });
    };
    if !(1..=catalog::NAME_LEN_MAX).contains(&entry.body.len()) {
        return corrupt(offset, "a stream's name has an impossible length");
    }
    let Ok(name) = str::from_utf8(entry.body) else {
        return corrupt(offset, "a stream's name is not UTF-8");
    };
    if entry.id as usize != streams.len() + 1 {
        return corrupt(offset, "a stream's id is not the next one");
    }
    match streams.insert(name, flags) {
        Ok(_) => Ok(()),
        Err(Taken::By(_)) => corrupt(offset, "two streams have one name"),
        Err(Taken::AllIds) => corrupt(offset, "there are more streams than ids"),
    }
}

fn position(streams: &mut Streams, entry: &Entry<'_>, offset: usize) -> Result<(), Refusal> {
    let Some((epoch, lsn)) = catalog::decode_position(entry.body) else {
        return corrupt(offset, "a position has an impossible length");
    };
    if entry.flags != 0 {
        let what = format!("flags {:#x} of a position", entry.flags);
        return Err(Refusal::UnknownEntry { offset, what });
    }
    let id = StreamId::new(entry.id).filter(|id| streams.contains(*id));
    let Some(id) = id else { return corrupt(offset, "a position is that of no stream") };
    if !streams.flags(id).is_some_and(StreamFlags::is_versioned) {
        return corrupt(offset, "a position is that of a stream without versions");
    }
    streams.set_position(id, epoch, lsn);
    Ok(())
}

const _: () =
    assert!(HEADER_LEN.is_multiple_of(ENTRY_ALIGN) && ENTRY_HEADER_LEN.is_multiple_of(ENTRY_ALIGN));
