//! Checkpoint slots: any bytes as pages 1 and 2, under a geometry of the input's choice.
//!
//! Input: one byte of flags (bits 0 and 1: put the checksum of slot A, B right; bits 2 and 3: magic
//! and log id too; bits 4 to 6: the geometry), then slot A's 256 bytes, then slot B's.

use kaelix_wal::{Geometry, fuzzing, simulation};

use crate::format::{PAGE, SLOT_LEN, SLOTS, put, seal_at};
use crate::reference::Head;

const LOG_ID: [u8; 16] = *b"a log to confuse";

fn geometry(choice: u8) -> Geometry {
    let sizes =
        [(2_u64, 64 << 10), (3, 64 << 10), (65_537, 64 << 10), (2, 1 << 30), (1 << 30, 1 << 30)];
    match sizes.get(usize::from(choice)) {
        Some((segments, size)) => {
            Geometry::new(segments * size, *size).expect("these sizes are possible")
        }
        None => simulation::tiny(u64::from(choice)),
    }
}

pub fn run(data: &[u8]) {
    let Some((flags, slots)) = data.split_first() else { return };
    let mut head = vec![0; 3 * PAGE];
    for (index, (slot, bytes)) in SLOTS.into_iter().zip(slots.chunks(SLOT_LEN)).enumerate() {
        put(&mut head, slot, bytes);
        if flags & (4 << index) != 0 {
            put(&mut head, slot, b"KAELIXCP");
            put(&mut head, slot + 48, &LOG_ID);
        }
        if flags & (5 << index) != 0 {
            seal_at(&mut head, slot..slot + SLOT_LEN);
        }
    }
    let geometry = geometry(flags >> 4 & 7);
    let believed = fuzzing::checkpoint(&head, geometry, LOG_ID).expect("three pages are there");
    let segments = u64::from(geometry.segments());
    let expected = Head::of_slots(&head, LOG_ID, geometry.segment_size(), segments, 12288);
    let expected = expected.map(|Head { slot, .. }| {
        ([slot.trimmed, slot.durable, slot.epoch_start].map(kaelix_wal::Lsn::new), slot.epoch)
    });
    assert_eq!(believed, expected, "believed, another one");
}
