//! A log's metrics for Prometheus, over plain HTTP in the text format.
//!
//! `cargo run --example prometheus -- DIR [ADDRESS]` appends a record now and then to the log in
//! `DIR`, and serves `http://127.0.0.1:9184/metrics`. In a program of your own, call [`render`]
//! where its metrics are served.

#![allow(clippy::print_stdout, reason = "an example says where it listens")]

use std::fmt::{Display, Write as _};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use kaelix_wal::{Geometry, OnFull, Options, Wal};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A metric: its help and type, and one value.
fn metric(page: &mut String, name: &str, kind: &str, help: &str, value: impl Display) {
    let name = format!("kaelix_wal_{name}");
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

/// The log's metrics at this moment. Nothing here is paid for by appends: watermarks are read, and
/// all counters are kept by background threads and slow paths.
pub fn render(wal: &Wal) -> String {
    let (marks, counters) = (wal.watermarks(), wal.metrics());
    let mut page = String::new();
    for (name, lsn, help) in [
        ("trimmed_lsn", marks.trimmed, "everything below has been released"),
        ("durable_lsn", marks.durable, "everything below survives a power loss"),
        ("published_lsn", marks.published, "everything below is complete"),
        ("reserved_lsn", marks.reserved, "the next record starts here; its rate is bytes of log"),
        ("writable_lsn", marks.writable, "the prepared space ends here"),
    ] {
        metric(&mut page, name, "gauge", help, lsn);
    }
    let capacity = wal.geometry().capacity();
    metric(&mut page, "capacity_bytes", "gauge", "bytes of the ring", capacity);
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let c = &counters;
    for (name, value, help) in [
        ("records_published_total", c.records_published, "records that are complete"),
        ("segments_sealed_total", c.segments_sealed, "rotations to the next segment"),
        ("segments_prepared_total", c.segments_prepared, "segments zeroed for a new use"),
        ("bytes_overwritten_total", c.bytes_overwritten, "bytes of log displaced when it was full"),
        ("slow_syncs_total", c.slow_syncs, "syncs that took longer than 100 ms"),
        ("sync_bytes_total", c.sync_bytes, "bytes that syncs covered, in whole pages"),
        ("slots_written_total", c.slots_written, "checkpoint slots written"),
        ("full_hits_total", c.full_hits, "times a producer found no prepared space"),
        ("pages_unready_total", c.pages_unready, "pages that may have cost an append a fault"),
        ("tail_page_syncs_total", c.tail_page_syncs, "syncs of the page that is being filled"),
        ("wakeups_total", c.wakeups, "commits that woke a sleeper"),
        ("aborts_total", c.aborts, "reservations given up"),
        ("segments_protected_total", c.segments_protected, "segments that were given parity"),
        ("parity_failures_total", c.parity_failures, "segments, or times, without parity"),
    ] {
        metric(&mut page, name, "counter", help, value);
    }
    let stalls = "kaelix_wal_stall_seconds_total";
    let help = "time that producers waited, by cause";
    let _ = write!(page, "# HELP {stalls} {help}\n# TYPE {stalls} counter\n");
    for (cause, nanos) in [("preparing", c.prepare_wait_nanos), ("full", c.full_wait_nanos)] {
        let _ = writeln!(page, "{stalls}{{cause=\"{cause}\"}} {}", seconds(nanos));
    }
    let name = "kaelix_wal_sync_seconds";
    let _ = write!(page, "# HELP {name} how long syncs took\n# TYPE {name} histogram\n");
    let mut so_far = 0;
    for (bound, count) in counters.sync_latency.buckets() {
        so_far += count;
        let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
        let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {so_far}");
    }
    let _ = writeln!(page, "{name}_sum {}\n{name}_count {so_far}", seconds(c.sync_nanos));
    consumers(wal, &mut page);
    page
}

fn consumers(wal: &Wal, page: &mut String) {
    let name = "kaelix_wal_consumer_lag_bytes";
    let _ = write!(page, "# HELP {name} how far behind a consumer is\n# TYPE {name} gauge\n");
    for consumer in wal.consumers() {
        // The label's own escapes, and no others.
        let label = consumer.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(page, "{name}{{consumer=\"{label}\"}} {}", consumer.lag.bytes);
    }
}

/// Answers one request, whatever it asks for.
pub fn answer(wal: &Wal, mut client: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = BufReader::new(client.try_clone()?).lines();
    // The head of a request ends with an empty line.
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let page = render(wal);
    let (kind, len) = ("text/plain; version=0.0.4", page.len());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n");
    write!(client, "{head}Connection: close\r\n\r\n{page}")
}

#[allow(dead_code, reason = "a test uses what is above")]
fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: prometheus DIR [ADDRESS]")?;
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9184".to_owned());
    let options = Options::new().on_full(OnFull::Overwrite);
    let wal = Wal::open_or_create(dir, Geometry::new(16 << 20, 1 << 20)?, options)?;
    let listener = TcpListener::bind(&address)?;
    println!("http://{address}/metrics");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while wal.append_durable(b"something happened").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        for client in listener.incoming() {
            // A client that goes away is no reason to stop.
            let _ = client.and_then(|client| answer(&wal, client));
        }
    });
    Ok(())
}
