//! A second reader of the format, from `docs/format.md` alone: slow, plain, and of whole images.

use std::ops::Range;

use crate::format::{
    BATCH, CONTROL, CONTROL_DURABLE, CONTROL_EPOCH, DATA, FIRST_RECORD, FOOTER_LEN, FOOTER_SUMS,
    HEADER_LEN, MOVED, ORIGIN_LEN, PAD, PAGE, SLOT_LEN, SLOTS, STAMP_LEN, STAMPED, SUPERBLOCK, put,
    record_crc, u32_at, u64_at,
};

/// A log's head: what "Reading a log" verifies first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub log_id: [u8; 16],
    pub segment_size: u64,
    pub segments: u64,
    pub data_offset: u64,
    pub slot: Slot,
}

/// The checkpoint slot that counts. Positions are as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub index: usize,
    pub generation: u64,
    pub epoch: u64,
    pub epoch_start: u64,
    pub trimmed: u64,
    pub durable: u64,
    pub boot_id: [u8; 16],
    pub file_identity: u64,
    pub clean: bool,
    pub poisoned: bool,
}

/// A record that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub lsn: u64,
    /// Where it ends, rounded up.
    pub end: u64,
    pub epoch: u64,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// Where its payload lies in the image.
    pub payload: Range<usize>,
}

impl Found {
    /// A caller's: data or a batch.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        [DATA, BATCH].contains(&self.kind)
    }

    /// Is it shown to whoever reads from `start`, the oldest position, on? One that was moved is
    /// not while what it was copied from is there.
    #[must_use]
    pub fn is_shown(&self, image: &[u8], start: u64) -> bool {
        let previous = self.payload.start + 8;
        (self.kind, self.flags) != (DATA, MOVED) || u64_at(image, previous) < start
    }

    /// Where the caller's part of its payload lies in the image.
    #[must_use]
    pub fn body(&self) -> Range<usize> {
        let before = match (self.kind, self.flags) {
            (DATA | BATCH, STAMPED) => STAMP_LEN,
            (DATA, MOVED) => ORIGIN_LEN,
            _ => 0,
        };
        self.payload.start + before as usize..self.payload.end
    }

    /// The position that a sync's evidence says was durable.
    #[must_use]
    pub fn proves(&self) -> Option<u64> {
        let evidence = self.kind == CONTROL && self.flags == CONTROL_DURABLE;
        evidence.then(|| self.lsn.saturating_sub(u64::from(self.stream) * 16))
    }
}

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    pub records: Vec<Found>,
    /// Where the next record would be.
    pub end: u64,
    /// The first position of a segment that was walked whole and is not what its footer says.
    pub disagrees: Option<u64>,
}

/// The superblock's log id, segment size, number of segments, and data offset.
#[must_use]
pub fn superblock(page: &[u8]) -> Option<([u8; 16], u64, u64, u64)> {
    let raw = page.get(SUPERBLOCK)?;
    let crc = crc32fast::hash(&raw[..124]);
    let is_right = raw.starts_with(b"KAELIXWL")
        && u32_at(raw, 8) == 1
        && u32_at(raw, 124) == crc
        && u64_at(raw, 24) == 0
        && u32_at(raw, 12) == 128
        && u32_at(raw, 60) == 16;
    let (size, segments) = (u64_at(raw, 48), u64::from(u32_at(raw, 56)));
    let data_offset = u64_at(raw, 64);
    let is_possible = size.is_multiple_of(4096)
        && (8192..=1 << 30).contains(&size)
        && segments >= 2
        && data_offset.is_multiple_of(4096)
        && (12288..=2_097_152).contains(&data_offset);
    let log_id = *raw[32..].first_chunk()?;
    (is_right && is_possible).then_some((log_id, size, segments, data_offset))
}

impl Head {
    /// Superblock, length and slots of a whole ring file.
    #[must_use]
    pub fn of(image: &[u8]) -> Option<Head> {
        let (log_id, segment_size, segments, data_offset) = superblock(image)?;
        if image.len() as u64 != data_offset + segments * segment_size {
            return None;
        }
        Head::of_slots(image, log_id, segment_size, segments, data_offset)
    }

    /// As `of`, of an image that may end behind its slots.
    #[must_use]
    pub fn of_slots(
        image: &[u8],
        log_id: [u8; 16],
        segment_size: u64,
        segments: u64,
        data_offset: u64,
    ) -> Option<Head> {
        let none = Slot {
            index: 0,
            generation: 0,
            epoch: 0,
            epoch_start: 0,
            trimmed: 0,
            durable: 0,
            boot_id: [0; 16],
            file_identity: 0,
            clean: false,
            poisoned: false,
        };
        let empty = Head { log_id, segment_size, segments, data_offset, slot: none };
        let slots = [0, 1].map(|index| empty.slot(image, index));
        let slot = match slots {
            [Some(a), Some(b)] if b.generation > a.generation => b,
            [a, b] => a.or(b)?,
        };
        Some(Head { slot, ..empty })
    }

    /// One of the two slots, if it is valid.
    #[must_use]
    pub fn slot(&self, image: &[u8], index: usize) -> Option<Slot> {
        let raw = image.get(SLOTS[index]..SLOTS[index] + SLOT_LEN)?;
        let is_right = raw.starts_with(b"KAELIXCP")
            && raw[48..64] == self.log_id
            && u32_at(raw, 252) == crc32fast::hash(&raw[..252]);
        let slot = Slot {
            index,
            generation: u64_at(raw, 8),
            epoch: u64_at(raw, 16),
            epoch_start: u64_at(raw, 24),
            trimmed: u64_at(raw, 32),
            durable: u64_at(raw, 40),
            boot_id: *raw[64..].first_chunk()?,
            file_identity: u64_at(raw, 80),
            clean: u32_at(raw, 88) & 1 != 0,
            poisoned: u32_at(raw, 88) & 2 != 0,
        };
        let is_position = |lsn: u64| {
            lsn.is_multiple_of(16)
                && lsn / self.segment_size <= u64::from(u32::MAX)
                && (FIRST_RECORD..=self.record_end()).contains(&(lsn % self.segment_size))
        };
        let is_possible = [slot.trimmed, slot.durable, slot.epoch_start].map(is_position)
            == [true; 3]
            && slot.durable - slot.trimmed.min(slot.durable) <= self.capacity()
            && slot.epoch != u64::MAX
            && slot.generation < 1 << 63;
        (is_right && is_possible).then_some(slot)
    }

    #[must_use]
    pub fn record_end(&self) -> u64 {
        self.segment_size - PAGE as u64
    }

    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment_size * self.segments
    }

    /// A record end is the first record of the next segment, if there can be one.
    #[must_use]
    pub fn normalize(&self, lsn: u64) -> u64 {
        let (sequence, offset) = (lsn / self.segment_size, lsn % self.segment_size);
        if offset >= self.record_end() && sequence < u64::from(u32::MAX) {
            (sequence + 1) * self.segment_size + FIRST_RECORD
        } else {
            lsn
        }
    }

    /// Where `lsn` lies in the file.
    #[must_use]
    pub fn file_offset(&self, lsn: u64) -> usize {
        let (sequence, offset) = (lsn / self.segment_size, lsn % self.segment_size);
        (self.data_offset + sequence % self.segments * self.segment_size + offset) as usize
    }

    /// The epoch in the header of the segment that `lsn` lies in, if it is that segment.
    #[must_use]
    pub fn header_epoch(&self, image: &[u8], lsn: u64) -> Option<u64> {
        let base = lsn - lsn % self.segment_size;
        let at = self.file_offset(base);
        let raw = image.get(at..at + HEADER_LEN)?;
        let is_right = u64_at(raw, 0) == base / self.segment_size + 1
            && u64_at(raw, 8) == base
            && raw[24..40] == self.log_id
            && u32_at(raw, 60) == crc32fast::hash(&raw[..60]);
        is_right.then(|| u64_at(raw, 16))
    }

    /// Is what lies in front of the segment that `lsn` lies in neither nothing nor a header?
    #[must_use]
    pub fn has_garbage_header(&self, image: &[u8], lsn: u64) -> bool {
        let at = self.file_offset(lsn - lsn % self.segment_size);
        image.get(at..at + HEADER_LEN).is_some_and(|raw| {
            let is_right =
                raw[24..40] == self.log_id && u32_at(raw, 60) == crc32fast::hash(&raw[..60]);
            u64_at(raw, 0) != 0 && !is_right
        })
    }

    /// The footer of the segment that `lsn` lies in, if it counts behind records of `epoch`.
    #[must_use]
    pub fn footer<'i>(&self, image: &'i [u8], lsn: u64, epoch: u64) -> Option<&'i [u8]> {
        let base = lsn - lsn % self.segment_size;
        let at = self.file_offset(base + self.record_end());
        let raw = image.get(at..at + FOOTER_LEN)?;
        let beyond = base + self.record_end() > self.normalize(self.slot.epoch_start);
        let oldest = if beyond { self.slot.epoch } else { epoch };
        let is_right = raw.starts_with(b"KAELIXFT")
            && u64_at(raw, 8) == base
            && raw[24..40] == self.log_id
            && (oldest..=self.slot.epoch).contains(&u64_at(raw, 16))
            && u32_at(raw, 124) == crc32fast::hash(&raw[..124]);
        is_right.then_some(raw)
    }

    /// The record at `lsn`, if it verifies as one of `epoch`.
    #[must_use]
    pub fn record_of(&self, image: &[u8], lsn: u64, epoch: u64) -> Option<Found> {
        let at = self.file_offset(lsn);
        let header: &[u8; 16] = image.get(at..)?.first_chunk()?;
        let room = self.record_end().checked_sub(lsn % self.segment_size)?;
        let length = u64::from(u32_at(header, 0));
        let is_known = match (header[12], header[13]) {
            (DATA | PAD | BATCH, 0) | (CONTROL, _) => true,
            (DATA | BATCH, STAMPED) => length >= 16 + STAMP_LEN,
            (DATA, MOVED) => length >= 16 + ORIGIN_LEN,
            _ => false,
        };
        if !(16..=room).contains(&length) || !is_known {
            return None;
        }
        let payload = at + 16..at + length as usize;
        let is_right = u32_at(header, 12) >> 16 == epoch as u32 & 0xFFFF
            && record_crc(&self.log_id, epoch, header, &image[payload.clone()], lsn)
                == u32_at(header, 4);
        let found = is_right.then(|| Found {
            lsn,
            end: lsn + length.next_multiple_of(16),
            epoch,
            kind: header[12],
            flags: header[13],
            stream: u32_at(header, 8),
            payload,
        })?;
        (found.kind != BATCH || is_batch(&image[found.body()])).then_some(found)
    }

    /// The record at `lsn` behind one of `epoch`: step 4 of "Reading a log", and 2 if `first`.
    #[must_use]
    pub fn record_after(&self, image: &[u8], lsn: u64, epoch: u64, first: bool) -> Option<Found> {
        let at = self.file_offset(lsn);
        let low = u64::from(u32_at(image, at + 12) >> 16);
        let ahead = low.wrapping_sub(epoch) & 0xFFFF;
        let is_opening = image.get(at + 12..at + 14) == Some(&[CONTROL, CONTROL_EPOCH]);
        let own = if ahead == 0 {
            epoch
        } else if is_opening {
            let own = u64_at(image, at + 16);
            let is_near = own.saturating_sub(epoch) <= 0xFFFF;
            Some(own).filter(|_| u32_at(image, at) >= 24 && is_near)?
        } else {
            epoch.checked_add(ahead).filter(|later| first && *later <= self.slot.epoch)?
        };
        let found = self.record_of(image, lsn, own)?;
        (own >= epoch && !self.is_leftover(lsn, own)).then_some(found)
    }

    /// Walks from `trimmed` to the first position at which nothing verifies, or to the end of what
    /// a log that was closed in order says is durable.
    #[must_use]
    pub fn walk(&self, image: &[u8], heeds_clean: bool) -> Walk {
        let start = self.normalize(self.slot.trimmed);
        let mut durable = self.normalize(self.slot.durable);
        let mut clean = heeds_clean && self.slot.clean;
        let mut walk = Walk { records: Vec::new(), end: start, disagrees: None };
        let (mut epoch, mut first) = (0, true);
        for sequence in
            (start / self.segment_size..=u64::from(u32::MAX)).take(self.segments as usize)
        {
            let base = sequence * self.segment_size;
            let at = self.normalize(walk.end);
            let header = self.header_epoch(image, at);
            if clean && at >= durable && at != start {
                let record = self.record_after(image, at, epoch, first).map(|found| found.epoch);
                clean = header.max(record).is_none_or(|newest| newest <= self.slot.epoch);
                if clean {
                    return walk;
                }
            }
            match header {
                Some(own) if own >= epoch && !self.is_leftover(base + FIRST_RECORD, own) => {
                    epoch = own;
                }
                _ => return walk,
            }
            let footer = self.footer(image, base, epoch);
            if footer.is_some() {
                durable = durable.max(self.normalize(base + self.record_end()));
            }
            let is_whole = at == base + FIRST_RECORD;
            let so_far = walk.records.len();
            walk.end = at;
            while walk.end < base + self.record_end() {
                let found = self.record_after(image, walk.end, epoch, first);
                if clean && walk.end >= durable {
                    // Opened since, by an epoch whose slot is lost?
                    let newest = found.as_ref().map_or(epoch, |found| found.epoch).max(epoch);
                    clean = newest <= self.slot.epoch;
                    if clean {
                        return walk;
                    }
                }
                let Some(found) = found else { return walk };
                first = false;
                epoch = found.epoch;
                walk.end = found.end;
                walk.records.push(found);
            }
            // What lies between the sums is not about the records, or reserved.
            let agrees = |footer: &[u8]| {
                let sums = footer_of(image, &walk.records[so_far..]);
                sums[..32] == footer[..32] && sums[80..] == footer[80..]
            };
            if is_whole && footer.is_some_and(|footer| !agrees(&footer[FOOTER_SUMS])) {
                walk.disagrees = Some(at);
                return walk;
            }
        }
        walk
    }

    /// What is left of an epoch from before the newest one, where that has begun.
    fn is_leftover(&self, lsn: u64, epoch: u64) -> bool {
        lsn >= self.normalize(self.slot.epoch_start) && epoch < self.slot.epoch
    }
}

/// Are these bytes entries, one behind the other, at least one, and nothing else?
fn is_batch(mut bytes: &[u8]) -> bool {
    let is_empty = bytes.is_empty();
    while bytes.len() >= 8 {
        let space = (8 + u64::from(u32_at(bytes, 0))).next_multiple_of(8);
        match bytes.get(space as usize..) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    bytes.is_empty() && !is_empty
}

/// The bytes of a footer that sum up these records of a whole segment, from `first` on.
#[must_use]
pub fn footer_of(image: &[u8], records: &[Found]) -> [u8; 84] {
    let data = || records.iter().filter(|found| found.is_callers());
    let mut roll_up = crc32fast::Hasher::new();
    for found in records {
        roll_up.update(&image[found.payload.start - 16..found.payload.start - 8]);
    }
    let sums = [
        data().next().map_or(0, |found| found.lsn),
        data().next_back().map_or(0, |found| found.lsn),
        data().count() as u64,
        data().map(|found| found.payload.len() as u64).sum(),
    ];
    let mut bytes = [0; 84];
    put(&mut bytes, 0, sums.map(u64::to_le_bytes).as_flattened());
    put(&mut bytes, 80, &roll_up.finalize().to_le_bytes());
    bytes
}
