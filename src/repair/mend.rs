//! Writing gaps where records were damaged, into a copy of the ring file.
//!
//! 1. A gap is a record: of kind control, with the flag [`CONTROL_GAP`], its payload zero. It
//!    covers the damage up to the record that verifies behind it, or up to the segment's record
//!    end, so that records tile the segment again. Readers report it; nobody else needs to know.
//! 2. Epochs join: a gap is of the epoch before it. If the record behind it is of a later one, what
//!    had opened that epoch lies in the damage, and the gap ends with a record that opens it again.
//!    Where a segment's first record is part of the damage, the segment's header says the epoch.
//! 3. Footers of segments with gaps go: they sum up what is not there any more. So do footers that
//!    disagree with records that verify.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::checksum::Seed;
use crate::error::FileError;
use crate::files::{file_error, unix_ms};
use crate::geometry::{FIRST_RECORD, PAGE_SIZE, RECORD_HEADER_LEN};
use crate::layout::record::{CONTROL_EPOCH, CONTROL_GAP, record_crc};
use crate::layout::{CommitWord, RecordKind, SegmentHeader, SegmentHeaderEvidence, Tag};
use crate::recovery::Head;
use crate::recovery::scan::{Gap, Plan};

/// The record that opens an epoch: a header, the epoch, and what fills it up to a multiple of 16.
const EPOCH_RECORD_SPACE: u32 = 32;
const EPOCH_RECORD_LEN: u32 = 24;

/// A damaged stretch of one segment, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    sequence: u32,
    from: u32,
    to: u32,
    /// The epoch before it, and that of the record behind it.
    epochs: (u64, u64),
}

/// Mends `file`, a copy of the ring file at `path` that `plan` was made of.
pub(super) fn mend(file: &File, path: &Path, head: &Head, plan: &Plan) -> Result<(), FileError> {
    let write =
        |bytes: &[u8], offset| file.write_all_at(bytes, offset).map_err(file_error("write", path));
    for stretch in plan.gaps.iter().flat_map(|gap| stretches(head, gap)) {
        let Stretch { sequence, from, to, epochs: (before, behind) } = stretch;
        let segment = head.geometry.segment_offset(sequence);
        // Rule 2: from the first record on, it is the header that says the epoch.
        let begins = from == FIRST_RECORD;
        let before = if begins { behind } else { before };
        let mut bytes = [0; FIRST_RECORD as usize];
        file.read_exact_at(&mut bytes, segment).map_err(file_error("read", path))?;
        let base = head.geometry.lsn(sequence, 0);
        let found = SegmentHeader::verify(&bytes, &head.log_id, sequence, base);
        let prepared_unix_ms = match found {
            SegmentHeaderEvidence::Expected(header) => header.prepared_unix_ms,
            _ => unix_ms(),
        };
        if begins || !matches!(found, SegmentHeaderEvidence::Expected(_)) {
            let header = SegmentHeader { sequence, base, epoch: before, prepared_unix_ms };
            write(&header.encode(&head.log_id), segment)?;
        }
        if from == to {
            continue;
        }
        let opens = if before == behind { 0 } else { EPOCH_RECORD_SPACE };
        let gap_len = to - from - opens;
        if gap_len > 0 {
            let payload = vec![0; gap_len as usize - RECORD_HEADER_LEN];
            let bytes = record(head, stretch, from, (CONTROL_GAP, before), &payload);
            write(&bytes, segment + u64::from(from))?;
        }
        if opens > 0 {
            let at = from + gap_len;
            let mut bytes =
                record(head, stretch, at, (CONTROL_EPOCH, behind), &behind.to_le_bytes());
            debug_assert_eq!(bytes.len(), EPOCH_RECORD_LEN as usize);
            bytes.resize(EPOCH_RECORD_SPACE as usize, 0);
            write(&bytes, segment + u64::from(at))?;
        }
        write(&[0; PAGE_SIZE as usize], head.geometry.footer_offset(sequence))?;
    }
    for sequence in &plan.liars {
        write(&[0; PAGE_SIZE as usize], head.geometry.footer_offset(*sequence))?;
    }
    Ok(())
}

/// A control record of the log's own, at `offset` of the stretch's segment.
fn record(
    head: &Head,
    stretch: Stretch,
    offset: u32,
    (flag, epoch): (u8, u64),
    payload: &[u8],
) -> Vec<u8> {
    let len = (RECORD_HEADER_LEN + payload.len()) as u32;
    let tag = Tag::new(0, RecordKind::Control, flag, epoch);
    let lsn = head.geometry.lsn(stretch.sequence, offset);
    let crc = record_crc(Seed::new(&head.log_id, epoch), tag, len, payload, lsn);
    let mut bytes = CommitWord::committed(len, crc).bits().to_le_bytes().to_vec();
    bytes.extend_from_slice(&tag.bits().to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The segments that a gap touches. Those in between are lost as a whole, and the record behind
/// them follows their end.
fn stretches(head: &Head, gap: &Gap) -> impl Iterator<Item = Stretch> {
    let geometry = head.geometry;
    let ((first, from), (last, to)) = (geometry.split(gap.from), geometry.split(gap.to));
    let (before, behind) = gap.epochs;
    (first..=last).map(move |sequence| Stretch {
        sequence,
        from: if sequence == first { from } else { FIRST_RECORD },
        to: if sequence == last { to } else { geometry.record_end() },
        epochs: (before, if sequence == last { behind } else { before }),
    })
}

/// A gap that begins within a segment, in which an epoch begins that it has no room to open again:
/// less than the record that it must hold.
pub(super) fn unmendable(head: &Head, plan: &Plan) -> Option<Gap> {
    let is_short = |stretch: Stretch| {
        let (before, behind) = stretch.epochs;
        before != behind
            && stretch.from > FIRST_RECORD
            && stretch.to - stretch.from < EPOCH_RECORD_SPACE
    };
    plan.gaps.iter().copied().find(|gap| stretches(head, gap).any(is_short))
}
