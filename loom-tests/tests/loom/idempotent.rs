//! Models of idempotent producers: what is tried at the same time is appended once.

use crate::{check, in_turn, run};
use kaelix_wal::ProducerId;
use kaelix_wal::model::Log;
use loom::thread;

const ID: ProducerId = ProducerId::new(7);

/// Two threads try one sequence: one of them appends, and both are told where.
#[test]
fn two_tries_of_one_sequence_are_one_record() {
    check(3, || {
        let log = Log::new(2, 1, 1024);
        let other = {
            let log = log.clone();
            thread::spawn(move || {
                let producer = log.idempotent(ID).expect("there is nothing to read");
                producer.append(5, b"retried").expect("there is room")
            })
        };
        let producer = log.idempotent(ID).expect("there is nothing to read");
        let ours = producer.append(5, b"retried").expect("there is room");
        let theirs = other.join().expect("no panic");
        assert_eq!(ours.lsn, theirs.lsn);
        assert!(ours.duplicate != theirs.duplicate);
        assert_eq!(log.contents(), [b"retried"]);
    });
}

/// A try that finds the sequence known finds its record committed, whoever has committed it.
#[test]
fn a_duplicate_is_committed_when_it_is_told() {
    check(2, || {
        let log = Log::new(2, 1, 1024);
        let try_it = |log: &Log| {
            let producer = log.idempotent(ID).expect("there is nothing to read");
            let appended = producer.append(5, b"retried").expect("there is room");
            if appended.duplicate {
                let record = log.read(appended.lsn);
                assert!(record.as_deref() == Some(&b"retried"[..]), "told before the commit");
            }
        };
        in_turn([run(&log, try_it), run(&log, try_it)]);
    });
}
