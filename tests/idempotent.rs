//! Idempotent producers: what is tried again, by threads at the same time or by a process that was
//! killed in between, is in the log once, and everybody is told the same position.
//!
//! For the kill, this test binary starts itself again as a child that appends and acknowledges, as
//! in `kill9.rs`. It has no memory of what it has appended: the log has.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Place, Rng, check_numbered, number, numbered, seed, stress, wait_until};
use kaelix_wal::inspect::Observer;
use kaelix_wal::{
    AppendError, Durability, Geometry, Lsn, OnFull, Options, Position, ProducerId, Wal,
};

const THREADS: u64 = 4;

fn id(number: u64) -> ProducerId {
    ProducerId::new(number)
}

/// Who appended what where, each sequence once and in order.
fn appended(wal: &Wal) -> BTreeMap<(u64, u64), Lsn> {
    let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
    let (mut found, mut last) = (BTreeMap::new(), BTreeMap::new());
    while let Some(record) = reader.next().expect("every record verifies") {
        let Some((producer, sequence)) = record.producer() else { continue };
        let before = last.insert(producer, sequence);
        assert!(before.is_none_or(|before| before < sequence), "{producer}:{sequence}");
        found.insert((producer.get(), sequence), record.lsn());
    }
    found
}

#[test]
fn a_stamp_is_seen_by_every_reader_and_is_no_part_of_the_payload() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    let five = wal.stream("five").expect("it can be created").id();
    let six = wal.stream("six").expect("it can be created").id();
    let single = producer.append(1, (five, b"one")).expect("there is room");
    let batch = [(five, b"two"), (six, b"six")];
    let batch = producer.append_batch(2, batch).expect("there is room");
    let empty = producer.append(3, b"").expect("there is room");
    let plain = wal.append(b"plain").expect("there is room");
    assert_eq!(wal.get(single.lsn).expect("it is there").stream(), Some(five));
    assert_eq!(wal.get(plain).expect("it is there").producer(), None);
    let want = [
        (single.lsn, Some((id(7), 1)), vec![&b"one"[..]]),
        (batch.lsn, Some((id(7), 2)), vec![b"two", b"six"]),
        (empty.lsn, Some((id(7), 3)), vec![b""]),
        (plain, None, vec![b"plain"]),
    ];
    let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
    for (lsn, stamp, entries) in &want {
        let record = reader.next().expect("it verifies").expect("it is there");
        assert_eq!((record.lsn(), record.producer()), (*lsn, *stamp));
        let found: Vec<_> = record.entries().map(|entry| entry.payload).collect();
        assert_eq!(&found, entries);
        if !record.is_batch() {
            assert_eq!(record.payload(), entries[0]);
        }
    }
    let observer = Observer::open(&place.path).expect("it is there");
    let mut cursor = observer.cursor(Position::Oldest).expect("nothing is trimmed");
    for (lsn, stamp, entries) in &want {
        let record = cursor.next().expect("it verifies").expect("it is there");
        assert_eq!((record.lsn(), record.producer()), (*lsn, *stamp));
        let found: Vec<_> = record.entries().map(|entry| entry.payload).collect();
        assert_eq!(&found, entries);
    }
}

/// Streams know nothing of sequences: they find the record, and its version, like any other.
#[test]
fn a_stream_holds_what_was_appended_to_it_idempotently_once() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let stream = wal.versioned_stream("orders").expect("it can be created");
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    for sequence in [1, 1, 2, 2] {
        let appended = match sequence {
            1 => producer.append(sequence, (stream.id(), b"first")),
            _ => producer.append_batch(sequence, [(stream.id(), b"a"), (stream.id(), b"b")]),
        };
        let appended = appended.expect("there is room");
        assert_eq!(stream.last_lsn().expect("nothing is damaged"), Some(appended.lsn));
    }
    let entries = wal.read_streams([stream.id()], Position::Oldest).expect("nothing is trimmed");
    let payloads: Vec<_> =
        entries.copied().map(|entry| entry.expect("it verifies").payload).collect();
    assert_eq!(payloads, [&b"first"[..], b"a", b"b"]);
}

#[test]
fn the_largest_payload_is_16_bytes_shorter() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    let most = wal.geometry().payload_len_max() - 16;
    let refused = producer.append(1, &vec![1; most + 1]);
    assert!(
        matches!(refused, Err(AppendError::TooLarge { len, max }) if (len, max) == (most + 1, most))
    );
    let refused = producer.append_batch(1, [&vec![1; most - 7]]);
    assert!(matches!(refused, Err(AppendError::TooLarge { len, max }) if len > max && max == most));
    let refused = producer.append_batch(1, [b""; 0]);
    assert!(matches!(refused, Err(AppendError::EmptyBatch)));
    assert_eq!(producer.last_sequence(), None);
    let appended = producer.append(1, &vec![1; most]).expect("it fits");
    assert_eq!(wal.get(appended.lsn).expect("it is there").payload(), vec![1; most]);
    assert!(!producer.append_batch(2, [&vec![1; most - 8]]).expect("it fits").duplicate);
}

#[test]
fn a_panic_in_a_batchs_iterator_leaves_the_sequence_free() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    let panicking = std::panic::AssertUnwindSafe(|| {
        let looked = std::cell::Cell::new(0);
        let entry = |_| {
            looked.set(looked.get() + 1);
            assert!(looked.get() < 3, "on purpose");
            b"an entry"
        };
        producer.append_batch(1, [1, 2].iter().map(entry))
    });
    assert!(std::panic::catch_unwind(panicking).is_err());
    assert_eq!(producer.last_sequence(), None);
    assert!(!producer.append(1, b"in its place").expect("nobody is in the way").duplicate);
    assert_eq!(appended(&wal).len(), 1);
}

/// The first try stands between its claim and its commit; the second one is told where it will be.
#[test]
fn a_retry_waits_for_the_first_try() {
    let place = Place::new();
    let wal = place.create(Options::new());
    thread::scope(|scope| {
        let producer = wal.idempotent(id(7)).expect("there is nothing to read");
        let other = wal.idempotent(id(7)).expect("there is nothing to read");
        let (claimed, is_claimed) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let first = scope.spawn(move || {
            let looks = Cell::new(0);
            let entry = |_| {
                looks.set(looks.get() + 1);
                if looks.get() == 2 {
                    // The second look, which copies.
                    claimed.send(()).expect("the test waits");
                    may_go_on.recv().expect("the test lets it go on");
                }
                b"once"
            };
            producer.append_batch(1, [()].iter().map(entry)).expect("there is room")
        });
        is_claimed.recv().expect("the first try comes that far");
        let (ended, has_ended) = mpsc::channel();
        let second = scope.spawn(move || {
            let appended = other.append(1, b"twice").expect("it is known");
            ended.send(()).expect("the test waits");
            appended
        });
        let early = has_ended.recv_timeout(Duration::from_millis(100));
        go_on.send(()).expect("the first try waits");
        assert!(early.is_err(), "the second try has not waited");
        let (first, second) = (first.join().expect("no panic"), second.join().expect("no panic"));
        assert!(!first.duplicate && second.duplicate && first.lsn == second.lsn);
    });
    assert_eq!(appended(&wal).len(), 1);
}

/// All threads append each sequence of two producers at the same time, single or as a batch.
#[test]
fn each_sequence_is_in_the_log_once_whoever_tries() {
    let count = 2000 * stress();
    let place = Place::new();
    let geometry = Geometry::new(4 << 20, 64 << 10).expect("possible sizes");
    let wal = Wal::create(&place.path, geometry, Options::new()).expect("a new log");
    let (barrier, firsts) = (Barrier::new(THREADS as usize), AtomicU64::new(0));
    let told: Vec<BTreeSet<(u64, u64, Lsn)>> = thread::scope(|scope| {
        let work = |thread: u64| {
            let (wal, barrier, firsts) = (&wal, &barrier, &firsts);
            move || {
                let mut told = BTreeSet::new();
                for sequence in 0..count {
                    let producer = sequence % 2;
                    let idempotent = wal.idempotent(id(producer)).expect("nothing is damaged");
                    let payload = numbered(producer as u32, sequence, 20);
                    barrier.wait();
                    let appended = match (sequence + thread) % 3 {
                        0 => idempotent.append_batch(sequence, [&payload]),
                        _ => idempotent.append(sequence, &payload),
                    };
                    let appended = appended.expect("space");
                    firsts.fetch_add(u64::from(!appended.duplicate), Ordering::Relaxed);
                    told.insert((producer, sequence, appended.lsn));
                }
                told
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(firsts.into_inner(), count, "one is the first");
    let all = appended(&wal);
    let told: BTreeSet<_> = told.into_iter().flatten().collect();
    assert_eq!(told.len(), all.len(), "one position each");
    for (producer, sequence, lsn) in told {
        assert_eq!(all.get(&(producer, sequence)), Some(&lsn), "{producer}:{sequence}");
    }
    assert_eq!(all.len() as u64, count);
    // And far back, where only a walk finds them, from several threads at a time.
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (wal, all) = (&wal, &all);
            scope.spawn(move || {
                for ((producer, sequence), lsn) in all.iter().skip(thread as usize * 7).step_by(97)
                {
                    let producer = wal.idempotent(id(*producer)).expect("nothing is damaged");
                    let again = producer.append(*sequence, b"").expect("it is retained");
                    assert!(again.duplicate && again.lsn == *lsn);
                }
            });
        }
    });
    assert_eq!(appended(&wal), all);
}

/// In a log that overwrites its oldest: what is released is refused or still known, never wrong.
#[test]
fn retries_against_a_janitor_that_overwrites_the_oldest() {
    let place = Place::new();
    let options = Options::new().on_full(OnFull::Overwrite).durability(Durability::None);
    let wal = place.create(options);
    let mut rng = Rng::new(seed("retries_against_a_janitor_that_overwrites_the_oldest"));
    let producer = wal.idempotent(id(7)).expect("there is nothing to read");
    let mut lsns = Vec::new();
    let mut found = 0;
    for sequence in 0..20_000 * stress() {
        let appended = producer.append(sequence, &[1; 30]).expect("the oldest makes room");
        assert!(!appended.duplicate);
        lsns.push(appended.lsn);
        let back = sequence.saturating_sub(rng.below(6000));
        if sequence % 50 == 0 {
            match producer.append(back, b"") {
                Ok(again) => {
                    assert!(again.duplicate && again.lsn == lsns[back as usize]);
                    found += 1;
                }
                Err(AppendError::SequenceTooOld { .. }) => {
                    assert!(lsns[back as usize] < wal.watermarks().trimmed);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(found > 50, "{found} were found");
}

const CHILD_LIFE: Duration = Duration::from_secs(20);
const ACK_LEN: usize = 24;

/// Not a test by itself: the process that is killed. Each thread is a producer that begins a few
/// sequences before the last that its log knows of, as one does that has lost acknowledgements.
#[test]
fn child() {
    let Some(dir) = std::env::var_os("KAELIX_IDEMPOTENT_DIR") else { return };
    let acks: PathBuf = std::env::var_os("KAELIX_IDEMPOTENT_ACKS").expect("its parent says").into();
    let (dir, start) = (PathBuf::from(dir), Instant::now());
    let wal = Wal::open(&dir, Options::new()).expect("the parent could open it");
    let caught_up = AtomicU64::new(0);
    thread::scope(|scope| {
        for producer in 0..THREADS {
            let (wal, acks, caught_up) = (&wal, &acks, &caught_up);
            scope.spawn(move || {
                let mut acks = OpenOptions::new().append(true).open(acks).expect("it is there");
                let idempotent = wal.idempotent(id(producer)).expect("nothing is damaged");
                let newest = idempotent.last_sequence();
                let first = newest.map_or(0, |newest| newest.saturating_sub(100));
                let new = newest.map_or(0, |newest| newest + 1);
                for sequence in first.. {
                    if sequence == new {
                        caught_up.fetch_add(1, Ordering::Relaxed);
                    }
                    if start.elapsed() > CHILD_LIFE {
                        return;
                    }
                    let payload = numbered(producer as u32, sequence, (sequence % 700) as usize);
                    let appended = match idempotent.append(sequence, &payload) {
                        // The last process has released it.
                        Err(AppendError::SequenceTooOld { .. }) if sequence < new => continue,
                        appended => appended.expect("space"),
                    };
                    assert_eq!(appended.duplicate, sequence < new, "{producer}:{sequence}");
                    let words = [producer, sequence, appended.lsn.get()];
                    let ack = words.map(u64::to_le_bytes);
                    acks.write_all(ack.as_flattened()).expect("it can be acknowledged");
                }
            });
        }
        // Releases all but the newest thousand, once nobody asks for older ones: what is released
        // is forgotten, or refused as too old.
        let mut tail = wal.tail(Position::Oldest).expect("the oldest is there");
        let mut kept = std::collections::VecDeque::new();
        while start.elapsed() < CHILD_LIFE {
            let record = tail.next(Duration::from_millis(100)).expect("nothing is damaged");
            let Some(record) = record else { continue };
            kept.push_back(record.lsn());
            if kept.len() > 1000 && caught_up.load(Ordering::Relaxed) == THREADS {
                let released = kept.drain(..kept.len() - 1000).next_back();
                wal.checkpoint(released.expect("there is one")).expect("a boundary");
            }
        }
    });
}

#[test]
fn retries_after_kill_9_leave_no_duplicates_and_lose_nothing() {
    let mut rng = Rng::new(seed("retries_after_kill_9_leave_no_duplicates_and_lose_nothing"));
    let place = Place::new();
    let geometry = Geometry::new(4 << 20, 64 << 10).expect("possible sizes");
    drop(Wal::create(&place.path, geometry, Options::new()).expect("a new log"));
    let (acks, errors) = (place.beside("acks"), place.beside("errors"));
    // What the log is known to hold.
    let mut known = BTreeMap::new();
    for cycle in 0..number("KAELIX_KILL_CYCLES", 20) {
        File::create(&acks).expect("a file for the acknowledgements");
        let mut child = Command::new(std::env::current_exe().expect("this binary has a path"))
            .args(["child", "--exact", "--nocapture"])
            .env("KAELIX_IDEMPOTENT_DIR", &place.path)
            .env("KAELIX_IDEMPOTENT_ACKS", &acks)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors).expect("a file for its errors"))
            .spawn()
            .expect("this binary can be started");
        wait_until("the child works or has ended", || {
            let acks = std::fs::metadata(&acks).expect("it is there").len();
            acks > 0 || child.try_wait().expect("it is ours").is_some()
        });
        thread::park_timeout(Duration::from_micros(rng.below(40_000)));
        child.kill().expect("it is ours");
        let status = child.wait().expect("it is ours");
        let said = std::fs::read_to_string(&errors).unwrap_or_default();
        assert_eq!(status.signal(), Some(9), "the child ended by itself: {status}\n{said}");

        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        for ack in std::fs::read(&acks).expect("it is there").chunks_exact(ACK_LEN) {
            let (who, lsn) = ((word(&ack[..8]), word(&ack[8..16])), Lsn::new(word(&ack[16..])));
            let before = known.insert(who, lsn);
            assert!(before.is_none_or(|before| before == lsn), "{who:?} in two places");
        }
        let wal = place.open(Options::new());
        let all = appended(&wal);
        let start = wal.recovery_report().start;
        known.retain(|_, lsn| *lsn >= start);
        for (who, lsn) in &known {
            assert_eq!(all.get(who), Some(lsn), "{who:?} was acknowledged, cycle {cycle}");
        }
        for ((producer, sequence), lsn) in &all {
            let record = wal.get(*lsn).expect("it is there");
            assert_eq!(check_numbered(*lsn, &record), (*producer as u32, *sequence));
        }
        for ((producer, sequence), lsn) in all.iter().step_by(17) {
            let producer = wal.idempotent(id(*producer)).expect("nothing is damaged");
            let again = producer.append(*sequence, b"").expect("it is retained");
            assert!(again.duplicate && again.lsn == *lsn);
        }
        known.extend(all);
    }
    assert!(known.len() > 100, "{} are known", known.len());
}
