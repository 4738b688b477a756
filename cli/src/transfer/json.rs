//! An export as JSON Lines: an object a line, for people and for other tools.
//!
//! ```text
//! {"kaelix_wal_export":1,"log_id":"00010203..."}
//! {"lsn":64,"epoch":1,"text":"of no stream"}
//! {"lsn":96,"epoch":1,"stream":"orders","versioned":true,"base64":"//79"}
//! {"lsn":160,"epoch":1,"entries":[{"stream":"a","text":"-10"},{"stream":"b","text":"+10"}]}
//! {"lsn":256,"epoch":1,"producer":7,"sequence":3,"text":"stamped"}
//! {"end":true,"records":4}
//! ```
//!
//! A payload is `text` if it is UTF-8, else `base64`. Lines of the same shape may be written by
//! hand, without the first and the last, and without `lsn` and `epoch`.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{
    Decode, Encode, Incoming, IncomingEntry, Item, LogId, Origin, Outgoing, OutgoingEntry,
    StreamName,
};

const VERSION: u32 = 1;

/// A line, of whatever kind.
#[derive(Serialize, Deserialize, Default)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kaelix_wal_export: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lsn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_false", default)]
    versioned: bool,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    entries: Option<Vec<LineEntry<'a>>>,
    #[serde(skip_serializing_if = "is_false", default)]
    end: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct LineEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_false", default)]
    versioned: bool,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

pub struct JsonEncoder<W>(pub W);

impl<W: Write> JsonEncoder<W> {
    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, line).map_err(io::Error::from)?;
        self.0.write_all(b"\n")
    }
}

impl<'a> From<&OutgoingEntry<'a>> for LineEntry<'a> {
    fn from(entry: &OutgoingEntry<'a>) -> Self {
        let text = std::str::from_utf8(entry.payload).ok();
        Self {
            stream: entry.stream.map(|(_, stream)| stream.name.as_str().into()),
            versioned: entry.stream.is_some_and(|(_, stream)| stream.versioned),
            text: text.map(Into::into),
            base64: text.is_none().then(|| STANDARD.encode(entry.payload)),
        }
    }
}

impl<W: Write> Encode for JsonEncoder<W> {
    fn start(&mut self, log_id: &LogId) -> io::Result<()> {
        let log_id = log_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (version, log_id) = (Some(VERSION), Some(log_id));
        self.line(&Line { kaelix_wal_export: version, log_id, ..Line::default() })
    }

    fn record(&mut self, record: &Outgoing<'_>) -> io::Result<()> {
        let Origin { epoch, lsn } = record.origin;
        let head = Line {
            lsn: Some(lsn),
            epoch: Some(epoch),
            producer: record.stamp.map(|(producer, _)| producer),
            sequence: record.stamp.map(|(_, sequence)| sequence),
            ..Line::default()
        };
        let mut entries = record.entries.iter().map(LineEntry::from);
        let line = if record.is_batch {
            Line { entries: Some(entries.collect()), ..head }
        } else {
            let entry = entries.next().expect("a record is an entry");
            let LineEntry { stream, versioned, text, base64 } = entry;
            Line { stream, versioned, text, base64, ..head }
        };
        self.line(&line)
    }

    fn end(&mut self, records: u64) -> io::Result<()> {
        self.line(&Line { end: true, records: Some(records), ..Line::default() })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

pub struct JsonDecoder<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> JsonDecoder<R> {
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0 }
    }
}

impl<R: BufRead> Decode for JsonDecoder<R> {
    fn next(&mut self) -> anyhow::Result<Option<Item>> {
        loop {
            self.line.clear();
            self.number += 1;
            let len = self.input.read_until(b'\n', &mut self.line).context("cannot read")?;
            if len == 0 {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let line: Line<'_> = serde_json::from_slice(&self.line).context(
            "it is not a record as `kaelix-wal export` writes it, one JSON object a line",
        )?;
        item(line).map(Some)
    }

    fn place(&self) -> String {
        format!("line {}", self.number)
    }
}

fn item(line: Line<'_>) -> anyhow::Result<Item> {
    if let Some(version) = line.kaelix_wal_export {
        ensure!(version == VERSION, "it is of version {version}; this build reads {VERSION}");
        let log_id = line.log_id.as_deref().and_then(parse_log_id);
        return Ok(Item::Start(log_id.context("\"log_id\" is not 32 hexadecimal digits")?));
    }
    if line.end {
        let records = line.records.context("\"records\" is missing")?;
        return Ok(Item::End { records });
    }
    let stamp = match (line.producer, line.sequence) {
        (Some(producer), Some(sequence)) => Some((producer, sequence)),
        (None, None) => None,
        _ => bail!("\"producer\" and \"sequence\" belong together"),
    };
    let origin = match (line.epoch, line.lsn) {
        (Some(epoch), Some(lsn)) => Some(Origin { epoch, lsn }),
        _ => None,
    };
    let is_batch = line.entries.is_some();
    let entries = match line.entries {
        Some(entries) => {
            ensure!(
                line.text.is_none() && line.base64.is_none() && line.stream.is_none(),
                "a record with \"entries\" has no payload and no stream of its own"
            );
            ensure!(!entries.is_empty(), "\"entries\" is empty");
            entries.into_iter().map(entry).collect::<Result<_, _>>()?
        }
        None => {
            let Line { stream, versioned, text, base64, .. } = line;
            vec![entry(LineEntry { stream, versioned, text, base64 })?]
        }
    };
    Ok(Item::Record(Incoming { origin, stamp, is_batch, entries }))
}

fn entry(entry: LineEntry<'_>) -> anyhow::Result<IncomingEntry> {
    let payload = match (entry.text, entry.base64) {
        (Some(text), None) => text.into_owned().into_bytes(),
        (None, Some(base64)) => STANDARD.decode(base64).context("\"base64\" is not base64")?,
        _ => bail!("a payload is either \"text\" or \"base64\""),
    };
    ensure!(entry.stream.is_some() || !entry.versioned, "\"versioned\" needs a \"stream\"");
    let versioned = entry.versioned;
    let stream = entry.stream.map(|name| StreamName { name: name.into_owned(), versioned });
    Ok(IncomingEntry { stream, payload })
}

fn parse_log_id(text: &str) -> Option<LogId> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> anyhow::Result<Vec<Item>> {
        let mut decoder = JsonDecoder::new(text.as_bytes());
        std::iter::from_fn(|| decoder.next().transpose()).collect()
    }

    #[test]
    fn a_line_that_was_written_by_hand_is_a_record() {
        let items = decode("{\"text\":\"hi\"}\n\n{\"stream\":\"s\",\"base64\":\"//8=\"}").unwrap();
        let record = |item| match item {
            Item::Record(record) => record,
            other => panic!("{other:?}"),
        };
        let records: Vec<Incoming> = items.into_iter().map(record).collect();
        assert_eq!(records[0].entries[0].payload, b"hi");
        assert_eq!(records[0].origin, None);
        let stream = StreamName { name: "s".to_owned(), versioned: false };
        assert_eq!(records[1].entries[0].stream, Some(stream));
        assert_eq!(records[1].entries[0].payload, [255, 255]);
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        for line in [
            "{}",
            "7",
            "{\"text\":\"a\",\"base64\":\"YQ==\"}",
            "{\"base64\":\"!\"}",
            "{\"entries\":[]}",
            "{\"entries\":[{\"text\":\"a\"}],\"text\":\"b\"}",
            "{\"text\":\"a\",\"producer\":1}",
            "{\"text\":\"a\",\"versioned\":true}",
            "{\"kaelix_wal_export\":2,\"log_id\":\"00\"}",
            "{\"kaelix_wal_export\":1,\"log_id\":\"+0000000000000000000000000000000\"}",
            "{\"end\":true}",
            "{\"text\":\"cut",
        ] {
            assert!(decode(line).is_err(), "{line}");
        }
    }
}
