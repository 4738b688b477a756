//! The streams in memory: names to ids, and ids to what is known of them.
//!
//! 1. Names lie in one string, behind each other, in the order of their ids. A stream costs a row
//!    of 24 bytes and 5 to 11.4 bytes of the hash table beside its name; the vectors may hold up to
//!    twice what is used, of which the system need not have given any memory.
//! 2. The table holds ids alone. Whether a name is the one that is looked for, its bytes say.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::lsn::Lsn;
use crate::stream_id::{StreamFlags, StreamId};

/// One stream.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Offset of the name in `names` (48 bits), its length (8) and the flags (8).
    name: u64,
    epoch: u64,
    /// `Lsn::ZERO`, where no record can be, if no last position is kept.
    lsn: Lsn,
}

const _: () = assert!(size_of::<Row>() == 24);

/// All streams of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    names: String,
    rows: Vec<Row>,
    ids: HashTable<StreamId>,
    hasher: RandomState,
}

impl Streams {
    /// Makes room for `streams` more, with `bytes` of names.
    pub(super) fn reserve(&mut self, streams: usize, bytes: usize) {
        self.names.reserve(bytes);
        self.rows.reserve(streams);
        let Streams { names, rows, hasher, ids } = self;
        ids.reserve(streams, |id| hasher.hash_one(name_of(names, rows, *id)));
    }

    /// Adds a stream with a name of 1 to 255 bytes. `Err` has the id of the one that has it.
    pub(super) fn insert(&mut self, name: &str, flags: StreamFlags) -> Result<StreamId, Taken> {
        debug_assert!((1..=255).contains(&name.len()));
        let Streams { names, rows, hasher, ids } = self;
        let next = StreamId::of_row(rows.len()).ok_or(Taken::AllIds)?;
        let entry = ids.entry(
            hasher.hash_one(name),
            |id| name_of(names, rows, *id) == name,
            |id| hasher.hash_one(name_of(names, rows, *id)),
        );
        match entry {
            Entry::Occupied(entry) => return Err(Taken::By(*entry.get())),
            Entry::Vacant(entry) => drop(entry.insert(next)),
        }
        let start = names.len() as u64;
        let packed = start << 16 | (name.len() as u64) << 8 | u64::from(flags.bits());
        names.push_str(name);
        rows.push(Row { name: packed, epoch: 0, lsn: Lsn::ZERO });
        Ok(next)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn contains(&self, id: StreamId) -> bool {
        id.row() < self.rows.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<StreamId> {
        let is_it = |id: &StreamId| name_of(&self.names, &self.rows, *id) == name;
        self.ids.find(self.hasher.hash_one(name), is_it).copied()
    }

    pub(super) fn name(&self, id: StreamId) -> Option<&str> {
        self.contains(id).then(|| name_of(&self.names, &self.rows, id))
    }

    pub(super) fn flags(&self, id: StreamId) -> Option<StreamFlags> {
        self.rows.get(id.row()).map(|row| StreamFlags::stored(row.name as u8))
    }

    pub(super) fn position(&self, id: StreamId) -> Option<(u64, Lsn)> {
        let row = self.rows.get(id.row())?;
        (row.lsn != Lsn::ZERO).then_some((row.epoch, row.lsn))
    }

    /// Keeps the last position of a stream that is there.
    pub(super) fn set_position(&mut self, id: StreamId, epoch: u64, lsn: Lsn) {
        let row = &mut self.rows[id.row()];
        (row.epoch, row.lsn) = (epoch, lsn);
    }

    /// All streams in the order of their ids.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (StreamId, &str, StreamFlags)> {
        // Rows are never more than ids: `insert` sees to it.
        self.rows.iter().enumerate().map(|(index, row)| {
            let id = StreamId::of_row(index).unwrap_or(StreamId::MAX);
            (id, name_of(&self.names, &self.rows, id), StreamFlags::stored(row.name as u8))
        })
    }
}

/// Why a stream cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The name, by this stream.
    By(StreamId),
    /// All ids.
    AllIds,
}

/// The name of a stream that is there.
#[inline]
fn name_of<'a>(names: &'a str, rows: &[Row], id: StreamId) -> &'a str {
    let packed = rows[id.row()].name;
    let start = (packed >> 16) as usize;
    &names[start..start + (packed >> 8 & 0xFF) as usize]
}
