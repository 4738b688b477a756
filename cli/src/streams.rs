//! `streams`: the names of a log's streams, and what is retained of each.

use anyhow::{Context, anyhow};
use indicatif::HumanCount;
use kaelix_wal::inspect::{Observer, StreamSummary};
use kaelix_wal::{Lsn, StreamId};
use serde::Serialize;

use crate::args::StreamsArgs;
use crate::display::figures;
use crate::log::bytes;
use crate::sink::say;

pub fn run(args: &StreamsArgs) -> anyhow::Result<()> {
    let context = || format!("cannot read the log in {}", args.dir.display());
    let observer = Observer::open(&args.dir).with_context(context)?;
    let streams = match &args.consumer {
        Some(name) => observer.streams_behind(position_of(&observer, name)?),
        None => observer.streams(),
    };
    let streams = streams.with_context(context)?;
    if args.json {
        let list: Vec<_> = streams.iter().map(JsonStream::from).collect();
        return say(serde_json::to_string_pretty(&list).context("cannot write JSON")?);
    }
    say(text(&streams))
}

/// Where the consumer of this name stands.
fn position_of(observer: &Observer, name: &str) -> anyhow::Result<Lsn> {
    let consumers = observer.consumers().context("cannot read the consumers' positions")?;
    let consumer = consumers.into_iter().find(|consumer| consumer.name == name);
    let consumer = consumer.ok_or_else(|| {
        anyhow!("the log has no consumer {name:?}; `kaelix-wal consumers` lists those that it has")
    })?;
    Ok(consumer.position.lsn)
}

#[derive(Serialize)]
struct JsonStream<'a> {
    id: u32,
    name: Option<&'a str>,
    versioned: bool,
    entries: u64,
    bytes: u64,
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    lag: Option<u64>,
}

impl<'a> From<&'a StreamSummary> for JsonStream<'a> {
    fn from(stream: &'a StreamSummary) -> Self {
        Self {
            id: number(stream),
            name: stream.name.as_deref(),
            versioned: stream.flags.is_versioned(),
            entries: stream.entries,
            bytes: stream.payload_bytes,
            first_lsn: stream.first_lsn.map(Lsn::get),
            last_lsn: stream.last_lsn.map(Lsn::get),
            lag: stream.lag,
        }
    }
}

fn text(streams: &[StreamSummary]) -> String {
    if streams.is_empty() {
        return "no streams, and no records".to_owned();
    }
    let position = |lsn: Option<Lsn>| lsn.map_or("-".to_owned(), |lsn| lsn.to_string());
    let row = |stream: &StreamSummary| {
        vec![
            number(stream).to_string(),
            HumanCount(stream.entries).to_string(),
            bytes(stream.payload_bytes),
            // Without separators: an LSN is there to be pasted into --from.
            position(stream.first_lsn),
            position(stream.last_lsn),
            stream.lag.map_or("-".to_owned(), |lag| HumanCount(lag).to_string()),
            name(stream),
        ]
    };
    let rows: Vec<_> = streams.iter().map(row).collect();
    figures(&["id", "entries", "payload", "first LSN", "last LSN", "lag", "name"], &rows, 0..6)
}

/// The stream's number; 0 for no stream.
fn number(stream: &StreamSummary) -> u32 {
    stream.id.map_or(0, StreamId::get)
}

/// What people see of the name.
fn name(stream: &StreamSummary) -> String {
    let mut text = match &stream.name {
        Some(name) => name.escape_debug().to_string(),
        None if stream.id.is_none() => "(no stream)".to_owned(),
        None => "(not in the catalog)".to_owned(),
    };
    if stream.flags.is_versioned() {
        text.push_str("  [versioned]");
    }
    text
}
