//! `trim`, and what is made of the definitions of the command line: completions and manual pages.

mod common;

use std::io::Write;

use common::{Place, fail, spawn, succeed, wait_until};
use kaelix_wal::{Options, Position, Wal};

/// The LSNs of a log's records.
fn lsns(log: &str) -> Vec<String> {
    let text = String::from_utf8(succeed(&["cat", log, "--json"], b"")).unwrap();
    let record = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(|line| record(line)["lsn"].to_string()).collect()
}

#[test]
fn a_closed_log_is_trimmed_to_a_record() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"one\ntwo\nthree\n");
    let third = lsns(&place.log)[2].clone();
    let said = String::from_utf8(succeed(&["trim", &place.log, "--to", &third], b"")).unwrap();
    assert!(said.contains(&format!("begins at LSN {third}")), "{said}");
    assert_eq!(succeed(&["cat", &place.log], b""), b"three\n");

    // Lower than where it begins: nothing to release.
    let said = String::from_utf8(succeed(&["trim", &place.log, "--to", "64"], b"")).unwrap();
    assert!(said.starts_with("released 0 B"), "{said}");
    succeed(&["trim", &place.log, "--to", "end"], b"");
    assert_eq!(succeed(&["cat", &place.log], b""), b"");
    succeed(&["ingest", &place.log], b"four\n");
    assert_eq!(succeed(&["cat", &place.log], b""), b"four\n");
}

#[test]
fn a_position_that_is_none_is_refused_and_nothing_is_released() {
    let place = Place::with_small_log();
    succeed(&["ingest", &place.log], b"one\ntwo\n");
    let inside = (lsns(&place.log)[1].parse::<u64>().unwrap() + 1).to_string();
    let words = fail(&["trim", &place.log, "--to", &inside], b"", 1);
    assert!(words.contains("--since"), "{words}");
    fail(&["trim", &place.log, "--to", "1000000"], b"", 1);
    fail(&["trim", &place.log, "--to", "soon"], b"", 2);
    assert_eq!(succeed(&["cat", &place.log], b""), b"one\ntwo\n");
}

#[test]
fn an_open_log_is_not_trimmed() {
    let place = Place::with_small_log();
    let mut writer = spawn(&["ingest", &place.log, "--sync", "none"]);
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    wait_until("the writer has it open", || succeed(&["cat", &place.log], b"") == b"one\n");
    let words = fail(&["trim", &place.log, "--to", "end"], b"", 1);
    assert!(words.contains("while it is open"), "{words}");
    assert!(words.contains(&format!("process {}", writer.id())), "{words}");
    drop(stdin);
    assert!(writer.wait().unwrap().success());
    assert_eq!(succeed(&["cat", &place.log], b""), b"one\n");
}

#[test]
fn a_consumer_that_is_behind_is_passed_only_on_demand() {
    let place = Place::with_small_log();
    let wal = Wal::open(&place.log, Options::new()).unwrap();
    wal.append(b"one").unwrap();
    wal.append(b"two").unwrap();
    wal.consumer_at("billing", Position::Oldest).unwrap();
    wal.close().unwrap();
    drop(wal);
    let words = fail(&["trim", &place.log, "--to", "end"], b"", 1);
    assert!(words.contains("\"billing\"") && words.contains("--past-consumers"), "{words}");
    assert_eq!(succeed(&["cat", &place.log], b""), b"one\ntwo\n");
    succeed(&["trim", &place.log, "--to", "end", "--past-consumers"], b"");
    assert_eq!(succeed(&["cat", &place.log], b""), b"");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(succeed(&["completions", shell], b"")).unwrap();
        for word in ["ingest", "export", "trim", "on-full"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    // Where there is a shell, it can read them.
    let script = succeed(&["completions", "bash"], b"");
    let mut bash = std::process::Command::new("bash");
    let Ok(mut bash) = bash.args(["-n"]).stdin(std::process::Stdio::piped()).spawn() else {
        return;
    };
    bash.stdin.take().unwrap().write_all(&script).unwrap();
    assert!(bash.wait().unwrap().success());
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let place = Place::new();
    let dir = place.dir.path().join("man");
    succeed(&["man", dir.to_str().unwrap()], b"");
    let page = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let tool = page("kaelix-wal.1");
    for command in ["create", "ingest", "cat", "export", "import", "trim", "completions"] {
        assert!(tool.contains(&format!("kaelix\\-wal\\-{command}(1)")), "{command}");
        assert!(page(&format!("kaelix-wal-{command}.1")).contains(".SH OPTIONS"), "{command}");
    }
    assert!(!dir.join("kaelix-wal-demo-writer.1").exists());
    let printed = String::from_utf8(succeed(&["man"], b"")).unwrap();
    assert!(printed.contains(".TH kaelix-wal 1"), "{}", &printed[..200]);
}
