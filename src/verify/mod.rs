//! Verifying a log: every retained record, in as many threads as the machine runs at a time.
//!
//! 1. It is the walk of recovery, with the same decisions, but it writes nothing, takes no lock,
//!    and does not end at damage: what is wrong is noted, with a [`Verdict`], and the walk goes on
//!    at the next record that verifies.
//! 2. A log may be verified while it is written. What its writer has released meanwhile is left out
//!    of the result; what seems damaged is looked at again, since it may have been written, and
//!    proven durable, between two looks; claims that are open are said to be.
//! 3. What lies beside the ring is verified too: both checkpoint slots, the stream catalog and the
//!    consumers' positions. A damaged superblock and a file of the wrong length are found, and the
//!    log is verified all the same, if it says enough about itself.
//! 4. Of what is damaged it is said what [parity](crate::Options::parity) gives back, if the log
//!    has any.
//!
//! ```
//! use kaelix_wal::verify::{Verifier, Verdict};
//! use kaelix_wal::{Geometry, Options, Wal};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("log");
//! let wal = Wal::create(&dir, Geometry::new(1 << 20, 1 << 18)?, Options::new())?;
//! wal.append_durable(b"is this still what was written?")?;
//!
//! let found = Verifier::new(&dir).run()?;
//! assert_eq!(found.verdict(), Verdict::Sound);
//! assert_eq!(found.records, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod beside;
mod report;

use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{OpenError, ReadError};
use crate::files::{self, RingFile};
use crate::parity::{ParityFile, heal};
use crate::recovery::rebuild::{HeadFault, find_head};
use crate::recovery::scan::{Plan, survey};
use crate::recovery::sealed::{Effort, OnDamage};
use crate::recovery::{self, Head};
use crate::sync::{self, Counter, Ordering};

pub use crate::parity::SegmentParity;
pub use crate::recovery::finding::{Finding, Proof, Verdict};
pub use beside::FileFinding;
pub use report::Verification;

/// How often a log that is written is walked until two walks agree on what seems damaged.
const WALKS_MAX: usize = 100;

/// Is told how many bytes have been verified, and of how many.
type Progress = Box<dyn Fn(u64, u64) + Sync>;

/// What one walk has read.
struct Read {
    head: Head,
    plan: Plan,
    faults: Vec<HeadFault>,
}

/// Verifies a log. See the [module documentation](self).
pub struct Verifier {
    dir: PathBuf,
    threads: usize,
    progress: Option<Progress>,
}

impl Verifier {
    /// Of the log in `dir`.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Verifier {
        Verifier { dir: dir.as_ref().to_owned(), threads: sync::parallelism(), progress: None }
    }

    /// In so many threads, at least one. Default: as many as the machine runs at the same time.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Verifier {
        self.threads = threads.max(1);
        self
    }

    /// Calls `progress` now and then, from any of the threads, with the bytes of the ring that have
    /// been looked at, and all there are. A log that is written may be looked at again.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(u64, u64) + Sync + 'static) -> Verifier {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Verifies the log as it is now. Damage is not an error, but a part of the result.
    ///
    /// # Errors
    ///
    /// There is no log, or one of another version, its superblock is damaged and what else there is
    /// does not agree on another, both of its checkpoint slots are damaged, or the system refuses
    /// to read.
    pub fn run(&self) -> Result<Verification, ReadError> {
        let start = sync::now();
        let ring = RingFile::open(&self.dir, false)?;
        let Read { mut head, mut plan, faults } = self.walk(&ring)?;
        let writer = files::writer_of(&self.dir);
        if writer.is_some() {
            (head, plan) = self.settle(&ring, head, plan)?;
        }
        let footed = plan.footed.clone();
        let mut found = Verification::new(&self.dir, &head, plan, writer);
        found.files = beside::check(&self.dir, &ring, &head, &faults)?;
        self.parity(&ring, &head, &footed, &mut found)?;
        found.duration = start.elapsed();
        Ok(found)
    }

    /// One walk over what is retained.
    fn walk(&self, ring: &RingFile) -> Result<Read, ReadError> {
        let read = |offset, bytes: &mut [u8]| read_padded(ring, offset, bytes);
        let (head, faults) = read_head(ring)?;
        let (done, total) = (Counter::new(0), head.geometry.capacity());
        let progress = |bytes: u64| {
            // Relaxed: a figure for people.
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if let Some(progress) = &self.progress {
                progress(done.min(total), total);
            }
        };
        let threads = self.threads;
        let progress = self.progress.as_ref().map(|_| &progress as &(dyn Fn(u64) + Sync));
        let effort = Effort { lazy: false, on_damage: OnDamage::Skip, threads, progress };
        let plan = survey(&read, &head, ring.boot(), &effort)
            .map_err(|refusal| recovery::refusal_error(&ring.path, refusal))?;
        Ok(Read { head, plan, faults })
    }

    /// Rule 4.
    fn parity(
        &self,
        ring: &RingFile,
        head: &Head,
        footed: &[u32],
        found: &mut Verification,
    ) -> Result<(), ReadError> {
        let file = match ParityFile::open(&self.dir, head.log_id, head.geometry) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(()),
            Err(error) => {
                found.files.push(beside::unusable_parity(error));
                return Ok(());
            }
        };
        let read = |offset, bytes: &mut [u8]| read_padded(ring, offset, bytes);
        let system = |source| ReadError::from(files::file_error("read", &ring.path)(source));
        for sequence in footed {
            let protected = file.protects(&read, *sequence).map_err(system)?;
            found.protected_segments += u64::from(protected);
        }
        if found.findings.iter().any(|finding| finding.verdict == Verdict::Corrupt) {
            let healed = heal(&file, &read, head, ring.boot())
                .map_err(|refusal| recovery::refusal_error(&ring.path, refusal))?;
            (found.parity, found.is_healable) = (healed.segments, healed.is_whole);
        }
        Ok(())
    }

    /// Rule 2: what is left of a walk beside a writer.
    fn settle(
        &self,
        ring: &RingFile,
        mut head: Head,
        mut plan: Plan,
    ) -> Result<(Head, Plan), ReadError> {
        for _ in 0..WALKS_MAX {
            let (now, _) = read_head(ring)?;
            let same_epoch = now.checkpoint.epoch == head.checkpoint.epoch;
            // The space of what was released may have been used again under the walk.
            let oldest = head.geometry.normalize(now.checkpoint.trimmed);
            plan.findings.retain(|finding| finding.lsn >= oldest);
            if same_epoch && suspects(&plan).next().is_none() {
                head.checkpoint.trimmed = head.checkpoint.trimmed.max(now.checkpoint.trimmed);
                break;
            }
            let next = self.walk(ring)?;
            let agrees = same_epoch && suspects(&plan).eq(suspects(&next.plan));
            (head, plan) = (next.head, next.plan);
            if agrees {
                break;
            }
        }
        for finding in &mut plan.findings {
            if finding.verdict == Verdict::AbandonedClaim {
                finding.verdict = Verdict::OpenClaim;
                finding.reason = "a claim that its owner has not committed yet";
            }
        }
        Ok((head, plan))
    }
}

/// What a writer that is at work should not have left.
fn suspects(plan: &Plan) -> impl Iterator<Item = (u64, Verdict)> {
    let is_suspect = |verdict| matches!(verdict, Verdict::Corrupt | Verdict::TornInFlight);
    let suspects = plan.findings.iter().filter(move |finding| is_suspect(finding.verdict));
    suspects.map(|finding| (finding.lsn.get(), finding.verdict))
}

/// The head; again, if the writer was at work on one slot when that was read, and on the other when
/// that was.
fn read_head(ring: &RingFile) -> Result<(Head, Vec<HeadFault>), OpenError> {
    let read = |offset, bytes: &mut [u8]| read_padded(ring, offset, bytes);
    let find = || find_head(&read, ring.len, &ring.path);
    let mut found = find();
    for _ in 0..WALKS_MAX {
        match found {
            Err(OpenError::NoCheckpoint(_)) => found = find(),
            _ => break,
        }
    }
    found.map(|(head, _, faults)| (head, faults))
}

/// Reads `bytes` of a ring file that may have lost its end: zeros stand for that.
pub(crate) fn read_padded(ring: &RingFile, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    let there = ring.len.saturating_sub(offset).min(bytes.len() as u64) as usize;
    let (there, missing) = bytes.split_at_mut(there);
    missing.fill(0);
    ring.file.read_exact_at(there, offset)
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("dir", &self.dir)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}
