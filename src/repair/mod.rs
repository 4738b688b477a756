//! Repairing a log whose acknowledged data is damaged.
//!
//! 1. A repair begins with a [`RepairPlan`]. To make one writes nothing; it says what will be left
//!    and what will be lost. It holds the log's lock: nobody opens the log between plan and repair.
//! 2. Three [modes](Mode): truncate the log at the first damage; or salvage every record that
//!    verifies and mark each gap, which readers then report
//!    ([`ReadError::Gap`](crate::ReadError::Gap)); or heal it from parity, if that gives all back.
//! 3. The ring file is never written to. The repair is made in a copy beside it (`ring.repair`),
//!    which is verified, synced, and then takes its name, by one `rename`. Until that, the log is
//!    as it was, whatever interrupts; after it, it is repaired. A copy that was left behind is
//!    overwritten by the next repair.
//! 4. The damaged file keeps a name of its own (`ring.damaged`), given to it before the rename,
//!    unless it is told to be [discarded](Original::Discard).
//! 5. What a crash alone has left is mended on the way as an open would: abandoned claims become
//!    pads, a torn end is cut. The repaired log begins a new epoch and is closed in order; what
//!    lies beyond its end stays dead.
//! 6. What [parity](crate::Options::parity) gives back is put back before anything is cut or
//!    skipped, and then it was never damaged. [`Mode::Heal`] does that alone, or nothing.
//! 7. A superblock that is lost is computed from checkpoint slots and segment headers, if all of
//!    them agree. A file that has lost its end, or has too much at it, gets its length back.

mod mend;
mod swap;

use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{FileError, OpenError, PathError};
use crate::files::{DirectoryLock, RingFile, file_error};
use crate::layout::Superblock;
use crate::lsn::Lsn;
use crate::options::Persistence;
use crate::parity::{Overlay, ParityFile, heal};
use crate::recovery::apply::apply;
use crate::recovery::cached::Cached;
use crate::recovery::rebuild::{HeadFault, find_head};
use crate::recovery::scan::{Plan, survey};
use crate::recovery::sealed::{Effort, OnDamage};
use crate::recovery::{self, Head, Refusal};
use crate::region::{self, MapError, Region};
use crate::sync;
use crate::verify::{Finding, SegmentParity, Verdict, read_padded};

/// What becomes of the records behind the first damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The log ends in front of it. What is left is a prefix of what was written.
    Truncate,
    /// Every record that verifies is kept. What is left has gaps, which are marked.
    Salvage,
    /// There is none: parity gives everything back, or the log is left as it is.
    Heal,
}

/// What becomes of the damaged file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Original {
    /// It is kept beside the repaired one, as `ring.damaged`, or with a number behind that.
    #[default]
    Keep,
    /// It is gone with the repair.
    Discard,
}

/// A log could not be repaired. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The log cannot be looked at: there is none, somebody has it open, its superblock and what
    /// could stand for it are damaged, or both of its checkpoint slots.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An epoch begins in a gap that is too short to say so.
    #[error(
        "the gap at LSN {lsn} cannot be marked, since an epoch begins in it that it has no room \
         for: truncate the log there, or restore it from a copy"
    )]
    NoRoom {
        /// Where the gap begins.
        lsn: Lsn,
    },
    /// Parity does not give everything back that was acknowledged.
    #[error(
        "parity does not heal all that is damaged ({reason}): a salvage puts back what it gives, \
         and marks the rest; or restore the log from a copy"
    )]
    NotHealed {
        /// What is left damaged, and why.
        reason: String,
    },
    /// The repaired copy is not what was planned.
    #[error(
        "the repaired copy of the log does not verify ({reason}); the log is as it was: restore it \
         from a copy, and keep this one for inspection"
    )]
    NotMended {
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<PathError> for RepairError {
    fn from(error: PathError) -> RepairError {
        RepairError::Open(error.into())
    }
}

/// What a repair is going to do. See the [module documentation](self).
///
/// # Example
///
/// ```
/// use std::os::unix::fs::FileExt;
/// use kaelix_wal::repair::{Mode, Original, RepairPlan};
/// use kaelix_wal::{Geometry, Options, Position, ReadError, Wal};
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("log");
/// let wal = Wal::create(&dir, Geometry::new(1 << 20, 1 << 18)?, Options::new())?;
/// let lsns = ["first", "second", "third"].map(|it| wal.append_durable(it.as_bytes()));
/// wal.close()?;
/// drop(wal);
///
/// // The medium loses a byte of the second record.
/// let ring = std::fs::File::options().write(true).open(dir.join("ring"))?;
/// let [_, Ok(second), Ok(third)] = lsns else { panic!("they were appended") };
/// ring.write_all_at(b"X", (2 << 20) + second.get() + 16)?;
///
/// let plan = RepairPlan::new(&dir, Mode::Salvage)?;
/// assert_eq!((plan.records(), plan.losses().count()), (2, 1));
/// plan.apply(Original::Keep)?;
///
/// let wal = Wal::open(&dir, Options::new())?;
/// let mut reader = wal.reader(Position::Oldest)?;
/// assert_eq!(reader.next()?.expect("it is there").payload(), b"first");
/// let gap = reader.next().expect_err("it says what is missing");
/// assert!(matches!(gap, ReadError::Gap { lsn, .. } if lsn == second));
/// assert_eq!(reader.next()?.expect("it goes on").lsn(), third);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RepairPlan {
    dir: PathBuf,
    mode: Mode,
    ring: RingFile,
    superblock: Superblock,
    head: Head,
    faults: Vec<HeadFault>,
    plan: Plan,
    healed: Overlay,
    parity: Vec<SegmentParity>,
    /// Released last.
    _lock: DirectoryLock,
}

/// What a repair has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Where the damaged file is now, if it was kept.
    pub original: Option<PathBuf>,
    /// Where the log ends.
    pub end: Lsn,
    /// The epoch that began with the repair.
    pub epoch: u64,
    /// Callers' records that are left.
    pub records: u64,
}

impl RepairPlan {
    /// Plans the repair of the log in `dir`. All of it is read, and nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`Wal::open`](crate::Wal::open), but for the damage that a repair is for;
    /// [`RepairError::NoRoom`]; [`RepairError::NotHealed`] in [`Mode::Heal`].
    pub fn new(dir: impl AsRef<Path>, mode: Mode) -> Result<RepairPlan, RepairError> {
        let dir = dir.as_ref().to_owned();
        // Before the lock: what is wrong with the path is the better answer.
        drop(RingFile::open(&dir, false)?);
        let lock = DirectoryLock::take(&dir)?;
        let ring = RingFile::open(&dir, false)?;
        let read = |offset, bytes: &mut [u8]| read_padded(&ring, offset, bytes);
        let (head, superblock, faults) = find_head(&read, ring.len, &ring.path)?;
        let (healed, parity) = heal_damage(&dir, &ring, &head)?;
        let on_damage = match mode {
            Mode::Truncate => OnDamage::Cut,
            Mode::Salvage | Mode::Heal => OnDamage::Skip,
        };
        let plan = scan(&ring, &healed, &head, on_damage)?;
        if mode == Mode::Heal {
            check_healed(&faults, &plan, &parity)?;
        }
        if let Some(gap) = mend::unmendable(&head, &plan) {
            return Err(RepairError::NoRoom { lsn: gap.from });
        }
        Ok(RepairPlan {
            dir,
            mode,
            ring,
            superblock,
            head,
            faults,
            plan,
            healed,
            parity,
            _lock: lock,
        })
    }

    /// The mode that was asked for.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Is there anything that an open would refuse or a reader would find damaged?
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.faults.is_empty() || !self.healed.is_empty() || self.losses().next().is_some()
    }

    /// The oldest retained position.
    #[must_use]
    pub fn start(&self) -> Lsn {
        self.head.checkpoint.trimmed
    }

    /// Where the log will end.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.plan.cut
    }

    /// Callers' records that will be left.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.plan.records
    }

    /// Their payload, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.plan.payload_bytes
    }

    /// Callers' records that verify and will be gone all the same: they lie behind the end.
    #[must_use]
    pub fn records_dropped(&self) -> u64 {
        self.plan.beyond.records
    }

    /// What was acknowledged as durable and is damaged, in order.
    pub fn losses(&self) -> impl Iterator<Item = &Finding> {
        self.findings().iter().filter(|finding| finding.verdict == Verdict::Corrupt)
    }

    /// All places where no record verifies, in order, up to the end of the log as it will be.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.plan.findings
    }

    /// What parity gives back of the segments that are damaged, in order. Of what it gives back,
    /// nothing is lost, and no finding says anything.
    #[must_use]
    pub fn parity(&self) -> &[SegmentParity] {
        &self.parity
    }

    /// The superblock is damaged, and will be computed.
    #[must_use]
    pub fn rebuilds_superblock(&self) -> bool {
        self.faults.contains(&HeadFault::Superblock)
    }

    /// Does what was planned. The log can be opened afterwards.
    ///
    /// # Errors
    ///
    /// The system refused (a full disk, for one), or the result does not verify. The log is then as
    /// it was.
    pub fn apply(self, original: Original) -> Result<Repaired, RepairError> {
        let aside = swap::aside(&self.dir);
        let repaired = self.write(&aside).inspect_err(|_| {
            // It is not a log's, and the next repair would overwrite it.
            let _ = std::fs::remove_file(&aside);
        })?;
        let original = swap::swap(&self.dir, original)?;
        Ok(Repaired { original, ..repaired })
    }

    /// Rule 3, up to the rename.
    fn write(&self, aside: &Path) -> Result<Repaired, RepairError> {
        let copy = swap::copy(&self.ring, &self.superblock, aside)?;
        for (offset, page) in self.healed.pages() {
            copy.write_all_at(page, offset).map_err(file_error("write", aside))?;
        }
        mend::mend(&copy, aside, &self.head, &self.plan)?;
        copy.sync_all().map_err(file_error("sync", aside))?;
        drop(copy);
        let copy = RingFile::open_file(aside, true)?;
        let repaired = self.recover(copy)?;
        self.check(aside, &repaired)?;
        Ok(repaired)
    }

    /// Rule 5: as an open would, and then as a close.
    fn recover(&self, copy: RingFile) -> Result<Repaired, RepairError> {
        let (path, boot, reopen) = (copy.path.clone(), copy.boot(), copy.reopener());
        let mapped = region::map(copy.file, reopen, Persistence::PageCache);
        let mapped = mapped.map_err(|error| match error {
            MapError::System(source) => file_error("map", &path)(source),
            MapError::Refused(reason) => file_error("map", &path)(std::io::Error::other(reason)),
        })?;
        let region = Region::new(mapped);
        let refused = |refusal| RepairError::Open(recovery::refusal_error(&path, refusal));
        // The cache is not relied on: the copy is recovered as its disk has it.
        let cached = Cached::default();
        let applied = apply(&region, &self.head, boot, &self.plan, &cached, sync::now());
        let (recovered, slots) = applied.map_err(refused)?;
        let closed = slots.update(|next| {
            next.durable = recovered.end;
            next.clean = true;
        });
        closed.map_err(|failure| refused(Refusal::Sync(failure)))?;
        let (end, epoch) = (recovered.end, recovered.epoch);
        Ok(Repaired { original: None, end, epoch, records: recovered.report.records })
    }

    /// The copy holds what was planned, and nothing in it is damaged.
    fn check(&self, aside: &Path, repaired: &Repaired) -> Result<(), RepairError> {
        let copy = RingFile::open_file(aside, false)?;
        let head = recovery::read_head(&copy)?;
        let plan = scan(&copy, &Overlay::default(), &head, OnDamage::Skip)?;
        let damage = plan.findings.iter().find(|finding| finding.verdict == Verdict::Corrupt);
        let reason = match damage {
            Some(finding) => finding.to_string(),
            None if plan.records != repaired.records => {
                format!("{} records instead of {}", plan.records, repaired.records)
            }
            None => return Ok(()),
        };
        Err(RepairError::NotMended { reason })
    }
}

/// Rule 6: the pages that parity gives back, and what it says of each damaged segment.
fn heal_damage(
    dir: &Path,
    ring: &RingFile,
    head: &Head,
) -> Result<(Overlay, Vec<SegmentParity>), RepairError> {
    let Some(file) = ParityFile::open(dir, head.log_id, head.geometry)? else {
        return Ok(Default::default());
    };
    let read = |offset, bytes: &mut [u8]| read_padded(ring, offset, bytes);
    let healed = heal(&file, &read, head, ring.boot())
        .map_err(|refusal| RepairError::Open(recovery::refusal_error(&ring.path, refusal)))?;
    Ok((healed.overlay, healed.segments))
}

/// Is nothing lost? Of a file that has lost its end nobody knows.
fn check_healed(
    faults: &[HeadFault],
    plan: &Plan,
    parity: &[SegmentParity],
) -> Result<(), RepairError> {
    let is_short = |fault: &HeadFault| match fault {
        HeadFault::Length { found, expected } => found < expected,
        HeadFault::Superblock => false,
    };
    if faults.iter().any(is_short) {
        let reason = "the ring file has lost its end".to_owned();
        return Err(RepairError::NotHealed { reason });
    }
    let mut losses = plan.findings.iter().filter(|finding| finding.verdict == Verdict::Corrupt);
    let Some(first) = losses.next() else { return Ok(()) };
    let why = parity.iter().find_map(|parity| Some((parity.segment, parity.reason?)));
    let why = match why {
        Some((segment, reason)) => format!("of segment {segment}, {reason}"),
        None => "nobody has protected it".to_owned(),
    };
    Err(RepairError::NotHealed { reason: format!("{first}; {why}") })
}

/// Walks all of it, with the pages that are healed.
fn scan(
    ring: &RingFile,
    healed: &Overlay,
    head: &Head,
    on_damage: OnDamage,
) -> Result<Plan, RepairError> {
    let below = |offset, bytes: &mut [u8]| read_padded(ring, offset, bytes);
    let read = |offset, bytes: &mut [u8]| healed.read(&below, offset, bytes);
    let effort = Effort { on_damage, threads: sync::parallelism(), ..Effort::default() };
    survey(&read, head, ring.boot(), &effort)
        .map_err(|refusal| RepairError::Open(recovery::refusal_error(&ring.path, refusal)))
}

impl fmt::Debug for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepairPlan")
            .field("dir", &self.dir)
            .field("mode", &self.mode)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
