//! What lies in the page cache before recovery reads it.
//!
//! Pages that are read ahead from the disk lie in large folios, of which a sync of one dirty page
//! writes all; those that a writer of this log has left there lie in small ones. So the pages that
//! the log goes on in are taken out of the cache and read again in small folios, unless all of them
//! are there already, from the last process of the same boot. (If another program has read them
//! into the cache since then, the first segment costs more to sync than it has to.)

use std::ops::Range;

use super::Head;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::lsn::Lsn;
use crate::region::Region;

/// A log whose process was killed goes on so many segments behind its checkpoint slot, at the most,
/// in nearly all cases. Looking costs as much as reading a few pages, for each.
const SEGMENTS: u32 = 4;

/// Pages that are in the cache.
#[derive(Debug, Default)]
pub(crate) struct Cached(Vec<Range<u64>>);

impl Cached {
    /// Looks where the log may go on.
    pub(super) fn look(region: &Region, head: &Head) -> Cached {
        let geometry = &head.geometry;
        let durable = geometry.normalize(head.checkpoint.durable);
        let (first, _) = geometry.split(durable);
        // One that was closed in order goes on where it was closed.
        let behind = if head.checkpoint.clean { 1..1 } else { 1..SEGMENTS };
        let begins = behind.filter_map(|behind| first.checked_add(behind));
        let begins = begins.map(|sequence| geometry.first_record(sequence));
        let rests = std::iter::once(durable).chain(begins).map(|lsn| rest(geometry, lsn));
        Cached(rests.filter(|rest| region.backing().is_cached(rest.clone())).collect())
    }

    /// Were all pages of `range` there?
    pub(super) fn holds(&self, range: &Range<u64>) -> bool {
        self.0.iter().any(|cached| cached.start <= range.start && cached.end >= range.end)
    }
}

/// From the page of `lsn` to the end of its segment, in the file.
pub(super) fn rest(geometry: &Geometry, lsn: Lsn) -> Range<u64> {
    let (sequence, offset) = geometry.split(lsn);
    let segment = geometry.segment_offset(sequence);
    let page = u64::from(offset) / PAGE_SIZE * PAGE_SIZE;
    segment + page..segment + geometry.segment_size()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{Kind, Simulated};
    use crate::tests::{head_of, new_image};

    #[test]
    fn what_is_looked_for_is_where_the_log_may_go_on() {
        let geometry = Geometry::new(1 << 20, 64 << 10).expect("in bounds");
        let image = new_image(geometry);
        let mut head = head_of(&image);
        let region = Region::new(Simulated::new(image.clone()));
        let in_memory = Region::new(Simulated::new_of(Kind::Memory, image));
        let begins = |segments: u32| rest(&geometry, geometry.first_record(2 + segments));
        let middle = geometry.lsn(2, 20 << 10);
        let at_the_end = geometry.lsn(1, geometry.record_end());
        for (durable, clean, behind) in
            [(middle, true, 0), (middle, false, 3), (at_the_end, true, 0), (at_the_end, false, 3)]
        {
            head.checkpoint.durable = durable;
            head.checkpoint.clean = clean;
            let cached = Cached::look(&region, &head);
            assert!(cached.holds(&rest(&geometry, geometry.normalize(durable))));
            // Not what lies below the page of `durable`.
            assert_eq!(cached.holds(&begins(0)), durable == at_the_end);
            for segments in 1..6 {
                assert_eq!(cached.holds(&begins(segments)), segments <= behind, "{segments}");
            }
            assert!(!Cached::look(&in_memory, &head).holds(&begins(1)));
        }
    }
}
