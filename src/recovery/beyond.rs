//! Looking beyond a place that is not to be believed: does anything verify further on?

use super::Refusal;
use super::decide::Circumstances;
use super::finding::Proof;
use super::scan::{Walk, durable_evidence};
use super::sealed::OnDamage;
use super::window::{EpochRule, Evidence};
use crate::geometry::{FIRST_RECORD, RECORD_ALIGN, RECORD_HEADER_LEN};
use crate::layout::SegmentHeaderEvidence;
use crate::layout::record::aligned_len;
use crate::lsn::Lsn;

/// What verifies beyond a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beyond {
    pub(crate) first: Option<Lsn>,
    /// The epoch of that first one.
    pub(crate) first_epoch: u64,
    pub(crate) end: Lsn,
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    /// The highest position that evidence beyond says was durable, and what says so.
    pub(crate) proven: Lsn,
    pub(crate) proof: Proof,
    /// The highest epoch of anything there: the next one must not be taken for it.
    pub(crate) epoch: u64,
}

impl Walk<'_> {
    /// Those of a decision at `at`, where nothing before `from` is to be believed.
    pub(super) fn circumstances(&mut self, at: Lsn, from: Lsn) -> Result<Circumstances, Refusal> {
        // Once that is known of it, the rest is the walk's own to look at.
        let enough = self.on_damage == OnDamage::Skip && at < self.plan.proven;
        let beyond = self.look_beyond(from, enough)?;
        self.prove(beyond.proven, beyond.proof);
        Ok(Circumstances {
            below_proven: at < self.plan.proven,
            same_boot: self.plan.same_boot,
            more_beyond: beyond.first.is_some(),
        })
    }

    /// Looks for anything that verifies from `from` on, in this segment by 16-byte steps and in the
    /// segments that follow.
    ///
    /// `first_only`: no further than to the first record.
    pub(super) fn look_beyond(&mut self, from: Lsn, first_only: bool) -> Result<Beyond, Refusal> {
        // Holes in a row: what was the first beyond one is still ahead of the next.
        if let Some((asked, beyond)) = self.beyond
            && asked <= from
            && beyond.first.is_some_and(|lsn| lsn >= from)
        {
            return Ok(beyond);
        }
        let mut beyond = Beyond::default();
        // As at the start of a walk: what opened the epoch of the records beyond may be what is
        // damaged here.
        let mut rule = EpochRule { first: true, ..self.rule };
        let (sequence, offset) = self.geometry.split(from);
        self.look_at_footer(sequence, &rule, &mut beyond)?;
        self.search((sequence, offset), first_only, &mut rule, &mut beyond)?;
        let mut next = sequence;
        for _ in 1..self.geometry.segments() {
            let found = first_only && beyond.first.is_some();
            let Some(following) = next.checked_add(1).filter(|_| !found) else {
                break;
            };
            next = following;
            self.look_at_footer(next, &rule, &mut beyond)?;
            match self.window.peek_header(next)? {
                SegmentHeaderEvidence::Expected(header) => {
                    beyond.epoch = beyond.epoch.max(header.epoch);
                    if header.epoch < rule.epoch {
                        break;
                    }
                    rule.epoch = header.epoch;
                }
                // Records need no header to verify.
                SegmentHeaderEvidence::Garbage => {}
                _ => continue,
            }
            self.search((next, FIRST_RECORD), first_only, &mut rule, &mut beyond)?;
        }
        self.beyond = (!first_only).then_some((from, beyond));
        Ok(beyond)
    }

    /// A footer proves what lies below its segment's end.
    fn look_at_footer(
        &mut self,
        sequence: u32,
        rule: &EpochRule,
        beyond: &mut Beyond,
    ) -> Result<(), Refusal> {
        if let Some(footer) = self.window.any_footer(sequence)? {
            beyond.epoch = beyond.epoch.max(footer.epoch);
            if rule.allows_footer(&footer, self.end_of(sequence)) {
                beyond.prove(self.end_of(sequence), Proof::Footer { segment: sequence });
            }
        }
        Ok(())
    }

    fn search(
        &mut self,
        (sequence, mut offset): (u32, u32),
        first_only: bool,
        rule: &mut EpochRule,
        beyond: &mut Beyond,
    ) -> Result<(), Refusal> {
        while offset < self.geometry.record_end() {
            let at = self.geometry.lsn(sequence, offset);
            let (record_len, tag, epoch) = match self.window.examine(at, rule)? {
                Evidence::Valid { record_len, tag, epoch, .. } => (record_len, tag, epoch),
                Evidence::Zero => {
                    offset = self.window.skip_zeros(sequence, offset);
                    continue;
                }
                _ => {
                    offset += RECORD_ALIGN as u32;
                    continue;
                }
            };
            rule.epoch = epoch;
            beyond.epoch = beyond.epoch.max(epoch);
            if beyond.first.is_none() {
                (beyond.first, beyond.first_epoch) = (Some(at), epoch);
            }
            offset += aligned_len(record_len);
            beyond.end = self.geometry.lsn(sequence, offset);
            if tag.is_callers() {
                beyond.records += 1;
                beyond.payload_bytes += u64::from(record_len) - RECORD_HEADER_LEN as u64;
            }
            if let Some(proven) = durable_evidence(at, tag) {
                beyond.prove(proven, Proof::Evidence { lsn: at });
            }
            if first_only {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The first record that verifies beyond damage at `at`, and its epoch. A record that is
    /// damaged does not verify; what verifies at `at` itself stands behind a damaged header.
    pub(super) fn next_valid(&mut self, at: Lsn) -> Result<Option<(Lsn, u64)>, Refusal> {
        let beyond = self.look_beyond(at, true)?;
        Ok(beyond.first.map(|first| (first, beyond.first_epoch)))
    }
}

impl Beyond {
    fn prove(&mut self, position: Lsn, proof: Proof) {
        if position > self.proven {
            (self.proven, self.proof) = (position, proof);
        }
    }
}
