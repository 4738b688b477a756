//! The rules of the house, executed.
//!
//! Each test below is one rule, applied to every file it is about; it fails with the list of all
//! places that break it. What the rules know about this tree is data in `tables.rs`. Each rule is
//! a function of one file's text, and the tests beside it feed it text that must fail.

mod code;
mod imports;
mod manual;
mod source;
mod tables;
mod text;

use imports::Floors;
use source::Source;
use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: Floors =
    Floors { floors: tables::FLOORS, same_floor: tables::SAME_FLOOR, never: tables::NEVER };

#[test]
fn imports_point_downwards() {
    check(library().iter().flat_map(|source| imports::floors(source, &FLOORS)));
}

#[test]
fn the_table_of_floors_is_sound() {
    let library = library();
    let mods: Vec<&str> = library
        .iter()
        .filter_map(|source| imports::module_path(&source.path).first().copied())
        .collect();
    check(FLOORS.faults(&mods));
}

#[test]
fn only_the_shim_names_atomics_and_threads() {
    check(library().iter().flat_map(|file| imports::shim(file, tables::SHIM, tables::SHIMMED)));
}

#[test]
fn unsafe_code_is_listed_and_proved() {
    check(rust().iter().flat_map(|source| code::unsafe_code(source, tables::UNSAFE)));
}

#[test]
fn the_list_of_unsafe_files_is_no_longer_than_needed() {
    let rust = rust();
    let says_unsafe = |source: &&Source| source.tokens.iter().any(|token| token.text == "unsafe");
    let needed: Vec<&Source> = rust.iter().filter(says_unsafe).collect();
    let is_idle = |row: &&&str| !needed.iter().any(|source| code::covers(row, &source.path));
    let idle = tables::UNSAFE.iter().filter(is_idle);
    check(idle.map(|row| format!("{row}: says `unsafe` nowhere; drop its row")));
}

#[test]
fn nothing_unfinished_ships() {
    let unfinished = |source| code::unfinished(source, tables::BANNED_MACROS, tables::BANNED_WORDS);
    check(product().iter().flat_map(unfinished));
}

#[test]
fn the_library_neither_prints_nor_unwraps() {
    let manners = |source| code::manners(source, tables::BANNED_LIBRARY_MACROS);
    check(library().iter().flat_map(manners));
}

#[test]
fn sequential_consistency_is_explained() {
    check(library().iter().flat_map(code::seq_cst));
}

#[test]
fn functions_are_short() {
    let lengths = |source| code::lengths(source, tables::FUNCTION_LINES_MAX, tables::RATCHET);
    check(rust().iter().flat_map(lengths));
}

#[test]
fn modules_open_with_their_contract() {
    check(product().iter().flat_map(code::opening));
}

#[test]
fn text_is_well_formed() {
    let is_text = |path: &str| {
        let extension = path.rsplit_once('.').map(|(_, extension)| extension);
        matches!(extension, Some("rs" | "md" | "sh" | "toml" | "yml")) || path == ".ci/run"
    };
    let form = |(path, text): (String, String)| text::form(&path, &text, tables::COLUMNS_MAX);
    check(files(is_text).into_iter().flat_map(form));
}

#[test]
fn links_lead_somewhere() {
    let links = |(path, text): (String, String)| {
        let folder = root().join(&path).parent().map(Path::to_owned).unwrap_or_default();
        text::links(&path, &text, |target| folder.join(target).exists())
    };
    check(files(|path| path.ends_with(".md")).into_iter().flat_map(links));
}

#[test]
fn the_manual_says_what_to_do_on_each_error() {
    let is_error = |path: &str| path.starts_with("src/error/") && path.ends_with(".rs");
    let sources = files(is_error);
    let variants: Vec<_> = sources.iter().flat_map(|(_, text)| manual::variants(text)).collect();
    assert!(variants.len() > 90, "only {} variants were found", variants.len());
    let (_, text) = files(|path| path == "docs/operations.md").remove(0);
    check(manual::missing_rows(&text, &variants));
    check(manual::stale_names(&text, &variants));
}

/// Fails with every violation, one a line.
fn check(violations: impl IntoIterator<Item = String>) {
    let found: Vec<String> = violations.into_iter().collect();
    assert!(found.is_empty(), "{} violation(s):\n{}", found.len(), found.join("\n"));
}

/// The library's files.
fn library() -> Vec<Source> {
    let library = sources(|path| path.starts_with("src/"));
    assert!(library.iter().any(|source| source.path == "src/lib.rs"), "no library to check");
    library
}

/// The library's files and those of the command-line tool.
fn product() -> Vec<Source> {
    sources(|path| path.starts_with("src/") || path.starts_with("cli/src/"))
}

/// Every Rust file.
fn rust() -> Vec<Source> {
    sources(|_| true)
}

fn sources(is_wanted: impl Fn(&str) -> bool) -> Vec<Source> {
    let found = files(|path| path.ends_with(".rs") && is_wanted(path));
    found.iter().map(|(path, text)| Source::new(path, text)).collect()
}

/// The repository's files that are wanted, by path from its root with `/` between names, with
/// their text.
fn files(is_wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder was listed a moment ago") {
            let entry = entry.expect("a folder's entries can be read");
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let relative = path.strip_prefix(&root).expect("the walk starts at the root");
            let relative = relative.to_string_lossy().replace('\\', "/");
            let kind = entry.file_type().expect("an entry has a type");
            if kind.is_dir() && is_ours(&name) {
                folders.push(path);
            } else if kind.is_file() && is_wanted(&relative) {
                let text = fs::read_to_string(&path).expect("text files are UTF-8");
                found.push((relative, text));
            }
        }
    }
    found.sort();
    found
}

/// Whether people write the files of a folder of this name, rather than tools.
fn is_ours(name: &str) -> bool {
    let is_output = matches!(name, "target" | "corpus" | "artifacts");
    matches!(name, ".ci" | ".github") || !(is_output || name.starts_with('.'))
}

fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}
