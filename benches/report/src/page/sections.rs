//! The parts of the page that are drawn.

use std::collections::BTreeMap;

use super::chart::{Axis, Dot, Series, Style, dots, escape, lines, plain};
use crate::rows::{Row, more_is_better};
use crate::text;
use crate::trend::{self, Point};

/// What cannot be beaten, by the names that the groups give it.
fn is_floor(name: &str) -> bool {
    name != "log" && !name.starts_with("log ")
}

fn figure(title: &str, what: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    let (title, what) = (escape(title), escape(what));
    format!("<figure><figcaption>{title} <span>{what}</span></figcaption>{body}</figure>")
}

fn cards(introduction: &str, figures: &[String]) -> String {
    let figures = figures.concat();
    if figures.is_empty() {
        return figures;
    }
    format!("<p>{}</p><div class=\"cards\">{figures}</div>", escape(introduction))
}

fn nanos(value: f64) -> String {
    let text = text::with_unit(value, "ns");
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number} {unit}")
}

/// The percentile that one in so many exceeds.
fn percentile(rarity: f64) -> String {
    let nines = (100.0 - 100.0 / rarity) * 1e6;
    plain_digits(nines.round() / 1e6)
}

fn plain_digits(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Latency over percentiles, a chart for each row that has a histogram.
pub fn latency(rows: &[Row]) -> String {
    let x = Axis {
        label: "percentile, %",
        logarithmic: true,
        text: percentile,
        ticks: vec![2.0, 10.0, 100.0, 1e3, 1e4, 1e5],
    };
    let y = Axis { label: "not slower than", logarithmic: true, text: nanos, ticks: Vec::new() };
    let figures: Vec<String> = rows
        .iter()
        .filter(|row| !row.percentiles.is_empty())
        .map(|row| {
            let mut colours = 0..;
            let floors = ["floor", "idle", "private", "records in memory", "4 KiB"];
            let series: Vec<Series> = row
                .percentiles
                .iter()
                .map(|(name, points)| {
                    let is_floor =
                        is_floor(name) && floors.iter().any(|floor| name.starts_with(floor));
                    let style = match is_floor {
                        true => Style::Floor,
                        false => Style::Colour(colours.next().unwrap_or(0)),
                    };
                    Series { name: name.clone(), style, points: points.clone() }
                })
                .collect();
            figure(&row.group, &row.case, &lines(&x, &y, &series))
        })
        .collect();
    cards(
        "How many calls are slower than what: both axes are logarithmic. Appends at a fixed rate \
         count from the moment at which they were due, so no stall hides.",
        &figures,
    )
}

/// Rows of a group whose cases are `prefix/number`, as points over the number.
fn over_number(
    rows: &[Row],
    group: &str,
    measure: &str,
    prefix: &str,
) -> Vec<(f64, f64, Option<f64>)> {
    let mut points: Vec<(f64, f64, Option<f64>)> = rows
        .iter()
        .filter(|row| row.subject == "kaelix-wal" && row.group == group && row.measure == measure)
        .filter_map(|row| {
            let number = row.case.strip_prefix(prefix)?.strip_prefix('/')?.parse().ok()?;
            Some((number, row.log?, row.floor))
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn log_and_floor(points: &[(f64, f64, Option<f64>)]) -> Vec<Series> {
    let log = points.iter().map(|(x, log, _)| (*x, *log)).collect();
    let floor = points.iter().filter_map(|(x, _, floor)| Some((*x, (*floor)?))).collect();
    let series = [("log", Style::Colour(0), log), ("floor", Style::Floor, floor)];
    series
        .into_iter()
        .map(|(name, style, points): (&str, Style, Vec<(f64, f64)>)| Series {
            name: name.to_owned(),
            style,
            points,
        })
        .collect()
}

fn over_threads(label: &'static str) -> [Axis; 2] {
    let threads = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
    [
        Axis { label: "threads", logarithmic: true, text: plain, ticks: threads },
        Axis { label, logarithmic: false, text: plain, ticks: Vec::new() },
    ]
}

/// Throughput over threads, by size.
pub fn threads(rows: &[Row]) -> String {
    let [x, y] = over_threads("million a second");
    let mut figures: Vec<String> = [
        ("64B", "appends of 64 B"),
        ("1KiB", "appends of 1 KiB"),
        ("64KiB", "appends of 64 KiB"),
        ("batches", "entries of 64 B in batches of 100"),
    ]
    .into_iter()
    .map(|(case, what)| {
        let points = over_number(rows, "concurrent_writes", "throughput", case);
        figure("concurrent_writes", what, &lines(&x, &y, &log_and_floor(&points)))
    })
    .collect();
    for (case, what) in [("64B", "appends of 64 B"), ("batches", "batches of 100")] {
        let points = over_number(rows, "scaling_model", "entries", case);
        let mut series = log_and_floor(&points);
        for series in series.iter_mut().filter(|series| series.style == Style::Floor) {
            "model".clone_into(&mut series.name);
        }
        figures.push(figure("scaling_model", what, &lines(&x, &y, &series)));
    }
    let [x, y] = over_threads("a second");
    let points = over_number(rows, "durable_append", "appends", "threads");
    let what = "durable appends of 256 B, group commit";
    figures.push(figure("durable_append", what, &lines(&x, &y, &log_and_floor(&points))));
    cards(
        "The floor does the least that any log must, with as many threads, and zeroes as much.",
        &figures,
    )
}

/// Dots of log and floor for each case of a group.
fn pairs(rows: &[Row], group: &str, measure: &str) -> String {
    let mut all = Vec::new();
    for row in rows.iter().filter(|row| row.group == group && row.measure == measure) {
        let Some(log) = row.log else { continue };
        let text = |value: f64| text::with_unit(value, &row.unit);
        let dot = |name: &str, style, value: f64| Dot {
            name: name.to_owned(),
            style,
            value,
            text: text(value),
        };
        all.push(dot(&row.case, Style::Colour(0), log));
        if let Some(floor) = row.floor {
            let name = row.floor_name.as_deref().unwrap_or("floor");
            all.push(dot(&format!("– {name}"), Style::Floor, floor));
        }
    }
    dots(&all)
}

/// What differs by size or by way.
pub fn sizes(rows: &[Row]) -> String {
    let figures: Vec<String> = [
        ("read_operations", "each record", "each record; shorter is better"),
        ("batch_write_throughput", "each entry", "each entry, by entries of a batch"),
        ("segment_rotation", "append", "each append of 256 B, by size of segments"),
        ("message_conversion", "each message", "each message"),
        ("transaction_processing", "each transaction", "ten entries over three streams"),
        ("comprehensive_stress", "entries", "entries a second; longer is better"),
    ]
    .into_iter()
    .map(|(group, measure, what)| figure(group, what, &pairs(rows, group, measure)))
    .collect();
    cards("Log in colour, its floor in grey; the scales are logarithmic.", &figures)
}

/// Whatever the group of recoveries has measured.
pub fn recovery(rows: &[Row]) -> String {
    let measures: BTreeMap<&str, ()> = rows
        .iter()
        .filter(|row| row.group == "recovery_operations")
        .map(|row| (row.measure.as_str(), ()))
        .collect();
    let figures: Vec<String> = measures
        .keys()
        .map(|measure| {
            figure("recovery_operations", measure, &pairs(rows, "recovery_operations", measure))
        })
        .collect();
    cards("By size of what is retained, and by what happened to it.", &figures)
}

/// Peers beside the log, a chart for each thing that they were asked to do.
pub fn peers(rows: &[Row]) -> String {
    let mut cases: Vec<(&str, &str, &str)> = Vec::new();
    for row in rows.iter().filter(|row| row.group == "peers") {
        let case = (row.case.as_str(), row.measure.as_str(), row.unit.as_str());
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    let figures: Vec<String> = cases
        .into_iter()
        .map(|(case, measure, unit)| {
            let mut of_case: Vec<&Row> = rows
                .iter()
                .filter(|row| (row.group.as_str(), row.case.as_str()) == ("peers", case))
                .collect();
            let speed = |row: &&Row| {
                let value = row.log.unwrap_or(0.0);
                if more_is_better(unit) { -value } else { value }
            };
            of_case.sort_by(|a, b| speed(a).total_cmp(&speed(b)));
            let rows: Vec<Dot> = of_case
                .into_iter()
                .map(|row| {
                    let note = row.note.as_ref();
                    Dot {
                        name: note.map_or(row.subject.clone(), |n| format!("{}: {n}", row.subject)),
                        style: match row.subject.as_str() {
                            "kaelix-wal" => Style::Colour(0),
                            floor if floor.starts_with("floor") => Style::Floor,
                            _ => Style::Colour(1),
                        },
                        value: row.log.unwrap_or(0.0),
                        text: row.log.map_or_else(
                            || "–".to_owned(),
                            |value| text::with_unit(value, &row.unit),
                        ),
                    }
                })
                .collect();
            figure(case, measure, &dots(&rows))
        })
        .collect();
    cards(
        "The same payloads, durability and threads, each in its documented fastest honest \
         setting; a logarithmic scale, the best on top.",
        &figures,
    )
}

/// Each figure that is followed, over the runs that were kept.
pub fn trend(points: &[Point]) -> String {
    if points.len() < 2 {
        return String::new();
    }
    let x = Axis { label: "run", logarithmic: false, text: plain, ticks: Vec::new() };
    let y = Axis { label: "", logarithmic: false, text: plain, ticks: Vec::new() };
    let figures: Vec<String> = trend::columns(points)
        .into_iter()
        .map(|name| {
            let values = points.iter().enumerate().filter_map(|(run, point)| {
                point.figures.get(&name).map(|value| ((run + 1) as f64, *value))
            });
            let newest = points.last().map_or_else(String::new, |point| point.commit.clone());
            let series = Series {
                name: format!("to {newest}"),
                style: Style::Colour(0),
                points: values.collect(),
            };
            figure(&name, "", &lines(&x, &y, &[series]))
        })
        .collect();
    cards("Ratios to the floor and counts of instructions, run by run.", &figures)
}
