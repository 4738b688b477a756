//! The scan: walks what is retained, writes nothing, and plans what to do.

use super::decide::{
    Circumstances, Decision, FooterState, RecordState, Row, SegmentState, decide_footer,
    decide_record, decide_segment,
};
use super::window::{EpochRule, Evidence, Window};
use super::{Head, ReadAt, Refusal};
use crate::error::Corruption;
use crate::geometry::{FIRST_RECORD, Geometry, RECORD_ALIGN, RECORD_HEADER_LEN};
use crate::layout::checkpoint::Boot;
use crate::layout::footer::{Contents, Tally};
use crate::layout::record::{CONTROL_DURABLE, aligned_len};
use crate::layout::{CommitWord, Footer, RecordKind, SegmentHeaderEvidence, Tag};
use crate::lsn::Lsn;

/// An abandoned reservation that becomes a pad, with the epoch of its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) lsn: Lsn,
    pub(crate) len: u32,
    pub(crate) epoch: u64,
}

/// What recovery is going to do. Nothing has been written yet.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The log is kept up to here.
    pub(crate) cut: Lsn,
    pub(crate) end_reason: &'static str,
    /// The cut lies in a segment whose header verifies.
    pub(crate) cut_segment_is_valid: bool,
    /// The epoch that the cut segment's header carries.
    pub(crate) cut_segment_epoch: u64,
    pub(crate) holes: Vec<Hole>,
    /// The epoch of the last kept record, or of the segment it would be in.
    pub(crate) last_epoch: u64,
    /// The highest epoch seen anywhere.
    pub(crate) epoch_max: u64,
    pub(crate) proven: Lsn,
    pub(crate) same_boot: bool,
    /// It was closed in order, and not opened since.
    pub(crate) clean: bool,
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) beyond: Beyond,
}

/// What verifies beyond a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beyond {
    pub(crate) first: Option<Lsn>,
    pub(crate) end: Lsn,
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    /// The highest position that evidence beyond says was durable.
    pub(crate) proven: Lsn,
    /// The highest epoch of anything there: the next one must not be taken for it.
    pub(crate) epoch: u64,
}

struct Walk<'a> {
    window: Window<'a>,
    geometry: Geometry,
    rule: EpochRule,
    plan: Plan,
    /// The footer of the segment that is walked.
    footer: Option<Footer>,
    /// What verifies from the position on that was last asked about.
    beyond: Option<(Lsn, Beyond)>,
}

/// Walks the log from `trimmed` to its end.
pub(crate) fn survey(read: ReadAt<'_>, head: &Head, boot: Boot) -> Result<Plan, Refusal> {
    let checkpoint = &head.checkpoint;
    let start = head.geometry.normalize(checkpoint.trimmed);
    let rule = EpochRule {
        epoch: 0,
        first: true,
        newest: checkpoint.epoch,
        newest_start: head.geometry.normalize(checkpoint.epoch_start),
    };
    let plan = Plan {
        cut: start,
        end_reason: "",
        cut_segment_is_valid: false,
        cut_segment_epoch: 0,
        holes: Vec::new(),
        last_epoch: 0,
        epoch_max: checkpoint.epoch,
        proven: head.geometry.normalize(checkpoint.durable),
        same_boot: boot.same_as(&checkpoint.boot) && !checkpoint.poisoned,
        clean: checkpoint.clean,
        records: 0,
        payload_bytes: 0,
        beyond: Beyond::default(),
    };
    let window = Window::new(read, head.geometry, head.log_id);
    let mut walk = Walk { window, geometry: head.geometry, rule, plan, footer: None, beyond: None };
    walk.run(start)?;
    Ok(walk.plan)
}

impl Walk<'_> {
    fn run(&mut self, start: Lsn) -> Result<(), Refusal> {
        let mut at = start;
        let first = self.geometry.sequence(start);
        loop {
            let (sequence, offset) = self.geometry.split(at);
            if sequence - first >= self.geometry.segments() {
                // A full ring: the next segment's slot is the one that we started in.
                self.plan.end_reason = "the end of a full ring";
                return Ok(());
            }
            if at != start && self.ends_cleanly(at)? {
                return Ok(());
            }
            if !self.enter_segment(sequence, at)? {
                return Ok(());
            }
            self.plan.cut = at;
            if !self.walk_segment(sequence, offset)? {
                return Ok(());
            }
            at = self.geometry.normalize(self.plan.cut);
            if self.geometry.sequence(at) == sequence {
                self.plan.end_reason = "the last segment that a log can have";
                return Ok(());
            }
        }
    }

    /// A log that was closed in order ends at its `durable`; what stands there is of no interest,
    /// unless it is of a later epoch: then the slot with the clean mark is not the newest one that
    /// was written, but the newest that is left.
    fn ends_cleanly(&mut self, at: Lsn) -> Result<bool, Refusal> {
        if !self.plan.clean || at < self.plan.proven {
            return Ok(false);
        }
        let (sequence, offset) = self.geometry.split(at);
        let header = match self.window.segment_header(sequence)? {
            SegmentHeaderEvidence::Expected(header) => header.epoch,
            SegmentHeaderEvidence::Garbage => self.look_beyond(at)?.epoch,
            _ => 0,
        };
        let record = match self.window.examine(at, &self.rule)? {
            Evidence::Valid { epoch, .. } => epoch,
            Evidence::Zero => 0,
            // Of an earlier lap, if nothing was ever written here.
            _ if offset == FIRST_RECORD => 0,
            _ => self.look_beyond(at + RECORD_ALIGN)?.epoch,
        };
        self.plan.clean = header.max(record) <= self.rule.newest;
        if self.plan.clean {
            self.plan.end_reason = "the end of a log that was closed in order";
        }
        Ok(self.plan.clean)
    }

    /// Judges the segment's header; false if the log ends before it.
    fn enter_segment(&mut self, sequence: u32, at: Lsn) -> Result<bool, Refusal> {
        let rule = self.rule;
        let state = match self.window.segment_header(sequence)? {
            SegmentHeaderEvidence::Expected(header) => {
                let first = self.geometry.first_record(sequence);
                let stale = header.epoch < rule.epoch
                    || (first >= rule.newest_start && header.epoch < rule.newest);
                self.plan.epoch_max = self.plan.epoch_max.max(header.epoch);
                if !stale {
                    self.rule.epoch = header.epoch;
                    self.plan.last_epoch = header.epoch;
                    self.plan.cut_segment_epoch = header.epoch;
                }
                if stale { SegmentState::EpochBackwards } else { SegmentState::Expected }
            }
            SegmentHeaderEvidence::Older(_) => SegmentState::Older,
            SegmentHeaderEvidence::Newer(_) => SegmentState::Newer,
            SegmentHeaderEvidence::Zero => SegmentState::Zero,
            SegmentHeaderEvidence::Garbage => SegmentState::Garbage,
        };
        if state == SegmentState::Expected {
            self.plan.cut_segment_is_valid = true;
            let (rule, end) = (self.rule, self.end_of(sequence));
            let footer = self.window.any_footer(sequence)?;
            let seen = footer.map_or(0, |footer| footer.epoch);
            self.plan.epoch_max = self.plan.epoch_max.max(seen);
            self.footer = footer.filter(|footer| rule.allows_footer(footer, end));
            if self.footer.is_some() {
                self.plan.proven = self.plan.proven.max(end);
            }
            return Ok(true);
        }
        // Its first record may verify without it.
        let circumstances = self.circumstances(at, at)?;
        let row = decide_segment(state, circumstances);
        if at == self.plan.cut {
            // The very first segment: there is nothing of the log to stand on.
            self.plan.cut_segment_is_valid = false;
        }
        self.stop(at, row)?;
        Ok(false)
    }

    /// Where the log goes on behind segment `sequence`.
    fn end_of(&self, sequence: u32) -> Lsn {
        self.geometry.normalize(self.geometry.lsn(sequence, self.geometry.record_end()))
    }

    /// Walks records; false if the log ends in this segment.
    fn walk_segment(&mut self, sequence: u32, mut offset: u32) -> Result<bool, Refusal> {
        let whole = offset == FIRST_RECORD;
        let mut tally = Tally::new();
        while offset < self.geometry.record_end() {
            let at = self.geometry.lsn(sequence, offset);
            if self.ends_cleanly(at)? {
                return Ok(false);
            }
            let len = match self.window.examine(at, &self.rule)? {
                Evidence::Valid { record_len, crc, tag, epoch } => {
                    self.accept(at, record_len, tag, epoch);
                    if self.footer.is_some() {
                        tally.add(at, CommitWord::committed(record_len, crc), tag);
                    }
                    aligned_len(record_len)
                }
                evidence => match self.judge(at, evidence)? {
                    Some(len) => len,
                    None => return Ok(false),
                },
            };
            offset += len;
            self.plan.cut = self.geometry.lsn(sequence, offset);
        }
        if whole {
            self.compare_with_footer(sequence, tally.finish())?;
        }
        Ok(true)
    }

    fn compare_with_footer(&self, sequence: u32, found: Contents) -> Result<(), Refusal> {
        let state = match self.footer {
            None => FooterState::Absent,
            Some(footer) if footer.contents == found => FooterState::Agrees,
            Some(_) => FooterState::Disagrees,
        };
        let (reason, decision) = decide_footer(state);
        if decision == Decision::Corrupt {
            let lsn = self.geometry.first_record(sequence);
            let file_offset = self.geometry.footer_offset(sequence);
            return Err(self.corruption(lsn, file_offset, reason));
        }
        Ok(())
    }

    fn corruption(&self, lsn: Lsn, file_offset: u64, reason: &'static str) -> Refusal {
        Refusal::Corrupt(Corruption { lsn, file_offset, durable: self.plan.proven, reason })
    }

    fn accept(&mut self, at: Lsn, record_len: u32, tag: Tag, epoch: u64) {
        self.rule.epoch = epoch;
        self.rule.first = false;
        self.plan.last_epoch = epoch;
        self.plan.epoch_max = self.plan.epoch_max.max(epoch);
        if tag.kind() == Some(RecordKind::Data) {
            self.plan.records += 1;
            self.plan.payload_bytes += u64::from(record_len) - RECORD_HEADER_LEN as u64;
        }
        if let Some(proven) = durable_evidence(at, tag) {
            self.plan.proven = self.plan.proven.max(proven);
        }
    }

    /// Judges an invalid record: the length of the pad that takes its place, or the end.
    fn judge(&mut self, at: Lsn, evidence: Evidence) -> Result<Option<u32>, Refusal> {
        let state = match evidence {
            Evidence::Valid { .. } => RecordState::Valid,
            Evidence::Zero => RecordState::Zero,
            Evidence::Claimed(_) => RecordState::Claimed,
            Evidence::BadCrc => RecordState::BadCrc,
            Evidence::ImpossibleLength => RecordState::ImpossibleLength,
            Evidence::EpochBackwards => RecordState::EpochBackwards,
        };
        let circumstances = self.circumstances(at, at + RECORD_ALIGN)?;
        let row = decide_record(state, circumstances);
        if row.1 != Decision::Pad {
            self.stop(at, row)?;
            return Ok(None);
        }
        if self.rule.first {
            // The newest epoch's: an older one's reservations did not outlive its process.
            self.rule.epoch = self.rule.newest;
            self.rule.first = false;
            self.plan.last_epoch = self.rule.newest;
        }
        let len = match evidence {
            Evidence::Claimed(len) => aligned_len(len),
            _ => self.unmarked_len(at)?,
        };
        self.plan.holes.push(Hole { lsn: at, len, epoch: self.rule.epoch });
        Ok(Some(len))
    }

    /// An unmarked claim was never written to: it is zero up to the next owner's first word.
    fn unmarked_len(&mut self, at: Lsn) -> Result<u32, Refusal> {
        let (sequence, offset) = self.geometry.split(at);
        let end = self.geometry.record_end();
        let mut next = offset + RECORD_ALIGN as u32;
        while next < end {
            let lsn = self.geometry.lsn(sequence, next);
            if self.window.examine(lsn, &self.rule)? != Evidence::Zero {
                break;
            }
            next += RECORD_ALIGN as u32;
        }
        Ok(next - offset)
    }

    /// Ends the walk at `at`, or refuses the log.
    fn stop(&mut self, at: Lsn, (label, decision): Row) -> Result<(), Refusal> {
        if decision == Decision::Corrupt {
            return Err(self.corruption(at, self.geometry.file_offset(at), label));
        }
        self.plan.end_reason = label;
        if let Some((_, beyond)) = self.beyond {
            self.plan.beyond = beyond;
            self.plan.epoch_max = self.plan.epoch_max.max(beyond.epoch);
        }
        Ok(())
    }

    /// Those of a decision at `at`, where nothing before `from` is to be believed.
    fn circumstances(&mut self, at: Lsn, from: Lsn) -> Result<Circumstances, Refusal> {
        let beyond = self.look_beyond(from)?;
        self.plan.proven = self.plan.proven.max(beyond.proven);
        Ok(Circumstances {
            below_proven: at < self.plan.proven,
            same_boot: self.plan.same_boot,
            more_beyond: beyond.first.is_some(),
        })
    }

    /// Looks for anything that verifies from `from` on, in this segment by 16-byte steps and in the
    /// segments that follow.
    fn look_beyond(&mut self, from: Lsn) -> Result<Beyond, Refusal> {
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
        self.search(sequence, offset, &mut rule, &mut beyond)?;
        let mut next = sequence;
        for _ in 1..self.geometry.segments() {
            let Some(following) = next.checked_add(1) else {
                break;
            };
            next = following;
            self.look_at_footer(next, &rule, &mut beyond)?;
            match self.window.segment_header(next)? {
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
            self.search(next, FIRST_RECORD, &mut rule, &mut beyond)?;
        }
        self.beyond = Some((from, beyond));
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
                beyond.proven = beyond.proven.max(self.end_of(sequence));
            }
        }
        Ok(())
    }

    fn search(
        &mut self,
        sequence: u32,
        mut offset: u32,
        rule: &mut EpochRule,
        beyond: &mut Beyond,
    ) -> Result<(), Refusal> {
        while offset < self.geometry.record_end() {
            let at = self.geometry.lsn(sequence, offset);
            let Evidence::Valid { record_len, tag, epoch, .. } = self.window.examine(at, rule)?
            else {
                offset += RECORD_ALIGN as u32;
                continue;
            };
            rule.epoch = epoch;
            beyond.epoch = beyond.epoch.max(epoch);
            beyond.first.get_or_insert(at);
            offset += aligned_len(record_len);
            beyond.end = self.geometry.lsn(sequence, offset);
            if tag.kind() == Some(RecordKind::Data) {
                beyond.records += 1;
                beyond.payload_bytes += u64::from(record_len) - RECORD_HEADER_LEN as u64;
            }
            if let Some(proven) = durable_evidence(at, tag) {
                beyond.proven = beyond.proven.max(proven);
            }
        }
        Ok(())
    }
}

/// What a sync left: everything below the returned position was durable.
fn durable_evidence(at: Lsn, tag: Tag) -> Option<Lsn> {
    let distance = u64::from(tag.stream()) * RECORD_ALIGN;
    tag.is_control(CONTROL_DURABLE).then(|| Lsn::new(at.get().saturating_sub(distance)))
}
