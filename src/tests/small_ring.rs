//! Every size at every starting offset, over three laps of a ring of two-page segments.

use super::{new_image, open, tiny};
use crate::region::Simulated;
use crate::{Durability, OnFull, Options, ReadError};

const FIRST: u64 = 64;
const END: u64 = 4096;

#[test]
fn every_size_at_every_offset_for_three_laps() {
    let geometry = tiny(3);
    let disk = Simulated::new(new_image(geometry));
    let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
    let wal = open(&disk, 1, options).expect("a new log opens");
    let max = geometry.payload_len_max() as u64;
    let bytes: Vec<u8> = (0..max).map(|i| (i * 31 % 251) as u8).collect();
    let mut previous = None;
    let mut cases = 0_u64;
    for offset in (FIRST..END).step_by(16) {
        for class in (16..=END - FIRST).step_by(16) {
            // Of the payload lengths that take this much space, another one each time.
            let len = (class - 16).saturating_sub(cases % 16).max((class - 16).saturating_sub(15));
            cases += 1;
            for lap in 0..3 {
                let skip =
                    if lap == 0 { offset } else { (offset + lap * 1008 - FIRST) % 4032 + 64 };
                go_to(&wal, skip);
                let payload = &bytes[..len as usize];
                let before = wal.watermarks().reserved;
                let lsn = wal.append(payload).expect("the oldest makes room");
                let (sequence, at) = geometry.split(lsn);
                // The oracle: where it fits, it goes; else to the start of the next segment.
                let (was, from) = geometry.split(before);
                if from + (class as u32) <= END as u32 {
                    assert_eq!((sequence, at), (was, from));
                } else {
                    assert_eq!((sequence, at), (was + 1, FIRST as u32));
                }
                assert_eq!(wal.get(lsn).expect("it is committed").payload(), payload);
                if let Some((old_lsn, old_len)) = previous.replace((lsn, len as usize)) {
                    match wal.get(old_lsn) {
                        Ok(old) => assert_eq!(old.payload(), &bytes[..old_len]),
                        Err(ReadError::Trimmed { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }
    assert_eq!(cases, 252 * 252);
}

/// Brings the tail to `offset` in its segment, or in the next one.
fn go_to(wal: &crate::Wal, offset: u64) {
    let geometry = wal.geometry();
    let (_, at) = geometry.split(wal.watermarks().reserved);
    let at = u64::from(at);
    if at > offset {
        // Fill the segment up: the rest of it, exactly, unless it is full already.
        if at < END {
            let filler = wal.reserve((END - at - 16) as usize).expect("the oldest makes room");
            drop(filler);
        }
        if offset > FIRST {
            drop(wal.reserve((offset - FIRST - 16) as usize).expect("the oldest makes room"));
        }
    } else if at < offset {
        drop(wal.reserve((offset - at - 16) as usize).expect("the oldest makes room"));
    }
}
