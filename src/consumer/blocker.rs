//! What holds the tail: why the oldest segment is not recycled.

use std::fmt;
use std::time::Duration;

use super::register::Consumers;
use crate::lsn::{EpochLsn, Lsn};
use crate::options::{OnFull, Options, Retention};
use crate::ring::Ring;
use crate::segments::Janitor;

/// What keeps the oldest segment from being recycled. When several things do, the one without which
/// the others cannot go is named.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blocker {
    /// A reservation in or before the segment is open: nothing behind it is published.
    OpenReservation {
        /// Where it starts.
        lsn: Lsn,
        /// For how long it has been seen to hold others back.
        age: Duration,
    },
    /// Nobody has asked for it to be released: there is no checkpoint beyond it and, where
    /// consumers are to release, no consumer.
    Checkpoint,
    /// A consumer has not acknowledged it. Of several, the slowest.
    Consumer {
        /// Its name.
        name: String,
        /// Everything below has been processed.
        position: EpochLsn,
    },
    /// It is too young for the [`Retention`](crate::Retention), or one of the newest bytes.
    Retention,
    /// It has been released, and is not durable yet.
    NotDurable {
        /// Everything below is durable.
        durable: Lsn,
    },
    /// The newest records of streams under version control are in it, and their positions could not
    /// be put into the catalog (a full disk, for one).
    Versions {
        /// Why not.
        reason: String,
    },
    /// A reader, or a record that it gave away, stands in it.
    Reader {
        /// The lowest position that is held.
        lsn: Lsn,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocker::OpenReservation { lsn, age } => {
                write!(f, "the reservation at LSN {lsn} is open (for {age:?}): commit or drop it")
            }
            Blocker::Checkpoint => f.write_str("nobody has released it: checkpoint it"),
            Blocker::Consumer { name, position } => {
                write!(f, "consumer {name:?} stands at {position}: let it go on, or remove it")
            }
            Blocker::Retention => f.write_str("it is retained: it is too young"),
            Blocker::NotDurable { durable } => {
                write!(f, "it is not durable yet: all below LSN {durable} is")
            }
            Blocker::Versions { reason } => {
                write!(f, "the versions of streams could not be kept elsewhere: {reason}")
            }
            Blocker::Reader { lsn } => write!(f, "a reader holds LSN {lsn}: let it go on"),
        }
    }
}

/// What holds the oldest segment; `None` if nothing does, or if it is the one being written.
pub(crate) fn find(
    ring: &Ring,
    janitor: &Janitor,
    consumers: &Consumers,
    options: &Options,
) -> Option<Blocker> {
    ring.publish();
    let end = janitor.oldest_end();
    if ring.geometry().first_record(ring.active_sequence()) < end {
        return None;
    }
    if let Some((lsn, age)) = ring.hole()
        && lsn < end
    {
        return Some(Blocker::OpenReservation { lsn, age });
    }
    if ring.trimmed() < end {
        let asked = janitor.requested() >= end || options.on_full == OnFull::Overwrite;
        if !asked && let Some((name, position)) = consumers.holder(end) {
            return Some(Blocker::Consumer { name, position });
        }
        if !asked && consumers.retains(end) {
            return Some(match options.retention {
                Retention::Bytes(_) | Retention::Age(_) => Blocker::Retention,
                _ => Blocker::Checkpoint,
            });
        }
        if janitor.trim_bound() < end {
            return Some(Blocker::NotDurable { durable: janitor.trim_bound() });
        }
    }
    ring.readers_pin_floor().filter(|lsn| *lsn < end).map(|lsn| Blocker::Reader { lsn })
}
