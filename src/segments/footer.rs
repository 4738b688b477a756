//! Writing a segment's footer.
//!
//! A footer is written when `durable` has passed its segment: whatever the kernel then does with
//! the page, a footer on the medium has its records on the medium. Nothing waits for it. It is
//! synced together with what follows, and a segment whose footer a crash has prevented does
//! without.

use std::ops::Range;

use crate::geometry::FIRST_RECORD;
use crate::layout::footer::{Contents, Tally};
use crate::layout::producers::ProducersTally;
use crate::layout::record::{WordState, aligned_len};
use crate::layout::{CommitWord, Footer, Stamp, Tag};
use crate::ring::{Pin, Ring};
use crate::sync::Ordering;

/// A footer that waits for its segment to become durable. Its pin holds the segment until then.
pub(crate) struct Draft<'a> {
    ring: &'a Ring,
    _pin: Pin<'a>,
    sequence: u32,
    contents: Contents,
    producers: ProducersTally,
}

/// Adds up segment `sequence`, which is published to its end. None if it has been released.
pub(crate) fn draft(ring: &Ring, sequence: u32) -> Option<Draft<'_>> {
    let geometry = ring.geometry();
    let oldest = ring.trimmed().max(geometry.first_record(sequence));
    if geometry.sequence(oldest) > sequence {
        return None;
    }
    // Pins hold whole segments: what lies below the pin in this one stays too.
    let pin = ring.pin(oldest, true).ok()?;
    let (contents, producers) = tally(ring, &pin, sequence)?;
    Some(Draft { ring, _pin: pin, sequence, contents, producers })
}

impl Draft<'_> {
    /// Writes the footer and the list of producers, now that `durable` has passed the segment;
    /// returns the bytes to make durable, which begin a page. One thread at a time does this.
    pub(crate) fn write(self) -> Range<u64> {
        let Draft { ring, sequence, contents, producers, .. } = &self;
        let geometry = ring.geometry();
        debug_assert!(ring.durable() >= geometry.lsn(*sequence, geometry.record_end()));
        let start = geometry.footer_offset(*sequence);
        let (digest, list) = producers.encode();
        let base = geometry.lsn(*sequence, 0);
        let footer = Footer::encode(contents, digest, ring.identity(), base);
        let bytes = [&footer[..], &list].concat();
        // SAFETY: footer pages are written here and by the janitor. It stays away from a pinned
        // segment, and there is one of us at a time. Nobody reads them through the mapping.
        unsafe { ring.region().write(start, &bytes) };
        if let Some(bell) = &ring.footer_bell {
            bell.ring();
        }
        start..start + bytes.len() as u64
    }
}

/// Adds up the records of segment `sequence`, which the caller has pinned. None if there is not a
/// record behind each record: below `trimmed`, where nobody has looked, anything may lie.
fn tally(ring: &Ring, pin: &Pin<'_>, sequence: u32) -> Option<(Contents, ProducersTally)> {
    let geometry = ring.geometry();
    let (start, end) = (geometry.segment_offset(sequence), geometry.record_end());
    let words = ring.region().words(start, end);
    let (mut tally, mut producers) = (Tally::new(), ProducersTally::for_footer());
    let mut offset = FIRST_RECORD;
    while offset < end {
        let (word, tag) = words.header(offset);
        // Relaxed: all of it was published before, and acquired with that.
        let word = CommitWord::from_bits(word.load(Ordering::Relaxed));
        let WordState::Committed(len) = word.state(end - offset) else {
            return None;
        };
        // Relaxed: as the commit word.
        let tag = Tag::from_bits(tag.load(Ordering::Relaxed));
        tally.add(geometry.lsn(sequence, offset), word, tag);
        if tag.is_stamped() {
            let payload = ring.committed_payload(pin, start + u64::from(offset), len);
            if let Some(stamp) = Stamp::of(tag, payload) {
                producers.add(stamp);
            }
        }
        offset += aligned_len(len);
    }
    Some((tally.finish(), producers))
}
