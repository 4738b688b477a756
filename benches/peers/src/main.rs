//! Durable appends of other logs and of this one, in the same run on the same disk.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml [SECONDS]`: threads that each
//! append 256 B and return once it is durable. Rounds in turn; rates are medians, ratios medians of
//! the rounds' ratios. Each peer runs as its documentation shows it, with a sync for each append
//! that is not shared with others, and neither reads nor checkpoints what it has written:
//!
//! - okaywal: `begin_entry`, `write_chunk`, `commit`, which returns when the entry is synced; one
//!   sync serves all that commit meanwhile. Default configuration.
//! - raft-engine: a batch of one key, `write(batch, sync = true)`; writers form groups. Default
//!   configuration: 128 MB files, no compression below 8 KB. Its files are purged between rounds.
//! - this log: `append_durable`, a ring of 256 MiB that overwrites its oldest records.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use kaelix_wal::{Geometry, OnFull, Options, Wal};
use okaywal::{LogVoid, WriteAheadLog};
use raft_engine::{Config, Engine, LogBatch};

const PAYLOAD: usize = 256;
const THREADS: [usize; 3] = [1, 8, 32];
const ROUNDS: usize = 5;

type Failure = Box<dyn std::error::Error>;

/// A log under measurement.
trait Peer: Sync {
    fn name(&self) -> &'static str;

    /// Returns once the payload is durable.
    fn append(&self, thread: usize, payload: &[u8]) -> Result<(), Failure>;

    /// Between two rounds.
    fn tidy(&self) -> Result<(), Failure> {
        Ok(())
    }
}

struct Kaelix(Wal);

impl Peer for Kaelix {
    fn name(&self) -> &'static str {
        "kaelix-wal"
    }

    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        self.0.append_durable(payload)?;
        Ok(())
    }
}

struct OkayWal(WriteAheadLog);

impl Peer for OkayWal {
    fn name(&self) -> &'static str {
        "okaywal"
    }

    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(payload)?;
        entry.commit()?;
        Ok(())
    }
}

struct RaftEngine(Engine);

impl Peer for RaftEngine {
    fn name(&self) -> &'static str {
        "raft-engine"
    }

    fn append(&self, thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let mut batch = LogBatch::with_capacity(1);
        batch.put(thread as u64 + 1, b"last".to_vec(), payload.to_vec())?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }

    fn tidy(&self) -> Result<(), Failure> {
        self.0.purge_expired_files()?;
        Ok(())
    }
}

fn open(dir: &Path) -> Result<[Box<dyn Peer>; 3], Failure> {
    let options = Options::new().on_full(OnFull::Overwrite);
    let wal = Wal::create(dir.join("kaelix"), Geometry::new(256 << 20, 16 << 20)?, options)?;
    let okay = WriteAheadLog::recover(dir.join("okaywal"), LogVoid)?;
    let raft = dir.join("raft-engine").to_string_lossy().into_owned();
    let raft = Engine::open(Config { dir: raft, ..Config::default() })?;
    Ok([Box::new(Kaelix(wal)), Box::new(OkayWal(okay)), Box::new(RaftEngine(raft))])
}

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().nth(1).map_or(Ok(1.0), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let peers = open(dir.path())?;
    println!("Durable appends a second of {PAYLOAD} B, medians of {ROUNDS} rounds in turn;");
    println!("in brackets this log's rate divided by the peer's.");
    println!("| threads | {} | {} | {} |", peers[0].name(), peers[1].name(), peers[2].name());
    println!("|---|---|---|---|");
    for threads in THREADS {
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (peer, rates) in peers.iter().zip(&mut rates) {
                rates.push(rate(&**peer, threads, Duration::from_secs_f64(seconds))?);
                peer.tidy()?;
            }
        }
        let ratio = |peer: usize| median(rates[0].iter().zip(&rates[peer]).map(|(a, b)| a / b));
        let rate = |peer: usize| median(rates[peer].iter().copied());
        println!(
            "| {threads} | {:.0} | {:.0} ({:.2}) | {:.0} ({:.2}) |",
            rate(0),
            rate(1),
            ratio(1),
            rate(2),
            ratio(2)
        );
    }
    Ok(())
}

/// Appends a second of all threads together.
fn rate(peer: &dyn Peer, threads: usize, time: Duration) -> Result<f64, Failure> {
    let payload = [0xA5; PAYLOAD];
    let start = Instant::now();
    let counts: Result<Vec<u64>, String> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut count = 0;
                    while start.elapsed() < time {
                        peer.append(thread, &payload).map_err(|error| error.to_string())?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).collect()
    });
    Ok(counts?.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
