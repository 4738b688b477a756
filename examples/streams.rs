//! Streams in a log: entries by name, a transaction over two accounts, and a replay of one of them.
//!
//! `cargo run --example streams`

#![allow(clippy::print_stdout, reason = "an example shows what it reads")]

use kaelix_wal::{AppendError, Geometry, Lsn, Options, Position, Stream, Wal};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The balance of an account, and the version that it was read at: a replay of its stream.
fn balance(account: &Stream<'_>) -> Result<(i64, Option<Lsn>)> {
    let (mut balance, mut version) = (0, None);
    let mut reader = account.read(Position::Oldest)?;
    while let Some(entry) = reader.next()? {
        balance += std::str::from_utf8(entry.payload)?.parse::<i64>()?;
        version = Some(entry.lsn);
    }
    Ok((balance, version))
}

/// Moves money, if it is there: both entries are in the log or none, and nobody else has touched
/// the account between the look at its balance and the commit.
fn transfer(wal: &Wal, from: &Stream<'_>, to: &Stream<'_>, amount: i64) -> Result<bool> {
    loop {
        let (balance, version) = balance(from)?;
        if balance < amount {
            return Ok(false);
        }
        let mut transaction = wal.begin();
        transaction.expect(from, version)?;
        transaction.append(from, (-amount).to_string().as_bytes())?;
        transaction.append(to, amount.to_string().as_bytes())?;
        match transaction.commit() {
            Ok(lsn) => {
                wal.wait_durable(lsn)?;
                return Ok(true);
            }
            Err(AppendError::Conflict { .. }) => {} // somebody was faster: look again
            Err(error) => return Err(error.into()),
        }
    }
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?; // yours will be a directory that stays
    let geometry = Geometry::new(16 << 20, 1 << 20)?;
    let wal = Wal::create(dir.path().join("bank"), geometry, Options::new())?;

    let ada = wal.versioned_stream("accounts/ada")?;
    let grace = wal.versioned_stream("accounts/grace")?;
    let audit = wal.stream("audit")?;

    ada.append_if(None, b"100")?; // an account is opened once
    let again = ada.append_if(None, b"100");
    assert!(matches!(again, Err(AppendError::Conflict { .. })));

    for amount in [30, 50, 40] {
        let done = transfer(&wal, &ada, &grace, amount)?;
        audit.append(format!("ada to grace, {amount}: done is {done}").as_bytes())?;
    }

    let mut replay = audit.read(Position::Oldest)?;
    while let Some(entry) = replay.next()? {
        println!("{:>5}  {}", entry.lsn, String::from_utf8_lossy(entry.payload));
    }
    for account in [&ada, &grace] {
        println!("{} has {} in {} entries", account.name(), balance(account)?.0, account.len()?);
    }
    assert_eq!((balance(&ada)?.0, balance(&grace)?.0), (20, 80));
    Ok(wal.close()?)
}
