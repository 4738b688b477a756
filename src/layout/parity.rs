//! The parity of a segment: a table of checksums, and one page of parity for each group of pages.
//!
//! 1. A segment's pages up to its record end are dealt out to the groups in turn, so that pages
//!    which lie side by side are in different groups. The footer's page is in none.
//! 2. The table says of which contents it is: those that the segment's footer adds up.
//! 3. It has a checksum for each page, by which a damaged one is found, and for each page of
//!    parity. A table and pages of parity that a crash has mixed up do not agree.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Footer, LogId};
use crate::checksum::crc32;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::lsn::Lsn;

const MAGIC: [u8; 8] = *b"KAELIXPA";
/// The version of the format of a parity file.
const VERSION: u32 = 1;
const CRC_LEN: usize = 4;

/// At most so many pages share one page of parity.
pub(crate) const GROUP_PAGES: u32 = 64;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawTable {
    magic: [u8; 8],
    format_version: U32,
    length: U32,
    log_id: LogId,
    base: U64,
    epoch: U64,
    roll_up: U32,
    pages: U32,
    groups: U32,
    reserved: U32,
}

const_assert_eq!(size_of::<RawTable>(), 64);
const_assert_eq!(offset_of!(RawTable, format_version), 8);
const_assert_eq!(offset_of!(RawTable, length), 12);
const_assert_eq!(offset_of!(RawTable, log_id), 16);
const_assert_eq!(offset_of!(RawTable, base), 32);
const_assert_eq!(offset_of!(RawTable, epoch), 40);
const_assert_eq!(offset_of!(RawTable, roll_up), 48);
const_assert_eq!(offset_of!(RawTable, pages), 52);
const_assert_eq!(offset_of!(RawTable, groups), 56);
const_assert_eq!(offset_of!(RawTable, reserved), 60);

/// The places in a parity file, by the log's geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParityPlaces {
    geometry: Geometry,
}

impl ParityPlaces {
    pub(crate) fn new(geometry: Geometry) -> ParityPlaces {
        ParityPlaces { geometry }
    }

    /// How many pages of a segment are protected: all but the footer's.
    pub(crate) fn pages(&self) -> u32 {
        self.geometry.record_end() / PAGE_SIZE as u32
    }

    /// How many groups they are dealt out to.
    pub(crate) fn groups(&self) -> u32 {
        self.pages().div_ceil(GROUP_PAGES)
    }

    /// The group of a page.
    pub(crate) fn group_of(&self, page: u32) -> u32 {
        page % self.groups()
    }

    /// The pages of a group.
    pub(crate) fn pages_of(&self, group: u32) -> impl Iterator<Item = u32> + use<> {
        (group..self.pages()).step_by(self.groups() as usize)
    }

    /// Bytes of a table, its CRC included.
    pub(crate) fn table_len(&self) -> usize {
        let crcs = self.pages() as usize + self.groups() as usize;
        size_of::<RawTable>() + crcs * size_of::<u32>() + CRC_LEN
    }

    /// Where the table of segment `sequence` lies.
    pub(crate) fn table_offset(&self, sequence: u32) -> u64 {
        u64::from(self.geometry.slot(sequence)) * self.area_len()
    }

    /// Where a group's page of parity lies.
    pub(crate) fn parity_offset(&self, sequence: u32, group: u32) -> u64 {
        self.table_offset(sequence) + self.table_space() + u64::from(group) * PAGE_SIZE
    }

    /// Bytes of the whole file.
    pub(crate) fn file_len(&self) -> u64 {
        u64::from(self.geometry.segments()) * self.area_len()
    }

    /// Of one segment.
    fn area_len(&self) -> u64 {
        self.table_space() + u64::from(self.groups()) * PAGE_SIZE
    }

    /// A table takes whole pages.
    fn table_space(&self) -> u64 {
        (self.table_len() as u64).next_multiple_of(PAGE_SIZE)
    }
}

/// A verified table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParityTable {
    /// The epoch of the footer, and the roll-up in it.
    pub(crate) epoch: u64,
    pub(crate) roll_up: u32,
    /// CRC-32 of each protected page.
    pub(crate) pages: Vec<u32>,
    /// CRC-32 of each page of parity.
    pub(crate) groups: Vec<u32>,
}

impl ParityTable {
    /// Is it of what `footer` adds up?
    pub(crate) fn is_of(&self, footer: &Footer) -> bool {
        (self.epoch, self.roll_up) == (footer.epoch, footer.contents.roll_up)
    }

    /// The bytes to write for the segment at `base`: whole pages.
    pub(crate) fn encode(&self, log_id: &LogId, base: Lsn) -> Vec<u8> {
        let crcs = self.pages.iter().chain(&self.groups);
        let crcs: Vec<u8> = crcs.flat_map(|crc| crc.to_le_bytes()).collect();
        let head = RawTable {
            magic: MAGIC,
            format_version: U32::new(VERSION),
            length: U32::new((size_of::<RawTable>() + crcs.len() + CRC_LEN) as u32),
            log_id: *log_id,
            base: U64::new(base.get()),
            epoch: U64::new(self.epoch),
            roll_up: U32::new(self.roll_up),
            pages: U32::new(self.pages.len() as u32),
            groups: U32::new(self.groups.len() as u32),
            reserved: U32::ZERO,
        };
        let mut bytes = [head.as_bytes(), &crcs].concat();
        bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE as usize), 0);
        bytes
    }

    /// The table of the segment at `base`, if `bytes` hold it; else why they do not.
    pub(crate) fn verify(
        bytes: &[u8],
        log_id: &LogId,
        places: &ParityPlaces,
        base: Lsn,
    ) -> Result<ParityTable, &'static str> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err("there is no table");
        }
        let Ok((head, _)) = RawTable::read_from_prefix(bytes) else {
            return Err("the table is cut short");
        };
        if head.magic != MAGIC {
            return Err("the table is damaged: it does not begin as one");
        }
        if head.format_version.get() != VERSION {
            return Err("the table is of a version that this build does not know");
        }
        let fits = head.length.get() as usize == places.table_len()
            && (head.pages.get(), head.groups.get()) == (places.pages(), places.groups());
        let Some((table, _)) = bytes.split_at_checked(places.table_len()).filter(|_| fits) else {
            return Err("the table is of segments of another size, or damaged");
        };
        let (table, crc) = table.split_at(table.len() - CRC_LEN);
        if crc != crc32(table).to_le_bytes() {
            return Err("the table is damaged: its checksum does not match its bytes");
        }
        if head.log_id != *log_id || head.base.get() != base.get() {
            return Err("the table is of another segment, from an earlier lap or another log");
        }
        let (crcs, _) = table[size_of::<RawTable>()..].as_chunks();
        let crcs: Vec<u32> = crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
        let (pages, groups) = crcs.split_at(places.pages() as usize);
        let (pages, groups) = (pages.to_vec(), groups.to_vec());
        let (epoch, roll_up) = (head.epoch.get(), head.roll_up.get());
        Ok(ParityTable { epoch, roll_up, pages, groups })
    }
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawTable {
    magic,
    format_version,
    length,
    log_id,
    base,
    epoch,
    roll_up,
    pages,
    groups,
    reserved
});

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_ID: LogId = [5; 16];

    fn places(segments: u64, segment_size: u64) -> ParityPlaces {
        let geometry = Geometry::checked(segments * segment_size, segment_size, 3 * PAGE_SIZE);
        ParityPlaces::new(geometry.expect("in bounds"))
    }

    fn table(places: &ParityPlaces) -> ParityTable {
        let pages = (0..places.pages()).map(|page| page * 7 + 1).collect();
        let groups = (0..places.groups()).map(|group| group * 11 + 3).collect();
        ParityTable { epoch: 3, roll_up: 99, pages, groups }
    }

    #[test]
    fn a_table_says_what_was_put_in_and_no_flipped_bit_passes() {
        for size in [8192, 64 << 10, 512 << 10] {
            let places = places(3, size);
            let (table, base) = (table(&places), Lsn::new(7 * size));
            let bytes = table.encode(&LOG_ID, base);
            assert!(bytes.len().is_multiple_of(4096) && bytes.len() - places.table_len() < 4096);
            let verify = |bytes: &[u8]| ParityTable::verify(bytes, &LOG_ID, &places, base);
            assert_eq!(verify(&bytes).as_ref(), Ok(&table));
            assert_eq!(verify(&bytes[..places.table_len()]).as_ref(), Ok(&table));
            for bit in 0..places.table_len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(verify(&damaged).is_err(), "bit {bit}");
            }
            for len in [0, 1, 63, 64, places.table_len() - 1] {
                assert!(verify(&bytes[..len]).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn a_table_of_another_place_does_not_count_and_says_why() {
        let places = places(3, 64 << 10);
        let (bytes, base) = (table(&places).encode(&LOG_ID, Lsn::ZERO), Lsn::ZERO);
        let refused = |bytes: &[u8], log_id, places: &ParityPlaces, base| {
            ParityTable::verify(bytes, log_id, places, base).expect_err("it does not count")
        };
        assert!(refused(&bytes, &[6; 16], &places, base).contains("another log"));
        let next = Lsn::new(3 * (64 << 10));
        assert!(refused(&bytes, &LOG_ID, &places, next).contains("earlier lap"));
        let wider = self::places(3, 128 << 10);
        assert!(refused(&bytes, &LOG_ID, &wider, base).contains("another size"));
        assert_eq!(refused(&[0; 4096], &LOG_ID, &places, base), "there is no table");
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert!(refused(&newer, &LOG_ID, &places, base).contains("version"));
    }

    /// Each page is in one group of at most 64, and neighbours are in different ones if there are
    /// several; the areas tile the file.
    #[test]
    fn pages_are_dealt_out_and_areas_tile_the_file() {
        for size in [8192_u64, 64 << 10, 260 << 10, 264 << 10, 1 << 20, 16 << 20] {
            let places = places(5, size);
            let mut pages = vec![0; places.pages() as usize];
            assert_eq!(pages.len() as u64, size / 4096 - 1);
            for group in 0..places.groups() {
                assert!(places.pages_of(group).count() <= GROUP_PAGES as usize);
                for page in places.pages_of(group) {
                    assert_eq!(places.group_of(page), group);
                    pages[page as usize] += 1;
                }
            }
            assert!(pages.iter().all(|count| *count == 1), "{size}");
            let mut end = 0;
            for sequence in 10..15 {
                assert_eq!(places.table_offset(sequence), end);
                end += (places.table_len() as u64).next_multiple_of(4096);
                for group in 0..places.groups() {
                    assert_eq!(places.parity_offset(sequence, group), end);
                    end += 4096;
                }
            }
            assert_eq!(end, places.file_len());
        }
        let share = |size: u64| places(4, size).file_len() as f64 / (4 * size) as f64;
        assert!(share(16 << 20) < 0.0175 && share(1 << 30) < 0.0167, "{}", share(16 << 20));
    }
}
