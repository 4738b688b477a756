//! Any bytes as a whole ring file: opened and recovered, and looked at from outside.
//!
//! Input: one byte of flags, the boot that opens it, a position to ask for (8 bytes), then extents:
//! a place in the file in units of 16 bytes (2 bytes), a length (2 bytes), and that many bytes.
//! With [`RAW`] the rest of the input is the file as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use kaelix_wal::fuzzing::{self, Machine};
use kaelix_wal::inspect::{Cursor, Observer};
use kaelix_wal::{
    AppendError, Durability, Lsn, OnFull, OpenError, Options, Position, ReadError, Verify, Wal,
    simulation,
};

use crate::format::{
    FIRST_RECORD, FOOTER_LEN, FOOTER_SUMS, HEADER_LEN, PAGE, SLOT_LEN, SLOTS, SUPERBLOCK, put,
    seal_at, u32_at, u64_at,
};
use crate::record::seal;
use crate::reference::{self, Found, Head, footer_of};

/// The input is the file as it is, byte for byte.
pub const RAW: u8 = 1;
/// Magic, version, log id and a small geometry are put right; bits 6 and 7 add segments.
pub const SOUND_SUPERBLOCK: u8 = 2;
/// Checksums are put right: of the superblock, of the slots, of segment headers, of records.
pub const SEAL_SUPERBLOCK: u8 = 4;
pub const SEAL_SLOTS: u8 = 8;
pub const SEAL_HEADERS: u8 = 16;
pub const SEAL_RECORDS: u8 = 32;

/// The id of the logs that the targets make.
pub const LOG_ID: [u8; 16] = *b"a log to confuse";
const LEN_MAX: usize = 1 << 20;
const HEAD: usize = 10;

/// A record as the library returned it.
pub type Returned = (u64, Vec<u8>);

pub fn run(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(HEAD) else { return };
    let image = if head[0] & RAW != 0 { rest.to_vec() } else { assemble(head[0], rest) };
    open(&image, head[1]);
    observe(&image, Lsn::new(u64_at(head, 2)));
}

/// The input for an image: what is not zero of it, as extents.
#[must_use]
pub fn disassemble(flags: u8, boot: u8, position: u64, image: &[u8]) -> Vec<u8> {
    let mut input = vec![flags, boot];
    input.extend_from_slice(&position.to_le_bytes());
    let units: Vec<&[u8]> = image.chunks(16).collect();
    let mut at = 0;
    while at < units.len() {
        let is_zero = |unit: &&[u8]| unit.iter().all(|byte| *byte == 0);
        let len = units[at..].iter().take(64).take_while(|unit| !is_zero(unit)).count();
        if len > 0 {
            let bytes = units[at..at + len].concat();
            input.extend_from_slice(&(at as u16).to_le_bytes());
            input.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            input.extend_from_slice(&bytes);
        }
        at += len.max(1);
    }
    input
}

fn assemble(flags: u8, mut extents: &[u8]) -> Vec<u8> {
    let mut image = vec![0; LEN_MAX];
    let mut end = 0;
    while let Some((place, rest)) = extents.split_at_checked(4) {
        let at = usize::from(u32_at(place, 0) as u16) * 16;
        let len = usize::from((u32_at(place, 0) >> 16) as u16).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        put(&mut image, at, bytes);
        end = end.max(at + len);
        extents = rest;
    }
    if flags & SOUND_SUPERBLOCK != 0 {
        let geometry = simulation::tiny(2 + u64::from(flags >> 6));
        put(&mut image, 0, &simulation::new_image_of(geometry, LOG_ID)[SUPERBLOCK]);
    }
    if flags & SEAL_SUPERBLOCK != 0 {
        seal_at(&mut image, SUPERBLOCK);
    }
    let sizes = reference::superblock(&image);
    let len = sizes.map(|(_, size, segments, data)| data.saturating_add(size * segments));
    image.truncate(len.map_or(end, |len| len as usize).min(LEN_MAX));
    if let Some((log_id, size, _, data)) = sizes {
        seal_all(&mut image, flags, log_id, size as usize, data as usize);
    }
    image
}

fn seal_all(image: &mut [u8], flags: u8, log_id: [u8; 16], size: usize, data: usize) {
    for slot in SLOTS.into_iter().filter(|_| flags & SEAL_SLOTS != 0) {
        if u64_at(image, slot) != 0 {
            put(image, slot, b"KAELIXCP");
            put(image, slot + 48, &log_id);
            seal_at(image, slot..slot + SLOT_LEN);
        }
    }
    for segment in (data..image.len()).step_by(size) {
        let word = u64_at(image, segment);
        if flags & SEAL_HEADERS != 0 && word != 0 {
            let base = (word - 1).wrapping_mul(size as u64);
            put(image, segment + 8, &base.to_le_bytes());
            put(image, segment + 24, &log_id);
            seal_at(image, segment..segment + HEADER_LEN);
        }
        let footer = segment + size - PAGE;
        let is_to_sum = flags & SEAL_RECORDS != 0;
        let sums = is_to_sum.then(|| seal_segment(image, segment, size, log_id));
        if flags & SEAL_HEADERS != 0 && u64_at(image, footer) != 0 {
            put(image, footer, b"KAELIXFT");
            put(image, footer + 8, &u64_at(image, segment + 8).to_le_bytes());
            put(image, footer + 24, &log_id);
            put(image, footer + FOOTER_SUMS.start, sums.as_ref().map_or(&[], |sums| &sums[..]));
            seal_at(image, footer..footer + FOOTER_LEN);
        }
    }
}

/// Walks a segment's records by their lengths and puts each checksum right. Returns what a footer
/// says of them.
fn seal_segment(image: &mut [u8], segment: usize, size: usize, log_id: [u8; 16]) -> [u8; 84] {
    let base = u64_at(image, segment + 8);
    let mut epoch = u64_at(image, segment + 16);
    let mut offset = FIRST_RECORD as usize;
    let mut records = Vec::new();
    while offset + 16 <= size - PAGE {
        let at = segment + offset;
        let len = u32_at(image, at) as usize;
        if !(16..=size - PAGE - offset).contains(&len) {
            break;
        }
        let lsn = base.wrapping_add(offset as u64);
        epoch = seal(image, at, epoch, lsn, log_id);
        offset += len.next_multiple_of(16);
        let (end, kind) = (lsn.wrapping_add(len as u64), image[at + 12]);
        let payload = at + 16..at + len;
        records.push(Found { lsn, end, epoch, kind, flags: 0, stream: 0, payload });
    }
    footer_of(image, &records)
}

/// Options under which nothing happens by itself: no flusher, and a full ring refuses. All of the
/// log is verified when it is opened.
#[must_use]
pub fn quiet() -> Options {
    let options = Options::new().durability(Durability::None).on_full(OnFull::Fail);
    options.verify(Verify::Full)
}

/// Everything that the log returns.
#[must_use]
pub fn contents(wal: &Wal) -> Vec<Returned> {
    let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
    let mut records = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                assert!(record.next_lsn().get() > record.lsn().get());
                records.push((record.lsn().get(), record.payload().to_vec()));
            }
            Ok(None) => return records,
            Err(ReadError::Gap { lsn, next }) => assert!(next > lsn),
            Err(error) => panic!("recovery has verified what it kept: {error}"),
        }
    }
}

/// What a second reader finds: callers' records, and where they end.
#[must_use]
pub fn expected(head: &Head, image: &[u8], heeds_clean: bool) -> (Vec<Returned>, u64) {
    let walk = head.walk(image, heeds_clean);
    let start = head.normalize(head.slot.trimmed);
    let is_shown = |found: &Found| found.is_callers() && found.is_shown(image, start);
    let data = walk.records.into_iter().filter(is_shown);
    (data.map(|found| (found.lsn, image[found.body()].to_vec())).collect(), walk.end)
}

/// Opens the image and judges what came of it.
fn open(image: &[u8], boot: u8) {
    let head = Head::of(image);
    let machine = Machine::new(image.to_vec());
    match (machine.open(boot, quiet()), head) {
        (Ok(wal), Some(head)) => opened(&wal, image, &head, boot).goes_on(wal, &machine, boot),
        (Ok(_), None) => panic!("a head that is none was believed"),
        (Err(error), head) => {
            assert!(machine.cache().starts_with(image), "a refusal changed something: {error}");
            refused(&error, image, head.as_ref(), boot);
        }
    }
}

/// A refusal has its reason in the image.
fn refused(error: &OpenError, image: &[u8], head: Option<&Head>, boot: u8) {
    assert!(!error.to_string().is_empty());
    let Some(head) = head else {
        let is_about_head = matches!(
            error,
            OpenError::NotALog { .. }
                | OpenError::Version { .. }
                | OpenError::Features { .. }
                | OpenError::Length { .. }
                | OpenError::NoCheckpoint(_)
        );
        return assert!(is_about_head, "{error}");
    };
    match error {
        OpenError::Corrupt { damage, .. } => {
            let walk = head.walk(image, true);
            let at = damage.lsn.get();
            if walk.disagrees.is_some() {
                return assert_eq!(walk.disagrees, Some(at), "{error}");
            }
            assert!(damage.durable > damage.lsn || damage.reason.contains("later lap"), "{error}");
            // Damage of a segment's header is there, wherever in the segment the log begins.
            let place =
                if damage.reason.contains("segment") { at - at % head.segment_size } else { at };
            assert_eq!(damage.file_offset, head.file_offset(place) as u64, "{error}");
            let end = head.normalize(walk.end);
            assert!(at == end || (is_same_boot(head, boot) && at > end), "{error}, not {end}");
        }
        OpenError::Exhausted(_) => {}
        other => panic!("a sound head was refused: {other}"),
    }
}

fn is_same_boot(head: &Head, boot: u8) -> bool {
    let Head { slot, .. } = head;
    boot != 0 && slot.boot_id == [boot; 16] && slot.file_identity == 1 && !slot.poisoned
}

/// What an open log held, and must hold on.
pub(crate) struct Opened(pub(crate) Vec<Returned>);

fn opened(wal: &Wal, image: &[u8], head: &Head, boot: u8) -> Opened {
    let report = wal.recovery_report();
    assert!(!report.to_string().is_empty());
    let found = contents(wal);
    let (want, end) = expected(head, image, true);
    assert_eq!(head.walk(image, true).disagrees, None, "a footer says something else");
    if is_same_boot(head, boot) && report.holes_padded > 0 {
        assert!(found.starts_with(&want), "what verifies was not returned");
        assert!(found.is_sorted_by_key(|(lsn, _)| *lsn));
        // Beside records that are not shown.
        assert!(report.records >= found.len() as u64, "{report}");
        let bytes = found.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        assert!(report.payload_bytes >= bytes, "{report}");
    } else {
        assert!(found == want, "another log than a second reader finds");
        let records = head.walk(image, true).records;
        let callers = || records.iter().filter(|found| found.is_callers());
        assert_eq!(report.records, callers().count() as u64);
        let bytes = callers().map(|found| found.payload.len() as u64).sum::<u64>();
        assert_eq!(report.payload_bytes, bytes);
        // The rest of a segment too short for the epoch's first record becomes a pad.
        let rest = report.end.get() - end;
        assert!(rest < head.record_end() && report.start.get() == head.slot.trimmed, "{report}");
    }
    let lap = head.normalize(head.slot.trimmed) / head.segment_size + head.segments;
    let lap_end = lap * head.segment_size + FIRST_RECORD;
    let durable = head.normalize(head.slot.durable).min(lap_end);
    assert!(head.normalize(report.end.get()) >= durable, "cut below what was durable: {report}");
    assert!(report.epoch > head.slot.epoch);
    for (lsn, payload) in &found {
        let record = wal.get(Lsn::new(*lsn)).expect("it was read a moment ago");
        assert!(record.payload() == payload);
    }
    Opened(found)
}

impl Opened {
    /// The log takes records, and holds them and the old ones whatever comes.
    pub(crate) fn goes_on(mut self, wal: Wal, machine: &Machine, boot: u8) {
        for payload in [&b"one more"[..], b"", &[0xA5; 100]] {
            match wal.append(payload) {
                Ok(lsn) => self.0.push((lsn.get(), payload.to_vec())),
                Err(AppendError::Full { .. } | AppendError::Exhausted) => {}
                Err(error) => panic!("{error}"),
            }
        }
        wal.sync().expect("the disk takes it");
        assert!(contents(&wal) == self.0, "a record was lost in the open log");
        fuzzing::kill(wal);
        let next = Machine::new(machine.disk());
        // The epochs may be used up by then.
        match next.open(boot.wrapping_add(1), quiet()) {
            Ok(wal) => assert!(contents(&wal) == self.0, "a record was lost by a power loss"),
            Err(error) => assert!(matches!(error, OpenError::Exhausted(_)), "{error}"),
        }
    }
}

/// A directory in memory with the ring file that is looked at.
fn scratch() -> &'static Mutex<(tempfile::TempDir, PathBuf)> {
    static SCRATCH: OnceLock<Mutex<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let root = tempfile::tempdir_in(root).expect("a temporary directory can be made");
        let dir = root.path().to_owned();
        Mutex::new((root, dir))
    })
}

/// Looks at the image from outside: every record that is shown verifies. Returns what is shown from
/// the oldest on.
pub fn observe(image: &[u8], position: Lsn) -> Vec<Returned> {
    let scratch = scratch().lock().unwrap_or_else(PoisonError::into_inner);
    let dir = &scratch.1;
    fs::write(dir.join("ring"), image).expect("a small file can be written");
    let head = Head::of(image);
    let (mut observer, head) = match (Observer::open(dir), head) {
        (Ok(observer), Some(head)) => (observer, head),
        (Ok(_), None) => panic!("a head that is none was believed"),
        (Err(error), None) => {
            assert!(!error.to_string().is_empty());
            return Vec::new();
        }
        (Err(error), Some(_)) => panic!("a sound head was refused: {error}"),
    };
    if let Ok(stat) = observer.stat() {
        let trimmed = head.normalize(head.slot.trimmed);
        assert_eq!((stat.epoch, stat.trimmed.get()), (head.slot.epoch, trimmed));
        assert!(stat.durable <= stat.committed && stat.segment_map.len() as u64 == head.segments);
        assert!(!stat.last_recovery.to_string().is_empty());
    }
    let mut oldest = Vec::new();
    for from in [Position::At(position), Position::Newest, Position::Oldest] {
        match observer.cursor(from) {
            Ok(cursor) => oldest = show(cursor, image, &head),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let (want, _) = expected(&head, image, false);
    assert!(want.starts_with(&oldest) || oldest.starts_with(&want), "another log than there is");
    oldest
}

/// What the cursor shows.
fn show(mut cursor: Cursor, image: &[u8], head: &Head) -> Vec<Returned> {
    let mut shown = Vec::new();
    let mut end = cursor.position();
    loop {
        match cursor.next() {
            Ok(Some(record)) => {
                assert!(record.lsn() >= end && record.next_lsn() > record.lsn(), "not in order");
                end = record.next_lsn();
                shown.push((record.lsn().get(), record.payload().to_vec()));
            }
            Ok(None) => break,
            Err(ReadError::Gap { lsn, next }) => assert!(next > lsn),
            Err(ReadError::Damaged { .. }) => break,
            Err(error) => panic!("nobody writes here: {error}"),
        }
    }
    for (lsn, payload) in &shown {
        // Of the epochs with these low bits, the newest that has begun.
        let low = u64::from(u32_at(image, head.file_offset(*lsn) + 12) >> 16);
        let epoch = head.slot.epoch.checked_sub(head.slot.epoch.wrapping_sub(low) & 0xFFFF);
        let found = epoch.and_then(|epoch| head.record_of(image, *lsn, epoch));
        let is_same = found.is_none_or(|found| image[found.body()] == *payload);
        assert!(is_same, "the record at {lsn} was altered");
    }
    shown
}
