//! How fast the recovered log takes events, in this process and on this machine.
//!
//! The ring is smaller than what is appended, so it overwrites its oldest records. With no
//! durability promised, nothing waits for the disk, and the figures are those of the append path.
//! With durability on demand, a segment is synced before it may be overwritten, so an endless
//! stream of appends goes at the speed of the disk. Both are shown, since both are true.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use indicatif::HumanCount;
use kaelix_wal::{AppendError, Durability, OnFull, Options, Wal};

use super::events::Events;
use super::place::Place;
use crate::display;
use crate::log::bytes;
use crate::sink::say;

/// A build with debug assertions is there to be tested, not to be measured.
const APPEND_COUNT: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// Durable appends are limited in time, not only in number: disks differ by a factor of a thousand.
const DURABLE_TIME: Duration = Duration::from_secs(1);
const DURABLE_COUNT_MAX: u64 = 5_000;

/// The events as records, made before anything is measured.
struct Records(Vec<Vec<u8>>);

impl Records {
    fn new(events: &Events) -> Self {
        let render = |event| {
            let mut record = Vec::new();
            events.write(event, &mut record);
            record
        };
        Self((0..events.row_count() as u64).map(render).collect())
    }

    fn get(&self, index: u64) -> &[u8] {
        &self.0[(index % self.0.len() as u64) as usize]
    }

    /// Mean length of a record, in bytes.
    fn len_mean(&self) -> f64 {
        self.0.iter().map(Vec::len).sum::<usize>() as f64 / self.0.len() as f64
    }
}

pub fn run(place: &Place, events: &Events, producers: u16) -> anyhow::Result<()> {
    let records = Records::new(events);
    say("\n6. Appended to the recovered log, which overwrites its oldest records:")?;
    say(format_args!(
        "     {} events for each rate, {:.0} bytes each on average; a first lap is not counted.\n",
        HumanCount(APPEND_COUNT),
        records.len_mean()
    ))?;
    let failed = "cannot append to the recovered log";
    let memory_speed = open(place, Durability::None)?;
    // The first lap pays for the first touch of every page, which is not what is asked here.
    append_rate(&memory_speed, &records, 1).context(failed)?;
    let mut rates = vec![
        rate_row("no durability", &memory_speed, &records, 1).context(failed)?,
        rate_row("no durability", &memory_speed, &records, producers).context(failed)?,
    ];
    let appends = append_latencies(&memory_speed, &records).context(failed)?;
    memory_speed.close().context("cannot close the log")?;
    drop(memory_speed);
    let disk_speed = open(place, Durability::OnDemand)?;
    rates.push(rate_row("on demand", &disk_speed, &records, 1).context(failed)?);
    let durable = durable_latencies(&disk_speed, &records).context("cannot make events durable")?;
    disk_speed.close().context("cannot close the log")?;
    print_figures(&rates, &appends, &durable)?;
    if cfg!(debug_assertions) {
        say(" This build checks itself as it runs, so its figures say little: use --release.")?;
    }
    if place.is_in_memory() {
        say(format_args!(
            " {} is in memory, so nothing here waited for a disk: use --keep with a directory on \
             one.",
            place.dir().display()
        ))?;
    }
    Ok(())
}

fn open(place: &Place, durability: Durability) -> anyhow::Result<Wal> {
    let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
    Wal::open(place.dir(), options).context("cannot open the recovered log once more")
}

fn print_figures(
    rates: &[Vec<String>],
    appends: &Histogram<u64>,
    durable: &Histogram<u64>,
) -> anyhow::Result<()> {
    let header = ["durability", "producers", "events/s", "payload/s"];
    say(format_args!("{}\n", display::figures(&header, rates, 1..4)))?;
    let latencies = [
        latency_row(&format!("append ({})", HumanCount(appends.len())), appends),
        latency_row(&format!("durable append ({})", HumanCount(durable.len())), durable),
    ];
    let header = ["one producer", "p50", "p99", "p99.9", "max"];
    say(display::figures(&header, &latencies, 1..5))?;
    say(format_args!(
        " Each latency contains one reading of the clock, {} ns here; the rates contain none.",
        clock_cost().as_nanos()
    ))
}

fn rate_row(
    durability: &str,
    wal: &Wal,
    records: &Records,
    producers: u16,
) -> Result<Vec<String>, AppendError> {
    let rate = append_rate(wal, records, producers)?;
    Ok(vec![
        durability.to_owned(),
        producers.to_string(),
        HumanCount(rate as u64).to_string(),
        bytes((rate * records.len_mean()) as u64),
    ])
}

/// Records a second, of all producers together. Each appends its share.
fn append_rate(wal: &Wal, records: &Records, producers: u16) -> Result<f64, AppendError> {
    let share = APPEND_COUNT / u64::from(producers);
    let started = Instant::now();
    thread::scope(|scope| {
        let append_share = || (0..share).try_for_each(|i| wal.append(records.get(i)).map(drop));
        let handles: Vec<_> = (0..producers).map(|_| scope.spawn(append_share)).collect();
        handles.into_iter().try_for_each(|handle| match handle.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok((share * u64::from(producers)) as f64 / started.elapsed().as_secs_f64())
}

fn append_latencies(wal: &Wal, records: &Records) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = histogram()?;
    for index in 0..APPEND_COUNT {
        let started = Instant::now();
        wal.append(records.get(index))?;
        histogram.saturating_record(nanoseconds(started.elapsed()));
    }
    Ok(histogram)
}

fn durable_latencies(wal: &Wal, records: &Records) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = histogram()?;
    // What was appended before is not these appends' to wait for.
    wal.sync()?;
    let deadline = Instant::now() + DURABLE_TIME;
    for index in 0..DURABLE_COUNT_MAX {
        let started = Instant::now();
        wal.append_durable(records.get(index))?;
        histogram.saturating_record(nanoseconds(started.elapsed()));
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(histogram)
}

/// Three digits of whatever lies between a nanosecond and a minute.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).context("the histogram's bounds are invalid")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn latency_row(name: &str, histogram: &Histogram<u64>) -> Vec<String> {
    let at = |quantile| latency(histogram.value_at_quantile(quantile));
    vec![name.to_owned(), at(0.5), at(0.99), at(0.999), latency(histogram.max())]
}

fn latency(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanoseconds as f64 / 1e3),
        _ => format!("{:.1} ms", nanoseconds as f64 / 1e6),
    }
}

/// What one reading of the clock costs, on average.
fn clock_cost() -> Duration {
    const READINGS: u32 = 100_000;
    let started = Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(Instant::now());
    }
    started.elapsed() / READINGS
}
