//! The superblock: any bytes as a first page.
//!
//! Input: one byte of flags (bit 0: put the checksum right; bit 1: put magic, version and lengths
//! right too, so that the geometry is what is attacked), then the page.

use kaelix_wal::fuzzing;

use crate::format::{SUPERBLOCK, put, seal_at};
use crate::reference;

pub fn run(data: &[u8]) {
    let Some((flags, page)) = data.split_first() else { return };
    let mut page = page.to_vec();
    if flags & 2 != 0 {
        page.resize(page.len().max(SUPERBLOCK.end), 0);
        put(&mut page, 0, b"KAELIXWL\x01\0\0\0\x80\0\0\0");
        put(&mut page, 24, &[0; 8]);
        put(&mut page, 60, &[16, 0, 0, 0]);
    }
    if flags & 3 != 0 {
        seal_at(&mut page, SUPERBLOCK);
    }
    let believed = fuzzing::superblock(&page);
    let expected = reference::superblock(&page);
    let Some((geometry, log_id, data_offset)) = believed else {
        assert_eq!(expected, None, "refused without a reason");
        return;
    };
    let sizes = (geometry.segment_size(), u64::from(geometry.segments()));
    assert_eq!(expected, Some((log_id, sizes.0, sizes.1, data_offset)), "believed without reason");
    assert_eq!(geometry.capacity(), sizes.0 * sizes.1);
    assert_eq!(geometry.file_len(), data_offset + geometry.capacity());
    assert!(geometry.payload_len_max() as u64 + 16 + 64 + 4096 == sizes.0);
}
