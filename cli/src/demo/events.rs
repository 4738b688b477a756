//! The demo's events: real flights, numbered, so that each can be recognised when it comes back.

use std::io::Read;

use anyhow::Context;
use flate2::read::GzDecoder;

/// 20,000 flights out of New York in January 2013; `data/README.md` says where they come from.
static SAMPLE: &[u8] = include_bytes!("../../data/flights-sample.csv.gz");

/// An endless sequence of events: event `i` carries row `i` of the sample, over and over.
pub struct Events {
    text: String,
    /// Where each row is in `text`.
    rows: Vec<(usize, usize)>,
}

impl Events {
    pub fn load() -> anyhow::Result<Self> {
        let mut text = String::new();
        GzDecoder::new(SAMPLE).read_to_string(&mut text).context("the flight sample is damaged")?;
        let mut start = 0;
        let rows = text
            .split_inclusive('\n')
            .map(|line| {
                let row = (start, start + line.trim_end_matches('\n').len());
                start += line.len();
                row
            })
            .collect();
        Ok(Self { text, rows })
    }

    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, event: u64) -> &str {
        let (start, end) = self.rows[(event % self.rows.len() as u64) as usize];
        &self.text[start..end]
    }

    /// Puts the event's record into `record`: its number, a tab, the row.
    pub fn write(&self, event: u64, record: &mut Vec<u8>) {
        record.clear();
        record.extend_from_slice(event.to_string().as_bytes());
        record.push(b'\t');
        record.extend_from_slice(self.row(event).as_bytes());
    }

    /// The event that a record holds, if the record is one, byte for byte.
    pub fn recognize(&self, record: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(record).ok()?;
        let (number, row) = text.split_once('\t')?;
        let event: u64 = number.parse().ok()?;
        (row == self.row(event) && number == event.to_string()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_recognized_and_an_altered_one_is_not() {
        let events = Events::load().unwrap();
        assert_eq!(events.row_count(), 20_000);
        let mut record = Vec::new();
        for event in [0, 1, 19_999, 20_000, 1_234_567] {
            events.write(event, &mut record);
            assert_eq!(events.recognize(&record), Some(event));
            for index in 0..record.len() {
                record[index] ^= 1;
                assert_ne!(events.recognize(&record), Some(event), "byte {index} was altered");
                record[index] ^= 1;
            }
            record.pop();
            assert_eq!(events.recognize(&record), None);
        }
    }
}
