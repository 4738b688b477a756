//! Which records hold entries of which stream.
//!
//! 1. Nothing of it is in the file, and producers know nothing of it. It is built by walking what
//!    is retained when a stream is first read, and then follows the log, record by record, whenever
//!    somebody looks.
//! 2. An entry has one *posting*, 8 bytes: its stream, and where its record starts, counted from
//!    the start of the posting's block in units of 16 bytes. Entries of one record and one stream
//!    have equal postings.
//! 3. A *block* is a stretch of the log in one epoch, with its postings sorted by stream, then by
//!    position. The newest block, which still grows, has them in the order of the log. Neighbours
//!    of like size are merged, up to a limit: a stream is looked up in each block, and what each
//!    look costs is shared by what it finds.
//! 4. Its memory is bounded: when there are too many postings, the oldest blocks go. What they
//!    covered has to be walked by whoever wants it.

use std::collections::{BTreeMap, VecDeque};

use crate::error::ReadError;
use crate::lsn::Lsn;
use crate::reader::{Place, Reader};
use crate::ring::Ring;
use crate::stream_id::StreamId;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Postings in a block that grows, if there is memory for several. Sorting one takes a millisecond
/// or two.
const BLOCK_LEN_MAX: usize = 1 << 16;
const BLOCK_LEN_MIN: usize = 1 << 6;

/// Postings in a merged block, if there is memory for several. Merging two takes some milliseconds,
/// and so many that have been released stay in memory at worst.
const MERGED_LEN_MAX: usize = 1 << 20;

/// How many records are found at a time, of few streams.
const FOUND_MAX: usize = 1 << 12;

/// The longest distance that a posting can hold, in bytes.
const DISTANCE_MAX: u64 = (u32::MAX as u64) * 16;

/// Rule 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Posting(u64);

impl Posting {
    fn new(stream: StreamId, distance: u64) -> Posting {
        Posting((u64::from(stream.get()) << 32) | (distance / 16))
    }

    fn stream(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The same place, counted from so many bytes further down; no more than a posting can hold.
    fn moved(self, bytes: u64) -> Posting {
        Posting(self.0 + bytes / 16)
    }

    fn is_of(self, streams: &[StreamId]) -> bool {
        streams.binary_search_by_key(&self.stream(), |stream| stream.get()).is_ok()
    }

    /// The distance from the block's start in bytes.
    fn distance(self) -> u64 {
        (self.0 & 0xFFFF_FFFF) * 16
    }
}

/// Rule 3.
struct Block {
    start: Lsn,
    epoch: u64,
    postings: Box<[Posting]>,
}

/// The block that grows.
struct Open {
    start: Lsn,
    epoch: u64,
    postings: Vec<Posting>,
}

/// A record that holds entries of a stream that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) lsn: Lsn,
    pub(super) epoch: u64,
}

/// The index of a log.
pub(crate) struct StreamIndex {
    index: Mutex<Index>,
    /// How many streams are known.
    known: AtomicU64,
}

impl StreamIndex {
    /// An index that has looked at nothing yet, of at most `bytes_max` bytes of postings (but for
    /// the block that grows), of a log of `known` streams.
    pub(crate) fn new(bytes_max: usize, known: u32) -> StreamIndex {
        let known = AtomicU64::new(known.into());
        StreamIndex { index: Mutex::new(Index::new(bytes_max)), known }
    }

    /// How many streams are known: their ids are those from 1 on.
    #[inline]
    pub(crate) fn known(&self) -> u32 {
        // Acquire: pairs with `set_known`.
        self.known.load(Ordering::Acquire) as u32
    }

    /// There are more.
    pub(crate) fn set_known(&self, streams: u32) {
        // Release: whoever sees an id sees whether any stream has a version.
        self.known.store(streams.into(), Ordering::Release);
    }

    /// Catches up with what is committed, and looks.
    pub(super) fn look<T>(
        &self,
        ring: &Ring,
        look: impl FnOnce(&Index) -> T,
    ) -> Result<T, ReadError> {
        let (seen, followed) = self.look_so_far(ring, look);
        followed.map(|()| seen)
    }

    /// As `look`, if the index could not catch up too: with the reason, which stands at its end.
    pub(super) fn look_so_far<T>(
        &self,
        ring: &Ring,
        look: impl FnOnce(&Index) -> T,
    ) -> (T, Result<(), ReadError>) {
        let mut index = lock(&self.index);
        let followed = index.follow(ring, || self.known());
        (look(&index), followed)
    }
}

pub(super) struct Index {
    blocks: VecDeque<Block>,
    open: Open,
    /// Everything before is in here, as far as memory allows.
    place: Place,
    /// Each stream's newest record, `Lsn::ZERO` for none; by stream id.
    newest: Vec<Lsn>,
    /// Where a repair has left gaps: no more than were met.
    gaps: Vec<Found>,
    /// The retained copies of moved records, by stream: where each is, and where what it is a copy
    /// of is or was. However little memory there is: they are few.
    moved: BTreeMap<StreamId, Vec<(Lsn, Lsn)>>,
    /// Postings in `blocks`.
    held: usize,
    held_max: usize,
    /// Postings in a block when it stops growing, and when no more are merged to it.
    block_len: usize,
    merged_len: usize,
}

impl Index {
    fn new(bytes_max: usize) -> Index {
        let held_max = bytes_max / size_of::<Posting>();
        Index {
            blocks: VecDeque::new(),
            open: Open { start: Lsn::ZERO, epoch: 0, postings: Vec::new() },
            place: Place::at(Lsn::ZERO),
            newest: Vec::new(),
            gaps: Vec::new(),
            moved: BTreeMap::new(),
            held: 0,
            held_max,
            block_len: (held_max / 8).clamp(BLOCK_LEN_MIN, BLOCK_LEN_MAX),
            merged_len: (held_max / 8).min(MERGED_LEN_MAX),
        }
    }

    /// Catches up with what is committed, and lets go of what has been trimmed. `known` says how
    /// many streams there are by now.
    fn follow(&mut self, ring: &Ring, known: impl Fn() -> u32) -> Result<(), ReadError> {
        let mut streams = known();
        let mut reader = loop {
            let trimmed = ring.trimmed();
            if self.place.at < trimmed {
                self.restart(trimmed);
            }
            if let Some(reader) = Reader::resume(ring, self.place)? {
                break reader;
            }
        };
        // Whatever happens, what was read is in.
        let followed = loop {
            match reader.step() {
                Ok(Some(located)) => {
                    if located.epoch != self.open.epoch
                        || self.open.postings.len() >= self.block_len
                        || located.lsn - self.open.start > DISTANCE_MAX
                    {
                        self.seal(located.lsn, located.epoch);
                    }
                    let mut add = |stream: StreamId| {
                        if stream.get() > streams {
                            // A stream is known before its first record: it may have come since.
                            streams = known();
                        }
                        self.add(stream, located.lsn, streams);
                    };
                    if located.is_batch() {
                        let entries = reader.lend(located).entries();
                        entries.filter_map(|entry| entry.stream).for_each(add);
                    } else if let Some(stream) = located.tag.stream() {
                        add(stream);
                        if let Some(origin) = reader.lend(located).origin() {
                            let moved = self.moved.entry(stream).or_default();
                            moved.push((located.lsn, origin.previous));
                        }
                    }
                }
                Ok(None) => break Ok(()),
                // It is every stream's, and each reader is told when it comes there.
                Err(ReadError::Gap { lsn, .. }) => {
                    self.place = reader.place();
                    self.gaps.push(Found { lsn, epoch: self.place.epoch() });
                }
                Err(error) => break Err(error),
            }
        };
        self.place = reader.place();
        self.release(ring.trimmed());
        followed
    }

    /// Begins anew at `at`: everything before has been released.
    fn restart(&mut self, at: Lsn) {
        self.blocks.clear();
        self.gaps.clear();
        self.moved.clear();
        self.held = 0;
        self.open.postings.clear();
        self.open.start = at;
        self.place = Place::at(at);
    }

    /// The block that grew becomes one that does not; the next one begins with the record at `lsn`.
    fn seal(&mut self, lsn: Lsn, epoch: u64) {
        let mut postings = std::mem::take(&mut self.open.postings);
        if !postings.is_empty() {
            postings.sort_unstable();
            self.held += postings.len();
            let (start, epoch) = (self.open.start, self.open.epoch);
            self.blocks.push_back(Block { start, epoch, postings: postings.into_boxed_slice() });
            self.merge(lsn);
        }
        // An empty stretch in front of everything stays covered, as far as distances reach.
        if !self.blocks.is_empty() || lsn - self.open.start > DISTANCE_MAX {
            self.open.start = lsn;
        }
        self.open.epoch = epoch;
        while self.held > self.held_max {
            self.pop();
        }
    }

    /// Merges the newest blocks, which end at `end`, as far as they are of like size: then each
    /// posting is moved a few times only.
    fn merge(&mut self, end: Lsn) {
        while let Some(before) = self.blocks.len().checked_sub(2) {
            let (old, new) = (&self.blocks[before], &self.blocks[before + 1]);
            let len = old.postings.len() + new.postings.len();
            if old.postings.len() >= 2 * new.postings.len()
                || len > self.merged_len
                || old.epoch != new.epoch
                || end - old.start > DISTANCE_MAX
            {
                break;
            }
            let (Some(new), Some(old)) = (self.blocks.pop_back(), self.blocks.pop_back()) else {
                break;
            };
            let behind = new.start - old.start;
            let mut postings = old.postings.into_vec();
            postings.extend(new.postings.iter().map(|posting| posting.moved(behind)));
            // Two sorted runs: this sort finds and merges them.
            postings.sort();
            self.blocks.push_back(Block { postings: postings.into_boxed_slice(), ..old });
        }
    }

    fn pop(&mut self) {
        if let Some(block) = self.blocks.pop_front() {
            self.held -= block.postings.len();
        }
    }

    fn add(&mut self, stream: StreamId, lsn: Lsn, streams: u32) {
        self.open.postings.push(Posting::new(stream, lsn - self.open.start));
        // What is not known has no handle either: ids from anywhere are no reason for memory.
        if stream.get() <= streams {
            let at = stream.get() as usize;
            if at >= self.newest.len() {
                self.newest.resize(at + 1, Lsn::ZERO);
            }
            self.newest[at] = lsn;
        }
    }

    /// Lets go of blocks below `trimmed`.
    fn release(&mut self, trimmed: Lsn) {
        let end = |next: Option<&Block>, open: &Open| next.map_or(open.start, |next| next.start);
        while !self.blocks.is_empty() && end(self.blocks.get(1), &self.open) <= trimmed {
            self.pop();
        }
        self.moved.retain(|_, moved| {
            moved.retain(|(copy, _)| *copy >= trimmed);
            !moved.is_empty()
        });
    }

    /// The records of a stream of which there are copies, in order: once for each copy.
    pub(super) fn copied(&self, stream: StreamId) -> Vec<Lsn> {
        let moved = self.moved.get(&stream).into_iter().flatten();
        let mut copied: Vec<Lsn> = moved.map(|(_, previous)| *previous).collect();
        copied.sort_unstable();
        copied
    }

    /// Everything from here on, to [`end`](Index::end), is in the index.
    pub(super) fn start(&self) -> Lsn {
        self.blocks.front().map_or(self.open.start, |block| block.start)
    }

    /// Where the index has caught up to.
    pub(super) fn end(&self) -> Place {
        self.place
    }

    /// The newest record of a stream that is known; `Lsn::ZERO` if none was seen.
    pub(super) fn newest(&self, stream: StreamId) -> Lsn {
        self.newest.get(stream.get() as usize).copied().unwrap_or(Lsn::ZERO)
    }

    /// The newest record before `end` of each of `streams`, which are in order; `Lsn::ZERO` where
    /// none is in what the index covers.
    pub(super) fn newest_before(&self, streams: &[StreamId], end: Lsn) -> Vec<Lsn> {
        let mut newest = vec![Lsn::ZERO; streams.len()];
        for posting in &self.open.postings {
            let lsn = self.open.found(*posting).lsn;
            let at = streams.binary_search_by_key(&posting.stream(), |stream| stream.get());
            if let Some(newest) = at.ok().filter(|_| lsn < end).map(|at| &mut newest[at]) {
                *newest = lsn;
            }
        }
        for (newest, stream) in newest.iter_mut().zip(streams) {
            let mut blocks = self.blocks.iter().rev();
            while *newest == Lsn::ZERO {
                let Some(block) = blocks.next() else { break };
                let postings = block.range(*stream, block.start);
                let before = postings.partition_point(|posting| block.found(*posting).lsn < end);
                if let Some(last) = before.checked_sub(1) {
                    *newest = block.found(postings[last]).lsn;
                }
            }
        }
        newest
    }

    /// Collects the records at or beyond `from` that hold entries of `streams`, in order and
    /// without a gap: of the first block that has some, and not all of them if they are many.
    pub(super) fn find(&self, streams: &[StreamId], from: Lsn, found: &mut Vec<Found>) {
        let first = self.blocks.partition_point(|block| block.start <= from).saturating_sub(1);
        let share = (FOUND_MAX / streams.len().max(1)).max(1);
        for block in self.blocks.range(first.min(self.blocks.len())..) {
            // Beyond the last one of a stream that has more, there would be gaps.
            let mut cut = None;
            for stream in streams {
                let postings = block.range(*stream, from);
                let (taken, more) = postings.split_at(share.min(postings.len()));
                found.extend(taken.iter().map(|posting| block.found(*posting)));
                if let (Some(last), false) = (found.last(), more.is_empty()) {
                    cut = Some(cut.map_or(last.lsn, |cut: Lsn| cut.min(last.lsn)));
                }
            }
            if streams.len() > 1 {
                found.sort_unstable();
            }
            if let Some(cut) = cut {
                found.truncate(found.partition_point(|found| found.lsn <= cut));
            }
            if !found.is_empty() {
                break;
            }
        }
        if found.is_empty() {
            let postings = self.open.range(from).iter();
            let postings = postings.filter(|posting| posting.is_of(streams));
            found.extend(postings.map(|posting| self.open.found(*posting)));
        }
        found.dedup();
        if !self.gaps.is_empty() {
            let to = found.last().map_or(Lsn::new(u64::MAX), |last| last.lsn);
            let gaps = self.gaps.iter().filter(|gap| (from..=to).contains(&gap.lsn));
            found.extend(gaps.copied());
            found.sort_unstable();
        }
    }

    /// How many entries of `stream` there are at or beyond `from`, in what the index covers. What
    /// is there with its copy counts once.
    pub(super) fn count(&self, stream: StreamId, from: Lsn) -> u64 {
        let sealed = |block: &Block| block.range(stream, from).len();
        let open =
            self.open.range(from).iter().filter(|posting| posting.stream() == stream.get()).count();
        let moved = self.moved.get(&stream).into_iter().flatten();
        let twice = moved.filter(|(copy, previous)| *copy >= from && *previous >= from).count();
        (self.blocks.iter().map(sealed).sum::<usize>() + open - twice) as u64
    }
}

impl Block {
    /// The postings of `stream` at or beyond `from`.
    fn range(&self, stream: StreamId, from: Lsn) -> &[Posting] {
        let distance = from.get().saturating_sub(self.start.get());
        if distance > DISTANCE_MAX {
            return &[];
        }
        let first = Posting::new(stream, distance);
        let start = self.postings.partition_point(|posting| *posting < first);
        let rest = &self.postings[start..];
        &rest[..rest.partition_point(|posting| posting.stream() == stream.get())]
    }

    fn found(&self, posting: Posting) -> Found {
        Found { lsn: self.start + posting.distance(), epoch: self.epoch }
    }
}

impl Open {
    /// All postings at or beyond `from`.
    fn range(&self, from: Lsn) -> &[Posting] {
        let distance = from.get().saturating_sub(self.start.get());
        let start = self.postings.partition_point(|posting| posting.distance() < distance);
        &self.postings[start..]
    }

    fn found(&self, posting: Posting) -> Found {
        Found { lsn: self.start + posting.distance(), epoch: self.epoch }
    }
}
