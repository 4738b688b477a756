//! Options: what may differ at each open.

use std::time::Duration;

/// When committed records become durable without being asked to.
///
/// Whatever the mode, [`Wal::wait_durable`](crate::Wal::wait_durable),
/// [`Wal::append_durable`](crate::Wal::append_durable) and [`Wal::sync`](crate::Wal::sync) make
/// durable what they are asked for, and every wait that is open at the same time shares one sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// No promise: the kernel writes the pages when it likes. Committed records survive the death
    /// of the process, not the loss of power.
    None,
    /// Committed records are made durable at least this often while there are new ones.
    Interval(Duration),
    /// Records are made durable when someone waits for them, and a segment at a time behind the
    /// producers, so that a checkpoint can release space.
    #[default]
    OnDemand,
}

/// What a producer meets when the ring is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// It waits until a checkpoint has released space.
    #[default]
    Wait,
    /// It gets [`AppendError::Full`](crate::AppendError::Full).
    Fail,
    /// The oldest records make room (a flight recorder). What is not yet published, not yet
    /// durable (unless the log promises no durability) or pinned by a reader is never overwritten:
    /// the producer waits for it.
    Overwrite,
}

/// Longer times mean "never" and are cut to this: a year, which added to a clock does not overflow.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// `time`, or a year if that is shorter.
const fn at_most_a_year(time: Duration) -> Duration {
    if time.as_secs() >= TIME_MAX.as_secs() { TIME_MAX } else { time }
}

/// How a log is to be run, from this open to its close.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use kaelix_wal::{Durability, OnFull, Options};
///
/// let options = Options::new()
///     .durability(Durability::Interval(Duration::from_millis(5)))
///     .on_full(OnFull::Fail);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) on_full: OnFull,
    pub(crate) hole_age_max: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults: [`Durability::OnDemand`], [`OnFull::Wait`], holes tolerated for 10 seconds.
    #[must_use]
    pub const fn new() -> Options {
        Options {
            durability: Durability::OnDemand,
            on_full: OnFull::Wait,
            hole_age_max: Duration::from_secs(10),
        }
    }

    /// When committed records become durable without being asked to. Default: on demand.
    ///
    /// An interval below 100 µs counts as 100 µs, one above a year as a year.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Options {
        self.durability = match durability {
            Durability::Interval(interval) => Durability::Interval(at_most_a_year(interval)),
            other => other,
        };
        self
    }

    /// What a producer meets when the ring is full. Default: it waits.
    #[must_use]
    pub const fn on_full(mut self, on_full: OnFull) -> Options {
        self.on_full = on_full;
        self
    }

    /// How long a wait without a deadline (for durability, for space, for the close) tolerates one
    /// and the same open reservation in its way before it ends with `HeldBack`. Default: 10 s. More
    /// than a year counts as a year.
    #[must_use]
    pub const fn hole_age_max(mut self, age: Duration) -> Options {
        self.hole_age_max = at_most_a_year(age);
        self
    }
}
