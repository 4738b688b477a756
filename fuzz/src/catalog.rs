//! The stream catalog: any bytes as its two files, or a script by which the library makes them, and
//! then damage.
//!
//! Input: one byte of flags. Bit 7 clear, bytes: bits 0 and 1 put the header of A, B right, bits 2
//! and 3 the checksums of its entries; then the length of A in two bytes, A, and B. Bit 7 set, a
//! script: entries of two bytes and a name, then damage.

use kaelix_wal::Lsn;
use kaelix_wal::fuzzing::{self, Entry, Stream};

use crate::format::{put, seal_at, u32_at, u64_at};

pub const LOG_ID: [u8; 16] = *b"a log to confuse";
/// In the flags: the rest is a script.
pub const SCRIPT: u8 = 1 << 7;
const HEADER_LEN: usize = 64;

pub fn run(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    if flags & SCRIPT != 0 {
        return script(rest);
    }
    let Some((len, rest)) = rest.split_at_checked(2) else { return };
    let len = usize::from(len[0]) | usize::from(len[1]) << 8;
    let (a, b) = rest.split_at(len.min(rest.len()));
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    for (file, shift) in [(&mut a, 0), (&mut b, 1)] {
        if flags >> shift & 1 != 0 {
            put(file, 32, &LOG_ID);
            seal_at(file, 0..HEADER_LEN);
        }
        if flags >> shift & 4 != 0 {
            seal_entries(file);
        }
    }
    compare(&a, &b);
}

/// The library and the page agree; what is repaired says the same.
fn compare(a: &[u8], b: &[u8]) -> Option<(Vec<u8>, Vec<Stream>)> {
    let found = fuzzing::catalog(a, b, &LOG_ID);
    assert_eq!(found, by_the_page(a, b), "believed, by the page");
    if let Some((image, _)) = &found {
        assert_eq!(fuzzing::catalog(image, image, &LOG_ID), found, "repaired");
    }
    found
}

/// Makes a catalog, and damages it.
fn script(mut data: &[u8]) {
    let mut additions = vec![Vec::new()];
    let mut versioned = Vec::new();
    // Entries, until a byte with its two highest bits set.
    while let Some((&[what, len], rest)) = data.split_first_chunk() {
        data = rest;
        if what >= 0xC0 {
            break;
        }
        if what & 1 != 0 && additions.last().is_some_and(|addition| !addition.is_empty()) {
            additions.push(Vec::new());
        }
        let id = u32::from(len) + 1;
        let entry = if what & 2 != 0 && versioned.get(usize::from(len)) == Some(&true) {
            Entry::Position(id, u64::from(what), Lsn::new(64 + u64::from(what)))
        } else if what & 4 != 0 {
            Entry::Other(id, what | 0x80, what, vec![what; usize::from(len)])
        } else {
            versioned.push(what & 8 != 0);
            // No two names are alike, and some are long.
            let name = format!("{}{}", versioned.len(), "n".repeat(usize::from(len) * 3 / 4));
            Entry::Created(name, what & 8 != 0)
        };
        additions.last_mut().expect("there is one").push(entry);
    }
    let sound = fuzzing::catalog_image(&LOG_ID, &additions);
    let before = match additions.split_last() {
        Some((_, before)) => fuzzing::catalog_image(&LOG_ID, before),
        None => sound.clone(),
    };
    let all = compare(&sound, &sound).expect("what the library makes is sound").1;
    let acknowledged = compare(&before, &before).expect("its beginning, too").1;
    damage(data, &sound, &before, (&all, &acknowledged));
}

/// Damages the files, as a power loss may or as it never can.
fn damage(
    mut data: &[u8],
    sound: &[u8],
    before: &[u8],
    (all, acknowledged): (&[Stream], &[Stream]),
) {
    let Some((mode, rest)) = data.split_first() else { return };
    data = rest;
    // A torn addition in A, or in B, and nothing else; or anything to one file; or to both.
    let (mut a, mut b) = (sound.to_vec(), sound.to_vec());
    match mode % 4 {
        0 => b.truncate(before.len()),
        1 => (),
        2 => a.truncate(before.len()),
        _ => {}
    }
    while let Some((&[at_low, at_high, value], rest)) = data.split_first_chunk() {
        data = rest;
        let at = usize::from(at_low) | usize::from(at_high) << 8;
        let file = if mode % 4 == 0 || mode % 4 == 3 && value & 1 == 0 { &mut a } else { &mut b };
        let from = if mode % 4 < 2 { before.len() } else { 0 };
        let at = from + at % (file.len().max(from + 1) - from);
        match value % 4 {
            0 => file.truncate(at),
            1 => {
                let end = (at + 512).min(file.len());
                file.get_mut(at..end).into_iter().flatten().for_each(|byte| *byte = 0);
            }
            _ => file.get_mut(at).into_iter().for_each(|byte| *byte ^= value),
        }
    }
    let found = compare(&a, &b).map(|(_, streams)| streams);
    match mode % 4 {
        0 => {
            let found = found.expect("torn in A alone");
            assert!(is_between(acknowledged, &found, all), "{found:?}");
        }
        1 => assert_eq!(found.as_deref(), Some(all), "A is whole"),
        2 => {
            if let Some(found) = found {
                assert!(is_between(acknowledged, &found, all) || found.len() <= all.len());
            }
        }
        _ => {
            if let Some(found) = found {
                assert!(found.iter().zip(all).all(|(found, stream)| found.0 == stream.0));
                assert!(found.len() <= all.len(), "invented");
            }
        }
    }
}

/// At least what was acknowledged, and at most all.
fn is_between(acknowledged: &[Stream], found: &[Stream], all: &[Stream]) -> bool {
    (acknowledged.len()..=all.len()).contains(&found.len())
        && found.iter().zip(all).enumerate().all(|(at, (found, stream))| {
            let known = acknowledged.get(at).map(|stream| stream.2);
            let is_known = known == Some(found.2) || found.2.is_some() || known.is_none();
            (&found.0, found.1) == (&stream.0, stream.1) && is_known
        })
}

/// The checksum of what may be an entry: where it ends, and what its checksum should be.
fn entry_crc(file: &[u8], at: usize) -> Option<(usize, u32)> {
    let length = u32_at(file, at + 4) as usize;
    let end = at + length.next_multiple_of(8);
    if !(16..=1024).contains(&length) || end > file.len() {
        return None;
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&LOG_ID);
    crc.update(&(at as u64).to_le_bytes());
    crc.update(&file[at + 4..end]);
    Some((end, crc.finalize()))
}

/// Puts the checksums of all entries right, as far as their lengths lead.
fn seal_entries(file: &mut [u8]) {
    let mut at = HEADER_LEN;
    while let Some((end, crc)) = entry_crc(file, at) {
        put(file, at, &crc.to_le_bytes());
        at = end;
    }
}

/// The end of the entry at `at`, if it verifies.
fn verified(file: &[u8], at: usize) -> Option<usize> {
    let (end, crc) = entry_crc(file, at)?;
    (u32_at(file, at) == crc).then_some(end)
}

/// Do all entries verify?
fn is_whole(file: &[u8]) -> bool {
    let mut at = HEADER_LEN;
    while let Some(end) = verified(file, at) {
        at = end;
    }
    at == file.len()
}

/// Is the header right? `None`: the catalog is to be refused.
fn header(file: &[u8]) -> Option<bool> {
    if file.len() < HEADER_LEN || file[..8] != *b"KAELIXSC" || u32_at(file, 8) != 1 {
        return Some(false);
    }
    if u32_at(file, 60) != crc32fast::hash(&file[..60]) {
        return Some(false);
    }
    if file[32..48] != LOG_ID || u64_at(file, 24) != 0 {
        return None;
    }
    Some(u32_at(file, 12) == 64)
}

/// "Reading the catalog", word for word.
fn by_the_page(a: &[u8], b: &[u8]) -> Option<(Vec<u8>, Vec<Stream>)> {
    let is_sound = (header(a)?, header(b)?);
    if is_sound == (true, true) && u32_at(a, 48) != u32_at(b, 48) {
        let [older, newer] = if u32_at(a, 48) < u32_at(b, 48) { [a, b] } else { [b, a] };
        let whole = [newer, older].into_iter().find(|file| is_whole(file))?;
        return by_the_page(whole, whole);
    }
    let mut image = match is_sound {
        (true, true) if a[..HEADER_LEN] != b[..HEADER_LEN] => return None,
        (true, _) => a[..HEADER_LEN].to_vec(),
        (false, true) => b[..HEADER_LEN].to_vec(),
        (false, false) => return None,
    };
    let mut streams: Vec<Stream> = Vec::new();
    let mut ends = vec![HEADER_LEN];
    loop {
        let at = image.len();
        if at >= a.len() && at >= b.len() {
            break;
        }
        let entry = match (verified(a, at), verified(b, at)) {
            (Some(end), Some(other)) if end != other || a[at..end] != b[at..end] => return None,
            (Some(end), _) => &a[at..end],
            (None, Some(end)) => &b[at..end],
            (None, None) => {
                let mut behind = (b.len() + 8..a.len()).step_by(8);
                let marked = |at: usize| verified(a, at).is_some() && a[at + 14] & 1 != 0;
                let is_torn = b.len() <= at && ends.contains(&b.len()) && !behind.any(marked);
                if is_torn { break } else { return None }
            }
        };
        say(entry, &mut streams)?;
        image.extend_from_slice(entry);
        ends.push(image.len());
    }
    Some((image, streams))
}

/// Takes an entry's meaning up; `None` if it has none.
fn say(entry: &[u8], streams: &mut Vec<Stream>) -> Option<()> {
    let (id, body) = (u32_at(entry, 8) as usize, &entry[16..u32_at(entry, 4) as usize]);
    match (entry[12], entry[13]) {
        (1, flags @ (0 | 1)) => {
            let name = std::str::from_utf8(body).ok()?;
            let is_new = streams.iter().all(|stream| stream.0 != name);
            let is_next = id == streams.len() + 1;
            (is_new && is_next && (1..=255).contains(&name.len())).then_some(())?;
            streams.push((name.to_owned(), flags == 1, None));
        }
        (2, 0) if body.len() == 16 => {
            let stream = streams.get_mut(id.checked_sub(1)?)?;
            stream.1.then_some(())?;
            let position = (u64_at(body, 0), Lsn::new(u64_at(body, 8)));
            stream.2 = Some(position).filter(|(_, lsn)| lsn.get() != 0);
        }
        (kind, _) => (kind & 0x80 != 0).then_some(())?,
    }
    Some(())
}
