//! Where the time of an append goes: one thread, each step with one part more than the last.
//!
//! `scripts/instructions.sh` counts the instructions of the same steps.

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use kaelix_wal::Durability;

use crate::support::append_floor::FloorRing;
use crate::support::append_parts::Parts;
use crate::support::results::Row;
use crate::support::{RING, append, median, open, seconds};

const GROUP: &str = "append_parts";
const SIZES: [(usize, &str); 2] = [(64, "64B"), (1 << 10, "1KiB")];
const ROUNDS: usize = 21;

/// A step's name, and so many calls of it.
type Step<'a> = (&'static str, Box<dyn FnMut(u64) + 'a>);

pub fn run(_: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::None);
    let floor = FloorRing::new(dir.path(), RING).expect("a floor");
    println!("\n{GROUP}: ns an append, medians of {ROUNDS} rounds in turn");
    println!("| size | step | so far | this part |\n|---|---|---|---|");
    for (size, name) in SIZES {
        let payload = vec![0xA5_u8; size];
        let payload = &payload[..];
        let [mut copied, mut claimed, mut checked] = [(); 3].map(|()| Parts::new(RING));
        let mut steps: [Step<'_>; 5] = [
            ("copy", repeat(|| copied.copy(black_box(payload)))),
            ("and claim", repeat(|| claimed.claim_and_copy(black_box(payload)))),
            ("and checksum", repeat(|| checked.check_claim_and_copy(black_box(payload)))),
            (
                "and header, store: the floor",
                repeat(|| {
                    black_box(floor.append(black_box(payload)));
                }),
            ),
            ("the log", repeat(|| append(&wal, payload))),
        ];
        let count = (seconds(2.0).as_secs_f64() * 1e9 / 40.0 / (25.0 + size as f64 / 8.0)) as u64;
        let mut nanos = [const { Vec::new() }; 5];
        for _ in 0..ROUNDS {
            for ((_, step), nanos) in steps.iter_mut().zip(&mut nanos) {
                let start = Instant::now();
                step(count);
                nanos.push(start.elapsed().as_nanos() as f64 / count as f64);
            }
        }
        let mut before = 0.0;
        for ((step, _), nanos) in steps.iter().zip(nanos) {
            Row::new(GROUP, &format!("{name}, {step}"), "each append", "ns").log(&nanos).write();
            let so_far = median(nanos);
            println!("| {name} | {step} | {so_far:.1} | {:+.1} |", so_far - before);
            before = so_far;
        }
    }
}

fn repeat<'a>(mut call: impl FnMut() + 'a) -> Box<dyn FnMut(u64) + 'a> {
    Box::new(move |count| (0..count).for_each(|_| call()))
}
