//! `export`: the records of a log, oldest first, while a writer may be at work.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufWriter;

use anyhow::{Context, bail};
use kaelix_wal::inspect::{Cursor, ObservedRecord, Observer};
use kaelix_wal::{Lsn, Position, ReadError, StreamId};

use super::binary::BinaryEncoder;
use super::json::JsonEncoder;
use super::{Encode, Origin, Outgoing, OutgoingEntry, StreamName};
use crate::args::{ExportArgs, ExportFormat};
use crate::sink::{output_error, stdout};
use crate::walk::{self, Walk};

const BUFFER_LEN: usize = 256 << 10;

pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let mut observer = Observer::open(&args.dir)
        .with_context(|| format!("cannot read the log in {}", args.dir.display()))?;
    let out = BufWriter::with_capacity(BUFFER_LEN, stdout()?);
    let mut encoder: Box<dyn Encode> = match args.format {
        ExportFormat::Json => Box::new(JsonEncoder(out)),
        ExportFormat::Binary => Box::new(BinaryEncoder::new(out)),
    };
    let mut streams = Streams::read(&observer, &args.select.streams)?;
    let end = walk::stat(&mut observer)?.committed;
    let from = match args.since {
        Some(since) => Some(first_behind(args, since)?),
        None => args.from,
    };
    encoder.start(&observer.log_id()).map_err(output_error)?;
    let mut cursor = begin(&observer, from)?;
    let mut records = 0;
    while cursor.position() < end {
        let position = cursor.position();
        let record = match cursor.next() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(ReadError::Gap { lsn, next }) => {
                eprintln!(
                    "warning: what was at LSN {lsn} was damaged and is lost; a repair has left a \
                     gap up to LSN {next}, which the export leaves out"
                );
                continue;
            }
            // Nothing is missing in front of the first.
            Err(ReadError::Overwritten { .. }) if records == 0 && from.is_none() => {
                cursor = begin(&observer, None)?;
                continue;
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "the export breaks off at LSN {position}, after {records} records, and has \
                         no end; if it was overtaken, export from a backup"
                    )
                });
            }
        };
        if streams.write(&observer, &record, &mut *encoder)? {
            records += 1;
        }
    }
    encoder.end(records).map_err(output_error)?;
    encoder.flush().map_err(output_error)
}

fn begin(observer: &Observer, from: Option<Lsn>) -> anyhow::Result<Cursor> {
    let position = from.map_or(Position::Oldest, Position::At);
    observer.cursor(position).context("cannot begin to read there")
}

fn first_behind(args: &ExportArgs, since: Lsn) -> anyhow::Result<Lsn> {
    let mut walk = Walk::open(&args.dir)?;
    walk.seek_since(since)?;
    Ok(walk.position())
}

/// The streams of the log, and which of them are exported.
struct Streams {
    known: BTreeMap<StreamId, StreamName>,
    /// All entries, if there are none.
    selected: BTreeSet<StreamId>,
}

impl Streams {
    fn read(observer: &Observer, names: &[String]) -> anyhow::Result<Self> {
        let mut streams = Self { known: BTreeMap::new(), selected: BTreeSet::new() };
        streams.learn(observer)?;
        for name in names {
            let found = streams.known.iter().find(|(_, stream)| stream.name == *name);
            let (id, _) = found.ok_or_else(|| walk::no_stream(name))?;
            streams.selected.insert(*id);
        }
        Ok(streams)
    }

    fn learn(&mut self, observer: &Observer) -> anyhow::Result<()> {
        let named = observer.named_streams().context("cannot read the names of the streams")?;
        self.known = named
            .into_iter()
            .map(|(id, name, flags)| (id, StreamName { name, versioned: flags.is_versioned() }))
            .collect();
        Ok(())
    }

    fn holds(&self, stream: Option<StreamId>) -> bool {
        self.selected.is_empty() || stream.is_some_and(|stream| self.selected.contains(&stream))
    }

    /// Writes what is selected of a record. False if that is nothing.
    fn write(
        &mut self,
        observer: &Observer,
        record: &ObservedRecord<'_>,
        encoder: &mut dyn Encode,
    ) -> anyhow::Result<bool> {
        // A stream is in the catalog before its first record; it may have been added meanwhile.
        let mut unknown = record.entries().filter_map(|entry| entry.stream);
        if unknown.any(|stream| !self.known.contains_key(&stream)) {
            self.learn(observer)?;
        }
        let selected = record.entries().filter(|entry| self.holds(entry.stream));
        let entries = selected.map(|entry| {
            let stream = match entry.stream {
                None => None,
                Some(id) => match self.known.get(&id) {
                    Some(stream) => Some((id.get(), stream)),
                    None => bail!(
                        "the record at LSN {} is of stream {id}, whose name the log has lost; put \
                         back `streams.a` and `streams.b`, which belong to it",
                        record.lsn()
                    ),
                },
            };
            Ok(OutgoingEntry { stream, payload: entry.payload })
        });
        let entries: Vec<_> = entries.collect::<anyhow::Result<_>>()?;
        if entries.is_empty() {
            return Ok(false);
        }
        let outgoing = Outgoing {
            origin: Origin { epoch: record.epoch(), lsn: record.lsn().get() },
            stamp: record.producer().map(|(producer, sequence)| (producer.get(), sequence)),
            is_batch: record.is_batch(),
            entries,
        };
        encoder.record(&outgoing).map_err(output_error)?;
        Ok(true)
    }
}
