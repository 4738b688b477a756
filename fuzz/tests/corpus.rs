//! Every file of the corpus, and every seed, through its target's body: what a fuzzer has found
//! once is looked for in every test run, on stable Rust.

use std::fs;
use std::path::{Path, PathBuf};

use kaelix_wal_fuzz::{TARGETS, Target, seeds};

/// The corpus' files for a target, in one order everywhere.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).expect("each target has a corpus");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder's entries can be read").path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    let run: Target = TARGETS.iter().find(|(name, _)| *name == target).expect("a target's name").1;
    for (_, name, bytes) in seeds::all().into_iter().filter(|(of, ..)| *of == target) {
        guarded(&name, || run(&bytes));
    }
    let files = corpus(target);
    assert!(!files.is_empty(), "the corpus of `{target}` is empty");
    for file in files {
        let bytes = fs::read(&file).expect("a file of the corpus can be read");
        guarded(&file.display().to_string(), || run(&bytes));
    }
}

/// Names the input in front of the panic that it causes.
fn guarded(input: &str, run: impl FnOnce() + std::panic::UnwindSafe) {
    if let Err(panic) = std::panic::catch_unwind(run) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        panic!("{input}: {text}");
    }
}

macro_rules! targets {
    ($($target:ident),* $(,)?) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

targets!(
    superblock,
    checkpoint,
    consumers,
    parity,
    segment_header,
    record,
    catalog,
    image,
    mutated_image,
    operations,
    message,
);
