//! What the log is held to: the one place that says so.

use crate::rows::{Row, more_is_better};

/// What of a row is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// The log's own figure, in this unit.
    Log(&'static str),
    /// Its ratio to the floor of the same run: this holds on any machine.
    Ratio { more_is_better: bool },
}

/// One figure, and what it must reach.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub group: &'static str,
    pub case: &'static str,
    pub measure: &'static str,
    pub figure: Figure,
    /// What is promised.
    pub limit: f64,
    /// What would be remarkable.
    pub stretch: f64,
}

impl Target {
    const fn new(
        name: &'static str,
        (group, case, measure): (&'static str, &'static str, &'static str),
        figure: Figure,
        limit: f64,
        stretch: f64,
    ) -> Target {
        Target { name, group, case, measure, figure, limit, stretch }
    }

    /// Is this row what the target is about?
    pub fn is_of(&self, row: &Row) -> bool {
        row.subject == "kaelix-wal"
            && (row.group.as_str(), row.case.as_str(), row.measure.as_str())
                == (self.group, self.case, self.measure)
    }

    /// What of the row is judged.
    pub fn measured(&self, row: &Row) -> Option<f64> {
        match self.figure {
            Figure::Log(_) => row.log,
            Figure::Ratio { .. } => row.ratio,
        }
    }

    /// Does `value` reach `limit`?
    pub fn reaches(&self, value: f64, limit: f64) -> bool {
        if self.more_is_better() { value >= limit } else { value < limit }
    }

    /// Is more better?
    pub fn more_is_better(&self) -> bool {
        match self.figure {
            Figure::Log(unit) => more_is_better(unit),
            Figure::Ratio { more_is_better } => more_is_better,
        }
    }

    /// The unit of limit and figure; none for a ratio.
    pub fn unit(&self) -> &'static str {
        match self.figure {
            Figure::Log(unit) => unit,
            Figure::Ratio { .. } => "",
        }
    }
}

const SLOWER: Figure = Figure::Ratio { more_is_better: false };
const FASTER: Figure = Figure::Ratio { more_is_better: true };

/// The promises, as `validate` judges them.
pub const TARGETS: &[Target] = &[
    Target::new(
        "P99 of an append (64 B, 1 M/s, flushing)",
        ("single_write_latency", "64B", "p99"),
        Figure::Log("us"),
        10.0,
        1.0,
    ),
    Target::new(
        "P99 of a read by position (64 B)",
        ("read_operations", "random 64B", "p99"),
        Figure::Log("us"),
        5.0,
        1.0,
    ),
    Target::new(
        "messages a second (64 B, 4 threads)",
        ("concurrent_writes", "64B/4", "throughput"),
        Figure::Log("M/s"),
        10.0,
        30.0,
    ),
    Target::new(
        "recovery of 1 GB after a power loss (64 B)",
        ("recovery_operations", "1024 MB, 64 B", "open, torn"),
        Figure::Log("ms"),
        500.0,
        10.0,
    ),
    Target::new(
        "recovery of 1 GB after a kill (64 B)",
        ("recovery_operations", "1024 MB, 64 B", "open, killed"),
        Figure::Log("ms"),
        500.0,
        10.0,
    ),
    Target::new(
        "recovery of 1 GB, every record verified (64 B)",
        ("recovery_operations", "1024 MB, 64 B", "open in full"),
        Figure::Log("ms"),
        500.0,
        150.0,
    ),
    Target::new(
        "memory of an idle stream, beyond its name",
        ("memory_efficiency", "idle stream", "resident beyond its name"),
        Figure::Log("bytes"),
        1024.0,
        128.0,
    ),
    Target::new(
        "each message of a batch of 100",
        ("batch_write_throughput", "100", "each entry"),
        Figure::Log("ns"),
        1000.0,
        20.0,
    ),
    Target::new(
        "each write at 32 threads, waits for a core included",
        ("concurrent_writes", "64B/32", "mean"),
        Figure::Log("us"),
        20.0,
        5.0,
    ),
    Target::new(
        "conversion of a message (1 KiB)",
        ("message_conversion", "encode 1KiB", "each message"),
        Figure::Log("ns"),
        5000.0,
        100.0,
    ),
    Target::new(
        "transaction (10 entries, 3 streams, versions expected)",
        ("transaction_processing", "expecting three versions", "each transaction"),
        Figure::Log("ns"),
        1e6,
        2000.0,
    ),
    Target::new(
        "replay, each entry",
        ("streaming_api", "replay of all", "each entry"),
        Figure::Log("ns"),
        10_000.0,
        100.0,
    ),
];

/// What holds on any machine, noisy ones too, as `ci` judges it. The limits leave room: they are
/// for what breaks, and `compare` is for what slows down.
pub const RATIOS: &[Target] = &[
    Target::new(
        "append of 64 B, 1 thread, of the floor's rate",
        ("concurrent_writes", "64B/1", "throughput"),
        FASTER,
        0.5,
        0.85,
    ),
    Target::new(
        "append of 1 KiB, 4 threads, of the floor's rate",
        ("concurrent_writes", "1KiB/4", "throughput"),
        FASTER,
        0.5,
        0.85,
    ),
    Target::new(
        "batches of 100, 4 threads, of the floor's rate",
        ("concurrent_writes", "batches/4", "throughput"),
        FASTER,
        0.4,
        0.8,
    ),
    Target::new(
        "read in order, 1 KiB, times the floor's time",
        ("read_operations", "sequential 1KiB", "each record"),
        SLOWER,
        6.0,
        1.5,
    ),
    Target::new(
        "read by position, 1 KiB, times the floor's time",
        ("read_operations", "random 1KiB", "each record"),
        SLOWER,
        4.0,
        1.5,
    ),
    Target::new(
        "message encoded and appended, times an append",
        ("message_conversion", "encode and append 1KiB", "each message"),
        SLOWER,
        5.0,
        1.5,
    ),
    Target::new(
        "transaction, times its ten appends",
        ("transaction_processing", "plain", "each transaction"),
        SLOWER,
        4.0,
        1.0,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_harder_than_its_limit() {
        for target in TARGETS.iter().chain(RATIOS) {
            assert!(target.reaches(target.stretch, target.limit), "{}", target.name);
            assert!(!target.reaches(target.limit, target.stretch), "{}", target.name);
        }
    }

    #[test]
    fn rates_must_be_high_and_times_low() {
        let find = |case| TARGETS.iter().find(|target| target.case == case).unwrap();
        assert!(find("64B/4").reaches(11.0, 10.0) && !find("64B/4").reaches(9.0, 10.0));
        assert!(find("64B").reaches(9.0, 10.0) && !find("64B").reaches(10.0, 10.0));
    }

    #[test]
    fn figures_of_others_do_not_count() {
        let target = &TARGETS[0];
        let row = Row {
            group: target.group.to_owned(),
            case: target.case.to_owned(),
            measure: target.measure.to_owned(),
            subject: "kaelix-wal".to_owned(),
            ..Row::default()
        };
        assert!(target.is_of(&row));
        assert!(!target.is_of(&Row { subject: "another".to_owned(), ..row }));
    }
}
