//! A window on the ring file: what a walk has read, a piece at a time.

use super::ReadAt;
use crate::checksum::Seed;
use crate::geometry::{FIRST_RECORD, Geometry, RECORD_ALIGN, RECORD_HEADER_LEN};
use crate::layout::batch::is_batch;
use crate::layout::footer::FOOTER_LEN;
use crate::layout::record::{CONTROL_EPOCH, CONTROL_GAP, WordState, aligned_len, record_crc};
use crate::layout::{
    CommitWord, Footer, LogId, RecordKind, SegmentHeader, SegmentHeaderEvidence, Tag, stamp,
};
use crate::lsn::Lsn;

/// A walk reads this much at a time: it stays in the second-level cache.
const PIECE: u64 = 256 << 10;

/// What was found at a record position. `Valid` is the only one that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A record that verifies, of this many bytes (header included).
    Valid { record_len: u32, crc: u32, tag: Tag, epoch: u64 },
    /// Nothing.
    Zero,
    /// An owner's claim of this many bytes.
    Claimed(u32),
    /// A committed record whose bytes do not match its checksum.
    BadCrc,
    /// A length that no record can have here.
    ImpossibleLength,
    /// A record that verifies, of an epoch before its predecessor's.
    EpochBackwards,
}

/// Which epoch a record may be of, given the one before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EpochRule {
    /// The predecessor's epoch.
    pub(crate) epoch: u64,
    /// The walk starts here: its epoch may be later than the segment header's, without the
    /// control record (now trimmed) that opened it.
    pub(crate) first: bool,
    /// The newest persisted epoch, and where it began: from there on, older ones are leftovers.
    pub(crate) newest: u64,
    pub(crate) newest_start: Lsn,
}

impl EpochRule {
    /// Does the footer of a segment that ends at `end` count? It is not older than the records
    /// before it, and beyond the start of the newest epoch it is of that epoch.
    pub(crate) fn allows_footer(&self, footer: &Footer, end: Lsn) -> bool {
        let oldest = if end > self.newest_start { self.newest } else { self.epoch };
        (oldest..=self.newest).contains(&footer.epoch)
    }
}

/// Reads and verifies records.
pub(crate) struct Window<'a> {
    read: ReadAt<'a>,
    geometry: Geometry,
    log_id: LogId,
    /// The checksum seed last used, and its epoch: a log has few epochs.
    seed: (u64, Seed),
    bytes: Vec<u8>,
    /// File offset of the first byte.
    start: u64,
    /// How often it was read from the file.
    reads: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(read: ReadAt<'a>, geometry: Geometry, log_id: LogId) -> Window<'a> {
        let seed = (0, Seed::new(&log_id, 0));
        Window { read, geometry, log_id, seed, bytes: Vec::new(), start: 0, reads: 0 }
    }

    /// Forgets what was read: the file may have changed.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// How often the file was read: unchanged, what was examined came from the same copy.
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }

    /// The bytes `[offset, offset + len)`, which lie in the segment that ends at `limit`.
    pub(crate) fn bytes(&mut self, offset: u64, len: u64, limit: u64) -> std::io::Result<&[u8]> {
        let have = self.start..self.start + self.bytes.len() as u64;
        if !(have.contains(&offset) && offset + len <= have.end) {
            let end = (offset + len.max(PIECE)).min(limit);
            // What is there is overwritten: only what is added is zeroed first.
            self.bytes.resize((end - offset) as usize, 0);
            (self.read)(offset, &mut self.bytes).inspect_err(|_| self.bytes = Vec::new())?;
            self.start = offset;
            self.reads += 1;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at..at + len as usize])
    }

    /// What lies in front of segment `sequence`.
    pub(crate) fn segment_header(
        &mut self,
        sequence: u32,
    ) -> std::io::Result<SegmentHeaderEvidence> {
        let offset = self.geometry.segment_offset(sequence);
        let base = self.geometry.lsn(sequence, 0);
        let log_id = self.log_id;
        let limit = offset + self.geometry.segment_size();
        let bytes = self.bytes(offset, 64, limit)?;
        Ok(SegmentHeader::verify(bytes, &log_id, sequence, base))
    }

    /// The footer of segment `sequence`, if there is one. Whether it counts, an [`EpochRule`] says.
    pub(crate) fn any_footer(&self, sequence: u32) -> std::io::Result<Option<Footer>> {
        let mut bytes = [0; FOOTER_LEN];
        // Not through the piece: it would push out the records that are walked.
        (self.read)(self.geometry.footer_offset(sequence), &mut bytes)?;
        Ok(Footer::verify(&bytes, &self.log_id, self.geometry.lsn(sequence, 0)))
    }

    /// As [`segment_header`](Window::segment_header), reading nothing else.
    pub(crate) fn peek_header(&self, sequence: u32) -> std::io::Result<SegmentHeaderEvidence> {
        let mut bytes = [0; FIRST_RECORD as usize];
        (self.read)(self.geometry.segment_offset(sequence), &mut bytes)?;
        let base = self.geometry.lsn(sequence, 0);
        Ok(SegmentHeader::verify(&bytes, &self.log_id, sequence, base))
    }

    /// Passes the records from `offset` of segment `sequence` on that plainly are what should
    /// follow: whole, of the rule's epoch, each behind the other, up to `stop` and to the end of
    /// what has been read. Shows `each` where a record starts, with its header. Returns where that
    /// ends; what stands there is for [`examine`](Window::examine) to say.
    pub(crate) fn pass_plain(
        &mut self,
        (sequence, offset): (u32, u32),
        stop: Lsn,
        rule: &EpochRule,
        mut each: impl FnMut(Lsn, CommitWord, Tag),
    ) -> std::io::Result<u32> {
        let (base, end) = (self.geometry.lsn(sequence, 0), self.geometry.record_end());
        // Where an older epoch's records are leftovers, these are not of one, or are not passed.
        let newest_start = if rule.epoch < rule.newest { rule.newest_start } else { stop };
        let stop = u64::from(end).min(stop.min(newest_start).get().saturating_sub(base.get()));
        if u64::from(offset) >= stop {
            return Ok(offset);
        }
        let start = self.geometry.segment_offset(sequence);
        let (at, limit) = (start + u64::from(offset), start + u64::from(end));
        self.bytes(at, RECORD_HEADER_LEN as u64, limit)?;
        let seed = self.seed_of(rule.epoch);
        let mut rest = &self.bytes[(at - self.start) as usize..];
        let mut offset = offset;
        while u64::from(offset) < stop
            && let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER_LEN)
        {
            let (word, tag) = split_header(header);
            let WordState::Committed(len) = word.state(end - offset) else { break };
            let plain = tag.epoch_low() == rule.epoch as u16
                && tag.is_possible(len)
                && !tag.is_control(CONTROL_GAP);
            let space = aligned_len(len) as usize - RECORD_HEADER_LEN;
            let Some((payload, next)) = behind.split_at_checked(space).filter(|_| plain) else {
                break;
            };
            let payload = &payload[..len as usize - RECORD_HEADER_LEN];
            let lsn = base + u64::from(offset);
            let is_batch = || is_batch(stamp::body(tag, payload));
            if record_crc(seed, tag, len, payload, lsn) != word.crc()
                || (tag.kind() == Some(RecordKind::Batch) && !is_batch())
            {
                break;
            }
            each(lsn, word, tag);
            offset += aligned_len(len);
            rest = next;
        }
        Ok(offset)
    }

    /// The offset of the first bytes at or behind `offset` that are not zero, as far as they have
    /// been read; at least 16 behind `offset`, which holds zeros.
    pub(crate) fn skip_zeros(&self, sequence: u32, offset: u32) -> u32 {
        let at = self.geometry.segment_offset(sequence) + u64::from(offset);
        let known = at.checked_sub(self.start).and_then(|at| self.bytes.get(at as usize..));
        let units = known.unwrap_or_default().chunks_exact(RECORD_ALIGN as usize);
        let zeros = units.take_while(|unit| **unit == [0; RECORD_ALIGN as usize]).count();
        offset + zeros.max(1) as u32 * RECORD_ALIGN as u32
    }

    fn seed_of(&mut self, epoch: u64) -> Seed {
        if self.seed.0 != epoch {
            self.seed = (epoch, Seed::new(&self.log_id, epoch));
        }
        self.seed.1
    }

    /// What lies at `lsn`, a record position.
    pub(crate) fn examine(&mut self, lsn: Lsn, rule: &EpochRule) -> std::io::Result<Evidence> {
        let (sequence, offset) = self.geometry.split(lsn);
        let room = self.geometry.record_end() - offset;
        let at = self.geometry.segment_offset(sequence) + u64::from(offset);
        let limit = at + u64::from(room);
        let header = self.bytes(at, RECORD_HEADER_LEN as u64, limit)?;
        let (word, tag) = split_header(header);
        let record_len = match word.state(room) {
            WordState::Zero => return Ok(Evidence::Zero),
            WordState::Claimed(len) => return Ok(Evidence::Claimed(len)),
            WordState::Impossible => return Ok(Evidence::ImpossibleLength),
            WordState::Committed(len) => len,
        };
        if !tag.is_possible(record_len) {
            return Ok(Evidence::BadCrc);
        }
        self.verify(lsn, at, limit, (word, tag, record_len), rule)
    }

    fn verify(
        &mut self,
        lsn: Lsn,
        at: u64,
        limit: u64,
        (word, tag, record_len): (CommitWord, Tag, u32),
        rule: &EpochRule,
    ) -> std::io::Result<Evidence> {
        let pad = tag.kind() == Some(RecordKind::Pad);
        let body = if pad { 0 } else { u64::from(record_len) };
        let body = body.max(RECORD_HEADER_LEN as u64);
        self.bytes(at, body, limit)?;
        let ahead = u64::from(tag.epoch_low().wrapping_sub(rule.epoch as u16));
        let epoch = if ahead == 0 {
            rule.epoch
        } else if tag.is_control(CONTROL_EPOCH) {
            let payload = &self.bytes(at, body, limit)?[RECORD_HEADER_LEN..];
            match payload.first_chunk().map(|full| u64::from_le_bytes(*full)) {
                // No segment holds so many epochs that their low bits would not tell them apart.
                Some(full)
                    if full as u16 == tag.epoch_low()
                        && full.saturating_sub(rule.epoch) <= ahead =>
                {
                    full
                }
                _ => return Ok(Evidence::BadCrc),
            }
        } else if let Some(later) = rule.epoch.checked_add(ahead).filter(|_| rule.first)
            && later <= rule.newest
        {
            later
        } else {
            // Only an earlier epoch's record could be genuine.
            let earlier = rule.epoch.checked_sub(0x1_0000 - ahead);
            let genuine = match earlier {
                Some(epoch) => {
                    self.matches(lsn, at, body, limit, (word, tag, record_len), epoch)?
                }
                None => false,
            };
            return Ok(if genuine { Evidence::EpochBackwards } else { Evidence::BadCrc });
        };
        if !self.matches(lsn, at, body, limit, (word, tag, record_len), epoch)? {
            return Ok(Evidence::BadCrc);
        }
        if tag.kind() == Some(RecordKind::Batch) {
            let payload = &self.bytes(at, body, limit)?[RECORD_HEADER_LEN..];
            if !is_batch(stamp::body(tag, payload)) {
                return Ok(Evidence::BadCrc);
            }
        }
        if epoch < rule.epoch || (lsn >= rule.newest_start && epoch < rule.newest) {
            return Ok(Evidence::EpochBackwards);
        }
        Ok(Evidence::Valid { record_len, crc: word.crc(), tag, epoch })
    }

    fn matches(
        &mut self,
        lsn: Lsn,
        at: u64,
        body: u64,
        limit: u64,
        (word, tag, record_len): (CommitWord, Tag, u32),
        epoch: u64,
    ) -> std::io::Result<bool> {
        let seed = self.seed_of(epoch);
        let payload = &self.bytes(at, body, limit)?[RECORD_HEADER_LEN..];
        Ok(record_crc(seed, tag, record_len, payload, lsn) == word.crc())
    }
}

/// Reads the two header words.
pub(crate) fn split_header(header: &[u8]) -> (CommitWord, Tag) {
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    (CommitWord::from_bits(word(header)), Tag::from_bits(word(&header[8..])))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Opening a log takes as long as reading it once.
    #[test]
    fn a_walk_reads_each_piece_once() {
        let geometry = Geometry::checked(2 << 20, 1 << 20, 12_288).expect("in bounds");
        let bytes = AtomicUsize::new(0);
        let read: ReadAt<'_> = Box::new(|_, into: &mut [u8]| {
            bytes.fetch_add(into.len(), Ordering::Relaxed);
            Ok(())
        });
        let mut window = Window::new(read, geometry, [0; 16]);
        let newest_start = Lsn::ZERO;
        let rule = EpochRule { epoch: 0, first: false, newest: 0, newest_start };
        for offset in (64..geometry.record_end()).step_by(16) {
            let evidence = window.examine(geometry.lsn(1, offset), &rule).expect("it can be read");
            assert_eq!(evidence, Evidence::Zero);
        }
        assert_eq!(window.reads(), 4);
        drop(window);
        assert_eq!(bytes.load(Ordering::Relaxed), (1 << 20) - 4096 - 64);
    }

    #[test]
    fn footers_count_from_their_predecessors_epoch_on_to_the_newest() {
        let (newest_start, before) = (Lsn::new(100 << 13), Lsn::new(90 << 13));
        let rule = EpochRule { epoch: 3, first: false, newest: 5, newest_start };
        for (end, epochs) in [
            (before, 3..=5),
            (newest_start, 3..=5),
            (newest_start + 16, 5..=5),
            (newest_start + 8192, 5..=5),
        ] {
            for epoch in 0..9 {
                let (contents, producers) = Default::default();
                let footer = Footer { epoch, contents, producers };
                let counts = rule.allows_footer(&footer, end);
                assert_eq!(counts, epochs.contains(&epoch), "epoch {epoch}, to {end}");
            }
        }
    }
}
