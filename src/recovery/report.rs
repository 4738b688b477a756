//! What a recovery found, for people and for `stat`.

use std::fmt;
use std::time::Duration;

use crate::layout::RecoverySummary;
use crate::lsn::Lsn;

/// How the log was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryOutcome {
    /// It was never opened before.
    #[default]
    New,
    /// It had been closed in order.
    Clean,
    /// Its process had died on the running machine: every committed record was kept.
    ProcessDied,
    /// The machine had gone down, or a sync had failed: the longest verifiable prefix was kept,
    /// which holds everything that was acknowledged as durable.
    PowerLost,
}

impl RecoveryOutcome {
    const ALL: [RecoveryOutcome; 4] = [
        RecoveryOutcome::New,
        RecoveryOutcome::Clean,
        RecoveryOutcome::ProcessDied,
        RecoveryOutcome::PowerLost,
    ];

    fn code(self) -> u32 {
        self as u32
    }

    fn from_code(code: u32) -> RecoveryOutcome {
        RecoveryOutcome::ALL.get(code as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for RecoveryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecoveryOutcome::New => "new log",
            RecoveryOutcome::Clean => "closed cleanly",
            RecoveryOutcome::ProcessDied => "process died, machine kept running",
            RecoveryOutcome::PowerLost => "machine went down, or a sync had failed",
        })
    }
}

/// What an open found, kept and cut. Positions are LSNs, sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// How the log was found.
    pub outcome: RecoveryOutcome,
    /// The epoch that began with this open.
    pub epoch: u64,
    /// The oldest retained position.
    pub start: Lsn,
    /// The cut: everything retained lies below, and the next record is written here.
    pub end: Lsn,
    /// Callers' records between the two.
    pub records: u64,
    /// Their payload, in bytes; with the 16 that stand in front of the caller's if the record was
    /// appended idempotently, or moved.
    pub payload_bytes: u64,
    /// How many of the records lie in sealed segments that were not read: the segments' footers
    /// count them. All others were verified. None after [`Verify::Full`](crate::Verify::Full), nor
    /// in the report of an earlier open.
    pub records_unread: u64,
    /// Everything below this position was proven to be durable before the open.
    pub proven_durable: Lsn,
    /// Abandoned reservations that became pads.
    pub holes_padded: u64,
    /// What stood at the cut.
    pub end_reason: &'static str,
    /// Bytes from the cut to the end of the last record beyond it that verifies.
    pub cut_bytes: u64,
    /// Callers' records beyond the cut that verify and were not kept, since one before them is
    /// missing. None of them had been acknowledged as durable.
    pub cut_records: u64,
    /// Their payload, in bytes.
    pub cut_payload_bytes: u64,
    /// How long it took: the scan, and the sync of what was kept.
    pub duration: Duration,
}

impl RecoveryReport {
    pub(crate) fn summary(&self) -> RecoverySummary {
        RecoverySummary {
            outcome: self.outcome.code(),
            holes_padded: self.holes_padded as u32,
            records: self.records,
            bytes: self.payload_bytes,
            start: self.start,
            cut: self.end,
            beyond_records: self.cut_records,
            beyond_bytes: self.cut_payload_bytes,
            cut_bytes: self.cut_bytes,
            duration_nanos: self.duration.as_nanos() as u64,
            proven_durable: self.proven_durable,
        }
    }

    /// The report as a checkpoint slot keeps it; the reason is not kept.
    pub(crate) fn from_summary(epoch: u64, summary: &RecoverySummary) -> RecoveryReport {
        RecoveryReport {
            outcome: RecoveryOutcome::from_code(summary.outcome),
            epoch,
            start: summary.start,
            end: summary.cut,
            records: summary.records,
            payload_bytes: summary.bytes,
            records_unread: 0,
            proven_durable: summary.proven_durable,
            holes_padded: u64::from(summary.holes_padded),
            end_reason: "",
            cut_bytes: summary.cut_bytes,
            cut_records: summary.beyond_records,
            cut_payload_bytes: summary.beyond_bytes,
            duration: Duration::from_nanos(summary.duration_nanos),
        }
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "found: {}", self.outcome)?;
        writeln!(
            f,
            "kept: {} records, {} payload bytes, LSN {} to {}",
            self.records, self.payload_bytes, self.start, self.end
        )?;
        if self.records_unread > 0 {
            let unread = self.records_unread;
            writeln!(f, "of them in sealed segments, not read: {unread} records")?;
        }
        if !self.end_reason.is_empty() {
            writeln!(f, "at the end: {}", self.end_reason)?;
        }
        if self.holes_padded > 0 {
            writeln!(f, "abandoned reservations made pads: {}", self.holes_padded)?;
        }
        if self.cut_bytes > 0 {
            writeln!(
                f,
                "cut: {} bytes, in them {} records of {} payload bytes that verify but were \
                 never acknowledged as durable",
                self.cut_bytes, self.cut_records, self.cut_payload_bytes
            )?;
        }
        write!(
            f,
            "proven durable before: LSN {}; epoch now {}; took {:.1?}",
            self.proven_durable, self.epoch, self.duration
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_the_report_but_for_the_reason() {
        for outcome in RecoveryOutcome::ALL {
            let report = RecoveryReport {
                outcome,
                epoch: 1,
                start: Lsn::new(2),
                end: Lsn::new(3),
                records: 4,
                payload_bytes: 5,
                records_unread: 0,
                proven_durable: Lsn::new(6),
                holes_padded: 7,
                end_reason: "the end of the log",
                cut_bytes: 8,
                cut_records: 9,
                cut_payload_bytes: 10,
                duration: Duration::from_nanos(11),
            };
            let kept = RecoveryReport::from_summary(1, &report.summary());
            assert_eq!(kept, RecoveryReport { end_reason: "", ..report });
        }
        // Of a later version, perhaps.
        assert_eq!(RecoveryOutcome::from_code(4), RecoveryOutcome::New);
    }
}
