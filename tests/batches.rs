//! Batches: several entries in one record, all or none.

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::Place;
use kaelix_wal::inspect::Observer;
use kaelix_wal::{AppendError, Batch, Durability, Entry, Options, Position, StreamId};

fn entries(count: u32) -> Vec<(Option<StreamId>, Vec<u8>)> {
    let entry = |n: u32| (StreamId::new(n % 3), vec![n as u8; n as usize % 50]);
    (0..count).map(entry).collect()
}

fn as_entries(entries: &[(Option<StreamId>, Vec<u8>)]) -> impl Iterator<Item = Entry<'_>> + Clone {
    entries.iter().map(|(stream, payload)| Entry { stream: *stream, payload })
}

#[test]
fn a_batch_is_read_back_as_it_was_by_every_reader_and_after_a_reopen() {
    let place = Place::new();
    let wal = place.create(Options::new());
    wal.streams(&["one", "two"]).expect("they are created");
    for count in [1, 2, 10, 100, 1000] {
        let want = entries(count);
        let lsn = wal.append_batch(as_entries(&want)).expect("there is room");
        wal.append(b"between").expect("there is room");
        let record = wal.get(lsn).expect("it is committed");
        assert!(record.entries().eq(as_entries(&want)));
        assert!(record.record().is_batch());
    }
    let collect = |wal: &kaelix_wal::Wal| {
        let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
        let mut all = Vec::new();
        while let Some(record) = reader.next().expect("every record verifies") {
            all.extend(record.entries().map(|entry| (entry.stream, entry.payload.to_vec())));
        }
        all
    };
    let all = collect(&wal);
    assert_eq!(all.len(), 1113 + 5);
    wal.close().expect("nothing is in the way");
    drop(wal);

    let observer = Observer::open(&place.path).expect("it is there");
    let mut cursor = observer.cursor(Position::Oldest).expect("nothing is trimmed");
    let mut observed = Vec::new();
    while let Some(record) = cursor.next().expect("every record verifies") {
        observed.extend(record.entries().map(|entry| (entry.stream, entry.payload.to_vec())));
    }
    assert_eq!(observed, all);
    assert_eq!(collect(&place.open(Options::new())), all);
}

#[test]
fn the_record_says_which_stream_if_all_entries_are_of_one() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let streams = wal.streams(&["one", "two"]).expect("they are created");
    let (one, two) = (streams[0].id(), streams[1].id());
    let stream_of = |entries: &[(StreamId, &[u8])]| {
        let lsn = wal.append_batch(entries.iter().copied()).expect("there is room");
        wal.get(lsn).expect("it is committed").stream()
    };
    assert_eq!(stream_of(&[(one, b"a"), (one, b"")]), Some(one));
    assert_eq!(stream_of(&[(one, b"a"), (two, b"b")]), None);
}

#[test]
fn a_gathered_batch_can_be_used_again() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let mut batch = Batch::new();
    for round in 0..3_u8 {
        batch.clear();
        batch.extend([[round; 5], [round + 1; 5]].iter());
        assert_eq!((batch.len(), batch.payload_len()), (2, 32));
        let lsn = wal.append_batch(&batch).expect("there is room");
        assert!(wal.get(lsn).expect("it is committed").entries().eq(&batch));
    }
    batch.clear();
    assert!(batch.is_empty());
    assert!(matches!(wal.append_batch(&batch), Err(AppendError::EmptyBatch)));
}

#[test]
fn a_batch_that_fits_no_segment_is_refused_before_anything_is_written() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let before = wal.watermarks().reserved;
    let max = wal.geometry().payload_len_max();
    let large = vec![1; max / 2];
    let refused = wal.append_batch([&large, &large]);
    assert!(matches!(refused, Err(AppendError::TooLarge { len, max: m }) if len > m && m == max));
    assert_eq!(wal.watermarks().reserved, before);
    // What just fits does.
    let largest = vec![1; max - 8];
    wal.append_batch([&largest]).expect("it fits");
}

/// Its clones go on where it stands, with longer entries.
#[derive(Clone, Default)]
struct Unsteady(Rc<Cell<usize>>);

impl Iterator for Unsteady {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        let number = self.0.get() + 1;
        self.0.set(number);
        (!number.is_multiple_of(4)).then_some(&[0; 100][..number * 9])
    }
}

#[test]
fn entries_that_change_between_two_looks_leave_nothing_behind() {
    let place = Place::new();
    let wal = place.create(Options::new().durability(Durability::OnDemand));
    let append = AssertUnwindSafe(|| wal.append_batch(Unsteady::default()));
    let panicked = catch_unwind(append);
    assert!(panicked.is_err());
    let lsn = wal.append(b"goes on").expect("the space was given up");
    wal.wait_durable(lsn).expect("nothing holds it back");
    let mut reader = wal.reader(Position::Oldest).expect("the oldest can be read");
    let first = reader.next().expect("it verifies").expect("it is there");
    assert_eq!(first.payload(), b"goes on");
}

#[test]
fn batches_of_many_threads_stay_whole_over_laps() {
    let place = Place::new();
    let wal = place.create(Options::new());
    std::thread::scope(|scope| {
        let wal = &wal;
        for writer in 0..4_u8 {
            scope.spawn(move || {
                for number in 0..2000_u32 {
                    let count = 1 + number as usize * 7 % 40;
                    let payload = [&[writer, count as u8], &number.to_le_bytes()[..]].concat();
                    let batch = std::iter::repeat_n(&payload, count);
                    wal.append_batch(batch).expect("room is made");
                }
            });
        }
        scope.spawn(move || {
            let mut tail = wal.tail(Position::Oldest).expect("a pin is free");
            let mut next = [0_u32; 4];
            while next != [2000; 4] {
                let patience = Duration::from_secs(60);
                let record = tail.next(patience).expect("it verifies").expect("more comes");
                let entries: Vec<_> = record.entries().map(|entry| entry.payload).collect();
                let first = entries[0];
                let writer = usize::from(first[0]);
                assert_eq!(entries.len(), usize::from(first[1]));
                assert_eq!(first[2..], next[writer].to_le_bytes());
                assert!(entries.iter().all(|entry| *entry == first));
                next[writer] += 1;
                wal.checkpoint(record.next_lsn()).expect("a boundary");
            }
        });
    });
}
