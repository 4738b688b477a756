//! Which producers wrote into a sealed segment: the list behind its footer.
//!
//! 1. A *range* says of one producer what its first and last sequences in the segment are. There
//!    may be gaps between; whoever wants to know about one sequence walks that segment.
//! 2. The list fills the footer page behind the footer, which carries its length and its checksum:
//!    so it is bound to the segment, the epoch and the log as the footer is, and costs a footer
//!    without producers nothing.
//! 3. It is there whole or not at all. More producers than fit are only said to be too many, and a
//!    list that does not verify (the page's sectors may be of different versions after a crash)
//!    is as good as none: the segment is walked instead. So nothing depends on it but time.

use static_assertions::{const_assert, const_assert_eq};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::footer::FOOTER_LEN;
use super::stamp::Stamp;
use crate::checksum::crc32;
use crate::geometry::PAGE_SIZE;
use crate::producer_id::ProducerId;

/// Where the list begins in the footer page.
pub(crate) const PRODUCERS_OFFSET: usize = FOOTER_LEN;
/// So many producers fit behind a footer.
pub(crate) const PRODUCERS_MAX: usize =
    (PAGE_SIZE as usize - PRODUCERS_OFFSET) / size_of::<RawRange>();
/// What a footer says of producers that do not fit.
const TOO_MANY: u32 = u32::MAX;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawRange {
    producer: U64,
    first: U64,
    last: U64,
}

const_assert_eq!(size_of::<RawRange>(), 24);
const_assert_eq!(offset_of!(RawRange, first), 8);
const_assert_eq!(offset_of!(RawRange, last), 16);
const_assert_eq!(PRODUCERS_MAX, 165);
const_assert!(PRODUCERS_OFFSET + PRODUCERS_MAX * size_of::<RawRange>() <= PAGE_SIZE as usize);

/// One producer's sequences in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerRange {
    pub(crate) producer: ProducerId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What a footer says of the list behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducersDigest {
    pub(super) count: u32,
    pub(super) crc: u32,
}

impl ProducersDigest {
    /// How many are listed; `None` if there were too many.
    pub(crate) fn listed(self) -> Option<u32> {
        (self.count != TOO_MANY).then_some(self.count)
    }
}

/// The producers of a segment, in the order of their ids, as their records are met one by one.
#[derive(Debug)]
pub(crate) struct ProducersTally {
    ranges: Vec<ProducerRange>,
    max: usize,
    too_many: bool,
}

impl ProducersTally {
    /// Takes as many producers as a footer page does.
    pub(crate) fn for_footer() -> ProducersTally {
        ProducersTally { ranges: Vec::new(), max: PRODUCERS_MAX, too_many: false }
    }

    /// Takes as many producers as there are.
    pub(crate) fn unbounded() -> ProducersTally {
        ProducersTally { ranges: Vec::new(), max: usize::MAX, too_many: false }
    }

    /// Adds a record's stamp.
    pub(crate) fn add(&mut self, stamp: Stamp) {
        let Stamp { producer, sequence } = stamp;
        match self.ranges.binary_search_by_key(&producer, |range| range.producer) {
            Ok(index) => {
                let range = &mut self.ranges[index];
                range.first = range.first.min(sequence);
                range.last = range.last.max(sequence);
            }
            Err(_) if self.ranges.len() == self.max => self.too_many = true,
            Err(index) => {
                let range = ProducerRange { producer, first: sequence, last: sequence };
                self.ranges.insert(index, range);
            }
        }
    }

    /// The ranges, by producer.
    pub(crate) fn into_ranges(self) -> Vec<ProducerRange> {
        debug_assert!(!self.too_many, "for a footer page there is `encode`");
        self.ranges
    }

    /// The list's bytes, and what the footer says of them.
    pub(crate) fn encode(&self) -> (ProducersDigest, Vec<u8>) {
        if self.too_many {
            return (ProducersDigest { count: TOO_MANY, crc: 0 }, Vec::new());
        }
        let raw: Vec<RawRange> = self.ranges.iter().map(RawRange::new).collect();
        let bytes = raw.as_bytes().to_vec();
        (ProducersDigest { count: raw.len() as u32, crc: crc32(&bytes) }, bytes)
    }
}

impl RawRange {
    fn new(range: &ProducerRange) -> RawRange {
        RawRange {
            producer: U64::new(range.producer.get()),
            first: U64::new(range.first),
            last: U64::new(range.last),
        }
    }
}

impl ProducersDigest {
    /// The list in `bytes`, which follow the footer, if it is the one that the footer means. `None`
    /// too if there were too many for one.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Option<Vec<ProducerRange>> {
        let count = usize::try_from(self.count).ok().filter(|count| *count <= PRODUCERS_MAX)?;
        let bytes = bytes.get(..count * size_of::<RawRange>())?;
        if crc32(bytes) != self.crc {
            return None;
        }
        let raw = <[RawRange]>::ref_from_bytes(bytes).ok()?;
        let ranges: Vec<ProducerRange> = raw.iter().map(RawRange::get).collect();
        // What is looked up by search is in order, unless something else wrote it.
        let is_sorted = ranges.is_sorted_by(|a, b| a.producer < b.producer);
        (is_sorted && ranges.iter().all(|range| range.first <= range.last)).then_some(ranges)
    }
}

impl RawRange {
    fn get(&self) -> ProducerRange {
        ProducerRange {
            producer: ProducerId::new(self.producer.get()),
            first: self.first.get(),
            last: self.last.get(),
        }
    }
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawRange { producer, first, last });

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(producer: u64, sequence: u64) -> Stamp {
        Stamp { producer: ProducerId::new(producer), sequence }
    }

    fn range(producer: u64, first: u64, last: u64) -> ProducerRange {
        ProducerRange { producer: ProducerId::new(producer), first, last }
    }

    #[test]
    fn a_list_says_what_was_added_and_no_flipped_bit_passes() {
        let mut tally = ProducersTally::for_footer();
        for (producer, sequence) in [(9, 5), (2, 1), (9, 8), (u64::MAX, 0), (2, 7), (9, 11)] {
            tally.add(stamp(producer, sequence));
        }
        let (digest, bytes) = tally.encode();
        let want = [range(2, 1, 7), range(9, 5, 11), range(u64::MAX, 0, 0)];
        assert_eq!(digest.verify(&bytes).as_deref(), Some(&want[..]));
        assert_eq!(tally.into_ranges(), want);
        // As in the page, behind which there is more.
        assert!(digest.verify(&[&bytes[..], &[0; 100]].concat()).is_some());
        assert_eq!(digest.verify(&bytes[..71]), None);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(digest.verify(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn no_producers_are_an_empty_list_that_needs_no_bytes() {
        let (digest, bytes) = ProducersTally::for_footer().encode();
        assert_eq!((digest, bytes.len()), (ProducersDigest::default(), 0));
        assert_eq!(digest.verify(&[]), Some(Vec::new()));
    }

    #[test]
    fn more_producers_than_fit_are_not_listed() {
        let mut tally = ProducersTally::for_footer();
        (0..PRODUCERS_MAX as u64).for_each(|producer| tally.add(stamp(producer, 3)));
        let (digest, bytes) = tally.encode();
        assert!(FOOTER_LEN + bytes.len() <= PAGE_SIZE as usize);
        assert_eq!(digest.verify(&bytes).map(|ranges| ranges.len()), Some(PRODUCERS_MAX));
        tally.add(stamp(3, 4));
        assert!(tally.encode().0.verify(&bytes).is_none(), "another list");
        tally.add(stamp(PRODUCERS_MAX as u64, 3));
        let (digest, bytes) = tally.encode();
        assert_eq!((digest.count, bytes.len()), (TOO_MANY, 0));
        assert_eq!(digest.verify(&[0; 4096]), None);
        let mut unbounded = ProducersTally::unbounded();
        (0..1000).for_each(|producer| unbounded.add(stamp(producer, 3)));
        assert_eq!(unbounded.into_ranges().len(), 1000);
    }

    #[test]
    fn a_list_that_nothing_of_ours_wrote_is_not_believed() {
        for ranges in [
            vec![range(2, 1, 1), range(1, 1, 1)],
            vec![range(1, 1, 1), range(1, 2, 2)],
            vec![range(1, 2, 1)],
        ] {
            let tally = ProducersTally { ranges, max: PRODUCERS_MAX, too_many: false };
            let (digest, bytes) = tally.encode();
            assert_eq!(digest.verify(&bytes), None, "{tally:?}");
        }
        let digest = ProducersDigest { count: PRODUCERS_MAX as u32 + 1, crc: 0 };
        assert_eq!(digest.verify(&[0; 8192]), None);
    }
}
