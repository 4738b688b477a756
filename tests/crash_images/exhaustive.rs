//! Tiny logs with few dirty sectors: every image that the medium allows, at every moment.

use std::sync::Arc;

use kaelix_wal::simulation::{self, Disk, Fault, Kind, Stepped, new_image, tiny};
use kaelix_wal::{
    AppendError, CheckpointError, Durability, Error, Lsn, OpenError, Options, WaitError,
};

use crate::common::Rng;
use crate::machine::{Machine, Setup};
use crate::oracle::{Expectation, Expected, NEVER, payload};
use crate::{medium, nothing, settled};

/// Moments that allow more images than this are left to the random draws.
const COMBINATIONS_MAX: usize = 1 << 14;

fn setup() -> Setup {
    // Without durability nothing is synced but what the test asks for.
    let options = Options::new().durability(Durability::None);
    Setup { segments: 3, options, size: 64, ..Setup::default() }
}

fn record(lsn: Lsn, id: u64, len: usize) -> Expected {
    Expected { lsn, id, len, ..Expected::default() }
}

/// Opens every image of every moment from `from` on, and what its recovery leaves once more.
fn every_image(machine: &Machine, from: usize) -> usize {
    let mut images = 0;
    for moment in from..=machine.disk.observe_now() {
        let medium = machine.disk.at(moment);
        let expectation = machine.oracle.after_power_loss(moment);
        for number in 0..medium::count(&medium, COMBINATIONS_MAX).unwrap_or(0) {
            let image = medium::numbered(&medium, number);
            let disk = Disk::new_of(medium.kind(), image);
            let log = simulation::open(&disk, 7, setup().options)
                .unwrap_or_else(|error| panic!("image {number} at {moment} is refused: {error}"));
            expectation.verify(&log);
            let kept = settled(&expectation, &log);
            log.kill();
            let again = Disk::new_of(medium.kind(), disk.disk());
            let log =
                simulation::open(&again, 8, setup().options).expect("what was recovered opens");
            kept.verify(&log);
            log.kill();
            images += 1;
        }
    }
    images
}

fn append(machine: &mut Machine, log: &Stepped, id: u64, len: usize) {
    let begun = machine.disk.observe_now();
    let lsn = log.append(&payload(id, len)).expect("there is room");
    let closed = machine.disk.observe_now();
    machine.oracle.push(record(lsn, id, len), begun, closed);
}

/// Appends, a reservation that is marked, filled and committed behind a later record, syncs, an
/// abort, a trim; every version of every sector with every version of every other.
fn scenario(machine: &mut Machine) {
    let log = machine.open(&nothing());
    append(machine, &log, 1, 40);
    log.sync().expect("the disk takes it");
    machine.note(&log);
    let begun = machine.disk.observe_now();
    let mut reservation = log.reserve(600).expect("there is room");
    let place = machine.oracle.push(record(reservation.lsn(), 2, 600), begun, NEVER);
    append(machine, &log, 3, 0);
    reservation[..300].copy_from_slice(&payload(2, 600)[..300]);
    machine.disk.observe_now();
    reservation[300..].copy_from_slice(&payload(2, 600)[300..]);
    let closing = machine.disk.observe_now();
    reservation.commit();
    let closed = machine.disk.observe_now();
    machine.oracle.close(place, Some(600), closing, closed);
    append(machine, &log, 4, 500);
    drop(log.reserve(20).expect("there is room"));
    machine.disk.observe_now();
    log.step_janitor();
    machine.disk.observe_now();
    append(machine, &log, 6, 2600);
    append(machine, &log, 7, 100);
    log.sync().expect("the disk takes it");
    machine.note(&log);
    append(machine, &log, 5, 9);
    machine.trim(&log);
    machine.note(&log);
    log.kill();
    machine.oracle.abandon(machine.disk.observe_now());
}

/// In persistent memory every word counts for itself, so the records are smaller: a hole that is
/// marked, filled and committed behind a later record, an abort, and the segment's end, where the
/// next one is entered, with its header.
fn scenario_in_memory(machine: &mut Machine) {
    let log = machine.open(&nothing());
    let sync = |machine: &mut Machine| {
        log.sync().expect("memory takes it");
        machine.note(&log);
    };
    sync(machine);
    let begun = machine.disk.observe_now();
    let mut reservation = log.reserve(16).expect("there is room");
    let place = machine.oracle.push(record(reservation.lsn(), 1, 16), begun, NEVER);
    append(machine, &log, 2, 8);
    reservation.copy_from_slice(&payload(1, 16));
    let closing = machine.disk.observe_now();
    reservation.commit();
    let closed = machine.disk.observe_now();
    machine.oracle.close(place, Some(16), closing, closed);
    sync(machine);
    append(machine, &log, 3, 3500);
    drop(log.reserve(20).expect("there is room"));
    log.step_janitor();
    sync(machine);
    let room = 4096 - log.watermarks().reserved.get() % 8192;
    append(machine, &log, 4, room as usize - 16 - 32);
    sync(machine);
    append(machine, &log, 5, 8);
    append(machine, &log, 6, 0);
    sync(machine);
    log.step_flusher(true);
    machine.note(&log);
    machine.trim(&log);
    machine.note(&log);
    append(machine, &log, 7, 8);
    log.kill();
    machine.oracle.abandon(machine.disk.observe_now());
}

#[test]
fn every_image_of_a_tiny_log_in_persistent_memory() {
    let disk = Disk::recording_of(Kind::Memory, new_image(tiny(3)));
    let mut machine = Machine::new(disk, 1, setup(), &nothing(), 0);
    scenario_in_memory(&mut machine);
    let images = every_image(&machine, 0);
    assert!(images > 10_000, "only {images} images");
}

#[test]
fn every_image_of_a_tiny_log() {
    let disk = Disk::recording(new_image(tiny(3)));
    let mut machine = Machine::new(disk, 1, setup(), &nothing(), 0);
    scenario(&mut machine);
    let images = every_image(&machine, 0);
    assert!(images > 10_000, "only {images} images");
}

/// The same for the recovery of a torn log: whichever of its writes reach the disk.
#[test]
fn every_image_of_a_recovery() {
    let disk = Disk::recording(new_image(tiny(3)));
    let mut machine = Machine::new(disk, 1, setup(), &nothing(), 0);
    scenario(&mut machine);
    let (mut images, mut rng) = (0, Rng::new(1));
    for moment in machine.disk.syncs() {
        for _ in 0..8 {
            let image = medium::draw(&machine.disk.at(moment), &mut rng);
            let expectation = machine.oracle.after_power_loss(moment);
            let disk = Disk::recording(image);
            let log = simulation::open(&disk, 2, setup().options).expect("no image is refused");
            expectation.verify(&log);
            let kept = settled(&expectation, &log);
            log.kill();
            let next = Machine::new(disk, 2, setup(), &kept, 10);
            images += every_image(&next, 0);
        }
    }
    assert!(images > 1_000, "only {images} images");
}

/// One run up to a fault, with what it says about it.
struct Run {
    disk: Arc<Disk>,
    written: Vec<Expected>,
    durable: Lsn,
    outcome: Result<(), Error>,
}

/// Appends and waits, lap after lap, until something fails.
fn run_until_failure(fault: Fault) -> Run {
    let disk = Disk::recording(new_image(tiny(3)));
    let mut run =
        Run { disk: disk.clone(), written: Vec::new(), durable: Lsn::new(64), outcome: Ok(()) };
    let log = simulation::open(&disk, 1, Options::new()).expect("a new log opens");
    disk.inject(fault);
    for id in 1..40 {
        run.outcome = step(&log, id, &mut run.written);
        run.durable = log.watermarks().durable;
        if run.outcome.is_err() || !disk.has_fault() {
            break;
        }
    }
    if run.outcome.is_err() {
        assert!(matches!(log.append(b"more"), Err(AppendError::Poisoned(_))));
        let newest = run.written.last().expect("something was written before it failed").lsn;
        let waited = log.wait_durable(newest);
        let is_final = matches!(waited, Err(WaitError::Poisoned(_))) || newest < run.durable;
        assert!(is_final, "{fault:?}: {waited:?}");
        assert!(log.close().is_err(), "a close after a failed sync says so");
        assert_eq!(log.watermarks().durable, run.durable, "nothing becomes durable any more");
    }
    log.kill();
    run
}

fn step(log: &Stepped, id: u64, written: &mut Vec<Expected>) -> Result<(), Error> {
    log.step_janitor();
    let len = 700;
    let lsn = log.append(&payload(id, len))?;
    written.push(record(lsn, id, len));
    log.step_flusher(id.is_multiple_of(3));
    log.wait_durable(lsn)?;
    if id.is_multiple_of(4) {
        log.checkpoint(lsn)?;
        log.sync_checkpoint()?;
    }
    Ok(())
}

/// Whichever sync fails, or stops short: what is said of it is final, and nothing that was
/// acknowledged is lost, on the running machine or after a power loss.
#[test]
fn every_sync_can_fail() {
    for short in [false, true] {
        let mut failed = 0;
        for n in 0.. {
            let fault = if short { Fault::ShortSync(n) } else { Fault::FailSync(n) };
            let run = run_until_failure(fault);
            if run.disk.has_fault() {
                break;
            }
            failed += 1;
            let expectation = Expectation {
                records: run.written,
                durable: run.durable,
                trimmed: (Lsn::new(64), run.durable),
                ..Expectation::default()
            };
            let images = [(run.disk.disk(), 2), (run.disk.cache(), 2), (run.disk.cache(), 1)];
            for (image, boot) in images {
                let log = simulation::open(&Disk::new(image), boot, Options::new())
                    .unwrap_or_else(|error| panic!("refused after {fault:?}: {error}"));
                expectation.verify(&log);
                log.kill();
            }
        }
        assert!(failed > 50, "only {failed} syncs failed");
    }
}

/// Whichever sync or read of a recovery fails: it says so, and the next one finds the same log.
#[test]
fn every_step_of_a_recovery_can_fail() {
    let run = run_until_failure(Fault::FailSync(30));
    let expectation = Expectation {
        records: run.written,
        durable: run.durable,
        trimmed: (Lsn::new(64), run.durable),
        ..Expectation::default()
    };
    let image = run.disk.disk();
    let log = simulation::open(&Disk::new(image.clone()), 2, Options::new()).expect("it opens");
    expectation.verify(&log);
    let kept = settled(&expectation, &log);
    log.kill();
    let kinds: [fn(u64) -> Fault; 3] = [Fault::FailSync, Fault::ShortSync, Fault::ShortRead];
    for kind in kinds {
        let mut failed = 0;
        for n in 0.. {
            let disk = Disk::new(image.clone());
            disk.inject(kind(n));
            let opened = simulation::open(&disk, 2, Options::new());
            if disk.has_fault() {
                break;
            }
            match opened {
                // A sync of one page that stops behind its first page is none that failed.
                Ok(log) => log.kill(),
                Err(error) => assert!(matches!(error, OpenError::File(_)), "{error}"),
            }
            failed += 1;
            for (image, boot) in [(disk.disk(), 3), (disk.cache(), 3), (disk.cache(), 2)] {
                let log = simulation::open(&Disk::new(image), boot, Options::new())
                    .unwrap_or_else(|error| panic!("refused after {:?}: {error}", kind(n)));
                kept.verify(&log);
                log.kill();
            }
        }
        assert!(failed >= 3, "only {failed} steps of {:?}", kind(0));
    }
}

/// A slot that is synced while a sync of records fails does not take the error away: each has its
/// own description of the file, and each is told.
#[test]
fn no_sync_swallows_the_error_of_another() {
    let disk = Disk::new(new_image(tiny(3)));
    let log = simulation::open(&disk, 1, setup().options).expect("a new log opens");
    let log = Arc::new(log);
    let first = log.append_durable(&payload(1, 40)).expect("the disk takes it");
    log.checkpoint(first).expect("a boundary");
    let lost = log.append(&payload(2, 40)).expect("there is room");
    disk.inject(Fault::FailSync(0));
    let other = log.clone();
    disk.meanwhile(move || {
        let trimmed = other.sync_checkpoint();
        assert!(matches!(trimmed, Err(CheckpointError::Poisoned(_))), "{trimmed:?}");
    });
    let waited = log.wait_durable(lost);
    assert!(matches!(waited, Err(WaitError::Poisoned(_))), "{waited:?}");
    assert!(log.watermarks().durable <= lost);
    Arc::into_inner(log).expect("the other thread is done").kill();
}
