//! What a walk has met that is not a record: where, how much, what it is, and what says so.

use std::fmt;

use crate::lsn::Lsn;

/// What stands where no record verifies, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing is wrong.
    Sound,
    /// Nothing was ever written here: the log ends.
    NeverWritten,
    /// Left behind by an earlier lap of the ring.
    StaleLap,
    /// Left behind by an earlier incarnation, beyond the place where a recovery cut the log.
    StaleEpoch,
    /// Space that was claimed and not committed; its owner may be at work on it.
    OpenClaim,
    /// Space that was claimed and not committed, by an owner that is gone.
    AbandonedClaim,
    /// Written, and on its way to the medium when that stopped. Nobody was told that it is durable.
    TornInFlight,
    /// A gap that a salvage has left and marked.
    Salvaged,
    /// Something that was acknowledged as durable is damaged.
    Corrupt,
}

impl Verdict {
    /// Is acknowledged data missing here?
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Verdict::Corrupt | Verdict::Salvaged)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Sound => "sound",
            Verdict::NeverWritten => "never written",
            Verdict::StaleLap => "stale (earlier lap)",
            Verdict::StaleEpoch => "stale (earlier epoch)",
            Verdict::OpenClaim => "open claim",
            Verdict::AbandonedClaim => "abandoned claim",
            Verdict::TornInFlight => "torn in flight",
            Verdict::Salvaged => "salvaged gap",
            Verdict::Corrupt => "corrupt",
        })
    }
}

/// What says that everything below a position was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Proof {
    /// The newest checkpoint slot.
    #[default]
    Checkpoint,
    /// A record that a sync has left at this position.
    Evidence {
        /// Where that record starts.
        lsn: Lsn,
    },
    /// The footer of a segment, which is written once its segment is durable.
    Footer {
        /// The segment's sequence.
        segment: u32,
    },
    /// The header of a segment of a later lap: it was recycled because a checkpoint slot, which is
    /// lost, had released it.
    LaterLap {
        /// The later segment's sequence.
        segment: u32,
    },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Checkpoint => f.write_str("the newest checkpoint slot"),
            Proof::Evidence { lsn } => write!(f, "the evidence record at LSN {lsn}"),
            Proof::Footer { segment } => write!(f, "the footer of segment {segment}"),
            Proof::LaterLap { segment } => write!(f, "the header of the later segment {segment}"),
        }
    }
}

/// One place of the log where no record verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub verdict: Verdict,
    /// Where it starts: the LSN of the record, or of the first record of the segment, that should
    /// be here.
    pub lsn: Lsn,
    /// Where it ends: at the next record that verifies, if the log goes on. Else where what is
    /// known of it ends; `lsn` itself, if it is nothing.
    pub end: Lsn,
    /// The sequence of the segment that `lsn` lies in.
    pub segment: u32,
    /// Where that is in the ring file, in bytes: of the record, of the segment's header, or of its
    /// footer.
    pub file_offset: u64,
    /// What was found, in the words of recovery's decision table.
    pub reason: &'static str,
    /// What says that it was durable; only for corruption.
    pub proof: Option<Proof>,
    /// Callers' records that verify beyond it, up to the end of the log as found.
    pub records_beyond: u64,
    /// Their payload, in bytes.
    pub payload_bytes_beyond: u64,
}

impl Finding {
    /// Bytes of the log from its start to its end.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end.get().saturating_sub(self.lsn.get())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} at LSN {} (segment {}, file offset {}), {} bytes",
            self.verdict,
            self.reason,
            self.lsn,
            self.segment,
            self.file_offset,
            self.len_bytes()
        )?;
        if let Some(proof) = self.proof {
            write!(f, "; {proof} says that it was durable")?;
        }
        if self.records_beyond > 0 {
            write!(f, "; {} records verify beyond it", self.records_beyond)?;
        }
        Ok(())
    }
}
