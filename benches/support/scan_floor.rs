//! The floor of reading: walking or visiting records in memory, and nothing but checking each.

use std::hint::black_box;

/// Records of one length, one behind the other, each with length and checksum in front.
pub struct ScanFloor {
    bytes: Vec<u8>,
    record_len: usize,
}

const HEADER_LEN: usize = 16;

impl ScanFloor {
    /// As many records of `payload_len` bytes as take `total` bytes.
    pub fn new(payload_len: usize, total: usize) -> ScanFloor {
        let payload = vec![0xA5; payload_len];
        let record_len = (HEADER_LEN + payload_len).next_multiple_of(16);
        let mut bytes = Vec::with_capacity(total);
        while bytes.len() + record_len <= total {
            bytes.extend_from_slice(&(payload_len as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
            bytes.resize(bytes.len() + 8, 0);
            bytes.extend_from_slice(&payload);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        ScanFloor { bytes, record_len }
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.bytes.len() / self.record_len
    }

    /// Checks the record at this place.
    #[inline]
    pub fn visit(&self, place: usize) {
        let record = &self.bytes[place * self.record_len..];
        let word = u64::from_le_bytes(record[..8].try_into().expect("8 bytes"));
        let (len, crc) = (word as u32 as usize, (word >> 32) as u32);
        let payload = black_box(&record[HEADER_LEN..HEADER_LEN + len]);
        assert_eq!(crc32fast::hash(payload), crc, "nobody writes here");
    }

    /// Checks all records; returns how many there are.
    pub fn scan(&self) -> u64 {
        let (mut rest, mut records) = (black_box(&self.bytes[..]), 0);
        while let Some((header, behind)) = rest.split_at_checked(HEADER_LEN) {
            let word = u64::from_le_bytes(header[..8].try_into().expect("8 bytes"));
            let (len, crc) = (word as u32 as usize, (word >> 32) as u32);
            assert_eq!(crc32fast::hash(&behind[..len]), crc, "nobody writes here");
            rest = &behind[len.next_multiple_of(16)..];
            records += 1;
        }
        records
    }
}
