//! The files of a repair: the copy, and how it takes the ring file's name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Original;
use crate::error::FileError;
use crate::files::{RingFile, file_error, sync_directory};
use crate::geometry::PAGE_SIZE;
use crate::layout::Superblock;
use crate::verify::read_padded;

const RING: &str = "ring";
const ASIDE: &str = "ring.repair";
const DAMAGED: &str = "ring.damaged";

/// More damaged files than this are not kept in one directory.
const KEPT_MAX: u32 = 1000;

/// Where the copy is made.
pub(super) fn aside(dir: &Path) -> PathBuf {
    dir.join(ASIDE)
}

/// Copies `ring` to `path`, with this superblock, in the length that this says. Every block is
/// written, a page at a time, as at a creation.
pub(super) fn copy(
    ring: &RingFile,
    superblock: &Superblock,
    path: &Path,
) -> Result<File, FileError> {
    // Whatever lies there is a copy that was left behind; what a link points to is not touched.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(file_error("remove", path)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(file_error("create", path))?;
    let mut page = vec![0; PAGE_SIZE as usize];
    for offset in (0..superblock.geometry.file_len()).step_by(PAGE_SIZE as usize) {
        read_padded(ring, offset, &mut page).map_err(file_error("read", &ring.path))?;
        file.write_all(&page).map_err(file_error("write", path))?;
    }
    file.write_all_at(&superblock.encode(), 0).map_err(file_error("write", path))?;
    Ok(file)
}

/// The copy, which is on the medium, becomes the ring file. Returns the damaged one's new name.
pub(super) fn swap(dir: &Path, original: Original) -> Result<Option<PathBuf>, FileError> {
    let (ring, aside) = (dir.join(RING), aside(dir));
    let kept = match original {
        Original::Keep => Some(keep(dir, &ring)?),
        Original::Discard => None,
    };
    if kept.is_some() {
        // Both names of the damaged file are there before one of them goes.
        sync_directory(dir)?;
    }
    fs::rename(&aside, &ring).map_err(file_error("rename", &aside))?;
    sync_directory(dir)?;
    Ok(kept)
}

/// Gives the ring file a second name that nothing has yet.
fn keep(dir: &Path, ring: &Path) -> Result<PathBuf, FileError> {
    let names = std::iter::once(DAMAGED.to_owned());
    let names = names.chain((2..=KEPT_MAX).map(|number| format!("{DAMAGED}.{number}")));
    for name in names {
        let path = dir.join(name);
        match fs::hard_link(ring, &path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error("keep", ring)(error)),
        }
    }
    let full = io::Error::new(ErrorKind::AlreadyExists, "too many damaged files are kept there");
    Err(file_error("keep", ring)(full))
}
