//! The example that serves metrics, scraped as Prometheus would.

#[path = "../examples/prometheus.rs"]
mod prometheus;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use kaelix_wal::{Geometry, Options, Position, Wal};

/// The samples of a page in the text format; panics at what is none.
fn samples(page: &str) -> BTreeMap<&str, f64> {
    let mut samples = BTreeMap::new();
    let mut typed = String::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            typed = declared.split(' ').next().unwrap().to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(name.starts_with(&typed), "{name} has no type");
            assert!(samples.insert(name, value.parse().expect("a number")).is_none(), "{name}");
        }
    }
    samples
}

#[test]
fn what_is_scraped_is_what_the_log_counts() {
    let dir = tempfile::tempdir().unwrap();
    let geometry = Geometry::new(1 << 20, 1 << 18).unwrap();
    let wal = Wal::create(dir.path().join("log"), geometry, Options::new()).unwrap();
    wal.consumer_at("say \"hi\"", Position::Oldest).unwrap();
    for _ in 0..3 {
        wal.append_durable(&[1; 1000]).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    prometheus::answer(&wal, listener.accept().unwrap().0).unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    let (head, page) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", page.len())), "{head}");

    let samples = samples(page);
    let sample = |name: &str| samples[format!("kaelix_wal_{name}").as_str()];
    assert_eq!(sample("records_published_total"), 3.0);
    assert_eq!(sample("sync_seconds_count"), wal.metrics().syncs as f64);
    assert_eq!(sample("sync_seconds_bucket{le=\"+Inf\"}"), wal.metrics().syncs as f64);
    assert!(sample("sync_seconds_sum") > 0.0);
    assert_eq!(sample("capacity_bytes"), f64::from(1 << 20));
    assert_eq!(sample("durable_lsn"), wal.watermarks().durable.get() as f64);
    assert!(sample("consumer_lag_bytes{consumer=\"say \\\"hi\\\"\"}") > 3000.0);
    assert!(samples.contains_key("kaelix_wal_stall_seconds_total{cause=\"full\"}"));
}
