//! Judges what the benchmarks have measured, and draws it; `scripts/run_benchmarks.sh` calls it.
//!
//! It is a program rather than a part of the benchmarks, or a script, because what decides about a
//! release needs tests of its own, and because a report must not depend on what it reports about:
//! files of earlier commits are read by the same program.

#![allow(clippy::print_stdout)]

mod compare;
mod info;
mod page;
mod rows;
mod stats;
mod targets;
mod text;
mod trend;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Judges and draws what the benchmarks of Kaelix WAL have measured.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A row for each target; exit status 1 if one is missed, 2 if one was not measured
    Validate {
        /// Files of results
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Judge by ratios to the floor alone
        #[arg(long)]
        ratios: bool,
    },
    /// What has become slower; exit status 1 if something has
    Compare {
        /// Results before
        #[arg(long, required = true)]
        old: Vec<PathBuf>,
        /// Results now
        #[arg(long, required = true)]
        new: Vec<PathBuf>,
        /// Every figure, not only those that have changed
        #[arg(long)]
        all: bool,
    },
    /// A page that shows everything
    Report {
        /// Files of results
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the page goes
        #[arg(long, default_value = "target/benchmarks/report.html")]
        out: PathBuf,
        /// Results to compare with
        #[arg(long)]
        baseline: Vec<PathBuf>,
        /// The folder of the trend
        #[arg(long, default_value = "docs/benchmarks")]
        trend: PathBuf,
        /// Where logs were made
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// Adds results to the trend
    Trend {
        /// Files of results
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The folder of the trend
        #[arg(long, default_value = "docs/benchmarks")]
        folder: PathBuf,
    },
    /// The machine, and what would spoil a measurement
    Info {
        /// Where logs are made
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Validate { files, ratios } => {
            let rows = rows::newest(read(&files)?);
            let targets = if ratios { targets::RATIOS } else { targets::TARGETS };
            let judged = validate::judge(targets, &rows);
            let cells: Vec<_> = judged.iter().map(validate::Judged::cells).collect();
            print!("{}", text::table(validate::HEADS, &cells));
            Ok(ExitCode::from(validate::exit_status(&judged)))
        }
        Command::Compare { old, new, all } => {
            let changes = compare::compare(&read(&old)?, &read(&new)?);
            anyhow::ensure!(!changes.is_empty(), "the files have no figure in common");
            let is_shown =
                |change: &&compare::Change| all || change.verdict != compare::Verdict::Same;
            let cells: Vec<_> =
                changes.iter().filter(is_shown).map(compare::Change::cells).collect();
            if !cells.is_empty() {
                print!("{}", text::table(compare::HEADS, &cells));
            }
            let of = |wanted| changes.iter().filter(|change| change.verdict == wanted).count();
            let slower = of(compare::Verdict::Slower);
            println!(
                "{} figures compared: {slower} slower, {} perhaps slower, {} faster",
                changes.len(),
                of(compare::Verdict::Perhaps),
                of(compare::Verdict::Faster)
            );
            Ok(ExitCode::from(u8::from(slower > 0)))
        }
        Command::Report { files, out, baseline, trend, dir } => {
            let all = read(&files)?;
            let changes = match baseline.is_empty() {
                true => Vec::new(),
                false => compare::compare(&read(&baseline)?, &all),
            };
            let page = page::html(&page::Contents {
                rows: &rows::newest(all),
                facts: &info::facts(&dir),
                changes: &changes,
                points: &trend::read(&trend)?,
            });
            std::fs::write(&out, page)?;
            println!("The report is {}.", out.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Trend { files, folder } => {
            trend::add(&folder, &rows::newest(read(&files)?))?;
            println!("Added to {}.", folder.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Info { dir } => {
            print!("{}", info::print(&info::facts(&dir)));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<rows::Row>> {
    let rows: Result<Vec<Vec<rows::Row>>, _> = files.iter().map(|file| rows::read(file)).collect();
    Ok(rows?.concat())
}
