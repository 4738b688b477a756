//! Idempotent producers: an append that is tried again is recognised.
//!
//! 1. A producer has an id and numbers its appends; the numbers, its *sequences*, only grow. Both
//!    lie in the record, under its checksum (`layout::stamp`), so that a sequence is in the log if
//!    and only if its record is: nothing else has to be kept in step with the log, and no crash
//!    comes between the two.
//! 2. The contract is over the retained log. A sequence whose record is retained is never appended
//!    again, whatever happened in between; the retry gets the position of the first append. What a
//!    power loss has cut off is not retained, so a retry appends it.
//! 3. From the look at a producer's state to the commit of its record, the state is locked. So of
//!    two tries of one sequence one appends, and the other waits and gets its position. A try that
//!    fails or panics leaves the state as it was. Other producers are not affected, nor is anybody
//!    who appends without a sequence.
//! 4. All idempotent appends of this process go through the states. What earlier processes have
//!    appended is learned from the segments' footers, on first use (`history`).
//! 5. A state is dropped when nobody holds it and nothing of its producer is retained: memory is
//!    bounded by what is retained, and the answer would be the same after a restart.

mod history;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::error::{AppendError, ReadError};
use crate::layout::{Entry, Stamp};
use crate::lsn::Lsn;
use crate::producer_id::ProducerId;
use crate::reader;
use crate::ring::Ring;
use crate::stream::Parts;
use crate::sync::{Arc, Mutex, lock};

pub(crate) use history::Before;

use history::History;
use state::{State, Verdict};

/// States are looked through for some to drop when there are twice as many as were left last time,
/// and not before there are so many.
const STATES_MIN: usize = 64;

/// The states of all producers of a log.
pub(crate) struct Producers {
    before: Before,
    table: Mutex<Table>,
}

struct Table {
    /// There once somebody has asked for a producer.
    history: Option<History>,
    states: BTreeMap<ProducerId, Arc<Mutex<State>>>,
    /// So many states are not looked through.
    states_max: usize,
}

impl Producers {
    pub(crate) fn new(before: Before) -> Producers {
        let states = BTreeMap::new();
        let table = Mutex::new(Table { history: None, states, states_max: STATES_MIN });
        Producers { before, table }
    }

    /// What is known of `producer`.
    fn state(&self, ring: &Ring, producer: ProducerId) -> Result<Arc<Mutex<State>>, ReadError> {
        let mut table = lock(&self.table);
        let Table { history, states, states_max } = &mut *table;
        if let Some(state) = states.get(&producer) {
            return Ok(state.clone());
        }
        let oldest = ring.geometry().sequence(ring.trimmed());
        let history = match history {
            Some(history) => history,
            None => history.insert(History::read(ring, &self.before)?),
        };
        history.release(oldest);
        if states.len() >= *states_max {
            // Rule 5. Who holds none can only get one under our lock.
            states.retain(|_, state| {
                Arc::strong_count(state) > 1 || !lock(state).ends_before(oldest)
            });
            *states_max = STATES_MIN.max(2 * states.len());
        }
        let state = Arc::new(Mutex::new(State::new(history.stretches(producer))));
        states.insert(producer, state.clone());
        Ok(state)
    }

    /// How many states there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.table).states.len()
    }
}

/// Where an idempotent append is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The LSN of the record: of the first append of its sequence.
    pub lsn: Lsn,
    /// The sequence was in the log before this call, which has appended nothing.
    pub duplicate: bool,
}

/// Appends with sequence numbers, so that what is tried again is not appended again. See
/// [`Wal::idempotent`](crate::Wal::idempotent).
///
/// A sequence is any number that is higher than all that the producer has appended; gaps are
/// allowed. After a crash, or when an acknowledgement was lost, the same append is simply made
/// again with the same sequence: if its record is in the log, its position is returned.
///
/// Any number of threads may use one, or several of one id: of two that append the same sequence at
/// the same time, the second waits for the first. Threads that append different sequences of one
/// producer should agree on their order, since a lower one than the newest is refused.
///
/// # Example
///
/// ```
/// use kaelix_wal::{Geometry, Options, ProducerId, Wal};
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("log");
/// let wal = Wal::create(&dir, Geometry::new(1 << 20, 1 << 18)?, Options::new())?;
/// let first = wal.idempotent(ProducerId::new(7))?.append(1, b"debit 5")?;
/// assert!(!first.duplicate);
/// drop(wal);
///
/// // Was it appended before the crash? Just try again.
/// let wal = Wal::open(&dir, Options::new())?;
/// let producer = wal.idempotent(ProducerId::new(7))?;
/// let again = producer.append(1, b"debit 5")?;
/// assert!(again.duplicate && again.lsn == first.lsn);
/// assert_eq!(producer.last_sequence(), Some(1));
/// wal.wait_durable(again.lsn)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct IdempotentProducer<'w> {
    parts: Parts<'w>,
    id: ProducerId,
    state: Arc<Mutex<State>>,
}

impl<'w> IdempotentProducer<'w> {
    pub(crate) fn new(
        parts: Parts<'w>,
        producers: &Producers,
        id: ProducerId,
    ) -> Result<IdempotentProducer<'w>, ReadError> {
        let state = producers.state(parts.producer.ring(), id)?;
        Ok(IdempotentProducer { parts, id, state })
    }

    /// The producer's id.
    #[must_use]
    pub fn id(&self) -> ProducerId {
        self.id
    }

    /// The highest sequence that is in the log, or was appended by this process; `None` if none is.
    /// Waits for an append of this producer that is under way.
    #[must_use]
    pub fn last_sequence(&self) -> Option<u64> {
        lock(&self.state).newest()
    }

    /// Appends a record as `sequence` (bytes, or a stream and bytes) unless it is in the log. Waits
    /// for another append of this producer that is under way, however long that waits for space.
    ///
    /// Durability is a matter of its own, as with [`Wal::append`](crate::Wal::append): a duplicate
    /// is in the log, and may still have to be waited for.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append_batch`](crate::Wal::append_batch); the largest payload is 16 bytes
    /// shorter than there. [`AppendError::SequenceTooOld`] if the sequence is not retained, and
    /// newer ones were appended; [`AppendError::Lookup`] if that could not be found out. A
    /// duplicate is one in a full or closed log too.
    pub fn append<'e>(
        &self,
        sequence: u64,
        entry: impl Into<Entry<'e>>,
    ) -> Result<Appended, AppendError> {
        let Parts { producer, streams, .. } = self.parts;
        self.append_once(sequence, |stamp| streams.append_stamped(producer, stamp, entry.into()))
    }

    /// As [`append`](IdempotentProducer::append), of a batch: see
    /// [`Wal::append_batch`](crate::Wal::append_batch). It has one sequence as a whole. The
    /// iterator must not append with this producer.
    ///
    /// # Errors
    ///
    /// As `append`, and [`AppendError::EmptyBatch`].
    ///
    /// # Panics
    ///
    /// As [`Wal::append_batch`](crate::Wal::append_batch).
    pub fn append_batch<'e, I>(&self, sequence: u64, entries: I) -> Result<Appended, AppendError>
    where
        I: IntoIterator<IntoIter: Clone, Item: Into<Entry<'e>>>,
    {
        let entries = entries.into_iter().map(Into::into);
        let Parts { producer, streams, .. } = self.parts;
        let append = |stamp| streams.append_batch(producer, Some(stamp), entries);
        self.append_once(sequence, append)
    }

    /// Rule 3.
    fn append_once(
        &self,
        sequence: u64,
        append: impl FnOnce(Stamp) -> Result<Lsn, AppendError>,
    ) -> Result<Appended, AppendError> {
        let mut state = lock(&self.state);
        let known = match state.judge(sequence) {
            Verdict::New => {
                let lsn = append(Stamp { producer: self.id, sequence })?;
                let ring = self.parts.producer.ring();
                let geometry = ring.geometry();
                state.release(geometry.sequence(ring.trimmed()));
                state.appended(sequence, lsn, geometry.sequence(lsn));
                return Ok(Appended { lsn, duplicate: false });
            }
            Verdict::Retry(lsn) => Some(lsn),
            Verdict::LookIn(segment) => self.find(segment, sequence)?,
            Verdict::TooOld => None,
        };
        let Some(lsn) = known else {
            let newest = state.newest().unwrap_or(sequence);
            let oldest_retained = state.oldest();
            return Err(AppendError::SequenceTooOld {
                producer: self.id,
                sequence,
                newest,
                oldest_retained,
            });
        };
        state.found(sequence, lsn);
        Ok(Appended { lsn, duplicate: true })
    }

    /// Where `sequence` is in `segment`, if it is there and retained.
    fn find(&self, segment: u32, sequence: u64) -> Result<Option<Lsn>, AppendError> {
        let Parts { producer, .. } = self.parts;
        let (ring, patience) = (producer.ring(), producer.patience());
        match find(ring, segment, Stamp { producer: self.id, sequence }, patience) {
            Ok(found) => Ok(found),
            Err(source) => Err(AppendError::Lookup { sequence, source: Arc::new(source) }),
        }
    }
}

/// Where the record with `stamp` is in `segment`, if it is there and retained.
fn find(
    ring: &Ring,
    segment: u32,
    stamp: Stamp,
    patience: Duration,
) -> Result<Option<Lsn>, ReadError> {
    let geometry = ring.geometry();
    loop {
        let from = ring.trimmed().max(geometry.first_record(segment));
        let to = ring.reserved().min(geometry.lsn(segment, geometry.record_end()));
        if from >= to {
            return Ok(None);
        }
        let mut found = None;
        let walked = reader::walk_segment(ring, (from, to), patience, |record| {
            match record.stamp().filter(|met| met.producer == stamp.producer) {
                Some(met) if met.sequence == stamp.sequence => found = Some(record.lsn()),
                // It would have come before.
                Some(met) if met.sequence > stamp.sequence => {}
                _ => return ControlFlow::Continue(()),
            }
            ControlFlow::Break(())
        });
        match walked {
            // Since we looked; the next look knows.
            Err(ReadError::Trimmed { .. }) => {}
            walked => return walked.map(|()| found),
        }
    }
}

impl fmt::Debug for IdempotentProducer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentProducer").field("id", &self.id).finish_non_exhaustive()
    }
}
