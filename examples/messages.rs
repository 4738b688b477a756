//! Messages in a log: written in place, read in place, and one of them kept.
//!
//! `cargo run --example messages`

#![allow(clippy::print_stdout, reason = "an example shows what it reads")]

use std::time::{SystemTime, UNIX_EPOCH};

use kaelix_wal::{Geometry, Lsn, Message, MessageView, Options, OwnedMessage, Position, Wal};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Encodes a message into space of its own in the log: its bytes are copied once.
fn append(wal: &Wal, message: &Message<'_, impl AsRef<[u8]>>) -> Result<Lsn> {
    let mut reservation = wal.reserve(message.encoded_len())?;
    message.encode_into(&mut reservation)?; // on an error the space is given up
    Ok(reservation.commit())
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?; // yours will be a directory that stays
    let geometry = Geometry::new(16 << 20, 1 << 20)?;
    let wal = Wal::create(dir.path().join("orders"), geometry, Options::new())?;

    for (number, customer) in ["ada", "grace", "ada"].into_iter().enumerate() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i64;
        let payload = format!("order {number}").into_bytes();
        let attempt = [b'1'];
        let headers: [(&str, &[u8]); 2] = [("content-type", b"text/plain"), ("attempt", &attempt)];
        let message = Message::new(payload)
            .id(number as u128)
            .timestamp_nanos(now)
            .topic("orders")
            .key(customer.as_bytes())
            .headers(&headers);
        append(&wal, &message)?;
    }

    let mut last: Option<OwnedMessage> = None;
    let mut reader = wal.reader(Position::Oldest)?;
    while let Some(record) = reader.next()? {
        for entry in record.entries() {
            let view = MessageView::parse(entry.payload)?; // borrows the log's own bytes
            let customer = String::from_utf8_lossy(view.key().unwrap_or_default());
            let payload = String::from_utf8_lossy(view.payload());
            println!("{}: {} for {customer}: {payload}", record.lsn(), view.topic());
            for (name, value) in view.headers() {
                println!("    {name}: {}", String::from_utf8_lossy(value));
            }
            last = Some(view.to_owned_message()); // copies: it outlives the record
        }
    }
    wal.checkpoint(reader.position())?;
    drop(reader);
    drop(wal);
    println!("kept: {:?}", last.map(|message| message.payload()));
    Ok(())
}
