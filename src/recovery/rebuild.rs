//! The head of a ring file that is not whole: its superblock is damaged, or its length is not that
//! of the ring.
//!
//! 1. A log is never opened like this; it is looked at, and repaired.
//! 2. A superblock that is lost can be computed. Each checkpoint slot carries the log id under a
//!    checksum of its own. Each segment header that carries that id says which sequence it has and
//!    at which LSN it begins, and so how large segments are; with the length of the file this gives
//!    the ring, and every header must then lie in its place. Whatever does not agree, or leaves a
//!    choice, gives none.
//! 3. What is missing at the end of a file is zero, and what is too much is left out.

use std::path::Path;

use super::{Head, ReadAt, ReadFn, has_possible_positions, read_checkpoint, superblock_error};
use crate::error::OpenError;
use crate::files::file_error;
use crate::geometry::{DATA_OFFSET, DATA_OFFSET_MIN, FIRST_RECORD, Geometry, PAGE_SIZE};
use crate::layout::{
    CHECKPOINT_SLOT_OFFSETS, Checkpoint, LogId, SegmentHeader, SegmentHeaderEvidence, Superblock,
};
use crate::lsn::Lsn;

/// Segment headers are looked for in so many bytes at a time.
const PIECE: u64 = 1 << 20;

/// What is wrong with a head that can be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// The superblock was computed.
    Superblock,
    /// The file has another length than the ring.
    Length { found: u64, expected: u64 },
}

/// As [`verify_head`](super::verify_head), of a file that need not be whole: `read` gives zeros for
/// what lies behind its `len` bytes.
pub(crate) fn find_head(
    read: &ReadFn<'_>,
    len: u64,
    path: &Path,
) -> Result<(Head, Superblock, Vec<HeadFault>), OpenError> {
    let failed = |error| OpenError::from(file_error("read", path)(error));
    let mut page = vec![0; PAGE_SIZE as usize];
    read(0, &mut page).map_err(failed)?;
    let slots = |superblock: &Superblock| {
        let boxed: ReadAt<'_> = Box::new(|offset, bytes| read(offset, bytes));
        read_checkpoint(&boxed, superblock).map_err(failed)
    };
    let mut faults = Vec::new();
    let found = Superblock::verify(&page).map_err(|fault| superblock_error(path, fault));
    let found = found.and_then(|superblock| match slots(&superblock)? {
        Some(head) => Ok((head, superblock)),
        // It may be another log's.
        None => Err(OpenError::NoCheckpoint(path.to_owned())),
    });
    let (head, superblock) = match found {
        Ok(found) => found,
        Err(error @ (OpenError::NotALog { .. } | OpenError::NoCheckpoint(_))) => {
            faults.push(HeadFault::Superblock);
            let rebuilt = rebuild(read, len).map_err(failed)?;
            let superblock = rebuilt.ok_or(error)?;
            let none = || OpenError::NoCheckpoint(path.to_owned());
            (slots(&superblock)?.ok_or_else(none)?, superblock)
        }
        // Of another version, for one: that is no damage.
        Err(error) => return Err(error),
    };
    let expected = superblock.geometry.file_len();
    if len != expected {
        faults.push(HeadFault::Length { found: len, expected });
    }
    Ok((head, superblock, faults))
}

/// Rule 2.
fn rebuild(read: &ReadFn<'_>, len: u64) -> std::io::Result<Option<Superblock>> {
    let mut slots = Vec::new();
    for offset in CHECKPOINT_SLOT_OFFSETS {
        let mut page = vec![0; PAGE_SIZE as usize];
        read(offset, &mut page)?;
        slots.extend(Checkpoint::log_id_of(&page).map(|log_id| (log_id, page)));
    }
    let Some(&(log_id, _)) = slots.first() else { return Ok(None) };
    if slots.iter().any(|(other, _)| *other != log_id) {
        return Ok(None);
    }
    let headers = find_headers(read, len, &log_id)?;
    let Some(geometry) = geometry_of(&headers, len) else { return Ok(None) };
    let slots = slots.iter().filter_map(|(_, page)| Checkpoint::verify(page, &log_id));
    if slots.into_iter().any(|slot| !has_possible_positions(&slot, &geometry)) {
        return Ok(None);
    }
    let oldest = headers.iter().map(|(_, header)| header.prepared_unix_ms).min();
    Ok(Some(Superblock { log_id, geometry, created_unix_ms: oldest.unwrap_or_default() }))
}

/// All segment headers with this log id, with their file offsets.
fn find_headers(
    read: &ReadFn<'_>,
    len: u64,
    log_id: &LogId,
) -> std::io::Result<Vec<(u64, SegmentHeader)>> {
    let mut headers = Vec::new();
    let mut start = DATA_OFFSET_MIN;
    let mut piece = vec![0; PIECE as usize];
    while start < len {
        let bytes = &mut piece[..PIECE.min(len - start) as usize];
        read(start, bytes)?;
        for (page, bytes) in (start..).step_by(PAGE_SIZE as usize).zip(bytes.chunks(4096)) {
            let Some(header) = bytes.get(..FIRST_RECORD as usize) else { continue };
            // Whatever its sequence: it is below the highest.
            let evidence = SegmentHeader::verify(header, log_id, u32::MAX, Lsn::ZERO);
            if let SegmentHeaderEvidence::Older(header) = evidence {
                headers.push((page, header));
            }
        }
        start += PIECE;
    }
    Ok(headers)
}

/// The one geometry in which each header lies in its place.
fn geometry_of(headers: &[(u64, SegmentHeader)], len: u64) -> Option<Geometry> {
    let (first, _) = *headers.first()?;
    let (_, later) = headers.iter().find(|(_, header)| header.sequence > 0)?;
    let segment_size = later.base.get() / u64::from(later.sequence);
    let agrees = |geometry: &Geometry| {
        headers.iter().all(|(offset, header)| {
            header.base == geometry.lsn(header.sequence, 0)
                && *offset == geometry.segment_offset(header.sequence)
        })
    };
    // The first header that is found may lie in any of the ring's places.
    let ahead = (0..).map_while(|slot| first.checked_sub(segment_size.max(1) * slot));
    let mut possible = ahead
        .take_while(|data_offset| *data_offset >= DATA_OFFSET_MIN)
        .filter(|data_offset| *data_offset <= DATA_OFFSET)
        .filter_map(|data_offset| {
            let ring = len.checked_sub(data_offset)?;
            Geometry::checked(ring, segment_size, data_offset).ok().filter(agrees)
        });
    let geometry = possible.next()?;
    possible.next().is_none().then_some(geometry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(geometry: &Geometry, sequence: u32) -> (u64, SegmentHeader) {
        let base = geometry.lsn(sequence, 0);
        let header = SegmentHeader { sequence, base, epoch: 1, prepared_unix_ms: 5 };
        (geometry.segment_offset(sequence), header)
    }

    #[test]
    fn headers_give_the_geometry_back_or_none() {
        for (size, segment_size, data_offset) in
            [(5 << 20, 1 << 20, 2 << 20), (6 * 8192, 8192, 12_288), (64 << 20, 16 << 20, 2 << 20)]
        {
            let geometry = Geometry::checked(size, segment_size, data_offset).expect("in bounds");
            let len = geometry.file_len();
            let segments = geometry.segments();
            let headers: Vec<_> = (0..segments + 2).map(|n| header(&geometry, n)).collect();
            // The second lap has taken the place of the first.
            let mut headers = headers[2..].to_vec();
            headers.sort_unstable_by_key(|(offset, _)| *offset);
            assert_eq!(geometry_of(&headers, len), Some(geometry));
            assert_eq!(geometry_of(&headers, len + 4096), None, "a file of another length");
            // Of those that are left, few agree with more than one geometry.
            for lost in 1..headers.len() - 1 {
                let found = geometry_of(&headers[lost..], len);
                let is_it = found == Some(geometry) || (found.is_none() && lost > 1);
                assert!(is_it, "{lost} of {segments} lost: {found:?}");
            }
            let mut moved = headers.clone();
            moved[0].0 += 4096;
            assert_eq!(geometry_of(&moved, len), None, "a header in the wrong place");
        }
        let geometry = Geometry::checked(4 << 20, 1 << 20, 2 << 20).expect("in bounds");
        let alone = [header(&geometry, 0)];
        assert_eq!(geometry_of(&alone, geometry.file_len()), None, "it may be of any size");
        assert_eq!(geometry_of(&[], geometry.file_len()), None);
    }
}
