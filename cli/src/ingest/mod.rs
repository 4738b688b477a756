//! `ingest`: one record a line, or a row, by one or more producers.
//!
//! Contract:
//!
//! 1. A line is in the log, or the command fails and names the first line that is not.
//! 2. This thread reads, the producers append: blocks of whole lines go through a bounded queue,
//!    so memory does not depend on the input, and no line waits for a queue of its own.
//! 3. The queue is first in, first out, and a producer appends a block before it takes the next:
//!    each producer keeps the order of the input, and a lone producer's order is the input's.
//! 4. What was appended is reported on success and on failure alike.
//! 5. Where rows are sorted into streams, the header is read before the log is opened, and the
//!    blocks end where rows do: which row belongs to which stream is the producers' work.

mod blocks;
mod producer;
mod report;
mod rows;
mod sorter;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kaelix_wal::{Durability, Geometry, OnFull, Options, Wal};

use self::blocks::{Block, Blocks, Cut};
use self::producer::{Tally, Work};
use self::report::Report;
use self::rows::{Header, RowEnds, behind_header};
use crate::args::{FullPolicy, IngestArgs, SyncPolicy};
use crate::log::{protect, warn_of_file_system};
use crate::sink::say;

struct Input {
    reader: Box<dyn Read>,
    /// Bytes, where the input can tell.
    len: Option<u64>,
    /// The first row, if the lines are rows.
    header: Option<Header>,
}

pub fn run(args: &IngestArgs) -> anyhow::Result<()> {
    // The input comes first: a mistyped file name must not leave an empty log behind.
    let mut input = open_input(&args.file)?;
    if let Some(column) = &args.stream_by {
        input.header = Some(Header::read(&mut *input.reader, column)?);
    }
    let wal = Wal::open_or_create(&args.dir, Geometry::default(), options(args))
        .with_context(|| format!("cannot open the log in {}", args.dir.display()))?;
    warn_of_file_system(&args.dir);
    let streams_before = wal.stream_names().len();
    let progress = progress_bar(input.len);
    let started = Instant::now();
    let (tally, read_error) = append_all(args, &wal, input, &progress);
    let synced = match args.sync {
        SyncPolicy::None => Ok(()),
        _ => wal.sync().map(drop),
    };
    let elapsed = started.elapsed();
    progress.finish_and_clear();
    let report = Report { args, wal: &wal, streams_before, tally, elapsed };
    protect(&wal);
    let closed = wal.close();
    // Whatever went wrong, what was appended is said first. Nobody listening is no failure of the
    // ingest, and less of one than any below.
    let said = say(report.text());
    report.into_result(read_error)?;
    synced.context(
        "the lines were appended, but not all of them could be made durable; look at the disk, \
         then open the log again: recovery says what it kept",
    )?;
    closed.context("the lines were appended, but the log could not be closed in order")?;
    said
}

fn open_input(file: &Path) -> anyhow::Result<Input> {
    if file == Path::new("-") {
        return Ok(Input { reader: Box::new(io::stdin().lock()), len: None, header: None });
    }
    let context = || format!("cannot read the input file {}", file.display());
    let reader = File::open(file).with_context(context)?;
    let metadata = reader.metadata().with_context(context)?;
    let len = metadata.is_file().then_some(metadata.len());
    Ok(Input { reader: Box::new(reader), len, header: None })
}

fn options(args: &IngestArgs) -> Options {
    let durability = match args.sync {
        SyncPolicy::None => Durability::None,
        SyncPolicy::Each | SyncPolicy::Group | SyncPolicy::End => Durability::OnDemand,
    };
    let on_full = match args.on_full {
        FullPolicy::Wait => OnFull::Wait,
        FullPolicy::Fail => OnFull::Fail,
        FullPolicy::Overwrite => OnFull::Overwrite,
    };
    let persistence = args.persistence.into();
    let options = Options::new().durability(durability).on_full(on_full).persistence(persistence);
    options.parity(args.parity)
}

fn progress_bar(len: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = if len.is_some() {
        "{bar:40} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  \
         {binary_bytes_per_sec}  {eta} left"
    } else {
        "{spinner} {binary_bytes}  {binary_bytes_per_sec}"
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(len, ProgressDrawTarget::stderr()).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Reads the whole input through the producers. Returns what they did, and the error that ended
/// the reading, if one did.
fn append_all(
    args: &IngestArgs,
    wal: &Wal,
    input: Input,
    progress: &ProgressBar,
) -> (Tally, Option<io::Error>) {
    let producers = usize::from(args.producers.get());
    let line_len_max = wal.geometry().payload_len_max();
    let (column, blocks_in) = match input.header {
        None => (None, Blocks::new(input.reader, Cut::Lines, line_len_max, 1)),
        Some(Header { column, lines, rest }) => {
            let (reader, cut) = (behind_header(rest, input.reader), Cut::Rows(RowEnds::new()));
            (Some(column), Blocks::new(reader, cut, line_len_max, 1 + lines))
        }
    };
    let stop = AtomicBool::new(false);
    let (sync, on_full, column) = (args.sync, args.on_full, column.as_ref());
    let work = Work { wal, sync, on_full, column, progress, stop: &stop };
    let (blocks, queue) = bounded::<Block>(2 * producers);
    let (spent, spare) = unbounded::<Vec<u8>>();
    thread::scope(|scope| {
        let handles: Vec<_> = (0..producers)
            .map(|_| {
                let (work, queue, spent) = (&work, queue.clone(), spent.clone());
                scope.spawn(move || work.produce(&queue, &spent))
            })
            .collect();
        // Only the producers may hold the receiving end: when the last of them gives up, sending
        // to them must fail instead of waiting for ever.
        drop(queue);
        let read_error = read_all(blocks_in, blocks, &spare, &stop);
        let mut tally = Tally::default();
        for handle in handles {
            match handle.join() {
                Ok(part) => tally.merge(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (tally, read_error)
    })
}

fn read_all<R: Read>(
    mut input: Blocks<R>,
    blocks: Sender<Block>,
    spare: &Receiver<Vec<u8>>,
    stop: &AtomicBool,
) -> Option<io::Error> {
    let mut read_error = None;
    while !stop.load(Ordering::Relaxed) {
        match input.next(spare.try_recv().unwrap_or_default()) {
            Ok(Some(block)) => {
                if blocks.send(block).is_err() {
                    break;
                }
            }
            Ok(None) => break,
            // One more turn hands out what was read before the error.
            Err(error) => read_error = Some(error),
        }
    }
    read_error
}
