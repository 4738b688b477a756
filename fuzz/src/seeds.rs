//! The corpus' seeds, from real logs: `cargo run --no-default-features --example seeds` writes
//! them. What a fuzzer has added is minimised with `cargo fuzz cmin` and lies beside them.

use kaelix_wal::fuzzing::{self, Machine};
use kaelix_wal::{Lsn, OnFull, Position, Wal, simulation};

use crate::format::{HEADER_LEN, PAGE, SLOT_LEN, SLOTS, SUPERBLOCK, put};
use crate::image::{
    LOG_ID, RAW, SEAL_HEADERS, SEAL_RECORDS, SEAL_SLOTS, SEAL_SUPERBLOCK, SOUND_SUPERBLOCK,
    disassemble, quiet,
};

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
    let cut = images().swap_remove(0).1;
    seeds.push(("image", "seed-raw".into(), [&[RAW; 10][..], &cut[..3 * PAGE]].concat()));
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
