//! Every payload length at every starting offset, three laps in a row, in a ring of two segments
//! of two pages, against an oracle that is one comparison.
//!
//! The ring, the janitor and the readers are the shipped ones. The janitor's passes are made by the
//! thread that appends: millions of segments change hands here, and a thread switch for each would
//! take longer than all the rest.

use std::ops::Range;

use super::{boot, head_of, new_image, tiny};
use crate::geometry::{FIRST_RECORD, Geometry};
use crate::layout::Identity;
use crate::layout::record::aligned_len;
use crate::reader;
use crate::region::{Region, Simulated};
use crate::ring::{Refusal, Ring, StartPositions};
use crate::segments::Janitor;
use crate::sync::Arc;
use crate::{Durability, Lsn, OnFull, Options, ReadError, recovery};

const FIRST: u32 = FIRST_RECORD;
const END: u32 = 4096;
const SEGMENTS: u32 = 2;
const LAPS: usize = 3;

struct SmallRing {
    ring: Arc<Ring>,
    janitor: Janitor,
    geometry: Geometry,
}

impl SmallRing {
    fn new() -> SmallRing {
        let geometry = tiny(u64::from(SEGMENTS));
        let disk = Simulated::new(new_image(geometry));
        let region = Region::new(disk.clone());
        let head = head_of(&disk.cache());
        let (recovered, slots) = recovery::recover(&region, &head, boot(1), crate::Verify::Full)
            .expect("a new log recovers");
        let identity = Identity { log_id: head.log_id, epoch: recovered.epoch };
        let start = StartPositions { trimmed: recovered.trimmed, end: recovered.end, prepared: 1 };
        let ring = Arc::new(Ring::new(region, geometry, identity, start));
        ring.open_epoch();
        let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
        let (slots, nothing) = (Arc::new(slots), Arc::new(()));
        let janitor = Janitor::new(ring.clone(), slots, nothing, options, None, false);
        SmallRing { ring, janitor, geometry }
    }

    /// As `Wal::append`, with the janitor's pass in place of waiting for it.
    fn append(&self, payload: &[u8]) -> Lsn {
        let prepared = self.ring.prepare(&self.ring.data_label(), payload.len(), [payload]);
        let claim = loop {
            match self.ring.try_claim(prepared.aligned_len()) {
                Ok(claim) => break claim,
                Err(Refusal::Full) => self.janitor.pass().expect("the disk takes it"),
                Err(refusal) => panic!("{refusal:?}"),
            }
        };
        self.ring.commit_parts(claim, prepared, [payload])
    }

    /// Brings the tail to `offset` of a segment of its own.
    fn go_to(&self, offset: u32) {
        let (_, at) = self.geometry.split(self.ring.reserved());
        if at > FIRST {
            self.fill(END - at);
        }
        if offset > FIRST {
            self.fill(offset - FIRST);
        }
    }

    fn fill(&self, len: u32) {
        self.append(&[0; END as usize][..len as usize - 16]);
    }

    fn check(&self, lsn: Lsn, payload: &[u8]) {
        let record = reader::get(&self.ring, lsn).expect("it is committed");
        assert!(record.payload() == payload, "{} bytes at {lsn}", payload.len());
    }
}

/// Every length at each of `offsets`, `LAPS` times in as many laps.
fn every_length_at(offsets: Range<u32>) {
    let small = SmallRing::new();
    let max = small.geometry.payload_len_max();
    assert_eq!(max, (END - FIRST) as usize - 16);
    let bytes: Vec<u8> = (0..max + LAPS).map(|i| (i * 31 % 251) as u8).collect();
    let mut previous: Option<(Lsn, Range<usize>)> = None;
    let (mut cases, mut last_lap) = (0_u64, vec![None; offsets.len()]);
    for len in 0..=max {
        // Two offsets take turns, so that a case comes again in the next lap.
        for pair in offsets.clone().step_by(32) {
            for lap in 0..LAPS {
                for offset in (pair..offsets.end.min(pair + 32)).step_by(16) {
                    small.go_to(offset);
                    let range = lap..lap + len;
                    let (was, from) = small.geometry.split(small.ring.reserved());
                    assert_eq!(from, offset);
                    let lsn = small.append(&bytes[range.clone()]);
                    // The oracle: where it fits, it goes; else to the start of the next segment.
                    let fits = offset + aligned_len(len as u32 + 16) <= END;
                    let want = if fits { (was, offset) } else { (was + 1, FIRST) };
                    assert_eq!(small.geometry.split(lsn), want, "{len} bytes at {offset}");
                    small.check(lsn, &bytes[range.clone()]);
                    if let Some((old, range)) = previous.replace((lsn, range)) {
                        match reader::get(&small.ring, old) {
                            Ok(record) => assert!(record.payload() == &bytes[range], "at {old}"),
                            Err(ReadError::Trimmed { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    let this_lap = Some((len, was / SEGMENTS));
                    let seen = &mut last_lap[(offset - offsets.start) as usize];
                    assert!(*seen < this_lap, "a lap of its own each time");
                    *seen = this_lap;
                    cases += 1;
                }
            }
        }
    }
    let want = (max as u64 + 1) * u64::from(offsets.end - offsets.start).div_ceil(16);
    assert_eq!(cases, want * LAPS as u64);
}

// Two halves, for two cores.

#[test]
fn every_length_at_every_offset_of_the_first_half() {
    every_length_at(FIRST..END / 2);
}

#[test]
fn every_length_at_every_offset_of_the_second_half() {
    every_length_at(END / 2..END);
}
