//! Tables for people.

use std::ops::Range;

use comfy_table::{CellAlignment, Table, TableComponent, presets};
use indicatif::HumanCount;

/// Names on the left, values on the right, nothing around them.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([*name, value.as_str()]);
    }
    trim_lines(&table)
}

/// A table with a header; the columns in `numbers` are right-aligned.
pub fn figures(header: &[&str], rows: &[Vec<String>], numbers: Range<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for lines in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
        table.remove_style(lines);
    }
    for lines in [TableComponent::HeaderLines, TableComponent::MiddleHeaderIntersections] {
        table.set_style(lines, '─');
    }
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers.start).take(numbers.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    trim_lines(&table)
}

/// "1 line", "12,345 lines".
pub fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", HumanCount(count))
}

/// Padding at the end of a line is noise to whoever compares or pastes it.
fn trim_lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
