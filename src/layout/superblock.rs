//! The superblock: page 0, written once when the log is created.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{FORMAT_VERSION, LogId};
use crate::checksum::crc32;
use crate::geometry::{Geometry, PAGE_SIZE, RECORD_ALIGN};

/// First bytes of every ring file.
pub(crate) const MAGIC: [u8; 8] = *b"KAELIXWL";

/// The superblock's bytes; the rest of the page is zero.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    magic: [u8; 8],
    format_version: U32,
    header_len: U32,
    /// Features that a reader may ignore.
    features_optional: U64,
    /// Features that a reader must understand.
    features_required: U64,
    log_id: LogId,
    segment_size: U64,
    segments: U32,
    record_align: U32,
    data_offset: U64,
    /// Unix time of creation in milliseconds: for people, never for decisions.
    created_unix_ms: U64,
    reserved: [u8; 44],
    crc: U32,
}

const_assert_eq!(size_of::<RawSuperblock>(), 128);
const_assert_eq!(offset_of!(RawSuperblock, format_version), 8);
const_assert_eq!(offset_of!(RawSuperblock, header_len), 12);
const_assert_eq!(offset_of!(RawSuperblock, features_optional), 16);
const_assert_eq!(offset_of!(RawSuperblock, features_required), 24);
const_assert_eq!(offset_of!(RawSuperblock, log_id), 32);
const_assert_eq!(offset_of!(RawSuperblock, segment_size), 48);
const_assert_eq!(offset_of!(RawSuperblock, segments), 56);
const_assert_eq!(offset_of!(RawSuperblock, record_align), 60);
const_assert_eq!(offset_of!(RawSuperblock, data_offset), 64);
const_assert_eq!(offset_of!(RawSuperblock, created_unix_ms), 72);
const_assert_eq!(offset_of!(RawSuperblock, reserved), 80);
const_assert_eq!(offset_of!(RawSuperblock, crc), 124);

/// A verified superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) log_id: LogId,
    pub(crate) geometry: Geometry,
    pub(crate) created_unix_ms: u64,
}

/// Why a first page is not the superblock of a log that this build can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockFault {
    /// Not a log, or damaged.
    NotALog(&'static str),
    /// Another format version.
    Version(u32),
    /// Must-understand features that this build does not know.
    Features(u64),
}

impl Superblock {
    /// The page to write.
    pub(crate) fn encode(&self) -> Box<[u8]> {
        let mut raw = RawSuperblock {
            magic: MAGIC,
            format_version: U32::new(FORMAT_VERSION),
            header_len: U32::new(size_of::<RawSuperblock>() as u32),
            features_optional: U64::ZERO,
            features_required: U64::ZERO,
            log_id: self.log_id,
            segment_size: U64::new(self.geometry.segment_size()),
            segments: U32::new(self.geometry.segments()),
            record_align: U32::new(RECORD_ALIGN as u32),
            data_offset: U64::new(self.geometry.data_offset()),
            created_unix_ms: U64::new(self.created_unix_ms),
            reserved: [0; 44],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(crc32(&raw.as_bytes()[..offset_of!(RawSuperblock, crc)]));
        let mut page = vec![0; PAGE_SIZE as usize].into_boxed_slice();
        page[..size_of::<RawSuperblock>()].copy_from_slice(raw.as_bytes());
        page
    }

    /// Believes `page` only if everything in it can be right. The version comes before the
    /// checksum, since another version may place its checksum elsewhere.
    pub(crate) fn verify(page: &[u8]) -> Result<Superblock, SuperblockFault> {
        use SuperblockFault::NotALog;
        let Ok((raw, _)) = RawSuperblock::read_from_prefix(page) else {
            return Err(NotALog("the file is too short"));
        };
        if raw.magic != MAGIC {
            return Err(NotALog("the magic number is not there"));
        }
        if raw.format_version.get() != FORMAT_VERSION {
            return Err(SuperblockFault::Version(raw.format_version.get()));
        }
        if raw.crc.get() != crc32(&raw.as_bytes()[..offset_of!(RawSuperblock, crc)]) {
            return Err(NotALog("the superblock's checksum does not match"));
        }
        if raw.features_required.get() != 0 {
            return Err(SuperblockFault::Features(raw.features_required.get()));
        }
        if u64::from(raw.record_align.get()) != RECORD_ALIGN {
            return Err(NotALog("the superblock's record alignment is not 16"));
        }
        if raw.header_len.get() as usize != size_of::<RawSuperblock>() {
            return Err(NotALog("the superblock's length field is not 128"));
        }
        let segment_size = raw.segment_size.get();
        let size = segment_size
            .checked_mul(u64::from(raw.segments.get()))
            .ok_or(NotALog("the superblock's geometry overflows"))?;
        let geometry = Geometry::checked(size, segment_size.max(1), raw.data_offset.get())
            .map_err(|_| NotALog("the superblock's geometry is out of bounds"))?;
        Ok(Superblock { log_id: raw.log_id, geometry, created_unix_ms: raw.created_unix_ms.get() })
    }
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawSuperblock {
    magic,
    format_version,
    header_len,
    features_optional,
    features_required,
    log_id,
    segment_size,
    segments,
    record_align,
    data_offset,
    created_unix_ms,
    reserved,
    crc
});

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            log_id: *b"0123456789abcdef",
            geometry: Geometry::default(),
            created_unix_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn verifies_what_it_encodes() {
        assert_eq!(Superblock::verify(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let page = sample().encode();
        for bit in 0..size_of::<RawSuperblock>() * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::verify(&damaged).is_err(), "bit {bit}");
        }
    }

    fn resealed(change: impl FnOnce(&mut RawSuperblock)) -> Result<Superblock, SuperblockFault> {
        let page = sample().encode();
        let (mut raw, _) = RawSuperblock::read_from_prefix(&page).expect("a page is long enough");
        change(&mut raw);
        raw.crc = U32::new(crc32(&raw.as_bytes()[..offset_of!(RawSuperblock, crc)]));
        Superblock::verify(raw.as_bytes())
    }

    /// Fields with a good checksum are still not believed before they are checked.
    #[test]
    fn impossible_fields_are_refused() {
        assert!(resealed(|_| ()).is_ok());
        assert_eq!(
            resealed(|raw| raw.features_required = U64::new(8)),
            Err(SuperblockFault::Features(8))
        );
        assert_eq!(
            resealed(|raw| raw.format_version = U32::new(9)),
            Err(SuperblockFault::Version(9))
        );
        let faults: [fn(&mut RawSuperblock); 7] = [
            |raw| raw.segments = U32::ZERO,
            |raw| raw.segments = U32::new(1),
            |raw| raw.segment_size = U64::ZERO,
            |raw| raw.segment_size = U64::new(u64::MAX),
            |raw| raw.segment_size = U64::new(4096),
            |raw| raw.data_offset = U64::new(1 << 60),
            |raw| raw.record_align = U32::new(8),
        ];
        for fault in faults {
            assert!(matches!(resealed(fault), Err(SuperblockFault::NotALog(_))));
        }
        assert!(Superblock::verify(&[]).is_err());
    }
}
