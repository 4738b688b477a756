//! The process that the demo kills: producers that append events until they die.
//!
//! 1. Events are taken from one counter, so producers of any speed share the work.
//! 2. Producers with an odd number wait until what they appended is durable, a group of events at a
//!    time, as a server with clients behind it would.
//! 3. Producer 0 leaves a reservation open, half written, and never touches it again: the hole
//!    that a thread leaves which is killed between reserve and commit.

use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use kaelix_wal::{Lsn, OnFull, Options, Wal};

use super::acks::{Kind, Outbox};
use super::events::Events;
use crate::args::DemoWriterArgs;

/// A durable producer appends this many events, then waits for all of them.
const GROUP_COUNT: usize = 64;

struct Shared<'a> {
    wal: &'a Wal,
    events: &'a Events,
    args: &'a DemoWriterArgs,
    event_next: AtomicU64,
}

pub fn run(args: &DemoWriterArgs) -> anyhow::Result<()> {
    let events = Events::load()?;
    let wal = Wal::open(&args.dir, Options::new().on_full(OnFull::Wait))
        .with_context(|| format!("cannot open the log in {}", args.dir.display()))?;
    let shared = Shared { wal: &wal, events: &events, args, event_next: AtomicU64::new(0) };
    thread::scope(|scope| {
        for producer in 0..args.producers {
            let shared = &shared;
            scope.spawn(move || {
                let result = if producer % 2 == 1 {
                    shared.produce_durable()
                } else {
                    shared.produce(producer == 0)
                };
                // One producer that fails takes the process down: the demo then says why, instead
                // of waiting for acknowledgements that never come.
                if let Err(error) = result {
                    eprintln!("error: the demo's writer failed: {error:#}");
                    process::exit(1);
                }
            });
        }
    });
    Ok(())
}

impl Shared<'_> {
    fn take_event(&self) -> Option<u64> {
        let event = self.event_next.fetch_add(1, Ordering::Relaxed);
        (event < self.args.events).then_some(event)
    }

    fn append(&self, event: u64, record: &mut Vec<u8>) -> anyhow::Result<Lsn> {
        self.events.write(event, record);
        let mut reservation = self.wal.reserve(record.len())?;
        reservation.copy_from_slice(record);
        Ok(reservation.commit())
    }

    /// Appends and acknowledges each event.
    fn produce(&self, leaves_hole: bool) -> anyhow::Result<()> {
        let mut outbox = Outbox::default();
        let mut record = Vec::new();
        while let Some(event) = self.take_event() {
            if leaves_hole && event >= self.args.hold_from {
                self.hold(event, &mut outbox, &mut record)?;
            }
            let lsn = self.append(event, &mut record)?;
            outbox.push(Kind::Committed, event, lsn)?;
        }
        outbox.send()?;
        Ok(())
    }

    /// Appends events in groups, and acknowledges a group once more when it is durable.
    fn produce_durable(&self) -> anyhow::Result<()> {
        let mut outbox = Outbox::default();
        let mut record = Vec::new();
        let mut group: Vec<(u64, Lsn)> = Vec::with_capacity(GROUP_COUNT);
        loop {
            group.clear();
            while group.len() < GROUP_COUNT {
                let Some(event) = self.take_event() else {
                    break;
                };
                let lsn = self.append(event, &mut record)?;
                outbox.push(Kind::Committed, event, lsn)?;
                group.push((event, lsn));
            }
            let Some((_, lsn_last)) = group.last().copied() else {
                return Ok(());
            };
            outbox.send()?;
            self.wait_durable(lsn_last)?;
            for (event, lsn) in &group {
                outbox.push(Kind::Durable, *event, *lsn)?;
            }
            outbox.send()?;
        }
    }

    /// Waits through the hole: nothing behind it becomes durable, and the kill ends the wait.
    fn wait_durable(&self, lsn: Lsn) -> anyhow::Result<()> {
        loop {
            match self.wal.wait_durable(lsn) {
                Err(kaelix_wal::WaitError::HeldBack { .. }) => {
                    thread::sleep(Duration::from_millis(1));
                }
                result => return Ok(result?),
            }
        }
    }

    /// Reserves, writes half of the record, and waits to be killed.
    fn hold(&self, event: u64, outbox: &mut Outbox, record: &mut Vec<u8>) -> anyhow::Result<()> {
        self.events.write(event, record);
        let mut reservation = self.wal.reserve(record.len())?;
        let half = record.len() / 2;
        reservation[..half].copy_from_slice(&record[..half]);
        outbox.push(Kind::Held, event, reservation.lsn())?;
        outbox.send()?;
        loop {
            thread::park();
        }
    }
}
