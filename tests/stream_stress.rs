//! Streams under stress: batches, transactions and streams under version control by many threads,
//! in a small ring that goes round and round, beside readers of streams and checkpoints.
//!
//! `KAELIX_STRESS` makes it longer by that factor.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use common::{MODES, PATIENCE, Place, Rng, check_numbered, numbered, seed, stress};
use kaelix_wal::{
    AppendError, Entry, EntryReader, Geometry, LogEntry, Lsn, Options, Position, ReadError, Stream,
    StreamId, Wal,
};

const WRITERS: u32 = 4;
const ACCOUNTS: [&str; 2] = ["account 1", "account 2"];

/// An entry says what the newest record of its stream had to be (0: any), which entry of how many
/// of its record it is, and who wrote it as which.
fn payload(expected: Lsn, place: [u8; 2], writer: u32, number: u64, len: u64) -> Vec<u8> {
    let mut payload = expected.get().to_le_bytes().to_vec();
    payload.extend_from_slice(&place);
    payload.extend_from_slice(&numbered(writer, number, len as usize));
    payload
}

/// What a reader has seen so far.
#[derive(Default)]
struct Seen {
    /// Each stream's newest record.
    last: BTreeMap<StreamId, Lsn>,
    /// Of each stream and writer.
    next: BTreeMap<(StreamId, u32), u64>,
    /// The entry of a record that was seen last, and how many there are.
    open: Option<(Lsn, [u8; 2])>,
}

impl Seen {
    /// Looks at an entry. `all`: the reader is shown every entry of a record.
    fn check(&mut self, entry: &LogEntry<'_>, all: bool) {
        let stream = entry.stream.expect("all have one");
        let (expected, rest) = entry.payload.split_first_chunk().expect("8 bytes");
        let (place, rest) = rest.split_first_chunk::<2>().expect("2 bytes");
        let (writer, number) = check_numbered(entry.lsn, rest);
        let last = self.last.insert(stream, entry.lsn).unwrap_or(Lsn::ZERO);
        assert!(last <= entry.lsn, "{} behind {last}", entry.lsn);
        let expected = Lsn::new(u64::from_le_bytes(*expected));
        if expected != Lsn::ZERO && last != Lsn::ZERO {
            assert_eq!(last, expected, "the version of stream {stream} at {}", entry.lsn);
        }
        let next = self.next.entry((stream, writer)).or_default();
        assert!(*next <= number, "{writer}:{number} again, in stream {stream}");
        *next = number + 1;
        if all {
            let [index, count] = *place;
            let before = self.open.replace((entry.lsn, *place)).filter(|_| index > 0);
            let want = (index > 0).then_some((entry.lsn, [index.wrapping_sub(1), count]));
            assert_eq!(before, want, "a part of the record at {}", entry.lsn);
        }
    }

    fn is_whole(&self) -> bool {
        self.open.is_none_or(|(_, [index, count])| index + 1 == count)
    }
}

/// One writer, of so many records.
fn write(wal: &Wal, writer: u32, count: u64, seed: u64) {
    let mut rng = Rng::new(seed ^ u64::from(writer) << 32);
    let accounts = ACCOUNTS.map(|name| wal.versioned_stream(name).expect("it is there"));
    let events = wal.stream("events").expect("it is there");
    let mut number = 0;
    let mut appended = 0;
    while appended < count {
        number += 1;
        let bound = [30, 200, 3000][rng.below(3) as usize];
        let len = rng.below(bound);
        let entry = |expected, place| payload(expected, place, writer, number, len);
        let account = &accounts[rng.below(2) as usize];
        let result = match rng.below(6) {
            0 => events.append(&entry(Lsn::ZERO, [0, 1])),
            1 => account.append(&entry(Lsn::ZERO, [0, 1])),
            2 => {
                let last = account.last_lsn().expect("it is known");
                account.append_if(last, &entry(last.unwrap_or(Lsn::ZERO), [0, 1]))
            }
            3 => {
                let bytes = entry(Lsn::ZERO, [0, 1]);
                let mut space = account.reserve(bytes.len() + 9).expect("space");
                if rng.below(2) == 0 {
                    continue;
                }
                space[..bytes.len()].copy_from_slice(&bytes);
                Ok(space.commit_len(bytes.len()))
            }
            4 => {
                // In any order: the holds are not.
                let mut streams = [accounts[0].id(), events.id(), accounts[1].id()];
                streams.rotate_left(rng.below(3) as usize);
                let payloads = [0, 1, 2].map(|index| entry(Lsn::ZERO, [index, 3]));
                let entries = streams.iter().zip(&payloads);
                wal.append_batch(entries.map(|(stream, bytes)| Entry::from((*stream, bytes))))
            }
            _ => transfer(wal, &accounts, &events, entry),
        };
        match result {
            Ok(_) => appended += 1,
            Err(AppendError::Conflict { actual: Some(lsn), .. }) => check_committed(wal, lsn),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What is in the way is in the log, or was. It is committed, but what others have claimed before
/// it may not be yet.
fn check_committed(wal: &Wal, lsn: Lsn) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match wal.get(lsn) {
            Ok(_) | Err(ReadError::Trimmed { .. }) => return,
            Err(ReadError::NotYet { .. }) if Instant::now() < deadline => thread::yield_now(),
            Err(error) => panic!("at {lsn}: {error}"),
        }
    }
}

/// Expects both accounts where they are now, and writes to both and to the events.
fn transfer(
    wal: &Wal,
    accounts: &[Stream<'_>; 2],
    events: &Stream<'_>,
    entry: impl Fn(Lsn, [u8; 2]) -> Vec<u8>,
) -> Result<Lsn, AppendError> {
    let mut transaction = wal.begin();
    for (index, account) in accounts.iter().enumerate() {
        let last = account.last_lsn().expect("it is known");
        transaction.expect(account, last)?;
        transaction.append(account, &entry(last.unwrap_or(Lsn::ZERO), [index as u8, 3]))?;
    }
    transaction.append(events, &entry(Lsn::ZERO, [2, 3]))?;
    transaction.commit()
}

/// Reads every entry, and releases what it has read.
fn read_all(wal: &Wal, records: u64) {
    let mut reader = wal.entries(Position::Oldest).expect("the start");
    let (mut seen, mut ends) = (Seen::default(), 0);
    while ends < records {
        let entry = reader.next_timeout(PATIENCE).expect("intact").expect("they are not that slow");
        seen.check(&entry, true);
        if seen.is_whole() {
            ends += 1;
            let to = entry.next_lsn;
            wal.checkpoint(to).expect("the next record starts there");
        }
    }
}

/// Follows some of the streams to the end of the log, and begins anew now and then.
fn follow(wal: &Wal, streams: &[StreamId], rng: &mut Rng) {
    let open = |from| wal.read_streams(streams.iter().copied(), from).expect("a pin is free");
    let mut reader: EntryReader<'_> = open(Position::Oldest);
    let mut seen = Seen::default();
    loop {
        match reader.next_timeout(PATIENCE) {
            Ok(Some(entry)) => {
                assert!(streams.contains(&entry.stream.expect("all have one")));
                seen.check(&entry, false);
            }
            Ok(None) => panic!("nothing came for {PATIENCE:?}"),
            Err(ReadError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
        if rng.below(3000) == 0 {
            // The newest records are seen again, or some are left out.
            reader = open([Position::Oldest, Position::Newest][rng.below(2) as usize]);
            seen = Seen::default();
        }
    }
}

#[test]
fn streams_batches_and_transactions_stay_whole_and_serial() {
    let seed = seed("streams_batches_and_transactions_stay_whole_and_serial");
    let count = 1000 * stress();
    for (durability, index_bytes) in MODES.into_iter().zip([0, 16 << 10, 1 << 20]) {
        let place = Place::new();
        let options = Options::new().durability(durability).stream_index_bytes(index_bytes);
        let geometry = Geometry::new(512 << 10, 64 << 10).expect("possible sizes");
        let wal = Wal::create(&place.path, geometry, options).expect("a new log");
        let wal = Arc::new(wal);
        let accounts: Vec<StreamId> =
            ACCOUNTS.iter().map(|name| wal.versioned_stream(name).expect("new").id()).collect();
        let events = wal.stream("events").expect("new").id();
        let selections =
            [vec![accounts[0]], vec![accounts[1], events], vec![events, accounts[0], accounts[1]]];
        let followers: Vec<_> = (0_u64..)
            .zip(selections)
            .map(|(number, streams)| {
                let wal = wal.clone();
                thread::spawn(move || follow(&wal, &streams, &mut Rng::new(seed + number)))
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let wal = wal.clone();
                thread::spawn(move || write(&wal, writer, count, seed))
            })
            .collect();
        read_all(&wal, u64::from(WRITERS) * count);
        for thread in writers {
            thread.join().expect("no panic");
        }
        let last = |wal: &Wal| {
            ACCOUNTS.map(|name| {
                wal.versioned_stream(name).expect("it is there").last_lsn().expect("it is known")
            })
        };
        let before = last(&wal);
        wal.close().expect("no hole");
        for thread in followers {
            thread.join().expect("no panic");
        }
        drop(wal);
        assert_eq!(last(&place.open(options)), before, "after a reopen");
    }
}
