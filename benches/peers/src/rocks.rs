//! RocksDB's write-ahead log, by the one way to it: writes of keys. Behind the feature `rocksdb`,
//! since its own build takes many minutes and needs clang.

use std::path::Path;

use crate::peers::{Description, Opened};
use crate::tasks::Demand;
#[cfg(feature = "rocksdb")]
use crate::tasks::{Failure, Peer};

const SETTINGS: &str = "default options but for a memtable of 4 GiB, which is never flushed, and \
                        no compaction; `sync` for durable writes; with the feature `rocksdb` alone";

pub const DESCRIPTION: Description = Description::new("RocksDB's WAL", SETTINGS, &[], open);

#[cfg(not(feature = "rocksdb"))]
fn open(_dir: &Path, _demand: Demand) -> Opened {
    Err(crate::tasks::Cannot.into())
}

#[cfg(feature = "rocksdb")]
fn open(dir: &Path, _demand: Demand) -> Opened {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(4 << 30);
    options.set_disable_auto_compactions(true);
    let database = rocksdb::DB::open(&options, dir.join("rocksdb"))?;
    Ok(Box::new(Rocks { database, next: std::sync::atomic::AtomicU64::new(0) }))
}

#[cfg(feature = "rocksdb")]
struct Rocks {
    database: rocksdb::DB,
    next: std::sync::atomic::AtomicU64,
}

#[cfg(feature = "rocksdb")]
impl Rocks {
    fn key(&self) -> [u8; 8] {
        self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes()
    }

    fn write(&self, payload: &[u8], sync: bool) -> Result<(), Failure> {
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(sync);
        Ok(self.database.put_opt(self.key(), payload, &options)?)
    }
}

#[cfg(feature = "rocksdb")]
impl Peer for Rocks {
    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.write(payload, false)
    }

    fn append_durable(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.write(payload, true)
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let mut batch = rocksdb::WriteBatch::default();
        for payload in payloads {
            batch.put(self.key(), payload);
        }
        Ok(self.database.write_opt(batch, &rocksdb::WriteOptions::default())?)
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        for pair in self.database.iterator(rocksdb::IteratorMode::Start) {
            each(&pair?.1);
        }
        Ok(())
    }
}
