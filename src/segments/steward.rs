//! What the janitor asks of those above it who decide what is retained.
//!
//! The janitor recycles space; which records somebody still needs is known on a higher floor. So
//! whoever puts a log together hands it a [`Steward`]. A log whose space is released by explicit
//! checkpoints alone is asked nothing.

use std::time::Duration;

use crate::lsn::Lsn;

/// Decides what may be released without being asked to. All calls are off the append path.
pub(crate) trait Steward: Send + Sync {
    /// The janitor was rung: segments may have been sealed.
    fn observe(&self);

    /// Everything below may be released, once that has been [confirmed](Steward::confirm). Costs no
    /// I/O. If the answer lies below `wanted`, whoever changes that rings the janitor.
    fn releasable(&self, wanted: Lsn) -> Lsn;

    /// Everything below may be released now: what that rests on is on the medium, if that was
    /// needed to come up to `wanted`.
    fn confirm(&self, wanted: Lsn) -> Lsn;

    /// Does what is due, and says when to come back; `short`: the janitor waits for space.
    fn tend(&self, short: bool) -> Nap;
}

/// When a steward wants to be tended again, unless the janitor is rung before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nap {
    /// After this time.
    pub(crate) after: Option<Duration>,
    /// When `durable` has advanced.
    pub(crate) on_durable: bool,
}
