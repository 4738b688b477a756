//! Transactions under SIGKILL: never one half without the other, and no acknowledged one is lost.
//!
//! The parent starts this test binary again as a child. That commits a transaction for each of
//! 20,000 real flights: a departure, to the stream of the airport where the flight begins, and an
//! arrival, to that where it ends. Three threads share the flights, and streams are created as
//! airports are met, so that a kill may hit the catalog too. The parent kills the child at a random
//! moment, opens the log, and reads every stream:
//!
//! 1. A departure and its arrival are in one record, in the streams that the flight names.
//! 2. What was acknowledged is there. An acknowledgement is one `write` to a file after the commit
//!    (or the wait for durability) has returned. Of a copy, which opens as after a power loss, this
//!    holds for durable ones.
//! 3. Each thread's flights are in order, and none is missing between two that are there.

mod common;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Place, Rng, copy_log, number, seed, wait_until};
use flate2::read::GzDecoder;
use kaelix_wal::{Geometry, Lsn, Options, Position, RecoveryOutcome, Wal};

const PRODUCERS: u64 = 3;
/// Fresh log after this many cycles.
const CYCLES_A_LOG: u64 = 10;
const ACK_LEN: usize = 16;
/// The child ends by itself after this time, should its parent have died.
const CHILD_LIFE: Duration = Duration::from_secs(20);

/// The flights, row by row; each has its number as its name.
struct Flights {
    text: String,
    rows: Vec<(usize, usize)>,
}

impl Flights {
    fn load() -> Flights {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/data/flights-sample.csv.gz");
        let mut text = String::new();
        let file = File::open(sample).expect("the sample is there");
        GzDecoder::new(file).read_to_string(&mut text).expect("the sample is whole");
        let mut start = 0;
        let row = |line: &str| {
            let row = (start, start + line.len() - 1);
            start += line.len();
            row
        };
        let rows = text.split_inclusive('\n').map(row).collect();
        Flights { text, rows }
    }

    fn row(&self, flight: u64) -> &str {
        let (start, end) = self.rows[(flight % self.rows.len() as u64) as usize];
        &self.text[start..end]
    }

    /// Where it begins and where it ends.
    fn airports(&self, flight: u64) -> (&str, &str) {
        let mut fields = self.row(flight).split(',').skip(12);
        (fields.next().expect("the origin"), fields.next().expect("the destination"))
    }

    /// The entry of a departure (`D`) or an arrival (`A`).
    fn entry(&self, kind: char, flight: u64) -> String {
        format!("{kind}{flight}\t{}", self.row(flight))
    }

    /// Which flight, and whether it departs; panics unless it is one, byte for byte.
    fn recognize(&self, payload: &[u8], at: Lsn) -> (u64, char) {
        let text = std::str::from_utf8(payload).expect("entries are text");
        let (head, _) = text.split_once('\t').expect("a number, and a row");
        let kind = head.chars().next().expect("a kind");
        let flight = head[1..].parse().expect("a number");
        assert_eq!(text, self.entry(kind, flight), "the entry at {at} was altered");
        (flight, kind)
    }
}

/// What the child is told, by the environment.
struct Orders {
    dir: PathBuf,
    acks: PathBuf,
    /// Each thread's first flight, counted in its own.
    first: u64,
    durable: bool,
}

impl Orders {
    fn start(&self, errors: &Path) -> Child {
        Command::new(std::env::current_exe().expect("this binary has a path"))
            .args(["child", "--exact", "--nocapture"])
            .env("KAELIX_KILL_DIR", &self.dir)
            .env("KAELIX_KILL_ACKS", &self.acks)
            .env("KAELIX_KILL_FIRST", self.first.to_string())
            .env("KAELIX_KILL_DURABLE", u64::from(self.durable).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(errors).expect("a file for its errors"))
            .spawn()
            .expect("this binary can be started")
    }

    fn from_environment() -> Option<Orders> {
        Some(Orders {
            dir: std::env::var_os("KAELIX_KILL_DIR")?.into(),
            acks: std::env::var_os("KAELIX_KILL_ACKS")?.into(),
            first: number("KAELIX_KILL_FIRST", 0),
            durable: number("KAELIX_KILL_DURABLE", 0) != 0,
        })
    }
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() {
    let Some(orders) = Orders::from_environment() else { return };
    let start = Instant::now();
    let flights = Flights::load();
    let wal = Wal::open(&orders.dir, Options::new()).expect("the parent could open it");
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (wal, orders, flights) = (&wal, &orders, &flights);
            scope.spawn(move || {
                let mut acks = OpenOptions::new().append(true).open(&orders.acks).expect("made");
                let own = (orders.first..).map(|count| count * PRODUCERS + producer);
                for flight in own.take_while(|_| start.elapsed() < CHILD_LIFE) {
                    let lsn = commit(wal, flights, flight, orders.durable);
                    let ack = [flight.to_le_bytes(), lsn.get().to_le_bytes()].concat();
                    acks.write_all(&ack).expect("the acknowledgement can be written");
                }
            });
        }
    });
}

fn commit(wal: &Wal, flights: &Flights, flight: u64, durable: bool) -> Lsn {
    let (from, to) = flights.airports(flight);
    let streams = wal.streams(&[from, to]).expect("they are there or created");
    let mut transaction = wal.begin();
    for (stream, kind) in streams.iter().zip(['D', 'A']) {
        let entry = flights.entry(kind, flight);
        transaction.append(stream, entry.as_bytes()).expect("it is small");
    }
    if durable {
        transaction.commit_durable().expect("the disk takes it")
    } else {
        transaction.commit().expect("the parent makes room")
    }
}

fn acknowledged(path: &Path) -> Vec<(u64, Lsn)> {
    let bytes = std::fs::read(path).expect("the acknowledgements can be read");
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let ack = |ack: &[u8]| (word(&ack[..8]), Lsn::new(word(&ack[8..])));
    bytes.chunks_exact(ACK_LEN).map(ack).collect()
}

/// The flights of a log, by position, as its streams say.
type Content = BTreeMap<Lsn, u64>;

/// Reads all streams by their names. Rules 1 and 3.
fn content(wal: &Wal, flights: &Flights) -> Content {
    let mut departed = Content::new();
    let mut arrived = Content::new();
    for (_, name) in wal.stream_names() {
        let stream = wal.stream(&name).expect("it is there");
        let mut reader = stream.read(Position::Oldest).expect("it can be read");
        let mut last = Lsn::ZERO;
        while let Some(entry) = reader.next().expect("every record verifies") {
            assert!(entry.lsn >= last, "{name}: {} comes after {last}", entry.lsn);
            last = entry.lsn;
            let (flight, kind) = flights.recognize(entry.payload, entry.lsn);
            let (from, to) = flights.airports(flight);
            let (found, airport) =
                if kind == 'D' { (&mut departed, from) } else { (&mut arrived, to) };
            assert_eq!(name, airport, "{kind}{flight} at {last} is in another stream");
            let twice = found.insert(entry.lsn, flight);
            assert_eq!(twice, None, "two of one kind at {last}");
        }
    }
    // Rule 1.
    assert_eq!(departed, arrived, "a departure without its arrival, or the other way round");
    assert_eq!(departed.len() as u64, wal.recovery_report().records);
    // Rule 3.
    let mut lasts = BTreeMap::new();
    for (lsn, flight) in &departed {
        let (producer, count) = (flight % PRODUCERS, flight / PRODUCERS);
        if let Some(last) = lasts.insert(producer, count) {
            // A new cycle begins at a multiple of 2^32.
            let follows = count == last + 1 || (count > last && count.trailing_zeros() >= 32);
            assert!(follows, "thread {producer}: {count} at {lsn} comes after {last}");
        }
    }
    departed
}

/// Rule 2: what is `wanted` and not below `start` is in `content`.
fn contains(content: &Content, wanted: &[(u64, Lsn)], start: Lsn, what: &str) {
    for (flight, lsn) in wanted.iter().filter(|(_, lsn)| *lsn >= start) {
        assert_eq!(content.get(lsn), Some(flight), "{what}: flight {flight} at {lsn}");
    }
}

/// As after a power loss: a prefix, with everything that was acknowledged as durable.
fn check_copy(place: &Place, flights: &Flights, durable: bool, acks: &[(u64, Lsn)]) -> Content {
    let copy = place.beside("copy");
    copy_log(&place.path, &copy);
    let wal = Wal::open(&copy, Options::new()).expect("a copy opens as after a power loss");
    let outcome = wal.recovery_report().outcome;
    assert!(matches!(outcome, RecoveryOutcome::PowerLost | RecoveryOutcome::Clean), "{outcome}");
    let content = content(&wal, flights);
    if durable {
        contains(&content, acks, wal.recovery_report().start, "durable");
    }
    drop(wal);
    std::fs::remove_dir_all(&copy).expect("the copy can be removed");
    content
}

/// One cycle; `known` is what the log held before, and holds now. Returns how many transactions
/// were acknowledged.
fn cycle(
    place: &Place,
    flights: &Flights,
    orders: &Orders,
    rng: &mut Rng,
    known: &mut Content,
) -> usize {
    File::create(&orders.acks).expect("a file for the acknowledgements");
    let errors = place.beside("errors");
    let mut child = orders.start(&errors);
    if rng.below(4) > 0 {
        wait_until("the child works or has ended", || {
            let acks = std::fs::metadata(&orders.acks).expect("it is there").len();
            acks > 0 || child.try_wait().expect("it is ours").is_some()
        });
    }
    thread::park_timeout(Duration::from_micros(rng.below(30_000)));
    child.kill().expect("it is ours");
    let status = child.wait().expect("it is ours");
    let said = std::fs::read_to_string(&errors).unwrap_or_default();
    assert_eq!(status.signal(), Some(9), "the child ended by itself: {status}\n{said}");

    let acks = acknowledged(&orders.acks);
    let prefix = check_copy(place, flights, orders.durable, &acks);
    let wal = place.open(Options::new());
    assert_eq!(wal.recovery_report().cut_records, 0, "{}", wal.recovery_report());
    let now = content(&wal, flights);
    let start = wal.recovery_report().start;
    contains(&now, &acks, start, "acknowledged");
    let before: Vec<_> = known.iter().map(|(lsn, flight)| (*flight, *lsn)).collect();
    contains(&now, &before, start, "known");
    assert!(now.iter().take(prefix.len()).eq(&prefix), "the copy holds a prefix");

    // Half of it is released, so that there is space.
    if let Some(lsn) = now.keys().nth(now.len() / 2) {
        wal.checkpoint(*lsn).expect("a record starts there");
        wal.sync_checkpoint().expect("the disk takes it");
    }
    *known = now;
    acks.len()
}

#[test]
fn no_transaction_is_torn_or_lost_by_kill_9() {
    let mut rng = Rng::new(seed("no_transaction_is_torn_or_lost_by_kill_9"));
    let flights = Flights::load();
    let cycles = number("KAELIX_KILL_CYCLES", 40);
    let mut log: Option<(Place, Content)> = None;
    // More than the child commits before it is killed.
    let geometry = Geometry::new(64 << 20, 1 << 20).expect("possible sizes");
    let mut acknowledged = 0;
    for index in 0..cycles {
        if index % CYCLES_A_LOG == 0 {
            let place = Place::new();
            drop(Wal::create(&place.path, geometry, Options::new()).expect("a new log"));
            log = Some((place, Content::new()));
        }
        let (place, known) = log.as_mut().expect("made in the first cycle");
        let orders = Orders {
            dir: place.path.clone(),
            acks: place.beside("acks"),
            first: (index + 1) << 32,
            durable: index % 2 == 0,
        };
        acknowledged += cycle(place, &flights, &orders, &mut rng, known);
    }
    assert!(acknowledged > 0 || cycles < 10, "no child got anywhere");
}
