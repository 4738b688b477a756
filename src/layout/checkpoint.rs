//! Checkpoint slots: pages 1 and 2, written in turn, the newest valid one wins.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LogId;
use crate::checksum::crc32;
use crate::geometry::PAGE_SIZE;
use crate::lsn::Lsn;

const MAGIC: [u8; 8] = *b"KAELIXCP";
const FLAG_CLEAN: u32 = 1;
const FLAG_POISONED: u32 = 2;

/// File offsets of slots A and B: a page each.
pub(crate) const CHECKPOINT_SLOT_OFFSETS: [u64; 2] = [PAGE_SIZE, 2 * PAGE_SIZE];

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawCheckpoint {
    magic: [u8; 8],
    generation: U64,
    epoch: U64,
    epoch_start: U64,
    trimmed: U64,
    durable: U64,
    log_id: LogId,
    boot_id: [u8; 16],
    file_identity: U64,
    flags: U32,
    writer_pid: U32,
    written_unix_ms: U64,
    recovery: RawRecovery,
    reserved: [u8; 68],
    crc: U32,
}

/// What the last recovery found: for people, never for decisions.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawRecovery {
    outcome: U32,
    holes_padded: U32,
    records: U64,
    bytes: U64,
    start: U64,
    cut: U64,
    beyond_records: U64,
    beyond_bytes: U64,
    cut_bytes: U64,
    duration_nanos: U64,
    proven_durable: U64,
}

const_assert_eq!(size_of::<RawRecovery>(), 80);
const_assert_eq!(size_of::<RawCheckpoint>(), 256);
const_assert_eq!(offset_of!(RawCheckpoint, generation), 8);
const_assert_eq!(offset_of!(RawCheckpoint, epoch), 16);
const_assert_eq!(offset_of!(RawCheckpoint, epoch_start), 24);
const_assert_eq!(offset_of!(RawCheckpoint, trimmed), 32);
const_assert_eq!(offset_of!(RawCheckpoint, durable), 40);
const_assert_eq!(offset_of!(RawCheckpoint, log_id), 48);
const_assert_eq!(offset_of!(RawCheckpoint, boot_id), 64);
const_assert_eq!(offset_of!(RawCheckpoint, file_identity), 80);
const_assert_eq!(offset_of!(RawCheckpoint, flags), 88);
const_assert_eq!(offset_of!(RawCheckpoint, writer_pid), 92);
const_assert_eq!(offset_of!(RawCheckpoint, written_unix_ms), 96);
const_assert_eq!(offset_of!(RawCheckpoint, recovery), 104);
const_assert_eq!(offset_of!(RawCheckpoint, reserved), 184);
const_assert_eq!(offset_of!(RawCheckpoint, crc), 252);

/// The running system and the file that it runs on: whoever finds both unchanged shares the page
/// cache with the previous writer. A copied file has another identity, so a copy that was taken
/// while the log was written is never mistaken for the cache's own state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boot {
    /// The kernel's boot id; zero if the system has none.
    pub(crate) boot_id: [u8; 16],
    /// A digest of device, inode and time of birth.
    pub(crate) file_identity: u64,
}

impl Boot {
    /// Is it certain that both are the same boot and the same file?
    pub(crate) fn same_as(&self, other: &Boot) -> bool {
        self.boot_id != [0; 16] && self == other
    }
}

/// What the last recovery found, in numbers. All zero in a log that was never recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecoverySummary {
    pub(crate) outcome: u32,
    pub(crate) holes_padded: u32,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) start: Lsn,
    pub(crate) cut: Lsn,
    pub(crate) beyond_records: u64,
    pub(crate) beyond_bytes: u64,
    pub(crate) cut_bytes: u64,
    pub(crate) duration_nanos: u64,
    pub(crate) proven_durable: Lsn,
}

/// A verified checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// +1 at each write; the larger of two valid slots wins.
    pub(crate) generation: u64,
    /// The incarnation that wrote it, 0 before the first open.
    pub(crate) epoch: u64,
    /// Where that epoch began: from here on, only its records count.
    pub(crate) epoch_start: Lsn,
    /// Everything below may have been recycled.
    pub(crate) trimmed: Lsn,
    /// Everything below was synced.
    pub(crate) durable: Lsn,
    pub(crate) boot: Boot,
    /// The log was closed in order: nothing lies above `durable`.
    pub(crate) clean: bool,
    /// A sync failed: the page cache may show as clean what the disk does not have.
    pub(crate) poisoned: bool,
    pub(crate) writer_pid: u32,
    pub(crate) written_unix_ms: u64,
    pub(crate) recovery: RecoverySummary,
}

impl Checkpoint {
    /// The page to write.
    pub(crate) fn encode(&self, log_id: &LogId) -> Box<[u8]> {
        let flags = u32::from(self.clean) * FLAG_CLEAN + u32::from(self.poisoned) * FLAG_POISONED;
        let mut raw = RawCheckpoint {
            magic: MAGIC,
            generation: U64::new(self.generation),
            epoch: U64::new(self.epoch),
            epoch_start: U64::new(self.epoch_start.get()),
            trimmed: U64::new(self.trimmed.get()),
            durable: U64::new(self.durable.get()),
            log_id: *log_id,
            boot_id: self.boot.boot_id,
            file_identity: U64::new(self.boot.file_identity),
            flags: U32::new(flags),
            writer_pid: U32::new(self.writer_pid),
            written_unix_ms: U64::new(self.written_unix_ms),
            recovery: self.recovery.encode(),
            reserved: [0; 68],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(crc32(&raw.as_bytes()[..offset_of!(RawCheckpoint, crc)]));
        let mut page = vec![0; PAGE_SIZE as usize].into_boxed_slice();
        page[..size_of::<RawCheckpoint>()].copy_from_slice(raw.as_bytes());
        page
    }

    /// The log id of a slot whose checksum is right, for whoever has lost the superblock.
    pub(crate) fn log_id_of(page: &[u8]) -> Option<LogId> {
        let (raw, _) = RawCheckpoint::read_from_prefix(page).ok()?;
        Checkpoint::verify(page, &raw.log_id).map(|_| raw.log_id)
    }

    /// Believes a slot's page only if checksum and log id match. Positions are judged by recovery,
    /// which knows the geometry.
    pub(crate) fn verify(page: &[u8], log_id: &LogId) -> Option<Checkpoint> {
        let (raw, _) = RawCheckpoint::read_from_prefix(page).ok()?;
        let crc = crc32(&raw.as_bytes()[..offset_of!(RawCheckpoint, crc)]);
        if raw.magic != MAGIC || raw.log_id != *log_id || raw.crc.get() != crc {
            return None;
        }
        Some(Checkpoint {
            generation: raw.generation.get(),
            epoch: raw.epoch.get(),
            epoch_start: Lsn::new(raw.epoch_start.get()),
            trimmed: Lsn::new(raw.trimmed.get()),
            durable: Lsn::new(raw.durable.get()),
            boot: Boot { boot_id: raw.boot_id, file_identity: raw.file_identity.get() },
            clean: raw.flags.get() & FLAG_CLEAN != 0,
            poisoned: raw.flags.get() & FLAG_POISONED != 0,
            writer_pid: raw.writer_pid.get(),
            written_unix_ms: raw.written_unix_ms.get(),
            recovery: RecoverySummary::decode(&raw.recovery),
        })
    }
}

impl RecoverySummary {
    fn encode(&self) -> RawRecovery {
        RawRecovery {
            outcome: U32::new(self.outcome),
            holes_padded: U32::new(self.holes_padded),
            records: U64::new(self.records),
            bytes: U64::new(self.bytes),
            start: U64::new(self.start.get()),
            cut: U64::new(self.cut.get()),
            beyond_records: U64::new(self.beyond_records),
            beyond_bytes: U64::new(self.beyond_bytes),
            cut_bytes: U64::new(self.cut_bytes),
            duration_nanos: U64::new(self.duration_nanos),
            proven_durable: U64::new(self.proven_durable.get()),
        }
    }

    fn decode(raw: &RawRecovery) -> RecoverySummary {
        RecoverySummary {
            outcome: raw.outcome.get(),
            holes_padded: raw.holes_padded.get(),
            records: raw.records.get(),
            bytes: raw.bytes.get(),
            start: Lsn::new(raw.start.get()),
            cut: Lsn::new(raw.cut.get()),
            beyond_records: raw.beyond_records.get(),
            beyond_bytes: raw.beyond_bytes.get(),
            cut_bytes: raw.cut_bytes.get(),
            duration_nanos: raw.duration_nanos.get(),
            proven_durable: Lsn::new(raw.proven_durable.get()),
        }
    }
}

/// The newest of the valid slots, and which of the two it is.
pub(crate) fn newest(slots: [Option<Checkpoint>; 2]) -> Option<(usize, Checkpoint)> {
    match slots {
        [Some(a), Some(b)] if b.generation > a.generation => Some((1, b)),
        [Some(a), _] => Some((0, a)),
        [None, Some(b)] => Some((1, b)),
        [None, None] => None,
    }
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawCheckpoint {
    magic,
    generation,
    epoch,
    epoch_start,
    trimmed,
    durable,
    log_id,
    boot_id,
    file_identity,
    flags,
    writer_pid,
    written_unix_ms,
    recovery,
    reserved,
    crc
});

#[cfg(test)]
pub(super) const RECOVERY_FIELDS: &[(&str, usize, usize)] = fields!(RawRecovery {
    outcome,
    holes_padded,
    records,
    bytes,
    start,
    cut,
    beyond_records,
    beyond_bytes,
    cut_bytes,
    duration_nanos,
    proven_durable
});

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(generation: u64) -> Checkpoint {
        Checkpoint {
            generation,
            epoch: 2,
            epoch_start: Lsn::new(64),
            trimmed: Lsn::new(128),
            durable: Lsn::new(256),
            boot: Boot { boot_id: [9; 16], file_identity: 77 },
            clean: true,
            poisoned: false,
            writer_pid: 42,
            written_unix_ms: 1_700_000_000_000,
            recovery: RecoverySummary { records: 5, cut: Lsn::new(256), ..Default::default() },
        }
    }

    #[test]
    fn verifies_what_it_encodes_and_nothing_else() {
        let id = [3; 16];
        let page = sample(7).encode(&id);
        assert_eq!(Checkpoint::verify(&page, &id), Some(sample(7)));
        assert_eq!(Checkpoint::verify(&page, &[4; 16]), None);
        for bit in 0..size_of::<RawCheckpoint>() * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::verify(&damaged, &id), None, "bit {bit}");
        }
        assert_eq!(Checkpoint::verify(&page[..200], &id), None);
    }

    #[test]
    fn the_newest_valid_slot_wins() {
        assert_eq!(newest([None, None]), None);
        assert_eq!(newest([Some(sample(1)), None]), Some((0, sample(1))));
        assert_eq!(newest([None, Some(sample(1))]), Some((1, sample(1))));
        assert_eq!(newest([Some(sample(2)), Some(sample(1))]), Some((0, sample(2))));
        assert_eq!(newest([Some(sample(1)), Some(sample(2))]), Some((1, sample(2))));
    }

    #[test]
    fn an_unknown_boot_is_never_the_same() {
        let unknown = Boot { boot_id: [0; 16], file_identity: 1 };
        assert!(!unknown.same_as(&unknown));
        let known = Boot { boot_id: [1; 16], file_identity: 1 };
        assert!(known.same_as(&known));
        assert!(!known.same_as(&Boot { file_identity: 2, ..known }));
    }
}
