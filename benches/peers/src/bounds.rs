//! Queues in memory, beyond which no log can come, and the floors. Nobody can read a queue back
//! after a crash; a second thread takes out what is put in, since a queue that is full is not fast.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;
use disruptor::Producer;

use crate::append_floor::FloorRing;
use crate::disk_floor::GroupFloor;
use crate::peers::{Description, Opened};
use crate::scan_floor::ScanFloor;
use crate::tasks::{Cannot, Demand, Failure, Peer, Task};

const SLOTS: usize = 1 << 16;
/// All queues carry this, by value.
type Slot = [u8; 64];

fn slot(payload: &[u8]) -> Result<Slot, Failure> {
    payload.try_into().map_err(|_| Cannot.into())
}

/// For what is not an append of 64 bytes there is no queue.
fn refuse(demand: Demand) -> Result<(), Failure> {
    if demand.task == Task::Append && demand.size == size_of::<Slot>() {
        return Ok(());
    }
    Err(Cannot.into())
}

pub const RTRB: Description = Description::new(
    "rtrb",
    "in memory, 65,536 slots of 64 B, one producer and one consumer: no others can be",
    &[(Task::Append, "in memory")],
    rtrb,
);

struct Rtrb {
    producer: Mutex<Option<rtrb::Producer<Slot>>>,
    _consumer: Stopped,
}

/// A thread that is told to end.
struct Stopped(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Stopped {
    /// Calls `take` until it is told to end; `take` says whether it has found something.
    fn spawn(mut take: impl FnMut() -> bool + Send + 'static) -> Stopped {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if !take() {
                    std::thread::yield_now();
                }
            }
        });
        Stopped(stop, Some(thread))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.1.take() {
            thread.join().expect("no panic");
        }
    }
}

fn rtrb(_dir: &Path, demand: Demand) -> Opened {
    refuse(demand)?;
    let (producer, mut consumer) = rtrb::RingBuffer::new(SLOTS);
    let consumer = Stopped::spawn(move || {
        let Ok(chunk) = consumer.read_chunk(consumer.slots()) else { return false };
        let found = chunk.len();
        chunk.commit_all();
        found > 0
    });
    Ok(Box::new(Rtrb { producer: Mutex::new(Some(producer)), _consumer: consumer }))
}

thread_local! {
    /// The one producer, in the thread that has come first.
    static PRODUCER: std::cell::RefCell<Option<rtrb::Producer<Slot>>> =
        const { std::cell::RefCell::new(None) };
}

impl Peer for Rtrb {
    fn append(&self, thread: usize, payload: &[u8]) -> Result<(), Failure> {
        if thread > 0 {
            return Err(Cannot.into());
        }
        let slot = slot(payload)?;
        PRODUCER.with_borrow_mut(|mine| {
            if mine.is_none() {
                *mine = self.producer.lock().expect("nobody panics").take();
            }
            let producer = mine.as_mut().ok_or(Cannot)?;
            while producer.push(slot).is_err() {
                std::thread::yield_now();
            }
            Ok(())
        })
    }
}

pub const DISRUPTOR: Description = Description::new(
    "disruptor",
    "in memory, 65,536 slots of 64 B, several producers, one consumer that spins",
    &[(Task::Append, "in memory")],
    disruptor,
);

type Producers = disruptor::MultiProducer<Slot, disruptor::SingleConsumerBarrier>;

struct Disruptor(Mutex<Producers>);

fn disruptor(_dir: &Path, demand: Demand) -> Opened {
    refuse(demand)?;
    let take = |slot: &Slot, _: disruptor::Sequence, _: bool| {
        std::hint::black_box(slot);
    };
    let wait = disruptor::BusySpinWithSpinLoopHint;
    let builder = disruptor::build_multi_producer(SLOTS, || [0; 64], wait);
    let producer = builder.handle_events_with(take).build();
    Ok(Box::new(Disruptor(Mutex::new(producer))))
}

thread_local! {
    static CLONE: std::cell::RefCell<Option<Producers>> = const { std::cell::RefCell::new(None) };
}

impl Peer for Disruptor {
    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let slot = slot(payload)?;
        CLONE.with_borrow_mut(|mine| {
            let clone = || self.0.lock().expect("nobody panics").clone();
            mine.get_or_insert_with(clone).publish(|place| *place = slot);
        });
        Ok(())
    }
}

pub const ARRAY_QUEUE: Description = Description::new(
    "crossbeam ArrayQueue",
    "in memory, 65,536 slots of 64 B, one consumer",
    &[(Task::Append, "in memory")],
    array_queue,
);

struct Array {
    queue: Arc<ArrayQueue<Slot>>,
    _consumer: Stopped,
}

fn array_queue(_dir: &Path, demand: Demand) -> Opened {
    refuse(demand)?;
    let queue = Arc::new(ArrayQueue::new(SLOTS));
    let taken = Arc::clone(&queue);
    let consumer = Stopped::spawn(move || taken.pop().is_some());
    Ok(Box::new(Array { queue, _consumer: consumer }))
}

impl Peer for Array {
    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let mut slot = slot(payload)?;
        while let Err(back) = self.queue.push(slot) {
            slot = back;
            std::thread::yield_now();
        }
        Ok(())
    }
}

pub const FLOOR: Description = Description::new(
    "floor",
    "append and batch: checksum, claim, copy, store into a mapped ring; durable: the plainest \
     group commit; read and open: a walk over as many records in memory, each checked",
    &[],
    floor,
);

enum Floor {
    Ring(FloorRing),
    Group(GroupFloor),
    Scan(ScanFloor),
}

fn floor(dir: &Path, demand: Demand) -> Opened {
    Ok(Box::new(match (demand.task, demand.retain) {
        (Task::Durable, _) => Floor::Group(GroupFloor::new(dir, 256 << 20)?),
        (_, Some(bytes)) => {
            let record = (demand.size + 16).next_multiple_of(16);
            let scan = ScanFloor::new(demand.size, bytes as usize / demand.size * record);
            if demand.task == Task::Open && dir.join("filled").exists() {
                scan.scan();
            }
            std::fs::write(dir.join("filled"), "")?;
            Floor::Scan(scan)
        }
        _ => Floor::Ring(FloorRing::new(dir, 256 << 20)?),
    }))
}

impl Peer for Floor {
    fn append(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let Floor::Ring(ring) = self else { return Err(Cannot.into()) };
        std::hint::black_box(ring.append(std::hint::black_box(payload)));
        Ok(())
    }

    fn append_durable(&self, _thread: usize, payload: &[u8]) -> Result<(), Failure> {
        let Floor::Group(group) = self else { return Err(Cannot.into()) };
        Ok(group.append(payload)?)
    }

    /// As many bytes in one append.
    fn append_batch(&self, payloads: &[&[u8]]) -> Result<(), Failure> {
        match self {
            Floor::Ring(_) => self.append(0, &payloads.concat()),
            // It has made its own.
            Floor::Scan(_) => Ok(()),
            Floor::Group(_) => Err(Cannot.into()),
        }
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let Floor::Scan(scan) = self else { return Err(Cannot.into()) };
        for number in 0..scan.scan() {
            each(&number.to_le_bytes());
        }
        Ok(())
    }
}
