//! Walking a part of one segment: for the log's own look-ups.

use std::ops::ControlFlow;
use std::time::Duration;

use super::record::{self, Record};
use super::{damaged, enter, is_committed};
use crate::error::ReadError;
use crate::layout::record::{WordState, aligned_len};
use crate::lsn::Lsn;
use crate::ring::{PINS_MAX, PinRefusal, Ring};
use crate::sync::{self, Backoff};

/// Between two looks at a claim whose owner is about to write its first word.
const NAP: Duration = Duration::from_micros(50);

/// Shows `each` the callers' records of `[from, to)`, a part of one segment in which a record
/// starts at `from`, verified and in order, until it has seen enough.
///
/// Everything below `to` was claimed before the call, and need not be committed: reservations that
/// are open are passed over. A claim whose owner has not marked it yet is waited for, at most for
/// `patience`.
pub(crate) fn walk(
    ring: &Ring,
    (from, to): (Lsn, Lsn),
    patience: Duration,
    mut each: impl FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    // Not a reader's: readers cannot starve it, and the janitor knows that it goes soon.
    let pin = ring.pin(from, true).map_err(|refusal| match refusal {
        PinRefusal::Trimmed => ReadError::Trimmed { lsn: from, oldest: ring.trimmed() },
        PinRefusal::NoSlot => ReadError::TooManyPins { max: PINS_MAX },
    })?;
    let mut entered = enter(ring, &pin, ring.geometry().sequence(from))?;
    let mut at = from;
    while at < to {
        let look = || record::state(ring, &pin, &entered, at);
        let mut state = look();
        if state == WordState::Zero {
            state = wait_for_mark(look, patience);
        }
        match state {
            // Damage, or committed since.
            WordState::Zero | WordState::Claimed(_) if is_committed(ring, &pin, &entered, at)? => {}
            WordState::Zero => return Err(ReadError::NotYet { lsn: at, end: ring.publish() }),
            WordState::Claimed(len) => {
                at = at + u64::from(aligned_len(len));
                continue;
            }
            WordState::Committed(_) | WordState::Impossible => {}
        }
        let located = record::locate(ring, &pin, &mut entered, at)
            .filter(|located| located.verified)
            .ok_or_else(|| damaged(ring, at))?;
        at = located.end();
        if located.tag.is_callers() && each(Record::new(ring, &pin, located)).is_break() {
            break;
        }
    }
    Ok(())
}

/// Looks again, at most for `patience`, until the word is not zero any more.
fn wait_for_mark(look: impl Fn() -> WordState, patience: Duration) -> WordState {
    let (backoff, since) = (Backoff::new(), sync::now());
    loop {
        let state = look();
        if state != WordState::Zero || sync::now() - since >= patience {
            return state;
        }
        if backoff.is_completed() {
            sync::park_timeout(NAP);
        } else {
            backoff.snooze();
        }
    }
}
