//! Moving the tails of quiet streams forward: every entry is shown once, to whoever reads from the
//! oldest record on, whenever the original is released, and whatever crashes come between.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Place, SEGMENT};
use kaelix_wal::inspect::Observer;
use kaelix_wal::{
    AppendError, Batch, Durability, Entry, Error, Lsn, Moved, OnFull, Options, Position, Retention,
    Stream, Wal,
};
use proptest::prelude::*;

fn options() -> Options {
    Options::new().durability(Durability::OnDemand)
}

/// What a stream shows from the oldest record on.
fn shown(stream: &Stream<'_>) -> Vec<Vec<u8>> {
    let entries = stream.read(Position::Oldest).expect("it can be read").copied();
    entries.map(|entry| entry.expect("every record verifies").payload.to_vec()).collect()
}

fn release(wal: &Wal, to: Lsn) {
    wal.checkpoint(to).expect("a boundary");
    wal.sync_checkpoint().expect("a slot is written");
    assert_eq!(wal.watermarks().trimmed, to);
}

#[test]
fn the_ring_goes_round_and_round_while_a_quiet_stream_keeps_its_tail() {
    let place = Place::new();
    let wal = place.create(options());
    let (quiet, busy) = (wal.stream("quiet").expect("new"), wal.stream("busy").expect("new"));
    let first = quiet.append(b"one").expect("there is room");
    quiet.append(b"two").expect("there is room");
    for lap in 0..12_u32 {
        for _ in 0..SEGMENT / 1024 {
            busy.append(&[lap as u8; 900]).expect("there is room");
        }
        let end = wal.sync().expect("nothing fails");
        let moved = quiet.move_forward(end).expect("it is little");
        assert_eq!((moved.entries, moved.payload_bytes), (2, 6), "lap {lap}");
        assert_eq!(quiet.last_lsn().expect("undamaged"), moved.last_lsn);
        assert_eq!(quiet.len().expect("undamaged"), 2, "with the originals");
        assert_eq!(shown(&quiet), [b"one", b"two"]);
        release(&wal, end);
        assert_eq!(quiet.len().expect("undamaged"), 2, "without the originals");
        assert_eq!(shown(&quiet), [b"one", b"two"]);
        let mut reader = quiet.read(Position::Oldest).expect("it can be read");
        let entry = reader.next().expect("it verifies").expect("it is there");
        assert_eq!(entry.moved_from, Some(first), "the first place of all, in lap {lap}");
    }
    assert!(wal.watermarks().trimmed.get() > 2 * 4 * SEGMENT);
}

#[test]
fn readers_of_records_entries_and_from_outside_are_shown_each_once() {
    let place = Place::new();
    let wal = place.create(options());
    let (quiet, other) = (wal.stream("quiet").expect("new"), wal.stream("other").expect("new"));
    let both =
        [Entry::from((quiet.id(), b"a")), (other.id(), b"b").into(), (quiet.id(), b"c").into()];
    let batch = wal.append_batch(both).expect("there is room");
    let alone = quiet.append(b"d").expect("there is room");
    other.append(b"e").expect("there is room");
    let end = wal.sync().expect("nothing fails");
    assert_eq!(quiet.move_forward(end).expect("it is little").entries, 3);
    assert_eq!(quiet.move_forward(end).expect("nothing is left").entries, 0);

    let records = |wal: &Wal, from| {
        let mut reader = wal.reader(from).expect("it can be read");
        let mut seen = Vec::new();
        while let Some(record) = reader.next().expect("it verifies") {
            seen.extend(record.entries().map(|entry| entry.payload.to_vec()));
        }
        seen
    };
    let outside = || {
        let observer = Observer::open(&place.path).expect("it can be read");
        let mut cursor = observer.cursor(Position::Oldest).expect("it can be read");
        let mut seen = Vec::new();
        while let Some(record) = cursor.next().expect("it verifies") {
            seen.extend(record.entries().map(|entry| entry.payload.to_vec()));
        }
        let counted: u64 = observer.streams().expect("a catalog").iter().map(|it| it.entries).sum();
        assert_eq!(counted as usize, seen.len());
        seen
    };
    let all = |from| {
        let entries = wal.entries(from).expect("it can be read").copied();
        entries.map(|entry| entry.expect("it verifies").payload.to_vec()).collect::<Vec<_>>()
    };
    let whole: Vec<Vec<u8>> = b"abcde".iter().map(|byte| vec![*byte]).collect();
    for seen in [records(&wal, Position::Oldest), all(Position::Oldest), outside()] {
        assert_eq!(seen, whole, "the originals");
    }
    assert_eq!(all(Position::At(alone)), whole[3..], "from further on");
    release(&wal, alone);
    // The batch is released, the record behind it is not.
    let part: Vec<Vec<u8>> = b"deac".iter().map(|byte| vec![*byte]).collect();
    for from in [Position::Oldest, Position::At(alone)] {
        for seen in [records(&wal, from), all(from), outside()] {
            assert_eq!(seen, part);
        }
    }
    release(&wal, end);
    let part: Vec<Vec<u8>> = b"acd".iter().map(|byte| vec![*byte]).collect();
    for seen in [records(&wal, Position::Oldest), all(Position::Oldest), outside()] {
        assert_eq!(seen, part);
    }
    let moved: Vec<Option<Lsn>> = wal
        .entries(Position::Oldest)
        .expect("it can be read")
        .copied()
        .map(|entry| entry.expect("it verifies").moved_from)
        .collect();
    assert_eq!(moved, [Some(batch), Some(batch), Some(alone)]);
    assert!(wal.get(batch).is_err());
}

#[test]
fn a_consumer_that_has_processed_the_original_is_not_shown_the_copy() {
    let place = Place::new();
    let wal = place.create(options().retention(Retention::Consumers));
    let (fast, slow) = (wal.consumer("fast").expect("new"), wal.consumer("slow").expect("new"));
    let quiet = wal.stream("quiet").expect("new");
    quiet.append(b"one").expect("there is room");
    let end = wal.sync().expect("nothing fails");
    for consumer in [&fast, &slow] {
        consumer.ack(end).expect("a boundary");
    }
    assert_eq!(quiet.move_forward(end).expect("it is little").entries, 1);
    release(&wal, end);
    wal.append(b"two").expect("there is room");
    let mut reader = fast.reader().expect("it stands at the oldest record");
    assert_eq!(
        reader.next().expect("it verifies").map(|it| it.payload().to_vec()),
        Some(b"two".into())
    );
    let mut tail = slow.tail().expect("it stands at the oldest record");
    let next = tail.next(Duration::ZERO).expect("it verifies");
    assert_eq!(next.map(|it| it.payload().to_vec()), Some(b"two".into()));
    assert_eq!(shown(&quiet), [b"one"]);
}

#[test]
fn what_is_not_little_is_refused_and_nothing_is_moved() {
    let place = Place::new();
    let wal = place.create(options());
    let stream = wal.stream("much").expect("new");
    for _ in 0..70 {
        stream.append(&[1; 1000]).expect("there is room");
    }
    let end = wal.sync().expect("nothing fails");
    let refused = stream.move_forward(end);
    assert!(matches!(refused, Err(Error::Append(AppendError::TooLarge { .. }))), "{refused:?}");
    assert_eq!(wal.metrics().records_published, 70);
}

/// The ring is full when one entry of a batch has been copied: the others are, later.
#[test]
fn a_move_that_was_cut_short_is_gone_on_with() {
    for reopened in [false, true] {
        let place = Place::new();
        let options = options().on_full(OnFull::Fail);
        let mut wal = place.create(options);
        let filler = vec![7; 8 << 10];
        let mut second_segment = Lsn::ZERO;
        while second_segment.get() < SEGMENT {
            second_segment = wal.append(&filler).expect("there is room");
        }
        let quiet = wal.stream("quiet").expect("new");
        let (one, two) = (vec![1; 20 << 10], vec![2; 20 << 10]);
        let id = quiet.id();
        wal.append_batch([Entry::from((id, &one)), (id, &two).into()]).expect("there is room");
        while wal.watermarks().reserved.get() < 3 * SEGMENT + (21 << 10) {
            wal.append(&filler).expect("there is room");
        }
        let end = wal.sync().expect("nothing fails");
        let cut = quiet.move_forward(end);
        assert!(matches!(cut, Err(Error::Append(AppendError::Full { .. }))), "{cut:?}");
        assert_eq!(shown(&quiet), [&one[..], &two], "the originals");
        drop(quiet);
        if reopened {
            drop(wal);
            wal = place.open(options);
        }
        release(&wal, second_segment);
        let quiet = wal.stream("quiet").expect("it is there");
        let moved = within_patience_of(|| quiet.move_forward(end));
        assert_eq!((moved.entries, moved.payload_bytes), (1, 20 << 10), "{reopened}");
        release(&wal, end);
        assert_eq!(shown(&quiet), [&one[..], &two], "the copies");
    }
}

/// Until the segment that was released has been prepared anew.
fn within_patience_of(mut each: impl FnMut() -> Result<Moved, Error>) -> Moved {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match each() {
            Err(Error::Append(AppendError::Full { .. })) if Instant::now() < deadline => {
                std::thread::yield_now();
            }
            result => return result.expect("there is room"),
        }
    }
}

#[test]
fn a_version_is_that_of_the_copy() {
    let place = Place::new();
    let wal = place.create(options());
    let account = wal.versioned_stream("account").expect("new");
    let first = account.append_if(None, b"opened").expect("nobody else appends");
    let moved = account.move_forward(wal.sync().expect("nothing fails")).expect("it is little");
    assert!(account.append_if(Some(first), b"as if it stood there").is_err());
    drop(account);
    drop(wal);
    let wal = place.open(options());
    let account = wal.versioned_stream("account").expect("it is there");
    account.append_if(moved.last_lsn, b"closed").expect("that is its version");
    assert_eq!(shown(&account), [&b"opened"[..], b"closed"]);
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize, u8),
    /// Both streams, the first one twice.
    Batch(u8),
    /// Of this stream, what lies so many hundredths into what is retained.
    Move(usize, usize),
    /// Moves what lies below a position so many hundredths in, of both, and releases it.
    Release(usize),
    /// As after a crash of the process in the middle of moving: with copies of some alone.
    Half(usize),
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2_usize, any::<u8>()).prop_map(|(stream, byte)| Step::Append(stream, byte)),
        3 => any::<u8>().prop_map(Step::Batch),
        2 => (0..2_usize, 0..=100_usize).prop_map(|(stream, part)| Step::Move(stream, part)),
        3 => (0..=100_usize).prop_map(Step::Release),
        1 => (0..2_usize).prop_map(Step::Half),
        1 => Just(Step::Reopen),
    ]
}

/// Retained boundaries, of records shown or not.
fn boundary(wal: &Wal, part: usize) -> Lsn {
    let mut reader = wal.reader(Position::Oldest).expect("it can be read");
    let mut boundaries = vec![wal.watermarks().trimmed];
    while let Some(record) = reader.next().expect("it verifies") {
        boundaries.push(record.next_lsn());
    }
    boundaries[(boundaries.len() - 1) * part / 100]
}

fn sorted(mut entries: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    entries.sort();
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Nothing is lost that was moved before it was released, and nothing is shown twice.
    #[test]
    fn every_entry_is_shown_once(steps in prop::collection::vec(any_step(), 1..40)) {
        let place = Place::new();
        let mut wal = place.create(options());
        let names = ["a", "b"];
        let mut want: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        let mut number = 0_u32;
        let mut payload = |byte: u8| {
            number += 1;
            [&number.to_le_bytes()[..], &vec![byte; usize::from(byte % 50)]].concat()
        };
        for step in steps {
            if matches!(step, Step::Reopen) {
                drop(wal);
                wal = place.open(options());
            }
            let streams = wal.streams(&names).expect("they are there");
            match step {
                Step::Append(stream, byte) => {
                    let payload = payload(byte);
                    streams[stream].append(&payload).expect("there is room");
                    want.entry(stream).or_default().push(payload);
                }
                Step::Batch(byte) => {
                    let [one, two, three] = [payload(byte), payload(byte), payload(byte)];
                    let ids = [streams[0].id(), streams[1].id()];
                    let mut batch = Batch::new();
                    batch.push(Entry::from((ids[0], &one)));
                    batch.push((ids[1], &two));
                    batch.push((ids[0], &three));
                    wal.append_batch(&batch).expect("there is room");
                    want.entry(0).or_default().extend([one, three]);
                    want.entry(1).or_default().push(two);
                }
                Step::Move(stream, part) => {
                    wal.sync().expect("nothing fails");
                    streams[stream].move_forward(boundary(&wal, part)).expect("it is little");
                }
                Step::Release(part) => {
                    wal.sync().expect("nothing fails");
                    let to = boundary(&wal, part);
                    for stream in &streams {
                        stream.move_forward(to).expect("it is little");
                    }
                    release(&wal, to);
                }
                Step::Half(stream) => {
                    let end = wal.sync().expect("nothing fails");
                    // What is copied below the middle, and then all, is copied once.
                    streams[stream].move_forward(boundary(&wal, 50)).expect("it is little");
                    streams[stream].move_forward(end).expect("it is little");
                }
                Step::Reopen => {}
            }
            for (index, stream) in streams.iter().enumerate() {
                let want = want.get(&index).cloned().unwrap_or_default();
                prop_assert_eq!(stream.len().expect("undamaged") as usize, want.len());
                prop_assert_eq!(sorted(shown(stream)), sorted(want));
            }
        }
    }
}
