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

/// What the log releases without a [`checkpoint`](crate::Wal::checkpoint).
///
/// A checkpoint counts in every mode: whoever calls it answers for it. What is released here goes
/// the same way: it becomes free when space is needed, a segment at a time, never beyond what is
/// durable, never under a reader's pin. In every mode but `Checkpoint`, nothing is released that a
/// [consumer](crate::Wal::consumer) has not acknowledged, durably. [`OnFull::Overwrite`] goes on to
/// overwrite the oldest records, whoever needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// Nothing: space comes from checkpoints alone. Consumers hold nothing back, and one that is
    /// too slow finds its position [trimmed](crate::ReadError::Trimmed).
    #[default]
    Checkpoint,
    /// What all consumers have acknowledged, up to the slowest. Nothing while there is none.
    Consumers,
    /// All but the newest so many bytes, headers included, rounded up to whole segments. A ring
    /// that is not larger than that by two segments is full before anything is released.
    Bytes(u64),
    /// Segments whose newest record is older than this, but never the one that is written to. A
    /// ring that is too small for what comes in that time is full meanwhile.
    Age(Duration),
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

/// How much of a log is read when it is opened.
///
/// Whatever is chosen, an open reads the checkpoint slots, the headers and footers of all segments
/// and every record that is not proven to be durable, and every record is verified again when it is
/// read. The whole of a log is verified by [`verify`](crate::verify) too, also while it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Sealed segments whose footers are whole are not read: such a footer was written once all of
    /// its segment was durable, so nothing that a crash can do is missed. An open takes
    /// milliseconds however large the log is. Where the medium has lost what it had acknowledged,
    /// whoever reads the record is told ([`ReadError::Damaged`](crate::ReadError::Damaged)).
    #[default]
    Lazy,
    /// Every retained record is verified, in as many threads as the machine runs at a time, and a
    /// log with damage in it is refused.
    Full,
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
    pub(crate) verify: Verify,
    pub(crate) on_full: OnFull,
    pub(crate) retention: Retention,
    pub(crate) hole_age_max: Duration,
    pub(crate) stream_index_bytes: usize,
    pub(crate) parity: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults: [`Durability::OnDemand`], [`Persistence::Auto`], [`Verify::Lazy`],
    /// [`OnFull::Wait`], [`Retention::Checkpoint`], holes tolerated for 10 seconds, 128 MiB for the
    /// index of streams, no parity.
    #[must_use]
    pub const fn new() -> Options {
        Options {
            durability: Durability::OnDemand,
            persistence: Persistence::Auto,
            verify: Verify::Lazy,
            on_full: OnFull::Wait,
            retention: Retention::Checkpoint,
            hole_age_max: Duration::from_secs(10),
            stream_index_bytes: 128 << 20,
            parity: false,
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

    /// How much of the log is read when it is opened. Default: what may not be durable.
    #[must_use]
    pub const fn verify(mut self, verify: Verify) -> Options {
        self.verify = verify;
        self
    }

    /// What a producer meets when the ring is full. Default: it waits.
    #[must_use]
    pub const fn on_full(mut self, on_full: OnFull) -> Options {
        self.on_full = on_full;
        self
    }

    /// What is released without a checkpoint. Default: nothing. An age above a year counts as a
    /// year.
    #[must_use]
    pub const fn retention(mut self, retention: Retention) -> Options {
        self.retention = match retention {
            Retention::Age(age) => Retention::Age(at_most_a_year(age)),
            other => other,
        };
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

    /// The memory for the index of streams, in bytes. Default: 128 MiB, enough for 16 million
    /// entries.
    ///
    /// The index takes 8 bytes for each retained entry of a stream, and none before a stream is
    /// first read. Where it would take more than this, it forgets the oldest entries, which are
    /// then found by a walk over the log. (It may exceed this by what it has gathered since it was
    /// last sorted: at most half a MiB.)
    #[must_use]
    pub const fn stream_index_bytes(mut self, bytes: usize) -> Options {
        self.stream_index_bytes = bytes;
        self
    }

    /// Protects sealed segments by parity, in the background: a [repair](crate::repair) then gives
    /// back a damaged page of 4096 bytes, of each 64. Default: no.
    ///
    /// It lies in a file `parity` in the log's directory and takes 1.7 % of the ring with segments
    /// of 16 MiB, more with small ones (one page of parity a segment at least). What is sealed and
    /// durable to its end is protected, the segments of a log that is there already as well, once
    /// they have been verified. (With [`Durability::None`] that is what somebody waits for, and the
    /// rest at the close.) Appends do not wait for it, and no error of that file stops the
    /// log: [`Wal::metrics`](crate::Wal::metrics) counts, and
    /// [`Wal::sync_parity`](crate::Wal::sync_parity) waits and tells. Without the option the file
    /// stays as it is; what it says still counts for the segments that it was made of.
    #[must_use]
    pub const fn parity(mut self, parity: bool) -> Options {
        self.parity = parity;
        self
    }
}
