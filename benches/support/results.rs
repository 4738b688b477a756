//! What the groups measure, as data: one line of JSON for each figure.
//!
//! Lines are appended to the file that `KAELIX_BENCH_RESULTS` names, or else to
//! `target/benchmarks/results.jsonl`; `benches/report` reads them. A line holds:
//!
//! - `group`, `case`, `measure`, `unit`: what it is a figure of. In units that end in `/s` more is
//!   better, in all others less.
//! - `log`, `floor`, `ratio`: medians of the rounds, and of the rounds' ratios log/floor.
//! - `rounds`: what each round gave, from which intervals of confidence can be computed.
//! - `percentiles`: for each subject pairs of n and the nanoseconds that one in n exceeds.
//! - `subject`: whose figure it is, `note`: what a reader must know.
//! - `commit`, `machine`, `time`, `run`: of what, where, when (Unix seconds), by which process.
//!
//! This file stands by itself: the package of the peers includes it too.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// One figure on its way to the file.
pub struct Row(Map<String, Value>);

impl Row {
    /// A figure of this log, in `unit`.
    pub fn new(group: &str, case: &str, measure: &str, unit: &str) -> Row {
        let mut row = Row(Map::new());
        row.set("group", group).set("case", case).set("measure", measure).set("unit", unit);
        row.set("subject", "kaelix-wal");
        row
    }

    /// Whose figure it is, if not this log's.
    #[allow(dead_code, reason = "the package of the peers alone has other subjects")]
    pub fn subject(mut self, subject: &str) -> Row {
        self.set("subject", subject);
        self
    }

    /// What a reader must know.
    #[allow(dead_code, reason = "not every package that includes this file has notes")]
    pub fn note(mut self, note: &str) -> Row {
        self.set("note", note);
        self
    }

    /// What each round gave. Goes before `floor`.
    pub fn log(mut self, rounds: &[f64]) -> Row {
        self.set("log", middle(rounds));
        self.set("rounds", json!({ "log": rounds }));
        self
    }

    /// What the floor gave in the same rounds, each just before or behind the log's.
    pub fn floor(mut self, name: &str, rounds: &[f64]) -> Row {
        let of_log: Vec<f64> = self.0["rounds"]["log"]
            .as_array()
            .map(|rounds| rounds.iter().filter_map(Value::as_f64).collect())
            .unwrap_or_default();
        let ratios: Vec<f64> = of_log.iter().zip(rounds).map(|(log, floor)| log / floor).collect();
        self.set("floor", middle(rounds)).set("floor_name", name).set("ratio", middle(&ratios));
        self.0["rounds"]["floor"] = json!(rounds);
        self
    }

    /// All latencies of `subject`, in nanoseconds.
    #[allow(dead_code, reason = "not every package that includes this file has histograms")]
    pub fn percentiles(mut self, subject: &str, times: &Histogram<u64>) -> Row {
        let rarities = (0..=20).map(|step| 2.0 * 10_f64.powf(f64::from(step) / 4.0));
        let points: Vec<Value> = rarities
            .take_while(|rarity| *rarity <= times.len() as f64)
            .map(|rarity| json!([rarity, times.value_at_quantile(1.0 - 1.0 / rarity)]))
            .collect();
        let all = self.0.entry("percentiles").or_insert_with(|| json!({}));
        all[subject] = json!(points);
        self
    }

    /// Appends the line. A file that cannot be written is no reason to lose the tables.
    pub fn write(mut self) {
        let origin = origin();
        self.set("commit", origin.commit.as_str()).set("machine", origin.machine.as_str());
        self.set("run", origin.run.as_str());
        self.set("time", unix_seconds());
        if let Err(error) = append_line(&Value::Object(self.0).to_string()) {
            println!("(not kept as data: {}: {error})", path().display());
        }
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Row {
        self.0.insert(key.to_owned(), value.into());
        self
    }
}

fn path() -> PathBuf {
    let named = std::env::var_os("KAELIX_BENCH_RESULTS").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    named.unwrap_or_else(|| Path::new(&target).join("benchmarks/results.jsonl"))
}

fn append_line(line: &str) -> std::io::Result<()> {
    let path = path();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// Where the figures of this process come from.
struct Origin {
    commit: String,
    machine: String,
    run: String,
}

fn origin() -> &'static Origin {
    static ORIGIN: OnceLock<Origin> = OnceLock::new();
    ORIGIN.get_or_init(|| Origin {
        commit: commit(),
        machine: machine(),
        run: format!("{}-{}", unix_seconds(), std::process::id()),
    })
}

/// `+` behind it if the tree differs from it.
fn commit() -> String {
    let described = Command::new("git")
        .args(["describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"])
        .output();
    match described {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// Processor, cores and kernel: what must be the same for two figures to be compared.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What a distribution adds to the version names a build, not what is compared.
    let version = kernel.split(|it: char| it != '.' && !it.is_ascii_digit()).next();
    format!("{model}, {cores} cores, Linux {}", version.unwrap_or_default())
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn middle(values: &[f64]) -> Value {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).map_or(Value::Null, |middle| json!(middle))
}
