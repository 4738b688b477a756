//! Carrying out the plan. The order of the steps is the proof that a crash between any two of
//! them is harmless; tests break each of them.

use std::ops::Range;
use std::time::Instant;

use super::report::{RecoveryOutcome, RecoveryReport};
use super::scan::{Hole, Plan};
use super::{Head, Recovered, Refusal};
use crate::checksum::Seed;
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

/// Writes what the plan says and starts the new epoch.
pub(crate) fn apply(
    region: &Region,
    head: &Head,
    boot: Boot,
    plan: &Plan,
    start: Instant,
) -> Result<(Recovered, SlotWriter), Refusal> {
    let syncer = || region.backing().syncer().map_err(|error| Refusal::System("open", error));
    let epoch = plan.epoch_max.checked_add(1).ok_or(Refusal::Exhausted)?;
    let slots = SlotWriter::new(region.clone(), head.log_id, syncer()?, head.checkpoint, head.slot);
    let (end, dirtied) = write_plan(region, head, plan, epoch)?;

    // Step 3: what is going to be served is on the medium. It is dirtied again first: pages that a
    // failed write-back left clean would not be written by a sync alone.
    let mut records = syncer()?;
    for range in dirtied {
        region.backing().redirty(range.clone());
        if let Err(failure) = persist(&mut records, range) {
            // The kernel has told us, and will not tell the next one who opens the log.
            slots.mark_poisoned(failure.clone());
            return Err(Refusal::Sync(failure));
        }
    }

    // Step 4: the new epoch, where it begins, and `durable` at the cut, before its first append.
    let report = report(head, plan, epoch, end, start);
    let updated = slots.update(|next| {
        next.epoch = epoch;
        next.epoch_start = end;
        next.durable = end;
        next.boot = boot;
        next.clean = false;
        next.poisoned = false;
        next.writer_pid = std::process::id();
        next.recovery = report.summary();
    });
    if let Err(failure) = updated {
        slots.mark_poisoned(failure.clone());
        return Err(Refusal::Sync(failure));
    }
    let trimmed = head.checkpoint.trimmed;
    Ok((Recovered { epoch, trimmed, end, report }, slots))
}

/// Steps 1 and 2. Returns where the log ends now, and what must be synced before it is served.
fn write_plan(
    region: &Region,
    head: &Head,
    plan: &Plan,
    epoch: u64,
) -> Result<(Lsn, Vec<Range<u64>>), Refusal> {
    let geometry = head.geometry;
    // Step 1: holes become pads of their predecessor's epoch.
    for hole in &plan.holes {
        write_pad(region, head, *hole);
    }
    // Step 2: nothing is left beyond the cut in its segment.
    let (sequence, offset) = geometry.split(plan.cut);
    let mut end = plan.cut;
    if plan.cut_segment_is_valid && offset > FIRST_RECORD {
        end = seal_if_needed(region, head, plan, epoch);
    } else {
        // Nothing in it is kept: it starts with the new epoch.
        let identity = Identity { log_id: head.log_id, epoch };
        // SAFETY: no ring is running yet, and the log's lock is ours.
        unsafe { prepare_segment(region, &geometry, &identity, sequence) };
        if offset > FIRST_RECORD {
            let lsn = geometry.first_record(sequence);
            write_pad(region, head, Hole { lsn, len: offset - FIRST_RECORD, epoch });
        }
    }
    let mut dirtied = scrub(region, &geometry, end)?;
    // What was not proven durable, from the first hole on at the latest; and, since it may never
    // have been synced, the header of the segment in which that begins.
    let trimmed = geometry.normalize(head.checkpoint.trimmed);
    let hole = plan.holes.first().map_or(plan.cut, |hole| hole.lsn);
    let unproven = plan.proven.min(plan.cut).min(hole).max(trimmed);
    let header = geometry.segment_offset(geometry.sequence(unproven).min(sequence));
    dirtied.push(header..header + PAGE_SIZE);
    dirtied.extend(geometry.file_ranges(unproven, end));
    Ok((end, dirtied))
}

/// Zeroes what is not zero from `end` to the end of its segment; returns the pages. A segment that
/// is full keeps its footer.
fn scrub(region: &Region, geometry: &Geometry, end: Lsn) -> Result<Vec<Range<u64>>, Refusal> {
    let (sequence, offset) = geometry.split(end);
    let segment = geometry.segment_offset(sequence);
    let mut start = segment + u64::from(offset);
    let full = offset == geometry.record_end();
    let stop = if full { start } else { segment + geometry.segment_size() };
    let mut scrubbed: Vec<Range<u64>> = Vec::new();
    let mut bytes = vec![0; PAGE_SIZE as usize];
    while start < stop {
        let next = (start / PAGE_SIZE + 1) * PAGE_SIZE;
        let rest = &mut bytes[..(next - start) as usize];
        region.backing().read_at(start, rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            // SAFETY: no ring is running yet, and the log's lock is ours.
            unsafe { region.zero(start..next) };
            match scrubbed.last_mut() {
                Some(last) if last.end == next - PAGE_SIZE => last.end = next,
                _ => scrubbed.push(next - PAGE_SIZE..next),
            }
        }
        start = next;
    }
    Ok(scrubbed)
}

/// Fills the rest of the cut segment with a pad if the record that opens the epoch does not fit,
/// or if the segment holds as many epochs as it may. The next segment's header then opens it.
fn seal_if_needed(region: &Region, head: &Head, plan: &Plan, epoch: u64) -> Lsn {
    let geometry = head.geometry;
    let (sequence, offset) = geometry.split(plan.cut);
    let rest = geometry.record_end() - offset;
    let crowded = epoch - plan.cut_segment_epoch >= EPOCHS_IN_A_SEGMENT_MAX;
    if rest == 0 || (rest >= EPOCH_RECORD_LEN && !crowded) {
        return plan.cut;
    }
    let hole = Hole { lsn: plan.cut, len: rest, epoch: plan.last_epoch };
    write_pad(region, head, hole);
    geometry.lsn(sequence, geometry.record_end())
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
    } else if head.checkpoint.clean {
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
        proven_durable: plan.proven.min(plan.cut),
        holes_padded: plan.holes.len() as u64,
        end_reason: plan.end_reason,
        cut_bytes: beyond.first.map_or(0, |_| beyond.end - plan.cut),
        cut_records: beyond.records,
        cut_payload_bytes: beyond.payload_bytes,
        duration: sync::now() - start,
    }
}
