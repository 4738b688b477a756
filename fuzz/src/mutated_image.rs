//! A real log's ring file, damaged: nothing altered or invented is returned, what was proven
//! durable is returned or the log refused, and a harmless tear is not refused.
//!
//! Input: a script by which the library makes the file (see [`Making`]), then mutations of it until
//! the input ends. A mutation's place is a byte of the file, or a byte of something that the second
//! reader found in it: a blind flip rarely hits anything that matters.

use std::collections::BTreeMap;

use arbitrary::Unstructured;
use kaelix_wal::fuzzing::{self, Machine};
use kaelix_wal::{Lsn, OnFull, OpenError, Position, Wal, simulation};

use crate::format::{
    CONTROL, CONTROL_EPOCH, FIRST_RECORD, HEADER_LEN, PAGE, SLOT_LEN, SLOTS, append_batch,
};
use crate::image::{LOG_ID, Opened, Returned, contents, observe, quiet};
use crate::reference::{Found, Head, Walk};

const STEPS_MAX: usize = 48;
const MUTATIONS_MAX: usize = 12;
/// A boot that no script reaches.
const OTHER_BOOT: u8 = 250;
const SECTOR: usize = 512;

/// Everything that was ever appended, by position: those above a cut are used again.
type Truth = BTreeMap<u64, Vec<Vec<u8>>>;

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let segments = 2 + u64::from(byte(&mut input) % 3);
    let script: Vec<(u8, u16)> = (0..usize::from(byte(&mut input)).min(STEPS_MAX))
        .map(|_| (byte(&mut input), input.arbitrary().unwrap_or_default()))
        .collect();
    let mut making = Making::of(LOG_ID, segments, &script);
    let original = making.finish(byte(&mut input));
    let case = Case::new(original, making);
    let mut image = case.original.clone();
    let same_boot = byte(&mut input).is_multiple_of(4);
    for _ in 0..MUTATIONS_MAX {
        if input.is_empty() {
            break;
        }
        case.mutate(&mut image, &mut input, &script);
    }
    let boot = if same_boot { case.making.boot } else { OTHER_BOOT };
    case.open(&image, boot);
    let shown = observe(&image, Lsn::new(case.walk.end));
    case.check_truth(&shown);
}

fn byte(input: &mut Unstructured<'_>) -> u8 {
    input.arbitrary().unwrap_or_default()
}

fn below(input: &mut Unstructured<'_>, bound: usize) -> usize {
    input.arbitrary::<u32>().unwrap_or_default() as usize % bound.max(1)
}

/// A log in the making, and what its file looked like on the way.
struct Making {
    machine: Machine,
    wal: Option<Wal>,
    boot: u8,
    number: u8,
    /// What was durable in the end, whatever evidence of it there is.
    durable: u64,
    truth: Truth,
    history: Vec<Vec<u8>>,
}

impl Making {
    fn of(log_id: [u8; 16], segments: u64, script: &[(u8, u16)]) -> Making {
        let geometry = simulation::tiny(segments);
        let machine = Machine::new(simulation::new_image_of(geometry, log_id));
        let (truth, history) = (Truth::new(), Vec::new());
        let mut making =
            Making { machine, wal: None, boot: 0, number: 0, durable: 0, truth, history };
        making.reopen();
        for (step, len) in script {
            making.step(*step, usize::from(*len));
        }
        making
    }

    fn reopen(&mut self) {
        self.boot += 1;
        let options = quiet().on_full(OnFull::Overwrite);
        self.wal = Some(self.machine.open(self.boot, options).expect("nothing is damaged yet"));
    }

    fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("it is open between steps")
    }

    fn step(&mut self, step: u8, len: usize) {
        let wal = self.wal();
        match step % 16 {
            0 => drop(wal.reserve(len % 600).expect("the oldest makes room")),
            1 => {
                let reader = wal.reader(Position::Newest).expect("the end can be read");
                wal.checkpoint(reader.position()).expect("a boundary");
            }
            2 => drop(wal.sync_checkpoint().expect("the disk takes it")),
            3 | 4 => drop(wal.sync().expect("the disk takes it")),
            5 => {
                self.history.push(self.machine.disk());
                self.history.push(self.machine.cache());
            }
            6 => {
                let disk = self.machine.disk().len();
                self.machine.write_back(len * 16 % disk..disk, true);
            }
            7 => {
                fuzzing::kill(self.wal.take().expect("it is open"));
                self.machine = Machine::new(self.machine.disk());
                self.history.push(self.machine.disk());
                self.reopen();
            }
            8 => {
                let wal = self.wal.take().expect("it is open");
                wal.close().expect("nothing is in the way");
                drop(wal);
                self.history.push(self.machine.disk());
                self.reopen();
            }
            // Most sizes small; some fill a segment.
            9 => self.append(len % 4000),
            15 => self.append_batch(1 + len % 9, len / 9 % 400),
            _ => self.append(len % 300),
        }
    }

    fn append(&mut self, len: usize) {
        self.number = self.number.wrapping_add(1);
        let payload: Vec<u8> = (0..len).map(|at| self.number ^ (at * 7) as u8).collect();
        let lsn = self.wal().append(&payload).expect("the oldest makes room");
        self.truth.entry(lsn.get()).or_default().push(payload);
    }

    fn append_batch(&mut self, count: usize, len: usize) {
        self.number = self.number.wrapping_add(1);
        let (lsn, payload) =
            append_batch(self.wal(), self.number, count, len).expect("the oldest makes room");
        self.truth.entry(lsn.get()).or_default().push(payload);
    }

    /// What the disk, or another process, finds in the end.
    fn finish(&mut self, ending: u8) -> Vec<u8> {
        let wal = self.wal.take().expect("it is open between steps");
        self.durable = wal.watermarks().durable.get();
        if ending % 4 == 1 {
            wal.close().expect("nothing is in the way");
            drop(wal);
        } else {
            // Before anybody looks: its janitor may be at work.
            fuzzing::kill(wal);
        }
        if ending.is_multiple_of(4) { self.machine.cache() } else { self.machine.disk() }
    }
}

/// What a judgement needs to know of the file as it was.
struct Case {
    original: Vec<u8>,
    making: Making,
    head: Head,
    walk: Walk,
    /// Segments' first positions, from the first retained one on, and the running epoch there.
    segments: Vec<(u64, u64)>,
}

impl Case {
    fn new(original: Vec<u8>, making: Making) -> Case {
        let head = Head::of(&original).expect("the library has written it");
        let walk = head.walk(&original, true);
        assert_eq!(walk.disagrees, None, "the library has left a footer that disagrees");
        let mut segments: Vec<(u64, u64)> = Vec::new();
        for found in &walk.records {
            let base = found.lsn - found.lsn % head.segment_size;
            if segments.last().is_none_or(|(last, _)| *last != base) {
                segments.push((base, found.epoch));
            }
        }
        Case { original, making, head, walk, segments }
    }

    /// Damages the image in one way.
    fn mutate(&self, image: &mut [u8], input: &mut Unstructured<'_>, script: &[(u8, u16)]) {
        let (pages, old) = (image.len() / PAGE, &self.making.history);
        let bit = |input: &mut Unstructured<'_>| 1_u8 << (byte(input) % 8);
        match byte(input) % 16 {
            0 => image[below(input, self.original.len())] ^= bit(input),
            1 => {
                let at = SLOTS[below(input, 2)] + below(input, SLOT_LEN);
                image[at] ^= bit(input);
            }
            2..=4 => {
                if let Some(at) = self.in_record(input) {
                    image[at] ^= bit(input);
                }
            }
            5 => {
                let slots = self.head.segments as usize;
                let segment = self.head.data_offset as usize
                    + below(input, slots) * self.head.segment_size as usize;
                image[segment + below(input, HEADER_LEN)] ^= bit(input);
            }
            6 => image.chunks_mut(PAGE).nth(below(input, pages)).expect("a page").fill(0),
            7 => {
                let sectors = image.len() / SECTOR;
                let fill = [0, 0xFF, b'x'][below(input, 3)];
                image.chunks_mut(SECTOR).nth(below(input, sectors)).expect("a sector").fill(fill);
            }
            8 => {
                let (a, b) = (below(input, pages) * PAGE, below(input, pages) * PAGE);
                let page = image[a..a + PAGE].to_vec();
                image.copy_within(b..b + PAGE, a);
                image[b..b + PAGE].copy_from_slice(&page);
            }
            9 | 10 if !old.is_empty() => {
                let size = [PAGE, SECTOR, self.head.segment_size as usize][below(input, 3)];
                let at = below(input, image.len() / size) * size;
                let old = &old[below(input, old.len())];
                image[at..at + size].copy_from_slice(&old[at..at + size]);
            }
            11 => {
                let len = 16 * (1 + below(input, 64));
                let from = below(input, (image.len() - len) / 16) * 16;
                image.copy_within(from..from + len, below(input, (image.len() - len) / 16) * 16);
            }
            12 => {
                let other = Making::of([7; 16], self.head.segments, script).finish(0);
                let at = (1 + below(input, pages - 1)) * PAGE;
                image[at..at + PAGE].copy_from_slice(&other[at..at + PAGE]);
            }
            13 => {
                // A cut: from a record on, there is nothing.
                if let Some(at) = self.in_record(input) {
                    let size = self.head.segment_size as usize;
                    let base = self.head.data_offset as usize;
                    let end = base + (at - base) / size * size + size;
                    image[at..end].fill(0);
                }
            }
            _ => {
                if let Some(at) = self.in_record(input) {
                    image[at / 8 * 8..][..8].copy_from_slice(&input.arbitrary().unwrap_or([0; 8]));
                }
            }
        }
    }

    /// Somewhere in a record of the log.
    fn in_record(&self, input: &mut Unstructured<'_>) -> Option<usize> {
        let found = self.walk.records.get(below(input, self.walk.records.len()))?;
        let start = found.payload.start - 16;
        Some(start + below(input, found.payload.end - start))
    }

    fn open(&self, image: &[u8], boot: u8) {
        let machine = Machine::new(image.to_vec());
        let head = Head::of(image);
        match (machine.open(boot, quiet()), head) {
            (Ok(wal), Some(head)) => {
                let found = contents(&wal);
                self.check_truth(&found);
                // Slots from the past, both of them, make a past log, with other records at the
                // same positions, or with a clean mark in front of what has come since.
                let is_of_now = |index| self.head.slot(&self.original, index) == Some(head.slot);
                if [0, 1].into_iter().any(is_of_now) {
                    self.opened(&wal, &found, image, &head, boot);
                    Opened(found).goes_on(wal, &machine, boot);
                }
            }
            (Ok(_), None) => panic!("a head that is none was believed"),
            (Err(error), head) => {
                assert!(machine.cache() == image, "a refusal changed something: {error}");
                if head.is_some_and(|head| head.slot == self.head.slot) {
                    assert!(!self.is_harmless(image), "a harmless tear was refused: {error}");
                    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
                }
            }
        }
    }

    /// Nothing is missing of which the report does not tell, and nothing that was proven durable.
    fn opened(&self, wal: &Wal, found: &[Returned], image: &[u8], head: &Head, boot: u8) {
        let report = wal.recovery_report();
        assert!(report.records == found.len() as u64, "{report}");
        let has_holes = boot != OTHER_BOOT && report.holes_padded > 0;
        let data = self.walk.records.iter().filter(|found| found.is_callers());
        let retained = head.slot.trimmed..lap_end(head);
        let want: Vec<&Found> = data.filter(|found| retained.contains(&found.lsn)).collect();
        if head.slot == self.head.slot && !has_holes {
            let same = found.iter().zip(&want).all(|((lsn, _), want)| *lsn == want.lsn);
            assert!(same, "other records than were there: {report}");
        }
        let proven = self.proven(image, head);
        for want in want {
            let is_there = found.binary_search_by_key(&want.lsn, |(lsn, _)| *lsn).is_ok();
            let what = format!("record {} is missing: {report}", want.lsn);
            assert!(is_there || want.lsn >= proven, "{what}\nproven durable to {proven}");
            assert!(is_there || want.lsn >= report.end.get() || has_holes, "{what}");
        }
    }

    /// Every record was appended once, at its place, byte for byte.
    fn check_truth(&self, found: &[Returned]) {
        assert!(found.is_sorted_by_key(|(lsn, _)| *lsn));
        for (lsn, payload) in found {
            let is_true = self.making.truth.get(lsn).is_some_and(|all| all.contains(payload));
            assert!(is_true, "the record at {lsn} was never appended");
        }
    }

    /// Below here all was durable, as what is left of the evidence says.
    fn proven(&self, image: &[u8], head: &Head) -> u64 {
        let is_whole = |range: std::ops::Range<usize>| image[range.clone()] == self.original[range];
        let retained = head.slot.trimmed..lap_end(head);
        let records = self.walk.records.iter().filter(|found| {
            // The search for evidence passes over what looks like a segment of another lap, or like
            // one that was never used.
            let is_searched = self.head.header_epoch(image, found.lsn).is_some()
                || self.head.has_garbage_header(image, found.lsn);
            retained.contains(&found.lsn)
                && is_searched
                && self.knows_epoch(image, head, found)
                && is_whole(found.payload.start - 16..found.payload.end)
        });
        let proven = records.filter_map(Found::proves).max().unwrap_or_default();
        proven.max(head.normalize(head.slot.durable))
    }

    /// Does slot, segment header or opening record still say of which epoch the record is? Two of
    /// them have to be lost for an answer of no.
    fn knows_epoch(&self, image: &[u8], head: &Head, found: &Found) -> bool {
        let opens = |other: &Found| {
            let range = other.payload.start - 16..other.payload.end;
            other.kind == CONTROL
                && other.flags == CONTROL_EPOCH
                && other.epoch == found.epoch
                && image[range.clone()] == self.original[range]
        };
        found.epoch <= head.slot.epoch
            || self.head.header_epoch(image, found.lsn) == Some(found.epoch)
            || self.walk.records.iter().any(opens)
    }

    /// Is all that differs beyond everything that was ever proven durable, or below `trimmed`?
    fn is_harmless(&self, image: &[u8]) -> bool {
        let proven = self.ever_proven();
        let differs = |range: std::ops::Range<usize>| image[range.clone()] != self.original[range];
        let trimmed = self.head.normalize(self.head.slot.trimmed);
        self.segments.iter().all(|(base, _)| {
            let at = |lsn| self.head.file_offset(lsn);
            let end = base + self.head.record_end();
            let from = trimmed.clamp(base + FIRST_RECORD, end);
            let to = proven.clamp(from, end);
            let header = proven > from && differs(at(*base)..at(base + FIRST_RECORD));
            let footer = differs(at(end)..at(end) + PAGE);
            !(header || footer || differs(at(from)..at(from) + (to - from) as usize))
        })
    }

    /// What was durable, or what slot, evidence and footers of the file as it was prove to be.
    /// Evidence that is not in the file may come back with an old page.
    fn ever_proven(&self) -> u64 {
        let footers = self.segments.iter().filter_map(|(base, epoch)| {
            self.head.footer(&self.original, *base, *epoch)?;
            Some(self.head.normalize(base + self.head.record_end()))
        });
        let proven = self.proven(&self.original, &self.head).max(self.making.durable);
        proven.max(footers.max().unwrap_or_default())
    }
}

/// Where the ring has been once round, from the slot's `trimmed` on. An older slot than the newest
/// cannot know of what lies there.
fn lap_end(head: &Head) -> u64 {
    let first = head.normalize(head.slot.trimmed) / head.segment_size;
    (first + head.segments) * head.segment_size
}
