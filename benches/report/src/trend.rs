//! How figures went from commit to commit: a line of data for each run, and a table of them.
//!
//! The table shows what can be compared from one machine and one minute to another: ratios to the
//! floor, and counts of instructions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::rows::Row;
use crate::targets::RATIOS;
use crate::text;

/// One run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Point {
    pub commit: String,
    /// Unix seconds.
    pub time: u64,
    pub machine: String,
    /// By the names of [`columns`].
    pub figures: BTreeMap<String, f64>,
}

const DATA: &str = "trend.jsonl";
const TABLE: &str = "README.md";
const BEGIN: &str = "<!-- The table is written by scripts/run_benchmarks.sh trend. -->";
const END: &str = "<!-- End of the table. -->";
const INSTRUCTIONS: &str = "instructions";

/// What is followed of these rows: a name, and a figure.
fn figures(rows: &[Row]) -> BTreeMap<String, f64> {
    let ratios = RATIOS.iter().filter_map(|target| {
        let row = rows.iter().rev().find(|row| target.is_of(row))?;
        Some((target.name.to_owned(), row.ratio?))
    });
    let counts = rows
        .iter()
        .filter(|row| row.group == INSTRUCTIONS)
        .filter_map(|row| Some((format!("{INSTRUCTIONS}, {}", row.case), row.log?)));
    ratios.chain(counts).collect()
}

/// The points that are kept in `folder`; none if there is no file yet.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Point>> {
    let path = folder.join(DATA);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path:?}"))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("{path:?}"))).collect()
}

/// Adds the run that `rows` are of, and writes the table again.
pub fn add(folder: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let newest = rows.iter().max_by_key(|row| row.time).context("the file has no rows")?;
    let point = Point {
        commit: newest.commit.clone(),
        time: newest.time,
        machine: newest.machine.clone(),
        figures: figures(rows),
    };
    ensure!(!point.figures.is_empty(), "the file has nothing that is followed");
    let mut points = read(folder)?;
    points.push(point);
    let lines: Result<Vec<String>, _> = points.iter().map(serde_json::to_string).collect();
    fs::write(folder.join(DATA), lines?.join("\n") + "\n")?;
    let path = folder.join(TABLE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {path:?}"))?;
    fs::write(&path, with_table(&page, &table(&points))?)?;
    Ok(())
}

/// The page with this table in place of the one that it has.
fn with_table(page: &str, table: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for a table")?;
    let (_, behind) = rest.split_once(END).context("the page's table has no end")?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{behind}"))
}

/// A row for each figure, a column for each of the newest runs.
fn table(points: &[Point]) -> String {
    const COLUMNS: usize = 8;
    let newest = &points[points.len().saturating_sub(COLUMNS)..];
    let mut machines: Vec<&str> = newest.iter().map(|point| point.machine.as_str()).collect();
    machines.dedup();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head = |what: &str, of: &dyn Fn(&Point) -> String| {
        line([what.to_owned()].into_iter().chain(newest.iter().map(of)).collect())
    };
    let mut text = head("commit", &|point| point.commit.clone());
    text.push_str(&line(vec!["---".to_owned(); newest.len() + 1]));
    text.push_str(&head("date", &|point| text::date(point.time)));
    text.push_str(&head("machine", &|point| {
        let place = machines.iter().position(|machine| *machine == point.machine);
        place.map_or_else(String::new, |place| (place + 1).to_string())
    }));
    for name in columns(newest) {
        text.push_str(&head(&name, &|point| {
            point.figures.get(&name).map_or_else(|| "–".to_owned(), |figure| text::number(*figure))
        }));
    }
    text.push('\n');
    for (place, machine) in machines.iter().enumerate() {
        text.push_str(&format!("Machine {}: {machine}.\n", place + 1));
    }
    text
}

/// The names of all figures, ratios first.
pub fn columns(points: &[Point]) -> Vec<String> {
    let mut names: Vec<String> =
        points.iter().flat_map(|point| point.figures.keys().cloned()).collect();
    names.sort_by_key(|name| (name.starts_with(INSTRUCTIONS), name.clone()));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(commit: &str, figure: f64) -> Point {
        Point {
            commit: commit.to_owned(),
            time: 0,
            machine: "a machine".to_owned(),
            figures: [("speed".to_owned(), figure)].into(),
        }
    }

    #[test]
    fn a_table_has_a_column_for_each_run() {
        let table = table(&[point("aaa", 0.5), point("bbb", 0.25)]);
        assert!(table.contains("| commit | aaa | bbb |"), "{table}");
        assert!(table.contains("| speed | 0.500 | 0.250 |"), "{table}");
        assert!(table.contains("Machine 1: a machine."), "{table}");
    }

    #[test]
    fn what_surrounds_the_table_stays() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nbehind\n");
        let page = with_table(&page, "new\n").unwrap();
        assert!(page.starts_with("before\n") && page.ends_with("behind\n"), "{page}");
        assert!(page.contains("new") && !page.contains("old"), "{page}");
        assert!(with_table("no place", "new").is_err());
    }
}
