//! What `ingest` says at the end, whether it succeeded or not.

use std::io;
use std::time::Duration;

use indicatif::HumanCount;
use kaelix_wal::{AppendError, Wal};

use super::producer::{Failure, SPACE_WAIT_MAX, Tally};
use crate::args::{FullPolicy, IngestArgs};
use crate::display::{self, plural};
use crate::log::bytes;

pub struct Report<'a> {
    pub args: &'a IngestArgs,
    pub wal: &'a Wal,
    /// How many streams the log had at the start.
    pub streams_before: usize,
    pub tally: Tally,
    pub elapsed: Duration,
}

impl Report<'_> {
    /// The report, line by line.
    pub fn text(&self) -> String {
        let after = self.wal.watermarks();
        let Tally { records, bytes: len, .. } = self.tally;
        let mut rows = vec![("appended", format!("{}, {}", plural(records, "record"), bytes(len)))];
        if let (Some(first), Some(last)) = (self.tally.lsn_first, self.tally.lsn_last) {
            rows.push(("first LSN", first.to_string()));
            rows.push(("last LSN", last.to_string()));
        }
        if self.args.stream_by.is_some() {
            let streams = self.wal.stream_names().len();
            let new = HumanCount((streams - self.streams_before) as u64);
            rows.push(("streams", format!("{} in the log, {new} new", HumanCount(streams as u64))));
            if self.tally.unnamed > 0 {
                rows.push(("of no stream", plural(self.tally.unnamed, "record")));
            }
        }
        rows.push(("durable up to LSN", after.durable.to_string()));
        rows.push(("persistence", self.wal.persistence().to_string()));
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let (record_rate, byte_rate) = (records as f64 / seconds, len as f64 / seconds);
        rows.push((
            "took",
            format!(
                "{seconds:.3} s, {} records/s, {}/s",
                HumanCount(record_rate as u64),
                bytes(byte_rate as u64),
            ),
        ));
        if self.args.on_full == FullPolicy::Overwrite {
            let displaced = self.wal.metrics().bytes_overwritten;
            rows.push(("displaced", format!("{} of the oldest log", bytes(displaced))));
        }
        display::pairs(&rows)
    }

    /// Success, or the error that says which line was the first that is not in the log.
    pub fn into_result(self, read_error: Option<io::Error>) -> anyhow::Result<()> {
        if let Some(failure) = self.tally.failure {
            return Err(explain(self.args, self.tally.records, failure));
        }
        match read_error {
            None => Ok(()),
            Some(error) => Err(anyhow::Error::new(error).context(format!(
                "the input ended with an error after {}; everything that could be read is in the \
                 log",
                plural(self.tally.records, noun(self.args))
            ))),
        }
    }
}

fn explain(args: &IngestArgs, records: u64, failure: Failure) -> anyhow::Error {
    let Failure { line, appended, cause } = failure;
    let others = if args.producers.get() == 1 { "" } else { ", and maybe some after it" };
    let in_log = format!("{} in the log: all before that one{others}", are(records, noun(args)));
    let what = match cause.downcast_ref::<AppendError>() {
        _ if appended => format!(
            "line {line} was appended, but could not be made durable; {in_log}; look at the disk, \
             then open the log again: recovery says what it kept"
        ),
        Some(AppendError::TooLarge { max, .. }) => format!(
            "line {line} is longer than the largest record of this log, {max} bytes; {in_log}; \
             shorten the line, or create a log with a larger --segment-size"
        ),
        Some(AppendError::Full { .. }) => format!(
            "the log is full{}: line {line} does not fit; {in_log}; take records out with \
             `kaelix-wal pipe {} </dev/null`, let --on-full overwrite displace the oldest, or \
             create a log with a larger --size",
            if args.on_full == FullPolicy::Wait {
                format!(", and no space came free within {} s", SPACE_WAIT_MAX.as_secs())
            } else {
                String::new()
            },
            args.dir.display(),
        ),
        _ => format!("line {line} could not be appended; {in_log}"),
    };
    cause.context(what)
}

fn are(count: u64, noun: &str) -> String {
    format!("{} {}", plural(count, noun), if count == 1 { "is" } else { "are" })
}

/// What a record was in the input.
fn noun(args: &IngestArgs) -> &'static str {
    if args.stream_by.is_some() { "row" } else { "line" }
}
