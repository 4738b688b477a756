//! The footer: what a sealed segment holds, in its last page.
//!
//! 1. It is written when everything below the segment's end is durable, and never before. So a
//!    footer that verifies is proof of that, whatever else a crash has left.
//! 2. It sums up the segment's commit words, each of which holds a record's length and checksum.
//!    Records that verify one by one, and are not those that were there, do not agree with it.
//! 3. It may be missing: it is synced together with what follows, and a crash comes when it likes.
//! 4. Behind it, in the same page, lies the list of the segment's [`producers`](super::producers).

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::producers::ProducersDigest;
use super::record::WordState;
use super::{CommitWord, Identity, LogId, Tag};
use crate::checksum::{WordsCrc32, crc32};
use crate::geometry::RECORD_HEADER_LEN;
use crate::lsn::Lsn;

const MAGIC: [u8; 8] = *b"KAELIXFT";

/// Size of a footer; the rest of its page is the list of producers, and then zero.
pub(crate) const FOOTER_LEN: usize = size_of::<RawFooter>();

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawFooter {
    magic: [u8; 8],
    base: U64,
    epoch: U64,
    log_id: LogId,
    first: U64,
    last: U64,
    records: U64,
    payload_bytes: U64,
    producers: U32,
    producers_crc: U32,
    reserved: [u8; 40],
    roll_up: U32,
    crc: U32,
}

const_assert_eq!(size_of::<RawFooter>(), 128);
const_assert_eq!(offset_of!(RawFooter, base), 8);
const_assert_eq!(offset_of!(RawFooter, epoch), 16);
const_assert_eq!(offset_of!(RawFooter, log_id), 24);
const_assert_eq!(offset_of!(RawFooter, first), 40);
const_assert_eq!(offset_of!(RawFooter, last), 48);
const_assert_eq!(offset_of!(RawFooter, records), 56);
const_assert_eq!(offset_of!(RawFooter, payload_bytes), 64);
const_assert_eq!(offset_of!(RawFooter, producers), 72);
const_assert_eq!(offset_of!(RawFooter, producers_crc), 76);
const_assert_eq!(offset_of!(RawFooter, reserved), 80);
const_assert_eq!(offset_of!(RawFooter, roll_up), 120);
const_assert_eq!(offset_of!(RawFooter, crc), 124);

/// What the records of a whole segment add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The first of the callers' records; `Lsn::ZERO`, where no record can be, if there is none.
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Callers' records.
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    /// CRC-32 of all commit words in order, the log's own records' included.
    pub(crate) roll_up: u32,
}

/// A footer that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// The epoch that wrote it.
    pub(crate) epoch: u64,
    pub(crate) contents: Contents,
    /// What it says of the list behind it, which is not verified yet.
    pub(crate) producers: ProducersDigest,
}

/// Adds up a segment's records, from the first to the last.
#[derive(Clone)]
pub(crate) struct Tally {
    contents: Contents,
    roll_up: WordsCrc32,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { contents: Contents::default(), roll_up: WordsCrc32::new() }
    }

    /// Adds the committed record at `lsn`.
    #[inline]
    pub(crate) fn add(&mut self, lsn: Lsn, word: CommitWord, tag: Tag) {
        self.roll_up.add(word.bits());
        if let (true, WordState::Committed(len)) = (tag.is_callers(), word.state(u32::MAX)) {
            let contents = &mut self.contents;
            if contents.records == 0 {
                contents.first = lsn;
            }
            contents.last = lsn;
            contents.records += 1;
            contents.payload_bytes += u64::from(len) - RECORD_HEADER_LEN as u64;
        }
    }

    /// Callers' records so far, and their payload in bytes.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.contents.records, self.contents.payload_bytes)
    }

    pub(crate) fn finish(self) -> Contents {
        Contents { roll_up: self.roll_up.finish(), ..self.contents }
    }
}

impl Footer {
    /// The bytes to write at the start of the footer page of the segment at `base`.
    pub(crate) fn encode(
        contents: &Contents,
        producers: ProducersDigest,
        identity: &Identity,
        base: Lsn,
    ) -> [u8; FOOTER_LEN] {
        let mut raw = RawFooter {
            magic: MAGIC,
            base: U64::new(base.get()),
            epoch: U64::new(identity.epoch),
            log_id: identity.log_id,
            first: U64::new(contents.first.get()),
            last: U64::new(contents.last.get()),
            records: U64::new(contents.records),
            payload_bytes: U64::new(contents.payload_bytes),
            producers: U32::new(producers.count),
            producers_crc: U32::new(producers.crc),
            reserved: [0; 40],
            roll_up: U32::new(contents.roll_up),
            crc: U32::ZERO,
        };
        raw.crc = U32::new(crc32(&raw.as_bytes()[..offset_of!(RawFooter, crc)]));
        zerocopy::transmute!(raw)
    }

    /// The footer of the segment at `base`, if `bytes` hold it.
    pub(crate) fn verify(bytes: &[u8], log_id: &LogId, base: Lsn) -> Option<Footer> {
        let (raw, _) = RawFooter::read_from_prefix(bytes).ok()?;
        let crc = crc32(&raw.as_bytes()[..offset_of!(RawFooter, crc)]);
        let ours = raw.magic == MAGIC && raw.log_id == *log_id && raw.base.get() == base.get();
        (ours && raw.crc.get() == crc).then(|| Footer {
            epoch: raw.epoch.get(),
            contents: Contents {
                first: Lsn::new(raw.first.get()),
                last: Lsn::new(raw.last.get()),
                records: raw.records.get(),
                payload_bytes: raw.payload_bytes.get(),
                roll_up: raw.roll_up.get(),
            },
            producers: ProducersDigest { count: raw.producers.get(), crc: raw.producers_crc.get() },
        })
    }
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawFooter {
    magic,
    base,
    epoch,
    log_id,
    first,
    last,
    records,
    payload_bytes,
    producers,
    producers_crc,
    reserved,
    roll_up,
    crc
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RecordKind;

    const IDENTITY: Identity = Identity { log_id: [5; 16], epoch: 3 };

    fn data(len: u32, crc: u32) -> (CommitWord, Tag) {
        (CommitWord::committed(len, crc), Tag::new(0, RecordKind::Data, 0, 3))
    }

    #[test]
    fn a_footer_says_what_was_put_in_and_no_flipped_bit_passes() {
        let base = Lsn::new(7 * 8192);
        let mut tally = Tally::new();
        let (word, tag) = data(20, 77);
        tally.add(base + 64, word, tag);
        let pad = Tag::new(0, RecordKind::Pad, 0, 3);
        tally.add(base + 96, CommitWord::committed(48, 1), pad);
        let (word, tag) = data(16, 78);
        tally.add(base + 144, word, tag);
        let contents = tally.finish();
        assert_eq!((contents.records, contents.payload_bytes), (2, 4));
        assert_eq!((contents.first, contents.last), (base + 64, base + 144));
        let words = [data(20, 77).0, CommitWord::committed(48, 1), data(16, 78).0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.bits().to_le_bytes()).collect();
        assert_eq!(contents.roll_up, crc32(&bytes));

        let producers = ProducersDigest { count: 4, crc: 99 };
        let bytes = Footer::encode(&contents, producers, &IDENTITY, base);
        let verify = |bytes: &[u8]| Footer::verify(bytes, &IDENTITY.log_id, base);
        assert_eq!(verify(&bytes), Some(Footer { epoch: 3, contents, producers }));
        assert_eq!(verify(&bytes[..127]), None);
        assert_eq!(verify(&[0; 128]), None);
        assert_eq!(Footer::verify(&bytes, &[6; 16], base), None);
        assert_eq!(Footer::verify(&bytes, &IDENTITY.log_id, base + 8192), None);
        for bit in 0..FOOTER_LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn the_roll_up_tells_orders_apart() {
        let roll_up = |words: &[u32]| {
            let mut tally = Tally::new();
            for (at, crc) in words.iter().enumerate() {
                let (word, tag) = data(32, *crc);
                tally.add(Lsn::new(64 + 32 * at as u64), word, tag);
            }
            tally.finish().roll_up
        };
        assert_ne!(roll_up(&[1, 2]), roll_up(&[2, 1]));
        assert_ne!(roll_up(&[1, 2]), roll_up(&[1]));
        assert_ne!(roll_up(&[]), roll_up(&[0]));
        // More words than are gathered at a time.
        let many: Vec<u32> = (0..1000).collect();
        let bytes: Vec<u8> =
            many.iter().flat_map(|crc| data(32, *crc).0.bits().to_le_bytes()).collect();
        assert_eq!(roll_up(&many), crc32(&bytes));
    }
}
