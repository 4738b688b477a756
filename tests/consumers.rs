//! Consumers: positions that outlive the process, retention that waits for them, and what holds
//! the tail.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    FIRST_RECORD, MODES, Place, Rng, SEGMENT, check_numbered, copy_log, fill, number, numbered,
    seed, small, soon, wait_until,
};
use kaelix_wal::{
    AppendError, Blocker, Consumer, ConsumerError, Durability, EpochLsn, Lsn, OnFull, OpenError,
    Options, Position, ReadError, RecoveryOutcome, Retention, Wal,
};

/// Record lengths that fill a segment with ten records or so.
const LEN: usize = 6000;
const HELD: Options = Options::new().retention(Retention::Consumers);

fn append(wal: &Wal, numbers: std::ops::Range<u64>) {
    for number in numbers {
        wal.append(&numbered(0, number, LEN)).expect("there is room");
    }
}

/// Reads and acknowledges up to `count` records; returns their numbers.
fn consume(consumer: &Consumer<'_>, count: usize) -> Vec<u64> {
    let mut reader = consumer.reader().expect("the position can be read from");
    let mut numbers = Vec::new();
    while numbers.len() < count
        && let Some(record) = reader.next().expect("nothing is damaged")
    {
        numbers.push(check_numbered(record.lsn(), record.payload()).1);
        consumer.ack(record.next_lsn()).expect("a record ends there");
    }
    numbers
}

fn position(consumer: &Consumer<'_>) -> Lsn {
    consumer.position().expect("it is there").lsn
}

#[test]
fn a_consumer_goes_on_where_it_was_after_a_reopen() {
    let place = Place::new();
    let wal = place.create(Options::new());
    append(&wal, 0..5);
    let billing = wal.consumer("billing").expect("a new consumer");
    assert_eq!(billing.name(), "billing");
    assert_eq!(position(&billing), Lsn::new(FIRST_RECORD));
    assert_eq!(consume(&billing, 3), [0, 1, 2]);
    let late = wal.consumer_at("späte Rechnung", Position::Newest).expect("a new consumer");
    assert_eq!(consume(&late, 9), []);
    let again = wal.consumer_at("billing", Position::Newest).expect("it is there");
    assert_eq!(position(&again), position(&billing), "one that is there stays where it is");
    wal.close().expect("an orderly close");
    assert!(matches!(billing.ack(Lsn::new(64)), Err(ConsumerError::Closed) | Ok(())));
    drop(wal);

    let wal = place.open(Options::new());
    assert_eq!(wal.torn_consumers(), None);
    append(&wal, 5..6);
    let names: Vec<String> = wal.consumers().into_iter().map(|stat| stat.name).collect();
    assert_eq!(names, ["billing", "späte Rechnung"]);
    assert_eq!(consume(&wal.consumer("billing").expect("it is there"), 9), [3, 4, 5]);
    assert_eq!(consume(&wal.consumer("späte Rechnung").expect("it is there"), 9), [5]);
}

#[test]
fn a_log_without_consumers_has_no_files_for_them() {
    let place = Place::new();
    let wal = place.create(HELD);
    append(&wal, 0..2);
    wal.sync_consumers().expect("there is nothing to write");
    drop(wal);
    let mut names: Vec<_> = fs::read_dir(&place.path)
        .expect("a directory")
        .map(|entry| entry.expect("it can be listed").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["lock", "ring"]);
    let wal = place.open(HELD);
    assert!(wal.consumers().is_empty());
    assert!(matches!(wal.remove_consumer("nobody"), Err(ConsumerError::Unknown { .. })));
    assert!(matches!(wal.consumer(""), Err(ConsumerError::Name { len: 0 })));
    assert!(matches!(wal.consumer(&"n".repeat(256)), Err(ConsumerError::Name { len: 256 })));
    wal.consumer(&"n".repeat(255)).expect("the longest name");
    assert!(place.path.join("consumers.a").exists());
}

#[test]
fn acknowledgements_are_record_boundaries_and_only_rise() {
    let place = Place::new();
    let wal = place.create(Options::new());
    append(&wal, 0..25);
    let consumer = wal.consumer("c").expect("a new consumer");
    let read = |error: ConsumerError| match error {
        ConsumerError::Read(error) => error,
        other => panic!("{other}"),
    };
    let mut reader = wal.reader(Position::Oldest).expect("the oldest is there");
    let mut ends = Vec::new();
    while let Some(record) = reader.next().expect("nothing is damaged") {
        ends.push(record.next_lsn());
    }
    // Over several segments at a time, and back.
    consumer.ack(ends[14]).expect("a record ends there");
    consumer.ack(ends[3]).expect("a lower one changes nothing");
    assert_eq!(position(&consumer), ends[14]);
    for wrong in [ends[16] + 16, ends[16] + 8, ends[20] + LEN as u64 / 2 / 16 * 16] {
        let refused = read(consumer.ack(wrong).expect_err("no record ends there"));
        assert!(matches!(*refused, ReadError::NotARecord { .. }), "{refused}");
    }
    let beyond = read(consumer.ack(ends[24] + 16 * SEGMENT).expect_err("nothing is there"));
    assert!(matches!(*beyond, ReadError::NotYet { .. }), "{beyond}");
    consumer.ack(ends[24]).expect("the last one");
    // The log's own records count, and there may be some behind it.
    assert!(consumer.lag().expect("it is there").bytes < 100);
    append(&wal, 25..26);
    assert!(consumer.lag().expect("it is there").bytes > LEN as u64);
    let mut tail = consumer.tail().expect("the position can be read from");
    let record = tail.next(Duration::from_secs(10)).expect("undamaged").expect("one more");
    assert_eq!(check_numbered(record.lsn(), record.payload()).1, 25);
}

#[test]
fn what_is_written_is_never_beyond_what_is_durable() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let consumer = wal.consumer("c").expect("a new consumer");
    append(&wal, 0..2);
    wal.sync().expect("the disk takes it");
    append(&wal, 2..4);
    assert_eq!(consume(&consumer, 9), [0, 1, 2, 3]);
    wal.sync_consumers().expect("it can be written");
    let durable = wal.watermarks().durable;
    let unsaved = consumer.lag().expect("it is there").unsaved_bytes;
    assert_eq!(position(&consumer) - durable, unsaved);
    assert!(unsaved >= 2 * LEN as u64);
    // As after a power loss that takes all that was not synced.
    let copy = Place::new();
    copy_log(&place.path, &copy.path);
    for name in ["consumers.a", "consumers.b"] {
        let _ = fs::copy(place.path.join(name), copy.path.join(name));
    }
    let other = copy.open(Options::new());
    let copied = other.consumer("c").expect("it is there");
    assert!(position(&copied) <= durable);
    assert_eq!(consume(&copied, 2), [2, 3]);
    wal.sync().expect("the disk takes it");
    wal.sync_consumers().expect("it can be written");
    assert_eq!(consumer.lag().expect("it is there").unsaved_bytes, 0);
}

#[test]
fn acknowledgements_are_written_in_the_background() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let consumer = wal.consumer("c").expect("a new consumer");
    append(&wal, 0..2);
    consume(&consumer, 9);
    assert!(consumer.lag().expect("it is there").unsaved_bytes > 0, "nothing is durable yet");
    wal.sync().expect("the disk takes it");
    wait_until("it is written", || consumer.lag().expect("it is there").unsaved_bytes == 0);
}

#[test]
fn a_slow_consumer_holds_the_ring_until_it_goes_on_or_is_removed() {
    for durability in MODES {
        let place = Place::new();
        let wal = place.create(HELD.durability(durability));
        let fast = wal.consumer("fast").expect("a new consumer");
        let slow = wal.consumer("slow").expect("a new consumer");
        let (lsns, refusal) = fill(&wal, 0, LEN);
        assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
        let count = lsns.len() as u64;
        assert_eq!(consume(&fast, usize::MAX).len(), lsns.len());
        let Some(Blocker::Consumer { name, position }) = wal.who_blocks_reclaim() else {
            panic!("{:?}", wal.who_blocks_reclaim());
        };
        assert_eq!((name.as_str(), position.lsn), ("slow", Lsn::new(FIRST_RECORD)));
        assert!(wal.reserve_deadline(LEN, soon(50)).is_err());

        // It goes on: what it has acknowledged is released without any other call.
        let half = lsns.len() / 2;
        assert_eq!(consume(&slow, half).len(), half);
        let one = wal.reserve_deadline(LEN, soon(60_000)).expect("a segment is released");
        drop(one);
        assert!(wal.watermarks().trimmed <= position_of(&wal, "slow"));
        let (more, _) = fill(&wal, count, LEN);
        assert!(!more.is_empty());
        consume(&fast, usize::MAX);
        wal.remove_consumer("slow").expect("it is there");
        drop(wal.reserve_deadline(LEN, soon(60_000)).expect("nobody holds it any more"));
        assert!(matches!(slow.ack(Lsn::new(64)), Err(ConsumerError::Unknown { .. })));
        assert!(slow.reader().is_err());
    }
}

fn position_of(wal: &Wal, name: &str) -> Lsn {
    let stat = wal.consumers().into_iter().find(|stat| stat.name == name).expect("it is there");
    stat.position.lsn
}

#[test]
fn a_producer_that_waits_for_a_consumer_goes_on_with_it() {
    let place = Place::new();
    let wal = place.create(HELD);
    let consumer = wal.consumer("c").expect("a new consumer");
    std::thread::scope(|scope| {
        scope.spawn(|| append(&wal, 0..300));
        let mut tail = consumer.tail().expect("the position can be read from");
        for want in 0..300 {
            let record = tail.next(common::PATIENCE).expect("undamaged").expect("one more");
            assert_eq!(check_numbered(record.lsn(), record.payload()).1, want);
            consumer.ack(record.next_lsn()).expect("a record ends there");
        }
    });
}

#[test]
fn without_consumers_nothing_is_released() {
    let place = Place::new();
    let wal = place.create(HELD);
    let (lsns, _) = fill(&wal, 0, LEN);
    assert_eq!(wal.who_blocks_reclaim(), Some(Blocker::Checkpoint));
    wal.sync().expect("the disk takes it");
    assert_eq!(wal.sync_checkpoint().expect("no sync failed"), Lsn::new(FIRST_RECORD));
    // A checkpoint counts all the same, and a new consumer begins behind it.
    wal.checkpoint(lsns[20]).expect("a record starts there");
    wal.sync_checkpoint().expect("no sync failed");
    let consumer = wal.consumer("c").expect("a new consumer");
    assert_eq!(position(&consumer), lsns[20]);
}

#[test]
fn with_checkpoints_alone_a_slow_consumer_is_overtaken_and_told() {
    let place = Place::new();
    let wal = place.create(Options::new());
    let consumer = wal.consumer("c").expect("a new consumer");
    append(&wal, 0..12);
    let end = wal.sync().expect("the disk takes it");
    wal.checkpoint(end).expect("the end is a boundary");
    wal.sync_checkpoint().expect("no sync failed");
    let lag = consumer.lag().expect("it is there");
    assert!(lag.released_bytes >= 12 * LEN as u64 && lag.bytes >= lag.released_bytes);
    let refused = consumer.reader().map(drop).expect_err("it is gone");
    assert!(matches!(&refused, ConsumerError::Read(error)
        if matches!(**error, ReadError::Trimmed { .. })));
    wal.reset_consumer("c", Position::Oldest).expect("it is there");
    append(&wal, 12..13);
    assert_eq!(consume(&consumer, 9), [12]);
    wal.reset_consumer("c", Position::At(end)).expect("back again");
    assert_eq!(consume(&consumer, 9), [12]);
}

#[test]
fn retention_by_bytes_keeps_at_least_the_newest() {
    for durability in MODES {
        let place = Place::new();
        let keep = SEGMENT;
        let options = Options::new().retention(Retention::Bytes(keep)).durability(durability);
        let wal = place.create(options);
        append(&wal, 0..200);
        let marks = wal.watermarks();
        assert!(marks.trimmed > Lsn::new(FIRST_RECORD), "{marks:?}");
        assert!(marks.published - marks.trimmed >= keep, "{marks:?}");
        // A consumer is not passed.
        let consumer = wal.consumer("c").expect("a new consumer");
        let (lsns, refusal) = fill(&wal, 200, LEN);
        assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
        let blocker = wal.who_blocks_reclaim();
        assert!(matches!(blocker, Some(Blocker::Consumer { .. })), "{blocker:?}");
        consume(&consumer, usize::MAX);
        append(&wal, 200 + lsns.len() as u64..203 + lsns.len() as u64);
    }
}

#[test]
fn retention_by_more_bytes_than_the_ring_has_is_named() {
    let place = Place::new();
    let wal = place.create(Options::new().retention(Retention::Bytes(1 << 30)));
    fill(&wal, 0, LEN);
    assert_eq!(wal.who_blocks_reclaim(), Some(Blocker::Retention));
}

#[test]
fn retention_by_age_releases_what_is_old_when_space_is_short() {
    for durability in MODES {
        let place = Place::new();
        let age = Duration::from_millis(400);
        let options = Options::new().retention(Retention::Age(age)).durability(durability);
        let wal = place.create(options);
        let began = Instant::now();
        // The ring is filled several times; each time the producer waits until the oldest is old.
        append(&wal, 0..100);
        let took = began.elapsed();
        assert!(took >= 2 * age, "{took:?}");
        assert!(wal.watermarks().trimmed > Lsn::new(SEGMENT));
        drop(wal);
        // Those segments were left in another process: here they begin to age at the open at the
        // latest.
        let wal = place.open(options);
        let held = wal.watermarks().trimmed;
        append(&wal, 100..140);
        assert!(wal.watermarks().trimmed > held);
    }
}

#[test]
fn retention_by_age_keeps_what_is_young() {
    let place = Place::new();
    let age = Duration::from_secs(3600);
    let wal = place.create(Options::new().retention(Retention::Age(age)));
    let (lsns, refusal) = fill(&wal, 0, LEN);
    assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
    assert_eq!(wal.who_blocks_reclaim(), Some(Blocker::Retention));
    drop(wal);
    let wal = place.open(Options::new().retention(Retention::Age(age)));
    assert!(wal.reserve_deadline(LEN, soon(50)).is_err());
    assert_eq!(wal.watermarks().trimmed, Lsn::new(FIRST_RECORD));
    assert!(wal.get(lsns[0]).is_ok());
}

#[test]
fn overwriting_passes_consumers_and_tells_them() {
    let place = Place::new();
    let wal = place.create(HELD.on_full(OnFull::Overwrite));
    let consumer = wal.consumer("c").expect("a new consumer");
    append(&wal, 0..200);
    assert!(consumer.lag().expect("it is there").released_bytes > 0);
    assert!(consumer.reader().is_err());
    assert!(!matches!(wal.who_blocks_reclaim(), Some(Blocker::Consumer { .. })));
}

#[test]
fn what_holds_the_tail_is_named() {
    let place = Place::new();
    let wal = place.create(Options::new().hole_age_max(Duration::from_millis(50)));
    assert_eq!(wal.who_blocks_reclaim(), None, "it is being written");
    append(&wal, 0..3);
    let hole = wal.reserve(100).expect("there is room");
    let hole_at = hole.lsn();
    fill(&wal, 3, LEN);
    let blocker = wal.who_blocks_reclaim();
    assert!(matches!(blocker, Some(Blocker::OpenReservation { lsn, .. }) if lsn == hole_at));
    hole.commit();
    assert_eq!(wal.who_blocks_reclaim(), Some(Blocker::Checkpoint));
    wal.sync().expect("the disk takes it");
    let mut reader = wal.reader(Position::Oldest).expect("the oldest is there");
    reader.next().expect("undamaged").expect("the first record");
    let end = wal.watermarks().published;
    wal.checkpoint(end).expect("the end is a boundary");
    wait_until("the checkpoint is durable", || wal.watermarks().trimmed == end);
    assert_eq!(wal.who_blocks_reclaim(), Some(Blocker::Reader { lsn: Lsn::new(FIRST_RECORD) }));
    drop(reader);
    wait_until("it is recycled", || wal.reserve_deadline(LEN, soon(10)).is_ok());
    assert_eq!(wal.who_blocks_reclaim(), None);
}

#[test]
fn what_is_released_but_not_durable_is_named() {
    let interval = Durability::Interval(Duration::from_secs(3600));
    for attempts_left in (0..20).rev() {
        let place = Place::new();
        let wal = place.create(Options::new().durability(interval));
        append(&wal, 0..12);
        let end = wal.watermarks().published;
        wal.checkpoint(end).expect("the end is a boundary");
        let blocker = wal.who_blocks_reclaim();
        let durable = wal.watermarks().durable;
        // The first record wakes the flusher. On a busy machine it is late, and syncs more of them.
        if blocker.is_none() && durable >= Lsn::new(SEGMENT) && attempts_left > 0 {
            continue;
        }
        let Some(Blocker::NotDurable { durable: named }) = blocker else { panic!("{blocker:?}") };
        assert!(named <= durable && named < Lsn::new(SEGMENT));
        wal.sync().expect("the disk takes it");
        assert_eq!(wal.who_blocks_reclaim(), None);
        return;
    }
}

/// In a log without durability, a copy that lacks the newest records has the same past, but another
/// future: positions beyond the cut are refused, those below it hold.
#[test]
fn a_position_beyond_a_cut_is_refused_until_it_is_reset() {
    let place = Place::new();
    let options = Options::new().durability(Durability::None).retention(Retention::Consumers);
    let wal = place.create(options);
    let (low, high) = (wal.consumer("low"), wal.consumer("high"));
    let (low, high) = (low.expect("a new consumer"), high.expect("a new consumer"));
    append(&wal, 0..2);
    consume(&low, 1);
    let kept = low.position().expect("it is there");
    let before = Place::new();
    wal.sync().expect("the disk takes it");
    copy_log(&place.path, &before.path);
    append(&wal, 2..4);
    consume(&high, 9);
    let lost = high.position().expect("it is there");
    wal.check_position(lost).expect("it is of this epoch");
    wal.sync_consumers().expect("it can be written");
    // What a power loss may leave: positions, and not the newest records.
    for name in ["consumers.a", "consumers.b"] {
        fs::copy(place.path.join(name), before.path.join(name)).expect("both are there");
    }
    drop(wal);

    let wal = before.open(options);
    assert_eq!(wal.recovery_report().outcome, RecoveryOutcome::PowerLost);
    let end = wal.recovery_report().end;
    append(&wal, 100..102);
    let high = wal.consumer("high").expect("it is there");
    for error in [
        high.reader().map(drop).expect_err("it is cut"),
        high.ack(lost.lsn).expect_err("it is cut"),
        wal.check_position(lost).expect_err("it is cut"),
    ] {
        let ConsumerError::Cut { position, at, epoch } = error else { panic!("{error}") };
        assert_eq!((position, at, epoch), (lost, end, wal.recovery_report().epoch));
    }
    assert_eq!(high.position().expect("it is there"), lost);
    wal.check_position(kept).expect("below the cut it holds");
    assert_eq!(consume(&wal.consumer("low").expect("it is there"), 9), [1, 100, 101]);
    let cut = wal.consumers().into_iter().find(|stat| stat.cut.is_some()).expect("one is cut");
    assert_eq!((cut.name.as_str(), cut.position), ("high", lost));
    // It stays cut, and holds what lies above the cut; what lies below is released at the close.
    drop(wal);
    let wal = before.open(options);
    assert!(wal.consumer("high").expect("it is there").reader().is_err());
    assert!(matches!(wal.check_position(lost), Err(ConsumerError::Cut { .. })));
    assert!(matches!(wal.check_position(kept), Err(ConsumerError::Read(error))
        if matches!(*error, ReadError::Trimmed { oldest, .. } if oldest == end)));
    wal.reset_consumer("high", Position::At(end)).expect("the cut is a boundary");
    assert_eq!(consume(&wal.consumer("high").expect("it is there"), 9), [100, 101]);
    let future = EpochLsn { epoch: 99, lsn: end };
    assert!(matches!(wal.check_position(future), Err(ConsumerError::Future { .. })));
}

#[test]
fn a_damaged_copy_is_named_and_two_are_refused() {
    let place = Place::new();
    let wal = place.create(Options::new());
    append(&wal, 0..3);
    let consumer = wal.consumer("c").expect("a new consumer");
    consume(&consumer, 2);
    wal.close().expect("an orderly close");
    drop(wal);
    let [a, b] = ["consumers.a", "consumers.b"].map(|name| place.path.join(name));
    let spoil = |path: &std::path::Path| {
        let mut bytes = fs::read(path).expect("it is there");
        bytes[100] ^= 1;
        fs::write(path, bytes).expect("it can be written");
    };
    spoil(&a);
    let wal = place.open(Options::new());
    assert_eq!(wal.torn_consumers(), Some(a.as_path()));
    let left = consume(&wal.consumer("c").expect("it is there"), 9);
    assert!(left.ends_with(&[2]), "{left:?}");
    wal.close().expect("an orderly close");
    drop(wal);
    spoil(&a);
    spoil(&b);
    let refused = Wal::open(&place.path, Options::new()).expect_err("neither is whole");
    assert!(matches!(refused, OpenError::Consumers { .. }), "{refused}");
    fs::remove_file(&a).expect("it is there");
    fs::remove_file(&b).expect("it is there");
    assert!(place.open(Options::new()).consumers().is_empty());
}

#[test]
fn positions_of_a_log_that_is_gone_are_not_taken_over() {
    let place = Place::new();
    let wal = place.create(Options::new());
    wal.consumer("c").expect("a new consumer");
    drop(wal);
    fs::remove_file(place.ring()).expect("it is there");
    let refused = Wal::create(&place.path, small(), Options::new()).expect_err("not silently");
    assert!(refused.to_string().contains("consumers.a"), "{refused}");
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os("KAELIX_CONSUMERS_DIR") else { return };
    let first = number("KAELIX_CONSUMERS_FIRST", 0);
    let wal = Wal::open(dir, HELD).expect("the parent could open it");
    let began = Instant::now();
    let consumer = wal.consumer("c").expect("it can be written");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in first.. {
                if began.elapsed() > Duration::from_secs(20) {
                    return;
                }
                let lsn = wal.append(&numbered(0, number, 500)).expect("the consumer makes space");
                if number % 8 == 0 {
                    wal.wait_durable(lsn).expect("no sync fails");
                }
            }
        });
        let mut tail = consumer.tail().expect("the position can be read from");
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(20) {
            let record = tail.next(Duration::from_millis(100)).expect("undamaged");
            let Some(record) = record else { continue };
            consumer.ack(record.next_lsn()).expect("a record ends there");
            count += 1;
            if count % 64 == 0 {
                wal.sync_consumers().expect("it can be written");
            }
        }
    });
}

/// Killed at any moment, and looked at as after a power loss and as after the kill: the consumer's
/// position is durable, a record boundary, retained, and never behind where it was known to be.
#[test]
fn a_position_survives_kill_9() {
    let mut rng = Rng::new(seed("a_position_survives_kill_9"));
    let place = Place::new();
    drop(place.create(HELD));
    let mut known = Lsn::new(FIRST_RECORD);
    for cycle in 1..=number("KAELIX_KILL_CYCLES", 12) {
        let mut child = Command::new(std::env::current_exe().expect("this binary has a path"))
            .args(["child", "--exact"])
            .env("KAELIX_CONSUMERS_DIR", &place.path)
            .env("KAELIX_CONSUMERS_FIRST", (cycle << 32).to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("this binary can be started");
        let table = || fs::metadata(place.path.join("consumers.a")).is_ok();
        wait_until("the child works", || {
            table() || child.try_wait().expect("it is ours").is_some()
        });
        std::thread::park_timeout(Duration::from_micros(rng.below(60_000)));
        child.kill().expect("it is ours");
        let status = child.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(9), "the child ended by itself: {status}");

        let copy = Place::new();
        copy_log(&place.path, &copy.path);
        for name in ["consumers.a", "consumers.b"] {
            let _ = fs::copy(place.path.join(name), copy.path.join(name));
        }
        for (log, goes_on) in [(&copy, false), (&place, true)] {
            let wal = log.open(HELD);
            let consumer = wal.consumer("c").expect("it is there, or made");
            let at = consumer.position().expect("it is there");
            let (start, end) = (wal.recovery_report().start, wal.recovery_report().end);
            assert!(start <= at.lsn && at.lsn <= end, "{start} {at} {end}");
            assert!(at.lsn >= known, "{at} was at {known} before");
            wal.check_position(at).expect("it is retained, and a boundary");
            let mut reader = consumer.reader().expect("the position can be read from");
            let mut last = None;
            while let Some(record) = reader.next().expect("undamaged") {
                let number = check_numbered(record.lsn(), record.payload()).1;
                assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
                last = Some(number);
                consumer.ack(record.next_lsn()).expect("a record ends there");
            }
            if goes_on {
                known = consumer.position().expect("it is there").lsn;
                wal.close().expect("an orderly close");
            }
        }
    }
}
