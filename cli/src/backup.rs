//! `backup` and `resize`: a log in another ring file.

use anyhow::Context;
use indicatif::HumanCount;
use kaelix_wal::inspect::Observer;
use kaelix_wal::{Options, Wal};

use crate::args::{BackupArgs, ResizeArgs};
use crate::display::{pairs, plural};
use crate::log::{bytes, usage_error};
use crate::sink::say;

pub fn run(args: &BackupArgs) -> anyhow::Result<()> {
    let observer = Observer::open(&args.dir)
        .with_context(|| format!("cannot read the log in {}", args.dir.display()))?;
    let backup = observer.backup(&args.to).with_context(|| {
        format!("cannot back up the log in {} to {}", args.dir.display(), args.to.display())
    })?;
    say(pairs(&[
        ("backup", backup.path.display().to_string()),
        ("from LSN", backup.start.to_string()),
        ("to LSN", backup.end.to_string()),
        (
            "holds",
            format!(
                "{} with {} of payload, each read back",
                plural(backup.records, "record"),
                bytes(backup.payload_bytes)
            ),
        ),
    ]))
}

pub fn resize(args: &ResizeArgs) -> anyhow::Result<()> {
    let dir = args.dir.display();
    let size = args.size.as_u64();
    let geometry = {
        let observer = Observer::open(&args.dir);
        observer.with_context(|| format!("cannot read the log in {dir}"))?.geometry()
    };
    let segment_size = geometry.segment_size();
    if !size.is_multiple_of(segment_size) || size < 2 * segment_size {
        usage_error(format!(
            "--size {}: the ring must be a multiple of the segment size of this log, {}, and at \
             least two segments",
            bytes(size),
            bytes(segment_size)
        ));
    }
    // A log that was not closed in order is recovered first: what it holds is known then.
    let wal = Wal::open(&args.dir, Options::new())
        .with_context(|| format!("cannot resize the log in {dir} unless it opens"))?;
    wal.close().with_context(|| format!("the log in {dir} cannot be closed in order"))?;
    drop(wal);
    let resized = Wal::resize(&args.dir, size)
        .with_context(|| format!("the log in {dir} has the size that it had"))?;
    say(format_args!(
        "the ring has {} now, and had {}; {} records are retained, from LSN {} to {}",
        bytes(resized.to.capacity()),
        bytes(resized.from.capacity()),
        HumanCount(resized.records),
        resized.start,
        resized.end
    ))
}
