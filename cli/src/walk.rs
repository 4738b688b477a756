//! Walking a log from another process than its writer's: what may happen on the way, once.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use kaelix_wal::inspect::{Cursor, Observer, Stat};
use kaelix_wal::{Entry, Lsn, Position, ReadError, StreamId};

use crate::sink::Sink;

/// How often a writer that opens the log may get in the way of one look at it.
const LOOKS_MAX: usize = 100;

/// The log's state. A writer that begins a new epoch at that moment makes it look again.
pub fn stat(observer: &mut Observer) -> anyhow::Result<Stat> {
    let mut looks = 1;
    loop {
        match observer.stat() {
            Err(ReadError::Cut { .. }) if looks < LOOKS_MAX => looks += 1,
            result => return result.context("cannot read the state of the log"),
        }
    }
}

/// What to say to one who asks for a stream that is not there.
pub fn no_stream(name: &str) -> anyhow::Error {
    anyhow!("the log has no stream {name:?}; `kaelix-wal streams` lists those that it has")
}

/// The streams that are shown: all entries if there are none.
#[derive(Default)]
struct Selection(BTreeSet<StreamId>);

impl Selection {
    fn holds(&self, entry: &Entry<'_>) -> bool {
        self.0.is_empty() || entry.stream.is_some_and(|stream| self.0.contains(&stream))
    }
}

/// A cursor that goes on where the writer's doings allow it to.
pub struct Walk {
    observer: Observer,
    cursor: Cursor,
    selection: Selection,
    /// The last printed record.
    last: Option<Lsn>,
    last_payload: Vec<u8>,
}

impl Walk {
    /// Opens a log for reading, at its oldest record.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let observer = Observer::open(dir)
            .with_context(|| format!("cannot read the log in {}", dir.display()))?;
        let cursor = observer.cursor(Position::Oldest).context("cannot find the oldest record")?;
        let selection = Selection::default();
        Ok(Self { observer, cursor, selection, last: None, last_payload: Vec::new() })
    }

    /// Shows only the entries of the streams with these names, if there are any.
    pub fn select(&mut self, names: &[String]) -> anyhow::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let known = self.observer.stream_names().context("cannot read the names of the streams")?;
        for name in names {
            let stream = known.iter().find(|(_, known)| known == name);
            let (id, _) = stream.ok_or_else(|| no_stream(name))?;
            self.selection.0.insert(*id);
        }
        Ok(())
    }

    /// The end of the committed prefix, as of now.
    pub fn committed(&mut self) -> anyhow::Result<Lsn> {
        Ok(stat(&mut self.observer)?.committed)
    }

    pub fn position(&self) -> Lsn {
        self.cursor.position()
    }

    /// Moves to the record at `from`, or to the oldest.
    pub fn seek(&mut self, from: Option<Lsn>) -> anyhow::Result<()> {
        let position = from.map_or(Position::Oldest, Position::At);
        self.cursor = self.observer.cursor(position).context("cannot begin to read there")?;
        Ok(())
    }

    /// Moves to the first record at or behind `since`, or to the end if there is none yet.
    pub fn seek_since(&mut self, since: Lsn) -> anyhow::Result<()> {
        self.seek(None)?;
        let end = self.committed()?;
        while self.position() < since.min(end) {
            match self.cursor.next() {
                Ok(Some(record)) if record.lsn() < since => {}
                Ok(Some(record)) => {
                    let first = record.lsn();
                    return self.seek(Some(first));
                }
                Ok(None) => break,
                Err(ReadError::Gap { .. }) => {}
                Err(ReadError::Overwritten { .. } | ReadError::Cut { .. }) => self.seek(None)?,
                Err(error) => return Err(error).context("cannot find where to begin"),
            }
        }
        Ok(())
    }

    /// Moves to where no record lies before that was appended at `time` or later.
    pub fn seek_time(&mut self, time: SystemTime) -> anyhow::Result<()> {
        let position = self.observer.since(time).context("cannot find where to begin")?;
        match self.observer.cursor(position) {
            Ok(cursor) => self.cursor = cursor,
            // Released since.
            Err(ReadError::Trimmed { .. }) => self.seek(None)?,
            Err(error) => return Err(error).context("cannot begin to read there"),
        }
        Ok(())
    }

    /// Moves behind the last printed record, if it is still there, byte for byte. A recovery that
    /// cut nothing of what was printed (often only the log's own records) need not be mentioned.
    fn seek_behind_last(&mut self) -> bool {
        let Some(last) = self.last else { return false };
        let Ok(mut cursor) = self.observer.cursor(Position::At(last)) else { return false };
        let found = cursor.next();
        let same = matches!(found, Ok(Some(record))
            if record.lsn() == last && record.payload() == self.last_payload);
        if same {
            self.cursor = cursor;
        }
        same
    }

    /// Moves to the first of the newest `count` records that have something to show. Records can
    /// only be walked forwards, so all of them are: a core reads and verifies some gigabytes in a
    /// second.
    pub fn seek_newest(&mut self, count: usize) -> anyhow::Result<()> {
        self.seek(None)?;
        let end = self.committed()?;
        let mut starts: VecDeque<Lsn> = VecDeque::new();
        while self.position() < end {
            match self.cursor.next() {
                Ok(Some(record)) => {
                    if record.entries().any(|entry| self.selection.holds(&entry)) {
                        starts.push_back(record.lsn());
                    }
                }
                Ok(None) => break,
                Err(ReadError::Gap { .. }) => {}
                Err(ReadError::Overwritten { .. } | ReadError::Cut { .. }) => {
                    starts.clear();
                    self.seek(None)?;
                }
                Err(error) => return Err(error).context("cannot find the newest records"),
            }
            if starts.len() > count {
                starts.pop_front();
            }
        }
        // With nothing to begin with, the cursor stays where the next record will be.
        starts.front().map_or(Ok(()), |first| self.seek(Some(*first)))
    }

    /// Prints the next record. False at the end of what is committed for now.
    pub fn print_next(&mut self, sink: &mut Sink) -> anyhow::Result<bool> {
        let position = self.position();
        let error = match self.cursor.next() {
            Ok(Some(record)) => {
                self.last = Some(record.lsn());
                self.last_payload.clear();
                self.last_payload.extend_from_slice(record.payload());
                for entry in record.entries().filter(|entry| self.selection.holds(entry)) {
                    sink.entry(record.lsn(), entry)?;
                }
                return Ok(true);
            }
            Ok(None) => return Ok(false),
            Err(error) => error,
        };
        // What was read so far is good, so it is shown before any word about what follows.
        sink.flush()?;
        match error {
            ReadError::Gap { lsn, next } => eprintln!(
                "warning: what was at LSN {lsn} was damaged and is lost; going on behind the gap \
                 that a repair has left, at LSN {next}"
            ),
            ReadError::Cut { .. } if self.seek_behind_last() => {}
            ReadError::Overwritten { .. } | ReadError::Cut { .. } => {
                self.seek(None)?;
                let oldest = self.position();
                match error {
                    ReadError::Cut { at, .. } if oldest <= position => {
                        self.go_on_from_cut(at.max(oldest))?;
                    }
                    _ => eprintln!(
                        "warning: the writer overwrote the records from LSN {position} before \
                         they were read; going on from the oldest that is left, at LSN {oldest}"
                    ),
                }
            }
            error => {
                return Err(error)
                    .with_context(|| format!("cannot read the record at LSN {position}"));
            }
        }
        Ok(true)
    }

    /// Moves to the first record at or after `at`, which need not be the start of one.
    fn go_on_from_cut(&mut self, at: Lsn) -> anyhow::Result<()> {
        loop {
            let lsn = match self.cursor.next() {
                Ok(Some(record)) => record.lsn(),
                Ok(None) => break,
                Err(ReadError::Gap { .. }) => continue,
                Err(error) => return Err(error).context("cannot go on from there"),
            };
            if lsn >= at {
                self.seek(Some(lsn))?;
                break;
            }
        }
        if self.last.is_some_and(|last| last >= at) {
            eprintln!(
                "warning: a recovery cut the log at LSN {at}: what was printed from there on is \
                 gone, and its LSNs are used again; going on from there"
            );
        }
        Ok(())
    }
}
