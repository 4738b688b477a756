//! What a log tells whoever listens: `tracing` events, under the feature of that name.
//!
//! 1. All of it happens on slow paths: at an open and a close, in the janitor, after a sync.
//!    Nothing is told between a reserve and its commit, so that a listener, however slow, is
//!    waited for by background threads and by those who sync, and never by an append.
//! 2. The target is `kaelix_wal`. Errors are what ends this incarnation of the log, warnings what
//!    somebody should look at, and the rest is what an operator wants to find in a file later.
//! 3. Without the feature these functions are empty. It is off by default because a log needs no
//!    logger: most of those who link this library would build the facade for nothing, and what is
//!    told is also in what the calls return, and in `Wal::metrics`.

use std::fmt::Display;
use std::time::Duration;

use crate::lsn::Lsn;

/// What an open says of itself.
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nobody is told"))]
pub(crate) struct Opened<'a> {
    pub(crate) epoch: u64,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
    pub(crate) records: u64,
    /// Reservations that their owner abandoned, and records that verify beyond the cut: what the
    /// process before did not come to the end of.
    pub(crate) left_behind: u64,
    pub(crate) duration: Duration,
    /// In full.
    pub(crate) report: &'a dyn Display,
}

#[cfg(feature = "tracing")]
pub(crate) use told::{
    closed, opened, parity_failed, poisoned, refused, segment_not_protected, segment_prepared,
    slow_sync,
};
#[cfg(not(feature = "tracing"))]
pub(crate) use untold::{
    closed, opened, parity_failed, poisoned, refused, segment_not_protected, segment_prepared,
    slow_sync,
};

#[cfg(feature = "tracing")]
mod told {
    use std::fmt::Display;
    use std::path::Path;
    use std::time::Duration;

    use tracing::{debug, error, info, warn};

    use super::Opened;
    use crate::error::SyncFailure;
    use crate::lsn::Lsn;

    const TARGET: &str = "kaelix_wal";

    /// The log in `path` was recovered, and takes records.
    pub(crate) fn opened(path: &Path, opened: &Opened<'_>) {
        let Opened { epoch, start, end, records, left_behind, duration, report } = opened;
        let (path, micros) = (path.display(), duration.as_micros() as u64);
        if *left_behind > 0 {
            warn!(
                target: TARGET, %path, epoch, %start, %end, records, left_behind, micros,
                "recovered, without what was never completed: {report}"
            );
        } else {
            info!(target: TARGET, %path, epoch, %start, %end, records, micros, "opened: {report}");
        }
    }

    /// The log in `path` was refused.
    pub(crate) fn refused(path: &Path, error: &dyn Display) {
        error!(target: TARGET, path = %path.display(), "open refused: {error}");
    }

    /// A segment is ready for the producers, in the place of one that was released.
    pub(crate) fn segment_prepared(sequence: u32, trimmed: Lsn) {
        debug!(target: TARGET, sequence, %trimmed, "segment prepared");
    }

    /// A sync took longer than [`SLOW_SYNC`](crate::metrics::SLOW_SYNC).
    pub(crate) fn slow_sync(bytes: u64, elapsed: Duration) {
        warn!(target: TARGET, bytes, millis = elapsed.as_millis() as u64, "slow sync");
    }

    /// The parity file cannot be written; the log goes on without.
    pub(crate) fn parity_failed(error: &dyn Display) {
        warn!(
            target: TARGET,
            "no parity for now: {error}; it is tried again when the next segment is sealed"
        );
    }

    /// A sealed segment does not verify.
    pub(crate) fn segment_not_protected(sequence: u32) {
        warn!(
            target: TARGET, sequence,
            "no parity for a segment that does not verify: verify the log, it may be damaged"
        );
    }

    /// A sync failed: nothing more is accepted.
    pub(crate) fn poisoned(failure: &SyncFailure) {
        error!(target: TARGET, "poisoned: {failure}");
    }

    /// The log was closed; with an error, not in order.
    pub(crate) fn closed(end: Lsn, error: Option<&dyn Display>) {
        match error {
            Some(error) => error!(target: TARGET, %end, "{error}"),
            None => info!(target: TARGET, %end, "closed in order"),
        }
    }
}

/// Rule 3.
#[cfg(not(feature = "tracing"))]
mod untold {
    use std::fmt::Display;
    use std::path::Path;
    use std::time::Duration;

    use super::Opened;
    use crate::error::SyncFailure;
    use crate::lsn::Lsn;

    pub(crate) fn opened(_: &Path, _: &Opened<'_>) {}

    pub(crate) fn refused(_: &Path, _: &dyn Display) {}

    pub(crate) fn segment_prepared(_: u32, _: Lsn) {}

    pub(crate) fn slow_sync(_: u64, _: Duration) {}

    pub(crate) fn parity_failed(_: &dyn Display) {}

    pub(crate) fn segment_not_protected(_: u32) {}

    pub(crate) fn poisoned(_: &SyncFailure) {}

    pub(crate) fn closed(_: Lsn, _: Option<&dyn Display>) {}
}
