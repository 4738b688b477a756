//! Figures and tables for people.

/// Three significant digits, or all that stand in front of the point.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    let digits = match magnitude {
        _ if !value.is_finite() => return "–".to_owned(),
        m if m >= 99.95 || m == 0.0 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |parts| parts);
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{rest}")
}

/// A figure in a unit in which it is neither very large nor very small.
pub fn with_unit(value: f64, unit: &str) -> String {
    const TIMES: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    if let Some((_, nanos)) = TIMES.iter().find(|(name, _)| *name == unit) {
        let nanos = value * nanos;
        let fits = |(_, size): &&(&str, f64)| nanos.abs() >= *size;
        let (name, size) = TIMES.iter().rev().find(fits).unwrap_or(&TIMES[0]);
        let name = if *name == "us" { "µs" } else { name };
        return format!("{} {name}", number(nanos / size));
    }
    match unit {
        "" => number(value),
        "bytes" => format!("{} B", number(value)),
        unit => format!("{} {unit}", number(value)),
    }
}

/// A table whose columns are as wide as what is in them.
pub fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let cells: Vec<String> = (0..N)
            .map(|column| {
                let (cell, width) = (cells[column], widths[column]);
                // Names to the left, figures to the right, verdicts to the left.
                let left = column == 0 || column + 1 == N;
                if left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            })
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(heads);
    text.push_str(&format!("{}\n", "─".repeat(widths.iter().sum::<usize>() + 2 * (N - 1))));
    for row in rows {
        text.push_str(&line(std::array::from_fn(|column| row[column].as_str())));
    }
    text
}

/// The date of a moment in Unix seconds, in UTC.
pub fn date(unix_seconds: u64) -> String {
    // Days since the first of March of the year 0, in years that end with February.
    let days = (unix_seconds / 86_400 + 719_468) as i64;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        let cases = [(0.0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(99.96), "100");
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!(number(f64::NAN), "–");
    }

    #[test]
    fn times_are_given_in_the_unit_that_fits() {
        assert_eq!(with_unit(1234.0, "ns"), "1.23 µs");
        assert_eq!(with_unit(0.5, "us"), "500 ns");
        assert_eq!(with_unit(1500.0, "ms"), "1.50 s");
        assert_eq!(with_unit(30.4, "M/s"), "30.4 M/s");
        assert_eq!(with_unit(44.0, "bytes"), "44.0 B");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_767_225_599), "2025-12-31");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".to_owned(), "1".to_owned(), "x".to_owned()]];
        assert_eq!(table(["name", "n", "end"], &rows).lines().nth(2), Some("a     1  x"));
    }
}
