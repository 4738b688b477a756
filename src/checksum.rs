//! The record checksum: what makes bytes of another lap, file or incarnation worthless.
//!
//! 1. A CRC-32 (IEEE, reflected, as in zlib) runs over the payload, started from a state that
//!    depends on the log id and the full epoch (`Seed`), on the record's tag (stream, kind, flags,
//!    epoch) and on its length. Each of these 32-bit fields enters by a bijection, so damage that
//!    stays within one of them, or within 32 neighbouring bits of the payload, is always noticed;
//!    any other damage with probability 1 - 2^-32.
//! 2. Everything of rule 1 is known before the record has a place in the log, so an append can
//!    checksum the caller's bytes *before* it claims space: the claim's locked instruction waits
//!    for earlier stores to drain, and the checksum fills that time.
//! 3. The LSN is known only after the claim. It is folded in last, by one multiplication.

use crate::lsn::Lsn;

/// Odd constants (from the golden ratio and the fractional parts of square roots): multiplying by
/// an odd number is a bijection of the 32-bit words.
const STREAM_MIX: u32 = 0x9E37_79B1;
const KIND_MIX: u32 = 0x85EB_CA77;
const LEN_MIX: u32 = 0xC2B2_AE3D;
const LSN_MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a log and its epoch contribute to each checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    /// The seed of the records that epoch `epoch` of the log `log_id` writes.
    pub(crate) fn new(log_id: &[u8; 16], epoch: u64) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(log_id);
        hasher.update(&epoch.to_le_bytes());
        Seed(hasher.finalize())
    }

    /// What all records with this tag have in common.
    #[inline]
    pub(crate) fn for_tag(self, tag: u64) -> TagSeed {
        self.for_kind((tag >> 32) as u32).for_number(tag as u32)
    }

    /// What all records have in common whose tags have these high bits.
    #[inline]
    pub(crate) fn for_kind(self, high: u32) -> KindSeed {
        KindSeed(self.0 ^ high.wrapping_mul(KIND_MIX).rotate_left(15))
    }

    /// Starts the checksum of a record with this tag and this length (header included, bytes).
    #[inline]
    pub(crate) fn start(self, tag: u64, record_len: u32) -> RecordChecksum {
        self.for_tag(tag).start(record_len)
    }
}

/// A seed with the high bits of a record's tag folded in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KindSeed(u32);

impl KindSeed {
    /// What all records have in common whose tags have these low bits, too.
    #[inline]
    pub(crate) fn for_number(self, number: u32) -> TagSeed {
        TagSeed(self.0 ^ number.wrapping_mul(STREAM_MIX))
    }
}

/// A seed with a record's tag folded in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TagSeed(u32);

impl TagSeed {
    /// Starts the checksum of a record of this length (header included, bytes).
    #[inline]
    pub(crate) fn start(self, record_len: u32) -> RecordChecksum {
        RecordChecksum(self.0 ^ record_len.wrapping_mul(LEN_MIX).rotate_left(7))
    }
}

/// A record's checksum under way: payload bytes go in, the LSN completes it. One word, so that it
/// stays in a register while the claim is made.
#[derive(Clone, Copy)]
pub(crate) struct RecordChecksum(u32);

impl RecordChecksum {
    /// Adds payload bytes.
    #[inline]
    pub(crate) fn update(&mut self, payload: &[u8]) {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(payload);
        self.0 = hasher.finalize();
    }

    /// The checksum, for a record that starts at `lsn`.
    #[inline]
    pub(crate) fn finish(self, lsn: Lsn) -> u32 {
        self.0 ^ fold_lsn(lsn)
    }
}

/// Positions are multiples of 16; laps differ by the ring's capacity, often a power of two. The
/// shift brings high bits down before the multiplication spreads them.
#[inline]
fn fold_lsn(lsn: Lsn) -> u32 {
    let position = lsn.get() >> 4;
    ((position ^ (position >> 29)).wrapping_mul(LSN_MIX) >> 32) as u32
}

/// CRC-32 of a whole structure (superblock, checkpoint slot, segment header, footer).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// How many words are gathered before they are added: short inputs would cost more than they hold.
const GATHERED: usize = 64;

/// CRC-32 of a long row of 8-byte words, little-endian.
#[derive(Clone)]
pub(crate) struct WordsCrc32 {
    hasher: crc32fast::Hasher,
    gathered: [[u8; 8]; GATHERED],
    len: usize,
}

impl WordsCrc32 {
    pub(crate) fn new() -> WordsCrc32 {
        WordsCrc32 { hasher: crc32fast::Hasher::new(), gathered: [[0; 8]; GATHERED], len: 0 }
    }

    #[inline]
    pub(crate) fn add(&mut self, word: u64) {
        self.gathered[self.len] = word.to_le_bytes();
        self.len += 1;
        if self.len == GATHERED {
            self.hasher.update(self.gathered.as_flattened());
            self.len = 0;
        }
    }

    pub(crate) fn finish(mut self) -> u32 {
        self.hasher.update(self.gathered[..self.len].as_flattened());
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(seed: Seed, tag: u64, payload: &[u8], lsn: u64) -> u32 {
        let mut checksum = seed.start(tag, payload.len() as u32 + 16);
        checksum.update(payload);
        checksum.finish(Lsn::new(lsn))
    }

    /// Every single-bit change of every input changes the checksum.
    #[test]
    fn each_bit_counts() {
        let id = [7_u8; 16];
        let seed = Seed::new(&id, 3);
        let payload = *b"the quick brown fox jumps over..";
        let want = sum(seed, 0x0003_0001_0000_002A, &payload, 4096);
        for bit in 0..64 {
            assert_ne!(want, sum(seed, 0x0003_0001_0000_002A ^ (1 << bit), &payload, 4096));
            assert_ne!(Seed::new(&id, 3 ^ (1 << bit)), seed);
        }
        for bit in 4..62 {
            let lsn = 4096 ^ (1_u64 << bit);
            assert_ne!(want, sum(seed, 0x0003_0001_0000_002A, &payload, lsn), "LSN bit {bit}");
        }
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(want, sum(seed, 0x0003_0001_0000_002A, &flipped, 4096));
        }
    }

    /// The same bytes one to 100,000 laps later never carry the same checksum.
    #[test]
    fn laps_differ() {
        for capacity in [1_u64 << 18, 1 << 22, 3 << 23, 1 << 28, 1 << 30, 1 << 36] {
            let first = fold_lsn(Lsn::new(64));
            for lap in 1..100_000 {
                assert_ne!(first, fold_lsn(Lsn::new(64 + lap * capacity)), "{capacity} lap {lap}");
            }
        }
    }
}
