//! Carrying out the plan. The order of the steps is the proof that a crash between any two of
//! them is harmless; tests break each of them.

use std::ops::Range;
use std::time::Instant;

use super::cached::{self, Cached};
use super::report::{RecoveryOutcome, RecoveryReport};
use super::scan::{Hole, Plan};
use super::{Head, Recovered, Refusal};
use crate::checksum::Seed;
use crate::error::SyncFailure;
use crate::geometry::{FIRST_RECORD, Geometry, PAGE_SIZE};
use crate::layout::checkpoint::Boot;
use crate::layout::record::record_crc;
use crate::layout::{CommitWord, Identity, RecordKind, Tag};
use crate::lsn::Lsn;
use crate::region::Region;
use crate::segments::SlotWriter;
use crate::segments::prepare::prepare_segment;
use crate::segments::slots::persist;
use crate::sync::{self, Ordering};

/// The control record that opens an epoch takes this much.
const EPOCH_RECORD_LEN: u32 = 32;
/// A segment holds fewer epochs than their low 16 bits can tell apart.
const EPOCHS_IN_A_SEGMENT_MAX: u64 = 0xFFFF;

/// What lies beyond the cut is read so many bytes at a time: it stays in the second-level cache.
const SCRUB_PIECE: u64 = 256 << 10;

/// Writes what the plan says and starts the new epoch.
pub(crate) fn apply(
    region: &Region,
    head: &Head,
    boot: Boot,
    plan: &Plan,
    cached: &Cached,
    start: Instant,
) -> Result<(Recovered, SlotWriter), Refusal> {
    let syncer = || region.backing().syncer().map_err(|error| Refusal::System("open", error));
    let epoch = head.epoch_after(plan.epoch_max)?;
    let slots = SlotWriter::new(region.clone(), head.log_id, syncer()?, head.checkpoint, head.slot);
    // The kernel has told us, and will not tell the next one who opens the log.
    let fail = |failure: SyncFailure| {
        slots.mark_poisoned(failure.clone());
        Refusal::Sync(failure)
    };
    // Step 0: the slot that we have read is on the medium. Step 3 may use what it has released, and
    // step 4 touches the other one.
    slots.confirm().map_err(fail)?;

    // Step 1: holes become pads of their predecessor's epoch; the segment of the cut is there.
    write_pads(region, head, plan, epoch);

    // Step 2: what is going to be served is on the medium. It is dirtied again first: pages that a
    // failed write-back left clean would not be written by a sync alone.
    let records = syncer()?;
    let sync = |range: Range<u64>| {
        region.backing().redirty(range.clone());
        persist(&records, range)
    };
    for range in unproven(head, plan) {
        sync(range).map_err(fail)?;
    }

    // Step 3: nothing is left beyond the cut in its segment. Only now: what the cache is not
    // trusted with is dropped, and what it has of the segment's records is on the medium.
    for range in clear_beyond(region, head, plan, cached)? {
        sync(range).map_err(fail)?;
    }

    // Step 4: the new epoch, where it begins, and `durable` at the cut, before its first append.
    let seal = seal_if_needed(head, plan, epoch);
    let end = seal.map_or(plan.cut, |seal| seal.lsn + u64::from(seal.len));
    let report = report(head, plan, epoch, end, start);
    let updated = slots.update(|next| {
        next.epoch = epoch;
        next.epoch_start = end;
        next.durable = plan.cut;
        next.boot = boot;
        next.clean = false;
        next.poisoned = false;
        next.writer_pid = std::process::id();
        next.recovery = report.summary();
    });
    // In both slots: one that is damaged later would take the only mention of the epoch with it,
    // the next recovery could use it again, and what the damage hides from it could come back.
    updated.and_then(|()| slots.update(|_| {})).map_err(fail)?;

    // Step 5: the rest of a segment that cannot take the new epoch. Only now: before step 4 the pad
    // would have led the next recovery on, over a record that is lost, to what lies beyond the cut.
    if let Some(seal) = seal {
        write_pad(region, head, seal);
        let page = head.geometry.file_offset(seal.lsn) / PAGE_SIZE * PAGE_SIZE;
        sync(page..page + PAGE_SIZE).map_err(fail)?;
    }
    let trimmed = head.checkpoint.trimmed;
    let footed = plan.footed.clone();
    Ok((Recovered { epoch, trimmed, end, report, footed }, slots))
}

/// What was not proven durable, from the first hole on at the latest; and, since it may never have
/// been synced, the header of the segment in which that begins.
fn unproven(head: &Head, plan: &Plan) -> Vec<Range<u64>> {
    let geometry = &head.geometry;
    let trimmed = geometry.normalize(head.checkpoint.trimmed);
    let hole = plan.holes.first().map_or(plan.cut, |hole| hole.lsn);
    let unproven = plan.proven.min(plan.cut).min(hole).max(trimmed);
    let sequence = geometry.sequence(unproven).min(geometry.sequence(plan.cut));
    let header = geometry.segment_offset(sequence);
    let mut ranges = geometry.file_ranges(unproven, plan.cut);
    ranges.push(header..header + PAGE_SIZE);
    ranges
}

/// Fills the holes, and prepares the segment of the cut if that starts with the new epoch.
fn write_pads(region: &Region, head: &Head, plan: &Plan, epoch: u64) {
    for hole in &plan.holes {
        write_pad(region, head, *hole);
    }
    let (sequence, offset) = head.geometry.split(plan.cut);
    if starts_anew(plan, offset) {
        let identity = Identity { log_id: head.log_id, epoch };
        // SAFETY: no ring is running yet, and the log's lock is ours.
        unsafe { prepare_segment(region, &head.geometry, &identity, sequence, || true) };
        if offset > FIRST_RECORD {
            let lsn = head.geometry.first_record(sequence);
            write_pad(region, head, Hole { lsn, len: offset - FIRST_RECORD, epoch });
        }
    }
}

/// Zeroes what is not zero beyond the cut: in the cache, or on the disk if that is not trusted;
/// returns the pages.
fn clear_beyond(
    region: &Region,
    head: &Head,
    plan: &Plan,
    cached: &Cached,
) -> Result<Vec<Range<u64>>, Refusal> {
    let geometry = &head.geometry;
    let rest = cached::rest(geometry, plan.cut);
    let keeps = plan.same_boot && cached.holds(&rest);
    if !keeps {
        let segment = geometry.segment_offset(geometry.sequence(plan.cut));
        region.backing().evict(segment..rest.end);
    }
    scrub(region, geometry, plan.cut, !keeps)
}

/// Zeroes what is not zero from `end` to the end of its segment; returns the pages. A segment that
/// is full keeps its footer. If it `fetches`, what is read is not in the cache yet.
fn scrub(
    region: &Region,
    geometry: &Geometry,
    end: Lsn,
    fetches: bool,
) -> Result<Vec<Range<u64>>, Refusal> {
    let (sequence, offset) = geometry.split(end);
    let segment = geometry.segment_offset(sequence);
    let mut start = segment + u64::from(offset);
    let full = offset == geometry.record_end();
    let stop = if full { start } else { segment + geometry.segment_size() };
    let mut scrubbed: Vec<Range<u64>> = Vec::new();
    let mut bytes = vec![0; SCRUB_PIECE as usize];
    let end_of_piece = |from: u64| ((from / SCRUB_PIECE + 1) * SCRUB_PIECE).min(stop);
    let fetch = |from: u64| {
        if fetches && from < stop {
            region.backing().fetch(from..end_of_piece(from));
        }
    };
    fetch(start);
    while start < stop {
        let piece_end = end_of_piece(start);
        // The disk is busy with the next piece while this one is looked through.
        fetch(piece_end);
        let mut rest = &mut bytes[..(piece_end - start) as usize];
        region.backing().read_at(start, rest)?;
        while !rest.is_empty() {
            let next = (start / PAGE_SIZE + 1) * PAGE_SIZE;
            let (page, behind) = rest.split_at_mut((next - start) as usize);
            if page.iter().fold(0, |bits, byte| bits | byte) != 0 {
                // SAFETY: no ring is running yet, and the log's lock is ours.
                unsafe { region.zero(start..next) };
                match scrubbed.last_mut() {
                    Some(last) if last.end == next - PAGE_SIZE => last.end = next,
                    _ => scrubbed.push(next - PAGE_SIZE..next),
                }
            }
            (start, rest) = (next, behind);
        }
    }
    Ok(scrubbed)
}

/// The pad over the rest of the cut segment, if the record that opens the epoch does not fit there
/// or if the segment holds as many epochs as it may. The next segment's header then opens it.
fn seal_if_needed(head: &Head, plan: &Plan, epoch: u64) -> Option<Hole> {
    let (_, offset) = head.geometry.split(plan.cut);
    let is_new = starts_anew(plan, offset);
    let rest = head.geometry.record_end() - offset;
    let crowded = !is_new && epoch - plan.cut_segment_epoch >= EPOCHS_IN_A_SEGMENT_MAX;
    let fits = rest == 0 || (rest >= EPOCH_RECORD_LEN && !crowded);
    let epoch = if is_new { epoch } else { plan.last_epoch };
    (!fits).then_some(Hole { lsn: plan.cut, len: rest, epoch })
}

/// Nothing is kept in the cut segment, where the cut is at `offset`.
fn starts_anew(plan: &Plan, offset: u32) -> bool {
    !plan.cut_segment_is_valid || offset <= FIRST_RECORD
}

fn write_pad(region: &Region, head: &Head, hole: Hole) {
    let tag = Tag::new(0, RecordKind::Pad, 0, hole.epoch);
    let seed = Seed::new(&head.log_id, hole.epoch);
    let crc = record_crc(seed, tag, hole.len, &[], hole.lsn);
    let offset = head.geometry.file_offset(hole.lsn);
    // Relaxed: nothing else runs yet; starting the threads orders it.
    region.word(offset + 8).store(tag.bits(), Ordering::Relaxed);
    region.word(offset).store(CommitWord::committed(hole.len, crc).bits(), Ordering::Relaxed);
}

fn report(head: &Head, plan: &Plan, epoch: u64, end: Lsn, start: Instant) -> RecoveryReport {
    let outcome = if head.checkpoint.epoch == 0 {
        RecoveryOutcome::New
    } else if plan.clean {
        RecoveryOutcome::Clean
    } else if plan.same_boot {
        RecoveryOutcome::ProcessDied
    } else {
        RecoveryOutcome::PowerLost
    };
    let beyond = &plan.beyond;
    RecoveryReport {
        outcome,
        epoch,
        start: head.checkpoint.trimmed,
        end,
        records: plan.records,
        payload_bytes: plan.payload_bytes,
        records_unread: plan.records_unread,
        proven_durable: plan.proven.min(plan.cut),
        holes_padded: plan.holes.len() as u64,
        end_reason: plan.end_reason,
        cut_bytes: beyond.first.map_or(0, |_| beyond.end - plan.cut),
        cut_records: beyond.records,
        cut_payload_bytes: beyond.payload_bytes,
        duration: sync::now() - start,
    }
}
