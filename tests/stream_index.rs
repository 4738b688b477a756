//! The index of streams against a list of everything that was appended: with hardly any memory for
//! it, over reopens, trims, laps and damage, and under readers that stand where they are meanwhile.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    DATA_OFFSET, FIRST_RECORD, Place, Rng, SEGMENT, check_numbered, numbered, seed, small, stress,
    within_patience,
};
use kaelix_wal::{
    AppendError, Durability, Entry, EntryReader, Geometry, Lsn, OnFull, Options, Position,
    ReadError, StreamId, Wal,
};
use proptest::prelude::*;

const STREAMS: u32 = 4;

fn id(stream: u32) -> StreamId {
    StreamId::new(stream).expect("not 0")
}

/// An entry as it was appended. Those of one record share its LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Appended {
    lsn: Lsn,
    stream: Option<StreamId>,
    payload: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Step {
    Append(u32, usize),
    Batch(Vec<u32>, usize),
    Abort(u32, usize),
    /// Releases so many hundredths of what is retained.
    Trim(usize),
    Reopen,
    /// Compares readers of these streams, from a record so many hundredths in.
    Read(Vec<u32>, usize),
    /// Flips a byte of the record so many hundredths in, and mends it again.
    Damage(Vec<u32>, usize),
    /// As `Read`, by a reader that stays from step to step.
    Follow(Vec<u32>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let streams = || prop::collection::vec(1..=STREAMS, 1..4);
    prop_oneof![
        8 => (0..=STREAMS, 0..3000_usize).prop_map(|(stream, len)| Step::Append(stream, len)),
        // Many small ones: blocks of the index end by their number.
        4 => (prop::collection::vec(0..=STREAMS, 1..60), 0..40_usize)
            .prop_map(|(streams, len)| Step::Batch(streams, len)),
        1 => (1..=STREAMS, 0..3000_usize).prop_map(|(stream, len)| Step::Abort(stream, len)),
        2 => (0..=100_usize).prop_map(Step::Trim),
        1 => Just(Step::Reopen),
        3 => (streams(), 0..100_usize).prop_map(|(streams, part)| Step::Read(streams, part)),
        2 => (streams(), 0..100_usize).prop_map(|(streams, part)| Step::Damage(streams, part)),
        3 => streams().prop_map(Step::Follow),
    ]
}

/// The list, and the log that it is compared with.
struct Run {
    place: Place,
    options: Options,
    all: Vec<Appended>,
    number: u64,
}

impl Run {
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.number += 1;
        numbered(0, self.number, len.max(20))
    }

    /// Appends entries as one record, making room for it if need be.
    fn append(&mut self, wal: &Wal, streams: &[u32], len: usize) {
        let entries: Vec<_> =
            streams.iter().map(|stream| (StreamId::new(*stream), self.payload(len))).collect();
        let as_entries = entries
            .iter()
            .map(|(stream, payload)| Entry { stream: *stream, payload: &payload[..] });
        let lsn = match wal.append_batch(as_entries.clone()) {
            Ok(lsn) => lsn,
            Err(AppendError::Full { .. }) => {
                wal.checkpoint(wal.watermarks().published).expect("the end is a boundary");
                wal.sync_checkpoint().expect("the disk takes it");
                wal.append_batch(as_entries).expect("everything has been released")
            }
            Err(error) => panic!("{error}"),
        };
        let appended =
            entries.into_iter().map(|(stream, payload)| Appended { lsn, stream, payload });
        self.all.extend(appended);
    }

    /// What `streams` hold from `from` on.
    fn want<'a>(
        &'a self,
        streams: &'a [u32],
        from: Lsn,
    ) -> impl Iterator<Item = &'a Appended> + 'a {
        let start = self.all.partition_point(|appended| appended.lsn < from);
        let is_wanted = |appended: &&Appended| {
            appended.stream.is_some_and(|stream| streams.contains(&stream.get()))
        };
        self.all[start..].iter().filter(is_wanted)
    }

    /// A record of what is retained.
    fn pick(&self, wal: &Wal, part: usize) -> Option<Lsn> {
        let start = self.all.partition_point(|it| it.lsn < wal.watermarks().trimmed);
        let retained = &self.all[start..];
        retained.get(retained.len() * part / 100).map(|appended| appended.lsn)
    }

    fn read(&self, wal: &Wal, streams: &[u32], part: usize) {
        let Some(from) = self.pick(wal, part) else { return };
        let ids = streams.iter().copied().map(id);
        let mut reader = wal.read_streams(ids, Position::At(from)).expect("a boundary");
        for want in self.want(streams, from) {
            expect(&mut reader, want);
        }
        assert!(reader.next().expect("nothing is damaged").is_none(), "more than was appended");
        let trimmed = wal.watermarks().trimmed;
        for stream in 1..=STREAMS {
            let name = format!("stream {stream}");
            let handle = wal.stream(&name).expect("it is there");
            let streams = [stream];
            assert_eq!(
                handle.len().expect("undamaged"),
                self.want(&streams, trimmed).count() as u64
            );
            let last = self.want(&streams, trimmed).last().map(|appended| appended.lsn);
            assert_eq!(handle.last_lsn().expect("undamaged"), last);
        }
    }

    /// Everything before a damaged record is shown; then it is reported, for as long as it is
    /// damaged; then everything from there on is shown.
    fn damage(&self, wal: &Wal, streams: &[u32], part: usize) {
        let Some(damaged) = self.pick(wal, part) else { return };
        let trimmed = wal.watermarks().trimmed;
        let ids = streams.iter().copied().map(id);
        let mut reader = wal.read_streams(ids, Position::At(trimmed)).expect("a boundary");
        self.flip(damaged);
        let mut wanted = self.want(streams, trimmed).peekable();
        let mut reported = None;
        while let Some(want) = wanted.peek() {
            match reader.next() {
                Ok(Some(found)) => {
                    assert_eq!((found.lsn, found.payload), (want.lsn, &want.payload[..]))
                }
                Ok(None) => panic!("{:?} is passed over, {damaged} is damaged", want.lsn),
                Err(ReadError::Damaged { lsn, .. }) => {
                    reported = Some(lsn);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            wanted.next();
        }
        if wanted.peek().is_none() {
            // Who has the index does not read on; who catches up, or walks, does.
            match reader.next() {
                Ok(None) => {}
                Err(ReadError::Damaged { lsn, .. }) => reported = Some(lsn),
                other => panic!("{other:?}"),
            }
        }
        if let Some(lsn) = reported {
            assert_eq!(lsn, damaged);
            assert!(wanted.peek().is_none_or(|want| want.lsn >= damaged), "reported too early");
            for _ in 0..2 {
                let again = reader.next().map(|found| found.map(|found| found.lsn));
                assert!(matches!(again, Err(ReadError::Damaged { lsn, .. }) if lsn == damaged));
            }
            assert!(reader.position() <= damaged, "beyond what is damaged");
        }
        self.flip(damaged);
        for want in wanted {
            expect(&mut reader, want);
        }
        assert!(reader.next().expect("it is mended").is_none());
    }

    /// Flips a byte of the record at `lsn`, behind its header.
    fn flip(&self, lsn: Lsn) {
        let (sequence, offset) = (lsn.get() / SEGMENT, lsn.get() % SEGMENT);
        let segments = u64::from(small().segments());
        let at = DATA_OFFSET + sequence % segments * SEGMENT + offset + 16;
        let file = OpenOptions::new().read(true).write(true).open(self.place.ring());
        let file = file.expect("the ring is there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it is there");
        file.write_all_at(&[!byte[0]], at).expect("it may be written");
    }

    fn run(mut self, steps: &[Step]) {
        let names: Vec<String> = (1..=STREAMS).map(|stream| format!("stream {stream}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut wal = self.place.create(self.options);
        wal.streams(&names).expect("they are created");
        for lives in steps.split(|step| matches!(step, Step::Reopen)) {
            self.live(&wal, lives);
            drop(wal);
            wal = self.place.open(self.options);
            self.read(&wal, &[1, 2, 3, 4], 0);
        }
    }

    fn live(&mut self, wal: &Wal, steps: &[Step]) {
        let mut followers: Vec<(Vec<u32>, EntryReader<'_>, Lsn)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(stream, len) => {
                    let retained = wal.watermarks().reserved - wal.watermarks().trimmed;
                    if retained > 2 * SEGMENT {
                        // Before the ring is full: a follower's pin would keep it so.
                        followers.clear();
                    }
                    self.append(wal, &[*stream], *len);
                }
                Step::Batch(streams, len) => {
                    followers.truncate(1);
                    if wal.watermarks().reserved - wal.watermarks().trimmed > 2 * SEGMENT {
                        followers.clear();
                    }
                    self.append(wal, streams, *len);
                }
                Step::Abort(stream, len) => {
                    let name = format!("stream {stream}");
                    drop(wal.stream(&name).expect("it is there").reserve(*len));
                }
                Step::Trim(part) => {
                    if let Some(lsn) = self.pick(wal, *part) {
                        wal.checkpoint(lsn).expect("a boundary");
                        wal.sync_checkpoint().expect("the disk takes it");
                    }
                }
                Step::Read(streams, part) => self.read(wal, streams, *part),
                Step::Damage(streams, part) => self.damage(wal, streams, *part),
                Step::Follow(streams) => {
                    let ids = streams.iter().copied().map(id);
                    let reader = wal.read_streams(ids, Position::Newest).expect("a pin is free");
                    followers.push((streams.clone(), reader, wal.watermarks().published));
                    followers.rotate_left(1);
                    let (streams, reader, from) = &mut followers[0];
                    let mut last = *from;
                    for want in self.want(streams, *from) {
                        expect(reader, want);
                        last = want.lsn + 1;
                    }
                    assert!(reader.next().expect("nothing is damaged").is_none());
                    *from = last;
                }
                Step::Reopen => unreachable!("lives are split there"),
            }
        }
    }
}

fn expect(reader: &mut EntryReader<'_>, want: &Appended) {
    let found = reader.next().expect("nothing is damaged");
    let Some(found) = found else { panic!("{:?} is passed over", want.lsn) };
    assert_eq!((found.lsn, found.stream), (want.lsn, want.stream));
    assert_eq!(found.payload, want.payload);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn readers_of_streams_show_what_was_appended(
        steps in prop::collection::vec(any_step(), 1..80),
        index_bytes in prop::sample::select(vec![0, 512, 2048, 8192, 1 << 20]),
    ) {
        let options = Options::new()
            .durability(Durability::None)
            .on_full(OnFull::Fail)
            .stream_index_bytes(index_bytes);
        Run { place: Place::new(), options, all: Vec::new(), number: 0 }.run(&steps);
    }
}

/// What the index holds may begin where a segment does, and a walk up to there ends at the end of
/// the segment before: that is one place.
#[test]
fn a_walk_up_to_the_start_of_a_segment_ends() {
    within_patience("a reader of a stream", || {
        let place = Place::new();
        let options = Options::new().durability(Durability::None).stream_index_bytes(0);
        let wal = place.create(options);
        let stream = wal.stream("a").expect("new");
        // A block has 64 postings, and a segment as many of these records, and a pad.
        let lsns: Vec<Lsn> =
            (0..130).map(|_| stream.append(&[7; 928]).expect("there is room")).collect();
        assert_eq!(lsns[64].get(), SEGMENT + FIRST_RECORD, "a segment begins with a block");
        let mut reader = stream.read(Position::Oldest).expect("it can be read");
        for lsn in &lsns {
            let found = reader.next().expect("every record verifies").map(|entry| entry.lsn);
            assert_eq!(found, Some(*lsn));
        }
        assert!(reader.next().expect("every record verifies").is_none());
    });
}

/// So many entries that blocks of the index are merged, and that what is found of one stream and of
/// another is cut at different places.
#[test]
fn streams_of_very_different_length_come_in_order_and_whole() {
    const ENTRIES: u32 = 300_000;
    let place = Place::new();
    let options = Options::new().durability(Durability::None);
    let geometry = Geometry::new(64 << 20, 16 << 20).expect("valid sizes");
    let wal = Wal::create(&place.path, geometry, options).expect("a log can be created");
    let streams = wal.streams(&["all but some", "one in 7", "one in 1000"]).expect("new");
    let stream_of = |number: u32| match number {
        _ if number.is_multiple_of(1000) => 2,
        _ if number.is_multiple_of(7) => 1,
        _ => 0,
    };
    // Followed while it grows, as well as at once in the end.
    for number in 0..ENTRIES {
        streams[stream_of(number)].append(&number.to_le_bytes()).expect("there is room");
        if number % 100_000 == 0 {
            assert!(streams[2].last_lsn().expect("undamaged").is_some());
        }
    }
    for wanted in [&[0][..], &[1], &[2], &[0, 1], &[1, 2], &[0, 2], &[0, 1, 2]] {
        let ids = wanted.iter().map(|index| streams[*index].id());
        let mut reader = wal.read_streams(ids, Position::Oldest).expect("it can be read");
        for number in (0..ENTRIES).filter(|number| wanted.contains(&stream_of(*number))) {
            let entry = reader.next().expect("every record verifies").expect("it was appended");
            assert_eq!(entry.payload, number.to_le_bytes(), "of {wanted:?}");
        }
        assert!(reader.next().expect("every record verifies").is_none());
    }
    for (index, stream) in streams.iter().enumerate() {
        let count = (0..ENTRIES).filter(|number| stream_of(*number) == index).count() as u64;
        assert_eq!(stream.len().expect("undamaged"), count);
    }
}

/// Damage lies behind what a reader asks for, or in front: it is shown what is not damaged, and
/// then told, whether the index has been there or not.
#[test]
fn what_lies_before_damage_is_shown_and_then_it_is_reported() {
    for (index_bytes, was_indexed) in [(0, false), (0, true), (1 << 20, false), (1 << 20, true)] {
        let place = Place::new();
        let options = Options::new().durability(Durability::None).stream_index_bytes(index_bytes);
        let mut run = Run { place, options, all: Vec::new(), number: 0 };
        let wal = run.place.create(options);
        let stream = wal.stream("stream 1").expect("new");
        for number in 0..200 {
            run.append(&wal, &[number % 2], 100);
        }
        if was_indexed {
            assert_eq!(stream.len().expect("undamaged"), 100);
        }
        let damaged = run.want(&[1], Lsn::ZERO).nth(70).expect("there are 100").lsn;
        run.flip(damaged);
        let mut reader = stream.read(Position::Oldest).expect("it can be read");
        for want in run.want(&[1], Lsn::ZERO).take(70) {
            expect(&mut reader, want);
        }
        for _ in 0..3 {
            let found = reader.next().map(|entry| entry.map(|entry| entry.lsn));
            assert!(
                matches!(found, Err(ReadError::Damaged { lsn, .. }) if lsn == damaged),
                "{index_bytes} {was_indexed}: {found:?}"
            );
        }
        let mut bounded = stream.read(Position::Oldest).expect("it can be read").until(damaged);
        for want in run.want(&[1], Lsn::ZERO).take(70) {
            expect(&mut bounded, want);
        }
        run.flip(damaged);
        for want in run.want(&[1], Lsn::ZERO).skip(70) {
            expect(&mut reader, want);
        }
    }
}

/// Readers of several streams while others append and the janitor overwrites the oldest: each gets
/// every entry from where it stood, in order, and no error but that what it asked for is gone.
#[test]
fn readers_keep_their_streams_while_the_oldest_is_overwritten() {
    for index_bytes in [0, 4096, 1 << 20] {
        let place = Place::new();
        let options = Options::new()
            .durability(Durability::None)
            .on_full(OnFull::Overwrite)
            .stream_index_bytes(index_bytes);
        let wal = place.create(options);
        let names = ["a", "b", "c"];
        let streams = wal.streams(&names).expect("they are created");
        let rounds = 4000 * stress().max(1);
        let seed = seed("readers_keep_their_streams_while_the_oldest_is_overwritten");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2_u32)
                .map(|writer| {
                    let (wal, streams) = (&wal, &streams);
                    scope.spawn(move || {
                        let mut random = Rng::new(seed + u64::from(writer));
                        for number in 0..rounds {
                            let own = streams[writer as usize].id();
                            let len = 20 + random.below(200) as usize;
                            let payload = numbered(writer, number, len);
                            let shared = numbered(writer, number, 20);
                            let entries =
                                [Entry::from((own, &payload)), (streams[2].id(), &shared).into()];
                            wal.append_batch(entries).expect("the oldest goes");
                        }
                    })
                })
                .collect();
            for (reader, stream) in streams.iter().enumerate().take(3) {
                let (wal, done, id) = (&wal, &done, stream.id());
                scope.spawn(move || {
                    let mut random = Rng::new(seed ^ reader as u64);
                    while !done.load(Ordering::Relaxed) {
                        read_for_a_while(wal, id, reader, &mut random);
                    }
                });
            }
            for writer in writers {
                writer.join().expect("no panic");
            }
            done.store(true, Ordering::Relaxed);
        });
        for stream in &streams {
            let last = stream.last_lsn().expect("every record verifies");
            let read = stream.read(Position::Oldest).expect("it can be read").copied().last();
            let found = read.map(|entry| entry.expect("every record verifies").lsn);
            assert_eq!(found, last);
        }
    }
}

/// Reads one stream from the oldest on, a few thousand entries at most.
fn read_for_a_while(wal: &Wal, id: StreamId, index: usize, random: &mut Rng) {
    let mut reader = wal.read_streams([id], Position::Oldest).expect("a pin is free");
    let mut next: [Option<u64>; 2] = [None; 2];
    for _ in 0..random.below(3000) {
        let Some(entry) = reader.next().expect("what is pinned verifies") else { break };
        assert_eq!(entry.stream, Some(id));
        let (writer, number) = check_numbered(entry.lsn, entry.payload);
        assert!(index == 2 || writer as usize == index);
        if let Some(expected) = next[writer as usize].replace(number + 1) {
            assert_eq!(number, expected, "an entry is passed over, or shown twice");
        }
    }
}
