//! `demo`: kill a writer in mid-flight, recover, and count.
//!
//! 1. A child process appends events from several threads and acknowledges each over a pipe.
//! 2. When half of them are acknowledged it is killed with SIGKILL; one thread holds an open
//!    reservation at that moment, with committed records behind it.
//! 3. This process recovers the log, reads every record back and holds it against the
//!    acknowledgements. A lost, doubled or altered event is a failure, status 1.
//! 4. Then it measures appends on the recovered log, in this process.

mod acks;
mod check;
mod events;
mod measure;
mod place;
mod victim;
pub mod writer;

use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::HumanCount;
use kaelix_wal::{Geometry, Options, Wal};

use self::check::Verdict;
use self::events::Events;
use self::place::Place;
use self::victim::{Acknowledged, Victim};
use crate::args::DemoArgs;
use crate::display;
use crate::log::bytes;
use crate::sink::say;

/// Events that the writer would append if it lived.
const EVENT_COUNT: u64 = 800_000;

/// The open reservation comes with this event, and the kill right after it.
const HOLD_FROM: u64 = EVENT_COUNT / 2;

/// Room for all events: nothing is overwritten before it is checked.
const RING_SIZE: u64 = 128 << 20;
const SEGMENT_SIZE: u64 = 8 << 20;

pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let events = Events::load()?;
    say(format_args!(
        "Kaelix WAL demo: flights out of New York as events, {} producers, one kill\n",
        args.producers
    ))?;
    let place = create_log(args)?;
    let acknowledged = kill_a_writer(args, &place)?;
    let wal = recover(&place)?;
    let verdict = check::check(&wal, &events, &acknowledged)?;
    print_verdict(&acknowledged, &verdict)?;
    wal.close().context("cannot close the recovered log")?;
    // The measurements open it again, and a log has one writer.
    drop(wal);
    measure::run(&place, &events, args.producers)?;
    if args.keep.is_some() {
        say(format_args!("\nThe log stays in {}.", place.dir().display()))?;
    }
    if verdict.is_good() {
        say("\nPASS: every acknowledged event is there, once, unaltered.")
    } else {
        bail!("the log did not keep its promise: see the table above")
    }
}

fn create_log(args: &DemoArgs) -> anyhow::Result<Place> {
    let place = Place::new(args.keep.as_deref())?;
    let geometry = Geometry::new(RING_SIZE, SEGMENT_SIZE).context("the demo's ring is invalid")?;
    let started = Instant::now();
    let wal = Wal::create(place.dir(), geometry, Options::new())
        .with_context(|| format!("cannot create a log in {}", place.dir().display()))?;
    wal.close().context("cannot close the new log")?;
    say(format_args!(
        "1. Created a log of {} in {} ({} ms).",
        bytes(geometry.capacity()),
        place.dir().display(),
        started.elapsed().as_millis()
    ))?;
    Ok(place)
}

fn kill_a_writer(args: &DemoArgs, place: &Place) -> anyhow::Result<Acknowledged> {
    let started = Instant::now();
    let victim = Victim::spawn(args.producers, EVENT_COUNT, HOLD_FROM, place.dir())?;
    say(format_args!(
        "2. Process {} appends events from {} threads; {} of them wait for durability.",
        victim.process(),
        args.producers,
        args.producers / 2
    ))?;
    let acknowledged = victim.kill_when_held(HOLD_FROM)?;
    say(format_args!(
        "3. Killed it with SIGKILL after {} ms: {} events acknowledged, one reservation left open.",
        started.elapsed().as_millis(),
        HumanCount(acknowledged.committed),
    ))?;
    Ok(acknowledged)
}

fn recover(place: &Place) -> anyhow::Result<Wal> {
    let started = Instant::now();
    let wal = Wal::open(place.dir(), Options::new())
        .context("cannot recover the log of the killed process")?;
    say(format_args!(
        "4. Opened the log again in {} ms. Recovery says:",
        started.elapsed().as_millis()
    ))?;
    for line in wal.recovery_report().to_string().lines() {
        say(format_args!("     {line}"))?;
    }
    Ok(wal)
}

fn print_verdict(acknowledged: &Acknowledged, verdict: &Verdict) -> anyhow::Result<()> {
    say("5. Read every record back and compared it with the acknowledgements:\n")?;
    let row = |name: &str, count: u64, meaning: &str| {
        vec![name.to_owned(), HumanCount(count).to_string(), meaning.to_owned()]
    };
    let rows = [
        row("acknowledged", acknowledged.committed, "commit returned, and the writer said so"),
        row("of them durable", acknowledged.durable, "and the wait for durability returned"),
        row("found", verdict.found, "different events in the recovered log"),
        row("unacknowledged", verdict.unacknowledged, "found, but killed before it could say so"),
        row("lost", verdict.lost, "acknowledged, not found"),
        row("duplicated", verdict.duplicated, "found more than once"),
        row("altered", verdict.altered, "a record that is no event, or at another LSN"),
        row("never committed", verdict.uncommitted, "the open reservation, found as a record"),
    ];
    say(display::figures(&["events", "count", "meaning"], &rows, 1..2))
}
