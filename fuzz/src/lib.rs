//! The bodies of the fuzz targets, one a module, and what they judge by.
//!
//! 1. A body is a function of the fuzzer's bytes. The fuzzer calls it, and so does the test that
//!    replays the corpus on stable Rust: what was found once is looked for in every test run.
//! 2. A checksum would keep a fuzzer from everything behind it. So a bit of the input asks for
//!    checksums to be put right ([`format::seal`]) after the bytes were spoilt.
//! 3. What the library returns is compared with [`reference`](mod@reference), a second reader that
//!    was written from `docs/format.md` and shares no code with the first.

pub mod catalog;
pub mod checkpoint;
pub mod consumers;
pub mod format;
pub mod image;
pub mod message;
pub mod mutated_image;
pub mod operations;
pub mod parity;
pub mod record;
pub mod reference;
pub mod seeds;
pub mod segment_header;
pub mod superblock;

/// A target's body.
pub type Target = fn(&[u8]);

/// All targets, by the name that `scripts/fuzz.sh` and the corpus know.
pub const TARGETS: [(&str, Target); 11] = [
    ("superblock", superblock::run),
    ("checkpoint", checkpoint::run),
    ("consumers", consumers::run),
    ("parity", parity::run),
    ("segment_header", segment_header::run),
    ("record", record::run),
    ("catalog", catalog::run),
    ("image", image::run),
    ("mutated_image", mutated_image::run),
    ("operations", operations::run),
    ("message", message::run),
];
