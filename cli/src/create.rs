//! `create`: an empty log.

use anyhow::Context;
use kaelix_wal::{Options, Wal};

use crate::args::CreateArgs;
use crate::log::{bytes, geometry_or_exit, warn_of_file_system};
use crate::sink::say;

pub fn run(args: &CreateArgs) -> anyhow::Result<()> {
    let geometry = geometry_or_exit(&args.geometry);
    let wal = Wal::create(&args.dir, geometry, Options::new())
        .with_context(|| format!("cannot create a log in {}", args.dir.display()))?;
    warn_of_file_system(&args.dir);
    wal.close().context("the log was created, but cannot be closed in order")?;
    say(format_args!(
        "created a log in {}: {} segments of {}, {} in all; the largest record is {} bytes",
        args.dir.display(),
        geometry.segments(),
        bytes(geometry.segment_size()),
        bytes(geometry.capacity()),
        geometry.payload_len_max(),
    ))
}
