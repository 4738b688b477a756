//! Which producers wrote into the segments that were there when the log was opened.
//!
//! 1. It is read when the first idempotent producer is asked for, and covers what lies below the
//!    start of this incarnation's epoch. Everything idempotent beyond that goes through the states
//!    in memory.
//! 2. A sealed segment tells by the list behind its footer, if recovery says that the footer
//!    counts: it was written when its segment was durable, so it does not lie about the records. A
//!    list counts only with such a footer, and only while its segment is retained whole.
//! 3. Any other segment is walked: the one that was active, those whose footer a crash has
//!    prevented, those with more producers than a list holds, and the oldest, if its beginning has
//!    been released.

use std::ops::ControlFlow;
use std::time::Duration;

use super::state::Stretch;
use crate::error::ReadError;
use crate::geometry::PAGE_SIZE;
use crate::layout::Footer;
use crate::layout::producers::{PRODUCERS_OFFSET, ProducerRange, ProducersTally};
use crate::lsn::Lsn;
use crate::producer_id::ProducerId;
use crate::reader;
use crate::ring::Ring;

/// What recovery says of the log, from which the history can be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// Where this incarnation begins.
    pub(crate) end: Lsn,
    /// The segments, in order, whose footers count.
    pub(crate) footed: Vec<u32>,
}

/// The producers of the segments below the epoch's start, from old to new.
#[derive(Debug, Default)]
pub(super) struct History {
    segments: Vec<(u32, Vec<ProducerRange>)>,
}

impl History {
    /// Rule 1.
    pub(super) fn read(ring: &Ring, before: &Before) -> Result<History, ReadError> {
        let mut segments = Vec::new();
        if ring.trimmed() < before.end {
            let first = ring.geometry().sequence(ring.trimmed());
            for segment in first..=ring.geometry().sequence(before.end) {
                let ranges = ranges_of(ring, before, segment)?;
                if !ranges.is_empty() {
                    segments.push((segment, ranges));
                }
            }
        }
        Ok(History { segments })
    }

    /// What `producer` wrote, from old to new.
    pub(super) fn stretches(&self, producer: ProducerId) -> impl Iterator<Item = Stretch> {
        self.segments.iter().filter_map(move |(segment, ranges)| {
            let index = ranges.binary_search_by_key(&producer, |range| range.producer).ok()?;
            let ProducerRange { first, last, .. } = ranges[index];
            Some(Stretch { segment: *segment, first, last })
        })
    }

    /// Forgets what lies below `segment`.
    pub(super) fn release(&mut self, segment: u32) {
        self.segments.retain(|(sequence, _)| *sequence >= segment);
    }
}

/// The producers of a segment; none if it has been released.
fn ranges_of(ring: &Ring, before: &Before, segment: u32) -> Result<Vec<ProducerRange>, ReadError> {
    let geometry = ring.geometry();
    loop {
        let from = ring.trimmed().max(geometry.first_record(segment));
        if geometry.sequence(from) > segment {
            return Ok(Vec::new());
        }
        let is_whole = from == geometry.first_record(segment);
        if is_whole
            && before.footed.binary_search(&segment).is_ok()
            && let Some(ranges) = listed(ring, from)
        {
            return Ok(ranges);
        }
        match walked(ring, from, before.end) {
            // Since we looked; the next look knows.
            Err(ReadError::Trimmed { .. }) => {}
            walked => return walked,
        }
    }
}

/// Rule 2, of the segment whose first record is at `first`. None if there is no list to believe.
fn listed(ring: &Ring, first: Lsn) -> Option<Vec<ProducerRange>> {
    let _pin = ring.pin(first, true).ok()?;
    let (geometry, mut page) = (ring.geometry(), vec![0; PAGE_SIZE as usize]);
    let segment = geometry.sequence(first);
    ring.region().backing().read_at(geometry.footer_offset(segment), &mut page).ok()?;
    let base = geometry.lsn(segment, 0);
    let footer = Footer::verify(&page, &ring.identity().log_id, base)?;
    footer.producers.verify(&page[PRODUCERS_OFFSET..])
}

/// Rule 3, of the segment that `from` lies in, up to `end`.
fn walked(ring: &Ring, from: Lsn, end: Lsn) -> Result<Vec<ProducerRange>, ReadError> {
    let geometry = ring.geometry();
    let to = end.min(geometry.lsn(geometry.sequence(from), geometry.record_end()));
    let mut tally = ProducersTally::unbounded();
    // All of it was committed before the log was opened: nothing is waited for.
    reader::walk_segment(ring, (from, to), Duration::ZERO, |record| {
        if let Some(stamp) = record.stamp() {
            tally.add(stamp);
        }
        ControlFlow::Continue(())
    })?;
    Ok(tally.into_ranges())
}
