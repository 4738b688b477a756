//! Where to start for a time: by the headers of segments, which say when they were prepared.
//!
//! A record is younger than its segment's header. And a segment is prepared when the active one is
//! at most so many before it as are kept ready: what lies further back is older than its header.

use std::ops::RangeInclusive;

use super::Position;
use crate::geometry::Geometry;
use crate::segments::janitor::segments_ahead;

/// Where to start so that no record is missed that was appended at or after `unix_ms`, by the clock
/// that prepared the segments. `retained` are the segments that hold records, of which `prepared`
/// tells the times.
pub(crate) fn start<E>(
    geometry: &Geometry,
    retained: RangeInclusive<u32>,
    unix_ms: u64,
    mut prepared: impl FnMut(u32) -> Result<u64, E>,
) -> Result<Position, E> {
    let first = *retained.start();
    let mut last_before = None;
    // A clock that was put back does no harm: the first header that is younger ends the search. One
    // of the same millisecond may be younger, and in a millisecond a ring can go round.
    for sequence in retained {
        if prepared(sequence)? >= unix_ms {
            break;
        }
        last_before = Some(sequence);
    }
    let ahead = segments_ahead(geometry) as u32;
    let start = last_before.and_then(|sequence| sequence.checked_sub(1 + ahead));
    Ok(match start {
        Some(start) if start > first => Position::At(geometry.first_record(start)),
        _ => Position::Oldest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::PAGE_SIZE;

    /// Segments are kept ready one ahead here, and one more is looked at.
    #[test]
    fn a_segment_of_the_same_millisecond_may_be_younger() {
        let geometry = Geometry::checked(4 * 8192, 8192, 3 * PAGE_SIZE).expect("in bounds");
        let ahead = segments_ahead(&geometry) as u32;
        let since = |unix_ms| {
            let prepared = |sequence: u32| Ok::<_, ()>([5, 5, 5, 5, 5, 5, 7, 8][sequence as usize]);
            start(&geometry, 0..=7, unix_ms, prepared).expect("nothing is read")
        };
        let at = |last_before: u32| Position::At(geometry.first_record(last_before - 1 - ahead));
        assert_eq!(since(5), Position::Oldest);
        assert_eq!(since(6), at(5));
        assert_eq!(since(7), at(5));
        assert_eq!(since(8), at(6));
        assert_eq!(since(9), at(7));
    }
}
