//! Other logs and queues beside this one: the same payloads, threads and promises, on the same
//! disk, round by round in turn.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [--seconds S] [--rounds N]
//! [--gib G] [TASK...]`. Tasks are `append`, `durable`, `batch`, `read` and `open`.
//!
//! Each measurement runs in a process of its own: some peers keep their settings in statics, and
//! what one leaves in memory must not be another's. Each peer runs as its documentation shows it,
//! in the fastest setting that keeps the promise; `peers.rs` has the settings, which are printed,
//! and what a peer cannot do is said. Whoever reads back or opens must find as many records as
//! were written, in order: what is missing is reported as lost.

#![allow(clippy::print_stdout)]

mod bounds;
mod peers;
mod rocks;
mod tasks;

// The floors are those of the benchmarks.
#[path = "../../support/append_floor.rs"]
#[allow(dead_code, reason = "the benchmarks need more of it")]
mod append_floor;
#[path = "../../support/disk_floor.rs"]
#[allow(dead_code, reason = "the benchmarks need more of it")]
mod disk_floor;
#[path = "../../support/results.rs"]
#[allow(dead_code, reason = "the benchmarks need more of it")]
mod results;
#[path = "../../support/scan_floor.rs"]
#[allow(dead_code, reason = "the benchmarks need more of it")]
mod scan_floor;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use results::Row;
use tasks::{Case, Failure, Task};

/// In the environment of a process that measures: where its logs are to be.
const DIR: &str = "KAELIX_PEERS_DIR";

/// What is asked for.
struct Arguments {
    seconds: f64,
    rounds: usize,
    gib: f64,
    tasks: Vec<Task>,
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, peer, case @ ..] = &words[..]
        && first == "--one"
    {
        let peer = peers::ALL.iter().find(|it| it.name == *peer).ok_or("no such peer")?;
        let dir = std::env::var_os(DIR).ok_or("no directory")?;
        let outcome = tasks::run(peer, &Case::parse(case)?, Path::new(&dir));
        println!("{}", outcome.map_or_else(|error| format!("failed {error}"), |it| it.to_string()));
        return Ok(());
    }
    let arguments = parse(&words)?;
    println!("Settings:\n");
    for peer in peers::ALL {
        println!("- {}: {}", peer.name, peer.settings);
    }
    for task in &arguments.tasks {
        for case in task.cases(arguments.seconds, arguments.gib) {
            table(&case, arguments.rounds)?;
        }
    }
    Ok(())
}

fn parse(words: &[String]) -> Result<Arguments, Failure> {
    let mut arguments = Arguments { seconds: 0.5, rounds: 3, gib: 1.0, tasks: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} takes a number"));
        match word.as_str() {
            "--seconds" => arguments.seconds = value()?.parse()?,
            "--rounds" => arguments.rounds = value()?.parse()?,
            "--gib" => arguments.gib = value()?.parse()?,
            name => arguments.tasks.push(Task::parse(name)?),
        }
    }
    if arguments.tasks.is_empty() {
        arguments.tasks = Task::ALL.to_vec();
    }
    Ok(arguments)
}

/// What came of a peer in a case.
enum Outcome {
    Rounds(Vec<f64>),
    Without(String),
}

/// All peers in this case, in turn.
fn table(case: &Case, rounds: usize) -> Result<(), Failure> {
    let mut outcomes: Vec<Outcome> =
        peers::ALL.iter().map(|_| Outcome::Rounds(Vec::new())).collect();
    for _ in 0..rounds {
        for (peer, outcome) in peers::ALL.iter().zip(&mut outcomes) {
            let Outcome::Rounds(measured) = outcome else { continue };
            match one(peer.name, case)? {
                Ok(figure) => measured.push(figure),
                Err(reason) => *outcome = Outcome::Without(reason),
            }
        }
    }
    println!("\n{}: {}, medians of {rounds} rounds in turn\n", case.name(), case.unit());
    println!("| | {} | of this log's |\n|---|---|---|", case.unit());
    let ours = match &outcomes[0] {
        Outcome::Rounds(rounds) => rounds.clone(),
        Outcome::Without(reason) => return Err(format!("this log: {reason}").into()),
    };
    for (peer, outcome) in peers::ALL.iter().zip(&outcomes) {
        let row = Row::new("peers", &case.name(), case.task.measure(), case.unit());
        let row = row.subject(peer.name);
        match outcome {
            Outcome::Rounds(figures) => {
                let ratios = figures.iter().zip(&ours).map(|(figure, ours)| figure / ours);
                let ratio = median(ratios.collect());
                let note = peer.note(case.task);
                let said = note.map_or_else(String::new, |note| format!(" ({note})"));
                println!(
                    "| {}{said} | {} | {ratio:.3} |",
                    peer.name,
                    digits(median(figures.clone()))
                );
                let row = row.log(figures);
                match note {
                    Some(note) => row.note(note).write(),
                    None => row.write(),
                }
            }
            Outcome::Without(reason) => {
                println!("| {} | – | {reason} |", peer.name);
                // Whoever has lost something, or failed, is to be seen in the report too.
                if !reason.starts_with("cannot") {
                    row.note(reason).write();
                }
            }
        }
    }
    Ok(())
}

/// One peer, one case, in a process of its own; the reason if there is no figure.
fn one(peer: &str, case: &Case) -> Result<Result<f64, String>, Failure> {
    let program = std::env::current_exe()?;
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(program);
    command.arg("--one").arg(peer).args(case.words()).env(DIR, dir.path());
    // This one asks nobody else.
    command.env("WALRUS_DATA_DIR", dir.path().join("walrus")).env("WALRUS_QUIET", "1");
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    Ok(match (output.status.success(), last.split_once(' ')) {
        (true, Some(("figure", figure))) => Ok(figure.parse()?),
        (true, Some((_, _))) => Err(last.to_owned()),
        _ => Err(format!("ended with {}", output.status)),
    })
}

/// Three significant digits.
fn digits(value: f64) -> String {
    let digits = (2 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.digits$}")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// For the floors: a file of `size` bytes without a name in `dir`, every block written.
fn written_file(dir: &Path, size: u64) -> std::io::Result<File> {
    let path = dir.join("floor");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    for _ in 0..size / 4096 {
        file.write_all(&[1; 4096])?;
    }
    file.sync_all()?;
    std::fs::remove_file(path)?;
    Ok(file)
}
