//! `inspect`: the ring drawn as a map, one segment piece by piece, one record as annotated hex.

use std::ops::ControlFlow;

use anyhow::Context;
use indicatif::HumanCount;
use kaelix_wal::inspect::{
    Field, Observer, Piece, PieceKind, RecordImage, SegmentDetail, SegmentState, Stat,
};
use kaelix_wal::{Lsn, StreamId};

use crate::args::InspectArgs;
use crate::display::{figures, pairs, plural};
use crate::log::bytes;
use crate::sink::say;
use crate::stat::{segment_map, symbol};
use crate::walk;

/// Bytes in a line of hex.
const LINE_LEN: usize = 16;

pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let mut observer = Observer::open(&args.dir)
        .with_context(|| format!("cannot read the log in {}", args.dir.display()))?;
    if let Some(lsn) = args.record {
        let image = observer.record_image(lsn);
        return say(record(&image.with_context(|| format!("cannot show LSN {lsn}"))?));
    }
    if let Some(sequence) = args.segment {
        return segment(&observer, sequence, args.records);
    }
    let stat = walk::stat(&mut observer)?;
    say(map(&observer, &stat)?)
}

/// The whole ring: a character a segment, and a line for each that is in use.
fn map(observer: &Observer, stat: &Stat) -> anyhow::Result<String> {
    let mut rows = Vec::new();
    for place in &stat.segment_map {
        let Some(sequence) = place.sequence else { continue };
        if place.state == SegmentState::Clean {
            continue;
        }
        // One that is recycled at this moment is one less.
        let Ok(detail) = observer.segment(sequence, |_| ControlFlow::Break(())) else { continue };
        let footer = |figure: fn(&kaelix_wal::inspect::SegmentFooter) -> u64| {
            detail.footer.map_or("-".to_owned(), |footer| HumanCount(figure(&footer)).to_string())
        };
        rows.push(vec![
            symbol(place.state).to_string(),
            place.slot.to_string(),
            sequence.to_string(),
            detail.base.to_string(),
            detail.file_offset.to_string(),
            detail.epoch.to_string(),
            footer(|footer| footer.records),
            footer(|footer| footer.payload_bytes),
            marks(stat, detail.base),
        ]);
    }
    let header =
        ["", "slot", "sequence", "base LSN", "file offset", "epoch", "records", "payload", ""];
    Ok(format!(
        "segments of {}, one character each\n\n{}\n\n{}\n\nrecords and payload are those of the \
         footer, where there is one",
        bytes(stat.segment_size),
        segment_map(&stat.segment_map),
        figures(&header, &rows, 1..8)
    ))
}

/// The watermarks that stand in the segment at `base`.
fn marks(stat: &Stat, base: Lsn) -> String {
    let within = base..base + stat.segment_size;
    let marks = [
        ("trimmed", stat.trimmed),
        ("durable", stat.durable),
        ("committed", stat.committed),
        ("epoch start", stat.epoch_start),
    ];
    let here = marks.iter().filter(|(_, lsn)| within.contains(lsn));
    let here: Vec<_> = here.map(|(name, lsn)| format!("{name} {lsn}")).collect();
    here.join(", ")
}

fn segment(observer: &Observer, sequence: u32, records: bool) -> anyhow::Result<()> {
    let mut tally = [(0_u64, 0_u64); 12];
    let (mut rows, mut gaps) = (Vec::new(), Vec::new());
    let detail = observer.segment(sequence, |piece| {
        let (count, space) = &mut tally[piece.kind as usize];
        *count += 1;
        *space += u64::from(piece.space);
        if records {
            rows.push(row(&piece));
        } else if piece.kind.is_gap() {
            gaps.push(row(&piece));
        }
        ControlFlow::Continue(())
    });
    let detail = detail.with_context(|| format!("cannot show segment {sequence}"))?;
    let mut text = format!("{}\n\n{}", head(&detail), kinds(&tally));
    let header = ["LSN", "bytes", "epoch", "stream", "what"];
    if !rows.is_empty() {
        text.push_str(&format!("\n\n{}", figures(&header, &rows, 0..4)));
    } else if !gaps.is_empty() {
        text.push_str(&format!("\n\ngaps\n{}", figures(&header, &gaps, 0..4)));
    }
    say(text)
}

fn row(piece: &Piece) -> Vec<String> {
    let stream = piece.stream.map_or_else(String::new, |stream: StreamId| stream.to_string());
    let kind = match piece.proven {
        Some(proven) => format!("{}: LSN {proven}", piece.kind),
        None => piece.kind.to_string(),
    };
    let (lsn, space, epoch) = (piece.lsn, piece.space, piece.epoch);
    vec![lsn.to_string(), space.to_string(), epoch.to_string(), stream, kind]
}

fn head(detail: &SegmentDetail) -> String {
    let footer = match &detail.footer {
        None => "none: it is not known to be durable to its end".to_owned(),
        Some(footer) => format!(
            "of epoch {}: {} with {} of payload, LSN {} to {}, {}",
            footer.epoch,
            plural(footer.records, "record"),
            bytes(footer.payload_bytes),
            footer.first.unwrap_or(Lsn::ZERO),
            footer.last.unwrap_or(Lsn::ZERO),
            footer
                .producers
                .map_or("many producers".to_owned(), |count| plural(count.into(), "producer")),
        ),
    };
    pairs(&[
        ("segment", format!("{}, in ring slot {}", detail.sequence, detail.slot)),
        ("base LSN", detail.base.to_string()),
        ("file offset", detail.file_offset.to_string()),
        ("epoch", detail.epoch.to_string()),
        ("prepared", format!("{} ms since 1970", detail.prepared_unix_ms)),
        ("footer", footer),
        ("parity", if detail.is_protected { "it is protected" } else { "none" }.to_owned()),
    ])
}

fn kinds(tally: &[(u64, u64)]) -> String {
    use PieceKind::{
        BadChecksum, Batch, Claim, Data, EpochStart, Evidence, Gap, ImpossibleLength, Nothing,
        OtherControl, Pad, Stale,
    };
    let kinds = [
        Data,
        Batch,
        Pad,
        EpochStart,
        Evidence,
        Gap,
        OtherControl,
        Nothing,
        Claim,
        BadChecksum,
        ImpossibleLength,
        Stale,
    ];
    let rows: Vec<Vec<String>> = kinds
        .into_iter()
        .map(|kind| (kind, tally[kind as usize]))
        .filter(|(_, (count, _))| *count > 0)
        .map(|(kind, (count, space))| {
            vec![HumanCount(count).to_string(), HumanCount(space).to_string(), kind.to_string()]
        })
        .collect();
    figures(&["pieces", "bytes of log", "what"], &rows, 0..2)
}

/// A line for each field, or for each 16 bytes of one that is longer.
fn record(image: &RecordImage) -> String {
    let piece = &image.piece;
    let mut text = format!(
        "LSN {}: {}, {} bytes of log, at file offset {}\n",
        piece.lsn, piece.kind, piece.space, image.file_offset
    );
    for field in &image.fields {
        text.push('\n');
        text.push_str(&lines(image, field));
    }
    if (image.bytes.len() as u64) < u64::from(piece.space) {
        let rest = u64::from(piece.space) - image.bytes.len() as u64;
        text.push_str(&format!("\n          ... {} more", bytes(rest)));
    }
    text
}

fn lines(image: &RecordImage, field: &Field) -> String {
    let bytes = &image.bytes[field.offset..][..field.len];
    let mut lines = Vec::new();
    for (number, chunk) in bytes.chunks(LINE_LEN).enumerate() {
        let hex: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let at = field.offset + number * LINE_LEN;
        let words = match number {
            0 => format!("{}: {}", field.name, field.value),
            _ => String::new(),
        };
        let is_text = field.name.ends_with("payload");
        let text = if is_text { printable(chunk) } else { String::new() };
        let line = format!("{at:>8}  {:<47}  {text:<16}  {words}", hex.join(" "));
        lines.push(line.trim_end().trim_end_matches(':').to_owned());
    }
    lines.join("\n")
}

fn printable(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    };
    bytes.iter().map(shown).collect()
}
