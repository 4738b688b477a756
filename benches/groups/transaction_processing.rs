//! Transactions of ten entries over three streams: gathered and committed, and made durable.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use kaelix_wal::{Durability, Lsn, Stream, Wal};

use crate::support::disk_floor::DiskFloor;
use crate::support::results::Row;
use crate::support::{ROUNDS, append, median, open, seconds, time_calls, time_threads};

const PAYLOAD: [u8; 64] = [0xA5; 64];
const ENTRIES: usize = 10;
/// So many transactions take less than a sixth of the ring.
const BURST: u64 = 50_000;

pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::OnDemand);
    let names = ["one", "two", "three"];
    let plain = wal.streams(&names).expect("they are created");
    let versioned: Vec<Stream<'_>> = names
        .iter()
        .map(|name| wal.versioned_stream(&format!("versioned {name}")).expect("it is created"))
        .collect();
    let mut group = criterion.benchmark_group("transaction_processing");
    group.sample_size(10).measurement_time(seconds(2.0)).warm_up_time(Duration::from_secs(1));
    group.bench_function("plain", |bencher| bencher.iter(|| transact(&wal, &plain, false)));
    group.bench_function("expecting", |bencher| bencher.iter(|| transact(&wal, &versioned, true)));
    group.finish();

    // As long as the ring takes them: beyond that, the disk's speed is what is measured.
    let count = ((seconds(2.0).as_secs_f64() * 1e9 / 4.0 / 500.0) as u64).min(BURST);
    let nanos = |body: &(dyn Fn() + Sync)| {
        let end = wal.watermarks().reserved;
        wal.wait_durable(Lsn::new(end.get() - 1)).expect("the disk takes it");
        wal.checkpoint(end).expect("a boundary");
        wal.sync_checkpoint().expect("the disk takes it");
        time_threads(1, count, body).as_nanos() as f64 / count as f64
    };
    let [mut singles, mut plains, mut expecting] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        singles.push(nanos(&|| (0..ENTRIES).for_each(|_| append(&wal, &PAYLOAD))));
        plains.push(nanos(&|| transact(&wal, &plain, false)));
        expecting.push(nanos(&|| transact(&wal, &versioned, true)));
    }
    for (case, nanos) in [("plain", &plains), ("expecting three versions", &expecting)] {
        let row = Row::new("transaction_processing", case, "each transaction", "ns").log(nanos);
        row.floor("ten appends", &singles).write();
    }
    println!("\ntransaction_processing: ten entries of 64 B over three streams, {count} at a time");
    println!("| ns, medians of {ROUNDS} rounds in turn | |");
    println!("|---|---|");
    println!("| ten appends | {:.0} |", median(singles));
    println!("| a transaction | {:.0} |", median(plains));
    println!("| a transaction that expects three versions | {:.0} |", median(expecting));
    durable(&wal, &plain, dir.path());
}

fn transact(wal: &Wal, streams: &[Stream<'_>], expects: bool) {
    let mut transaction = wal.begin();
    if expects {
        for stream in streams {
            let last = stream.last_lsn().expect("it is known");
            transaction.expect(stream, last).expect("it is versioned");
        }
    }
    for entry in 0..ENTRIES {
        let stream = &streams[entry % streams.len()];
        transaction.append(stream, black_box(&PAYLOAD)).expect("it is small");
    }
    black_box(transaction.commit().expect("nobody else commits"));
}

/// Durable commits against the disk's own 4 KiB write and sync, in turn.
fn durable(wal: &Wal, streams: &[Stream<'_>], dir: &std::path::Path) {
    let floor = DiskFloor::new(dir, 64 << 20).expect("a floor");
    let share = seconds(2.0) / ROUNDS as u32;
    let [mut p50, mut p99, mut commits_p99, mut disk_p99] = [const { Vec::new() }; 4];
    let (mut commits, mut syncs, mut page) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let disk = time_calls(share, || {
            floor.page(page).expect("the disk takes it");
            page += 1;
        });
        let before = wal.metrics().syncs;
        let commit = time_calls(share, || {
            let mut transaction = wal.begin();
            for entry in 0..ENTRIES {
                let stream = &streams[entry % streams.len()];
                transaction.append(stream, &PAYLOAD).expect("it is small");
            }
            transaction.commit_durable().expect("the disk takes it");
        });
        syncs += wal.metrics().syncs - before;
        commits += commit.len();
        let ratio = |quantile| {
            commit.value_at_quantile(quantile) as f64 / disk.value_at_quantile(quantile) as f64
        };
        p50.push(ratio(0.5));
        p99.push(ratio(0.99));
        commits_p99.push(commit.value_at_quantile(0.99) as f64 / 1e3);
        disk_p99.push(disk.value_at_quantile(0.99) as f64 / 1e3);
    }
    let row = Row::new("transaction_processing", "durable", "p99", "us").log(&commits_p99);
    row.floor("4 KiB write and sync", &disk_p99).write();
    println!("| durable commit / 4 KiB write + sync, p50 | {:.2} |", median(p50));
    println!("| durable commit / 4 KiB write + sync, p99 | {:.2} |", median(p99));
    println!("| syncs a durable commit | {:.2} |", syncs as f64 / commits as f64);
}
