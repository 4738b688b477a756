//! The decision table: what each piece of evidence means. Pure; every combination is tested.
//!
//! "Proven" is the highest position of which a checkpoint slot or a later record of the log says
//! that it was synced. "Same boot": the page cache is the one that the last writer left, no sync
//! had failed, and so nothing can be torn. "More beyond": a record that verifies lies further on.

use super::finding::Verdict;

/// What stands at a record position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordState {
    Valid,
    Zero,
    Claimed,
    BadCrc,
    ImpossibleLength,
    EpochBackwards,
}

/// What stands in front of a segment that should follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// The expected header, of an epoch that may follow.
    Expected,
    /// The expected header, of an epoch before its predecessor's.
    EpochBackwards,
    Older,
    Newer,
    Zero,
    Garbage,
}

/// What a sealed segment's footer says of the records that were found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FooterState {
    /// None that could be believed; a crash may have prevented it.
    Absent,
    Agrees,
    Disagrees,
}

/// The circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// The position lies below what is proven durable.
    pub(crate) below_proven: bool,
    pub(crate) same_boot: bool,
    pub(crate) more_beyond: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Believe it and go on.
    Accept,
    /// The log ends here, as it should.
    End,
    /// The log is cut here: what follows was never acknowledged as durable.
    Cut,
    /// An abandoned reservation between committed records: it becomes a pad.
    Pad,
    /// Acknowledged data is damaged: refuse.
    Corrupt,
}

/// A row's label and its decision.
pub(crate) type Row = (&'static str, Decision);

/// Judges a record position.
pub(crate) fn decide_record(state: RecordState, at: Circumstances) -> Row {
    use Decision::{Accept, Corrupt, Cut, End, Pad};
    use RecordState::{BadCrc, Claimed, EpochBackwards, ImpossibleLength, Valid, Zero};
    match (state, at.below_proven, at.same_boot, at.more_beyond) {
        (Valid, _, _, _) => ("a record that verifies", Accept),

        (Zero, true, _, _) => ("zeros where a durable record was", Corrupt),
        (Claimed, true, _, _) => ("an open claim where a durable record was", Corrupt),
        (BadCrc, true, _, _) => ("a checksum mismatch in a durable record", Corrupt),
        (ImpossibleLength, true, _, _) => ("an impossible length in a durable record", Corrupt),
        (EpochBackwards, true, _, _) => {
            ("an older epoch's record where a durable one was", Corrupt)
        }

        (Zero, false, true, true) => ("an unmarked claim that its owner abandoned", Pad),
        (Claimed, false, true, true) => ("a claim that its owner abandoned", Pad),
        (Zero, false, _, false) => ("the end of the log", End),
        (Claimed, false, _, false) => ("an open claim at the end of the log", Cut),
        (Zero, false, false, true) => ("a record that never reached the disk", Cut),
        (Claimed, false, false, true) => ("a claim whose record never reached the disk", Cut),

        (BadCrc, false, _, _) => ("a torn record", Cut),
        (ImpossibleLength, false, _, _) => ("a torn header", Cut),
        (EpochBackwards, false, _, _) => ("a leftover from before an earlier cut", Cut),
    }
}

/// Judges the header of the segment that should follow.
pub(crate) fn decide_segment(state: SegmentState, at: Circumstances) -> Row {
    use Decision::{Accept, Corrupt, Cut, End};
    use SegmentState::{EpochBackwards, Expected, Garbage, Newer, Older, Zero};
    match (state, at.below_proven, at.more_beyond) {
        (Expected, _, _) => ("the next segment", Accept),
        // It was released by a slot that is not there any more, or it would not have been recycled.
        (Newer, _, _) => ("a segment of a later lap than the newest checkpoint slot", Corrupt),

        (EpochBackwards, true, _) => ("an older epoch's segment where a durable one was", Corrupt),
        (Older, true, _) => ("a segment of an earlier lap where a durable one was", Corrupt),
        (Zero, true, _) => ("no segment header where a durable segment was", Corrupt),
        (Garbage, true, _) => ("a damaged segment header in front of durable records", Corrupt),

        (EpochBackwards, false, _) => ("a segment prepared before an earlier cut", End),
        (Older, false, false) => ("a segment not yet used again", End),
        (Zero, false, false) => ("a segment not yet prepared", End),
        (Older, false, true) => ("a segment whose header never reached the disk", Cut),
        (Zero, false, true) => ("a segment whose new header never reached the disk", Cut),
        (Garbage, false, _) => ("a torn segment header", Cut),
    }
}

/// Judges a segment that was walked from end to end. A footer is only there when its segment was
/// durable, so there are no circumstances.
pub(crate) fn decide_footer(state: FooterState) -> Row {
    match state {
        FooterState::Absent => ("a sealed segment without a footer", Decision::Accept),
        FooterState::Agrees => ("a sealed segment", Decision::Accept),
        FooterState::Disagrees => {
            ("a durable segment that holds other records than its footer says", Decision::Corrupt)
        }
    }
}

/// What a record position that is not accepted holds, in one word.
pub(crate) fn verdict_on_record(state: RecordState, at: Circumstances) -> Verdict {
    use RecordState::{BadCrc, Claimed, EpochBackwards, ImpossibleLength, Valid, Zero};
    match (state, at.below_proven, at.same_boot, at.more_beyond) {
        (Valid, _, _, _) => Verdict::Sound,
        (_, true, _, _) => Verdict::Corrupt,
        (Zero, false, _, false) => Verdict::NeverWritten,
        (Claimed, false, _, false) | (Zero | Claimed, false, true, true) => Verdict::AbandonedClaim,
        (EpochBackwards, false, _, _) => Verdict::StaleEpoch,
        (Zero | Claimed, false, false, true) | (BadCrc | ImpossibleLength, false, _, _) => {
            Verdict::TornInFlight
        }
    }
}

/// The same of a segment's header.
pub(crate) fn verdict_on_segment(state: SegmentState, at: Circumstances) -> Verdict {
    use SegmentState::{EpochBackwards, Expected, Garbage, Newer, Older, Zero};
    match (state, at.below_proven, at.more_beyond) {
        (Expected, _, _) => Verdict::Sound,
        (Newer, _, _) | (_, true, _) => Verdict::Corrupt,
        (EpochBackwards, false, _) => Verdict::StaleEpoch,
        (Older, false, false) => Verdict::StaleLap,
        (Zero, false, false) => Verdict::NeverWritten,
        (Older | Zero, false, true) | (Garbage, false, _) => Verdict::TornInFlight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: [RecordState; 6] = [
        RecordState::Valid,
        RecordState::Zero,
        RecordState::Claimed,
        RecordState::BadCrc,
        RecordState::ImpossibleLength,
        RecordState::EpochBackwards,
    ];
    const SEGMENTS: [SegmentState; 6] = [
        SegmentState::Expected,
        SegmentState::EpochBackwards,
        SegmentState::Older,
        SegmentState::Newer,
        SegmentState::Zero,
        SegmentState::Garbage,
    ];

    const FOOTERS: [FooterState; 3] =
        [FooterState::Absent, FooterState::Agrees, FooterState::Disagrees];

    fn all() -> impl Iterator<Item = Circumstances> {
        (0..8_u8).map(|bits| Circumstances {
            below_proven: bits & 1 != 0,
            same_boot: bits & 2 != 0,
            more_beyond: bits & 4 != 0,
        })
    }

    /// Every combination of evidence, against the contract stated as rules of its own.
    #[test]
    fn every_record_row() {
        for state in RECORDS {
            for at in all() {
                let (label, decision) = decide_record(state, at);
                let invalid = state != RecordState::Valid;
                let hole = matches!(state, RecordState::Zero | RecordState::Claimed);
                assert_eq!(decision == Decision::Accept, !invalid, "{label}");
                assert_eq!(decision == Decision::Corrupt, invalid && at.below_proven, "{label}");
                let pad = hole && !at.below_proven && at.same_boot && at.more_beyond;
                assert_eq!(decision == Decision::Pad, pad, "{label}");
                if decision == Decision::End {
                    assert_eq!((state, at.more_beyond), (RecordState::Zero, false), "{label}");
                }
            }
        }
    }

    #[test]
    fn every_segment_row() {
        for state in SEGMENTS {
            for at in all() {
                let (label, decision) = decide_segment(state, at);
                let expected = state == SegmentState::Expected;
                assert_eq!(decision == Decision::Accept, expected, "{label}");
                let lost = !expected && (at.below_proven || state == SegmentState::Newer);
                assert_eq!(decision == Decision::Corrupt, lost, "{label}");
                assert_ne!(decision, Decision::Pad, "{label}");
            }
        }
    }

    /// The word agrees with what is done.
    #[test]
    fn every_verdict() {
        let agrees = |verdict, decision| match decision {
            Decision::Accept => verdict == Verdict::Sound,
            Decision::Corrupt => verdict == Verdict::Corrupt,
            Decision::Pad => verdict == Verdict::AbandonedClaim,
            Decision::End => {
                matches!(verdict, Verdict::NeverWritten | Verdict::StaleLap | Verdict::StaleEpoch)
            }
            Decision::Cut => matches!(
                verdict,
                Verdict::TornInFlight | Verdict::AbandonedClaim | Verdict::StaleEpoch
            ),
        };
        for at in all() {
            for state in RECORDS {
                let verdict = verdict_on_record(state, at);
                let (label, decision) = decide_record(state, at);
                assert!(agrees(verdict, decision), "{label}: {verdict:?}");
            }
            for state in SEGMENTS {
                let verdict = verdict_on_segment(state, at);
                let (label, decision) = decide_segment(state, at);
                assert!(agrees(verdict, decision), "{label}: {verdict:?}");
            }
        }
    }

    #[test]
    fn only_a_footer_that_disagrees_is_corruption() {
        for state in FOOTERS {
            let corrupt = decide_footer(state).1 == Decision::Corrupt;
            assert_eq!(corrupt, state == FooterState::Disagrees);
        }
    }

    /// No two rows share a label, so a label in a report names one row.
    #[test]
    fn labels_are_unique() {
        let mut rows = std::collections::HashMap::new();
        let records = RECORDS.into_iter().flat_map(|state| {
            all().map(move |at| (decide_record(state, at), format!("{state:?}")))
        });
        let segments = SEGMENTS.into_iter().flat_map(|state| {
            all().map(move |at| (decide_segment(state, at), format!("segment {state:?}")))
        });
        let footers = FOOTERS.map(|state| (decide_footer(state), format!("footer {state:?}")));
        for ((label, decision), state) in records.chain(segments).chain(footers) {
            let row = rows.entry(label).or_insert_with(|| (decision, state.clone()));
            assert_eq!(*row, (decision, state), "{label}");
        }
        assert_eq!(rows.len(), 15 + 12 + 3);
    }

    /// `docs/design.md` has each row's label, with its decision, and no row more.
    #[test]
    fn the_design_page_has_these_rows() {
        let page = include_str!("../../docs/design.md");
        let documented: std::collections::BTreeSet<(String, String)> = page
            .lines()
            .filter(|line| line.starts_with('|'))
            .filter_map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                let [.., label, decision] = cells[..] else { return None };
                let decisions = ["accept", "end", "cut", "pad", "corrupt"];
                decisions.contains(&decision).then(|| (label.to_owned(), decision.to_owned()))
            })
            .collect();
        let records = RECORDS.into_iter().flat_map(|s| all().map(move |at| decide_record(s, at)));
        let segments =
            SEGMENTS.into_iter().flat_map(|s| all().map(move |at| decide_segment(s, at)));
        let decided: std::collections::BTreeSet<(String, String)> = records
            .chain(segments)
            .chain(FOOTERS.map(decide_footer))
            .map(|(label, row)| (label.to_owned(), format!("{row:?}").to_lowercase()))
            .collect();
        assert_eq!(documented, decided);
    }
}
