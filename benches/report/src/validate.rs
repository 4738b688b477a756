//! Verdicts: one for each target.

use crate::rows::Row;
use crate::targets::Target;
use crate::text;

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is reached, and its stretch too.
    Stretched,
    /// It is reached.
    Met,
    /// It is missed.
    Missed,
    /// It is missed, by the floor too: on this machine, in this minute, nobody could reach it.
    MissedWithFloor,
    /// Nothing in the file is about it.
    NotMeasured,
}

impl Verdict {
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Stretched => "met, and the stretch",
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::MissedWithFloor => "MISSED (by the floor too)",
            Verdict::NotMeasured => "not measured",
        }
    }
}

/// A target with what was measured.
pub struct Judged<'a> {
    pub target: &'a Target,
    pub row: Option<&'a Row>,
    pub verdict: Verdict,
}

/// All targets, in order.
pub fn judge<'a>(targets: &'a [Target], rows: &'a [Row]) -> Vec<Judged<'a>> {
    targets
        .iter()
        .map(|target| {
            let row = rows.iter().rev().find(|row| target.is_of(row));
            Judged { target, row, verdict: verdict(target, row) }
        })
        .collect()
}

fn verdict(target: &Target, row: Option<&Row>) -> Verdict {
    let Some((row, measured)) = row.and_then(|row| Some((row, target.measured(row)?))) else {
        return Verdict::NotMeasured;
    };
    if target.reaches(measured, target.stretch) {
        return Verdict::Stretched;
    }
    if target.reaches(measured, target.limit) {
        return Verdict::Met;
    }
    let absolute = !target.unit().is_empty();
    match row.floor {
        Some(floor) if absolute && !target.reaches(floor, target.limit) => Verdict::MissedWithFloor,
        _ => Verdict::Missed,
    }
}

impl Judged<'_> {
    /// Target, stretch, measured, floor, ratio to the floor, and verdict.
    pub fn cells(&self) -> [String; 7] {
        let Judged { target, row, verdict } = self;
        let sign = if target.more_is_better() { "≥" } else { "<" };
        let unit = target.unit();
        let with_unit = |value: f64| text::with_unit(value, unit);
        let measured = row.and_then(|row| target.measured(row));
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        let floor = row.and_then(|row| row.floor);
        [
            target.name.to_owned(),
            format!("{sign} {}", with_unit(target.limit)),
            format!("{sign} {}", with_unit(target.stretch)),
            or_dash(measured.map(with_unit)),
            or_dash(floor.map(|floor| match row {
                Some(row) => text::with_unit(floor, &row.unit),
                None => with_unit(floor),
            })),
            or_dash(row.and_then(|row| row.ratio).map(text::number)),
            verdict.text().to_owned(),
        ]
    }
}

/// The heads of [`Judged::cells`].
pub const HEADS: [&str; 7] =
    ["target", "limit", "stretch", "measured", "floor", "log/floor", "verdict"];

/// 0: all is met. 1: something is missed. 2: nothing is missed, but something is not measured.
pub fn exit_status(judged: &[Judged<'_>]) -> u8 {
    let any = |wanted: &[Verdict]| judged.iter().any(|judged| wanted.contains(&judged.verdict));
    match () {
        () if any(&[Verdict::Missed, Verdict::MissedWithFloor]) => 1,
        () if any(&[Verdict::NotMeasured]) => 2,
        () => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{Figure, TARGETS};

    fn row(target: &Target, log: f64, floor: Option<f64>) -> Row {
        Row {
            group: target.group.to_owned(),
            case: target.case.to_owned(),
            measure: target.measure.to_owned(),
            subject: "kaelix-wal".to_owned(),
            unit: target.unit().to_owned(),
            log: Some(log),
            floor,
            ratio: floor.map(|floor| log / floor),
            ..Row::default()
        }
    }

    #[test]
    fn each_verdict_has_its_evidence() {
        let target = &TARGETS[0];
        let of = |log, floor| verdict(target, Some(&row(target, log, floor)));
        assert_eq!(of(0.5, None), Verdict::Stretched);
        assert_eq!(of(5.0, None), Verdict::Met);
        assert_eq!(of(10.0, Some(5.0)), Verdict::Missed);
        assert_eq!(of(20.0, None), Verdict::Missed);
        assert_eq!(of(20.0, Some(15.0)), Verdict::MissedWithFloor);
        assert_eq!(verdict(target, None), Verdict::NotMeasured);
    }

    #[test]
    fn a_ratio_cannot_be_excused_by_the_floor() {
        let target = Target { figure: Figure::Ratio { more_is_better: false }, ..TARGETS[0] };
        let row = row(&target, 300.0, Some(20.0));
        assert_eq!(verdict(&target, Some(&row)), Verdict::Missed);
    }

    #[test]
    fn a_miss_is_a_failure_and_so_is_what_was_not_measured() {
        let met: Vec<Row> = TARGETS.iter().map(|target| row(target, target.limit, None)).collect();
        let met: Vec<Row> = met
            .into_iter()
            .map(|row| match row.unit.as_str() {
                "M/s" => row,
                _ => Row { log: row.log.map(|log| log / 2.0), ..row },
            })
            .collect();
        assert_eq!(exit_status(&judge(TARGETS, &met)), 0);
        assert_eq!(exit_status(&judge(TARGETS, &met[1..])), 2);
        let mut missed = met;
        missed[1].log = Some(1e9);
        missed.remove(0);
        assert_eq!(exit_status(&judge(TARGETS, &missed)), 1);
    }
}
