//! The peers, each with its settings.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kaelix_wal::{Durability, Geometry, OnFull, Options, Position, Wal};
use raft_engine::{Config, Engine, LogBatch};

use crate::bounds;
use crate::rocks;
use crate::tasks::{Cannot, Demand, Failure, Peer, Task};

pub type Opened = Result<Box<dyn Peer>, Failure>;
pub type Open = fn(&Path, Demand) -> Opened;

/// A peer, and how it is opened; a second time, too.
pub struct Description {
    pub name: &'static str,
    pub settings: &'static str,
    /// What must be known to read its figure in a task.
    notes: &'static [(Task, &'static str)],
    pub open: Open,
}

impl Description {
    pub const fn new(
        name: &'static str,
        settings: &'static str,
        notes: &'static [(Task, &'static str)],
        open: Open,
    ) -> Description {
        Description { name, settings, notes, open }
    }

    pub fn note(&self, task: Task) -> Option<&'static str> {
        self.notes.iter().find(|(of, _)| *of == task).map(|(_, note)| *note)
    }
}

/// This log first: the others are compared with it.
pub const ALL: &[Description] = &[
    Description::new(
        "kaelix-wal",
        "ring of 256 MiB in segments of 16 MiB that overwrites its oldest records, without a \
         promise of durability but for `durable`; for `read` and `open` a ring that holds all",
        &[],
        kaelix,
    ),
    Description::new(
        "wal-db",
        "one file, default configuration; `append`, `append_and_sync`, `iter`",
        &[(Task::Append, "every append is a write to the file")],
        wal_db,
    ),
    Description::new(
        "raft-engine",
        "default configuration (files of 128 MB, recovery with checksums), keys with values; one \
         key a thread for appends, which is overwritten",
        &[(Task::Read, "from memory, where it keeps values of keys")],
        raft_engine,
    ),
    Description::new(
        "okaywal",
        "default configuration, but for files of 64 MB and no checkpoint while `open` fills it; \
         an entry is synced when it is committed",
        &[(Task::Batch, "an entry of 100 chunks, synced")],
        okaywal,
    ),
    Description::new(
        "walrus-rust",
        "back end of file descriptors, one topic a thread, `NoFsync` or `SyncEach`, reads that are \
         recorded each 1,000,000; in batches of 1000 where records are read back",
        &[],
        walrus,
    ),
    Description::new(
        "commitlog",
        "default segments of 1 GB, batches of up to 16 MiB, behind a mutex: it has one writer",
        &[(Task::Open, "opens without a look at the records")],
        commitlog,
    ),
    rocks::DESCRIPTION,
    bounds::RTRB,
    bounds::DISRUPTOR,
    bounds::ARRAY_QUEUE,
    bounds::FLOOR,
];

struct Kaelix(Wal);

fn kaelix(dir: &Path, demand: Demand) -> Opened {
    let durability = match demand.task {
        Task::Durable | Task::Open => Durability::OnDemand,
        Task::Append | Task::Batch | Task::Read => Durability::None,
    };
    let dir = dir.join("log");
    let segment = 16 << 20;
    let wal = match demand.retain {
        None => {
            let options = Options::new().durability(durability).on_full(OnFull::Overwrite);
            Wal::create(dir, Geometry::new(256 << 20, segment)?, options)?
        }
        Some(bytes) => {
            // Headers and alignment, and two segments more.
            let record = (demand.size as u64 + 16).next_multiple_of(16);
            let size = (bytes / demand.size as u64 * record).next_multiple_of(segment);
            let geometry = Geometry::new(size + 4 * segment, segment)?;
            let options = Options::new().durability(durability).on_full(OnFull::Wait);
            Wal::open_or_create(dir, geometry, options)?
        }
    };
    Ok(Box::new(Kaelix(wal)))
}

impl Peer for Kaelix {
    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.0.append(payload)?;
        Ok(())
    }

    fn append_durable(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.0.append_durable(payload)?;
        Ok(())
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<(), Failure> {
        self.0.append_batch(payloads.iter().copied())?;
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let mut entries = self.0.entries(Position::Oldest)?;
        while let Some(entry) = entries.next()? {
            each(entry.payload);
        }
        Ok(())
    }
}

struct WalDb(wal_db::Wal);

fn wal_db(dir: &Path, _demand: Demand) -> Opened {
    Ok(Box::new(WalDb(wal_db::Wal::open(dir.join("wal-db"))?)))
}

impl Peer for WalDb {
    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let _lsn = self.0.append(payload)?;
        Ok(())
    }

    fn append_durable(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let _lsn = self.0.append_and_sync(payload)?;
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        for record in self.0.iter()? {
            each(record?.data());
        }
        Ok(())
    }
}

struct RaftEngine {
    engine: Engine,
    next: Mutex<u64>,
}

/// The region of records that are read back; those of threads follow.
const ALL_RECORDS: u64 = 1;

fn raft_engine(dir: &Path, _demand: Demand) -> Opened {
    let dir = dir.join("raft-engine").to_string_lossy().into_owned();
    let engine = Engine::open(Config { dir, ..Config::default() })?;
    Ok(Box::new(RaftEngine { engine, next: Mutex::new(0) }))
}

impl RaftEngine {
    fn write(&self, thread: usize, payload: &[u8], sync: bool) -> Result<(), Failure> {
        let mut batch = LogBatch::with_capacity(1);
        batch.put(ALL_RECORDS + 1 + thread as u64, b"last".to_vec(), payload.to_vec())?;
        self.engine.write(&mut batch, sync)?;
        Ok(())
    }
}

impl Peer for RaftEngine {
    fn append(&self, thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.write(thread, payload, false)
    }

    fn append_durable(&self, thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.write(thread, payload, true)
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let mut next = self.next.lock().expect("nobody panics");
        let mut batch = LogBatch::with_capacity(payloads.len());
        for payload in payloads {
            batch.put(ALL_RECORDS, next.to_be_bytes().to_vec(), payload.to_vec())?;
            *next += 1;
        }
        self.engine.write(&mut batch, false)?;
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        self.engine.scan_raw_messages(ALL_RECORDS, None, None, false, |_, payload| {
            each(payload);
            true
        })?;
        Ok(())
    }
}

struct OkayWal {
    log: Option<okaywal::WriteAheadLog>,
    recovered: Recovered,
}

/// What a recovery has found, as its documentation hands it over.
#[derive(Clone, Debug, Default)]
struct Recovered(Arc<Mutex<Vec<Vec<u8>>>>);

impl okaywal::LogManager for Recovered {
    fn recover(&mut self, entry: &mut okaywal::Entry<'_>) -> std::io::Result<()> {
        if let Some(chunks) = entry.read_all_chunks()? {
            self.0.lock().expect("nobody panics").extend(chunks);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: okaywal::EntryId,
        _entries: &mut okaywal::SegmentReader,
        _log: &okaywal::WriteAheadLog,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

fn okaywal(dir: &Path, demand: Demand) -> Opened {
    let mut configuration = okaywal::Configuration::default_for(dir.join("okaywal"));
    if demand.task == Task::Open {
        configuration = configuration.preallocate_bytes(64 << 20).checkpoint_after_bytes(u64::MAX);
    }
    let recovered = Recovered::default();
    let log = Some(configuration.open(recovered.clone())?);
    Ok(Box::new(OkayWal { log, recovered }))
}

impl Drop for OkayWal {
    fn drop(&mut self) {
        // It is closed by force otherwise, while its thread goes on.
        if let Some(Err(error)) = self.log.take().map(okaywal::WriteAheadLog::shutdown) {
            println!("okaywal was not shut down: {error}");
        }
    }
}

impl Peer for OkayWal {
    fn append_durable(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.append_batch(&[payload])
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let log = self.log.as_ref().ok_or("it is shut down")?;
        let mut entry = log.begin_entry()?;
        for payload in payloads {
            entry.write_chunk(payload)?;
        }
        entry.commit()?;
        Ok(())
    }

    /// Only a recovery hands out everything.
    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let recovered = self.recovered.0.lock().expect("nobody panics");
        if recovered.is_empty() {
            return Err(Cannot.into());
        }
        recovered.iter().for_each(|chunk| each(chunk));
        Ok(())
    }
}

struct Walrus {
    log: walrus_rust::Walrus,
    topics: Vec<String>,
}

/// In the folder that the environment names.
fn walrus(_dir: &Path, demand: Demand) -> Opened {
    use walrus_rust::{FsyncSchedule, ReadConsistency};
    walrus_rust::enable_fd_backend();
    let schedule = match demand.task {
        Task::Durable => FsyncSchedule::SyncEach,
        _ => FsyncSchedule::NoFsync,
    };
    let reads = ReadConsistency::AtLeastOnce { persist_every: 1_000_000 };
    let log = walrus_rust::Walrus::with_consistency_and_schedule(reads, schedule)?;
    let topics = (0..32).map(|thread| format!("topic {thread}")).collect();
    Ok(Box::new(Walrus { log, topics }))
}

impl Peer for Walrus {
    fn append(&self, thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.log.append_for_topic(&self.topics[thread], payload)?;
        Ok(())
    }

    fn append_durable(&self, thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.append(thread, payload)
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<(), Failure> {
        self.log.batch_append_for_topic(&self.topics[0], payloads)?;
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        loop {
            let entries = self.log.batch_read_for_topic(&self.topics[0], 1 << 20, true)?;
            entries.iter().for_each(|entry| each(&entry.data));
            // An empty batch need not be the end.
            if entries.is_empty() {
                match self.log.read_next(&self.topics[0], true)? {
                    Some(entry) => each(&entry.data),
                    None => return Ok(()),
                }
            }
        }
    }
}

struct CommitLog(Mutex<commitlog::CommitLog>);

fn commitlog(dir: &Path, _demand: Demand) -> Opened {
    let mut options = commitlog::LogOptions::new(dir.join("commitlog"));
    options.message_max_bytes(16 << 20);
    Ok(Box::new(CommitLog(Mutex::new(commitlog::CommitLog::new(options)?))))
}

impl Peer for CommitLog {
    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let mut log = self.0.lock().expect("nobody panics");
        log.append_msg(payload).map_err(|error| error.to_string())?;
        Ok(())
    }

    // Its `flush` empties a buffer that it does not have, and syncs nothing: no durable appends.

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let mut batch: commitlog::message::MessageBuf = payloads.iter().collect();
        let mut log = self.0.lock().expect("nobody panics");
        log.append(&mut batch).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        use commitlog::message::MessageSet;
        let log = self.0.lock().expect("nobody panics");
        let mut next = 0;
        while log.last_offset().is_some_and(|last| next <= last) {
            let limit = commitlog::ReadLimit::max_bytes(1 << 20);
            let messages = log.read(next, limit).map_err(|error| error.to_string())?;
            for message in messages.iter() {
                if !message.verify_hash() {
                    return Err(format!("message {next} does not verify").into());
                }
                each(message.payload());
                next = message.offset() + 1;
            }
        }
        Ok(())
    }
}
