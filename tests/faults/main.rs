//! Faults of files and of the system under them: each ends in an error that names the path, takes
//! nothing that was acknowledged, and leaves nothing that blocks the next try.
//!
//! The faults are real where they can be: a file system that is full or read-only, a limit on the
//! size of files, a disk that fails to write back. Where the fault must hit one step of many,
//! `strace` makes the n-th system call of a kind fail, or kills or stops the process in it; what
//! runs is the shipped code. What a machine lacks for a test, the test says on standard error, and
//! passes.
//!
//! A process of its own suffers the fault: this binary again, which runs one of the `TASKS`.

#[path = "../common/mod.rs"]
mod common;
mod creation;
mod cut;
mod machine;
mod mounts;
mod parity;
mod paths;
mod steps;
mod streams;
mod write_back;

use std::path::Path;

/// What a child can be told to do in the directory that it is given.
type Task = (&'static str, fn(&Path));

const TASKS: &[Task] = &[
    ("create", creation::create),
    ("open", paths::open),
    ("observe", paths::observe),
    ("append", cut::append),
    ("append_durable", steps::append_durable),
    ("fill_a_small_disk", mounts::fill_a_small_disk),
    ("use_up_the_inodes", mounts::use_up_the_inodes),
    ("write_to_a_read_only_disk", mounts::write_to_a_read_only_disk),
    ("protect", parity::protect),
    ("fill_the_disk_under_parity", mounts::fill_the_disk_under_parity),
    ("fill_the_disk_under_a_catalog", streams::fill_the_disk_under_a_catalog),
    ("release_without_a_catalog", streams::release_without_a_catalog),
    ("fail_to_write_back", write_back::fail_to_write_back),
];

/// Not a test by itself: the process that suffers.
#[test]
fn child() {
    let Some((task, dir)) = machine::orders() else { return };
    let (_, run) = TASKS.iter().find(|(name, _)| *name == task).expect("the parent names a task");
    run(&dir);
}
