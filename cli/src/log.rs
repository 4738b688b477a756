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
        usage_error(message)
    })
}

/// Ends the process as any wrong option does.
pub fn usage_error(message: String) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, message).exit()
}

/// Opens the log, or creates it. Sizes that were asked for in so many words must agree with those
/// of a log that is there: a ring that is smaller than was asked for would be a surprise later.
pub fn open_or_create(dir: &Path, args: &GeometryArgs, options: Options) -> anyhow::Result<Wal> {
    let wanted = geometry_or_exit(args);
    let wal = Wal::open_or_create(dir, wanted, options)
        .with_context(|| format!("cannot open the log in {}", dir.display()))?;
    warn_of_file_system(dir);
    let found = wal.geometry();
    let differs = args.size.is_some_and(|_| wanted.capacity() != found.capacity())
        || args.segment_size.is_some_and(|_| wanted.segment_size() != found.segment_size());
    if differs {
        wal.close().context("cannot close the log")?;
        bail!(
            "the log in {} has {} in segments of {}, not the sizes that were asked for: \
             leave the options out, use another directory, or give the ring another size with \
             `kaelix-wal resize`",
            dir.display(),
            bytes(found.capacity()),
            bytes(found.segment_size()),
        );
    }
    Ok(wal)
}

/// Waits until the log's sealed segments are protected by parity, if it was opened like that. That
/// they cannot be is worth a warning only, since nothing depends on it.
pub fn protect(wal: &Wal) {
    if let Err(error) = wal.sync_parity() {
        eprintln!("warning: not all segments are protected by parity: {error}");
    }
}

/// A byte count for people: without decimals where its unit divides it, else with one.
pub fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) if count.is_multiple_of(*unit) => format!("{} {name}", count / unit),
        _ => ByteSize::b(count).display().iec().to_string(),
    }
}

/// Warns of a file system on which a log is not what it is elsewhere.
pub fn warn_of_file_system(dir: &Path) {
    let Ok(found) = rustix::fs::statfs(dir) else { return };
    if let Some(warning) = file_system_warning(found.f_type as u64 & 0xFFFF_FFFF) {
        eprintln!("warning: {} is on {warning}", dir.display());
    }
}

/// By the magic numbers of `statfs(2)`.
fn file_system_warning(magic: u64) -> Option<String> {
    let network = |name: &str| {
        format!(
            "{name}: neither its locks nor its syncs can be relied on for a log; use a local disk, \
             and never open the log from two machines"
        )
    };
    Some(match magic {
        0x6969 => network("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => network("SMB"),
        0x0102_1997 => network("9P"),
        0x00C3_6400 => network("Ceph"),
        0x6573_5546 => network("FUSE"),
        0x794C_7630 => "an overlay (a container's own layer): it goes with the container; use a \
                        volume"
            .to_owned(),
        0x0102_1994 | 0x8584_58F6 => "in memory: it does not survive a reboot".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::file_system_warning;

    #[test]
    fn networks_and_memory_are_warned_of_and_disks_are_not() {
        for magic in [0x6969, 0xFF53_4D42, 0x6573_5546, 0x794C_7630, 0x0102_1994] {
            assert!(file_system_warning(magic).is_some(), "{magic:#x}");
        }
        // ext4, XFS, Btrfs, ZFS.
        for magic in [0xEF53, 0x5846_5342, 0x9123_683E, 0x2FC1_2FC1] {
            assert_eq!(file_system_warning(magic), None, "{magic:#x}");
        }
    }
}
