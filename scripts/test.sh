#!/usr/bin/env bash
# Everything that a change must pass, what fails fastest first. Needs stable Rust and nothing else.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    printf 'test.sh: %s\n' "$*" >&2
    exit 1
}

step() {
    printf '\n==> %s\n' "$*"
    "$@"
}

command -v cargo >/dev/null || die "cargo is missing: install stable Rust from https://rustup.rs"
cargo fmt --version >/dev/null 2>&1 || die "rustfmt is missing: rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || die "clippy is missing: rustup component add clippy"

step cargo fmt --all --check
step cargo fmt --manifest-path fuzz/Cargo.toml --check
step cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
step env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked
step cargo test --workspace --all-features --locked
step cargo test --manifest-path fuzz/Cargo.toml --no-default-features --locked
step bash scripts/msrv.sh
printf '\nAll checks passed.\n'
