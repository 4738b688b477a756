//! Each structure of a log, and each kind of damage to it.

use crate::common::{RECORD_END, SEGMENT};
use crate::sample::{Files, Sample, file_offset, segment_offset};

const PAGE: usize = 4096;

/// Damages the files of the first sample; the second is another log.
type Apply = Box<dyn Fn(&Sample, &Sample, &mut Files)>;

/// What is damaged, how, and what does it.
pub struct Case {
    pub structure: &'static str,
    pub damage: &'static str,
    pub apply: Apply,
}

fn ring(files: &mut Files) -> &mut Vec<u8> {
    files.get_mut("ring").expect("a log has a ring")
}

fn flip(at: impl Fn(&Sample) -> usize + 'static) -> Apply {
    Box::new(move |sample, _, files| ring(files)[at(sample)] ^= 0x10)
}

/// Zeroes the page that a place lies in.
fn zero(at: impl Fn(&Sample) -> usize + 'static) -> Apply {
    Box::new(move |sample, _, files| {
        let page = at(sample) / PAGE * PAGE;
        ring(files)[page..page + PAGE].fill(0);
    })
}

/// Exchanges two stretches of the ring file.
fn swap(at: impl Fn(&Sample) -> (usize, usize) + 'static, len: usize) -> Apply {
    Box::new(move |sample, _, files| {
        let (one, other) = at(sample);
        let ring = ring(files);
        let first = ring[one..one + len].to_vec();
        ring.copy_within(other..other + len, one);
        ring[other..other + len].copy_from_slice(&first);
    })
}

/// Puts back what stood in a page when the early copy was taken.
fn old(at: impl Fn(&Sample) -> usize + 'static) -> Apply {
    Box::new(move |sample, _, files| {
        let page = at(sample) / PAGE * PAGE;
        let early = &sample.early[page..page + PAGE];
        assert!(ring(files)[page..page + PAGE] != *early, "it has changed since");
        ring(files)[page..page + PAGE].copy_from_slice(early);
    })
}

/// Takes a stretch from another log.
fn mix(start: usize, len: usize) -> Apply {
    Box::new(move |_, other, files| {
        ring(files)[start..start + len].copy_from_slice(&other.files["ring"][start..start + len]);
    })
}

fn in_files(names: &'static [&'static str], change: impl Fn(&mut Vec<u8>) + 'static) -> Apply {
    Box::new(move |_, _, files| {
        for name in names {
            change(files.get_mut(*name).expect("the log has it"));
        }
    })
}

fn other_files(names: &'static [&'static str]) -> Apply {
    Box::new(move |_, other, files| {
        for name in names {
            files.insert((*name).to_owned(), other.files[*name].clone());
        }
    })
}

/// The newest slot's offset, and the other's.
fn slots(sample: &Sample) -> (usize, usize) {
    let generation = |slot: usize| {
        let bytes = &sample.files["ring"][slot + 8..slot + 16];
        u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
    };
    if generation(PAGE) > generation(2 * PAGE) { (PAGE, 2 * PAGE) } else { (2 * PAGE, PAGE) }
}

/// A page with nothing but records in it, in the middle of a segment.
fn page_of_records(sequence: u64) -> usize {
    segment_offset(sequence) + 5 * PAGE
}

fn footer(sequence: u64) -> usize {
    segment_offset(sequence) + RECORD_END as usize
}

const SIZE: usize = SEGMENT as usize;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |structure, damage, apply| cases.push(Case { structure, damage, apply });
    add("nothing", "none", Box::new(|_, _, _| {}));
    head(&mut add);
    segments(&mut add);
    records(&mut add);
    files(&mut add);
    cases
}

type Add<'a> = dyn FnMut(&'static str, &'static str, Apply) + 'a;

fn head(add: &mut Add<'_>) {
    add("superblock", "bit flip", flip(|_| 50));
    add("superblock", "zeroed page", zero(|_| 0));
    add("superblock", "of another log", mix(0, PAGE));
    add("newest checkpoint slot", "bit flip", flip(|sample| slots(sample).0 + 40));
    add("newest checkpoint slot", "zeroed page", zero(|sample| slots(sample).0));
    add("older checkpoint slot", "bit flip", flip(|sample| slots(sample).1 + 40));
    add("checkpoint slots", "swapped pages", swap(|_| (PAGE, 2 * PAGE), PAGE));
    add("checkpoint slots", "bit flip in both", {
        Box::new(|_, _, files| {
            ring(files)[PAGE + 40] ^= 1;
            ring(files)[2 * PAGE + 40] ^= 1;
        })
    });
    add("checkpoint slots", "of another log", mix(PAGE, 2 * PAGE));
    add("checkpoint slots", "stale", {
        Box::new(|sample, _, files| {
            ring(files)[PAGE..3 * PAGE].copy_from_slice(&sample.early[PAGE..3 * PAGE]);
        })
    });
}

fn segments(add: &mut Add<'_>) {
    let header = segment_offset;
    add("header of a sealed segment", "bit flip", flip(move |_| header(2) + 9));
    add("header of a sealed segment", "zeroed page", zero(move |_| header(2)));
    add("header of the active segment", "bit flip", flip(move |_| header(4) + 9));
    add("header of the oldest segment", "bit flip", flip(move |_| header(1) + 9));
    add("sealed segment", "zeroed", {
        Box::new(move |_, _, files| ring(files)[header(2)..header(3)].fill(0))
    });
    add("sealed segment", "old copy", {
        Box::new(move |sample, _, files| {
            ring(files)[header(3)..header(4)].copy_from_slice(&sample.early[header(3)..header(4)]);
        })
    });
    add("sealed segment", "of another log", mix(header(2), SIZE));
    add("sealed segments", "swapped", swap(move |_| (header(2), header(3)), SIZE));
    add("oldest segment", "zeroed", {
        Box::new(move |_, _, files| ring(files)[header(1)..header(2)].fill(0))
    });
    add("active segment", "zeroed", {
        Box::new(move |_, _, files| ring(files)[header(4)..header(5)].fill(0))
    });
    add("sealed and active segment", "swapped", swap(move |_| (header(3), header(4)), SIZE));
    add("footer", "bit flip", flip(|_| footer(2) + 30));
    add("footer", "zeroed page", zero(|_| footer(2)));
    add("footers", "swapped pages", swap(|_| (footer(2), footer(3)), PAGE));
}

fn records(add: &mut Add<'_>) {
    let at = |sequence, skip| move |sample: &Sample| file_offset(sample.record(sequence, skip));
    let sealed = at(2, 5);
    add("payload in a sealed segment", "bit flip", flip(move |sample| sealed(sample) + 100));
    add("length in a sealed segment", "bit flip", flip(sealed));
    add("tag in a sealed segment", "bit flip", flip(move |sample| sealed(sample) + 12));
    add("records of a sealed segment", "zeroed page", zero(|_| page_of_records(2)));
    add("records of a sealed segment", "swapped pages", {
        swap(|_| (page_of_records(2), page_of_records(2) + PAGE), PAGE)
    });
    add("records of sealed segments", "swapped pages", {
        swap(|_| (page_of_records(2), page_of_records(3)), PAGE)
    });
    add("records of a sealed segment", "old copy of a page", {
        old(|sample| file_offset(sample.epoch) - 1)
    });
    add("records of a sealed segment", "page of another log", mix(page_of_records(2), PAGE));
    add("record that opens an epoch", "bit flip", flip(|sample| file_offset(sample.epoch) + 17));
    add("evidence in a sealed segment", "bit flip", flip(|sample| sample.evidence(3) + 9));
    let oldest = at(1, 0);
    add("oldest record", "bit flip", flip(move |sample| oldest(sample) + 100));
    let active = at(4, 2);
    add("payload in the active segment", "bit flip", flip(move |sample| active(sample) + 100));
    add("records of the active segment", "zeroed page", zero(|_| page_of_records(4) - PAGE));
    add("record that was not acknowledged", "bit flip", {
        flip(|sample| file_offset(sample.records[sample.records.len() - 2].0) + 100)
    });
    add("many records", "bit flips", {
        Box::new(|sample, _, files| {
            for (lsn, _) in sample.records.iter().step_by(10) {
                ring(files)[file_offset(*lsn) + 50] ^= 4;
            }
        })
    });
}

fn files(add: &mut Add<'_>) {
    add("ring file", "truncated", {
        Box::new(|_, _, files| ring(files).truncate(segment_offset(3) + 10_000))
    });
    add("ring file", "grown", Box::new(|_, _, files| ring(files).extend([7; 5000])));
    add("stream catalog", "bit flip in one file", {
        in_files(&["streams.a"], |bytes| bytes[70] ^= 1)
    });
    add("stream catalog", "bit flip in both files", {
        in_files(&["streams.a", "streams.b"], |bytes| {
            // A second entry behind it proves that it was there.
            bytes[10] ^= 1;
        })
    });
    add("stream catalog", "of another log", other_files(&["streams.a", "streams.b"]));
    add("consumers' positions", "bit flip in one file", {
        in_files(&["consumers.a"], |bytes| bytes[30] ^= 1)
    });
    add("consumers' positions", "bit flip in both files", {
        in_files(&["consumers.a", "consumers.b"], |bytes| bytes[30] ^= 1)
    });
    add("consumers' positions", "of another log", other_files(&["consumers.a", "consumers.b"]));
}
