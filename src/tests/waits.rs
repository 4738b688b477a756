//! Those who wait without a thread, where the medium fails, and in persistent memory.

use std::sync::mpsc;

use super::{new_image, open, tiny};
use crate::region::{Fault, Kind, Simulated};
use crate::sync::Arc;
use crate::{Options, Persistence, WaitError, Wal};

const KINDS: [Kind; 2] = [Kind::Disk, Kind::Memory];

fn on_new(kind: Kind) -> (Arc<Simulated>, Wal) {
    let disk = Simulated::new_of(kind, new_image(tiny(4)));
    let wal = open(&disk, 1, Options::new()).expect("a new log opens");
    let in_memory = wal.persistence() == Persistence::PersistentMemory;
    assert_eq!(in_memory, kind == Kind::Memory);
    (disk, wal)
}

#[test]
fn a_future_and_a_callback_complete_on_either_medium() {
    for kind in KINDS {
        let (_, wal) = on_new(kind);
        for round in 0..100_u8 {
            let lsn = wal.append(&[round]).expect("there is room");
            let (sender, receiver) = mpsc::channel();
            wal.on_durable(lsn, move |outcome| sender.send(outcome).expect("somebody listens"));
            pollster::block_on(wal.durable(lsn)).expect("the medium takes it");
            receiver.recv().expect("it is called").expect("the medium takes it");
            assert!(wal.watermarks().durable > lsn);
        }
    }
}

/// (Persistent memory reports no errors.)
#[test]
fn a_future_and_a_callback_learn_of_a_failed_sync() {
    let (disk, wal) = on_new(Kind::Disk);
    // An open reservation: they are waiting when the sync fails.
    let hole = wal.reserve(10).expect("there is room");
    let lsn = wal.append(b"never durable").expect("there is room");
    let (sender, receiver) = mpsc::channel();
    wal.on_durable(lsn, move |outcome| sender.send(outcome).expect("somebody listens"));
    let future = std::thread::scope(|scope| {
        let future = scope.spawn(|| pollster::block_on(wal.durable(lsn)));
        disk.inject(Fault::FailSync(0));
        hole.commit();
        future.join().expect("no panic")
    });
    assert!(matches!(future, Err(WaitError::Poisoned(_))), "{future:?}");
    let called = receiver.recv().expect("it is called");
    assert!(matches!(called, Err(WaitError::Poisoned(_))), "{called:?}");
    // And so do those who come later.
    let later = pollster::block_on(wal.durable(lsn));
    assert!(matches!(later, Err(WaitError::Poisoned(_))), "{later:?}");
}
