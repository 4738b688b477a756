//! The format is frozen: images that an earlier build wrote open, with the same records, and a
//! reader that was written from `docs/format.md` alone finds the same in them as this build.
//!
//! The images are in `tests/golden/`, as lines `offset: 16 bytes` of what is not zero, behind lines
//! that say which records are in them. `KAELIX_BLESS=1` writes them anew: only for a format that
//! has not been released.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{DATA_OFFSET, Place, SEGMENT, copy_log, crc32, crc32_from, numbered, read_all};
use kaelix_wal::{Geometry, Lsn, Options, Position, ProducerId, RecoveryOutcome, Wal};

/// A record by its position, its length and the CRC-32 of its payload.
type Summary = (u64, usize, u32);

struct Golden {
    records: Vec<Summary>,
    image: Vec<u8>,
}

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn load(name: &str) -> Golden {
    let path = golden_path(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut golden = Golden { records: Vec::new(), image: vec![0; geometry().file_len() as usize] };
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| -> u64 { fields[index].parse().expect("a number") };
        if fields[0] == "record" {
            golden.records.push((number(1), number(2) as usize, number(3) as u32));
        } else if fields[0] != "#" {
            let offset: usize = fields[0].trim_end_matches(':').parse().expect("an offset");
            let row = u128::from_str_radix(fields[1], 16).expect("16 bytes");
            golden.image[offset..offset + 16].copy_from_slice(&row.to_be_bytes());
        }
    }
    golden
}

fn save(name: &str, from: &Path, records: &[Summary]) {
    let mut text = format!("# {name}: written by tests/format_freeze.rs\n");
    for (lsn, len, crc) in records {
        writeln!(text, "record {lsn} {len} {crc}").expect("into memory");
    }
    let image = fs::read(from.join("ring")).expect("the ring can be read");
    for (index, row) in image.chunks_exact(16).enumerate() {
        let value = u128::from_be_bytes(row.try_into().expect("16 bytes"));
        if value != 0 {
            writeln!(text, "{}: {value:032x}", index * 16).expect("into memory");
        }
    }
    fs::write(golden_path(name), text).expect("the image can be written");
}

fn geometry() -> Geometry {
    Geometry::new(2 * SEGMENT, SEGMENT).expect("the smallest there is")
}

fn summary(lsn: Lsn, payload: &[u8]) -> Summary {
    (lsn.get(), payload.len(), crc32(payload))
}

fn summaries(wal: &Wal) -> Vec<Summary> {
    let records = read_all(wal, Position::Oldest);
    records.iter().map(|(lsn, payload)| summary(*lsn, payload)).collect()
}

/// Writes both images: epochs, laps, pads, evidence, a claim. What is long is zero, and so is not
/// in the text.
fn bless() {
    let place = Place::new();
    let wal = Wal::create(&place.path, geometry(), Options::new()).expect("a new log");
    wal.append(b"of a segment that is gone").expect("space");
    wal.close().expect("no hole");
    drop(wal);
    let wal = place.open(Options::new());
    wal.append(&[0; 50_000]).expect("space");
    let second = wal.append_durable(&[0; 50_000]).expect("space");
    wal.checkpoint(second).expect("a record starts there");
    for len in [0, 1, 15, 16, 17, 100] {
        wal.append(&numbered(1, len, len as usize)).expect("space");
    }
    wal.append_durable(b"all of it is durable").expect("space");
    drop(wal);
    let wal = place.open(Options::new());
    wal.append(&[0; 30_000]).expect("space in the next lap");
    wal.reserve(40).expect("space").abort();
    let mut longer = wal.reserve(100).expect("space");
    longer[..5].copy_from_slice(b"short");
    longer.commit_len(5);
    wal.append_durable(b"the last durable one").expect("space");
    evidence_at_a_distance(&wal);
    wal.append(b"a committed one").expect("space");
    wal.sync_checkpoint().expect("no sync failed");
    let prefix = summaries(&wal);
    let mut open = wal.reserve(24).expect("space");
    wal.append(b"behind the claim").expect("space");
    let copy = place.beside("copy");
    copy_log(&place.path, &copy);
    save("v1-lost-power.txt", &copy, &prefix);
    open.copy_from_slice(b"this was late, but came.");
    open.commit();
    wal.close().expect("no hole");
    save("v1-closed.txt", &place.path, &summaries(&wal));
}

/// Syncs up to an open reservation: the evidence lands behind it and points back over it.
fn evidence_at_a_distance(wal: &Wal) {
    let before = wal.append(b"in front of it").expect("space");
    let mut open = wal.reserve(70).expect("space");
    wal.wait_durable(before).expect("in front of the hole");
    open.fill(b'-');
    open.commit();
}

/// Opens an image; returns what was found.
fn open_image(golden: &Golden) -> (RecoveryOutcome, Vec<Summary>, Lsn) {
    let place = Place::new();
    fs::create_dir(&place.path).expect("a new directory");
    fs::write(place.ring(), &golden.image).expect("the image can be written");
    let wal = place.open(Options::new());
    let outcome = wal.recovery_report().outcome;
    let (found, end) = (summaries(&wal), wal.recovery_report().end);
    wal.append_durable(b"and it goes on").expect("space");
    drop(wal);
    let wal = place.open(Options::new());
    assert_eq!(summaries(&wal).len(), found.len() + 1);
    (outcome, found, end)
}

fn le<const LEN: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word[..LEN].copy_from_slice(&bytes[offset..offset + LEN]);
    u64::from_le_bytes(word)
}

/// The slot that counts, as a slice.
fn newest_slot(image: &[u8]) -> &[u8] {
    let valid =
        [4096, 8192].into_iter().map(|offset| &image[offset..offset + 256]).filter(|slot| {
            slot[..8] == *b"KAELIXCP"
                && slot[48..64] == image[32..48]
                && le::<4>(slot, 252) == u64::from(crc32(&slot[..252]))
        });
    valid.max_by_key(|slot| le::<8>(slot, 8)).expect("one of them is whole")
}

/// A record, as the page says that one is to be read.
struct Read {
    lsn: u64,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// "Reading a log", word for word, up to where nothing verifies.
fn read_by_the_page(image: &[u8]) -> Vec<Read> {
    let (segment_size, segments) = (le::<8>(image, 48), le::<4>(image, 56));
    let data_offset = le::<8>(image, 64);
    let log_id = &image[32..48];
    let slot = newest_slot(image);
    let record_end = segment_size - 4096;
    let mut lsn = le::<8>(slot, 32);
    let (mut epoch, mut entered, mut records) = (0, None, Vec::new());
    let start = lsn;
    loop {
        if lsn % segment_size == record_end {
            lsn += 4096 + 64;
        }
        let (sequence, offset) = (lsn / segment_size, lsn % segment_size);
        if sequence - start / segment_size >= segments {
            return records;
        }
        let base = (data_offset + sequence % segments * segment_size) as usize;
        let header = &image[base..base + 64];
        if entered != Some(sequence) {
            let sound = le::<8>(header, 0) == sequence + 1
                && le::<8>(header, 8) == sequence * segment_size
                && le::<8>(header, 16) >= epoch
                && header[24..40] == *log_id
                && le::<4>(header, 60) == u64::from(crc32(&header[..60]));
            if !sound {
                return records;
            }
            epoch = le::<8>(header, 16);
            entered = Some(sequence);
        }
        let at = base + offset as usize;
        let length = le::<4>(image, at);
        if length < 16 || length > record_end - offset {
            return records;
        }
        let record = &image[at..at + length as usize];
        let first = records.is_empty();
        match verified_epoch(record, lsn, log_id, epoch, first.then(|| le::<8>(slot, 16))) {
            Some(found) => epoch = found,
            None => return records,
        }
        records.push(Read {
            lsn,
            kind: record[12],
            flags: record[13],
            stream: le::<4>(record, 8) as u32,
            payload: record[16..].to_vec(),
        });
        lsn += length.next_multiple_of(16);
    }
}

/// The epoch of a record that verifies; `newest` for the very first one.
fn verified_epoch(
    record: &[u8],
    lsn: u64,
    log_id: &[u8],
    running: u64,
    newest: Option<u64>,
) -> Option<u64> {
    let (kind, flags) = (record[12], record[13]);
    let epoch = if (kind, flags) == (5, 1) {
        le::<8>(record, 16)
    } else {
        let ahead = le::<2>(record, 14).wrapping_sub(running) & 0xFFFF;
        if ahead > 0 && newest.is_none_or(|newest| running + ahead > newest) {
            return None;
        }
        running + ahead
    };
    let seed = crc32_from(&epoch.to_le_bytes(), crc32(log_id));
    let stream = (le::<4>(record, 8) as u32).wrapping_mul(0x9E37_79B1);
    let kind_word = (le::<4>(record, 12) as u32).wrapping_mul(0x85EB_CA77).rotate_left(15);
    let length = (le::<4>(record, 0) as u32).wrapping_mul(0xC2B2_AE3D).rotate_left(7);
    let payload = if kind == 2 { &[] } else { &record[16..] };
    let body = crc32_from(payload, seed ^ stream ^ kind_word ^ length);
    let p = lsn >> 4;
    let fold = (p ^ (p >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (le::<4>(record, 4) == u64::from(body) ^ fold).then_some(epoch)
}

/// "Footer", word for word: compares each that is there with the commit words of its segment;
/// returns how many there are.
fn footers_by_the_page(image: &[u8]) -> usize {
    let (segment_size, data_offset) = (le::<8>(image, 48) as usize, le::<8>(image, 64) as usize);
    let segments = image[data_offset..].chunks_exact(segment_size);
    let footers = segments.filter(|segment| {
        let footer = &segment[segment_size - 4096..][..128];
        if footer[..8] != *b"KAELIXFT" {
            return false;
        }
        let base = le::<8>(segment, 8);
        assert_eq!((le::<8>(footer, 8), &footer[24..40]), (base, &image[32..48]));
        assert!(le::<8>(footer, 16) >= le::<8>(segment, 16), "its epoch");
        let (mut words, mut data, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut producers: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut at = 64;
        while at < segment_size - 4096 {
            let length = le::<4>(segment, at);
            words.extend_from_slice(&segment[at..at + 8]);
            if [1, 3].contains(&segment[at + 12]) {
                data.push(base + at as u64);
                bytes += length - 16;
            }
            if [1, 3].contains(&segment[at + 12]) && segment[at + 13] & 1 != 0 {
                let (producer, sequence) = (le::<8>(segment, at + 16), le::<8>(segment, at + 24));
                producers.entry(producer).or_insert((sequence, sequence)).1 = sequence;
            }
            at += length.next_multiple_of(16) as usize;
        }
        assert_eq!(le::<8>(footer, 40), *data.first().expect("a record"), "first");
        assert_eq!(le::<8>(footer, 48), *data.last().expect("a record"), "last");
        assert_eq!((le::<8>(footer, 56), le::<8>(footer, 64)), (data.len() as u64, bytes));
        let list = &segment[segment_size - 4096 + 128..][..24 * le::<4>(footer, 72) as usize];
        assert_eq!(le::<4>(footer, 76), u64::from(crc32(list)), "the list of producers");
        let listed = list
            .chunks_exact(24)
            .map(|entry| (le::<8>(entry, 0), (le::<8>(entry, 8), le::<8>(entry, 16))));
        assert!(listed.eq(producers), "the producers");
        assert_eq!(le::<4>(footer, 120), u64::from(crc32(&words)), "roll-up");
        assert_eq!(le::<4>(footer, 124), u64::from(crc32(&footer[..124])), "checksum");
        true
    });
    footers.count()
}

/// The callers' records among them, without their stamps.
fn data(records: &[Read]) -> Vec<Summary> {
    let data = records.iter().filter(|record| [1, 3].contains(&record.kind));
    let body = |record: &Read| record.payload[16 * usize::from(record.flags & 1)..].to_vec();
    data.map(|record| summary(Lsn::new(record.lsn), &body(record))).collect()
}

#[test]
fn golden_images_open_with_the_same_records() {
    if common::number("KAELIX_BLESS", 0) == 1 {
        bless();
    }
    for (name, want) in [
        ("v1-closed.txt", RecoveryOutcome::Clean),
        ("v1-lost-power.txt", RecoveryOutcome::PowerLost),
    ] {
        let golden = load(name);
        let (outcome, found, end) = open_image(&golden);
        assert_eq!((outcome, &found), (want, &golden.records), "{name}");
        assert!(found.len() >= 9 && found.last().is_some_and(|last| last.0 < end.get()));
        let read = read_by_the_page(&golden.image);
        assert_eq!(data(&read), golden.records, "{name}, read by the page");
        assert_eq!(footers_by_the_page(&golden.image), 1, "{name}: the sealed segment's footer");
    }
}

#[test]
fn the_fields_are_where_the_page_says() {
    let golden = load("v1-closed.txt");
    let image = &golden.image;
    assert_eq!(image[..8], *b"KAELIXWL");
    assert_eq!((le::<4>(image, 8), le::<4>(image, 12)), (1, 128));
    assert_eq!((le::<8>(image, 16), le::<8>(image, 24)), (0, 0));
    assert_ne!(image[32..48], [0; 16], "a random id");
    assert_eq!((le::<8>(image, 48), le::<4>(image, 56)), (SEGMENT, 2));
    assert_eq!((le::<4>(image, 60), le::<8>(image, 64)), (16, DATA_OFFSET));
    assert!(image[80..124].iter().chain(&image[128..4096]).all(|byte| *byte == 0));
    assert_eq!(le::<4>(image, 124), u64::from(crc32(&image[..124])));
    assert!(image[12_288..DATA_OFFSET as usize].iter().all(|byte| *byte == 0));

    let slot = newest_slot(image);
    let (epoch, start, trimmed) = (le::<8>(slot, 16), le::<8>(slot, 24), le::<8>(slot, 32));
    let durable = le::<8>(slot, 40);
    assert!(
        epoch == 3 && trimmed < start && start < durable,
        "{epoch} {trimmed} {start} {durable}"
    );
    assert_eq!(le::<4>(slot, 88), 1, "closed in order");
    // Recovery in its last open: closed in order (1), cut where the epoch began.
    assert_eq!((le::<4>(slot, 104), le::<8>(slot, 136)), (1, start));
    assert_eq!(le::<8>(slot, 128), trimmed);

    for (place, sequence) in [(0, 2_u64), (1, 1)] {
        let base = DATA_OFFSET as usize + place * SEGMENT as usize;
        let header = &image[base..base + 64];
        assert_eq!((le::<8>(header, 0), le::<8>(header, 8)), (sequence + 1, sequence * SEGMENT));
        assert_eq!(header[24..40], image[32..48]);
        let footer = base + SEGMENT as usize - 4096;
        assert_eq!(image[footer..footer + 8] == *b"KAELIXFT", sequence == 1, "one is sealed");
        assert_eq!((le::<4>(image, footer + 72), le::<4>(image, footer + 76)), (0, 0));
        assert!(image[footer + 80..footer + 120].iter().all(|byte| *byte == 0), "reserved");
        assert!(image[footer + 128..footer + 4096].iter().all(|byte| *byte == 0), "unused");
    }
}

/// What this build writes now is read by the page, too: all kinds of records.
#[test]
fn a_log_of_this_build_reads_by_the_page() {
    let place = Place::new();
    let (mut kinds, mut distant, mut footers) = ([0; 6], 0, 0);
    drop(place.create(Options::new()));
    for round in 0..4 {
        let wal = place.open(Options::new());
        evidence_at_a_distance(&wal);
        for number in 0..40 {
            wal.append(&numbered(round, number, 37 * number as usize)).expect("space");
            let producer = wal.idempotent(ProducerId::new(number % 3)).expect("nothing is damaged");
            let sequence = u64::from(round) * 100 + number;
            let stamped = match number % 2 {
                0 => producer.append(sequence, b"stamped"),
                _ => producer.append_batch(sequence, ["stamped", "too"]),
            };
            assert!(!stamped.expect("space").duplicate);
            if number % 9 == 0 {
                wal.sync().expect("no hole");
                wal.reserve(10 * number as usize).expect("space").abort();
            }
        }
        wal.close().expect("no hole");
        let mut image = vec![0; common::small().file_len() as usize];
        let ring = File::open(place.ring()).expect("it is there");
        ring.read_exact_at(&mut image, 0).expect("as long as its sizes say");
        let read = read_by_the_page(&image);
        assert_eq!(data(&read), summaries(&wal));
        footers += footers_by_the_page(&image);
        for record in &read {
            kinds[record.kind as usize] += 1;
            if (record.kind, record.flags) == (5, 2) {
                distant += u32::from(record.stream > 0);
                let durable = record.lsn - u64::from(record.stream) * 16;
                assert!(record.payload.is_empty() && durable <= record.lsn);
                let boundary = read.iter().any(|other| other.lsn == durable);
                assert!(boundary || durable <= read[0].lsn || durable % SEGMENT == 64, "{durable}");
            }
        }
    }
    assert!(footers >= 1, "{footers} footers");
    assert!(distant >= 4, "{distant} records of evidence with a distance");
    assert!(kinds[1] >= 160 && kinds[2] >= 20 && kinds[5] >= 20, "{kinds:?}");
}
