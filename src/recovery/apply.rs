//! Carrying out the plan. The order of the steps is the proof that a crash between any two of
//! them is harmless; tests break each of them.

use std::time::Instant;

use super::report::{RecoveryOutcome, RecoveryReport};
use super::scan::{Hole, Plan};
use super::{Head, Recovered, Refusal};
use crate::checksum::Seed;
use crate::geometry::FIRST_RECORD;
use crate::layout::checkpoint::Boot;
use crate::layout::record::record_crc;
use crate::layout::{CommitWord, LogId, RecordKind, Tag};
use crate::lsn::Lsn;
use crate::region::Region;
use crate::ring::Identity;
use crate::segments::SlotWriter;
use crate::segments::prepare::prepare_segment;
use crate::segments::slots::persist;
use crate::sync::Ordering;

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
    let geometry = head.geometry;
    let epoch = plan.epoch_max.checked_add(1).ok_or(Refusal::Exhausted)?;
    let identity = Identity { log_id: head.log_id, epoch };
    let mut syncer = region.backing().syncer()?;

    // Step 1: holes become pads of their predecessor's epoch.
    for hole in &plan.holes {
        write_pad(region, head, &head.log_id, *hole);
    }

    // Step 2: nothing is left beyond the cut in its segment.
    let (sequence, offset) = geometry.split(plan.cut);
    let end = if plan.cut_segment_is_valid {
        seal_if_needed(region, head, plan, epoch)
    } else {
        // SAFETY: no ring is running yet, and the log's lock is ours.
        unsafe { prepare_segment(region, &geometry, &identity, sequence) };
        if offset > FIRST_RECORD {
            let lsn = geometry.first_record(sequence);
            let hole = Hole { lsn, len: offset - FIRST_RECORD, epoch };
            write_pad(region, head, &head.log_id, hole);
        }
        plan.cut
    };
    let zero_from = geometry.segment_offset(sequence) + u64::from(geometry.split(end).1);
    let segment_end = geometry.segment_offset(sequence) + geometry.segment_size();
    // SAFETY: no ring is running yet, and the log's lock is ours.
    unsafe { region.zero(zero_from..segment_end) };

    // Step 3: what is going to be served is on the medium. It is dirtied again first: pages that a
    // failed write-back left clean would not be written by a sync alone.
    let trimmed = head.checkpoint.trimmed;
    let unproven = plan.proven.min(plan.cut).max(trimmed).min(first_hole(plan));
    let stop = geometry.lsn(sequence, 0) + geometry.segment_size();
    let from = unproven.min(geometry.lsn(sequence, FIRST_RECORD).max(trimmed));
    for range in geometry.file_ranges(from, stop) {
        region.backing().redirty(range.clone());
        persist(&mut syncer, range).map_err(Refusal::Sync)?;
    }

    // Step 4: the new epoch, where it begins, and `durable` at the cut, before its first append.
    let report = report(head, plan, epoch, end, start);
    let mut checkpoint = head.checkpoint;
    checkpoint.epoch = epoch;
    checkpoint.epoch_start = end;
    checkpoint.durable = end;
    checkpoint.boot = boot;
    checkpoint.clean = false;
    checkpoint.poisoned = false;
    checkpoint.writer_pid = std::process::id();
    checkpoint.recovery = report.summary();
    let slots = SlotWriter::new(region.clone(), head.log_id, syncer, head.checkpoint, head.slot);
    slots.update(|next| *next = checkpoint).map_err(Refusal::Sync)?;
    Ok((Recovered { epoch, trimmed, end, report }, slots))
}

fn first_hole(plan: &Plan) -> Lsn {
    plan.holes.first().map_or(plan.cut, |hole| hole.lsn)
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
    write_pad(region, head, &head.log_id, hole);
    geometry.lsn(sequence, geometry.record_end())
}

fn write_pad(region: &Region, head: &Head, log_id: &LogId, hole: Hole) {
    let tag = Tag::new(0, RecordKind::Pad, 0, hole.epoch);
    let seed = Seed::new(log_id, hole.epoch);
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
        duration: start.elapsed(),
    }
}
