//! Payloads that can be recognised, and a look at what a log has kept of them.
//!
//! A benchmark of a log that loses or mixes up what it is given measures nothing. So producers
//! number what they append, and when the clock has stopped all that is retained is read back: every
//! payload is whole, and each producer's numbers rise by one up to the last that it appended.

use kaelix_wal::{Position, Wal};

/// What fills a payload behind its stamp.
const FILL: u8 = 0xA5;
const STAMP_LEN: usize = 16;

/// A payload of `len` bytes for one producer to stamp again and again.
pub struct Stamped {
    bytes: Vec<u8>,
    next: u64,
}

impl Stamped {
    /// `len` must leave room for the stamp.
    pub fn new(producer: u64, len: usize) -> Stamped {
        assert!(len >= STAMP_LEN, "a stamp takes {STAMP_LEN} bytes");
        let mut bytes = vec![FILL; len];
        bytes[8..STAMP_LEN].copy_from_slice(&producer.to_le_bytes());
        Stamped { bytes, next: 0 }
    }

    /// The payload with the producer's next number.
    #[inline]
    pub fn next(&mut self) -> &[u8] {
        self.bytes[..8].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        &self.bytes
    }

    /// How many payloads there have been.
    pub fn count(&self) -> u64 {
        self.next
    }
}

/// Checks what the log retains of producers that have appended `counts[producer]` payloads of
/// `len` bytes since `from`; returns how many of their records it retains.
///
/// # Panics
///
/// If a record is not what was appended, or one is missing behind a retained one.
pub fn stamped(wal: &Wal, from: Position, len: usize, counts: &[u64]) -> u64 {
    let mut last = vec![None::<u64>; counts.len()];
    let mut reader = wal.reader(from).expect("it can be read");
    let mut records = 0;
    while let Some(record) = reader.next().expect("every record verifies") {
        let payload = record.payload();
        assert_eq!(payload.len(), len, "at LSN {}", record.lsn());
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
        let (number, producer) = (word(0), word(8) as usize);
        assert!(payload[STAMP_LEN..].iter().all(|byte| *byte == FILL), "at LSN {}", record.lsn());
        let previous = last[producer].replace(number);
        assert!(previous.is_none_or(|previous| previous + 1 == number), "at LSN {}", record.lsn());
        records += 1;
    }
    for (producer, (last, count)) in last.iter().zip(counts).enumerate() {
        let newest = last.map_or(0, |last| last + 1);
        // Whoever is not retained at all has been overwritten.
        assert!(last.is_none() || newest == *count, "producer {producer}: {newest} of {count}");
    }
    records
}
