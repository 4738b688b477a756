//! `consumers`: positions as another process sees them.

mod common;

use common::{Place, fail, numbered_lines, succeed};
use kaelix_wal::{Lsn, Options, Wal};

fn list(place: &Place) -> Vec<serde_json::Value> {
    let json = succeed(&["consumers", &place.log, "--json"], b"");
    serde_json::from_slice::<Vec<serde_json::Value>>(&json).unwrap()
}

#[test]
fn a_log_without_consumers_says_so() {
    let place = Place::with_small_log();
    assert_eq!(succeed(&["consumers", &place.log], b""), b"no consumers\n");
    assert!(list(&place).is_empty());
}

#[test]
fn positions_are_listed_while_a_writer_is_open() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], &numbered_lines(20_000));
    let wal = Wal::open(&place.log, Options::new()).unwrap();
    let (billing, search) = (wal.consumer("billing").unwrap(), wal.consumer("search").unwrap());
    let mut reader = billing.reader().unwrap();
    for _ in 0..10 {
        let end = reader.next().unwrap().unwrap().next_lsn();
        billing.ack(end).unwrap();
    }
    wal.sync_consumers().unwrap();
    let consumers = list(&place);
    assert_eq!(consumers.len(), 2);
    for (json, consumer) in consumers.iter().zip([&billing, &search]) {
        let position = consumer.position().unwrap();
        assert_eq!(json["name"], consumer.name());
        assert_eq!(json["lsn"].as_u64().map(Lsn::new), Some(position.lsn));
        assert_eq!(json["epoch"], position.epoch);
        assert_eq!(json["lag_bytes"], consumer.lag().unwrap().bytes);
        assert!(json["cut_lsn"].is_null() && json["cut_epoch"].is_null());
    }
    let text = String::from_utf8(succeed(&["consumers", &place.log], b"")).unwrap();
    for word in ["consumer", "epoch", "LSN", "lag in bytes", "billing", "search"] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    drop((billing, search, reader));
    wal.close().unwrap();
    drop(wal);
    assert_eq!(list(&place).len(), 2);
}

#[test]
fn each_stream_has_a_lag() {
    let place = Place::with_small_log();
    let lags = |args: &[&str]| {
        let json = succeed(&[&["streams", &place.log, "--json"], args].concat(), b"");
        let list: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
        list.iter().map(|stream| stream["lag"].as_u64()).collect::<Vec<_>>()
    };
    succeed(&["ingest", &place.log, "--stream-by", "s"], b"n,s\n1,a\n2,b\n3,a\n4,a\n");
    assert_eq!(lags(&[]), [None, None], "nobody consumes");
    let wal = Wal::open(&place.log, Options::new()).unwrap();
    let (fast, _slow) = (wal.consumer("fast").unwrap(), wal.consumer("slow").unwrap());
    wal.stream("idle").unwrap();
    let mut reader = fast.reader().unwrap();
    for _ in 0..3 {
        fast.ack(reader.next().unwrap().unwrap().next_lsn()).unwrap();
    }
    wal.sync_consumers().unwrap();
    assert_eq!(lags(&[]), [Some(3), Some(1), Some(0)]);
    assert_eq!(lags(&["--consumer", "slow"]), [Some(3), Some(1), Some(0)]);
    assert_eq!(lags(&["--consumer", "fast"]), [Some(1), Some(0), Some(0)]);
    let words = fail(&["streams", &place.log, "--consumer", "nobody"], b"", 1);
    assert!(words.contains("no consumer \"nobody\""), "{words}");
}

#[test]
fn a_torn_copy_does_not_matter_and_two_are_refused() {
    let place = Place::with_small_log();
    let wal = Wal::open(&place.log, Options::new()).unwrap();
    for name in ["a", "b"] {
        wal.consumer(name).unwrap();
    }
    wal.close().unwrap();
    drop(wal);
    let dir = std::path::Path::new(&place.log);
    std::fs::write(dir.join("consumers.a"), [0; 20]).unwrap();
    assert!(!list(&place).is_empty());
    std::fs::write(dir.join("consumers.b"), [0; 20]).unwrap();
    let words = fail(&["consumers", &place.log], b"", 1);
    assert!(words.contains("consumers.b"), "{words}");
}
