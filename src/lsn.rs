//! Log sequence numbers: byte positions in the endless log.

use std::fmt;
use std::num::ParseIntError;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// A log sequence number: a 64-bit byte position in the endless log.
///
/// It only grows, and it orders all records of a log. `LSN = segment sequence × segment size +
/// offset in the segment`. Positions above a cut that recovery made are used again by the next
/// epoch, so a position that leaves the process should travel together with the log's epoch.
///
/// # Example
///
/// ```
/// use kaelix_wal::Lsn;
///
/// let lsn: Lsn = "4096".parse()?;
/// assert_eq!(lsn, Lsn::new(4096));
/// assert!(lsn < Lsn::new(4112));
/// # Ok::<(), std::num::ParseIntError>(())
/// ```
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable,
)]
#[repr(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// The position before everything.
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN at byte position `position`.
    #[must_use]
    pub const fn new(position: u64) -> Lsn {
        Lsn(position)
    }

    /// The byte position.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A position that may leave the process: an LSN with the epoch in which it was taken.
///
/// A recovery that cuts the log gives the LSNs beyond the cut to other records. With the epoch, the
/// log can tell whether the position still means what it meant
/// ([`Wal::check_position`](crate::Wal::check_position)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EpochLsn {
    /// The incarnation of the log.
    pub epoch: u64,
    /// The position in it.
    pub lsn: Lsn,
}

impl fmt::Display for EpochLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LSN {} of epoch {}", self.lsn, self.epoch)
    }
}

impl Add<u64> for Lsn {
    type Output = Lsn;

    fn add(self, bytes: u64) -> Lsn {
        Lsn(self.0 + bytes)
    }
}

/// The distance in bytes between two positions; the left one is not below the right one.
impl Sub for Lsn {
    type Output = u64;

    fn sub(self, earlier: Lsn) -> u64 {
        self.0 - earlier.0
    }
}

impl From<u64> for Lsn {
    fn from(position: u64) -> Lsn {
        Lsn(position)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> u64 {
        lsn.0
    }
}

impl FromStr for Lsn {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Lsn, ParseIntError> {
        text.parse().map(Lsn)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.0)
    }
}
