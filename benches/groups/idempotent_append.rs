//! What a sequence costs: an idempotent append against a plain one of the same payload, and of one
//! that is 16 bytes longer, which is as much to write.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, ProducerId, Wal};

use crate::support::results::Row;
use crate::support::{ROUNDS, append, median, open, seconds, time_threads};

const SIZES: [(usize, &str); 2] = [(64, "64B"), (1 << 10, "1KiB")];

/// One producer without a promise of durability: nothing but the append is measured.
pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::None);
    let sequence = std::sync::atomic::AtomicU64::new(0);
    let idempotent = wal.idempotent(ProducerId::new(7)).expect("an empty log");
    let once = |payload: &[u8]| {
        let sequence = sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let appended = idempotent.append(sequence, black_box(payload));
        black_box(appended.expect("the oldest makes room"));
    };
    let mut group = criterion.benchmark_group("idempotent_append");
    group.sample_size(10).measurement_time(seconds(2.0)).warm_up_time(Duration::from_secs(1));
    let mut table = Vec::new();
    for (size, name) in SIZES {
        let (payload, longer) = (vec![0xA5_u8; size], vec![0xA5_u8; size + 16]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("plain", name), |bencher| {
            bencher.iter(|| append(&wal, &payload));
        });
        group.bench_function(BenchmarkId::new("idempotent", name), |bencher| {
            bencher.iter(|| once(&payload));
        });
        group.bench_function(BenchmarkId::new("retry", name), |bencher| {
            let newest = idempotent.last_sequence().expect("there were appends");
            bencher.iter(|| {
                let appended = idempotent.append(black_box(newest), black_box(&payload));
                black_box(appended.expect("it is known"));
            });
        });
        table.push(ratios(&wal, &once, (&payload, &longer), name));
    }
    group.finish();
    println!("\nidempotent_append: ns an append, medians of {ROUNDS} rounds in turn");
    println!("| size | plain | plain, 16 B longer | idempotent | to plain | to longer |");
    println!("|---|---|---|---|---|---|");
    table.iter().for_each(|row| println!("{row}"));
}

/// One row, the three measured in turn.
fn ratios(
    wal: &Wal,
    once: &(impl Fn(&[u8]) + Sync),
    (payload, longer): (&[u8], &[u8]),
    name: &str,
) -> String {
    let count =
        (seconds(2.0).as_secs_f64() * 1e9 / 6.0 / (60.0 + payload.len() as f64 / 8.0)) as u64;
    let each = |time: Duration| time.as_nanos() as f64 / count as f64;
    let (mut plain, mut padded, mut idempotent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(each(time_threads(1, count, || append(wal, payload))));
        padded.push(each(time_threads(1, count, || append(wal, longer))));
        idempotent.push(each(time_threads(1, count, || once(payload))));
    }
    let row = Row::new("idempotent_append", name, "each append", "ns").log(&idempotent);
    row.floor("a plain append, 16 B longer", &padded).write();
    let ratio = |floor: &[f64]| median(idempotent.iter().zip(floor).map(|(i, f)| i / f).collect());
    let (to_plain, to_padded) = (ratio(&plain), ratio(&padded));
    format!(
        "| {name} | {:.1} | {:.1} | {:.1} | {to_plain:.2} | {to_padded:.2} |",
        median(plain),
        median(padded),
        median(idempotent)
    )
}
