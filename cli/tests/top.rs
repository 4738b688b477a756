//! `top`, in a terminal and as text.

mod common;

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Place, fail, numbered_lines, spawn, succeed, wait_until};
use kaelix_wal::{Options, Position, Wal};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

#[test]
fn one_frame_is_printed_as_text() {
    let place = Place::with_small_log();
    let wal = Wal::open(&place.log, Options::new()).unwrap();
    for _ in 0..2000 {
        wal.append(&[7; 1000]).unwrap();
    }
    wal.consumer_at("billing", Position::Oldest).unwrap();
    wal.sync().unwrap();
    let hole = wal.reserve(1000).unwrap();
    wal.append(b"behind").unwrap();
    let args = ["top", &place.log, "--once", "--interval", "0.1"];
    let frame = String::from_utf8(succeed(&args, b"")).unwrap();
    let line = |words: &str| {
        let found = frame.lines().find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("{words} is missing:\n{frame}"))
    };
    assert!(line("open in process").contains(&std::process::id().to_string()), "{frame}");
    assert!(line(" committed ").contains(&hole.lsn().to_string()), "{frame}");
    assert!(line(" trimmed ").contains(" 64 "), "{frame}");
    assert!(line("holds committed records back").contains(&hole.lsn().to_string()), "{frame}");
    assert!(line("billing").contains("behind"), "{frame}");
    assert!(frame.contains("#>"), "{frame}");
    line("records/s");
    line("Not known from outside");
}

#[test]
fn a_log_that_nobody_has_open_is_shown_too() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"one\n");
    let args = ["top", &place.log, "--once", "--interval", "0.05"];
    let frame = String::from_utf8(succeed(&args, b"")).unwrap();
    assert!(frame.contains("closed in order") && frame.contains(" none"), "{frame}");
    fail(&["top", "/nowhere", "--once"], b"", 1);
    fail(&["top", &place.log, "--interval", "0"], b"", 2);
}

/// A terminal, in which the tool runs.
struct Screen {
    parser: Arc<Mutex<vt100::Parser>>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn portable_pty::Child + Send + Sync>,
    _master: Box<dyn portable_pty::MasterPty + Send>,
}

impl Screen {
    fn start(args: &[&str]) -> Self {
        let (rows, columns) = (NonZeroU16::new(40).unwrap(), NonZeroU16::new(100).unwrap());
        let (pixel_width, pixel_height) = (0, 0);
        let size = PtySize { rows: rows.get(), cols: columns.get(), pixel_width, pixel_height };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_kaelix-wal"));
        command.args(args);
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let screen = parser.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut bytes) {
                screen.lock().unwrap().process(&bytes[..len]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { parser, writer, child, _master: pair.master }
    }

    fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// The number in the line of a watermark.
    fn position(&self, name: &str) -> Option<u64> {
        let text = self.text();
        let line = text.lines().find(|line| line.trim_start().starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

#[test]
fn the_screen_follows_a_writer_and_leaves_the_terminal_as_it_was() {
    let place = Place::with_small_log();
    let mut writer = spawn(&["ingest", &place.log, "--sync", "none"]);
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    wait_until("the writer is there", || !succeed(&["cat", &place.log], b"").is_empty());

    let mut screen = Screen::start(&["top", &place.log, "--interval", "0.05"]);
    wait_until("the first frame is there", || screen.position("committed").is_some());
    assert!(screen.parser.lock().unwrap().screen().alternate_screen());
    let before = screen.position("committed").unwrap();
    stdin.write_all(&numbered_lines(2 << 20)).unwrap();
    wait_until("the frame has moved on", || {
        screen.position("committed").is_some_and(|now| now > before + (1 << 20))
    });
    assert!(screen.text().contains("open in process"), "{}", screen.text());

    screen.writer.write_all(b"q").unwrap();
    let status = screen.child.wait().unwrap();
    assert!(status.success(), "{status:?}");
    wait_until("the terminal is as it was", || {
        !screen.parser.lock().unwrap().screen().alternate_screen()
    });
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}
