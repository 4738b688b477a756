//! `tail`: the newest records, and those that a writer in another process appends.

use std::time::Duration;

use crate::args::TailArgs;
use crate::sink::{Format, Sink, sleep_unless_closed};
use crate::walk::Walk;

const POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(50);

pub fn run(args: &TailArgs) -> anyhow::Result<()> {
    let mut walk = Walk::open(&args.dir)?;
    walk.select(&args.select.streams)?;
    let end = walk.committed()?;
    match args.from {
        Some(lsn) => walk.seek(Some(lsn))?,
        None => walk.seek_newest(args.lines)?,
    }
    let mut sink = Sink::new(Format::from_flag(args.json))?;
    if args.follow {
        return follow(&mut walk, &mut sink);
    }
    while walk.position() < end && walk.print_next(&mut sink)? {}
    sink.flush()
}

/// Prints until the output is closed. The pause between two looks grows while there is nothing, so
/// that a quiet log costs nothing, and shrinks at once when there is something.
fn follow(walk: &mut Walk, sink: &mut Sink) -> anyhow::Result<()> {
    let mut interval = POLL_INTERVAL_MIN;
    loop {
        while walk.print_next(sink)? {
            interval = POLL_INTERVAL_MIN;
        }
        sink.flush()?;
        sleep_unless_closed(interval)?;
        interval = (interval * 2).min(POLL_INTERVAL_MAX);
    }
}
