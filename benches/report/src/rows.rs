//! The lines that the benchmarks write (`benches/support/results.rs` says what is in them).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One figure, with all that is known about it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Row {
    pub group: String,
    pub case: String,
    pub measure: String,
    pub unit: String,
    pub subject: String,
    pub log: Option<f64>,
    pub floor: Option<f64>,
    pub floor_name: Option<String>,
    /// Median of the rounds' ratios log/floor.
    pub ratio: Option<f64>,
    pub rounds: Rounds,
    /// For each subject: one in so many exceeds so many nanoseconds.
    pub percentiles: BTreeMap<String, Vec<(f64, f64)>>,
    pub note: Option<String>,
    pub commit: String,
    pub machine: String,
    pub run: String,
    /// Unix seconds.
    pub time: u64,
}

/// What each round gave.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Rounds {
    pub log: Vec<f64>,
    pub floor: Vec<f64>,
}

/// Whether more of a unit is better.
pub fn more_is_better(unit: &str) -> bool {
    unit.ends_with("/s")
}

impl Row {
    /// Names of the same figure are the same in every run.
    pub fn key(&self) -> String {
        format!("{} · {} · {} · {}", self.subject, self.group, self.case, self.measure)
    }

    /// What each round says of the code rather than of the machine: log/floor where there is a
    /// floor, and else the log alone.
    pub fn judged(&self) -> Vec<f64> {
        let Rounds { log, floor } = &self.rounds;
        if floor.is_empty() {
            return log.clone();
        }
        log.iter().zip(floor).map(|(log, floor)| log / floor).collect()
    }
}

/// All rows of a file, in order.
pub fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path:?}"))?;
    parse(&text).with_context(|| format!("{path:?} is not a file of results"))
}

fn parse(text: &str) -> anyhow::Result<Vec<Row>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("line {}", number + 1))
        })
        .collect()
}

/// Of figures that were measured several times, the newest.
pub fn newest(rows: Vec<Row>) -> Vec<Row> {
    let mut places = BTreeMap::new();
    let mut newest: Vec<Row> = Vec::new();
    for row in rows {
        match places.get(&row.key()) {
            Some(place) => newest[*place] = row,
            None => {
                places.insert(row.key(), newest.len());
                newest.push(row);
            }
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_leave_out_what_it_does_not_know() {
        let rows = parse("{\"group\":\"g\",\"unit\":\"ns\"}\n\n").unwrap();
        assert_eq!((rows.len(), rows[0].group.as_str(), rows[0].log), (1, "g", None));
        assert!(parse("{\"group\":").is_err());
    }

    #[test]
    fn the_newest_of_two_rows_counts() {
        let row = |case: &str, log| Row { case: case.to_owned(), log, ..Row::default() };
        let rows = newest(vec![row("a", Some(1.0)), row("b", None), row("a", Some(2.0))]);
        assert_eq!(rows.iter().map(|row| row.log).collect::<Vec<_>>(), [Some(2.0), None]);
    }

    #[test]
    fn what_is_judged_is_the_ratio_where_there_is_a_floor() {
        let rounds = Rounds { log: vec![4.0, 9.0], floor: vec![2.0, 3.0] };
        assert_eq!(Row { rounds: rounds.clone(), ..Row::default() }.judged(), [2.0, 3.0]);
        let alone = Rounds { floor: Vec::new(), ..rounds };
        assert_eq!(Row { rounds: alone, ..Row::default() }.judged(), [4.0, 9.0]);
    }
}
