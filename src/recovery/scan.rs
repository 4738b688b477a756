//! The scan: walks what is retained, writes nothing, and plans what to do.
//!
//! 1. One walk decides, from `trimmed` to the end, position by position: each piece of evidence and
//!    its circumstances meet a row of [`decide`](super::decide).
//! 2. Segments that other threads have found whole ([`sealed`](super::sealed)) are not walked
//!    again; their headers and footers are judged all the same.
//! 3. A walk refuses the log at the first corruption, or notes it and goes on at the next record
//!    that verifies (that is how a log is verified, and salvaged), or ends the log there.
//! 4. A lazy walk does not read a segment whose footer counts, and takes the footer's numbers for
//!    those of its records. The footer was written after the sync of all of it had returned, so no
//!    crash can have left the segment otherwise than it says; damage is found by whoever reads it.

use super::beyond::Beyond;
use super::decide::{
    Decision, FooterState, RecordState, Row, SegmentState, decide_footer, decide_record,
    decide_segment, verdict_on_record, verdict_on_segment,
};
use super::finding::{Finding, Proof, Verdict};
use super::sealed::{Ahead, Effort, OnDamage, Walked};
use super::window::{EpochRule, Evidence, Window};
use super::{Head, ReadFn, Refusal};
use crate::error::Corruption;
use crate::geometry::{FIRST_RECORD, Geometry, RECORD_ALIGN, RECORD_HEADER_LEN};
use crate::layout::checkpoint::Boot;
use crate::layout::footer::{Contents, Tally};
use crate::layout::record::{CONTROL_DURABLE, CONTROL_GAP, aligned_len};
use crate::layout::{CommitWord, Footer, SegmentHeaderEvidence, Tag};
use crate::lsn::Lsn;

/// An abandoned reservation that becomes a pad, with the epoch of its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) lsn: Lsn,
    pub(crate) len: u32,
    pub(crate) epoch: u64,
}

/// Damage behind which a walk went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: Lsn,
    /// A record verifies here.
    pub(crate) to: Lsn,
    /// The epochs of the last record before and of that record.
    pub(crate) epochs: (u64, u64),
}

/// What recovery is going to do. Nothing has been written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What says so.
    pub(crate) proof: Proof,
    pub(crate) same_boot: bool,
    /// It was closed in order, and not opened since.
    pub(crate) clean: bool,
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) beyond: Beyond,
    /// The segments that are what their footers say, or, in a lazy walk, whose footers count.
    pub(crate) footed: Vec<u32>,
    /// Callers' records in segments that were not read.
    pub(crate) records_unread: u64,
    /// All that was met and is not a record, in order; what the log ends with comes last.
    pub(crate) findings: Vec<Finding>,
    /// Where records are missing, if the walk went on behind damage,
    pub(crate) gaps: Vec<Gap>,
    /// and the segments whose footers disagree with their records.
    pub(crate) liars: Vec<u32>,
}

pub(super) struct Walk<'a> {
    pub(super) window: Window<'a>,
    pub(super) geometry: Geometry,
    pub(super) rule: EpochRule,
    pub(super) plan: Plan,
    lazy: bool,
    pub(super) on_damage: OnDamage,
    ahead: Ahead<'a>,
    /// The footer of the segment that is walked.
    footer: Option<Footer>,
    /// What verifies from the position on that was last asked about.
    pub(super) beyond: Option<(Lsn, Beyond)>,
    /// Behind damage the walk goes on here, with a record of this epoch.
    resume: Option<(Lsn, u64)>,
}

/// Walks the log from `trimmed` to its end.
pub(crate) fn survey(
    read: &ReadFn<'_>,
    head: &Head,
    boot: Boot,
    effort: &Effort<'_>,
) -> Result<Plan, Refusal> {
    let (checkpoint, geometry) = (&head.checkpoint, head.geometry);
    let start = geometry.normalize(checkpoint.trimmed);
    let rule = EpochRule {
        epoch: 0,
        first: true,
        newest: checkpoint.epoch,
        newest_start: geometry.normalize(checkpoint.epoch_start),
    };
    let plan = Plan {
        cut: start,
        end_reason: "",
        cut_segment_is_valid: false,
        cut_segment_epoch: 0,
        holes: Vec::new(),
        last_epoch: 0,
        epoch_max: checkpoint.epoch,
        proven: geometry.normalize(checkpoint.durable),
        proof: Proof::Checkpoint,
        same_boot: boot.same_as(&checkpoint.boot) && !checkpoint.poisoned,
        clean: checkpoint.clean,
        records: 0,
        payload_bytes: 0,
        beyond: Beyond::default(),
        footed: Vec::new(),
        records_unread: 0,
        findings: Vec::new(),
        gaps: Vec::new(),
        liars: Vec::new(),
    };
    // The oldest segment is walked from where it is retained.
    let (oldest, offset) = geometry.split(start);
    let first = oldest.saturating_add(u32::from(offset > FIRST_RECORD));
    // A log that was closed in order may end at its `durable`, where somebody has to look.
    let stop = if plan.clean { plan.proven } else { Lsn::new(u64::MAX) };
    let ahead = Ahead::new(read, (geometry, head.log_id), rule, (first, stop), effort);
    let boxed = Box::new(|offset, bytes: &mut [u8]| read(offset, bytes));
    let mut walk = Walk {
        window: Window::new(boxed, geometry, head.log_id),
        geometry,
        rule,
        plan,
        lazy: effort.lazy,
        on_damage: effort.on_damage,
        ahead,
        footer: None,
        beyond: None,
        resume: None,
    };
    walk.run(start)?;
    let mut plan = walk.plan;
    let (records, payload_bytes) = (plan.records, plan.payload_bytes);
    for finding in &mut plan.findings {
        // What was counted before each is taken from all there is. (It is more where the log was
        // cut in front of a segment that had been counted.)
        let (before, bytes_before) = (finding.records_beyond, finding.payload_bytes_beyond);
        let beyond = (plan.beyond.records, plan.beyond.payload_bytes);
        finding.records_beyond = records.saturating_sub(before) + beyond.0;
        finding.payload_bytes_beyond = payload_bytes.saturating_sub(bytes_before) + beyond.1;
    }
    Ok(plan)
}

impl Walk<'_> {
    fn run(&mut self, start: Lsn) -> Result<(), Refusal> {
        let mut at = start;
        let first = self.geometry.sequence(start);
        loop {
            let (sequence, offset) = self.geometry.split(at);
            if sequence - first >= self.geometry.segments() {
                // A full ring: the next segment's slot is the one that we started in.
                self.end_at(at, "the end of a full ring", Verdict::NeverWritten);
                return Ok(());
            }
            if at != start && self.ends_cleanly(at)? {
                return Ok(());
            }
            let entered = self.enter_segment(sequence, at)?;
            if entered {
                self.plan.cut = at;
            }
            if !entered || !self.walk_segment(sequence, offset)? {
                // Rule 3: more has been found behind damage.
                match self.resume {
                    Some((next, _)) => at = next,
                    None => return Ok(()),
                }
                continue;
            }
            at = self.geometry.normalize(self.plan.cut);
            if self.geometry.sequence(at) == sequence {
                let reason = "the last segment that a log can have";
                self.end_at(at, reason, Verdict::NeverWritten);
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
            SegmentHeaderEvidence::Garbage => self.look_beyond(at, false)?.epoch,
            _ => 0,
        };
        let record = match self.window.examine(at, &self.rule)? {
            Evidence::Valid { epoch, .. } => epoch,
            Evidence::Zero => 0,
            // Of an earlier lap, if nothing was ever written here.
            _ if offset == FIRST_RECORD => 0,
            _ => self.look_beyond(at + RECORD_ALIGN, false)?.epoch,
        };
        self.plan.clean = header.max(record) <= self.rule.newest;
        if self.plan.clean {
            let reason = "the end of a log that was closed in order";
            self.end_at(at, reason, Verdict::NeverWritten);
        }
        Ok(self.plan.clean)
    }

    /// Judges the segment's header; false if the log ends before it.
    fn enter_segment(&mut self, sequence: u32, at: Lsn) -> Result<bool, Refusal> {
        let rule = self.rule;
        let resumed = self.resume.take();
        let header = match self.lazy {
            // Not more of it than that.
            true => self.window.peek_header(sequence)?,
            false => self.window.segment_header(sequence)?,
        };
        let state = match header {
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
                self.prove(end, Proof::Footer { segment: sequence });
            }
            if let Some((_, epoch)) = resumed {
                self.enter_behind_damage(epoch);
            }
            return Ok(true);
        }
        if let Some((_, epoch)) = resumed {
            // What is wrong with the header has been noted.
            self.footer = None;
            self.enter_behind_damage(epoch);
            return Ok(true);
        }
        // Its first record may verify without it.
        let circumstances = self.circumstances(at, at)?;
        let row = decide_segment(state, circumstances);
        let verdict = verdict_on_segment(state, circumstances);
        if at == self.plan.cut {
            // The very first segment: there is nothing of the log to stand on.
            self.plan.cut_segment_is_valid = false;
        }
        if let SegmentHeaderEvidence::Newer(header) = header {
            let proof = Proof::LaterLap { segment: header.sequence };
            self.stop((at, self.geometry.segment_offset(sequence)), row, verdict, proof)?;
        } else {
            let place = (at, self.geometry.segment_offset(sequence));
            self.stop(place, row, verdict, self.plan.proof)?;
        }
        Ok(false)
    }

    /// A record of this epoch verifies where the walk goes on.
    fn enter_behind_damage(&mut self, epoch: u64) {
        self.rule.epoch = epoch;
        self.rule.first = false;
        self.plan.cut_segment_is_valid = true;
        self.plan.cut_segment_epoch = self.plan.cut_segment_epoch.min(epoch);
    }

    /// Everything below `position` was durable.
    pub(super) fn prove(&mut self, position: Lsn, proof: Proof) {
        if position > self.plan.proven {
            (self.plan.proven, self.plan.proof) = (position, proof);
        }
    }

    /// Where the log goes on behind segment `sequence`.
    pub(super) fn end_of(&self, sequence: u32) -> Lsn {
        self.geometry.normalize(self.geometry.lsn(sequence, self.geometry.record_end()))
    }

    /// Walks records; false if the log ends in this segment, or goes on in another one.
    fn walk_segment(&mut self, sequence: u32, mut offset: u32) -> Result<bool, Refusal> {
        let (mut whole, mut tally) = (offset == FIRST_RECORD, Tally::new());
        if whole {
            if self.skips_footed(sequence) {
                return Ok(true);
            }
            if let Some(walked) = self.ahead.take(sequence, self.rule) {
                offset = self.take_walked(sequence, &walked);
                tally = walked.tally;
            }
        }
        while offset < self.geometry.record_end() {
            offset = self.pass_plain(sequence, offset, &mut tally)?;
            self.plan.cut = self.geometry.lsn(sequence, offset);
            if offset == self.geometry.record_end() {
                break;
            }
            let at = self.geometry.lsn(sequence, offset);
            if self.ends_cleanly(at)? {
                return Ok(false);
            }
            let len = match self.window.examine(at, &self.rule)? {
                Evidence::Valid { record_len, crc, tag, epoch } => {
                    self.accept(at, record_len, tag, epoch);
                    tally.add(at, CommitWord::committed(record_len, crc), tag);
                    aligned_len(record_len)
                }
                evidence => match self.judge(at, evidence)? {
                    Some(len) => len,
                    None => {
                        whole = false;
                        match self.resume {
                            Some((next, epoch)) if self.geometry.sequence(next) == sequence => {
                                self.resume = None;
                                self.enter_behind_damage(epoch);
                                (next - at) as u32
                            }
                            _ => return Ok(false),
                        }
                    }
                },
            };
            offset += len;
            self.plan.cut = self.geometry.lsn(sequence, offset);
        }
        if whole { self.compare_with_footer(sequence, tally.finish()) } else { Ok(true) }
    }

    /// Rule 4: true if the segment, which has been entered, need not be read.
    fn skips_footed(&mut self, sequence: u32) -> bool {
        let Some(footer) = self.footer.filter(|_| self.lazy) else { return false };
        let contents = footer.contents;
        self.plan.records_unread += contents.records;
        self.take_counts(contents.records, contents.payload_bytes, footer.epoch);
        self.plan.cut = self.geometry.lsn(sequence, self.geometry.record_end());
        self.plan.footed.push(sequence);
        true
    }

    /// Rule 2: returns the offset from which on the segment is to be walked.
    fn take_walked(&mut self, sequence: u32, walked: &Walked) -> u32 {
        let (records, payload_bytes) = walked.tally.counts();
        if walked.offset > FIRST_RECORD {
            self.take_counts(records, payload_bytes, walked.last_epoch);
            self.prove(walked.proven, walked.proof);
            self.plan.cut = self.geometry.lsn(sequence, walked.offset);
        }
        walked.offset
    }

    /// Records that end with one of this epoch.
    fn take_counts(&mut self, records: u64, payload_bytes: u64, epoch: u64) {
        self.rule.epoch = epoch;
        self.rule.first = false;
        self.plan.last_epoch = epoch;
        self.plan.epoch_max = self.plan.epoch_max.max(epoch);
        self.plan.records += records;
        self.plan.payload_bytes += payload_bytes;
    }

    /// Passes the records from `offset` on that plainly verify; returns where that ends.
    fn pass_plain(
        &mut self,
        sequence: u32,
        offset: u32,
        tally: &mut Tally,
    ) -> std::io::Result<u32> {
        let Walk { window, plan, rule, .. } = self;
        // Where a log that was closed in order may end, each position is looked at.
        let stop = if plan.clean { plan.proven } else { Lsn::new(u64::MAX) };
        let (mut proven, mut passed) = ((Lsn::ZERO, Lsn::ZERO), false);
        let (mut records, mut payload_bytes) = (0, 0);
        let offset = window.pass_plain((sequence, offset), stop, rule, |lsn, word, tag| {
            passed = true;
            tally.add(lsn, word, tag);
            if tag.is_callers() {
                records += 1;
                payload_bytes += u64::from(word.bits() as u32) - RECORD_HEADER_LEN as u64;
            } else if let Some(position) = durable_evidence(lsn, tag)
                && position > proven.0
            {
                proven = (position, lsn);
            }
        })?;
        plan.records += records;
        plan.payload_bytes += payload_bytes;
        if passed {
            rule.first = false;
            plan.last_epoch = rule.epoch;
            plan.epoch_max = plan.epoch_max.max(rule.epoch);
            self.prove(proven.0, Proof::Evidence { lsn: proven.1 });
        }
        Ok(offset)
    }

    /// False if the log ends before the segment.
    fn compare_with_footer(&mut self, sequence: u32, found: Contents) -> Result<bool, Refusal> {
        let state = match self.footer {
            None => FooterState::Absent,
            Some(footer) if footer.contents == found => FooterState::Agrees,
            Some(_) => FooterState::Disagrees,
        };
        if state == FooterState::Agrees {
            self.plan.footed.push(sequence);
        }
        let (reason, decision) = decide_footer(state);
        if decision != Decision::Corrupt {
            return Ok(true);
        }
        let lsn = self.geometry.first_record(sequence);
        let file_offset = self.geometry.footer_offset(sequence);
        let end = self.plan.cut;
        match self.on_damage {
            OnDamage::Refuse => return Err(self.corruption(lsn, file_offset, reason)),
            OnDamage::Skip => self.plan.liars.push(sequence),
            OnDamage::Cut => {
                self.plan.cut = lsn;
                self.plan.records -= found.records;
                self.plan.payload_bytes -= found.payload_bytes;
                self.plan.end_reason = reason;
            }
        }
        let proof = Some(Proof::Footer { segment: sequence });
        self.note((lsn, file_offset), end, (reason, Verdict::Corrupt), proof);
        Ok(self.on_damage == OnDamage::Skip)
    }

    /// Notes something that is not a record, of which all before `end` is part.
    fn note(
        &mut self,
        (lsn, file_offset): (Lsn, u64),
        end: Lsn,
        (reason, verdict): (&'static str, Verdict),
        proof: Option<Proof>,
    ) {
        let segment = self.geometry.sequence(lsn);
        self.plan.findings.push(Finding {
            verdict,
            lsn,
            end: end.max(lsn),
            segment,
            file_offset,
            reason,
            proof,
            // So far: what follows is added when all of it is known.
            records_beyond: self.plan.records,
            payload_bytes_beyond: self.plan.payload_bytes,
        });
    }

    /// The log ends at `at`, in order.
    fn end_at(&mut self, at: Lsn, reason: &'static str, verdict: Verdict) {
        self.plan.end_reason = reason;
        self.note((at, self.geometry.file_offset(at)), at, (reason, verdict), None);
    }

    fn corruption(&self, lsn: Lsn, file_offset: u64, reason: &'static str) -> Refusal {
        Refusal::Corrupt(Corruption { lsn, file_offset, durable: self.plan.proven, reason })
    }

    fn accept(&mut self, at: Lsn, record_len: u32, tag: Tag, epoch: u64) {
        self.rule.epoch = epoch;
        self.rule.first = false;
        self.plan.last_epoch = epoch;
        self.plan.epoch_max = self.plan.epoch_max.max(epoch);
        if tag.is_callers() {
            self.plan.records += 1;
            self.plan.payload_bytes += u64::from(record_len) - RECORD_HEADER_LEN as u64;
        }
        if let Some(proven) = durable_evidence(at, tag) {
            self.prove(proven, Proof::Evidence { lsn: at });
        }
        if tag.is_control(CONTROL_GAP) {
            let place = (at, self.geometry.file_offset(at));
            let end = at + u64::from(aligned_len(record_len));
            self.note(place, end, ("a gap that a salvage has marked", Verdict::Salvaged), None);
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
        let verdict = verdict_on_record(state, circumstances);
        if row.1 != Decision::Pad {
            self.stop((at, self.geometry.file_offset(at)), row, verdict, self.plan.proof)?;
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
        let place = (at, self.geometry.file_offset(at));
        self.note(place, at + u64::from(len), (row.0, verdict), None);
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

    /// Rule 3 at corruption, which the walk may go on behind; at all else that stops it, its end.
    fn stop(
        &mut self,
        (at, file_offset): (Lsn, u64),
        (label, decision): Row,
        verdict: Verdict,
        proof: Proof,
    ) -> Result<(), Refusal> {
        let is_corrupt = decision == Decision::Corrupt;
        if is_corrupt && self.on_damage == OnDamage::Refuse {
            return Err(self.corruption(at, file_offset, label));
        }
        let beyond = self.beyond.map_or_else(Beyond::default, |(_, beyond)| beyond);
        self.plan.epoch_max = self.plan.epoch_max.max(beyond.epoch);
        if is_corrupt
            && self.on_damage == OnDamage::Skip
            && let Some((next, epoch)) = self.next_valid(at)?
        {
            self.note((at, file_offset), next, (label, verdict), Some(proof));
            // Where nothing comes before, it is as if the epoch behind had begun before.
            let before = if self.rule.first { epoch } else { self.plan.last_epoch };
            self.plan.gaps.push(Gap { from: at, to: next, epochs: (before, epoch) });
            self.resume = Some((next, epoch));
            return Ok(());
        }
        self.plan.end_reason = label;
        self.plan.beyond = beyond;
        let known = if is_corrupt { self.plan.proven.max(beyond.end) } else { beyond.end };
        self.note((at, file_offset), known, (label, verdict), is_corrupt.then_some(proof));
        Ok(())
    }
}

/// What a sync left: everything below the returned position was durable.
pub(super) fn durable_evidence(at: Lsn, tag: Tag) -> Option<Lsn> {
    let distance = u64::from(tag.number()) * RECORD_ALIGN;
    tag.is_control(CONTROL_DURABLE).then(|| Lsn::new(at.get().saturating_sub(distance)))
}
