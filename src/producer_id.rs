//! Producer ids.

use std::fmt;

/// The number under which a producer appends, chosen by whoever runs it: the same for as long as it
/// is the same producer, over restarts too.
///
/// # Example
///
/// ```
/// use kaelix_wal::ProducerId;
///
/// assert_eq!(ProducerId::new(7).get(), 7);
/// assert_eq!(ProducerId::new(7).to_string(), "7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ProducerId(u64);

impl ProducerId {
    /// The producer of number `id`.
    #[must_use]
    pub const fn new(id: u64) -> ProducerId {
        ProducerId(id)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
