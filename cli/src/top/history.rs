//! What the looks so far tell: rates, and how long it takes until what is committed is durable.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kaelix_wal::inspect::{Live, LiveView, ObservedConsumer};
use kaelix_wal::{Geometry, Lsn, ReadError};

/// So many rates are kept: one for each column of the graph.
const RATES_MAX: usize = 200;
/// So many looks are waited for to become durable.
const PENDING_MAX: usize = 10_000;

pub struct History {
    pub dir: PathBuf,
    pub geometry: Geometry,
    pub now: Option<Live>,
    pub consumers: Vec<ObservedConsumer>,
    /// Bytes of log a second, oldest first.
    pub rates: VecDeque<u64>,
    /// Callers' records a second, of the last interval.
    pub records_rate: f64,
    /// How many bytes of log a second were released.
    pub trim_rate: f64,
    /// From when something was seen committed until it was seen proven durable.
    pub durable_after: Option<Duration>,
    looked: Option<Instant>,
    /// Looks at the end of the log that are not durable yet.
    pending: VecDeque<(Instant, Lsn)>,
}

impl History {
    pub fn new(dir: &Path, geometry: Geometry) -> Self {
        Self {
            dir: dir.to_owned(),
            geometry,
            now: None,
            consumers: Vec::new(),
            rates: VecDeque::new(),
            records_rate: 0.0,
            trim_rate: 0.0,
            durable_after: None,
            looked: None,
            pending: VecDeque::new(),
        }
    }

    pub fn look(&mut self, view: &mut LiveView) -> Result<(), ReadError> {
        let live = view.look()?;
        self.consumers = view.observer().consumers()?;
        self.add(live, Instant::now());
        Ok(())
    }

    fn add(&mut self, live: Live, at: Instant) {
        if let (Some(before), Some(looked)) = (&self.now, self.looked) {
            let seconds = (at - looked).as_secs_f64().max(1e-6);
            let rate = |from: Lsn, to: Lsn| to.get().saturating_sub(from.get()) as f64 / seconds;
            let bytes = rate(before.committed, live.committed);
            self.trim_rate = rate(before.trimmed, live.trimmed);
            self.rates.push_back(bytes as u64);
            if self.rates.len() > RATES_MAX {
                self.rates.pop_front();
            }
            // Where the view had to jump, records are counted in a part of the log only.
            let walked = live.walked.saturating_sub(before.walked) as f64;
            let records = live.records.saturating_sub(before.records) as f64;
            self.records_rate = if walked > 0.0 { records / walked * bytes } else { 0.0 };
        }
        while let Some((committed_at, lsn)) = self.pending.front()
            && *lsn <= live.durable
        {
            self.durable_after = Some(at - *committed_at);
            self.pending.pop_front();
        }
        let is_new = self.pending.back().is_none_or(|(_, lsn)| *lsn < live.committed);
        if live.committed > live.durable && is_new && self.pending.len() < PENDING_MAX {
            self.pending.push_back((at, live.committed));
        }
        (self.now, self.looked) = (Some(live), Some(at));
    }
}
