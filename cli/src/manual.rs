//! `completions` and `man`: what this tool can do, for shells and for readers of manuals, from the
//! same definitions as `--help`.

use std::io::{self, Write};

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::sink::{output_error, say};

pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    // Into memory first: the generator panics when nobody listens.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    io::stdout().write_all(&script).map_err(output_error)
}

pub fn run(args: &ManArgs) -> anyhow::Result<()> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).context("cannot make the manual page")?;
        return io::stdout().write_all(&page).map_err(output_error);
    };
    let context = || format!("cannot write manual pages to {}", dir.display());
    std::fs::create_dir_all(dir).with_context(context)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(context)?;
    say(format_args!("wrote the manual pages to {}: man -l {0}/kaelix-wal.1", dir.display()))
}
