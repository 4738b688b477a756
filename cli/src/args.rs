//! The command line: every command, option, default and unit, as `--help` prints them.

use std::num::NonZeroU16;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kaelix_wal::{Lsn, Persistence};

const SIZES: &str = "Sizes are bytes, or a number with a unit: 64KiB, 16MiB, 1GiB (powers of \
1024), 64kB, 16MB (powers of 1000).";

#[derive(Debug, Parser)]
#[command(
    name = "kaelix-wal",
    version,
    about = "A lock-free, memory-mapped ring-buffer write-ahead log",
    long_about = "A lock-free, memory-mapped ring-buffer write-ahead log.\n\nA log is a directory \
that holds one fixed-size ring file. Its records have LSNs: byte positions in an endless log, of \
which the ring keeps the newest part. One process at a time may write; any number may read.",
    after_help = "Exit status: 0 success, 1 the operation failed, 2 wrong usage.\n\n\
Examples:\n  \
kaelix-wal create /var/lib/events --size 1GiB\n  \
kaelix-wal ingest /var/lib/events app.log --producers 4\n  \
kaelix-wal tail /var/lib/events --follow --json\n  \
producer | kaelix-wal pipe /var/lib/events | consumer"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an empty log in a directory
    Create(CreateArgs),
    /// Append the lines of a file or of standard input, one record a line
    Ingest(IngestArgs),
    /// Print the records as lines, oldest first
    Cat(CatArgs),
    /// Print the newest records, and follow a log that is being written
    Tail(TailArgs),
    /// Pass standard input to standard output through the log: a pipe that survives a crash
    Pipe(PipeArgs),
    /// Show watermarks, the segment map, the writer and the last recovery
    Stat(StatArgs),
    /// Kill a writer in mid-flight, recover, and prove that nothing acknowledged was lost
    Demo(DemoArgs),
    /// The process that the demo kills
    #[command(hide = true)]
    DemoWriter(DemoWriterArgs),
}

#[derive(Debug, Args)]
pub struct GeometryArgs {
    /// Capacity of the ring: a multiple of the segment size, at least 2 segments [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ByteSize>,
    /// Size of a segment: a multiple of 4096 bytes, 64KiB to 1GiB [default: 16MiB]
    ///
    /// A record never straddles two segments, so this bounds the largest record too.
    #[arg(long, value_name = "SIZE")]
    pub segment_size: Option<ByteSize>,
}

/// How what is synced reaches the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PersistenceMode {
    /// Persistent memory if the file system maps it (DAX), else the page cache
    Auto,
    /// Sync the mapped pages
    PageCache,
    /// Write back cache lines, without a system call; refused unless the file system maps
    /// persistent memory, or is a tmpfs, where a log survives a crash of the process only
    Memory,
}

impl From<PersistenceMode> for Persistence {
    fn from(mode: PersistenceMode) -> Self {
        match mode {
            PersistenceMode::Auto => Self::Auto,
            PersistenceMode::PageCache => Self::PageCache,
            PersistenceMode::Memory => Self::PersistentMemory,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = SIZES)]
pub struct CreateArgs {
    /// Directory of the log; made if it does not exist. A log that is there is refused
    pub dir: PathBuf,
    #[command(flatten)]
    pub geometry: GeometryArgs,
}

/// When appended records are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncPolicy {
    /// Each record is durable before its producer appends the next
    Each,
    /// Each block of lines (about 128 KiB) is durable before its producer takes the next
    Group,
    /// One sync after the last record
    End,
    /// Never: a crash of the machine may lose everything, a crash of this process nothing
    None,
}

/// What happens when the ring has no room for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FullPolicy {
    /// Wait up to 5 s for space, then fail
    Wait,
    /// Stop at once, and say which input line did not fit
    Fail,
    /// Overwrite the oldest records, and report how much was displaced
    Overwrite,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A newline ends a record and is not part of it; a carriage return stays; an empty line is an empty \
record. A last line without a newline is a record too. With one producer the records have the \
order of the input; with several, each producer takes blocks of whole lines in input order and \
keeps the order within them.\n\n\
Nothing in this command releases space, so `--on-full wait` helps only against a ring that is \
being made ready at that moment.\n\n\
Examples:\n  \
kaelix-wal ingest /var/lib/events app.log\n  \
zcat app.log.gz | kaelix-wal ingest /var/lib/events - --producers 4 --sync group")]
pub struct IngestArgs {
    /// Directory of the log; created with the default geometry (256MiB in segments of 16MiB) if
    /// there is none
    pub dir: PathBuf,
    /// File to read, or - for standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Threads that append
    #[arg(long, value_name = "N", default_value = "1")]
    pub producers: NonZeroU16,
    /// When appended records are made durable
    #[arg(long, value_enum, default_value_t = SyncPolicy::End)]
    pub sync: SyncPolicy,
    /// What happens when the ring is full
    #[arg(long, value_enum, default_value_t = FullPolicy::Fail)]
    pub on_full: FullPolicy,
    /// How what is synced reaches the medium
    #[arg(long, value_enum, default_value_t = PersistenceMode::Auto)]
    pub persistence: PersistenceMode,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The log is read as it was when the command began, also while a writer is open. Records that the \
writer overwrites meanwhile are named in a warning on standard error.\n\n\
Without --json, a record's bytes are printed as they are, and a newline after them unless they \
end with one. With --json, each record is one object: {\"lsn\": 64, \"len\": 5, \"stream\": 0, \
\"text\": \"hello\"}; a payload that is not UTF-8 has a \"base64\" field in place of \"text\".")]
pub struct CatArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Begin at the record with this LSN [default: the oldest record]
    #[arg(long, value_name = "LSN", value_parser = parse_lsn)]
    pub from: Option<Lsn>,
    /// One JSON object a record
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
With --follow the command looks for new records every 1 ms, slowing down to every 50 ms while \
there are none, and ends when it is interrupted or its output is closed. If the writer overwrites \
records before they were read, a warning on standard error says so, and the command goes on from \
the oldest record that is left.\n\n\
Examples:\n  \
kaelix-wal tail /var/lib/events -n 100\n  \
kaelix-wal tail /var/lib/events --follow --json | jq .text")]
pub struct TailArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Go on with the records that are appended from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with the newest N records
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    pub lines: usize,
    /// Begin at the record with this LSN
    #[arg(long, value_name = "LSN", value_parser = parse_lsn, conflicts_with = "lines")]
    pub from: Option<Lsn>,
    /// One JSON object a record, as in cat
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = format!("\
Each line, with its newline, is a record, and is written to standard output once it is durable. \
Its space is released once the consumer has taken it out of the pipe, so memory and disk are \
bounded by the ring; a producer that is faster than the consumer waits. A line longer than the \
largest record, or than 256KiB, is split, and comes out whole.\n\n\
After a crash, the next run first delivers what was durable and not yet delivered; about the last \
50 ms of what the crashed run delivered may come a second time. To deliver only what is left, \
give it an empty input: kaelix-wal pipe DIR </dev/null\n\n\
If the consumer closes early, what it did not take stays in the log for the next run, and the \
exit status is 1.\n\n{SIZES}"))]
pub struct PipeArgs {
    /// Directory of the log; created if there is none
    pub dir: PathBuf,
    #[command(flatten)]
    pub geometry: GeometryArgs,
    /// How what is synced reaches the medium
    #[arg(long, value_enum, default_value_t = PersistenceMode::Auto)]
    pub persistence: PersistenceMode,
}

#[derive(Debug, Args)]
pub struct StatArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The log is made in the system's directory for temporary files. If that is in memory (tmpfs), the \
durable latencies are not those of a disk: use --keep with a directory on one.")]
pub struct DemoArgs {
    /// Threads that append in the process that is killed; half of them wait for durability
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(2..=64))]
    pub producers: u16,
    /// Make the log in this directory, and leave it there
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DemoWriterArgs {
    pub dir: PathBuf,
    #[arg(long)]
    pub producers: u16,
    #[arg(long)]
    pub events: u64,
    /// The first event from here on that producer 0 gets stays an open reservation
    #[arg(long)]
    pub hold_from: u64,
}

fn parse_lsn(text: &str) -> Result<Lsn, String> {
    let position: u64 =
        text.parse().map_err(|_| "an LSN is a decimal byte position, such as 4096".to_owned())?;
    Ok(Lsn::new(position))
}
