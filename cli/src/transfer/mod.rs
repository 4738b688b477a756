//! `export` and `import`: records as a stream of bytes, between logs and to other tools.
//!
//! Contract:
//!
//! 1. An export is whole or is seen not to be: it begins with the log's identity and ends with the
//!    number of its records. An import of one that breaks off says so.
//! 2. A record stays what it is: the entries of a batch are together, in one record of the other
//!    log; streams keep their names and are under version control there if they are here; a
//!    producer's stamp is kept, and with it that no log takes one twice.
//! 3. LSNs are positions in one log, and are not kept. With its epoch, an LSN names a record for
//!    good, which is what `import --once` goes by.
//! 4. Both forms (`json`, `binary`) say the same. What is read is not believed before it is
//!    checked.

mod binary;
mod export;
mod import;
mod json;

use std::io;

pub use export::run as export;
pub use import::run as import;

/// The identity of the exported log.
pub type LogId = [u8; 16];

/// A stream, as the other log is to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamName {
    pub name: String,
    pub versioned: bool,
}

/// Where a record was in the log that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub epoch: u64,
    pub lsn: u64,
}

/// A record as it is written to an export.
pub struct Outgoing<'a> {
    pub origin: Origin,
    /// Producer and sequence.
    pub stamp: Option<(u64, u64)>,
    pub is_batch: bool,
    /// One, unless it is a batch.
    pub entries: Vec<OutgoingEntry<'a>>,
}

pub struct OutgoingEntry<'a> {
    /// By number and name.
    pub stream: Option<(u32, &'a StreamName)>,
    pub payload: &'a [u8],
}

/// A record as it is read from an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// None if it was written by hand.
    pub origin: Option<Origin>,
    pub stamp: Option<(u64, u64)>,
    pub is_batch: bool,
    pub entries: Vec<IncomingEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingEntry {
    pub stream: Option<StreamName>,
    pub payload: Vec<u8>,
}

/// What an export consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The log that it is of; first, if at all.
    Start(LogId),
    Record(Incoming),
    /// So many records came before; last, if there was a start.
    End {
        records: u64,
    },
}

/// Writes one form of an export.
pub trait Encode {
    fn start(&mut self, log_id: &LogId) -> io::Result<()>;
    fn record(&mut self, record: &Outgoing<'_>) -> io::Result<()>;
    fn end(&mut self, records: u64) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

/// Reads one form of an export.
pub trait Decode {
    /// The next item; `None` at the end of the input.
    fn next(&mut self) -> anyhow::Result<Option<Item>>;

    /// How far the input was read, in words: "line 7", "byte 4096".
    fn place(&self) -> String;
}
