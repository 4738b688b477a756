//! The command-line tool of Kaelix WAL: create a log, fill it, read it from another process, run
//! it as a durable pipe, look inside it, and watch it survive a kill.
//!
//! Contract, for every command:
//!
//! 1. What a command produces goes to standard output; warnings, errors and the progress bar go
//!    to standard error.
//! 2. The exit status is 0 for success, 1 for an operation that failed, 2 for wrong usage.
//! 3. An error names what failed and where, and says what to do about it.
//! 4. `cat`, `tail` and `stat` never write to the log and take no lock: a writer may be open.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool answers on its standard streams"
)]

mod args;
mod cat;
mod create;
mod demo;
mod display;
mod ingest;
mod log;
mod pipe;
mod sink;
mod stat;
mod tail;
mod walk;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Create(args) => create::run(args),
        Command::Ingest(args) => ingest::run(args),
        Command::Cat(args) => cat::run(args),
        Command::Tail(args) => tail::run(args),
        Command::Pipe(args) => pipe::run(args),
        Command::Stat(args) => stat::run(args),
        Command::Demo(args) => demo::run(args),
        Command::DemoWriter(args) => demo::writer::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if sink::is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error and the chain of its causes. A cause whose words its parent repeats already is
/// left out, because saying a thing twice hides the advice.
fn report(error: &anyhow::Error) {
    let mut said = error.to_string();
    eprintln!("error: {said}");
    for cause in error.chain().skip(1) {
        let words = cause.to_string();
        if !said.contains(&words) {
            eprintln!("  caused by: {words}");
            said = words;
        }
    }
}
