//! Damage of every kind to one file and to both, as bytes.

use super::*;

fn is_corrupt(found: &Result<(Vec<u8>, Contents), Refusal>, at: usize) -> bool {
    matches!(found, Err(Refusal::Corrupt { offset, .. }) if *offset == at)
}

/// Where the entry around `byte` starts; 0 in the header.
fn entry_around(script: &Script, byte: usize) -> usize {
    script.boundaries.iter().rev().find(|start| **start <= byte).copied().unwrap_or_default()
}

#[test]
fn whole_files_say_what_was_added() {
    let script = Script::sample();
    let (image, contents) = read(&script.file, &script.file).expect("they are whole");
    assert!(image == script.file);
    let position = Some((7, Lsn::new(4096)));
    let want = [
        ("orders", NONE, None),
        ("payments of the year 2031", VERSIONED, position),
        ("ü", NONE, None),
        ("x", NONE, None),
        ("the last of them", NONE, None),
    ];
    assert_eq!(contents, want.map(|(name, flags, position)| (name.into(), flags, position)));
}

#[test]
fn every_flipped_byte_of_one_copy_is_repaired() {
    let script = Script::sample();
    let want = read(&script.file, &script.file);
    for byte in 0..script.file.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = script.file.clone();
            damaged[byte] ^= flip;
            assert_eq!(read(&damaged, &script.file), want, "byte {byte} of A");
            assert_eq!(read(&script.file, &damaged), want, "byte {byte} of B");
        }
    }
}

#[test]
fn damage_to_both_copies_of_an_entry_is_corruption() {
    let script = Script::sample();
    for byte in 0..script.file.len() {
        for distance in [0, 1, 3] {
            let other = (byte + distance).min(script.file.len() - 1);
            let (mut a, mut b) = (script.file.clone(), script.file.clone());
            a[byte] ^= 0x10;
            b[other] ^= 0x20;
            let found = read(&a, &b);
            // The version is judged before the checksum.
            if (8..12).contains(&byte) || (8..12).contains(&other) {
                assert!(found.is_err(), "{found:?}");
                continue;
            }
            let (entry, others) = (entry_around(&script, byte), entry_around(&script, other));
            if entry == others {
                assert!(is_corrupt(&found, entry), "bytes {byte} and {other}: {found:?}");
            } else {
                assert_eq!(found, read(&script.file, &script.file));
            }
        }
    }
}

#[test]
fn a_copy_of_any_length_is_repaired_from_the_other() {
    let script = Script::sample();
    let want = read(&script.file, &script.file);
    for len in 0..script.file.len() {
        assert_eq!(read(&script.file[..len], &script.file), want, "A of {len} bytes");
        assert_eq!(read(&script.file, &script.file[..len]), want, "B of {len} bytes");
    }
}

/// Both cut: what is returned is a beginning, and never less than what the rules promise.
#[test]
fn two_copies_cut_anywhere_return_a_beginning_or_are_refused() {
    let script = Script::sample();
    let all = read(&script.file, &script.file).expect("they are whole").1;
    let is_boundary = |len: usize| script.boundaries.contains(&len);
    for a_len in 0..=script.file.len() {
        for b_len in 0..=script.file.len() {
            let found = read(&script.file[..a_len], &script.file[..b_len]);
            let whole_end = |len: usize| entry_around(&script, len.min(script.file.len()));
            let end = whole_end(a_len).max(whole_end(b_len));
            let nothing_torn = end == a_len.max(b_len);
            let no_addition_behind_b = !script
                .additions
                .iter()
                .any(|start| (b_len + 1..a_len).contains(start) && whole_end(a_len) > *start);
            let torn = is_boundary(b_len) && b_len <= end && no_addition_behind_b;
            match found {
                Ok((image, contents)) => {
                    assert!(nothing_torn || torn, "{a_len} and {b_len} bytes");
                    assert_eq!(image, script.file[..end]);
                    let mut beginning = all[..contents.len()].to_vec();
                    // Stream 2 got its position later.
                    if contents.len() == 2 && contents[1].2.is_none() {
                        beginning[1].2 = None;
                    }
                    assert_eq!(contents, beginning);
                }
                Err(refusal) => {
                    assert!(!(nothing_torn || torn) || end == 0, "{a_len}, {b_len}: {refusal:?}");
                }
            }
        }
    }
}

#[test]
fn a_torn_addition_whose_later_entries_are_whole_is_cut() {
    let script = Script::sample();
    let before = script.additions[1];
    let addition = &script.file[..script.additions[2]];
    let mut torn = addition.to_vec();
    torn[before + 20] ^= 1;
    let (image, contents) = read(&torn, &script.file[..before]).expect("it is torn");
    assert_eq!((image.as_slice(), contents.len()), (&script.file[..before], 1));
    // Its first entries stay if they are whole.
    let mut torn = addition.to_vec();
    torn[script.boundaries[2] + 20] ^= 1;
    let (image, contents) = read(&torn, &script.file[..before]).expect("it is torn");
    assert_eq!((image.len(), contents.len()), (script.boundaries[2], 2));
}

#[test]
fn what_proves_that_an_addition_was_synced_makes_damage_in_it_corruption() {
    let script = Script::sample();
    let before = script.additions[1];
    // Another addition follows in A.
    let mut damaged = script.file.clone();
    damaged[before + 20] ^= 1;
    assert!(is_corrupt(&read(&damaged, &script.file[..before]), before));
    // B goes on, whatever it says.
    let short = &damaged[..script.additions[2]];
    assert!(is_corrupt(&read(short, &[&script.file[..before], &[0]].concat()), before));
    // B lost more than one addition, or was lost as a whole.
    let last = script.boundaries[5];
    let mut damaged = script.file.clone();
    damaged[last + 20] ^= 1;
    assert!(is_corrupt(&read(&damaged, &script.file[..before]), last));
    assert!(is_corrupt(&read(&damaged, &[]), last));
    assert!(is_corrupt(&read(&[], &damaged), last));
    // As it is when the last one is torn.
    let second_last = script.additions[2];
    assert_eq!(read(&damaged, &script.file[..second_last]).expect("torn").1.len(), 4);
}

#[test]
fn files_of_two_logs_are_not_mixed() {
    let other = {
        let mut addition = Addition::new(&[7; 16], HEADER_LEN);
        addition.created(1, 0, "theirs");
        [&encode_header(&[7; 16], 0)[..], addition.bytes()].concat()
    };
    let ours = Script::sample().file;
    use decide::Side::{A, B};
    assert_eq!(read(&other, &ours), Err(Refusal::AnotherLog(A)));
    assert_eq!(read(&ours, &other), Err(Refusal::AnotherLog(B)));
    assert_eq!(read(&other, &other), Err(Refusal::AnotherLog(A)));
    // Their entries behind our header are none.
    let mixed = [&ours[..HEADER_LEN], &other[HEADER_LEN..]].concat();
    assert!(is_corrupt(&read(&mixed, &mixed), HEADER_LEN));
    assert_eq!(read(&mixed, &ours), read(&ours, &ours));
}

#[test]
fn copies_that_verify_and_differ_are_corruption() {
    let (mut one, mut other) = (Script::new(), Script::new());
    one.add(|addition| addition.created(1, 0, "one"));
    other.add(|addition| addition.created(1, 0, "two"));
    assert!(is_corrupt(&read(&one.file, &other.file), HEADER_LEN));
}

#[test]
fn unknown_entries_are_passed_over_only_if_they_say_so() {
    let script = |kind, flags| {
        let mut script = Script::new();
        script.add(|addition| addition.created(1, 1, "one"));
        script.add(|addition| addition.push(9, kind, flags, b"from the future"));
        script.add(|addition| addition.created(2, 0, "two"));
        let at = script.additions[1];
        (read(&script.file, &script.file).map(|(_, contents)| contents.len()), at)
    };
    assert_eq!(script(0x80 | 9, 3).0, Ok(2));
    let (found, offset) = script(9, 0);
    assert_eq!(found, Err(Refusal::UnknownEntry { offset, what: "kind 9".into() }));
    let (found, offset) = script(1, 6);
    assert_eq!(found, Err(Refusal::UnknownEntry { offset, what: "flags 0x6 of a stream".into() }));
}

/// Entries with a good checksum are still not believed before they are checked.
#[test]
fn impossible_entries_are_refused() {
    let refused = |write: fn(&mut Addition)| {
        let mut script = Script::new();
        script.add(|addition| addition.created(1, 0, "one"));
        script.add(write);
        let at = script.additions[1];
        assert!(is_corrupt(&read(&script.file, &script.file), at));
    };
    refused(|addition| addition.push(2, 1, 0, b""));
    refused(|addition| addition.push(2, 1, 0, &[b'x'; 256]));
    refused(|addition| addition.push(2, 1, 0, b"\xFF"));
    refused(|addition| addition.push(2, 1, 0, b"one"));
    refused(|addition| addition.push(1, 1, 0, b"two"));
    refused(|addition| addition.push(3, 1, 0, b"two"));
    refused(|addition| addition.push(0, 1, 0, b"two"));
    refused(|addition| addition.push(1, 2, 0, b"too short"));
    refused(|addition| addition.position(1, 1, Lsn::new(64)));
    refused(|addition| addition.position(0, 1, Lsn::new(64)));
    refused(|addition| addition.position(2, 1, Lsn::new(64)));
}
