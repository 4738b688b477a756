//! Writing a segment's footer.
//!
//! A footer is written when `durable` has passed its segment: whatever the kernel then does with
//! the page, a footer on the medium has its records on the medium. Nothing waits for it. It is
//! synced together with what follows, and a segment whose footer a crash has prevented does
//! without.

use std::ops::Range;

use crate::geometry::{FIRST_RECORD, PAGE_SIZE};
use crate::layout::footer::{Contents, Tally};
use crate::layout::record::{WordState, aligned_len};
use crate::layout::{CommitWord, Footer, Tag};
use crate::ring::Ring;
use crate::sync::Ordering;

/// Writes the footer of segment `sequence`, all of which is durable; returns the page to sync.
/// None if the segment has been released meanwhile. One thread at a time does this.
pub(crate) fn write_footer(ring: &Ring, sequence: u32) -> Option<Range<u64>> {
    let geometry = ring.geometry();
    let oldest = ring.trimmed().max(geometry.first_record(sequence));
    if geometry.sequence(oldest) > sequence {
        return None;
    }
    // Pins hold whole segments: what lies below the pin in this one stays too.
    let _pin = ring.pin(oldest, true).ok()?;
    let contents = tally(ring, sequence)?;
    let start = geometry.footer_offset(sequence);
    let footer = Footer::encode(&contents, ring.identity(), geometry.lsn(sequence, 0));
    // SAFETY: footer pages are written here and by the janitor. It stays away from a pinned
    // segment, and there is one of us at a time. Nobody reads them through the mapping.
    unsafe { ring.region().write(start, &footer) };
    Some(start..start + PAGE_SIZE)
}

/// Adds up the records of segment `sequence`, which the caller has pinned. None if there is not a
/// record behind each record: below `trimmed`, where nobody has looked, anything may lie.
fn tally(ring: &Ring, sequence: u32) -> Option<Contents> {
    let geometry = ring.geometry();
    let end = geometry.record_end();
    let words = ring.region().words(geometry.segment_offset(sequence), end);
    let mut tally = Tally::new();
    let mut offset = FIRST_RECORD;
    while offset < end {
        let (word, tag) = words.header(offset);
        // Acquire: as in `publish`; in fact all of it has been published before.
        let word = CommitWord::from_bits(word.load(Ordering::Acquire));
        let WordState::Committed(len) = word.state(end - offset) else {
            return None;
        };
        // Relaxed: ordered by the commit word.
        let tag = Tag::from_bits(tag.load(Ordering::Relaxed));
        tally.add(geometry.lsn(sequence, offset), word, tag);
        offset += aligned_len(len);
    }
    Some(tally.finish())
}
