//! What the rules know about this tree: edit the data here, never the rules.

/// Which top-level module of `src/` stands on which floor; a folder counts as one module.
///
/// A file imports from lower floors and from its own folder. Every module has a row, every row has
/// a module, and `lib.rs`, which only re-exports, has none.
pub const FLOORS: &[(&str, u8)] = &[
    ("sync", 0),
    ("lsn", 0),
    ("stream_id", 0),
    ("producer_id", 0),
    ("checksum", 0),
    ("wait", 0),
    ("error", 1),
    ("metrics", 1),
    ("events", 2),
    ("geometry", 2),
    ("layout", 2),
    ("options", 2),
    ("region", 3),
    ("files", 3),
    ("ring", 4),
    ("segments", 5),
    ("durability", 6),
    ("recovery", 6),
    ("reader", 6),
    ("producer", 6),
    ("batch", 7),
    ("stream", 7),
    ("transaction", 7),
    ("message", 7),
    ("consumer", 7),
    ("parity", 7),
    ("idempotent", 7),
    ("wal", 8),
    ("inspect", 8),
    ("verify", 8),
    ("repair", 8),
    ("copy", 8),
    ("model", 8),
    ("simulation", 8),
    ("fuzzing", 9),
];

/// Imports allowed on one floor, as (from, to). `to` stands above `from` in [`FLOORS`], so that the
/// exceptions cannot close a cycle.
pub const SAME_FLOOR: &[(&str, &str)] = &[
    ("lsn", "sync"),
    ("checksum", "sync"),
    ("checksum", "lsn"),
    ("wait", "sync"),
    ("wait", "lsn"),
    ("layout", "geometry"),
    ("options", "geometry"),
    ("stream", "batch"),
    ("transaction", "batch"),
    ("transaction", "stream"),
    ("idempotent", "stream"),
    ("copy", "inspect"),
    ("copy", "wal"),
    ("simulation", "wal"),
    ("model", "wal"),
    ("repair", "verify"),
];

/// Imports forbidden although they point downwards, as (from, to).
pub const NEVER: &[(&str, &str)] = &[("recovery", "ring")];

/// The one folder that names the paths in [`SHIMMED`]; everybody else imports from it, so that the
/// models' build swaps every atomic and every thread by swapping one file.
pub const SHIM: &str = "src/sync/";
pub const SHIMMED: &[&str] =
    &["std::sync", "core::sync", "alloc::sync", "std::thread", "loom", "shuttle"];

/// The files that may say `unsafe`; a folder ends in `/`. A row that is no longer needed goes.
///
/// `region` touches memory; `claim`, `record` and `prepare` turn the protocol's rights into access;
/// `footer`, `janitor`, `slots` and `apply` prove that they hold such a right; `reservation`
/// implements an unsafe trait. `model` stands in for a janitor, and the benchmarks' floors write to
/// bare mappings.
pub const UNSAFE: &[&str] = &[
    "src/region/",
    "src/ring/claim.rs",
    "src/ring/reservation.rs",
    "src/reader/record.rs",
    "src/segments/footer.rs",
    "src/segments/janitor.rs",
    "src/segments/prepare.rs",
    "src/segments/slots.rs",
    "src/recovery/apply.rs",
    "src/model.rs",
    "benches/groups/persistent_memory.rs",
    "benches/support/",
];

/// The longest function, in lines from `fn` to the closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer, as ("path::name", present length). The length may only go down.
pub const RATCHET: &[(&str, usize)] = &[];

/// The longest line, in characters.
pub const COLUMNS_MAX: usize = 100;

/// Macros that never ship, and those that a library must not use: it returns errors, and the
/// terminal belongs to its caller.
pub const BANNED_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];
pub const BANNED_LIBRARY_MACROS: &[&str] = &["println", "eprintln", "print", "eprint"];

/// Words that mark unfinished work, in code and in comments.
pub const BANNED_WORDS: &[&str] = &["FIXME", "XXX"];
