//! `verify` and `repair`.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use common::{Place, fail, numbered_lines, run, succeed};

/// Where the first segment begins in the ring file.
const DATA_OFFSET: u64 = 2 << 20;

fn json(output: &[u8]) -> serde_json::Value {
    serde_json::from_slice(output).expect("it is JSON")
}

/// A log of many segments with damage in the third; the lines that were put in.
fn damaged(place: &Place) -> Vec<u8> {
    let lines = numbered_lines(500_000);
    succeed(&["ingest", &place.log], &lines);
    let ring = File::options().write(true).open(format!("{}/ring", place.log)).unwrap();
    ring.write_all_at(&[0; 300], DATA_OFFSET + 2 * (64 << 10) + 9000).unwrap();
    lines
}

fn lines_of(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|byte| *byte == b'\n').collect()
}

#[test]
fn a_sound_log_is_said_to_be() {
    let place = Place::with_log("1MiB", "64KiB");
    succeed(&["ingest", &place.log], &numbered_lines(500_000));
    let text = String::from_utf8(succeed(&["verify", &place.log], b"")).unwrap();
    assert!(text.contains("sound") && text.contains("never written"), "{text}");
    let found = json(&succeed(&["verify", &place.log, "--json", "--threads", "1"], b""));
    assert_eq!(found["verdict"], "sound");
    assert!(found["records"].as_u64().unwrap() > 1000);
    assert!(found["footed_segments"].as_u64().unwrap() >= 6);
    // There is nothing to repair, and nothing is changed by trying.
    let before = fs::read(format!("{}/ring", place.log)).unwrap();
    let text = succeed(&["repair", &place.log, "--salvage", "--apply"], b"");
    assert!(String::from_utf8(text).unwrap().contains("nothing to repair"));
    assert!(fs::read(format!("{}/ring", place.log)).unwrap() == before);
}

#[test]
fn damage_is_a_status_and_a_salvage_keeps_the_rest() {
    let place = Place::with_log("1MiB", "64KiB");
    let lines = damaged(&place);
    let output = run(&["verify", &place.log, "--json"], b"");
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    let found = json(&output.stdout);
    assert_eq!(found["verdict"], "corrupt");
    let finding = &found["findings"][0];
    assert_eq!((&finding["verdict"], &finding["segment"]), (&"corrupt".into(), &2.into()));
    assert!(finding["proof"].is_string() && finding["bytes"].as_u64().unwrap() >= 300);
    let output = run(&["verify", &place.log], b"");
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("corrupt") && text.contains("kaelix-wal repair"), "{text}");

    // The plan changes nothing.
    let before = fs::read(format!("{}/ring", place.log)).unwrap();
    for dry in [&["--salvage"][..], &["--truncate"], &["--salvage", "--dry-run"]] {
        let text = succeed(&[&["repair", &place.log], dry].concat(), b"");
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("nothing was changed: --apply does this"), "{text}");
    }
    assert!(fs::read(format!("{}/ring", place.log)).unwrap() == before);
    let plan = json(&succeed(&["repair", &place.log, "--salvage", "--json"], b""));
    assert_eq!((&plan["is_needed"], &plan["repaired"]), (&true.into(), &().into()));

    let done = json(&succeed(&["repair", &place.log, "--salvage", "--json", "--apply"], b""));
    let original = done["repaired"]["original"].as_str().unwrap();
    assert!(fs::read(original).unwrap() == before, "the damaged file is kept");
    let output = run(&["verify", &place.log, "--json"], b"");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json(&output.stdout)["verdict"], "salvaged gap");
    let output = run(&["cat", &place.log], b"");
    assert!(output.status.success());
    let warning = String::from_utf8(output.stderr).unwrap();
    assert_eq!(warning.matches("damaged and is lost").count(), 1, "{warning}");
    // All but some lines in a row.
    let (want, got) = (lines_of(&lines), lines_of(&output.stdout));
    let same = want.iter().zip(&got).take_while(|(want, got)| want == got).count();
    let lost = want.len() - got.len();
    assert!((1..20).contains(&lost), "{lost} lines are lost");
    assert!(want[same + lost..] == got[same..]);
}

#[test]
fn a_truncation_leaves_a_prefix() {
    let place = Place::with_log("1MiB", "64KiB");
    let lines = damaged(&place);
    let text = succeed(&["repair", &place.log, "--truncate", "--apply", "--discard-original"], b"");
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("the damaged file is gone"), "{text}");
    assert!(!fs::exists(format!("{}/ring.damaged", place.log)).unwrap());
    let left = succeed(&["cat", &place.log], b"");
    assert!(left.len() > 100_000 && lines.starts_with(&left));
    assert_eq!(json(&succeed(&["verify", &place.log, "--json"], b""))["verdict"], "sound");
}

#[test]
fn what_cannot_be_verified_or_repaired_says_why() {
    let place = Place::new();
    let errors = fail(&["verify", &place.log], b"", 1);
    assert!(errors.contains("there is no log"), "{errors}");
    let errors = fail(&["repair", &place.log, "--salvage"], b"", 1);
    assert!(errors.contains("there is no log"), "{errors}");
    for wrong in [&["--truncate", "--salvage"][..], &[], &["--salvage", "--discard-original"]] {
        let place = Place::with_log("1MiB", "64KiB");
        fail(&[&["repair", &place.log], wrong].concat(), b"", 2);
    }
}

#[test]
fn what_parity_gives_back_is_said_and_put_back() {
    let place = Place::with_log("1MiB", "64KiB");
    let lines = numbered_lines(500_000);
    succeed(&["ingest", &place.log, "--parity"], &lines);
    let text = succeed(&["inspect", &place.log, "--segment", "2"], b"");
    assert!(String::from_utf8(text).unwrap().contains("it is protected"));
    let page = DATA_OFFSET + 2 * (64 << 10) + 8192;
    let ring = File::options().write(true).open(format!("{}/ring", place.log)).unwrap();
    ring.write_all_at(&[0; 4096], page).unwrap();

    let said = format!("the page at file offset {page} of segment 2 is rebuilt from parity");
    let output = run(&["verify", &place.log], b"");
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&said) && text.contains("repair --heal"), "{text}");
    let found = json(&run(&["verify", &place.log, "--json"], b"").stdout);
    assert_eq!((&found["is_healable"], &found["parity"][0]["segment"]), (&true.into(), &2.into()));
    assert_eq!(found["parity"][0]["rebuilt"], serde_json::json!([page]));
    assert!(found["protected_segments"].as_u64().unwrap() >= 6);

    let before = fs::read(format!("{}/ring", place.log)).unwrap();
    for mode in ["--heal", "--salvage", "--truncate"] {
        let text = String::from_utf8(succeed(&["repair", &place.log, mode], b"")).unwrap();
        assert!(text.contains(&said) && text.contains("0 damaged places"), "{text}");
        assert!(text.contains("nothing was changed: --apply does this"), "{text}");
    }
    assert!(fs::read(format!("{}/ring", place.log)).unwrap() == before);
    let done = json(&succeed(&["repair", &place.log, "--heal", "--json", "--apply"], b""));
    assert_eq!((&done["mode"], &done["is_needed"]), (&"heal".into(), &true.into()));
    assert!(fs::read(done["repaired"]["original"].as_str().unwrap()).unwrap() == before);
    assert!(succeed(&["cat", &place.log], b"") == lines);
    succeed(&["verify", &place.log], b"");

    // Two pages of one group are too many for a heal, which then changes nothing.
    ring.sync_all().unwrap();
    let ring = File::options().write(true).open(format!("{}/ring", place.log)).unwrap();
    ring.write_all_at(&[0; 8192], page).unwrap();
    let errors = fail(&["repair", &place.log, "--heal", "--apply"], b"", 1);
    assert!(errors.contains("more than one page of a group is damaged"), "{errors}");
    assert!(errors.contains("salvage"), "{errors}");
    let text = String::from_utf8(succeed(&["repair", &place.log, "--salvage"], b"")).unwrap();
    assert!(text.contains("segment 2 is not healed by parity"), "{text}");
}

/// A log that was filled without it is protected by the next command that opens it with the option.
#[test]
fn an_existing_log_is_protected_by_an_empty_ingest() {
    let place = Place::with_log("1MiB", "64KiB");
    succeed(&["ingest", &place.log], &numbered_lines(300_000));
    let protected =
        || json(&succeed(&["verify", &place.log, "--json"], b""))["protected_segments"].clone();
    assert_eq!(protected(), 0);
    succeed(&["ingest", &place.log, "--parity"], b"");
    assert!(protected().as_u64().unwrap() >= 4);
}
