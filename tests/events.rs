//! What a log tells a `tracing` subscriber.

use std::fmt::{Debug, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kaelix_wal::simulation::{self, Disk, Fault, new_image, tiny};
use kaelix_wal::{Geometry, OnFull, Options, Wal};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps events as lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "kaelix_wal"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Lines {
    #[track_caller]
    fn take_one(&self, level: &str, words: &str) -> String {
        let mut lines = self.0.lock().unwrap();
        let found = lines.iter().position(|line| line.starts_with(level) && line.contains(words));
        let Some(found) = found else { panic!("no {level} with {words}: {lines:#?}") };
        lines.remove(found)
    }
}

/// One test, since there is one subscriber for all threads of the process.
#[test]
fn a_log_tells_what_happens_to_it() {
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    opens_rotations_and_refusals(&lines);
    syncs(&lines);
    parity(&lines);
}

fn opens_rotations_and_refusals(lines: &Lines) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("log");
    let options = Options::new().on_full(OnFull::Overwrite);
    let wal = Wal::create(&dir, Geometry::new(256 << 10, 64 << 10).unwrap(), options).unwrap();
    let opened = lines.take_one("INFO", "opened: ");
    assert!(opened.contains("epoch=1") && opened.contains("log/ring"), "{opened}");
    for _ in 0..500 {
        wal.append(&[7; 1000]).unwrap();
    }
    wal.close().unwrap();
    drop(wal);
    for sequence in 1..5 {
        let prepared = lines.take_one("DEBUG", &format!("sequence={sequence} "));
        assert!(prepared.contains("segment prepared"), "{prepared}");
    }
    lines.take_one("INFO", "closed in order");

    // What was durable is damaged: the record that was appended last.
    let wal = Wal::open(&dir, options).unwrap();
    lines.take_one("INFO", "epoch=2");
    let lsn = wal.append(b"damaged soon").unwrap();
    wal.close().unwrap();
    drop(wal);
    lines.take_one("INFO", "closed in order");
    let offset = (2 << 20) + lsn.get() % (256 << 10) + 20;
    let ring = std::fs::OpenOptions::new().write(true).open(dir.join("ring")).unwrap();
    ring.write_all_at(b"DAMAGE", offset).unwrap();
    assert!(Wal::open(&dir, options).is_err());
    let refused = lines.take_one("ERROR", "open refused");
    assert!(refused.contains(&format!("LSN {lsn}")), "{refused}");
}

/// What keeps a segment from being protected is a warning, once.
fn parity(lines: &Lines) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("log");
    let options = Options::new().on_full(OnFull::Overwrite).parity(true);
    let wal = Wal::create(&dir, Geometry::new(256 << 10, 64 << 10).unwrap(), options).unwrap();
    std::fs::create_dir(dir.join("parity")).unwrap();
    for _ in 0..100 {
        wal.append(&[7; 1000]).unwrap();
    }
    wal.sync().unwrap();
    for _ in 0..2 {
        wal.sync_parity().unwrap_err();
    }
    let warned = lines.take_one("WARN", "no parity for now");
    assert!(warned.contains("log/parity"), "{warned}");
    assert!(!lines.0.lock().unwrap().iter().any(|line| line.contains("no parity")));
    std::fs::remove_dir(dir.join("parity")).unwrap();
    let ring = std::fs::OpenOptions::new().write(true).open(dir.join("ring")).unwrap();
    ring.write_all_at(b"DAMAGE", (2 << 20) + 5000).unwrap();
    assert_eq!(wal.sync_parity().unwrap(), 0);
    let warned = lines.take_one("WARN", "no parity for a segment that does not verify");
    assert!(warned.contains("sequence=0"), "{warned}");
    wal.close().unwrap();
}

fn syncs(lines: &Lines) {
    // On a busy disk some of the syncs before may have been slow.
    lines.0.lock().unwrap().clear();
    let disk = Disk::new(new_image(tiny(3)));
    let wal = simulation::open(&disk, 1, Options::new()).unwrap();
    disk.meanwhile(|| thread::sleep(Duration::from_millis(120)));
    disk.inject(Fault::SlowSync(0));
    wal.append_durable(b"late").unwrap();
    let slow = lines.take_one("WARN", "slow sync");
    let (_, millis) = slow.split_once("millis=").unwrap();
    let millis: u64 = millis.split(' ').next().unwrap().parse().unwrap();
    assert!(slow.contains("bytes=4096") && millis >= 120, "{slow}");
    disk.inject(Fault::FailSync(0));
    let error = wal.append_durable(b"lost").unwrap_err();
    let poisoned = lines.take_one("ERROR", "poisoned");
    assert!(poisoned.contains("injected") && error.to_string().contains("injected"), "{error}");
    wal.kill();
}
