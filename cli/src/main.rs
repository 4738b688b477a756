//! The command-line tool of Kaelix WAL: create a log, fill it, read it from another process, run
//! it as a durable pipe, look inside it, and watch it survive a kill.
//!
//! Contract, for every command:
//!
//! 1. What a command produces goes to standard output; warnings, errors and the progress bar go
//!    to standard error.
//! 2. The exit status is 0 for success, 1 for an operation that failed, 2 for wrong usage. That of
//!    `verify` says more: see its help.
//! 3. An error names what failed and where, and says what to do about it.
//! 4. `cat`, `tail`, `stat`, `inspect`, `top`, `streams`, `consumers`, `export`, `backup` and
//!    `verify` never write to the log and take no lock of it: a writer may be open.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool answers on its standard streams"
)]

mod args;
mod backup;
mod cat;
mod consumers;
mod create;
mod demo;
mod display;
mod ingest;
mod inspect;
mod log;
mod manual;
mod pipe;
mod repair;
mod sink;
mod stat;
mod streams;
mod tail;
mod top;
mod transfer;
mod trim;
mod verify;
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
        Command::Inspect(args) => inspect::run(args),
        Command::Top(args) => top::run(args),
        Command::Consumers(args) => consumers::run(args),
        Command::Streams(args) => streams::run(args),
        Command::Trim(args) => trim::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Resize(args) => backup::resize(args),
        Command::Export(args) => transfer::export(args),
        Command::Import(args) => transfer::import(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Verify(args) => return exit(verify::run(args)),
        Command::Demo(args) => demo::run(args),
        Command::DemoWriter(args) => demo::writer::run(args),
    };
    exit(result.map(|()| ExitCode::SUCCESS))
}

fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(status) => status,
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
