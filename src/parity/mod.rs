//! Parity: what gives a damaged page of a sealed segment back.
//!
//! 1. It lies in a file of its own beside the ring (`parity`), so that it can be switched on for a
//!    log that is there, and what damages the ring does not hit it. Nothing depends on it: a log
//!    goes on without, whatever befalls the file.
//! 2. A segment is protected once it is durable to its end and its footer says what it holds, and
//!    only after all of its records have been verified and add up to that: parity of damaged pages
//!    would keep the damage. The [`Keeper`] does it, in a thread of its own.
//! 3. What is protected is known by the footer. A table counts for a segment if it names the log,
//!    the place, and the epoch and the roll-up of the footer that the segment has now: what was
//!    there in an earlier lap, or before a recovery cut it off, does not come back.
//! 4. A damaged page is found by its checksum, and rebuilt from the others of its group if it is
//!    the only one there. It is believed if its checksum says so, and, once nothing else in the
//!    segment is damaged, if the segment verifies like one that was never damaged.
//! 5. Nothing here writes to the ring: [`heal`] hands the pages to a repair.

mod file;
mod heal;
mod keeper;

use std::fmt;

pub(crate) use file::ParityFile;
pub(crate) use heal::{Overlay, heal};
pub(crate) use keeper::Keeper;

/// What parity makes of a segment in which something is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentParity {
    /// The segment's sequence.
    pub segment: u32,
    /// The pages that it gives back: where each begins in the ring file, in bytes. A page is 4096
    /// bytes.
    pub rebuilt: Vec<u64>,
    /// The pages that are damaged, and that it does not give back.
    pub lost: Vec<u64>,
    /// Why it does not give back all that is damaged, if so.
    pub reason: Option<&'static str>,
}

impl fmt::Display for SegmentParity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SegmentParity { segment, rebuilt, lost, reason } = self;
        for (at, offset) in rebuilt.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(
                f,
                "{separator}the page at file offset {offset} of segment {segment} is rebuilt from \
                 parity; nothing of it is lost"
            )?;
        }
        let Some(reason) = reason else { return Ok(()) };
        let separator = if rebuilt.is_empty() { "" } else { "\n" };
        write!(f, "{separator}segment {segment} is not healed by parity: {reason}")?;
        if !lost.is_empty() {
            let pages: Vec<_> = lost.iter().map(u64::to_string).collect();
            write!(f, " (pages at file offset {})", pages.join(", "))?;
        }
        Ok(())
    }
}
