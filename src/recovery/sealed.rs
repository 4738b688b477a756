//! Segments walked on their own, several at a time.
//!
//! 1. A segment's header names the epoch of its first record, and its records tile it. So it can be
//!    walked without knowing anything of the others.
//! 2. What is found is believed only where it joins: the one walk that decides goes from segment to
//!    segment, judges each header against the segments before, and takes from here what verified
//!    from the first record on. Where that ends before the segment does, it goes on by itself.

use std::io;

use super::ReadFn;
use super::finding::Proof;
use super::scan::durable_evidence;
use super::window::{EpochRule, Evidence, Window};
use crate::geometry::{FIRST_RECORD, Geometry};
use crate::layout::footer::Tally;
use crate::layout::record::{CONTROL_GAP, aligned_len};
use crate::layout::{CommitWord, Footer, LogId, SegmentHeaderEvidence};
use crate::lsn::Lsn;
use crate::sync::{Mutex, in_threads, lock};

/// A ring smaller than this is walked before another thread has started.
const WORTH_A_THREAD: u64 = 4 << 20;

/// A segment in which every record verifies, from the first one up to an offset.
#[derive(Clone)]
pub(crate) struct Walked {
    /// The header's epoch, with which the walk began.
    pub(crate) epoch: u64,
    /// The last record's.
    pub(crate) last_epoch: u64,
    /// Where that ends.
    pub(crate) offset: u32,
    pub(crate) tally: Tally,
    /// The highest position that a record in it says was durable, and that record.
    pub(crate) proven: Lsn,
    pub(crate) proof: Proof,
}

/// What a walk does where acknowledged data is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// It refuses the log.
    #[default]
    Refuse,
    /// It notes it, and goes on at the next record that verifies.
    Skip,
    /// It notes it, and ends the log there.
    Cut,
}

/// How much is looked at, and by how many threads.
#[derive(Clone, Copy, Default)]
pub(crate) struct Effort<'a> {
    /// Sealed segments whose footers count are not read: see rule 4 of [`scan`](super::scan).
    pub(crate) lazy: bool,
    pub(crate) on_damage: OnDamage,
    /// At most so many threads; 0 counts as 1.
    pub(crate) threads: usize,
    /// Told of the bytes that have been looked at, a segment at a time.
    pub(crate) progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

/// Walks ahead of the one that decides: those of one lap, in several threads.
pub(crate) struct Ahead<'a> {
    read: &'a ReadFn<'a>,
    geometry: Geometry,
    log_id: LogId,
    /// The first segment that can be walked,
    first: u32,
    /// and where the log may end.
    stop: Lsn,
    effort: Effort<'a>,
    known: Option<Known>,
}

/// What is known of the segments from `first` on.
#[derive(Default)]
struct Known {
    first: u32,
    segments: Vec<Option<Walked>>,
}

impl<'a> Ahead<'a> {
    /// Unless footers may make all of it unnecessary, they begin now.
    pub(crate) fn new(
        read: &'a ReadFn<'a>,
        (geometry, log_id): (Geometry, LogId),
        rule: EpochRule,
        (first, stop): (u32, Lsn),
        effort: &Effort<'a>,
    ) -> Ahead<'a> {
        let (effort, known) = (*effort, None);
        let mut ahead = Ahead { read, geometry, log_id, first, stop, effort, known };
        if !effort.lazy {
            ahead.known = Some(ahead.walk_from(first, rule));
        }
        ahead
    }

    /// Takes what is known of segment `sequence`, if that began with the epoch of `rule`. In a lazy
    /// walk they begin here: mostly, the only segment without a footer is the last one.
    pub(crate) fn take(&mut self, sequence: u32, rule: EpochRule) -> Option<Walked> {
        if self.known.is_none() {
            self.known = Some(self.walk_from(sequence, rule));
        }
        let known = self.known.as_mut()?;
        let index = sequence.checked_sub(known.first)?;
        let walked = known.segments.get_mut(index as usize)?;
        walked.take_if(|walked| walked.epoch == rule.epoch)
    }

    /// Walks the segments from `first` on.
    fn walk_from(&self, first: u32, rule: EpochRule) -> Known {
        let behind = first.saturating_sub(self.first);
        let count = self.geometry.segments().saturating_sub(behind);
        let place = (self.geometry, self.log_id);
        walk_ahead(self.read, place, rule, (first, count, self.stop), &self.effort)
    }
}

/// Walks `count` segments from `first` on, up to `stop`, in `effort.threads` threads. Nothing,
/// where one thread would do it all and nobody asks how far it is.
fn walk_ahead(
    read: &ReadFn<'_>,
    (geometry, log_id): (Geometry, LogId),
    rule: EpochRule,
    (first, count, stop): (u32, u32, Lsn),
    effort: &Effort<'_>,
) -> Known {
    if effort.threads < 2 && effort.progress.is_none() {
        return Known::default();
    }
    let threads = if geometry.capacity() < WORTH_A_THREAD { 1 } else { effort.threads.max(1) };
    let (next, found) = (Mutex::new(0_u32), Mutex::new(Vec::new()));
    in_threads(threads.min(count as usize), || {
        let boxed = Box::new(|offset, bytes: &mut [u8]| read(offset, bytes));
        let mut window = Window::new(boxed, geometry, log_id);
        let mut walked = Vec::new();
        loop {
            let index = {
                let mut next = lock(&next);
                *next += 1;
                *next - 1
            };
            let Some(sequence) = first.checked_add(index).filter(|_| index < count) else {
                break;
            };
            // An error will be met again by the walk that decides, which says what it means.
            let segment = (sequence, stop);
            if let Ok(Some(segment)) = walk(&mut window, &geometry, rule, segment, effort.lazy) {
                walked.push((index, segment));
            }
            if let Some(progress) = effort.progress {
                progress(geometry.segment_size());
            }
        }
        lock(&found).extend(walked);
    });
    let mut segments = vec![None; count as usize];
    for (index, segment) in lock(&found).drain(..) {
        segments[index as usize] = Some(segment);
    }
    Known { first, segments }
}

/// Does every record of segment `sequence` verify, from its header's epoch on to the record end,
/// and do they add up to `footer`? Whether they follow what lies before is not asked.
pub(crate) fn is_whole(
    read: &ReadFn<'_>,
    (geometry, log_id): (Geometry, LogId),
    sequence: u32,
    footer: &Footer,
) -> io::Result<bool> {
    let boxed = Box::new(|offset, bytes: &mut [u8]| read(offset, bytes));
    let mut window = Window::new(boxed, geometry, log_id);
    // Of no epoch are the records leftovers.
    let never = Lsn::new(u64::MAX);
    let rule = EpochRule { epoch: 0, first: false, newest: u64::MAX, newest_start: never };
    let walked = walk(&mut window, &geometry, rule, (sequence, never), false)?;
    Ok(walked.is_some_and(|walked| {
        walked.offset == geometry.record_end() && walked.tally.finish() == footer.contents
    }))
}

/// Rule 1. None if it is not there, or need not be walked.
fn walk(
    window: &mut Window<'_>,
    geometry: &Geometry,
    rule: EpochRule,
    (sequence, stop): (u32, Lsn),
    lazy: bool,
) -> io::Result<Option<Walked>> {
    let SegmentHeaderEvidence::Expected(header) = window.peek_header(sequence)? else {
        return Ok(None);
    };
    if lazy && window.any_footer(sequence)?.is_some() {
        return Ok(None);
    }
    let mut rule = EpochRule { epoch: header.epoch, first: false, ..rule };
    let (mut tally, mut proven, mut proof) = (Tally::new(), Lsn::ZERO, Proof::default());
    let mut each = |lsn, word: CommitWord, tag| {
        tally.add(lsn, word, tag);
        if let Some(position) = durable_evidence(lsn, tag).filter(|position| *position > proven) {
            (proven, proof) = (position, Proof::Evidence { lsn });
        }
    };
    let mut offset = FIRST_RECORD;
    loop {
        offset = window.pass_plain((sequence, offset), stop, &rule, &mut each)?;
        let at = geometry.lsn(sequence, offset);
        if offset == geometry.record_end() || at >= stop {
            break;
        }
        let Evidence::Valid { record_len, crc, tag, epoch } = window.examine(at, &rule)? else {
            break;
        };
        if tag.is_control(CONTROL_GAP) {
            // It is noted where it is met.
            break;
        }
        each(at, CommitWord::committed(record_len, crc), tag);
        rule.epoch = epoch;
        offset += aligned_len(record_len);
    }
    let (epoch, last_epoch) = (header.epoch, rule.epoch);
    Ok(Some(Walked { epoch, last_epoch, offset, tally, proven, proof }))
}
