//! One record: any bytes at any position, behind any epoch.
//!
//! Input: one byte of flags (bit 0: put the checksum right, for the epoch that the bytes claim;
//! bit 1: it is the first of a walk; bit 2: the largest sequence), sequence, offset, the epoch
//! before, the newest epoch and where that began, then the bytes.

use kaelix_wal::fuzzing::{self, Before};
use kaelix_wal::{Geometry, Lsn, simulation};

use crate::format::{CONTROL, CONTROL_EPOCH, HEADER_LEN, put, record_crc, u32_at, u64_at};
use crate::reference::{Head, Slot};

const LOG_ID: [u8; 16] = *b"a log to confuse";
const HEAD: usize = 1 + 4 + 2 + 8 + 8 + 8;

pub fn run(data: &[u8]) {
    let Some((head, bytes)) = data.split_at_checked(HEAD) else { return };
    let geometry = simulation::tiny(2);
    let flags = head[0];
    let sequence = if flags & 4 == 0 { u32_at(head, 1) } else { u32::MAX };
    let records = geometry.segment_size() - 4096 - HEADER_LEN as u64;
    let offset = HEADER_LEN as u64 + u64::from(u32_at(head, 5) as u16) * 16 % records;
    let lsn = u64::from(sequence) * geometry.segment_size() + offset;
    let (epoch, newest) = (u64_at(head, 7), u64_at(head, 15));
    // A checkpoint with the largest epoch is not believed.
    let newest = newest.min(u64::MAX - 1);
    let newest_start = Lsn::new(u64_at(head, 23));
    let before = Before { epoch, first: flags & 2 != 0, newest, newest_start };

    let reference = reference(&geometry, &before);
    let at = reference.file_offset(lsn);
    let mut image = vec![0; geometry.file_len() as usize];
    put(&mut image, at, bytes);
    if flags & 1 != 0 {
        seal(&mut image, at, epoch, lsn, LOG_ID);
    }
    let found = fuzzing::record(&image, geometry, LOG_ID, Lsn::new(lsn), &before);
    let found = found.expect("the whole ring is there");
    let expected = reference.record_after(&image, lsn, epoch, before.first);
    let expected = expected.map(|record| (16 + record.payload.len() as u32, record.epoch));
    assert_eq!(found, expected);
}

fn reference(geometry: &Geometry, before: &Before) -> Head {
    Head {
        log_id: LOG_ID,
        segment_size: geometry.segment_size(),
        segments: u64::from(geometry.segments()),
        data_offset: 12288,
        slot: Slot {
            index: 0,
            generation: 1,
            epoch: before.newest,
            epoch_start: before.newest_start.get(),
            trimmed: 64,
            durable: 64,
            boot_id: [0; 16],
            file_identity: 0,
            clean: false,
            poisoned: false,
        },
    }
}

/// Puts the checksum of the record at `at` right, if its length is possible: for the epoch that it
/// opens, or else for the one that its low 16 bits name, not before `epoch`. Returns that epoch.
pub(crate) fn seal(image: &mut [u8], at: usize, epoch: u64, lsn: u64, log_id: [u8; 16]) -> u64 {
    let Some(header) = image.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied() else {
        return epoch;
    };
    let end = at.saturating_add(u32_at(&header, 0) as usize);
    let Some(payload) = image.get(at..end).and_then(|all| all.get(16..)) else {
        return epoch;
    };
    let low = u64::from(u32_at(&header, 12) >> 16);
    let ahead = low.wrapping_sub(epoch) & 0xFFFF;
    let opens = header[12..14] == [CONTROL, CONTROL_EPOCH] && ahead != 0 && payload.len() >= 8;
    let own = if opens { u64_at(payload, 0) } else { epoch.wrapping_add(ahead) };
    let crc = record_crc(&log_id, own, &header, payload, lsn);
    put(image, at + 4, &crc.to_le_bytes());
    own
}
