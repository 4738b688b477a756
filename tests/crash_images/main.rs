//! Power losses and kills by the million: what a crash at any moment of a run may leave is built
//! from the recorded versions of each sector, recovered, and compared with what the contract says.
//!
//! 1. After a power loss: a prefix of the published order, with everything that was acknowledged
//!    as durable, byte-identical; nothing else, and nothing twice.
//! 2. After a kill: everything committed; abandoned reservations are skipped.
//! 3. No image that the medium allows is refused.
//! 4. What recovery has returned once it returns again, whatever happens in between; what it has
//!    cut off stays dead.
//! 5. Beside the ring: every stream that was acknowledged has its name and its id; a stream's
//!    version is its newest record that was kept or released, exactly; a consumer's position is not
//!    below what was written, not above what was acknowledged, and not beyond the end of the log
//!    without being called cut; and nothing is released that consumers are retained for.
//!
//! Histories follow from a seed and each of their images from its number, so that a failure prints
//! the command that replays it. Longer runs: `scripts/crash.sh`.

mod beside;
#[path = "../common/mod.rs"]
mod common;
mod exhaustive;
mod machine;
mod medium;
mod oracle;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use common::{Rng, number};
use kaelix_wal::Lsn;
use kaelix_wal::simulation::{Disk, Kind, Moment, new_image, tiny};
use machine::{End, Machine, Setup};
use oracle::Expectation;

/// Images of one history.
const IMAGES_EACH: u64 = 128;
/// How often an image's log crashes again.
const DEPTH: u64 = 3;

thread_local! {
    /// How many images this test has opened, each followed from where its parent was left.
    static OPENED: Cell<u64> = const { Cell::new(0) };
}

/// A new log.
fn nothing() -> Expectation {
    let first = Lsn::new(64);
    let trimmed = (first, first);
    Expectation { durable: first, all: true, trimmed, ..Expectation::default() }
}

/// A few processes in a row on one machine.
fn history(kind: Kind, seed: u64) -> Machine {
    let mut rng = Rng::new(seed);
    let setup = Setup::draw(kind, &mut rng);
    let disk = Disk::recording_of(kind, new_image(tiny(setup.segments)));
    let (retains, may_cut) = (setup.retains, setup.may_cut);
    let mut expectation = Expectation { retains, may_cut, ..nothing() };
    let mut machine = Machine::new(disk, 1, setup, &expectation, 0);
    for _ in 0..1 + rng.below(3) {
        let end = if rng.below(4) == 0 { End::Close } else { End::Kill };
        let steps = 10 + rng.below(60);
        machine.live(&expectation, steps, end, &mut rng);
        expectation = machine.rest();
    }
    machine
}

/// A crash of `machine` at some moment from `from` on, and the machine on which the log is opened
/// next, with what must be found there.
fn crash(machine: &Machine, from: Moment, rng: &mut Rng) -> (Machine, Expectation) {
    let (stops, syncs) = machine::moments(&machine.disk, from);
    let pick =
        |moments: &[Moment], rng: &mut Rng| moments[rng.below(moments.len() as u64) as usize];
    let (setup, next_id) = (machine.setup, machine.next_id());
    if rng.below(4) == 0 {
        let moment = pick(&stops, rng);
        let expectation = machine.oracle.after_kill(moment);
        let disk = machine.disk.after_kill(moment);
        return (Machine::new(disk, machine.boot, setup, &expectation, next_id), expectation);
    }
    let moment = match rng.below(2) {
        0 if !syncs.is_empty() => pick(&syncs, rng),
        _ => {
            let last = stops[stops.len() - 1];
            from + rng.below((last - from) as u64 + 1) as usize
        }
    };
    let expectation = machine.oracle.after_power_loss(moment);
    let medium = machine.disk.at(moment);
    let image = medium::draw(&medium, rng);
    let files = medium::draw_files(&medium, rng);
    drop(medium);
    // A log that was in persistent memory opens on a disk just as well.
    let kind = match machine.disk.kind() {
        Kind::Memory if rng.below(4) != 0 => Kind::Memory,
        _ => Kind::Disk,
    };
    let disk = Disk::recording_of(kind, image);
    disk.put_files(&files);
    (Machine::new(disk, machine.boot + 1, setup, &expectation, next_id), expectation)
}

/// Opens what a crash has left, goes on, and crashes again.
fn follow(machine: &Machine, from: Moment, depth: u64, rng: &mut Rng) {
    OPENED.set(OPENED.get() + 1);
    let (mut next, mut expectation) = crash(machine, from, rng);
    let start = next.disk.observe_now();
    let mut steps = rng.below(8);
    if next.boot != machine.boot {
        // What a power loss leaves is what the first recovery makes of it, from the start on.
        let log = next.open(&expectation);
        let (_, released) = expectation.trimmed;
        expectation = settled(&expectation, &log);
        log.kill();
        let (ended, next_id) = (next.disk.observe_now(), next.next_id());
        next = Machine::new(next.disk, next.boot, next.setup, &expectation, next_id);
        // But a slot that was torn may be completed by the one that the recovery writes over it, if
        // that has the missing words in common with it. What it says was true when it was written.
        next.oracle.note(ended, expectation.durable, expectation.trimmed.0, released);
        next.oracle.consumers.settled(ended);
        // The second one that follows returns the same.
        steps *= rng.below(4).min(1);
    }
    let end = if rng.below(6) == 0 { End::Close } else { End::Kill };
    next.live(&expectation, steps, end, rng);
    if depth > 0 && rng.below(4) != 0 {
        follow(&next, start, depth - 1, rng);
    }
}

/// What a recovery has returned, as what every later one must return.
fn settled(expectation: &Expectation, log: &kaelix_wal::Wal) -> Expectation {
    let now = log.watermarks();
    let records = expectation.records.iter();
    let kept = log.recovery_report().records as usize;
    let records: Vec<_> =
        records.filter(|record| record.lsn >= now.trimmed).take(kept).copied().collect();
    let mut versions = expectation.versions.clone();
    for record in expectation.records.iter().filter(|record| record.lsn < now.trimmed) {
        versions.extend(record.of().map(|stream| (stream, record.lsn)));
    }
    let streams_least = log.stream_names().len();
    let consumers = expectation.consumers.iter().filter_map(|consumer| consumer.settled(log));
    Expectation {
        records,
        durable: now.durable,
        all: true,
        trimmed: (now.trimmed, now.trimmed),
        streams: expectation.streams[..streams_least].to_vec(),
        streams_least,
        versions,
        consumers: consumers.collect(),
        ..expectation.clone()
    }
}

/// Runs `body`; if it panics, says first how to replay it.
#[allow(clippy::print_stderr, reason = "the harness shows it when the test fails")]
fn replayable<T>(kind: Kind, seed: u64, image: Option<u64>, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let image = image.map_or_else(String::new, |image| format!(" KAELIX_IMAGE={image}"));
        let opened = OPENED.get();
        eprintln!("\nafter {opened} images ({kind:?}); replay the last one with:");
        eprintln!("KAELIX_SEED={seed}{image} bash scripts/crash.sh 1");
        resume_unwind(panic)
    })
}

/// The images of one history, or the one of this number.
fn images_of(kind: Kind, seed: u64, only: Option<u64>) {
    let machine = replayable(kind, seed, None, || history(kind, seed));
    for image in only.map_or(0..IMAGES_EACH, |image| image..image + 1) {
        let mut rng = Rng::new(seed ^ (image + 1) << 48);
        replayable(kind, seed, Some(image), || follow(&machine, 0, DEPTH, &mut rng));
    }
}

/// `KAELIX_IMAGES` images (40,000 if it is not set) of histories from `KAELIX_SEED` on (1).
#[allow(clippy::print_stdout, reason = "the harness shows it when asked to")]
fn images_of_histories(kind: Kind) {
    let seed = number("KAELIX_SEED", 1);
    if std::env::var_os("KAELIX_IMAGE").is_some() {
        return images_of(kind, seed, Some(number("KAELIX_IMAGE", 0)));
    }
    let (wanted, start) = (number("KAELIX_IMAGES", 40_000), Instant::now());
    let mut histories = 0;
    while OPENED.get() < wanted {
        images_of(kind, seed + histories, None);
        histories += 1;
    }
    let (images, seconds) = (OPENED.get(), start.elapsed().as_secs_f64());
    let of = format!("{images} images of {histories} histories from seed {seed} on");
    println!("{kind:?}: {of}, in {seconds:.1} s");
}

#[test]
fn images_of_random_histories() {
    images_of_histories(Kind::Disk);
}

/// The same in persistent memory: any word of a line that was not written back and fenced.
#[test]
fn images_of_random_histories_in_persistent_memory() {
    images_of_histories(Kind::Memory);
}
