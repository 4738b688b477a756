//! An append taken apart: each step does what the one before does, and one thing more. The last
//! step is the floor.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Room for the header in front of a payload.
const HEADER_LEN: usize = 16;

/// A ring in memory of one's own, and a position in it.
pub struct Parts {
    ring: Box<[u8]>,
    at: usize,
    shared: CachePadded<AtomicU64>,
}

impl Parts {
    /// A ring of `size` bytes, a power of two, all of it touched.
    pub fn new(size: u64) -> Parts {
        let shared = CachePadded::new(AtomicU64::new(0));
        Parts { ring: vec![1; size as usize].into(), at: 0, shared }
    }

    /// The payload is copied, and nothing else.
    #[inline]
    pub fn copy(&mut self, payload: &[u8]) {
        let at = self.at;
        self.at += record_len(payload);
        self.copy_to(at, payload);
    }

    /// The place is claimed from a counter that threads could share.
    #[inline]
    pub fn claim_and_copy(&mut self, payload: &[u8]) {
        let at = self.shared.fetch_add(record_len(payload) as u64, Ordering::AcqRel);
        self.copy_to(at as usize, payload);
    }

    /// The payload is checksummed before.
    #[inline]
    pub fn check_claim_and_copy(&mut self, payload: &[u8]) {
        black_box(crc32fast::hash(payload));
        self.claim_and_copy(payload);
    }

    #[inline]
    fn copy_to(&mut self, at: usize, payload: &[u8]) {
        let mut offset = at & (self.ring.len() - 1);
        if offset + record_len(payload) > self.ring.len() {
            offset = 0;
        }
        let from = offset + HEADER_LEN;
        self.ring[from..from + payload.len()].copy_from_slice(payload);
    }
}

#[inline]
fn record_len(payload: &[u8]) -> usize {
    (HEADER_LEN + payload.len()).next_multiple_of(16)
}
