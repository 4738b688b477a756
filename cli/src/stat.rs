//! `stat`: what a log holds, who has it open, and what its last recovery found.

use anyhow::Context;
use kaelix_wal::inspect::{Observer, SegmentStat, SegmentState, Stat};
use serde::Serialize;

use crate::args::StatArgs;
use crate::display::{pairs, plural};
use crate::log::bytes;
use crate::sink::say;
use crate::walk;

/// Segments in a line of the map: with the number before it, a line fits any terminal.
const MAP_WIDTH: usize = 64;

pub fn run(args: &StatArgs) -> anyhow::Result<()> {
    let mut observer = Observer::open(&args.dir)
        .with_context(|| format!("cannot read the log in {}", args.dir.display()))?;
    let stat = walk::stat(&mut observer)?;
    if args.json {
        let json = serde_json::to_string_pretty(&JsonStat::from(&stat));
        say(json.context("cannot write JSON")?)
    } else {
        say(text(&stat))
    }
}

#[derive(Serialize)]
struct JsonStat {
    path: String,
    log_id: String,
    format_version: u32,
    segment_size: u64,
    segments: u32,
    capacity: u64,
    epoch: u64,
    epoch_start: u64,
    trimmed: u64,
    durable: u64,
    committed: u64,
    records: u64,
    payload_bytes: u64,
    clean_shutdown: bool,
    poisoned: bool,
    persistence: String,
    /// Process that has the log open for writing.
    writer: Option<u32>,
    segment_map: Vec<JsonSegment>,
    last_recovery: String,
}

#[derive(Serialize)]
struct JsonSegment {
    slot: u32,
    sequence: Option<u32>,
    state: String,
}

impl From<&Stat> for JsonStat {
    fn from(stat: &Stat) -> Self {
        let segment = |segment: &SegmentStat| JsonSegment {
            slot: segment.slot,
            sequence: segment.sequence,
            state: segment.state.to_string(),
        };
        Self {
            path: stat.path.display().to_string(),
            log_id: stat.log_id.clone(),
            format_version: stat.format_version,
            segment_size: stat.segment_size,
            segments: stat.segments,
            capacity: stat.capacity,
            epoch: stat.epoch,
            epoch_start: stat.epoch_start.get(),
            trimmed: stat.trimmed.get(),
            durable: stat.durable.get(),
            committed: stat.committed.get(),
            records: stat.records,
            payload_bytes: stat.payload_bytes,
            clean_shutdown: stat.clean_shutdown,
            poisoned: stat.poisoned,
            persistence: stat.persistence.to_string(),
            writer: stat.writer,
            segment_map: stat.segment_map.iter().map(segment).collect(),
            last_recovery: stat.last_recovery.to_string(),
        }
    }
}

fn text(stat: &Stat) -> String {
    let writer = match (stat.writer, stat.clean_shutdown) {
        (Some(process), _) => format!("open in process {process}"),
        (None, true) => "none; the last one closed the log in order".to_owned(),
        (None, false) => {
            "none; the last one did not close the log: the next open recovers it".to_owned()
        }
    };
    let held = stat.committed.get().saturating_sub(stat.trimmed.get());
    let used = 100.0 * held as f64 / stat.capacity as f64;
    let mut head = vec![
        ("log", stat.path.display().to_string()),
        ("log id", stat.log_id.clone()),
        ("format version", stat.format_version.to_string()),
        (
            "ring",
            format!(
                "{} in {} segments of {}",
                bytes(stat.capacity),
                stat.segments,
                bytes(stat.segment_size)
            ),
        ),
        ("persistence", stat.persistence.to_string()),
        ("writer", writer),
        ("epoch", format!("{}, from LSN {}", stat.epoch, stat.epoch_start)),
        (
            "holds",
            format!(
                "{} with {} of payload; {used:.1} % of the ring",
                plural(stat.records, "record"),
                bytes(stat.payload_bytes)
            ),
        ),
    ];
    if stat.poisoned {
        head.push((
            "poisoned",
            "a sync failed: look at the disk, then open the log again".to_owned(),
        ));
    }
    let watermark = |lsn: kaelix_wal::Lsn, meaning: &str| {
        // Without separators: an LSN is there to be pasted into --from.
        format!("{:>15}  {meaning}", lsn.get())
    };
    let watermarks = [
        ("trimmed", watermark(stat.trimmed, "below it, space was released")),
        ("durable", watermark(stat.durable, "below it, everything is proven to be on disk")),
        ("committed", watermark(stat.committed, "below it, every record is complete")),
    ];
    format!(
        "{}\n\nwatermarks (LSN)\n{}\n\nsegments\n{}\n\nlast recovery\n{}",
        pairs(&head),
        pairs(&watermarks),
        segment_map(&stat.segment_map),
        indent(&stat.last_recovery.to_string()),
    )
}

/// One character a segment, in slot order, and a legend of those that occur.
pub fn segment_map(segments: &[SegmentStat]) -> String {
    let mut map = String::new();
    for line in segments.chunks(MAP_WIDTH) {
        let symbols: String = line.iter().map(|segment| symbol(segment.state)).collect();
        map.push_str(&format!(" {:>7}  {symbols}\n", line[0].slot));
    }
    let mut legend: Vec<String> = Vec::new();
    for segment in segments {
        let entry = format!("{} {}", symbol(segment.state), segment.state);
        if !legend.contains(&entry) {
            legend.push(entry);
        }
    }
    map.push_str(&format!("          {}", legend.join("   ")));
    map
}

pub const fn symbol(state: SegmentState) -> char {
    match state {
        SegmentState::Unused => '_',
        SegmentState::Clean => '.',
        SegmentState::Active => '>',
        SegmentState::Sealed => '#',
        SegmentState::Reclaimable => '-',
        SegmentState::Recycling => '~',
        SegmentState::Unreadable => '!',
        // A state that this tool does not know yet is shown rather than hidden.
        _ => '?',
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!(" {line}")).collect::<Vec<_>>().join("\n")
}
