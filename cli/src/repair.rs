//! `repair`: shows what can be saved of a damaged log, and does it if it is told to.

use anyhow::Context;
use kaelix_wal::repair::{Mode, Original, RepairPlan, Repaired};
use serde::Serialize;

use crate::args::RepairArgs;
use crate::display::{pairs, plural};
use crate::log::bytes;
use crate::sink::say;
use crate::verify::{JsonFinding, JsonParity, findings, parity};

pub fn run(args: &RepairArgs) -> anyhow::Result<()> {
    let mode = match (args.how.salvage, args.how.heal) {
        (true, _) => Mode::Salvage,
        (_, true) => Mode::Heal,
        _ => Mode::Truncate,
    };
    let dir = args.dir.display();
    let plan = RepairPlan::new(&args.dir, mode)
        .with_context(|| format!("cannot plan the repair of the log in {dir}"))?;
    let outline = Outline::new(&plan);
    let text = (!args.json).then(|| text(&plan));
    let is_applied = args.apply && plan.is_needed();
    let repaired = if is_applied {
        let original = if args.discard_original { Original::Discard } else { Original::Keep };
        let repaired = plan.apply(original);
        Some(repaired.with_context(|| format!("cannot repair the log in {dir}"))?)
    } else {
        None
    };
    let Some(text) = text else {
        let json = Json { repaired: repaired.as_ref().map(JsonRepaired::from), plan: outline };
        return say(serde_json::to_string_pretty(&json).context("cannot write JSON")?);
    };
    say(text)?;
    match (repaired, outline.is_needed) {
        (Some(repaired), _) => say(done(&repaired)),
        (None, true) => say("\nnothing was changed: --apply does this"),
        (None, false) => say("\nthere is nothing to repair, and nothing was changed"),
    }
}

fn text(plan: &RepairPlan) -> String {
    let losses: u64 = plan.losses().map(|loss| loss.len_bytes()).sum();
    let mode = match plan.mode() {
        Mode::Truncate => "truncate: the log ends in front of the first damage",
        Mode::Salvage => "salvage: what verifies is kept, and the gaps are marked",
        Mode::Heal => "heal: parity gives everything back that is damaged",
    };
    let mut rows = vec![
        ("plan", mode.to_owned()),
        (
            "kept",
            format!(
                "{} with {} of payload, LSN {} to {}",
                plural(plan.records(), "record"),
                bytes(plan.payload_bytes()),
                plan.start(),
                plan.end()
            ),
        ),
        (
            "lost",
            format!(
                "{} in {}; {} that verify behind the end",
                bytes(losses),
                plural(plan.losses().count() as u64, "damaged place"),
                plural(plan.records_dropped(), "record")
            ),
        ),
    ];
    if plan.rebuilds_superblock() {
        rows.push(("superblock", "damaged; computed from what else the log says".to_owned()));
    }
    format!("{}\n\n{}{}", pairs(&rows), findings(plan.findings()), parity(plan.parity()))
}

fn done(repaired: &Repaired) -> String {
    let original = match &repaired.original {
        Some(path) => format!("the damaged file is {}", path.display()),
        None => "the damaged file is gone".to_owned(),
    };
    format!(
        "\nrepaired: {} up to LSN {}, verified; {original}",
        plural(repaired.records, "record"),
        repaired.end
    )
}

#[derive(Serialize)]
struct Json {
    #[serde(flatten)]
    plan: Outline,
    /// Null if nothing was changed.
    repaired: Option<JsonRepaired>,
}

#[derive(Serialize)]
struct Outline {
    mode: &'static str,
    is_needed: bool,
    start: u64,
    end: u64,
    records: u64,
    payload_bytes: u64,
    records_dropped: u64,
    rebuilds_superblock: bool,
    findings: Vec<JsonFinding>,
    parity: Vec<JsonParity>,
}

impl Outline {
    fn new(plan: &RepairPlan) -> Self {
        Self {
            mode: match plan.mode() {
                Mode::Truncate => "truncate",
                Mode::Salvage => "salvage",
                Mode::Heal => "heal",
            },
            is_needed: plan.is_needed(),
            start: plan.start().get(),
            end: plan.end().get(),
            records: plan.records(),
            payload_bytes: plan.payload_bytes(),
            records_dropped: plan.records_dropped(),
            rebuilds_superblock: plan.rebuilds_superblock(),
            findings: plan.findings().iter().map(JsonFinding::from).collect(),
            parity: plan.parity().iter().map(JsonParity::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct JsonRepaired {
    original: Option<String>,
    end: u64,
    epoch: u64,
    records: u64,
}

impl From<&Repaired> for JsonRepaired {
    fn from(repaired: &Repaired) -> Self {
        Self {
            original: repaired.original.as_ref().map(|path| path.display().to_string()),
            end: repaired.end.get(),
            epoch: repaired.epoch,
            records: repaired.records,
        }
    }
}
