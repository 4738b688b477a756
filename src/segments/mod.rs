//! The life of a segment: clean, active, sealed, durable, reclaimable, clean again.
//!
//! The producers seal a segment by going on to the next; a checkpoint makes it reclaimable; the
//! [`janitor`] prepares it for its next use, `segments` sequences later. Before anything below a
//! new `trimmed` is recycled, a checkpoint [slot](slots) says so on the medium. When all of a
//! segment is durable, its [`footer`] says what it holds.

pub(crate) mod faults;
pub(crate) mod footer;
pub(crate) mod janitor;
pub(crate) mod prepare;
pub(crate) mod slots;
pub(crate) mod steward;

pub(crate) use faults::FaultTaker;
pub(crate) use janitor::{BeforeTrim, Janitor};
pub(crate) use slots::SlotWriter;
pub(crate) use steward::{Nap, Steward};
