//! `verify`: reads all of a log, and says what is wrong with it.

use std::process::ExitCode;

use anyhow::Context;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kaelix_wal::verify::{FileFinding, Finding, SegmentParity, Verdict, Verification, Verifier};
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::display::{figures, pairs, plural};
use crate::log::bytes;
use crate::sink::say;

/// Acknowledged data is missing where a salvage has marked it, or is damaged.
const SALVAGED: u8 = 3;
const CORRUPT: u8 = 4;

/// More findings than this are only counted, unless they are printed for a program.
const SHOWN_MAX: usize = 20;

pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let bar = progress_bar();
    let shown = bar.clone();
    let mut verifier = Verifier::new(&args.dir).on_progress(move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
    });
    if let Some(threads) = args.threads {
        verifier = verifier.threads(threads.get().into());
    }
    let found = verifier.run();
    bar.finish_and_clear();
    let found =
        found.with_context(|| format!("cannot verify the log in {}", args.dir.display()))?;
    if args.json {
        say(serde_json::to_string_pretty(&Json::from(&found)).context("cannot write JSON")?)?;
    } else {
        say(text(&found))?;
    }
    Ok(match found.verdict() {
        Verdict::Sound => ExitCode::SUCCESS,
        Verdict::Salvaged => ExitCode::from(SALVAGED),
        _ => ExitCode::from(CORRUPT),
    })
}

/// On standard error, if that is a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

fn text(found: &Verification) -> String {
    let ended = match (found.writer, found.clean_shutdown) {
        (Some(process), _) => format!("open in process {process}"),
        (None, true) => "closed in order".to_owned(),
        (None, false) => "not closed: the next open recovers it".to_owned(),
    };
    let verdict = match found.verdict() {
        Verdict::Sound => "sound: all that was acknowledged is there, and verifies",
        Verdict::Salvaged => "salvaged: some of what was acknowledged is gone, and marked as a gap",
        _ => "corrupt: acknowledged data is damaged",
    };
    let span = found.end.get().saturating_sub(found.start.get());
    let seconds = found.duration.as_secs_f64();
    let speed = bytes((span as f64 / seconds.max(1e-9)) as u64);
    let mut rows = vec![
        ("verdict", verdict.to_owned()),
        ("log", found.path.display().to_string()),
        ("writer", ended),
        (
            "verified",
            format!(
                "{} with {} of payload, LSN {} to {}",
                plural(found.records, "record"),
                bytes(found.payload_bytes),
                found.start,
                found.end
            ),
        ),
        ("durable", format!("below LSN {}: {} says so", found.durable, found.proof)),
        ("footers", format!("{} agree", plural(found.footed_segments, "segment"))),
        ("took", format!("{:.1?}, {speed}/s", found.duration)),
    ];
    if found.protected_segments > 0 {
        let protected = plural(found.protected_segments, "segment");
        rows.insert(rows.len() - 1, ("parity", format!("protects {protected}")));
    }
    let head = pairs(&rows);
    let mut text = format!("{head}\n\n{}{}", findings(&found.findings), parity(&found.parity));
    for file in &found.files {
        text.push_str(&format!("\n{file}"));
    }
    if found.verdict() == Verdict::Corrupt {
        text.push_str(match found.is_healable {
            true => "\n\nkaelix-wal repair --heal puts it back, and changes nothing at first",
            false => "\n\nkaelix-wal repair shows what can be saved, and changes nothing at first",
        });
    }
    text
}

/// What parity gives back, a line each.
pub fn parity(segments: &[SegmentParity]) -> String {
    segments.iter().map(|parity| format!("\n{parity}")).collect()
}

/// As a table, up to some number.
pub fn findings(all: &[Finding]) -> String {
    let rows: Vec<Vec<String>> = all.iter().take(SHOWN_MAX).map(row).collect();
    let header = ["verdict", "LSN", "segment", "file offset", "bytes", "beyond", "found"];
    let mut text = figures(&header, &rows, 1..6);
    if all.len() > SHOWN_MAX {
        let more = (all.len() - SHOWN_MAX) as u64;
        text.push_str(&format!("\nand {} more: --json has all", HumanCount(more)));
    }
    text
}

fn row(finding: &Finding) -> Vec<String> {
    let proof = finding.proof.map_or_else(String::new, |proof| format!("; {proof} proves it"));
    vec![
        finding.verdict.to_string(),
        finding.lsn.to_string(),
        finding.segment.to_string(),
        finding.file_offset.to_string(),
        finding.len_bytes().to_string(),
        plural(finding.records_beyond, "record"),
        format!("{}{proof}", finding.reason),
    ]
}

#[derive(Serialize)]
struct Json {
    verdict: String,
    path: String,
    writer: Option<u32>,
    clean_shutdown: bool,
    start: u64,
    end: u64,
    durable: u64,
    proof: String,
    records: u64,
    payload_bytes: u64,
    records_beyond: u64,
    footed_segments: u64,
    protected_segments: u64,
    is_healable: bool,
    findings: Vec<JsonFinding>,
    parity: Vec<JsonParity>,
    files: Vec<JsonFile>,
    seconds: f64,
}

#[derive(Serialize)]
pub struct JsonFinding {
    verdict: String,
    lsn: u64,
    end: u64,
    bytes: u64,
    segment: u32,
    file_offset: u64,
    reason: &'static str,
    proof: Option<String>,
    records_beyond: u64,
    payload_bytes_beyond: u64,
}

#[derive(Serialize)]
pub struct JsonParity {
    segment: u32,
    /// File offsets of pages.
    rebuilt: Vec<u64>,
    lost: Vec<u64>,
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct JsonFile {
    verdict: String,
    path: String,
    file_offset: u64,
    reason: String,
}

impl From<&Verification> for Json {
    fn from(found: &Verification) -> Self {
        Self {
            verdict: found.verdict().to_string(),
            path: found.path.display().to_string(),
            writer: found.writer,
            clean_shutdown: found.clean_shutdown,
            start: found.start.get(),
            end: found.end.get(),
            durable: found.durable.get(),
            proof: found.proof.to_string(),
            records: found.records,
            payload_bytes: found.payload_bytes,
            records_beyond: found.records_beyond(),
            footed_segments: found.footed_segments,
            protected_segments: found.protected_segments,
            is_healable: found.is_healable,
            findings: found.findings.iter().map(JsonFinding::from).collect(),
            parity: found.parity.iter().map(JsonParity::from).collect(),
            files: found.files.iter().map(JsonFile::from).collect(),
            seconds: found.duration.as_secs_f64(),
        }
    }
}

impl From<&Finding> for JsonFinding {
    fn from(finding: &Finding) -> Self {
        Self {
            verdict: finding.verdict.to_string(),
            lsn: finding.lsn.get(),
            end: finding.end.get(),
            bytes: finding.len_bytes(),
            segment: finding.segment,
            file_offset: finding.file_offset,
            reason: finding.reason,
            proof: finding.proof.map(|proof| proof.to_string()),
            records_beyond: finding.records_beyond,
            payload_bytes_beyond: finding.payload_bytes_beyond,
        }
    }
}

impl From<&SegmentParity> for JsonParity {
    fn from(parity: &SegmentParity) -> Self {
        let SegmentParity { segment, rebuilt, lost, reason, .. } = parity.clone();
        Self { segment, rebuilt, lost, reason }
    }
}

impl From<&FileFinding> for JsonFile {
    fn from(finding: &FileFinding) -> Self {
        Self {
            verdict: finding.verdict.to_string(),
            path: finding.path.display().to_string(),
            file_offset: finding.file_offset,
            reason: finding.reason.clone(),
        }
    }
}
