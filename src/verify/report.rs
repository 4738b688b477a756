//! What a verification has found.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{FileFinding, Finding, Proof, SegmentParity, Verdict};
use crate::lsn::Lsn;
use crate::recovery::Head;
use crate::recovery::scan::Plan;

/// What a verification has found. Positions are LSNs, sizes are bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verification {
    /// The log's directory.
    pub path: PathBuf,
    /// The process that had it open for writing, if one had.
    pub writer: Option<u32>,
    /// It was closed in order.
    pub clean_shutdown: bool,
    /// The oldest retained position.
    pub start: Lsn,
    /// Where the log ends: a recovery would go on here.
    pub end: Lsn,
    /// Everything below was acknowledged as durable, as far as anything in the log says so.
    pub durable: Lsn,
    /// What says so.
    pub proof: Proof,
    /// Callers' records that verify.
    pub records: u64,
    /// Their payload, in bytes.
    pub payload_bytes: u64,
    /// Segments that are what their footers say.
    pub footed_segments: u64,
    /// Of those, the ones that are protected by parity.
    pub protected_segments: u64,
    /// All places where no record verifies, in order. The last one is what the log ends with.
    pub findings: Vec<Finding>,
    /// What parity gives back of the segments in which acknowledged data is damaged, in order;
    /// empty if the log has no parity.
    pub parity: Vec<SegmentParity>,
    /// Acknowledged records are damaged, and parity gives all of them back: a
    /// [repair](crate::repair) loses nothing.
    pub is_healable: bool,
    /// What is wrong with the log's other files, and with its checkpoint slots.
    pub files: Vec<FileFinding>,
    /// How long it took.
    pub duration: Duration,
}

impl Verification {
    pub(super) fn new(dir: &Path, head: &Head, plan: Plan, writer: Option<u32>) -> Verification {
        Verification {
            path: dir.to_owned(),
            writer,
            clean_shutdown: head.checkpoint.clean,
            start: head.checkpoint.trimmed,
            end: plan.cut,
            durable: plan.proven,
            proof: plan.proof,
            records: plan.records,
            payload_bytes: plan.payload_bytes,
            footed_segments: plan.footed.len() as u64,
            protected_segments: 0,
            findings: plan.findings,
            parity: Vec::new(),
            is_healable: false,
            files: Vec::new(),
            duration: Duration::ZERO,
        }
    }

    /// All of it in one word: [`Verdict::Corrupt`] if acknowledged data is damaged,
    /// [`Verdict::Salvaged`] if some was and the gap is marked, else [`Verdict::Sound`]. What a
    /// crash has left in the way that it may is sound: nobody was told that it is durable.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let findings = self.findings.iter().map(|finding| finding.verdict);
        let verdicts = findings.chain(self.files.iter().map(|finding| finding.verdict));
        verdicts.filter(|verdict| verdict.is_loss()).max().unwrap_or(Verdict::Sound)
    }

    /// Callers' records that a recovery would not keep, though they verify: they lie behind the
    /// end.
    #[must_use]
    pub fn records_beyond(&self) -> u64 {
        self.findings.last().map_or(0, |finding| finding.records_beyond)
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} records, {} payload bytes, LSN {} to {}, each verified",
            self.verdict(),
            self.records,
            self.payload_bytes,
            self.start,
            self.end
        )?;
        writeln!(f, "durable below LSN {}: {} says so", self.durable, self.proof)?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for parity in &self.parity {
            writeln!(f, "{parity}")?;
        }
        for finding in &self.files {
            writeln!(f, "{finding}")?;
        }
        write!(f, "took {:.1?}", self.duration)
    }
}
