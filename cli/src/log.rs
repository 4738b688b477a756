//! Opening and creating logs, with the checks that only a command line needs.

use std::path::Path;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::CommandFactory;
use clap::error::ErrorKind;
use kaelix_wal::{Geometry, Options, Wal};

use crate::args::{Cli, GeometryArgs};

/// The geometry that the options ask for. An impossible one is wrong usage, so it ends the
/// process the way any other wrong option does.
pub fn geometry_or_exit(args: &GeometryArgs) -> Geometry {
    let default = Geometry::default();
    let size = args.size.map_or(default.capacity(), |size| size.as_u64());
    let segment_size = args.segment_size.map_or(default.segment_size(), |size| size.as_u64());
    Geometry::new(size, segment_size).unwrap_or_else(|error| {
        let message =
            format!("--size {} with --segment-size {}: {error}", bytes(size), bytes(segment_size));
        Cli::command().error(ErrorKind::ValueValidation, message).exit()
    })
}

/// Opens the log, or creates it. Sizes that were asked for in so many words must agree with those
/// of a log that is there: a ring that is smaller than was asked for would be a surprise later.
pub fn open_or_create(dir: &Path, args: &GeometryArgs, options: Options) -> anyhow::Result<Wal> {
    let wanted = geometry_or_exit(args);
    let wal = Wal::open_or_create(dir, wanted, options)
        .with_context(|| format!("cannot open the log in {}", dir.display()))?;
    let found = wal.geometry();
    let differs = args.size.is_some_and(|_| wanted.capacity() != found.capacity())
        || args.segment_size.is_some_and(|_| wanted.segment_size() != found.segment_size());
    if differs {
        wal.close().context("cannot close the log")?;
        bail!(
            "the log in {} has {} in segments of {}, not the sizes that were asked for; the \
             geometry is fixed when a log is created: leave the options out, or use another \
             directory",
            dir.display(),
            bytes(found.capacity()),
            bytes(found.segment_size()),
        );
    }
    Ok(wal)
}

/// A byte count for people: without decimals where its unit divides it, else with one.
pub fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) if count.is_multiple_of(*unit) => format!("{} {name}", count / unit),
        _ => ByteSize::b(count).display().iec().to_string(),
    }
}
