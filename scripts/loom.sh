#!/usr/bin/env bash
# Explores the models of the shipped concurrent code. Arguments go to the test runner.
set -euo pipefail
cd "$(dirname "$0")/../loom-tests"

export RUSTFLAGS="${RUSTFLAGS:-} --cfg wal_loom"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
cargo test --locked -- "$@"
