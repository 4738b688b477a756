//! `cat`: the records of a log as lines, also while a writer is open.

use crate::args::{CatArgs, Since};
use crate::sink::{Format, Sink};
use crate::walk::Walk;

pub fn run(args: &CatArgs) -> anyhow::Result<()> {
    let mut walk = Walk::open(&args.dir)?;
    walk.select(&args.select.streams)?;
    let end = walk.committed()?;
    match args.since {
        Some(Since::Lsn(lsn)) => walk.seek_since(lsn)?,
        Some(Since::Time(time)) => walk.seek_time(time)?,
        None => walk.seek(args.from)?,
    }
    let mut sink = Sink::new(Format::from_flag(args.json))?;
    // A writer that appends faster than we print must not keep us here for ever.
    while walk.position() < end && walk.print_next(&mut sink)? {}
    sink.flush()
}
