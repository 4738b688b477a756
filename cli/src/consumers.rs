//! `consumers`: who reads a log by name, where each stands, and how far behind.

use anyhow::Context;
use kaelix_wal::inspect::{ObservedConsumer, Observer};
use serde::Serialize;

use crate::args::ConsumersArgs;
use crate::display::figures;
use crate::sink::say;
use crate::walk;

pub fn run(args: &ConsumersArgs) -> anyhow::Result<()> {
    let mut observer = Observer::open(&args.dir)
        .with_context(|| format!("cannot read the log in {}", args.dir.display()))?;
    let consumers = observer.consumers().context("cannot read the consumers' positions")?;
    // Looked at afterwards: no position lies beyond.
    let end = if consumers.is_empty() { None } else { Some(walk::stat(&mut observer)?.committed) };
    let lag = |consumer: &ObservedConsumer| {
        end.map_or(0, |end| end.get().saturating_sub(consumer.position.lsn.get()))
    };
    if args.json {
        let list: Vec<_> =
            consumers.iter().map(|consumer| JsonConsumer::new(consumer, lag(consumer))).collect();
        return say(serde_json::to_string_pretty(&list).context("cannot write JSON")?);
    }
    if consumers.is_empty() {
        return say("no consumers");
    }
    let rows: Vec<Vec<String>> = consumers
        .iter()
        .map(|consumer| {
            let cut = consumer.cut.map_or_else(String::new, |cut| {
                format!("cut at LSN {} by epoch {}", cut.lsn, cut.epoch)
            });
            let position = consumer.position;
            vec![
                consumer.name.escape_debug().to_string(),
                position.epoch.to_string(),
                position.lsn.to_string(),
                lag(consumer).to_string(),
                cut,
            ]
        })
        .collect();
    say(figures(&["consumer", "epoch", "LSN", "lag in bytes", ""], &rows, 1..4))
}

#[derive(Serialize)]
struct JsonConsumer<'a> {
    name: &'a str,
    epoch: u64,
    lsn: u64,
    lag_bytes: u64,
    cut_epoch: Option<u64>,
    cut_lsn: Option<u64>,
}

impl<'a> JsonConsumer<'a> {
    fn new(consumer: &'a ObservedConsumer, lag_bytes: u64) -> Self {
        let ObservedConsumer { name, position, cut, .. } = consumer;
        Self {
            name,
            epoch: position.epoch,
            lsn: position.lsn.get(),
            lag_bytes,
            cut_epoch: cut.map(|cut| cut.epoch),
            cut_lsn: cut.map(|cut| cut.lsn.get()),
        }
    }
}
