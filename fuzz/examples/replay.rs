//! Runs a target's body over one file: `cargo run --no-default-features --example replay -- TARGET
//! FILE`. A debugger's way to a finding.

use kaelix_wal_fuzz::TARGETS;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (target, file) = arguments.next().zip(arguments.next()).expect("a target and a file");
    let found = TARGETS.iter().find(|(name, _)| *name == target).expect("a target's name");
    found.1(&std::fs::read(file).expect("the file can be read"));
}
