//! Consumers whose positions cannot be written, and epochs that nobody closed.

use std::path::Path;

use super::{boot, new_image, tiny};
use crate::consumer::store::Memory;
use crate::layout::ConsumerTable;
use crate::lsn::Lsn;
use crate::region::{Region, Simulated};
use crate::sync::{self, Arc, lock};
use crate::wal::Beside;
use crate::{
    AppendError, Blocker, ConsumerError, OnFull, Options, Position, Retention, Wal, simulation,
};

const OPTIONS: Options = Options::new().retention(Retention::Consumers).on_full(OnFull::Fail);

/// Opens the log on `disk`, with consumers in `memory` and with its threads.
fn open(disk: &Arc<Simulated>, memory: &Memory, number: u8) -> Wal {
    let head = simulation::head(disk).expect("memory can be read");
    let (region, path) = (Region::new(disk.clone()), Path::new("simulated"));
    let beside = Beside { catalog: None, medium: Box::new(memory.clone()) };
    let wal = Wal::recover_beside(region, &head, boot(number), OPTIONS, None, path, beside);
    let wal = wal.expect("nothing is damaged");
    wal.spawn_threads().expect("a thread can be started");
    wal
}

fn fill(wal: &Wal) -> AppendError {
    loop {
        if let Err(refusal) = wal.append(&[7; 1000]) {
            return refusal;
        }
    }
}

/// The newest table in memory.
fn table(memory: &Memory, disk: &Arc<Simulated>) -> ConsumerTable {
    let head = simulation::head(disk).expect("memory can be read");
    let copies = lock(&memory.0);
    let copies = copies.bytes.iter().flatten();
    let tables = copies.map(|copy| ConsumerTable::verify(copy, &head.log_id, &head.geometry));
    tables.flatten().max_by_key(|table| table.generation).expect("one is whole")
}

#[test]
fn positions_that_cannot_be_written_release_nothing_and_nobody_waits_for_them() {
    let disk = Simulated::new(new_image(tiny(4)));
    let memory = Memory::default();
    let wal = open(&disk, &memory, 1);
    let consumer = wal.consumer("c").expect("it can be written");
    assert!(matches!(fill(&wal), AppendError::Full { .. }));
    lock(&memory.0).broken = true;
    let end = wal.sync().expect("the disk takes it");
    consumer.ack(end).expect("the end is a boundary");
    // It would hang if the janitor tried for ever.
    assert!(matches!(fill(&wal), AppendError::Full { .. }));
    assert_eq!(wal.watermarks().trimmed, Lsn::new(64));
    assert!(matches!(wal.sync_consumers(), Err(ConsumerError::File(_))));
    assert!(matches!(wal.consumer("other"), Err(ConsumerError::File(_))));
    assert!(matches!(wal.remove_consumer("c"), Err(ConsumerError::File(_))));
    assert_eq!(wal.consumers().len(), 1);
    lock(&memory.0).broken = false;
    wal.sync_consumers().expect("it can be written again");
    let start = sync::now();
    while wal.append(b"there is room").is_err() {
        assert!(start.elapsed().as_secs() < 60, "it is released by the write");
        sync::park_timeout(std::time::Duration::from_millis(1));
    }
    assert!(wal.watermarks().trimmed > Lsn::new(64));
    lock(&memory.0).broken = true;
    consumer.ack(wal.sync().expect("the disk takes it")).expect("a boundary");
    let closed = wal.close();
    assert!(matches!(closed, Err(crate::CloseError::Consumers(_))), "{closed:?}");
}

#[test]
fn an_epoch_is_written_down_before_its_first_record() {
    let disk = Simulated::new(new_image(tiny(4)));
    let memory = Memory::default();
    let wal = open(&disk, &memory, 1);
    wal.consumer("c").expect("it can be written");
    wal.die();
    for number in 2..6 {
        let wal = open(&disk, &memory, number);
        let (table, report) = (table(&memory, &disk), wal.recovery_report());
        assert_eq!((table.epoch, table.durable), (report.epoch, report.end));
        assert_eq!(table.starts.last().expect("it began").lsn, report.end);
        wal.append(b"one more").expect("there is room");
        wal.die();
    }
}

#[test]
fn a_new_consumer_does_not_begin_below_what_is_being_released() {
    let disk = Simulated::new(new_image(tiny(4)));
    let memory = Memory::default();
    let wal = open(&disk, &memory, 1);
    let first = wal.consumer("first").expect("it can be written");
    assert!(matches!(fill(&wal), AppendError::Full { .. }));
    let end = wal.sync().expect("the disk takes it");
    first.ack(end).expect("the end is a boundary");
    let confirmed = wal.janitor.confirm_all();
    assert_eq!(confirmed, end);
    // The janitor may trim up to there from now on.
    let late = wal.consumer_at("late", Position::Oldest).expect("it can be written");
    assert!(late.position().expect("it is there").lsn >= end);
    assert!(wal.consumer_at("later", Position::At(Lsn::new(64))).is_err());
    assert!(!matches!(wal.who_blocks_reclaim(), Some(Blocker::Consumer { .. })));
}
