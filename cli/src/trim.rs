//! `trim`: releases what lies below a position of a log that nobody has open.
//!
//! It is a writer for as long as it takes, with the writer's lock: a checkpoint, made durable.

use anyhow::{Context, bail};
use kaelix_wal::{CheckpointError, Lsn, OpenError, Options, PathError, Wal};

use crate::args::{TrimArgs, TrimTo};
use crate::log::bytes;
use crate::sink::say;

pub fn run(args: &TrimArgs) -> anyhow::Result<()> {
    let wal = open(args)?;
    let released = trim(args, &wal);
    let closed = wal.close().context("the log could not be closed in order");
    let (before, after) = released?;
    closed?;
    say(format_args!(
        "released {} of log: it begins at LSN {after} now, and was retained from LSN {before} on",
        bytes(after - before)
    ))
}

fn open(args: &TrimArgs) -> anyhow::Result<Wal> {
    let dir = args.dir.display();
    match Wal::open(&args.dir, Options::new()) {
        Err(error @ OpenError::Path(PathError::Locked { .. })) => Err(anyhow::Error::new(error)
            .context(format!(
                "cannot trim the log in {dir} while it is open: let the program that has it open \
                 checkpoint, or stop it first"
            ))),
        opened => opened.with_context(|| format!("cannot open the log in {dir}")),
    }
}

/// Where the log began, and where it begins now.
fn trim(args: &TrimArgs, wal: &Wal) -> anyhow::Result<(Lsn, Lsn)> {
    let before = wal.watermarks().trimmed;
    let to = match args.to {
        TrimTo::Lsn(lsn) => lsn,
        TrimTo::End => wal.sync().context("cannot make the end of the log durable")?,
    };
    let behind = wal.consumers().into_iter().find(|consumer| consumer.position.lsn < to);
    if let Some(consumer) = behind.filter(|_| !args.past_consumers) {
        bail!(
            "consumer {:?} is at LSN {} and would lose what it has not read; let it go on, trim \
             to there, or say --past-consumers",
            consumer.name,
            consumer.position.lsn
        );
    }
    let checkpoint = wal.checkpoint(to).map_err(|error| {
        let advice = match error {
            CheckpointError::NotARecord { .. } => {
                "cannot trim there; `kaelix-wal cat DIR --since LSN --json` shows where records \
                 begin"
            }
            _ => "cannot trim there",
        };
        anyhow::Error::new(error).context(advice)
    });
    checkpoint?;
    let after = wal.sync_checkpoint().context("cannot make the new beginning durable")?;
    Ok((before, after))
}
