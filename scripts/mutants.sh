#!/usr/bin/env bash
# Mutation testing: `mutants.sh [FILE...]` changes, in a copy, what .cargo/mutants.toml names (or
# these files alone) one operator, branch or function body at a time; each time a test must fail, or
# docs/testing.md must say why none can. An hour or more for everything, minutes for a file.
# Needs python3 and cargo-mutants. See the head of scripts/mutants.py.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v python3 >/dev/null || { echo 'mutants.sh: python3 is missing' >&2; exit 1; }
if ! cargo mutants --version >/dev/null 2>&1; then
    echo 'mutants.sh: cargo-mutants is missing: cargo install --locked cargo-mutants' >&2
    exit 1
fi
# Much of what the tests do is to sync, which memory does fastest.
[[ -n ${TMPDIR:-} || ! -w /dev/shm ]] || export TMPDIR=/dev/shm
exec python3 scripts/mutants.py "$@"
