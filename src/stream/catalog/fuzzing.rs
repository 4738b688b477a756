//! The catalog's decision, for the fuzz target and the benchmark: bytes in, plain values out.

use std::path::Path;

use super::{Catalog, Side, StreamFlags, decide};
use crate::layout::LogId;
use crate::layout::catalog::{Addition, encode_header};
use crate::lsn::Lsn;

/// A stream: name, versioned or not, last position (epoch and LSN).
pub type Stream = (String, bool, Option<(u64, Lsn)>);

/// What two files say: the bytes that both should have, and the streams in the order of their ids.
/// `None`: refused.
#[must_use]
pub fn catalog(a: &[u8], b: &[u8], log_id: &LogId) -> Option<(Vec<u8>, Vec<Stream>)> {
    let decision = decide::read(a, b, log_id).ok()?;
    let sides = [(Side::A, a, &decision.lacks_a), (Side::B, b, &decision.lacks_b)];
    for (side, file, lacks) in sides {
        if decision.replaced == Some(side) {
            continue;
        }
        let mut repaired = file.to_vec();
        repaired.resize(decision.image.len(), 0);
        for range in lacks {
            repaired[range.clone()].copy_from_slice(&decision.image[range.clone()]);
        }
        assert!(repaired == *decision.image, "a repair that does not repair");
    }
    let streams = &decision.streams;
    let streams = streams.iter().map(|(id, name, flags)| {
        assert_eq!(streams.get(name), Some(id));
        (name.to_owned(), flags.is_versioned(), streams.position(id))
    });
    Some((decision.image.to_vec(), streams.collect()))
}

/// An entry that a script adds.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A stream comes to be: name, versioned or not.
    Created(String, bool),
    /// The last position of the stream with this id.
    Position(u32, u64, Lsn),
    /// Any other kind: id, kind, flags, body.
    Other(u32, u8, u8, Vec<u8>),
}

/// The bytes of a catalog to which `additions` were made, one after the other. Nothing is checked.
#[must_use]
pub fn catalog_image(log_id: &LogId, additions: &[Vec<Entry>]) -> Vec<u8> {
    let mut image = encode_header(log_id, 0).to_vec();
    let mut streams = 0;
    for entries in additions {
        let mut addition = Addition::new(log_id, image.len());
        for entry in entries {
            match entry {
                Entry::Created(name, versioned) => {
                    streams += 1;
                    addition.created(streams, u8::from(*versioned), name);
                }
                Entry::Position(id, epoch, lsn) => addition.position(*id, *epoch, *lsn),
                Entry::Other(id, kind, flags, body) => addition.push(*id, *kind, *flags, body),
            }
        }
        image.extend_from_slice(addition.bytes());
    }
    image
}

/// A catalog on a disk, for the benchmark. Opaque.
#[derive(Debug)]
pub struct StoredCatalog(Catalog);

impl StoredCatalog {
    /// Opens the catalog in `dir` to be written to.
    ///
    /// # Panics
    ///
    /// It cannot be opened.
    #[must_use]
    pub fn open(dir: &Path, log_id: &LogId) -> StoredCatalog {
        StoredCatalog(Catalog::open(dir, log_id, true).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Makes streams in one addition.
    ///
    /// # Panics
    ///
    /// They cannot be made.
    pub fn create(&mut self, names: &[String]) {
        let names: Vec<_> = names.iter().map(|name| (name.as_str(), StreamFlags::NONE)).collect();
        let created = self.0.create(&names);
        created.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The number of the stream with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u32> {
        self.0.get(name).map(super::StreamId::get)
    }
}
