#!/usr/bin/env bash
# Runs the models of the shipped concurrent code: loom explores the small ones, shuttle runs the
# large ones under random schedules (KAELIX_SHUTTLE_ITERATIONS each; a failure prints its seed, and
# SHUTTLE_RANDOM_SEED replays it). Arguments go to the test runner.
set -euo pipefail
cd "$(dirname "$0")/../loom-tests"

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
RUSTFLAGS="${RUSTFLAGS:-} --cfg wal_loom" cargo test --locked --test loom -- "$@"
RUSTFLAGS="${RUSTFLAGS:-} --cfg wal_shuttle" cargo test --locked --test shuttle -- "$@"

# A new atomic, or a new fence, needs a model, and a line that says which.
if command -v python3 >/dev/null; then
    python3 ../scripts/weaken.py --list
fi
