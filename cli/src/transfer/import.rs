//! `import`: appends the records of an export, in its order.
//!
//! 1. What was appended is reported on success and on failure alike.
//! 2. A record that carries a producer's stamp is appended as that producer's, and so once.
//! 3. With `--once` every other record gets a stamp that stands for its place in the log that it
//!    comes from: the producer for log and epoch, the sequence for the LSN. Within an epoch LSNs
//!    only grow, as sequences must.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use indicatif::HumanCount;
use kaelix_wal::{
    AppendError, Appended, Entry, IdempotentProducer, Lsn, OnFull, Options, ProducerId, Stream,
    StreamId, Wal,
};

use super::binary::{BinaryDecoder, MAGIC};
use super::json::JsonDecoder;
use super::{Decode, Incoming, Item, LogId, StreamName};
use crate::args::ImportArgs;
use crate::display::{pairs, plural};
use crate::log::{open_or_create, protect};
use crate::sink::say;

const BUFFER_LEN: usize = 256 << 10;

pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    // The input comes first: a mistyped file name must not leave an empty log behind.
    let mut decoder = decoder(&args.file)?;
    let on_full = if args.overwrite { OnFull::Overwrite } else { OnFull::Fail };
    let options = Options::new().on_full(on_full).parity(args.parity);
    let wal = open_or_create(&args.dir, &args.geometry, options)?;
    let mut import = Import::new(&wal, args.once);
    let imported = import.read_all(&mut *decoder).with_context(|| {
        format!("the import ends at {} of the input, which is not in the log", decoder.place())
    });
    let tally = import.tally;
    let synced = wal.sync();
    let durable = wal.watermarks().durable;
    protect(&wal);
    let closed = wal.close();
    // Rule 1. Nobody listening is less of a failure than any below.
    let said = say(tally.text(durable));
    imported?;
    synced.context(
        "the records were appended, but not all of them could be made durable; look at the disk, \
         then open the log again: recovery says what it kept",
    )?;
    closed.context("the records were appended, but the log could not be closed in order")?;
    said
}

fn decoder(file: &Path) -> anyhow::Result<Box<dyn Decode>> {
    let context = || format!("cannot read {}", file.display());
    let mut input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::with_capacity(BUFFER_LEN, io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(BUFFER_LEN, File::open(file).with_context(context)?))
    };
    // No JSON begins with this letter.
    let is_binary = input.fill_buf().with_context(context)?.first() == Some(&MAGIC[0]);
    Ok(if is_binary {
        Box::new(BinaryDecoder::new(input))
    } else {
        Box::new(JsonDecoder::new(input))
    })
}

#[derive(Clone, Copy, Default)]
struct Tally {
    appended: u64,
    /// They were in the log already.
    known: u64,
    first: Option<Lsn>,
    last: Option<Lsn>,
}

impl Tally {
    fn count(&mut self, appended: Appended) {
        if appended.duplicate {
            self.known += 1;
            return;
        }
        self.appended += 1;
        self.first.get_or_insert(appended.lsn);
        self.last = Some(appended.lsn);
    }

    fn text(&self, durable: Lsn) -> String {
        let position = |lsn: Option<Lsn>| lsn.map_or("-".to_owned(), |lsn| lsn.to_string());
        pairs(&[
            ("appended", plural(self.appended, "record")),
            ("already there", HumanCount(self.known).to_string()),
            ("first LSN", position(self.first)),
            ("last LSN", position(self.last)),
            ("durable up to LSN", durable.to_string()),
        ])
    }
}

struct Import<'w> {
    wal: &'w Wal,
    once: bool,
    /// The log that the input says it is of.
    source: Option<LogId>,
    streams: BTreeMap<String, (Stream<'w>, bool)>,
    producers: BTreeMap<u64, IdempotentProducer<'w>>,
    tally: Tally,
}

impl<'w> Import<'w> {
    fn new(wal: &'w Wal, once: bool) -> Self {
        let (streams, producers) = (BTreeMap::new(), BTreeMap::new());
        Self { wal, once, source: None, streams, producers, tally: Tally::default() }
    }

    fn read_all(&mut self, decoder: &mut dyn Decode) -> anyhow::Result<()> {
        let mut records = 0;
        let mut ended = false;
        while let Some(item) = decoder.next()? {
            match item {
                Item::Start(log_id) => {
                    ensure!(self.source.is_none() && records == 0, "an export begins inside");
                    self.source = Some(log_id);
                }
                Item::Record(record) => {
                    ensure!(!ended, "the export has ended before");
                    self.append(&record)?;
                    records += 1;
                }
                Item::End { records: expected } => {
                    ensure!(
                        records == expected,
                        "the export had {expected} records, and {records} were read: some are \
                         missing"
                    );
                    ended = true;
                }
            }
        }
        ensure!(
            ended || self.source.is_none(),
            "the export breaks off: it was not written to its end; with --once, import it again \
             when it is whole"
        );
        Ok(())
    }

    fn append(&mut self, record: &Incoming) -> anyhow::Result<()> {
        let mut entries = Vec::with_capacity(record.entries.len());
        for entry in &record.entries {
            let stream = entry.stream.as_ref().map(|stream| self.stream(stream)).transpose()?;
            entries.push(Entry { stream, payload: &entry.payload });
        }
        let appended = match self.stamp(record)? {
            None if record.is_batch => self.wal.append_batch(entries).map(appended),
            None => match &record.entries[0].stream {
                Some(stream) => self.streams[&stream.name].0.append(entries[0].payload),
                None => self.wal.append(entries[0].payload),
            }
            .map(appended),
            Some((producer, sequence)) => {
                let producer = self.producer(producer)?;
                if record.is_batch {
                    producer.append_batch(sequence, entries)
                } else {
                    producer.append(sequence, entries[0])
                }
            }
        };
        match appended {
            Ok(appended) => self.tally.count(appended),
            Err(error @ AppendError::SequenceTooOld { .. }) => {
                return Err(anyhow::Error::new(error).context(
                    "this record is not in the log, and later ones of the same origin are or were: \
                     it was imported and released since, or left out of an earlier import; export \
                     what is missing with --since, and import that without --once",
                ));
            }
            Err(error) => return Err(error).context("cannot append the record"),
        }
        Ok(())
    }

    /// Rules 2 and 3.
    fn stamp(&self, record: &Incoming) -> anyhow::Result<Option<(u64, u64)>> {
        if record.stamp.is_some() || !self.once {
            return Ok(record.stamp);
        }
        let (Some(log_id), Some(origin)) = (self.source, record.origin) else {
            bail!(
                "--once needs an export with its first line and with \"lsn\" and \"epoch\" in its \
                 records: else nothing tells what was imported already"
            );
        };
        Ok(Some((stand_in(&log_id, origin.epoch), origin.lsn)))
    }

    fn producer(&mut self, id: u64) -> anyhow::Result<&IdempotentProducer<'w>> {
        if !self.producers.contains_key(&id) {
            let producer = self.wal.idempotent(ProducerId::new(id));
            let producer = producer.context("cannot read what the log holds of a producer")?;
            self.producers.insert(id, producer);
        }
        Ok(&self.producers[&id])
    }

    /// The stream's number in this log, which creates it if need be.
    fn stream(&mut self, stream: &StreamName) -> anyhow::Result<StreamId> {
        let StreamName { name, versioned } = stream;
        if let Some((opened, known)) = self.streams.get(name)
            && known == versioned
        {
            return Ok(opened.id());
        }
        let opened =
            if *versioned { self.wal.versioned_stream(name) } else { self.wal.stream(name) };
        let opened = opened.with_context(|| format!("cannot open the stream {name:?}"))?;
        let id = opened.id();
        self.streams.insert(name.clone(), (opened, *versioned));
        Ok(id)
    }
}

const fn appended(lsn: Lsn) -> Appended {
    Appended { lsn, duplicate: false }
}

/// The producer that stands for an epoch of a log: an FNV-1a digest, of which JSON readers that
/// keep numbers as doubles lose nothing.
fn stand_in(log_id: &LogId, epoch: u64) -> u64 {
    let bytes = log_id.iter().copied().chain(epoch.to_le_bytes());
    let digest = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    digest >> 12
}
