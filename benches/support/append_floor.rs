//! The floor of an append: the least that any log of this kind has to do.
//!
//! It is the bare work of one append: checksum, claim by `fetch_add`, copy, 16-byte
//! header, release store, into a prefaulted mapped ring of the same size, with as many producers
//! and nobody reading. It does not know whether it overwrites, never waits, and nothing could be
//! recovered from it. With `zeroing`, a second thread zeroes as many bytes as are appended, which
//! any log must do that hands out clean space.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;

use super::written_file;

/// How much the zeroing thread does at a time.
const PIECE: u64 = 16 << 20;

/// A prefaulted mapped ring.
pub struct FloorRing {
    map: MmapRaw,
    size: u64,
    tail: crossbeam_utils::CachePadded<AtomicU64>,
}

impl FloorRing {
    /// A ring of `size` bytes (a power of two) in a new file in `dir`.
    pub fn new(dir: &Path, size: u64) -> std::io::Result<FloorRing> {
        let file = written_file(dir, size)?;
        Ok(FloorRing::on(memmap2::MmapOptions::new().map_raw(&file)?))
    }

    /// A ring of `size` bytes (a power of two) in memory of its own.
    pub fn private(size: u64) -> std::io::Result<FloorRing> {
        Ok(FloorRing::on(memmap2::MmapMut::map_anon(size as usize)?.into()))
    }

    fn on(map: MmapRaw) -> FloorRing {
        let size = map.len() as u64;
        assert!(size.is_power_of_two());
        // SAFETY: the mapping is `size` bytes long, writable, and not shared with anyone yet.
        unsafe { std::ptr::write_bytes(map.as_mut_ptr(), 0, size as usize) };
        FloorRing { map, size, tail: crossbeam_utils::CachePadded::new(AtomicU64::new(0)) }
    }

    /// One append of the floor.
    #[inline]
    pub fn append(&self, payload: &[u8]) -> u64 {
        let len = (16 + payload.len() as u64).next_multiple_of(16);
        let crc = crc32fast::hash(payload);
        let at = self.tail.fetch_add(len, Ordering::AcqRel);
        let mut offset = at & (self.size - 1);
        if offset + len > self.size {
            offset = 0;
        }
        self.write(offset, payload, crc, len, at);
        at
    }

    /// Copies payload and header to `offset`, then stores the commit word.
    #[inline]
    fn write(&self, offset: u64, payload: &[u8], crc: u32, len: u64, at: u64) {
        // SAFETY: `offset + len` lies in the mapping, and so does all that is computed from it.
        let record = unsafe { self.map.as_mut_ptr().add(offset as usize) };
        // SAFETY: as above; 16 header bytes come first.
        let target = unsafe { record.add(16) };
        // SAFETY: claims of different laps may overlap, but the floor does not look at its bytes,
        // which is why it is only a floor; `payload` is not in the mapping.
        unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), target, payload.len()) };
        // SAFETY: in the mapping.
        let tag = unsafe { record.add(8) }.cast::<u64>();
        // SAFETY: in the mapping and aligned to 8, as the offset is to 16.
        unsafe { tag.write(at) };
        // SAFETY: in the mapping, aligned, and accessed as an atomic only, but for the zeroing.
        let word = unsafe { AtomicU64::from_ptr(record.cast()) };
        word.store(u64::from(crc) << 32 | len, Ordering::Release);
    }

    /// Runs `work` while a second thread zeroes as many bytes as it appends; returns the time until
    /// both are done. Producers do not wait for it, as those of a log must.
    pub fn with_zeroing(&self, work: impl FnOnce()) -> Duration {
        let stop = AtomicBool::new(false);
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut zeroed = self.tail.load(Ordering::Relaxed);
                loop {
                    let stopped = stop.load(Ordering::Acquire);
                    if self.tail.load(Ordering::Relaxed) < zeroed + PIECE {
                        if stopped {
                            return;
                        }
                        std::thread::sleep(Duration::from_micros(50));
                        continue;
                    }
                    // Half a ring ahead, out of the producers' way.
                    let offset = (zeroed + self.size / 2) & (self.size - 1) & !(PIECE - 1);
                    // SAFETY: the piece lies in the mapping.
                    let start = unsafe { self.map.as_mut_ptr().add(offset as usize) };
                    // SAFETY: as above; as in `write`, nobody looks at the bytes.
                    unsafe { std::ptr::write_bytes(start, 0, PIECE as usize) };
                    zeroed += PIECE;
                }
            });
            work();
            stop.store(true, Ordering::Release);
        });
        start.elapsed()
    }
}
