//! Each structure of a log, damaged in each way: what `verify` says, what an open does, and what
//! either repair saves, compared with the table in `docs/recovery.md`.
//!
//! Whatever the table says, of every damaged log this must hold:
//!
//! 1. A record that a log returns is one that was appended, at its LSN, byte for byte, in order.
//! 2. What was acknowledged and is not returned is reported: the open is refused, a reader meets an
//!    error, or `verify` says that something is corrupt. The exceptions are listed: where all that
//!    said so is lost with it.
//! 3. A repaired log verifies and opens; its readers report each gap, and every record that they do
//!    not return lies in one, or behind the end; the damaged file is kept.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod sample;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use damage::{Case, cases};
use kaelix_wal::repair::{Mode, Original, RepairError, RepairPlan};
use kaelix_wal::verify::{Verdict, Verifier};
use kaelix_wal::{Lsn, OpenError, Options, Position, ReadError, Verify, Wal};
use sample::{Files, Sample, directory, put};

/// Damage that takes with it all that could tell it from a torn end: the newest checkpoint slot is
/// older, and the evidence lay in the segment itself.
const UNPROVEN: &[(&str, &str)] = &[("active segment", "zeroed")];

/// What a log returns: how many of the acknowledged records are missing, and how its reader ended.
struct Contents {
    lost: usize,
    gaps: Vec<(Lsn, Lsn)>,
    damaged: bool,
}

/// Reads all of a log. Rule 1.
fn contents(wal: &Wal, sample: &Sample) -> Contents {
    let mut want = sample.records.iter().peekable();
    let mut found = Contents { lost: 0, gaps: Vec::new(), damaged: false };
    let mut missing = Vec::new();
    let mut reader = wal.reader(Position::Oldest).expect("there is an oldest position");
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                if want.peek().is_none_or(|(lsn, _)| record.lsn() < *lsn) {
                    // It had been released: the slot that says so is gone.
                    assert!(record.lsn() < sample.records[0].0, "{} is new", record.lsn());
                    continue;
                }
                while want.peek().is_some_and(|(lsn, _)| *lsn < record.lsn()) {
                    missing.extend(want.next().map(|(lsn, _)| *lsn));
                }
                let (lsn, payload) = want.next().expect("nobody else has appended");
                assert_eq!(record.lsn(), *lsn);
                assert!(record.payload() == payload, "the record at {lsn} was altered");
            }
            Ok(None) => break,
            // One that reaches into the next segment is marked in each.
            Err(ReadError::Gap { lsn, next }) => match found.gaps.last_mut() {
                Some((_, end)) if *end == lsn => *end = next,
                _ => found.gaps.push((lsn, next)),
            },
            Err(ReadError::Damaged { .. }) => {
                found.damaged = true;
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    // What the open has written itself lies behind.
    let end = wal.recovery_report().end;
    missing.extend(want.map(|(lsn, _)| *lsn));
    if !found.damaged {
        for lsn in missing.iter().filter(|lsn| **lsn < end) {
            let is_in = |(from, to): &(Lsn, Lsn)| from <= lsn && lsn < to;
            assert!(found.gaps.iter().any(is_in), "{lsn} is missing, and in none of the gaps");
        }
    }
    found.lost = missing.iter().filter(|lsn| **lsn < sample.unacknowledged).count();
    found
}

fn lost(contents: &Contents) -> String {
    match contents.lost {
        0 => "loses nothing".to_owned(),
        1 => "loses 1 record".to_owned(),
        lost => format!("loses {lost} records"),
    }
}

fn open(dir: &Path, verify: Verify, sample: &Sample) -> (String, bool) {
    match Wal::open(dir, Options::new().verify(verify)) {
        Err(OpenError::Corrupt { .. }) => ("refused".to_owned(), true),
        Err(OpenError::File(error)) => panic!("{error}"),
        Err(_) => ("refused by its head".to_owned(), true),
        Ok(wal) => match contents(&wal, sample) {
            found if found.damaged => ("opens, a read fails".to_owned(), true),
            found if found.lost > 0 => (format!("opens, {}", lost(&found)), false),
            _ => ("opens".to_owned(), true),
        },
    }
}

/// Rule 3.
fn repair(dir: &Path, mode: Mode, sample: &Sample) -> String {
    let before = std::fs::read(dir.join("ring")).expect("it can be read");
    let plan = match RepairPlan::new(dir, mode) {
        Err(RepairError::NotHealed { .. }) => return "refused".to_owned(),
        Err(_) => return "impossible".to_owned(),
        Ok(plan) if !plan.is_needed() => return "not needed".to_owned(),
        Ok(plan) => plan,
    };
    let (records, end) = (plan.records(), plan.end());
    let losses = plan.losses().count();
    assert!(std::fs::read(dir.join("ring")).expect("it is there") == before, "planning writes");
    let repaired = plan.apply(Original::Keep).expect("the disk takes it");
    let original = repaired.original.as_ref().expect("it was kept");
    assert!(std::fs::read(original).expect("it is there") == before, "it is the damaged one");
    assert!(repaired.end >= end && repaired.records == records, "{repaired:?}");
    let found = Verifier::new(dir).run().expect("it can be verified");
    let others = found.files.iter().any(|file| file.verdict == Verdict::Corrupt);
    assert!(found.verdict() != Verdict::Corrupt || others, "{found}");
    let wal = match Wal::open(dir, Options::new().verify(Verify::Full)) {
        Ok(wal) => wal,
        Err(error) => {
            assert!(others, "{error}");
            return "leaves other files".to_owned();
        }
    };
    let contents = contents(&wal, sample);
    assert!(!contents.damaged);
    assert!(contents.gaps.len() <= losses, "{:?} of {losses} losses", contents.gaps);
    assert_eq!(contents.gaps.is_empty(), found.verdict() == Verdict::Sound);
    assert!(mode == Mode::Salvage || contents.gaps.is_empty());
    lost(&contents)
}

fn verify(dir: &Path) -> (String, bool) {
    match Verifier::new(dir).run() {
        Ok(found) => {
            let corrupt = |verdict: &Verdict| *verdict == Verdict::Corrupt;
            let places = found.findings.iter().map(|it| it.verdict).filter(corrupt).count();
            let files = found.files.iter().map(|it| it.verdict).filter(corrupt).count();
            let count = match (places, files) {
                (0, 0) => String::new(),
                (0, files) => format!(", {files} in its head or files"),
                (places, 0) => format!(", {places} in its records"),
                (places, files) => format!(", {places} in its records, {files} in head or files"),
            };
            (format!("{}{count}", found.verdict()), found.verdict() == Verdict::Corrupt)
        }
        Err(_) => ("impossible".to_owned(), true),
    }
}

/// The cells of one row.
fn row(case: &Case, sample: &Sample, other: &Sample, root: &Path) -> Vec<String> {
    let mut files: Files = sample.files.clone();
    (case.apply)(sample, other, &mut files);
    let (verdict, is_reported) = verify(&put(root, &files));
    let (lazy, lazy_is_reported) = open(&put(root, &files), Verify::Lazy, sample);
    let (full, full_is_reported) = open(&put(root, &files), Verify::Full, sample);
    let reported = is_reported || (lazy_is_reported && full_is_reported);
    let unproven = UNPROVEN.contains(&(case.structure, case.damage));
    assert!(reported != unproven, "{} {}: lost in silence? {lazy}", case.structure, case.damage);
    let salvage = repair(&put(root, &files), Mode::Salvage, sample);
    let truncate = repair(&put(root, &files), Mode::Truncate, sample);
    let cells = [case.structure, case.damage].map(str::to_owned);
    cells.into_iter().chain([verdict, lazy, full, salvage, truncate]).collect()
}

/// The rows of a table of the page that has so many columns, by structure and damage.
fn documented(columns: usize) -> BTreeMap<Vec<String>, Vec<String>> {
    let page = include_str!("../../docs/recovery.md");
    let rows = page.lines().filter(|line| line.starts_with('|')).map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    let rows = rows.filter(|cells| cells.len() == columns && !cells[0].starts_with("---"));
    rows.skip(1).map(|cells| (cells[..2].to_vec(), cells[2..].to_vec())).collect()
}

#[test]
fn every_damage_has_the_outcome_that_the_page_says() {
    let root = directory();
    let (sample, other) = (Sample::new(root.path()), Sample::new(&root.path().join("other")));
    let mut documented = documented(7);
    let mut differences = String::new();
    for case in cases() {
        let cells = row(&case, &sample, &other, root.path());
        if documented.remove(&cells[..2]).as_deref() != Some(&cells[2..]) {
            let _ = writeln!(differences, "| {} |", cells.join(" | "));
        }
    }
    assert!(differences.is_empty(), "docs/recovery.md says otherwise:\n{differences}");
    assert!(documented.is_empty(), "no test has these rows: {documented:?}");
}

/// The same with parity: a heal loses nothing or is refused, no repair loses more than without, and
/// the page has each row in which something differs.
#[test]
fn parity_heals_what_the_page_says_and_costs_nothing() {
    let root = directory();
    let (sample, other) = (Sample::new(root.path()), Sample::new(&root.path().join("other")));
    let (without, mut documented) = (documented(7), documented(5));
    let mut differences = String::new();
    for case in cases() {
        let place = [case.structure, case.damage].map(str::to_owned);
        let mut files = sample.files.clone();
        (case.apply)(&sample, &other, &mut files);
        files.insert("parity".to_owned(), sample.parity.clone());
        let found = Verifier::new(put(root.path(), &files)).run();
        let is_healable = found.is_ok_and(|found| found.is_healable);
        let modes = [Mode::Heal, Mode::Salvage, Mode::Truncate];
        let cells = modes.map(|mode| repair(&put(root.path(), &files), mode, &sample));
        let is_whole = ["loses nothing", "not needed", "impossible", "refused"];
        assert!(is_whole.contains(&cells[0].as_str()), "{place:?}: a heal {}", cells[0]);
        assert!(!is_healable || cells.iter().all(|it| it == "loses nothing"), "{place:?}");
        let repairs = without.get(&place[..]).map(|cells| &cells[3..]);
        if repairs != Some(&cells[1..])
            && documented.remove(&place[..]).as_deref() != Some(&cells[..])
        {
            let _ = writeln!(differences, "| {} | {} |", place.join(" | "), cells.join(" | "));
        }
    }
    assert!(differences.is_empty(), "docs/recovery.md says otherwise:\n{differences}");
    assert!(documented.is_empty(), "parity changes nothing in these rows: {documented:?}");
}

/// Of a torn end it is said what verifies beyond, and with how many bytes.
#[test]
fn what_lies_beyond_a_torn_record_is_counted() {
    let root = directory();
    let sample = Sample::new(root.path());
    let (torn, behind) = (&sample.records[sample.records.len() - 2], sample.records.last());
    let mut files = sample.files.clone();
    files.get_mut("ring").expect("it has one")[sample::file_offset(torn.0) + 100] ^= 1;
    let found = Verifier::new(put(root.path(), &files)).run().expect("it can be read");
    let finding = found.findings.iter().find(|it| it.lsn == torn.0).expect("it is found");
    let (_, payload) = behind.expect("there is one");
    let beyond = (finding.records_beyond, finding.payload_bytes_beyond);
    assert_eq!(beyond, (1, payload.len() as u64), "{found}");
    assert_eq!(finding.verdict, Verdict::TornInFlight, "{found}");
}
