//! What lies beside the records: checkpoint slots, stream catalog, consumers' positions.

use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Verdict;
use crate::consumer::store::{self, Directory};
use crate::error::{CatalogError, FileError, OpenError, ReadError};
use crate::files::{RingFile, file_error};
use crate::geometry::PAGE_SIZE;
use crate::layout::{CHECKPOINT_SLOT_OFFSETS, Checkpoint};
use crate::recovery::Head;
use crate::recovery::rebuild::HeadFault;
use crate::stream::Catalog;

/// Something wrong with what a log keeps twice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileFinding {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub file_offset: u64,
    /// [`Verdict::TornInFlight`] if the other copy counts, or the log does without the file;
    /// [`Verdict::Corrupt`] else.
    pub verdict: Verdict,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for FileFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (file offset {}): {}",
            self.verdict,
            self.path.display(),
            self.file_offset,
            self.reason
        )
    }
}

/// Verifies all of it.
pub(super) fn check(
    dir: &Path,
    ring: &RingFile,
    head: &Head,
    faults: &[HeadFault],
) -> Result<Vec<FileFinding>, ReadError> {
    let mut found: Vec<_> = faults.iter().map(|fault| head_finding(ring, *fault)).collect();
    found.extend(other_slot(ring, head)?);
    match Catalog::open(dir, &head.log_id, false) {
        Ok(_) => {}
        Err(error @ CatalogError::Path(_)) => return Err(OpenError::Catalog(error).into()),
        Err(error) => found.push(FileFinding {
            path: dir.join("streams.a"),
            file_offset: 0,
            verdict: Verdict::Corrupt,
            reason: error.to_string(),
        }),
    }
    let medium = Directory::open(dir)?;
    match store::load(&medium, &head.log_id, &head.geometry) {
        Ok(loaded) => found.extend(loaded.damaged.map(|(path, reason)| FileFinding {
            path,
            file_offset: 0,
            verdict: Verdict::TornInFlight,
            reason: format!("{reason}; the other copy counts"),
        })),
        Err(OpenError::Consumers { path, reason }) => found.push(FileFinding {
            path,
            file_offset: 0,
            verdict: Verdict::Corrupt,
            reason: reason.to_string(),
        }),
        Err(error) => return Err(error.into()),
    }
    Ok(found)
}

fn head_finding(ring: &RingFile, fault: HeadFault) -> FileFinding {
    let (file_offset, reason) = match fault {
        HeadFault::Superblock => (
            0,
            "the superblock does not verify; the checkpoint slots and the segment headers agree \
             on what it said"
                .to_owned(),
        ),
        HeadFault::Length { found, expected } => (
            found.min(expected),
            format!("the file has {found} bytes, and the log says that they are {expected}"),
        ),
    };
    FileFinding { path: ring.path.clone(), file_offset, verdict: Verdict::Corrupt, reason }
}

/// A parity file that is there and cannot be opened.
pub(super) fn unusable_parity(error: FileError) -> FileFinding {
    FileFinding {
        reason: format!(
            "the parity file cannot be opened ({}), so it gives nothing back; the log does not \
             depend on it",
            error.source
        ),
        path: error.path,
        file_offset: 0,
        verdict: Verdict::TornInFlight,
    }
}

/// The checkpoint slot that does not count. One that does not verify was being written when its
/// process or the power went, or has been damaged since; before the first open, it is zero.
fn other_slot(ring: &RingFile, head: &Head) -> Result<Option<FileFinding>, ReadError> {
    let file_offset = CHECKPOINT_SLOT_OFFSETS[1 - head.slot];
    let mut page = vec![0; PAGE_SIZE as usize];
    let read = ring.file.read_exact_at(&mut page, file_offset);
    read.map_err(file_error("read", &ring.path))?;
    let is_whole = Checkpoint::verify(&page, &head.log_id).is_some();
    let is_unwritten = head.checkpoint.epoch == 0 && page.iter().all(|byte| *byte == 0);
    if is_whole || is_unwritten {
        return Ok(None);
    }
    Ok(Some(FileFinding {
        path: ring.path.clone(),
        file_offset,
        verdict: Verdict::TornInFlight,
        reason: "a checkpoint slot that does not verify; the other one counts".to_owned(),
    }))
}
