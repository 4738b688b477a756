//! Where the demo keeps its log.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

/// The log's directory, which goes away with this value unless it was asked for by name.
pub struct Place {
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl Place {
    pub fn new(keep: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(dir) = keep {
            return Ok(Self { dir: dir.to_owned(), _temporary: None });
        }
        let temporary = TempDir::with_prefix("kaelix-wal-demo-").context(
            "cannot make a temporary directory; set TMPDIR to a directory that can be written, or \
             use --keep",
        )?;
        Ok(Self { dir: temporary.path().to_owned(), _temporary: Some(temporary) })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file system keeps its files in memory, so a sync costs nothing there.
    #[cfg(target_os = "linux")]
    pub fn is_in_memory(&self) -> bool {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        const RAMFS_MAGIC: u64 = 0x8584_58f6;
        rustix::fs::statfs(&self.dir)
            .is_ok_and(|stat| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&(stat.f_type as u64)))
    }

    #[cfg(not(target_os = "linux"))]
    pub fn is_in_memory(&self) -> bool {
        false
    }
}
