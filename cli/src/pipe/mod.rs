//! `pipe`: standard input to standard output through the log, so that a crash loses nothing.
//!
//! Contract:
//!
//! 1. The output is the input, byte for byte. A record is a line with its newline; a line longer
//!    than the largest record is several records.
//! 2. The *feeder* thread reads and appends. The main thread *delivers*: it follows the durable
//!    records, so nothing comes out that a crash of the machine could take back.
//! 3. Space is released only behind what the consumer has taken out of the pipe: write, flush, see
//!    it gone, checkpoint. The next run begins at the last checkpoint that reached the disk, so
//!    nothing is skipped, and what may come twice is what was delivered since.
//! 4. A full ring holds the feeder, and so the producer behind it, until the consumer takes
//!    something. Nothing here grows with the input.
//! 5. When the consumer is gone, what was read and not delivered stays in the log.
//!
//! Durability is an interval of a millisecond, and not a sync by the feeder after each block: the
//! library's flusher then syncs beside the feeder's appends and the main thread's writes, and one
//! sync covers all that came in since the last. Under load that is a few large syncs, and on a
//! quiet pipe a line still comes out within about a millisecond and one sync.

mod deliver;
mod feed;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kaelix_wal::{Durability, OnFull, Options, Wal};

use self::deliver::{Delivery, Ended};
use self::feed::{FeedEnd, Feeder};
use crate::args::PipeArgs;
use crate::log::open_or_create;

const FLUSH_INTERVAL: Duration = Duration::from_millis(1);

/// How long a feeder whose consumer is gone may take to put into the log what it has read.
const FEED_STOP_MAX: Duration = Duration::from_secs(1);

pub fn run(args: &PipeArgs) -> anyhow::Result<()> {
    let options = Options::new()
        .durability(Durability::Interval(FLUSH_INTERVAL))
        .on_full(OnFull::Wait)
        .persistence(args.persistence.into())
        .parity(args.parity);
    let wal = Arc::new(open_or_create(&args.dir, &args.geometry, options)?);
    let feeder = Feeder::start(Arc::clone(&wal))?;
    match Delivery::new(&wal)?.run(&feeder) {
        Ok(Ended::InputDelivered) => finish(&wal, feeder),
        Ok(Ended::OutputClosed) => {
            abandon(&wal, feeder, "standard output was closed by its reader")
        }
        Err(error) => {
            // Why the delivery ended is the error; what became of the rest is worth a word too.
            if let Err(rest) = abandon(&wal, feeder, "the delivery has ended") {
                eprintln!("warning: {rest:#}");
            }
            Err(error)
        }
    }
}

/// The input has ended and all of it is delivered.
fn finish(wal: &Wal, feeder: Feeder) -> anyhow::Result<()> {
    let end = feeder.join();
    wal.sync_checkpoint().context(
        "everything was delivered, but the log could not note it on disk: the next run may \
         deliver the end of it again",
    )?;
    wal.close().context("everything was delivered, but the log could not be closed in order")?;
    into_result(end)
}

/// There will be no more output. What the feeder has read goes into the log if there is room for
/// it. Never `Ok`: something may be left undelivered.
fn abandon(wal: &Wal, mut feeder: Feeder, why: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + FEED_STOP_MAX;
    feeder.stop();
    while !feeder.has_ended() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    let synced = wal.sync();
    let noted = wal.sync_checkpoint();
    let left = wal.watermarks();
    // A feeder that still waits for space is released by the closing, and says what it could not
    // put into the log.
    let closed = wal.close();
    into_result(feeder.join())?;
    synced.with_context(|| format!("{why}, and the rest could not be made durable"))?;
    noted.with_context(|| format!("{why}, and the checkpoint could not be written"))?;
    closed.with_context(|| format!("{why}, and the log could not be closed in order"))?;
    bail!(
        "{why}; what has not been taken, up to {} bytes of log, is kept, and the next run of this \
         command delivers it first",
        left.published.get().saturating_sub(left.trimmed.get())
    )
}

fn into_result(end: FeedEnd) -> anyhow::Result<()> {
    match end {
        FeedEnd::Complete => Ok(()),
        FeedEnd::Failed(error) => Err(error),
        FeedEnd::Lost { bytes } => bail!(
            "the output has ended and the log is full: {bytes} bytes that were already read from \
             standard input did not fit and are lost; what is in the log is delivered first by \
             the next run of this command"
        ),
    }
}
