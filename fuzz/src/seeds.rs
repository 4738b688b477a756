//! The corpus' seeds, from real logs: `cargo run --no-default-features --example seeds` writes
//! them. What a fuzzer has added is minimised with `cargo fuzz cmin` and lies beside them.

use kaelix_wal::fuzzing::{self, Entry, Machine};
use kaelix_wal::{Lsn, Message, OnFull, Position, Wal, simulation};

use crate::catalog;
use crate::consumers;
use crate::format::{
    BATCH, HEADER_LEN, PAGE, SLOT_LEN, SLOTS, SUPERBLOCK, append_batch, batch, put,
};
use crate::image::{
    LOG_ID, RAW, SEAL_HEADERS, SEAL_RECORDS, SEAL_SLOTS, SEAL_SUPERBLOCK, SOUND_SUPERBLOCK,
    disassemble, quiet,
};
use crate::parity;

/// A seed: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Images of logs in all the states that a crash or a close leaves.
#[must_use]
pub fn images() -> Vec<(&'static str, Vec<u8>)> {
    let mut images = vec![("new", image(2, |_| ()).1)];
    let (disk, cache) = image(2, few);
    images.push(("power-lost", disk));
    images.push(("killed", cache));
    images.push(("abandoned", image(3, abandoned).1));
    images.push(("laps", image(3, laps).0));
    images.push(("closed", closed()));
    images.push(("epochs", epochs()));
    images.push(("sealed", image(2, |wal| fill(wal, 16)).0));
    images.push(("full", image(2, full).0));
    let (disk, cache) = image(2, batches);
    images.push(("batches-power-lost", disk));
    images.push(("batches", cache));
    images
}

/// What a power loss and what a kill leave of a log on which `work` was done.
fn image(segments: u64, work: impl FnOnce(&Wal)) -> (Vec<u8>, Vec<u8>) {
    let geometry = simulation::tiny(segments);
    let machine = Machine::new(simulation::new_image_of(geometry, LOG_ID));
    let wal = machine.open(1, quiet().on_full(OnFull::Overwrite)).expect("a new log opens");
    work(&wal);
    fuzzing::kill(wal);
    (machine.disk(), machine.cache())
}

fn append(wal: &Wal, payload: &[u8]) -> Lsn {
    wal.append(payload).expect("there is room")
}

fn few(wal: &Wal) {
    append(wal, b"first");
    append(wal, b"");
    wal.sync().expect("the disk takes it");
    append(wal, &[b'x'; 33]);
    wal.sync().expect("the disk takes it");
    append(wal, b"not synced");
}

fn abandoned(wal: &Wal) {
    append(wal, b"before");
    std::mem::forget(wal.reserve(100).expect("there is room"));
    append(wal, b"between");
    drop(wal.reserve(40).expect("there is room"));
    std::mem::forget(wal.reserve(4000).expect("there is room"));
    append(wal, b"behind");
}

fn laps(wal: &Wal) {
    for number in 0..20_u8 {
        append(wal, &vec![number; 700 + usize::from(number)]);
        if number % 3 == 0 {
            wal.sync().expect("the disk takes it");
            let end = wal.reader(Position::Newest).expect("the end can be read").position();
            wal.checkpoint(end).expect("the end is a boundary");
        }
    }
}

fn full(wal: &Wal) {
    for number in 0..5_u8 {
        append(wal, &[number; 1300]);
    }
    wal.sync().expect("the disk takes it");
}

fn batches(wal: &Wal) {
    for (count, len) in [(1, 0), (5, 3), (9, 60)] {
        append_batch(wal, count as u8, count, len).expect("there is room");
        wal.sync().expect("the disk takes it");
    }
    append(wal, b"between");
    append_batch(wal, 0, 2, 700).expect("there is room");
}

/// Leaves `rest` bytes of the first segment.
fn fill(wal: &Wal, rest: u64) {
    let geometry = wal.geometry();
    let at = wal.watermarks().reserved.get();
    let room = geometry.segment_size() - PAGE as u64 - at;
    append(wal, &vec![b'f'; (room - rest - 16) as usize]);
    wal.sync().expect("the disk takes it");
}

fn closed() -> Vec<u8> {
    let geometry = simulation::tiny(2);
    let machine = Machine::new(simulation::new_image_of(geometry, LOG_ID));
    let wal = machine.open(1, quiet()).expect("a new log opens");
    few(&wal);
    wal.close().expect("nothing is in the way");
    drop(wal);
    machine.disk()
}

fn epochs() -> Vec<u8> {
    let geometry = simulation::tiny(2);
    let mut image = simulation::new_image_of(geometry, LOG_ID);
    for boot in 1..5 {
        let machine = Machine::new(image);
        let wal = machine.open(boot, quiet()).expect("it recovers");
        few(&wal);
        fuzzing::kill(wal);
        image = machine.disk();
    }
    image
}

/// A batch at the first position of segment 0, its checksum to be put right.
fn batch_record(count: usize, len: usize) -> Vec<u8> {
    let (payload, _) = batch(b'b', count, len);
    let head = [&[3][..], &[0; 6], &1_u64.to_le_bytes(), &1_u64.to_le_bytes(), &[0; 8]].concat();
    let length = (16 + payload.len() as u32).to_le_bytes();
    [&head, &length[..], &[0; 8], &[BATCH, 0, 1, 0], &payload].concat()
}

/// Scripts with batches among other records, over crashes.
fn scripts() -> Vec<Seed> {
    let operations = [
        (19, 40),
        (15, 9),
        (0, 0),
        (19, 900),
        (11, 7),
        (19, 3),
        (5, 0),
        (4, 1),
        (19, 50),
        (6, 0),
        (19, 8),
        (2, 3),
        (3, 0),
        (19, 4000),
        (7, 0),
        (19, 1),
        (4, 0),
    ];
    let bytes = |script: &[(u8, u16)]| -> Vec<u8> {
        let step = |(step, len): &(u8, u16)| [&[*step][..], &len.to_le_bytes()].concat();
        script.iter().flat_map(step).collect()
    };
    let making = [(15, 40), (10, 9), (3, 0), (15, 700), (5, 0), (15, 2), (7, 0), (15, 3500)];
    let mut seeds = Vec::new();
    for mode in 0..6 {
        let input = [&[1, mode][..], &bytes(&operations)].concat();
        seeds.push(("operations", format!("seed-batches-{mode}"), input));
        let count = making.len() as u8;
        let input = [&[mode, count][..], &bytes(&making), &[mode, 0, 9, 9, 9, mode, 7]].concat();
        seeds.push(("mutated_image", format!("seed-batches-{mode}"), input));
    }
    seeds
}

/// All seeds of all targets.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::new();
    for (name, image) in images() {
        let mut add = |target, suffix: &str, bytes| {
            seeds.push((target, format!("seed-{name}{suffix}"), bytes));
        };
        let slots = SLOTS.map(|slot| &image[slot..slot + SLOT_LEN]).concat();
        add("superblock", "", [&[0], &image[SUPERBLOCK]].concat());
        add("superblock", "-sealed", [&[3], &image[SUPERBLOCK]].concat());
        add("checkpoint", "", [&[0x70][..], &slots].concat());
        add("checkpoint", "-sealed", [&[0x7F][..], &slots].concat());
        let segment = &image[3 * PAGE..];
        add("segment_header", "", [&[0, 0, 0, 0, 0], &segment[..HEADER_LEN]].concat());
        add("segment_header", "-sealed", [&[7, 0, 0, 0, 0], &segment[..HEADER_LEN]].concat());
        for (flags, suffix) in [(0, ""), (1, "-sealed"), (7, "-sealed-last")] {
            let head = [&[flags][..], &[0; 6], &1_u64.to_le_bytes(), &2_u64.to_le_bytes(), &[0; 8]];
            add("record", suffix, [head.concat().as_slice(), &segment[HEADER_LEN..300]].concat());
        }
        let seal = SOUND_SUPERBLOCK | SEAL_SLOTS | SEAL_HEADERS | SEAL_RECORDS;
        add("image", "", disassemble(0, 2, 96, &image));
        add("image", "-same-boot", disassemble(0, 1, 64, &image));
        add("image", "-sealed", disassemble(seal, 2, 4160, &image));
    }
    seeds.extend(catalogs());
    for (name, bytes) in parity::seeds() {
        seeds.push(("parity", format!("seed-{name}"), bytes));
    }
    for (name, bytes) in consumers::seeds() {
        seeds.push(("consumers", format!("seed-{name}"), bytes));
    }
    seeds.extend(scripts());
    for (name, count, len) in [("one", 1, 0), ("many", 7, 5), ("long", 2, 300)] {
        seeds.push(("record", format!("seed-batch-{name}"), batch_record(count, len)));
    }
    for target in ["mutated_image", "operations"] {
        for number in 1..=12 {
            seeds.push((
                target,
                format!("seed-{number}"),
                noise(number, 40 + 20 * number as usize),
            ));
        }
    }
    for (name, bytes) in extremes() {
        seeds.push(("image", format!("seed-{name}"), bytes));
    }
    for (name, bytes) in messages() {
        for (flags, suffix) in [(0, ""), (7, "-sealed")] {
            let seed = [&[flags], &bytes[..]].concat();
            seeds.push(("message", format!("seed-{name}{suffix}"), seed));
        }
    }
    let cut = images().swap_remove(0).1;
    seeds.push(("image", "seed-raw".into(), [&[RAW; 10][..], &cut[..3 * PAGE]].concat()));
    seeds
}

/// Catalogs: as bytes in all states of an addition, and scripts.
fn catalogs() -> Vec<Seed> {
    let created = |name: &str, versioned| Entry::Created(name.to_owned(), versioned);
    let additions = [
        vec![created("one", false)],
        vec![created("two", true), Entry::Position(2, 3, Lsn::new(96)), created("three", false)],
        vec![Entry::Other(1, 0x89, 0, vec![7; 20]), created("four", false)],
    ];
    let [before, all] = [2, 3].map(|n| fuzzing::catalog_image(&catalog::LOG_ID, &additions[..n]));
    let mut torn = all.clone();
    torn[before.len() + 20] ^= 1;
    let states = [
        ("whole", &all, &all),
        ("in-a", &all, &before),
        ("in-b", &all, &torn),
        ("torn-in-a", &torn, &before),
        ("damaged-in-both", &torn, &torn),
    ];
    let mut seeds: Vec<Seed> = Vec::new();
    for (name, a, b) in states {
        for (flags, suffix) in [(0, ""), (0xF, "-sealed")] {
            let head = [flags, a.len() as u8, (a.len() >> 8) as u8];
            let bytes = [&head[..], a, b].concat();
            seeds.push(("catalog", format!("seed-{name}{suffix}"), bytes));
        }
    }
    for mode in 0..4 {
        let script = [0, 3, 8, 200, 2, 1, 1, 50, 4, 60, 5, 7, 0, 90, 0xFF, 0];
        let damage = [mode, 30, 0, 2, 100, 0, 5, 200, 0, 1];
        let bytes = [&[catalog::SCRIPT][..], &script, &damage].concat();
        seeds.push(("catalog", format!("seed-script-{mode}"), bytes));
    }
    seeds
}

/// Images with right checksums and fields that no log has, or one in a million years.
fn extremes() -> Vec<(&'static str, Vec<u8>)> {
    let few = || image(2, few).0;
    let sealed = |flags, image: &[u8]| disassemble(flags, 2, 64, image);
    let mut seeds = Vec::new();
    for (name, at, value) in [("version", 8, 9), ("features", 24, 8), ("align", 60, 32)] {
        let mut image = few();
        image[at] = value;
        seeds.push((name, sealed(SEAL_SUPERBLOCK, &image)));
    }
    seeds.push(("short", vec![RAW; 100]));
    let all = SEAL_SLOTS | SEAL_HEADERS | SEAL_RECORDS;
    // The last segment that a log can have lies in the second of two places.
    let last = u64::from(u32::MAX) * 8192;
    for (name, offset) in [("last-segment", 64), ("last-records", 4032), ("last-place", 4096)] {
        let mut image = few();
        put(&mut image, 5 * PAGE, &few()[3 * PAGE..5 * PAGE]);
        put(&mut image, 5 * PAGE, &(1_u64 << 32).to_le_bytes());
        for slot in SLOTS {
            for field in [24, 32, 40] {
                put(&mut image, slot + field, &(last + offset).to_le_bytes());
            }
        }
        seeds.push((name, sealed(all, &image)));
    }
    for (name, epoch) in [("last-epoch", u64::MAX - 1), ("no-epoch-left", u64::MAX)] {
        let mut image = few();
        put(&mut image, 3 * PAGE + 16, &epoch.to_le_bytes());
        seeds.push((name, sealed(all, &image)));
    }
    // A footer that says something else than its segment, with a right checksum.
    let mut lying = image(2, |wal| fill(wal, 0)).1;
    lying[4 * PAGE + 56] ^= 1;
    seeds.push(("lying-footer", sealed(SEAL_HEADERS, &lying)));
    seeds
}

/// Messages with and without each part, and one with optional fields.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let encode = |message: Message<'_, &[u8]>| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).expect("all of it is short");
        bytes
    };
    let headers: [(&str, &[u8]); 4] =
        [("trace", b"a1"), ("clé", b""), ("", b"no name"), ("trace", b"\0\xFF")];
    let full = Message::new(&b"12 pieces"[..]).id(u128::MAX / 3).timestamp_nanos(-1);
    let full = full.topic("\u{1F980} orders").key(b"c17").headers(&headers);
    let mut fields = encode(Message::new(&b""[..]).topic("fields"));
    fields[12] = 15;
    fields.truncate(54);
    fields.extend([1, 0, 3, 0, 0, 0, b'a', b'b', b'c', 0xFF, 0x7F, 0, 0, 0, 0]);
    fields.resize(72, 0);
    vec![
        ("empty", encode(Message::new(&b""[..]))),
        ("empty-key", encode(Message::new(&[7; 40][..]).key(b""))),
        ("full", encode(full)),
        ("fields", fields),
    ]
}

/// The same bytes for the same seed, for targets whose inputs are scripts.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
