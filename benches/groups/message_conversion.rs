//! Messages: parts to bytes, bytes to a view, and parts to a record in the log.
//!
//! The floor copies as many bytes as the message takes, from one piece of memory to another: what
//! no conversion that leaves the bytes somewhere can do without. A view copies nothing, so its time
//! does not grow with the payload. In front of an append into the log, the floor is `Wal::append`
//! of bytes that were encoded before.
//!
//! All of it but the append is work of one core in its caches, to which whatever else runs there
//! only adds. So the table shows the fastest of many short rounds; ratios are medians as elsewhere.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use kaelix_wal::{Durability, Message, MessageView, Wal};

use crate::support::results::Row;
use crate::support::{append, median, open, seconds};

const SIZES: [(usize, &str); 3] = [(64, "64B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];
/// Short rounds, in turn.
const ROUNDS: usize = 41;
const HEADERS: [(&str, &[u8]); 4] = [
    ("content-type", b"application/json"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("producer", b"checkout-7"),
    ("attempt", b"1"),
];

/// A message of this payload, with four headers.
fn message(payload: &[u8]) -> Message<'_, &[u8]> {
    Message::new(payload)
        .id(0x0193_5c1e_6d3a_7b52_9c04_6e1f_0a8b_2d47)
        .timestamp_nanos(1_700_000_000_000_000_000)
        .topic("orders.created")
        .key(b"customer-000017")
        .headers(&HEADERS)
}

/// What is measured: its name, and one turn of it.
type Turn<'a> = (&'static str, Box<dyn FnMut(u64) -> Duration + 'a>);

pub fn run(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), Durability::None);
    let mut group = criterion.benchmark_group("message_conversion");
    group.sample_size(20).measurement_time(seconds(1.0)).warm_up_time(Duration::from_millis(300));
    let mut rows = Vec::new();
    for (size, name) in SIZES {
        let payload = vec![0xA5_u8; size];
        let mut bytes = Vec::new();
        message(&payload).encode(&mut bytes).expect("all of it is short");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        // Each writes to its own target.
        let mut targets = [vec![0; bytes.len()], vec![0; bytes.len()]];
        let mut turns = turns(&wal, &payload, &bytes, &mut targets);
        for (what, turn) in &mut turns {
            group.bench_function(BenchmarkId::new(*what, name), |bencher| {
                bencher.iter_custom(&mut *turn);
            });
        }
        rows.push(row(name, &mut turns));
    }
    group.finish();
    println!("\nmessage_conversion: ns for each message with 4 headers, a key and a topic: the");
    println!("fastest of {ROUNDS} rounds in turn; ratios are medians of the rounds' ratios");
    println!(
        "| payload | memcpy | encode | memcpy/encode | view | view and headers | append | \
         encode and append | append/both |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
}

/// The floors and what stands beside them, in the order of the columns.
fn turns<'a>(
    wal: &'a Wal,
    payload: &'a [u8],
    bytes: &'a [u8],
    [copied, encoded]: &'a mut [Vec<u8>; 2],
) -> [Turn<'a>; 6] {
    [
        (
            "memcpy",
            timed(move || {
                black_box(&mut copied[..]).copy_from_slice(black_box(bytes));
            }),
        ),
        (
            "encode",
            timed(move || {
                let message = message(black_box(payload));
                let len = message.encode_into(black_box(encoded)).expect("there is room");
                black_box(len);
            }),
        ),
        (
            "view",
            timed(|| {
                let view = MessageView::parse(black_box(bytes)).expect("well-formed");
                black_box((view.topic(), view.key(), view.payload()));
            }),
        ),
        (
            "view_and_headers",
            timed(|| {
                let view = MessageView::parse(black_box(bytes)).expect("well-formed");
                for header in view.headers() {
                    black_box(header);
                }
                black_box(view.payload());
            }),
        ),
        ("append", timed(|| append(wal, bytes))),
        (
            "encode_and_append",
            timed(|| {
                let message = message(black_box(payload));
                let mut space = wal.reserve(message.encoded_len()).expect("the oldest makes room");
                message.encode_into(&mut space).expect("there is room");
                black_box(space.commit());
            }),
        ),
    ]
}

/// The time of as many calls as are asked for.
fn timed<'a>(mut operation: impl FnMut() + 'a) -> Box<dyn FnMut(u64) -> Duration + 'a> {
    Box::new(move |count| {
        let start = Instant::now();
        for _ in 0..count {
            operation();
        }
        start.elapsed()
    })
}

/// One row: all of them in turn, round by round.
fn row(name: &str, turns: &mut [Turn<'_>; 6]) -> String {
    let mut nanos = [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        for ((_, turn), nanos) in turns.iter_mut().zip(&mut nanos) {
            // As many as fill a share of the time, after a few that tell how long one takes.
            let share = seconds(1.0).as_nanos() / ROUNDS as u128;
            let once = (turn(100).as_nanos() / 100).max(1);
            let count = (share / once).clamp(100, 10_000_000) as u64;
            nanos.push(turn(count).as_nanos() as f64 / count as f64);
        }
    }
    let ratio = |over: usize, under: usize| {
        median(nanos[over].iter().zip(&nanos[under]).map(|(o, u)| o / u).collect())
    };
    let (encode, log) = (ratio(0, 1), ratio(4, 5));
    for (case, turn, floor, floor_name) in [
        ("encode", 1, 0, "memcpy of as many bytes"),
        ("view and headers", 3, 0, "memcpy of as many bytes"),
        ("encode and append", 5, 4, "append of bytes encoded before"),
    ] {
        let row = Row::new("message_conversion", &format!("{case} {name}"), "each message", "ns");
        row.log(&nanos[turn]).floor(floor_name, &nanos[floor]).write();
    }
    let fastest = |rounds: Vec<f64>| rounds.into_iter().fold(f64::MAX, f64::min);
    let [memcpy, encoded, view, headers, append, both] = nanos.map(fastest);
    format!(
        "| {name} | {memcpy:.1} | {encoded:.1} | {encode:.2} | {view:.1} | {headers:.1} | \
         {append:.0} | {both:.0} | {log:.2} |"
    )
}
