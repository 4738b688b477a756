//! The command line: every command, option, default and unit, as `--help` prints them.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::SystemTime;

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
    /// Look into the ring: its segments, one segment, one record byte by byte
    Inspect(InspectArgs),
    /// Watch a log that another process writes
    Top(TopArgs),
    /// List the consumers: where each stands, and how far behind
    Consumers(ConsumersArgs),
    /// List the streams: names, and what the log retains of each
    Streams(StreamsArgs),
    /// Release everything below a position of a log that nobody has open
    Trim(TrimArgs),
    /// Copy a log, also while it is written
    Backup(BackupArgs),
    /// Give a log that nobody has open a larger or a smaller ring
    Resize(ResizeArgs),
    /// Write records to standard output, for another log or another tool
    Export(ExportArgs),
    /// Append the records of an export
    Import(ImportArgs),
    /// Print the completions of this tool for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
    /// Verify every record of a log, and say exactly what is damaged
    Verify(VerifyArgs),
    /// Show what can be saved of a damaged log, and save it if told to
    Repair(RepairArgs),
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
With --stream-by the input is a table of comma-separated values. Its first row names the columns \
and is not kept. Each row after it, byte for byte as it stands in the input, is an entry of the \
stream that its value in the column names, without quotes; streams that the log does not have are \
created. A row whose value is empty belongs to no stream, and an empty line is no row. Fields may \
be quoted, and quoted ones may hold commas, quotes (doubled) and newlines. With one producer each \
stream has the order of the input; with several, only the rows of one block (about 128 KiB) of it \
are sure to keep theirs.\n\n\
Examples:\n  \
kaelix-wal ingest /var/lib/events app.log\n  \
zcat app.log.gz | kaelix-wal ingest /var/lib/events - --producers 4 --sync group\n  \
kaelix-wal ingest /var/lib/flights flights.csv --stream-by tailnum")]
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
    /// Make each row an entry of the stream that its value in this column names
    #[arg(long, value_name = "COLUMN")]
    pub stream_by: Option<String>,
    /// When appended records are made durable
    #[arg(long, value_enum, default_value_t = SyncPolicy::End)]
    pub sync: SyncPolicy,
    /// What happens when the ring is full
    #[arg(long, value_enum, default_value_t = FullPolicy::Fail)]
    pub on_full: FullPolicy,
    /// How what is synced reaches the medium
    #[arg(long, value_enum, default_value_t = PersistenceMode::Auto)]
    pub persistence: PersistenceMode,
    /// Protect the log's sealed segments by parity, so that `repair` can give damaged pages back
    #[arg(long)]
    pub parity: bool,
}

/// Which streams are shown.
#[derive(Debug, Args)]
pub struct SelectArgs {
    /// Only entries of the stream with this name; may be given several times
    #[arg(long = "stream", value_name = "NAME")]
    pub streams: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The log is read as it was when the command began, also while a writer is open. Records that the \
writer overwrites meanwhile are named in a warning on standard error.\n\n\
Without --json, a record's bytes are printed as they are, and a newline after them unless they \
end with one. With --json, each record is one object: {\"lsn\": 64, \"len\": 5, \"stream\": 0, \
\"text\": \"hello\"}; a payload that is not UTF-8 has a \"base64\" field in place of \"text\". \
The entries of a batch have the LSN of their record; \
\"stream\" is the stream's number, 0 for none.\n\n\
--since takes any position, such as the one at which an earlier run ended; what was released \
meanwhile is passed over in silence. --from takes the LSN of a record, and fails if there is none. \
With a time, --since misses nothing that was appended from then on, and begins earlier: records \
have no times, but the preparation of each segment has.\n\n\
Examples:\n  \
kaelix-wal cat /var/lib/flights --stream N14228\n  \
kaelix-wal cat /var/lib/flights --stream N14228 --stream N24211 --since 4096 --json\n  \
kaelix-wal cat /var/lib/flights --since '2h 30m'")]
pub struct CatArgs {
    /// Directory of the log
    pub dir: PathBuf,
    #[command(flatten)]
    pub select: SelectArgs,
    /// Begin at the record with this LSN [default: the oldest record]
    #[arg(long, value_name = "LSN", value_parser = parse_lsn)]
    pub from: Option<Lsn>,
    /// Begin at the first record at or behind this LSN; or where nothing is missed since this time
    /// (in UTC, as 2026-01-31T12:00:00Z; or how long ago, as 90s or '2h 30m')
    #[arg(long, value_name = "LSN|TIME", value_parser = parse_since, conflicts_with = "from")]
    pub since: Option<Since>,
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
kaelix-wal tail /var/lib/events --follow --json | jq .text\n  \
kaelix-wal tail /var/lib/flights --stream N14228 --follow")]
pub struct TailArgs {
    /// Directory of the log
    pub dir: PathBuf,
    #[command(flatten)]
    pub select: SelectArgs,
    /// Go on with the records that are appended from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with the newest N records, or those of them that hold entries of the streams
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
    /// Protect the log's sealed segments by parity, so that `repair` can give damaged pages back
    #[arg(long)]
    pub parity: bool,
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
Positions round the ring, rates, how long it takes until what is committed is proven durable (by \
evidence in the log, so never less than it took, and no finer than the interval), open claims and \
how long each has been seen, and how far behind the consumers are, by what they have written. The \
writer does not notice. q, Esc and Ctrl-C quit.\n\n\
Examples:\n  \
kaelix-wal top /var/lib/events\n  \
kaelix-wal top /var/lib/events --once --interval 5")]
pub struct TopArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Seconds between two looks, from 0.05 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    pub interval: f64,
    /// Look twice, print one frame as text, and end
    #[arg(long)]
    pub once: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without an option, a map of the ring and a line for each segment in use. A segment is shown as it \
lies in the file, retained or not: how much of it is what, and each gap, a place where no record \
counts. A record, or a gap, is shown in hexadecimal, with the name of each field as in the format \
page and what it says.\n\n\
The log may be open in another process. Nothing is repaired or judged here; what damage means, and \
what was acknowledged, an open of the log decides.\n\n\
Examples:\n  \
kaelix-wal inspect /var/lib/events\n  \
kaelix-wal inspect /var/lib/events --segment 12 --records\n  \
kaelix-wal inspect /var/lib/events --record 4096")]
pub struct InspectArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Show the segment with this sequence number
    #[arg(long, value_name = "SEQUENCE")]
    pub segment: Option<u32>,
    /// List every record of the segment, the log's own too
    #[arg(long, requires = "segment")]
    pub records: bool,
    /// Show the record, or the gap, that starts at this LSN
    #[arg(long, value_name = "LSN", value_parser = parse_lsn, conflicts_with = "segment")]
    pub record: Option<Lsn>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A consumer is a named position that a program keeps with the log: everything below its LSN has \
been processed. What is listed is what is written; the program may be further by about a second. \
The lag is the distance to the end of the log, in bytes of it. A position that a recovery has cut \
off says where: the program has to reset it.\n\n\
With --json, the list is an array of objects: {\"name\": \"billing\", \"epoch\": 3, \"lsn\": 4096, \
\"lag_bytes\": 512, \"cut_epoch\": null, \"cut_lsn\": null}.")]
pub struct ConsumersArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// A JSON array of objects
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
All streams are listed in the order of their numbers, also those of which nothing is retained. \
The first and the last LSN are those of the oldest and the newest record that hold entries of the \
stream. Entries that belong to no stream come first, as number 0; a stream that the log's catalog \
does not have is shown by its number alone. The whole log is walked, also while a writer is \
open.\n\n\
The lag of a stream is the number of its entries that the slowest consumer, or the given one, has \
not acknowledged yet; there is none where there are no consumers.\n\n\
With --json, the list is an array of objects: {\"id\": 1, \"name\": \"orders\", \
\"versioned\": false, \
\"entries\": 2, \"bytes\": 11, \"first_lsn\": 96, \"last_lsn\": 128, \"lag\": 1}. \"bytes\" are \
those of the payloads; \"name\", \"first_lsn\", \"last_lsn\" and \"lag\" may be null.\n\n\
Examples:\n  \
kaelix-wal streams /var/lib/flights\n  \
kaelix-wal streams /var/lib/flights --json | jq -r '.[] | select(.entries > 100) | .name'")]
pub struct StreamsArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Show the lag of this consumer [default: of the slowest]
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// A JSON array of objects
    #[arg(long)]
    pub json: bool,
}

/// How far a log is trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimTo {
    Lsn(Lsn),
    End,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The log is opened for that, and so recovered if it was not closed in order; while a program has it \
open, only that program can release anything, by a checkpoint. What is released can no longer be \
read; its bytes stay in the file until a writer needs the space.\n\n\
A position that a consumer has not reached is refused: it would lose what it has not read.\n\n\
Examples:\n  \
kaelix-wal trim /var/lib/events --to 4096\n  \
kaelix-wal trim /var/lib/events --to end")]
pub struct TrimArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Release all records below this LSN, where one begins or ends; `end` releases all of them
    #[arg(long, value_name = "LSN", value_parser = parse_trim_to)]
    pub to: TrimTo,
    /// Go past consumers that have not reached the position
    #[arg(long)]
    pub past_consumers: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The writer, if there is one, does not know of it. The copy holds all that was committed when the \
command began, and perhaps more, up to some record; streams and consumers come along. It is \
verified record by record, read back, and on the disk when the command ends, and opens as a log \
that was closed in order. Interrupted, it leaves no log, and can be run again.\n\n\
A backup is the same log, with the same identity: restore it in place of the log (copy its files \
back while nobody has either open), and do not write to both.\n\n\
A ring of which the writer overwrites the oldest records, faster than they can be copied, is tried \
five times.\n\n\
Example:\n  \
kaelix-wal backup /var/lib/events /mnt/backup/events-$(date +%F)")]
pub struct BackupArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Directory of the copy; made if it does not exist. A log that is there is refused
    pub to: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = format!("\
Records keep their LSNs, and streams and consumers stay as they are; the segment size is fixed for \
ever. The new ring is written beside the old one and takes its place when it is whole and on the \
disk, so there has to be room for both, and an interruption leaves the log as it was. What is \
retained has to fit: trim first, if it does not.\n\n{SIZES}"))]
pub struct ResizeArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// New capacity of the ring: a multiple of the log's segment size, at least 2 segments
    #[arg(long, value_name = "SIZE")]
    pub size: ByteSize,
}

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// JSON Lines: an object a record, payloads as text if they are UTF-8, else as base64
    Json,
    /// Frames with a length and a checksum; any bytes as they are
    Binary,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The log is read as it was when the command began, also while a writer is open. If that overwrites \
records before they were read, the command fails, and the export has no end.\n\n\
An export begins with the log's identity and ends with the number of its records. A record is one \
object: {\"lsn\": 64, \"epoch\": 1, \"stream\": \"orders\", \"text\": \"hello\"}; a batch has \
its entries in a list, {\"lsn\": 96, \"epoch\": 1, \"entries\": [{\"stream\": \"a\", \
\"text\": \"-10\"}, ...]}; \"versioned\" marks a stream under version control, \"producer\" and \
\"sequence\" an idempotent append. `import` reads either form.\n\n\
Examples:\n  \
kaelix-wal export /var/lib/events | kaelix-wal import /var/lib/copy\n  \
kaelix-wal export /var/lib/events --format binary | zstd > events.kx.zst\n  \
kaelix-wal export /var/lib/flights --stream N14228 | jq -r '.text // empty'")]
pub struct ExportArgs {
    /// Directory of the log
    pub dir: PathBuf,
    #[command(flatten)]
    pub select: SelectArgs,
    /// Begin at the record with this LSN [default: the oldest record]
    #[arg(long, value_name = "LSN", value_parser = parse_lsn)]
    pub from: Option<Lsn>,
    /// Begin at the first record at or behind this LSN
    #[arg(long, value_name = "LSN", value_parser = parse_lsn, conflicts_with = "from")]
    pub since: Option<Lsn>,
    /// The form that is written
    #[arg(long, value_enum, default_value_t = ExportFormat::Json)]
    pub format: ExportFormat,
}

#[derive(Debug, Args)]
#[command(after_help = format!("\
The form, JSON Lines or binary, is recognised. Batches stay batches, streams keep their names and \
are created if the log does not have them, and all is synced once at the end. JSON Lines may also \
be written by hand, without a first and a last line: {{\"stream\": \"orders\", \"text\": \
\"hello\"}}.\n\n\
With --once an import that broke off can simply be run again: each record is appended as the \
idempotent append of a producer that stands for the log and the epoch that it comes from, with its \
LSN as the sequence, and what the log still holds of it is not appended again. That costs 16 bytes \
a record. Records that were appended by a producer keep its number and \
sequence, with --once or without, and are never taken twice.\n\n\
An import that fails has appended the records before the one that it names.\n\n\
Examples:\n  \
kaelix-wal import /var/lib/copy events.jsonl\n  \
zstdcat events.kx.zst | kaelix-wal import /var/lib/copy --once --size 1GiB\n\n{SIZES}"))]
pub struct ImportArgs {
    /// Directory of the log; created if there is none
    pub dir: PathBuf,
    /// File to read, or - for standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    #[command(flatten)]
    pub geometry: GeometryArgs,
    /// Do not append what an earlier run with --once has appended
    #[arg(long)]
    pub once: bool,
    /// Overwrite the oldest records when the ring is full, instead of failing
    #[arg(long)]
    pub overwrite: bool,
    /// Protect the log's sealed segments by parity, so that `repair` can give damaged pages back
    #[arg(long)]
    pub parity: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:\n  \
kaelix-wal completions bash > /usr/share/bash-completion/completions/kaelix-wal")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
kaelix-wal man | man -l -\n  \
kaelix-wal man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for the tool and one for each command into this directory
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each place where no record verifies gets a verdict: never written (the log ends), torn in flight, \
open or abandoned claim, stale (of an earlier lap of the ring, or of an earlier epoch), salvaged \
gap, or corrupt: then what was there had been acknowledged as durable, and the finding names what \
proves it. The last finding is what the log ends with.\n\n\
The log is not changed, and may be open for writing meanwhile; what its writer releases is left \
out.\n\n\
Of acknowledged data that is damaged in a log with parity it says, page by page, what parity \
gives back.\n\n\
Exit status: 0 sound (all that was acknowledged verifies), 1 the log cannot be verified, 2 wrong \
usage, 3 an earlier salvage has left gaps, 4 corrupt.\n\n\
Examples:\n  \
kaelix-wal verify /var/lib/events\n  \
kaelix-wal verify /var/lib/events --json | jq '.findings[] | select(.verdict == \"corrupt\")'")]
pub struct VerifyArgs {
    /// Directory of the log
    pub dir: PathBuf,
    /// Threads that read [default: as many as the machine runs at the same time]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroU16>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without --apply nothing is changed: what would be kept and lost is shown. With it, the repair is \
made in a copy of the ring file, which is verified and then takes its place; if it is interrupted, \
the log is as it was. The damaged file is kept beside it as ring.damaged. There must be room for \
the copy.\n\n\
--truncate ends the log in front of the first damage: what is left is a prefix of what was \
written. --salvage keeps every record that verifies, and marks each gap: readers report it once, \
and go on behind it. What parity gives back is put back first, in either mode, and is not lost. \
--heal does that alone, and refuses if anything would be lost. A damaged superblock is computed \
from the checkpoint slots and the segment headers, if all of them agree; a file of the wrong \
length gets its length back.\n\n\
Examples:\n  \
kaelix-wal repair /var/lib/events --heal --apply\n  \
kaelix-wal repair /var/lib/events --salvage\n  \
kaelix-wal repair /var/lib/events --salvage --apply")]
pub struct RepairArgs {
    /// Directory of the log
    pub dir: PathBuf,
    #[command(flatten)]
    pub how: RepairMode,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    pub apply: bool,
    /// Change nothing: the default, in so many words
    #[arg(long)]
    pub dry_run: bool,
    /// Do not keep the damaged file
    #[arg(long, requires = "apply")]
    pub discard_original: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// One of the three.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RepairMode {
    /// End the log in front of the first damage
    #[arg(long)]
    pub truncate: bool,
    /// Keep every record that verifies, and mark the gaps
    #[arg(long)]
    pub salvage: bool,
    /// Put back what parity gives back, if that is all that is damaged; else change nothing
    #[arg(long)]
    pub heal: bool,
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

fn parse_trim_to(text: &str) -> Result<TrimTo, String> {
    if text == "end" { Ok(TrimTo::End) } else { parse_lsn(text).map(TrimTo::Lsn) }
}

/// Where `--since` begins.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    Lsn(Lsn),
    Time(SystemTime),
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(lsn) = parse_lsn(text) {
        return Ok(Since::Lsn(lsn));
    }
    let ago = || SystemTime::now().checked_sub(humantime::parse_duration(text).ok()?);
    let time = humantime::parse_rfc3339_weak(text).ok().or_else(ago);
    time.map(Since::Time).ok_or_else(|| {
        "neither an LSN (4096), nor a time in UTC (2026-01-31T12:00:00Z), nor how long ago (90s)"
            .to_owned()
    })
}

fn parse_interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "seconds are a number, such as 0.5".to_owned())?;
    if (0.05..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it is between 0.05 and 3600 seconds".to_owned())
    }
}

fn parse_lsn(text: &str) -> Result<Lsn, String> {
    let position: u64 =
        text.parse().map_err(|_| "an LSN is a decimal byte position, such as 4096".to_owned())?;
    Ok(Lsn::new(position))
}
