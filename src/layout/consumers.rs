//! The consumer table: named positions and where epochs began, in a file of its own.
//!
//! The table is written whole, to one of two copies in turn, and the newest that verifies counts.
//! What lies in the file behind its `length` means nothing: a table that shrinks is not cut off.

use static_assertions::const_assert_eq;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LogId;
use crate::checksum::crc32;
use crate::geometry::{FIRST_RECORD, Geometry, PAGE_SIZE, RECORD_ALIGN};
use crate::lsn::{EpochLsn, Lsn};

const MAGIC: [u8; 8] = *b"KAELIXCT";
/// The version of the table's format.
const VERSION: u32 = 1;
const CRC_LEN: usize = 4;
/// Names are padded with zeros to a multiple of this.
const NAME_ALIGN: usize = 8;
/// No log writes so many tables; below it there is room to count on.
const GENERATION_END: u64 = 1 << 63;

/// Longest name of a consumer, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 255;
/// Most consumers of a log.
pub(crate) const CONSUMERS_MAX: usize = 1024;
/// Most epoch starts that a table keeps.
pub(crate) const STARTS_MAX: usize = 64;
/// No table is longer, in bytes.
pub(crate) const TABLE_LEN_MAX: usize = size_of::<RawTable>()
    + STARTS_MAX * size_of::<RawPosition>()
    + CONSUMERS_MAX * (size_of::<RawConsumer>() + NAME_LEN_MAX + 1)
    + CRC_LEN;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawTable {
    magic: [u8; 8],
    format_version: U32,
    length: U32,
    generation: U64,
    epoch: U64,
    durable: U64,
    log_id: LogId,
    starts: U32,
    consumers: U32,
}

/// A position, and the epoch that it is of, or that begins there.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawPosition {
    epoch: U64,
    lsn: U64,
}

/// In front of a consumer's name.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawConsumer {
    epoch: U64,
    lsn: U64,
    cut_epoch: U64,
    cut_lsn: U64,
    name_len: U32,
    reserved: U32,
}

const_assert_eq!(size_of::<RawTable>(), 64);
const_assert_eq!(offset_of!(RawTable, format_version), 8);
const_assert_eq!(offset_of!(RawTable, length), 12);
const_assert_eq!(offset_of!(RawTable, generation), 16);
const_assert_eq!(offset_of!(RawTable, epoch), 24);
const_assert_eq!(offset_of!(RawTable, durable), 32);
const_assert_eq!(offset_of!(RawTable, log_id), 40);
const_assert_eq!(offset_of!(RawTable, starts), 56);
const_assert_eq!(offset_of!(RawTable, consumers), 60);
const_assert_eq!(size_of::<RawPosition>(), 16);
const_assert_eq!(offset_of!(RawPosition, lsn), 8);
const_assert_eq!(size_of::<RawConsumer>(), 40);
const_assert_eq!(offset_of!(RawConsumer, lsn), 8);
const_assert_eq!(offset_of!(RawConsumer, cut_epoch), 16);
const_assert_eq!(offset_of!(RawConsumer, cut_lsn), 24);
const_assert_eq!(offset_of!(RawConsumer, name_len), 32);
const_assert_eq!(offset_of!(RawConsumer, reserved), 36);

/// A consumer as the table keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredConsumer {
    pub(crate) name: String,
    /// Everything below has been processed.
    pub(crate) position: EpochLsn,
    /// The epoch that cut the log below that position, and where it began.
    pub(crate) cut: Option<EpochLsn>,
}

/// A verified table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConsumerTable {
    /// +1 at each write; the larger of two valid copies wins.
    pub(crate) generation: u64,
    /// The newest epoch that the table knows: the one that wrote it.
    pub(crate) epoch: u64,
    /// Everything below was durable when the table was written.
    pub(crate) durable: Lsn,
    /// Where epochs began, oldest first; both numbers rise.
    pub(crate) starts: Vec<EpochLsn>,
    /// By name.
    pub(crate) consumers: Vec<StoredConsumer>,
}

impl ConsumerTable {
    /// The bytes to write: whole pages, so that the file seldom changes its length.
    pub(crate) fn encode(&self, log_id: &LogId) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<RawTable>()];
        for EpochLsn { epoch, lsn } in &self.starts {
            let raw = RawPosition { epoch: U64::new(*epoch), lsn: U64::new(lsn.get()) };
            bytes.extend_from_slice(raw.as_bytes());
        }
        for StoredConsumer { name, position, cut } in &self.consumers {
            let cut = cut.unwrap_or_default();
            let raw = RawConsumer {
                epoch: U64::new(position.epoch),
                lsn: U64::new(position.lsn.get()),
                cut_epoch: U64::new(cut.epoch),
                cut_lsn: U64::new(cut.lsn.get()),
                name_len: U32::new(name.len() as u32),
                reserved: U32::ZERO,
            };
            bytes.extend_from_slice(raw.as_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(NAME_ALIGN), 0);
        }
        let head = RawTable {
            magic: MAGIC,
            format_version: U32::new(VERSION),
            length: U32::new((bytes.len() + CRC_LEN) as u32),
            generation: U64::new(self.generation),
            epoch: U64::new(self.epoch),
            durable: U64::new(self.durable.get()),
            log_id: *log_id,
            starts: U32::new(self.starts.len() as u32),
            consumers: U32::new(self.consumers.len() as u32),
        };
        bytes[..size_of::<RawTable>()].copy_from_slice(head.as_bytes());
        bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE as usize), 0);
        bytes
    }

    /// Believes a copy only if checksum and log id match and everything in it is possible in a log
    /// of this geometry; else says what is wrong.
    pub(crate) fn verify(
        bytes: &[u8],
        log_id: &LogId,
        geometry: &Geometry,
    ) -> Result<ConsumerTable, &'static str> {
        let (head, _) = RawTable::read_from_prefix(bytes).map_err(|_| "it is too short")?;
        if head.magic != MAGIC {
            return Err("it is not a consumer table");
        }
        if head.format_version.get() != VERSION {
            return Err("it is of another format version");
        }
        let length = head.length.get() as usize;
        if length < size_of::<RawTable>() + CRC_LEN || length > bytes.len() {
            return Err("its length is impossible");
        }
        let (body, crc) = bytes[..length].split_at(length - CRC_LEN);
        if crc != crc32(body).to_le_bytes() {
            return Err("its checksum does not match its bytes");
        }
        if head.log_id != *log_id {
            return Err("it belongs to another log");
        }
        let possible = Possible { geometry, epoch: head.epoch.get() };
        possible.table(&head, &body[size_of::<RawTable>()..]).ok_or("it holds impossible values")
    }
}

/// What can be in a table of this epoch, of a log of this geometry.
struct Possible<'a> {
    geometry: &'a Geometry,
    epoch: u64,
}

impl Possible<'_> {
    fn table(&self, head: &RawTable, body: &[u8]) -> Option<ConsumerTable> {
        let generation = head.generation.get();
        let counts = (head.starts.get() as usize, head.consumers.get() as usize);
        let in_bounds = (1..GENERATION_END).contains(&generation)
            && self.epoch < u64::MAX
            && counts.0 <= STARTS_MAX
            && counts.1 <= CONSUMERS_MAX;
        let durable = self.lsn(head.durable)?;
        if !in_bounds {
            return None;
        }
        let mut rest = body;
        let mut starts: Vec<EpochLsn> = Vec::with_capacity(counts.0);
        for _ in 0..counts.0 {
            let raw: RawPosition = take(&mut rest)?;
            let start = self.position(raw.epoch, raw.lsn)?;
            let rises =
                starts.last().is_none_or(|last| last.epoch < start.epoch && last.lsn < start.lsn);
            if start.epoch == 0 || !rises {
                return None;
            }
            starts.push(start);
        }
        let mut consumers: Vec<StoredConsumer> = Vec::with_capacity(counts.1);
        for _ in 0..counts.1 {
            let consumer = self.consumer(&mut rest)?;
            if consumers.last().is_some_and(|last| last.name >= consumer.name) {
                return None;
            }
            consumers.push(consumer);
        }
        let table = ConsumerTable { generation, epoch: self.epoch, durable, starts, consumers };
        rest.is_empty().then_some(table)
    }

    fn consumer(&self, rest: &mut &[u8]) -> Option<StoredConsumer> {
        let raw: RawConsumer = take(rest)?;
        let position = self.position(raw.epoch, raw.lsn)?;
        let cut = match (raw.cut_epoch.get(), raw.cut_lsn.get()) {
            (0, 0) => None,
            _ => Some(self.position(raw.cut_epoch, raw.cut_lsn)?),
        };
        let len = raw.name_len.get() as usize;
        if !(1..=NAME_LEN_MAX).contains(&len) || cut.is_some_and(|cut| cut.epoch <= position.epoch)
        {
            return None;
        }
        let (name, after) = rest.split_at_checked(len.next_multiple_of(NAME_ALIGN))?;
        *rest = after;
        let name = std::str::from_utf8(&name[..len]).ok()?.to_owned();
        Some(StoredConsumer { name, position, cut })
    }

    fn position(&self, epoch: U64, lsn: U64) -> Option<EpochLsn> {
        let epoch = Some(epoch.get()).filter(|epoch| *epoch <= self.epoch)?;
        Some(EpochLsn { epoch, lsn: self.lsn(lsn)? })
    }

    fn lsn(&self, lsn: U64) -> Option<Lsn> {
        let lsn = Lsn::new(lsn.get());
        let (sequence, offset) = self.geometry.split(lsn);
        let end = self.geometry.record_end();
        let possible = lsn <= self.geometry.lsn(u32::MAX, end)
            && lsn.get().is_multiple_of(RECORD_ALIGN)
            && (FIRST_RECORD..=end).contains(&offset)
            && self.geometry.lsn(sequence, offset) == lsn;
        possible.then_some(lsn)
    }
}

fn take<T: FromBytes>(rest: &mut &[u8]) -> Option<T> {
    let (value, after) = T::read_from_prefix(rest).ok()?;
    *rest = after;
    Some(value)
}

#[cfg(test)]
pub(super) const FIELDS: &[(&str, usize, usize)] = fields!(RawTable {
    magic,
    format_version,
    length,
    generation,
    epoch,
    durable,
    log_id,
    starts,
    consumers
});

#[cfg(test)]
pub(super) const START_FIELDS: &[(&str, usize, usize)] = fields!(RawPosition { epoch, lsn });

#[cfg(test)]
pub(super) const CONSUMER_FIELDS: &[(&str, usize, usize)] =
    fields!(RawConsumer { epoch, lsn, cut_epoch, cut_lsn, name_len, reserved });

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_ID: LogId = [3; 16];

    fn geometry() -> Geometry {
        Geometry::new(1 << 20, 1 << 18).expect("in bounds")
    }

    fn at(epoch: u64, lsn: u64) -> EpochLsn {
        EpochLsn { epoch, lsn: Lsn::new(lsn) }
    }

    fn consumer(name: &str, position: EpochLsn, cut: Option<EpochLsn>) -> StoredConsumer {
        StoredConsumer { name: name.to_owned(), position, cut }
    }

    fn sample() -> ConsumerTable {
        ConsumerTable {
            generation: 9,
            epoch: 4,
            durable: Lsn::new(4096),
            starts: vec![at(2, 64), at(4, 1024)],
            consumers: vec![
                consumer("billing", at(4, 2048), None),
                consumer("search/größe", at(1, 512), Some(at(2, 64))),
            ],
        }
    }

    fn verify(bytes: &[u8]) -> Result<ConsumerTable, &'static str> {
        ConsumerTable::verify(bytes, &LOG_ID, &geometry())
    }

    fn table_len(bytes: &[u8]) -> usize {
        u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize
    }

    #[test]
    fn it_verifies_what_it_encodes() {
        for table in [sample(), ConsumerTable { consumers: Vec::new(), ..sample() }] {
            assert_eq!(verify(&table.encode(&LOG_ID)), Ok(table));
        }
        let other = ConsumerTable::verify(&sample().encode(&LOG_ID), &[4; 16], &geometry());
        assert_eq!(other, Err("it belongs to another log"));
    }

    #[test]
    fn the_largest_table_is_as_long_as_said() {
        let long = |number: usize| format!("{number:0255}");
        let consumers = (0..CONSUMERS_MAX).map(|number| consumer(&long(number), at(4, 64), None));
        let starts = (1..=STARTS_MAX as u64).map(|epoch| at(epoch, epoch * 64)).collect();
        let table = ConsumerTable { epoch: 64, starts, consumers: consumers.collect(), ..sample() };
        let bytes = table.encode(&LOG_ID);
        assert_eq!(table_len(&bytes), TABLE_LEN_MAX);
        assert_eq!(verify(&bytes), Ok(table));
    }

    #[test]
    fn no_flipped_bit_is_believed() {
        let bytes = sample().encode(&LOG_ID);
        let len = table_len(&bytes);
        for bit in 0..len * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&damaged).is_err(), "bit {bit}");
        }
        let mut behind = bytes.clone();
        behind[len] ^= 1;
        assert_eq!(verify(&behind), Ok(sample()), "what lies behind the table means nothing");
    }

    /// A write that stopped after any number of bytes, over an older table that is shorter, longer
    /// or as long: it is the old one, the new one, or none.
    #[test]
    fn a_torn_table_is_the_old_one_the_new_one_or_none() {
        let new = sample().encode(&LOG_ID);
        let len = table_len(&new);
        let shorter = ConsumerTable { generation: 7, consumers: Vec::new(), ..sample() };
        let mut longer = ConsumerTable { generation: 7, ..sample() };
        longer.consumers.push(consumer("tail", at(4, 64), None));
        let same = ConsumerTable { generation: 7, ..sample() };
        for old in [shorter, longer, same] {
            let before = old.encode(&LOG_ID);
            for written in 0..=len {
                let mut torn = before.clone();
                torn[..written].copy_from_slice(&new[..written]);
                match verify(&torn) {
                    Ok(table) if table == old => assert!(torn[..] == before[..]),
                    Ok(table) => assert!(table == sample() && torn[..len] == new[..len]),
                    Err(_) => assert!(written > 0 && written < len, "{written}"),
                }
            }
        }
        for cut in 0..len {
            assert!(verify(&new[..cut]).is_err(), "cut short to {cut}");
        }
    }

    #[test]
    fn impossible_values_behind_a_right_checksum_are_refused() {
        let refused = |change: &dyn Fn(&mut ConsumerTable)| {
            let mut table = sample();
            change(&mut table);
            let found = verify(&table.encode(&LOG_ID));
            assert_eq!(found, Err("it holds impossible values"), "{table:?}");
        };
        refused(&|table| table.generation = 0);
        refused(&|table| table.generation = GENERATION_END);
        refused(&|table| table.epoch = 3);
        refused(&|table| table.durable = Lsn::new(8));
        refused(&|table| table.durable = Lsn::ZERO);
        refused(&|table| table.durable = Lsn::new(u64::MAX - 15));
        refused(&|table| table.starts.swap(0, 1));
        refused(&|table| table.starts[1].lsn = Lsn::new(64));
        refused(&|table| table.starts[0].epoch = 0);
        refused(&|table| table.starts = (1..=65).map(|n| at(n, n * 64)).collect());
        refused(&|table| table.consumers.swap(0, 1));
        refused(&|table| table.consumers[0].name.clear());
        refused(&|table| table.consumers[0].name = "b".repeat(256));
        refused(&|table| table.consumers[0].position.epoch = 5);
        refused(&|table| table.consumers[0].position.lsn = Lsn::new((1 << 18) + 48));
        refused(&|table| table.consumers[0].position.lsn = Lsn::new((1 << 18) - 4080));
        refused(&|table| table.consumers[1].cut = Some(at(1, 64)));
    }

    #[test]
    fn counts_and_names_that_do_not_fit_are_refused() {
        let bytes = sample().encode(&LOG_ID);
        let refused = |at: usize, value: u32| {
            let mut bytes = bytes.clone();
            let len = table_len(&bytes);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let crc = crc32(&bytes[..len - CRC_LEN]).to_le_bytes();
            bytes[len - CRC_LEN..len].copy_from_slice(&crc);
            assert_eq!(verify(&bytes), Err("it holds impossible values"), "{at}: {value}");
        };
        for count in [0, 1, 3, 65, u32::MAX] {
            refused(offset_of!(RawTable, starts), count);
        }
        for count in [0, 1, 3, 1025, u32::MAX] {
            refused(offset_of!(RawTable, consumers), count);
        }
        let first = size_of::<RawTable>() + 2 * size_of::<RawPosition>();
        for len in [0, 9, 256, u32::MAX] {
            refused(first + offset_of!(RawConsumer, name_len), len);
        }
        // Not UTF-8.
        refused(first + size_of::<RawConsumer>(), 0xFFFF_FFFF);
    }
}
