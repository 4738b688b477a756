//! One hot path at a time, again and again: for profilers, and for counts of instructions.
//!
//! `cargo bench --bench hot_paths -- PATH COUNT` runs one path that often; without arguments, each
//! of them, and prints nanoseconds for each call. Nothing is compared here: `wal_benchmarks` is for
//! that. All that matters happens in [`measured`], whose name `scripts/instructions.sh` knows.

#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "a part of it is needed here, the rest by `wal_benchmarks`")]
mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use kaelix_wal::{Durability, Geometry, Message, MessageView, OnFull, Options, Position, Wal};
use support::append_floor::FloorRing;
use support::append_parts::Parts;

const COUNT: u64 = 1_000_000;
/// So many calls stay in the first segment of a log, so that no janitor is waited for.
const FEW: u64 = 2000;
const SEGMENT_OF_FEW: u64 = 4 << 20;
const BATCH: usize = 100;
/// Records that are read again and again.
const RETAINED: u64 = 100_000;

/// A path's name, and what takes it so many times.
type HotPath = (&'static str, fn(u64) -> Duration);

const PATHS: [HotPath; 15] = [
    ("copy-64", |count| part(count, Parts::copy)),
    ("claim-64", |count| part(count, Parts::claim_and_copy)),
    ("check-64", |count| part(count, Parts::check_claim_and_copy)),
    ("floor-64", |count| floor(64, count)),
    ("append-64", |count| append(64, count)),
    ("append-1024", |count| append(1024, count)),
    ("reserve-64", reserve),
    ("batch-100", batch),
    ("stream-64", stream),
    ("transaction", transaction),
    ("read-64", |count| read(64, count)),
    ("read-1024", |count| read(1024, count)),
    ("get-64", get),
    ("encode", encode),
    ("view", view),
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let (wanted, count) = (arguments.next(), arguments.next());
    let count = count.map_or(COUNT, |text| text.parse().expect("COUNT is a number"));
    let known = |wanted: &String| PATHS.iter().any(|(name, _)| name == wanted);
    if let Some(wanted) = wanted.as_ref().filter(|wanted| !known(wanted)) {
        let names: Vec<&str> = PATHS.iter().map(|(name, _)| *name).collect();
        println!("{wanted} is none of {}", names.join(", "));
        std::process::exit(64);
    }
    for (name, run) in PATHS.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|w| w == name)) {
        let time = run(count);
        println!("{name:<14} {:>8.1} ns", time.as_nanos() as f64 / count as f64);
    }
}

/// Where all counted instructions are.
#[inline(never)]
fn measured(count: u64, mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        call();
    }
    start.elapsed()
}

/// What `run` makes of a new log that is large enough for `count` calls.
fn with_log<T>(count: u64, run: impl FnOnce(&Wal) -> T) -> T {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (size, segment) = match count {
        0..=FEW => (2 * SEGMENT_OF_FEW, SEGMENT_OF_FEW),
        _ => (support::RING, support::SEGMENT),
    };
    let geometry = Geometry::new(size, segment).expect("valid sizes");
    let options = Options::new().durability(Durability::None).on_full(OnFull::Overwrite);
    let wal = Wal::create(dir.path().join("log"), geometry, options).expect("it is new");
    run(&wal)
}

fn floor(len: usize, count: u64) -> Duration {
    let (floor, payload) = (FloorRing::private(support::RING).expect("a floor"), vec![0xA5; len]);
    measured(count, || {
        black_box(floor.append(black_box(&payload)));
    })
}

/// What the floor does, but for some of it.
fn part(count: u64, step: impl Fn(&mut Parts, &[u8])) -> Duration {
    let mut parts = Parts::new(support::RING);
    measured(count, || step(&mut parts, black_box(&[0xA5; 64])))
}

fn append(len: usize, count: u64) -> Duration {
    let payload = vec![0xA5; len];
    with_log(count, |wal| measured(count, || support::append(wal, &payload)))
}

fn reserve(count: u64) -> Duration {
    with_log(count, |wal| {
        measured(count, || {
            let mut space = wal.reserve(64).expect("the oldest makes room");
            space.copy_from_slice(black_box(&[0xA5; 64]));
            black_box(space.commit());
        })
    })
}

/// A tenth as often, so that the batches fit where the others do.
fn batch(count: u64) -> Duration {
    with_log(count, |wal| {
        measured(count / 10, || {
            let entries = std::iter::repeat_n(black_box(&[0xA5; 64]), BATCH);
            black_box(wal.append_batch(entries).expect("the oldest makes room"));
        })
    }) * 10
}

fn stream(count: u64) -> Duration {
    with_log(count, |wal| {
        let stream = wal.stream("one").expect("it is created");
        measured(count, || {
            black_box(stream.append(black_box(&[0xA5; 64])).expect("the oldest makes room"));
        })
    })
}

fn transaction(count: u64) -> Duration {
    with_log(count, |wal| {
        let streams = wal.streams(&["one", "two", "three"]).expect("they are created");
        measured(count, || {
            let mut transaction = wal.begin();
            for entry in 0..10 {
                let stream = &streams[entry % streams.len()];
                transaction.append(stream, black_box(&[0xA5; 64])).expect("it is small");
            }
            black_box(transaction.commit().expect("nobody else commits"));
        })
    })
}

fn read(len: usize, count: u64) -> Duration {
    let payload = vec![0xA5; len];
    with_log(count, |wal| {
        (0..count.min(RETAINED)).for_each(|_| support::append(wal, &payload));
        let mut reader = wal.reader(Position::Oldest).expect("it can be read");
        measured(count, || {
            if black_box(reader.next().expect("every record verifies")).is_none() {
                reader = wal.reader(Position::Oldest).expect("it can be read");
            }
        })
    })
}

fn get(count: u64) -> Duration {
    with_log(count, |wal| {
        let append = |_| wal.append(&[0xA5; 64]).expect("the oldest makes room");
        let lsns: Vec<_> = (0..count.min(RETAINED)).map(append).collect();
        let mut lsns = lsns.iter().cycle();
        measured(count, || {
            let lsn = *lsns.next().expect("it is a cycle");
            black_box(wal.get(lsn).expect("it is retained"));
        })
    })
}

fn message(payload: &[u8]) -> Message<'_, &[u8]> {
    Message::new(payload).id(7).timestamp_nanos(1_700_000_000_000_000_000).topic("orders.created")
}

fn encode(count: u64) -> Duration {
    let (payload, mut bytes) = ([0xA5; 1024], vec![0; 2048]);
    measured(count, || {
        let message = message(black_box(&payload));
        black_box(message.encode_into(black_box(&mut bytes[..])).expect("there is room"));
    })
}

fn view(count: u64) -> Duration {
    let mut bytes = Vec::new();
    message(&[0xA5; 1024]).encode(&mut bytes).expect("all of it is short");
    measured(count, || {
        let view = MessageView::parse(black_box(&bytes)).expect("well-formed");
        black_box((view.topic(), view.payload()));
    })
}
