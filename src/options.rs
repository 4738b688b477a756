//! Options: what may differ at each open.

use std::fmt;
use std::time::Duration;

/// When committed records become durable without being asked to.
///
/// Whatever the mode, [`Wal::wait_durable`](crate::Wal::wait_durable),
/// [`Wal::append_durable`](crate::Wal::append_durable) and [`Wal::sync`](crate::Wal::sync) make
/// durable what they are asked for, and every wait that is open at the same time shares one sync.
///
/// In [persistent memory](Persistence::PersistentMemory) they mean the same: nobody writes back
/// what nobody waits for, but for the flusher, at the interval or behind the producers. There it
/// costs so little to wait that `append_durable` is the way to make each record durable.
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

/// How what is synced reaches the medium.
///
/// The file is the same in either mode: it may be opened in one now and in the other next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Persistence {
    /// Persistent memory where the file system maps it (DAX, with `MAP_SYNC`) and the processor can
    /// write cache lines back, else the page cache.
    #[default]
    Auto,
    /// The file is mapped through the page cache, and synced by `msync`.
    PageCache,
    /// The file is mapped memory: what is synced is written back from the processor's caches line
    /// by line, without a system call. [`Wal::append_durable`](crate::Wal::append_durable) then
    /// takes a fraction of a microsecond, and whoever waits for durability sees to it itself.
    ///
    /// Asking for it is refused where the file system does not map persistent memory, since records
    /// would be acknowledged that are not on the disk. The exception is tmpfs, for tests and
    /// measurements: a log there survives whatever that memory survives, the death of the process
    /// but no loss of power, and *durable* promises no more than that.
    PersistentMemory,
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Persistence::Auto => "automatic",
            Persistence::PageCache => "page cache",
            Persistence::PersistentMemory => "persistent memory",
        })
    }
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
    pub(crate) persistence: Persistence,
    pub(crate) on_full: OnFull,
    pub(crate) hole_age_max: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults: [`Durability::OnDemand`], [`Persistence::Auto`], [`OnFull::Wait`], holes
    /// tolerated for 10 seconds.
    #[must_use]
    pub const fn new() -> Options {
        Options {
            durability: Durability::OnDemand,
            persistence: Persistence::Auto,
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

    /// How what is synced reaches the medium. Default: as the mapping allows. Which it has become,
    /// [`Wal::persistence`](crate::Wal::persistence) tells.
    #[must_use]
    pub const fn persistence(mut self, persistence: Persistence) -> Options {
        self.persistence = persistence;
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
