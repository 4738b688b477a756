//! The report: one page of HTML that needs nothing else, light or dark as its reader prefers.

mod chart;
mod sections;

use crate::compare::{self, Change};
use crate::info::Fact;
use crate::rows::Row;
use crate::targets::{RATIOS, TARGETS, Target};
use crate::text;
use crate::trend::Point;
use crate::validate::{self, Verdict};
use chart::escape;

/// What the page is made of.
pub struct Contents<'a> {
    pub rows: &'a [Row],
    pub facts: &'a [Fact],
    pub changes: &'a [Change],
    pub points: &'a [Point],
}

/// The page.
pub fn html(contents: &Contents<'_>) -> String {
    let rows = contents.rows;
    let newest = rows.iter().max_by_key(|row| row.time);
    let origin = newest.map_or_else(String::new, |row| {
        format!("commit {}, {}, {}", row.commit, text::date(row.time), row.machine)
    });
    let sections = [
        ("targets", "Targets", verdicts(TARGETS, rows)),
        ("ratios", "Beside the floor", verdicts(RATIOS, rows)),
        ("latency", "Latency", sections::latency(rows)),
        ("threads", "Throughput by threads", sections::threads(rows)),
        ("sizes", "Reading, batches and rotation", sections::sizes(rows)),
        ("recovery", "Recovery", sections::recovery(rows)),
        ("peers", "Peers", sections::peers(rows)),
        ("changes", "Since the baseline", changes(contents.changes)),
        ("trend", "Trend", sections::trend(contents.points)),
        ("machine", "The machine", machine(contents.facts)),
        ("all", "Every figure", all(rows)),
    ];
    let shown = || sections.iter().filter(|(_, _, body)| !body.is_empty());
    let links: String =
        shown().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>")).collect();
    let bodies: String = shown()
        .map(|(id, title, body)| format!("<section><h2 id=\"{id}\">{title}</h2>{body}</section>\n"))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Kaelix WAL: benchmarks</title>\n<style>\n{}</style>\n</head>\n<body>\n\
         <h1>Kaelix WAL: benchmarks</h1>\n<p>{}</p>\n<nav>{links}</nav>\n{bodies}</body>\n\
         </html>\n",
        include_str!("style.css"),
        escape(&origin)
    )
}

fn verdicts(targets: &[Target], rows: &[Row]) -> String {
    let judged = validate::judge(targets, rows);
    if judged.iter().all(|judged| judged.verdict == Verdict::NotMeasured) {
        return String::new();
    }
    let body: String = judged
        .iter()
        .map(|judged| {
            let class = match judged.verdict {
                Verdict::Stretched | Verdict::Met => "good",
                Verdict::Missed | Verdict::MissedWithFloor => "bad",
                Verdict::NotMeasured => "none",
            };
            row(validate::HEADS, &judged.cells(), class)
        })
        .collect();
    format!("<div class=\"wide verdicts\">{}</div>", table(validate::HEADS, &body))
}

fn changes(changes: &[Change]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let body: String = changes
        .iter()
        .map(|change| {
            let class = match change.verdict {
                compare::Verdict::Slower => "bad",
                compare::Verdict::Faster => "good",
                compare::Verdict::Perhaps | compare::Verdict::Same => "none",
            };
            row(compare::HEADS, &change.cells(), class)
        })
        .collect();
    format!("<div class=\"wide\">{}</div>", table(compare::HEADS, &body))
}

fn machine(facts: &[Fact]) -> String {
    let items: String = facts
        .iter()
        .map(|fact| {
            let warning = fact.warning.as_ref().map_or_else(String::new, |warning| {
                format!("<br><span class=\"soft\">{}</span>", escape(warning))
            });
            format!("<dt>{}</dt><dd>{}{warning}</dd>", fact.name, escape(&fact.value))
        })
        .collect();
    if items.is_empty() { items } else { format!("<dl>{items}</dl>") }
}

fn all(rows: &[Row]) -> String {
    const HEADS: [&str; 6] = ["figure", "log", "floor", "log/floor", "rounds", "floor is"];
    let body: String = rows
        .iter()
        .filter(|measured| measured.log.is_some())
        .map(|measured| {
            let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
            let with_unit = |value: f64| text::with_unit(value, &measured.unit);
            let key = measured.key();
            let note = measured.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
            let cells = [
                format!("{}{note}", key.strip_prefix("kaelix-wal · ").unwrap_or(&key)),
                or_dash(measured.log.map(with_unit)),
                or_dash(measured.floor.map(with_unit)),
                or_dash(measured.ratio.map(text::number)),
                measured.rounds.log.len().to_string(),
                or_dash(measured.floor_name.clone()),
            ];
            row(HEADS, &cells, "")
        })
        .collect();
    format!(
        "<p>Medians of the rounds, and of the rounds' ratios.</p><details><summary>Show</summary>\
         <div class=\"wide\">{}</div></details>",
        table(HEADS, &body)
    )
}

fn table<const N: usize>(heads: [&str; N], body: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th>{}</th>", escape(head))).collect();
    format!("<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")
}

/// A row whose last cell is of this class; on narrow screens each cell says what it is.
fn row<const N: usize>(heads: [&str; N], cells: &[String; N], class: &str) -> String {
    let cells: String = heads
        .iter()
        .zip(cells)
        .enumerate()
        .map(|(place, (head, cell))| {
            let class = match place + 1 == N && !class.is_empty() {
                true => format!(" class=\"{class}\""),
                false => String::new(),
            };
            format!("<td data-head=\"{}\"{class}>{}</td>", escape(head), escape(cell))
        })
        .collect();
    format!("<tr>{cells}</tr>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_nothing_is_still_a_page() {
        let contents = Contents { rows: &[], facts: &[], changes: &[], points: &[] };
        let page = html(&contents);
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let row = Row {
            group: "concurrent_writes".to_owned(),
            case: "64B/1 <&>".to_owned(),
            log: Some(1.0),
            ..Row::default()
        };
        let contents = Contents { rows: &[row], facts: &[], changes: &[], points: &[] };
        let page = html(&contents);
        assert!(page.contains("64B/1 &lt;&amp;&gt;"));
        for word in ["http:", "https:", "<script", "<link", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
