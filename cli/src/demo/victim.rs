//! The child process, what it acknowledges, and its end.

use std::io::BufReader;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use kaelix_wal::Lsn;

use super::acks::{self, Ack, Kind};

/// What the writer acknowledged before it died.
pub struct Acknowledged {
    pub committed: u64,
    pub durable: u64,
    /// The event whose reservation stayed open.
    pub held: u64,
    /// Where each event was committed, if it was.
    pub lsns: Vec<Option<Lsn>>,
}

pub struct Victim {
    child: Child,
    acks: BufReader<ChildStdout>,
    event_count: u64,
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Also on the way out of an error, no writer may stay behind. One that is gone already
        // leaves nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Victim {
    pub fn spawn(
        producers: u16,
        event_count: u64,
        hold_from: u64,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .arg("demo-writer")
            .args(["--producers", &producers.to_string()])
            .args(["--events", &event_count.to_string()])
            .args(["--hold-from", &hold_from.to_string()])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the writer process")?;
        let stdout = child.stdout.take().context("the writer process has no output")?;
        Ok(Self { child, acks: BufReader::with_capacity(64 << 10, stdout), event_count })
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Collects acknowledgements until a reservation is a hole and `committed_min` events are
    /// committed, kills the writer, and collects what it had still sent.
    pub fn kill_when_held(mut self, committed_min: u64) -> anyhow::Result<Acknowledged> {
        let mut committed = 0;
        let mut durable = 0;
        let mut held = None;
        let mut lsn_last = Lsn::ZERO;
        let mut lsns = vec![None; usize::try_from(self.event_count)?];
        let mut line = String::new();
        let mut killed = false;
        while let Some(Ack { kind, event, lsn }) = self.next(&mut line)? {
            match kind {
                Kind::Committed => {
                    committed += 1;
                    lsn_last = lsn_last.max(lsn);
                    let slot = lsns.get_mut(usize::try_from(event)?);
                    *slot.context("the writer acknowledged an event that there is not")? =
                        Some(lsn);
                }
                Kind::Durable => durable += 1,
                Kind::Held => held = Some((event, lsn)),
            }
            // With a committed record behind it, the open reservation is a hole.
            let hole = held.is_some_and(|(_, lsn)| lsn < lsn_last);
            if !killed && hole && committed >= committed_min {
                self.child.kill().context("cannot kill the writer process")?;
                killed = true;
            }
        }
        match held {
            Some((held, _)) if killed => Ok(Acknowledged { committed, durable, held, lsns }),
            _ => bail!("the writer process ended before it could be killed"),
        }
    }

    fn next(&mut self, line: &mut String) -> anyhow::Result<Option<Ack>> {
        acks::next(&mut self.acks, line).context("cannot read what the writer acknowledges")
    }
}
