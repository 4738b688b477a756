//! The streams of a log, seen from outside: their names, and what is retained of each.
//!
//! 1. The log is walked first and the catalog read then. A stream is in the catalog before its
//!    first record, so each id that the walk meets has its name there, unless the catalog was lost;
//!    such an id is reported without a name.
//! 2. The catalog is opened to be read: nothing is locked, repaired or created.

use std::collections::BTreeMap;

use super::{Observer, read_again};
use crate::error::{CatalogError, ReadError};
use crate::layout::Entry;
use crate::lsn::Lsn;
use crate::reader::Position;
use crate::stream::Catalog;
use crate::stream_id::{StreamFlags, StreamId};

/// A stream as seen from outside: what it is, and what the log retains of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSummary {
    /// Its number; `None` for the entries that belong to no stream.
    pub id: Option<StreamId>,
    /// Its name; `None` if the catalog has none for this number.
    pub name: Option<String>,
    /// What it was created as.
    pub flags: StreamFlags,
    /// How many of its entries are retained.
    pub entries: u64,
    /// Their payload, in bytes.
    pub payload_bytes: u64,
    /// The record of the oldest of them.
    pub first_lsn: Option<Lsn>,
    /// The record of the newest of them.
    pub last_lsn: Option<Lsn>,
    /// How many of them a consumer has not acknowledged; of several consumers, the slowest. `None`
    /// if the log has no consumer.
    pub lag: Option<u64>,
}

impl StreamSummary {
    fn new(id: Option<StreamId>) -> StreamSummary {
        StreamSummary {
            id,
            name: None,
            flags: StreamFlags::NONE,
            entries: 0,
            payload_bytes: 0,
            first_lsn: None,
            last_lsn: None,
            lag: None,
        }
    }

    /// An entry, and whether nobody waits for it any more.
    fn count(&mut self, lsn: Lsn, entry: Entry<'_>, acknowledged: bool) {
        if let Some(lag) = &mut self.lag {
            *lag += u64::from(!acknowledged);
        }
        self.entries += 1;
        self.payload_bytes += entry.payload.len() as u64;
        self.first_lsn.get_or_insert(lsn);
        self.last_lsn = Some(lsn);
    }
}

/// Summaries by id; no stream comes first.
type Summaries = BTreeMap<Option<StreamId>, StreamSummary>;

impl Observer {
    /// The names of all streams that the log has at this moment, by id.
    ///
    /// # Errors
    ///
    /// The catalog cannot be read, or both of its files are damaged in one place.
    pub fn stream_names(&self) -> Result<Vec<(StreamId, String)>, CatalogError> {
        let catalog = self.catalog()?;
        Ok(catalog.iter().map(|(id, name, _)| (id, name.to_owned())).collect())
    }

    /// The streams that the log has at this moment, by id: number, name, and what each was created
    /// as. It reads the catalog alone.
    ///
    /// # Errors
    ///
    /// As [`stream_names`](Observer::stream_names).
    pub fn named_streams(&self) -> Result<Vec<(StreamId, String, StreamFlags)>, CatalogError> {
        let catalog = self.catalog()?;
        Ok(catalog.iter().map(|(id, name, flags)| (id, name.to_owned(), flags)).collect())
    }

    /// All streams and what is retained of each, by id: first, if there are any, the entries that
    /// belong to no stream. It walks what is retained. Streams without a retained entry are listed
    /// too.
    ///
    /// # Errors
    ///
    /// As [`stream_names`](Observer::stream_names), and [`CatalogError::Unread`] as for
    /// [`stat`](Observer::stat).
    ///
    /// # Example
    ///
    /// ```
    /// # use kaelix_wal::inspect::Observer;
    /// # use kaelix_wal::{Geometry, Options, Wal};
    /// # let dir = tempfile::tempdir()?;
    /// # let geometry = Geometry::new(1 << 20, 1 << 18)?;
    /// let wal = Wal::create(dir.path().join("log"), geometry, Options::new())?;
    /// let lsn = wal.stream("orders")?.append(b"apples")?;
    /// // Here or in another process, while the log is written:
    /// let streams = Observer::open(dir.path().join("log"))?.streams()?;
    /// assert_eq!(streams[0].name.as_deref(), Some("orders"));
    /// assert_eq!((streams[0].entries, streams[0].last_lsn), (1, Some(lsn)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn streams(&self) -> Result<Vec<StreamSummary>, CatalogError> {
        let consumers = self.consumers()?;
        self.summaries(consumers.iter().map(|consumer| consumer.position.lsn).min())
    }

    /// As [`streams`](Observer::streams), with the lag of whoever has processed everything below
    /// `position`.
    ///
    /// # Errors
    ///
    /// As for `streams`.
    pub fn streams_behind(&self, position: Lsn) -> Result<Vec<StreamSummary>, CatalogError> {
        self.summaries(Some(position))
    }

    fn summaries(&self, acknowledged: Option<Lsn>) -> Result<Vec<StreamSummary>, CatalogError> {
        // Rule 1.
        let mut summaries = read_again(|| self.summarize(acknowledged))?;
        for (id, name, flags) in self.catalog()?.iter() {
            let summary = summaries.entry(Some(id)).or_insert_with(|| StreamSummary::new(Some(id)));
            summary.name = Some(name.to_owned());
            summary.flags = flags;
        }
        let lag = acknowledged.map(|_| 0);
        Ok(summaries
            .into_values()
            .map(|summary| StreamSummary { lag: summary.lag.or(lag), ..summary })
            .collect())
    }

    fn catalog(&self) -> Result<Catalog, CatalogError> {
        Catalog::open(&self.dir, &self.head.log_id, false)
    }

    /// Walks what is retained.
    fn summarize(&self, acknowledged: Option<Lsn>) -> Result<Summaries, ReadError> {
        let mut cursor = self.cursor(Position::Oldest)?;
        let mut summaries = Summaries::new();
        while let Some(record) = cursor.next_behind_gaps()? {
            let is_acknowledged = acknowledged.is_some_and(|position| record.lsn() < position);
            for entry in record.entries() {
                let summary = summaries.entry(entry.stream).or_insert_with(|| {
                    let lag = acknowledged.map(|_| 0);
                    StreamSummary { lag, ..StreamSummary::new(entry.stream) }
                });
                summary.count(record.lsn(), entry, is_acknowledged);
            }
        }
        Ok(summaries)
    }
}
