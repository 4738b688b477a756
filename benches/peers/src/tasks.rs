//! What peers are asked to do, and how it is measured.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::peers::Description;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Entries of a batch.
const BATCH: usize = 100;
/// Records of the task `read`, in bytes of payload.
const READ: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Appends that need not be durable.
    Append,
    /// Appends that are durable when they return.
    Durable,
    /// Batches of 100 that need not be durable.
    Batch,
    /// All of what was appended, from the oldest on.
    Read,
    /// Opening what was closed.
    Open,
}

impl Task {
    pub const ALL: [Task; 5] = [Task::Append, Task::Durable, Task::Batch, Task::Read, Task::Open];

    fn word(self) -> &'static str {
        match self {
            Task::Append => "append",
            Task::Durable => "durable",
            Task::Batch => "batch",
            Task::Read => "read",
            Task::Open => "open",
        }
    }

    pub fn parse(word: &str) -> Result<Task, Failure> {
        let task = Task::ALL.into_iter().find(|task| task.word() == word);
        task.ok_or_else(|| format!("there is no task {word}").into())
    }

    /// What the figure is of.
    pub fn measure(self) -> &'static str {
        match self {
            Task::Append => "appends, not durable",
            Task::Durable => "appends, durable when they return",
            Task::Batch => "entries, in batches of 100, not durable",
            Task::Read => "records read back in order",
            Task::Open => "opening what was closed",
        }
    }

    pub fn cases(self, seconds: f64, gib: f64) -> Vec<Case> {
        let case = |size, threads| Case { task: self, size, threads, seconds, gib };
        match self {
            Task::Append => vec![case(64, 1), case(64, 4), case(1024, 1)],
            Task::Durable => vec![case(256, 1), case(256, 8), case(256, 32)],
            Task::Batch => vec![case(64, 1)],
            Task::Read | Task::Open => vec![case(64, 1), case(1024, 1)],
        }
    }
}

/// A task with its sizes.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub task: Task,
    size: usize,
    threads: usize,
    seconds: f64,
    gib: f64,
}

impl Case {
    pub fn name(&self) -> String {
        let (task, size) = (self.task.word(), self.size);
        match self.task {
            Task::Append | Task::Durable => match self.threads {
                1 => format!("{task}, {size} B, 1 thread"),
                threads => format!("{task}, {size} B, {threads} threads"),
            },
            Task::Batch | Task::Read => format!("{task}, {size} B"),
            Task::Open => format!("{task}, {} GiB, {size} B", self.gib),
        }
    }

    pub fn unit(&self) -> &'static str {
        match self.task {
            Task::Append | Task::Batch | Task::Read => "M/s",
            Task::Durable => "1/s",
            Task::Open => "ms",
        }
    }

    pub fn words(&self) -> [String; 5] {
        let Case { task, size, threads, seconds, gib } = self;
        let task = task.word().to_owned();
        [task, size.to_string(), threads.to_string(), seconds.to_string(), gib.to_string()]
    }

    pub fn parse(words: &[String]) -> Result<Case, Failure> {
        let [task, size, threads, seconds, gib] = words else {
            return Err("a case has five words".into());
        };
        Ok(Case {
            task: Task::parse(task)?,
            size: size.parse()?,
            threads: threads.parse()?,
            seconds: seconds.parse()?,
            gib: gib.parse()?,
        })
    }
}

/// A log or a queue under measurement. What it does not implement it cannot do.
pub trait Peer: Send + Sync {
    fn append(&self, _thread: usize, _payload: &[u8]) -> Result<(), Failure> {
        Err(Cannot.into())
    }

    /// Returns once the payload is durable.
    fn append_durable(&self, _thread: usize, _payload: &[u8]) -> Result<(), Failure> {
        Err(Cannot.into())
    }

    fn append_batch(&self, _payloads: &[&[u8]]) -> Result<(), Failure> {
        Err(Cannot.into())
    }

    /// Everything, from the oldest on.
    fn read(&self, _each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        Err(Cannot.into())
    }
}

/// What is asked of a peer when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    pub task: Task,
    /// Payload bytes that must be retained; none if the oldest may go.
    pub retain: Option<u64>,
    pub size: usize,
}

#[derive(Debug)]
pub struct Cannot;

impl fmt::Display for Cannot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("this it does not offer")
    }
}

impl std::error::Error for Cannot {}

/// What a process of a case prints.
pub enum Outcome {
    Figure(f64),
    Cannot,
    Lost { found: u64, of: u64 },
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Figure(figure) => write!(formatter, "figure {figure}"),
            Outcome::Cannot => write!(formatter, "cannot: {Cannot}"),
            Outcome::Lost { found, of } => write!(formatter, "lost: {found} of {of} records found"),
        }
    }
}

/// Runs one case of one peer in this process.
pub fn run(peer: &Description, case: &Case, dir: &Path) -> Result<Outcome, Failure> {
    let outcome = match case.task {
        Task::Append | Task::Durable | Task::Batch => rate(peer, case, dir),
        Task::Read => read(peer, case, dir),
        Task::Open => open(peer, case, dir),
    };
    match outcome {
        Err(error) if error.is::<Cannot>() => Ok(Outcome::Cannot),
        outcome => outcome,
    }
}

/// Appends of all threads together.
fn rate(peer: &Description, case: &Case, dir: &Path) -> Result<Outcome, Failure> {
    let demand = Demand { task: case.task, retain: None, size: case.size };
    let peer = (peer.open)(dir, demand)?;
    let (time, payload) = (Duration::from_secs_f64(case.seconds), vec![0xA5; case.size]);
    let batch = vec![&payload[..]; BATCH];
    // The clock is read so rarely that it does not count.
    let stride = if case.task == Task::Append { 64 } else { 1 };
    // First come the page faults and the files that are made once.
    let start = Instant::now() + time / 2;
    let counts: Vec<Result<u64, Failure>> = std::thread::scope(|scope| {
        let (peer, payload, batch) = (&*peer, &payload, &batch);
        let handles: Vec<_> = (0..case.threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut count = 0;
                    // Nothing has elapsed before the start.
                    while start.elapsed() < time {
                        for _ in 0..stride {
                            match case.task {
                                Task::Durable => peer.append_durable(thread, payload)?,
                                Task::Batch => peer.append_batch(batch)?,
                                _ => peer.append(thread, payload)?,
                            }
                        }
                        count += if Instant::now() < start { 0 } else { stride };
                    }
                    Ok(count)
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).collect()
    });
    let took = start.elapsed().as_secs_f64();
    let count: u64 = counts.into_iter().sum::<Result<u64, Failure>>()?;
    Ok(Outcome::Figure(match case.task {
        Task::Durable => count as f64 / took,
        Task::Batch => count as f64 * BATCH as f64 / took / 1e6,
        _ => count as f64 / took / 1e6,
    }))
}

/// Records that know their place, as many as have so many bytes; in batches where there are any.
fn fill(peer: &dyn Peer, case: &Case, bytes: u64) -> Result<u64, Failure> {
    let count = bytes / case.size as u64;
    let mut payloads = vec![vec![0xA5; case.size]; 1000];
    let mut written = 0;
    while written < count {
        let part = (count - written).min(payloads.len() as u64) as usize;
        for (number, payload) in (written..).zip(&mut payloads[..part]) {
            payload[..8].copy_from_slice(&number.to_le_bytes());
        }
        let batch: Vec<&[u8]> = payloads[..part].iter().map(Vec::as_slice).collect();
        match peer.append_batch(&batch) {
            Ok(()) => {}
            Err(error) if error.is::<Cannot>() => {
                batch.iter().try_for_each(|payload| peer.append(0, payload))?;
            }
            Err(error) => return Err(error),
        }
        written += part as u64;
    }
    Ok(count)
}

/// How many records are there, from the first on, in order and without a gap.
fn count(peer: &dyn Peer) -> Result<u64, Failure> {
    let mut found = 0_u64;
    let mut gap = false;
    peer.read(&mut |payload| {
        let number = u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"));
        gap |= number != found;
        found += u64::from(!gap);
    })?;
    Ok(found)
}

fn read(peer: &Description, case: &Case, dir: &Path) -> Result<Outcome, Failure> {
    let demand = Demand { task: case.task, retain: Some(READ), size: case.size };
    let peer = (peer.open)(dir, demand)?;
    let of = fill(&*peer, case, READ)?;
    let start = Instant::now();
    let found = count(&*peer)?;
    let took = start.elapsed().as_secs_f64();
    Ok(match found == of {
        true => Outcome::Figure(of as f64 / took / 1e6),
        false => Outcome::Lost { found, of },
    })
}

fn open(peer: &Description, case: &Case, dir: &Path) -> Result<Outcome, Failure> {
    let bytes = (case.gib * f64::from(1 << 30)) as u64;
    let demand = Demand { task: case.task, retain: Some(bytes), size: case.size };
    let filled = (peer.open)(dir, demand)?;
    let of = fill(&*filled, case, bytes)?;
    drop(filled);
    let start = Instant::now();
    let opened = (peer.open)(dir, demand)?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    let found = count(&*opened)?;
    Ok(match found == of {
        true => Outcome::Figure(took),
        false => Outcome::Lost { found, of },
    })
}
