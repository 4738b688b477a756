//! Has anything become slower? Two files of results, of the same machine.
//!
//! What is compared is the ratio to the floor where there is one, since both stood in the same
//! minute; else the figure itself. A regression is a slow-down of more than a tenth at the near end
//! of its interval, so that noise alone raises no alarm. Counts of instructions have no noise, and
//! less is allowed of them.

use std::collections::BTreeMap;

use crate::rows::{Row, more_is_better};
use crate::stats::{self, Interval};
use crate::text;

/// How the newer figure relates to the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Slower by more than is allowed, whatever the noise.
    Slower,
    /// It looks slower by more than is allowed; the noise could be part of that.
    Perhaps,
    Same,
    /// Faster by as much as would be an alarm the other way.
    Faster,
}

/// One figure, then and now.
pub struct Change {
    pub key: String,
    pub old: f64,
    pub new: f64,
    /// How many times as slow: more than 1 is worse, whatever the unit.
    pub slowdown: Interval,
    pub verdict: Verdict,
}

/// The largest slow-down that raises no alarm.
fn allowed(unit: &str) -> f64 {
    if unit == "instructions" { 1.03 } else { 1.1 }
}

/// Every figure that is in both, worst first.
pub fn compare(old: &[Row], new: &[Row]) -> Vec<Change> {
    let (old, new) = (by_key(old), by_key(new));
    let mut changes: Vec<Change> =
        new.iter().filter_map(|(key, new)| change(key, old.get(key)?, new)).collect();
    changes.sort_by(|a, b| {
        a.verdict.cmp(&b.verdict).then(b.slowdown.middle.total_cmp(&a.slowdown.middle))
    });
    changes
}

/// A figure's unit, and its rounds by process.
type Measured = (String, BTreeMap<String, Vec<f64>>);

fn by_key(rows: &[Row]) -> BTreeMap<String, Measured> {
    let mut by_key: BTreeMap<String, Measured> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.rounds.log.is_empty()) {
        let (unit, runs) = by_key.entry(row.key()).or_default();
        row.unit.clone_into(unit);
        runs.entry(row.run.clone()).or_default().extend(row.judged());
    }
    by_key
}

fn change(key: &str, (_, old): &Measured, (unit, new): &Measured) -> Option<Change> {
    let runs = |runs: &BTreeMap<String, Vec<f64>>| runs.values().cloned().collect::<Vec<_>>();
    let (old, new) = (runs(old), runs(new));
    let quotient = stats::quotient(&old, &new)?;
    let slowdown = if more_is_better(unit) {
        let Interval { low, middle, high } = quotient;
        Interval { low: 1.0 / high, middle: 1.0 / middle, high: 1.0 / low }
    } else {
        quotient
    };
    Some(Change {
        key: key.to_owned(),
        old: stats::median(&old.concat()),
        new: stats::median(&new.concat()),
        slowdown,
        verdict: verdict(slowdown, allowed(unit)),
    })
}

fn verdict(slowdown: Interval, allowed: f64) -> Verdict {
    match slowdown {
        Interval { low, .. } if low > allowed => Verdict::Slower,
        Interval { high, .. } if high < 1.0 / allowed => Verdict::Faster,
        Interval { low, middle, .. } if middle > allowed && low > 1.0 => Verdict::Perhaps,
        _ => Verdict::Same,
    }
}

/// The heads of [`Change::cells`].
pub const HEADS: [&str; 6] = ["figure", "before", "now", "times as slow", "99 % within", "verdict"];

impl Change {
    pub fn cells(&self) -> [String; 6] {
        let Interval { low, middle, high } = self.slowdown;
        let verdict = match self.verdict {
            Verdict::Slower => "SLOWER",
            Verdict::Perhaps => "perhaps slower",
            Verdict::Same => "",
            Verdict::Faster => "faster",
        };
        [
            self.key.strip_prefix("kaelix-wal · ").unwrap_or(&self.key).to_owned(),
            text::number(self.old),
            text::number(self.new),
            format!("{middle:.3}"),
            format!("{low:.3} to {high:.3}"),
            verdict.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Rounds;

    fn row(case: &str, unit: &str, run: &str, log: &[f64], floor: &[f64]) -> Row {
        Row {
            case: case.to_owned(),
            unit: unit.to_owned(),
            run: run.to_owned(),
            rounds: Rounds { log: log.to_vec(), floor: floor.to_vec() },
            ..Row::default()
        }
    }

    fn verdicts(old: &[Row], new: &[Row]) -> Vec<Verdict> {
        compare(old, new).iter().map(|change| change.verdict).collect()
    }

    #[test]
    fn a_rate_that_falls_and_a_time_that_rises_are_both_slower() {
        let old = [row("a", "M/s", "1", &[100.0; 7], &[]), row("b", "ns", "1", &[100.0; 7], &[])];
        let new = [row("a", "M/s", "2", &[80.0; 7], &[]), row("b", "ns", "2", &[125.0; 7], &[])];
        assert_eq!(verdicts(&old, &new), [Verdict::Slower, Verdict::Slower]);
        assert_eq!(verdicts(&new, &old), [Verdict::Faster, Verdict::Faster]);
    }

    #[test]
    fn a_tenth_is_allowed() {
        let old = [row("a", "ns", "1", &[100.0; 7], &[])];
        let new = [row("a", "ns", "2", &[109.0; 7], &[])];
        assert_eq!(verdicts(&old, &new), [Verdict::Same]);
    }

    #[test]
    fn a_slow_minute_is_no_regression() {
        let old = [row("a", "ns", "1", &[100.0; 7], &[50.0; 7])];
        let new = [row("a", "ns", "2", &[200.0; 7], &[100.0; 7])];
        assert_eq!(verdicts(&old, &new), [Verdict::Same]);
    }

    #[test]
    fn noise_makes_it_perhaps() {
        let old = [row("a", "ns", "1", &[100.0, 104.0, 97.0, 101.0, 120.0], &[])];
        let new = [row("a", "ns", "2", &[118.0, 106.0, 121.0, 119.0, 124.0], &[])];
        assert_ne!(verdicts(&old, &new), [Verdict::Slower]);
    }

    #[test]
    fn counts_of_instructions_may_grow_by_little() {
        let old = [row("a", "instructions", "1", &[100.0], &[])];
        let of = |count| verdicts(&old, &[row("a", "instructions", "2", &[count], &[])]);
        assert_eq!(of(102.0), [Verdict::Same]);
        assert_eq!(of(104.0), [Verdict::Slower]);
    }

    #[test]
    fn what_is_in_one_file_alone_is_not_compared() {
        let old = [row("a", "ns", "1", &[1.0], &[])];
        assert!(compare(&old, &[row("b", "ns", "2", &[1.0], &[])]).is_empty());
    }
}
