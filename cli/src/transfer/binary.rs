//! An export as frames of bytes: as small and as fast as it gets, any bytes as they are.
//!
//! All numbers are little-endian.
//!
//! ```text
//! start   "KAELIXEX"  version u32 (1)  zero u32  log id [16]
//! frame   length u32  crc u32  body [length]         crc: CRC-32 (zlib) of the body
//!
//! body    kind u8  flags u8  zero u16  number u32, and by kind:
//!   1     a stream, before its first entry: number is its id, flags bit 0: versioned; its name
//!   2     a record: number is how many entries it has, flags bit 0: stamped, bit 1: batch;
//!         epoch u64  lsn u64  [producer u64  sequence u64]
//!         and for each entry: stream id u32 (0: none)  length u32  payload [length]
//!   3     the end: records u64
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read, Write};

use anyhow::{Context, bail, ensure};

use super::{Decode, Encode, Incoming, IncomingEntry, Item, LogId, Origin, Outgoing, StreamName};

pub const MAGIC: &[u8; 8] = b"KAELIXEX";
const VERSION: u32 = 1;

const STREAM: u8 = 1;
const RECORD: u8 = 2;
const END: u8 = 3;

const VERSIONED: u8 = 1;
const STAMPED: u8 = 1;
const BATCH: u8 = 2;

pub struct BinaryEncoder<W> {
    out: W,
    body: Vec<u8>,
    /// The streams that the reader knows, by number.
    known: BTreeSet<u32>,
}

impl<W: Write> BinaryEncoder<W> {
    pub fn new(out: W) -> Self {
        Self { out, body: Vec::new(), known: BTreeSet::new() }
    }

    fn begin(&mut self, kind: u8, flags: u8, number: u32) {
        self.body.clear();
        self.body.extend_from_slice(&[kind, flags, 0, 0]);
        self.body.extend_from_slice(&number.to_le_bytes());
    }

    fn put(&mut self, number: u64) {
        self.body.extend_from_slice(&number.to_le_bytes());
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.body.len());
        let len = len.map_err(|_| io::Error::other("a record of 4 GiB or more"))?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&crc(&self.body).to_le_bytes())?;
        self.out.write_all(&self.body)
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut digest = flate2::Crc::new();
    digest.update(bytes);
    digest.sum()
}

impl<W: Write> Encode for BinaryEncoder<W> {
    fn start(&mut self, log_id: &LogId) -> io::Result<()> {
        self.out.write_all(MAGIC)?;
        self.out.write_all(&VERSION.to_le_bytes())?;
        self.out.write_all(&[0; 4])?;
        self.out.write_all(log_id)
    }

    fn record(&mut self, record: &Outgoing<'_>) -> io::Result<()> {
        for (id, stream) in record.entries.iter().filter_map(|entry| entry.stream) {
            if self.known.insert(id) {
                self.begin(STREAM, u8::from(stream.versioned) * VERSIONED, id);
                self.body.extend_from_slice(stream.name.as_bytes());
                self.write_frame()?;
            }
        }
        let stamped = u8::from(record.stamp.is_some()) * STAMPED;
        let batch = u8::from(record.is_batch) * BATCH;
        self.begin(RECORD, stamped | batch, record.entries.len() as u32);
        self.put(record.origin.epoch);
        self.put(record.origin.lsn);
        if let Some((producer, sequence)) = record.stamp {
            self.put(producer);
            self.put(sequence);
        }
        for entry in &record.entries {
            let id = entry.stream.map_or(0, |(id, _)| id);
            self.body.extend_from_slice(&id.to_le_bytes());
            self.body.extend_from_slice(&(entry.payload.len() as u32).to_le_bytes());
            self.body.extend_from_slice(entry.payload);
        }
        self.write_frame()
    }

    fn end(&mut self, records: u64) -> io::Result<()> {
        self.begin(END, 0, 0);
        self.put(records);
        self.write_frame()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub struct BinaryDecoder<R> {
    input: R,
    /// Bytes read.
    at: u64,
    started: bool,
    body: Vec<u8>,
    streams: BTreeMap<u32, StreamName>,
}

impl<R: BufRead> BinaryDecoder<R> {
    pub fn new(input: R) -> Self {
        Self { input, at: 0, started: false, body: Vec::new(), streams: BTreeMap::new() }
    }

    fn read<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).context("the input breaks off")?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn start(&mut self) -> anyhow::Result<Item> {
        ensure!(&self.read()? == MAGIC, "it is no export in binary form");
        let version = u32::from_le_bytes(self.read()?);
        ensure!(version == VERSION, "it is of version {version}; this build reads {VERSION}");
        let _: [u8; 4] = self.read()?;
        self.started = true;
        Ok(Item::Start(self.read()?))
    }

    /// Reads a frame into `body`. A length that is not true costs no memory beyond the input.
    fn frame(&mut self) -> anyhow::Result<()> {
        let len = u32::from_le_bytes(self.read()?);
        let expected = u32::from_le_bytes(self.read()?);
        self.body.clear();
        let read = self.input.by_ref().take(u64::from(len)).read_to_end(&mut self.body);
        let read = read.context("cannot read")?;
        self.at += read as u64;
        ensure!(read == len as usize, "the input breaks off");
        ensure!(crc(&self.body) == expected, "a checksum does not match: the input is damaged");
        Ok(())
    }

    fn item(&mut self) -> anyhow::Result<Option<Item>> {
        let mut rest = Rest(&self.body);
        let [kind, flags, _, _] = rest.array()?;
        let number = rest.number()?;
        match kind {
            STREAM => {
                let name = std::str::from_utf8(rest.0).context("a name is not UTF-8")?.to_owned();
                let versioned = flags & VERSIONED != 0;
                self.streams.insert(number, StreamName { name, versioned });
                Ok(None)
            }
            RECORD => {
                let origin = Origin { epoch: rest.long()?, lsn: rest.long()? };
                let stamped = flags & STAMPED != 0;
                let stamp = if stamped { Some((rest.long()?, rest.long()?)) } else { None };
                let mut entries = Vec::new();
                for _ in 0..number {
                    entries.push(rest.entry(&self.streams)?);
                }
                ensure!(rest.0.is_empty(), "a record is longer than its entries");
                let is_batch = flags & BATCH != 0;
                ensure!(is_batch || entries.len() == 1, "a record has {} entries", entries.len());
                let origin = Some(origin);
                Ok(Some(Item::Record(Incoming { origin, stamp, is_batch, entries })))
            }
            END => Ok(Some(Item::End { records: rest.long()? })),
            kind => bail!("a frame is of unknown kind {kind}: use a newer build"),
        }
    }
}

/// What is left of a frame.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().context("a frame is too short")?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> anyhow::Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn long(&mut self) -> anyhow::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn entry(&mut self, streams: &BTreeMap<u32, StreamName>) -> anyhow::Result<IncomingEntry> {
        let (id, len) = (self.number()?, self.number()? as usize);
        let stream = match id {
            0 => None,
            id => Some(streams.get(&id).context("an entry is of a stream without a name")?.clone()),
        };
        ensure!(len <= self.0.len(), "a frame is too short");
        let (payload, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(IncomingEntry { stream, payload: payload.to_vec() })
    }
}

impl<R: BufRead> Decode for BinaryDecoder<R> {
    fn next(&mut self) -> anyhow::Result<Option<Item>> {
        if !self.started {
            return self.start().map(Some);
        }
        loop {
            if self.input.fill_buf().context("cannot read")?.is_empty() {
                return Ok(None);
            }
            self.frame()?;
            if let Some(item) = self.item()? {
                return Ok(Some(item));
            }
        }
    }

    fn place(&self) -> String {
        format!("byte {}", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::OutgoingEntry;

    fn sample() -> Vec<u8> {
        let mut encoder = BinaryEncoder::new(Vec::new());
        let stream = StreamName { name: "orders".to_owned(), versioned: true };
        encoder.start(&[7; 16]).unwrap();
        for lsn in [64, 128] {
            let entry = OutgoingEntry { stream: Some((3, &stream)), payload: b"\xff apples" };
            let plain = OutgoingEntry { stream: None, payload: b"" };
            let record = Outgoing {
                origin: Origin { epoch: 2, lsn },
                stamp: (lsn == 128).then_some((9, 1)),
                is_batch: true,
                entries: vec![entry, plain],
            };
            encoder.record(&record).unwrap();
        }
        encoder.end(2).unwrap();
        encoder.out
    }

    fn decode(bytes: &[u8]) -> anyhow::Result<Vec<Item>> {
        let mut decoder = BinaryDecoder::new(bytes);
        std::iter::from_fn(|| decoder.next().transpose()).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let items = decode(&sample()).unwrap();
        assert_eq!(items.len(), 4);
        assert_eq!(items[0], Item::Start([7; 16]));
        assert_eq!(items[3], Item::End { records: 2 });
        let stream = Some(StreamName { name: "orders".to_owned(), versioned: true });
        let entries = vec![
            IncomingEntry { stream, payload: b"\xff apples".to_vec() },
            IncomingEntry { stream: None, payload: Vec::new() },
        ];
        let origin = Some(Origin { epoch: 2, lsn: 128 });
        let record = Incoming { origin, stamp: Some((9, 1)), is_batch: true, entries };
        assert_eq!(items[2], Item::Record(record));
    }

    #[test]
    fn no_damaged_byte_goes_unnoticed_behind_the_start() {
        let sample = sample();
        let good = decode(&sample).unwrap();
        for at in 32..sample.len() {
            let mut bad = sample.clone();
            bad[at] ^= 0x11;
            assert!(decode(&bad).is_err(), "byte {at}");
        }
        // Cut anywhere, it is an error, or there is no end.
        for len in 0..sample.len() {
            let items = decode(&sample[..len]);
            assert!(items.is_err() || items.unwrap().len() < good.len(), "{len} bytes");
        }
    }
}
