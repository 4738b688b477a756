//! Tests of the whole log on a simulated disk: what a crash leaves, and what recovery makes of it.

mod consumers;
mod crash;
mod damage;
mod footers;
mod idempotent;
mod orders;
mod persistent;
mod races;
mod small_ring;
mod waits;

use std::path::Path;

use crate::layout::Checkpoint;
use crate::recovery::Head;
use crate::region::{Region, Simulated};
use crate::sync::Arc;
use crate::{OpenError, Options, Position, Reader, Wal, simulation};

pub(crate) use crate::simulation::{boot, new_image, tiny};

/// Opens the log on `disk` as a process of boot `number`, with its threads.
pub(crate) fn open(disk: &Arc<Simulated>, number: u8, options: Options) -> Result<Wal, OpenError> {
    let head = simulation::head(disk).expect("memory can be read");
    let region = Region::new(disk.clone());
    let wal =
        Wal::recover(region, &head, boot(number), options, None, Path::new("simulated"), None)?;
    wal.spawn_threads().expect("a thread can be started");
    Ok(wal)
}

/// The verified head of an image.
pub(crate) fn head_of(image: &[u8]) -> Head {
    simulation::head(&Simulated::new(image.to_vec())).expect("memory can be read")
}

/// The newest checkpoint on a disk image.
pub(crate) fn newest_checkpoint(image: &[u8]) -> Checkpoint {
    head_of(image).checkpoint
}

/// Everything that the log returns, in order.
pub(crate) fn contents(wal: &Wal) -> Vec<Vec<u8>> {
    contents_of(wal.reader(Position::Oldest).expect("the oldest can be read"))
}

/// Everything that a reader returns. What it stands on is pinned: a janitor that overwrites the
/// oldest does not change the answer.
pub(crate) fn contents_of(mut reader: Reader<'_>) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(record) = reader.next().expect("every record verifies") {
        records.push(record.payload().to_vec());
    }
    records
}

/// A process that is killed: no close, no clean mark.
pub(crate) fn kill(wal: Wal) {
    wal.die();
}

/// xorshift64*, for tests that print their seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }
}
