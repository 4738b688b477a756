#!/usr/bin/env bash
# The long version of the tests that depend on luck: 200 kills, the stress tests with more rounds,
# random histories with a new seed each. The first failure ends it; its seed is in the output.
# Optional: KAELIX_KILL_CYCLES (default 200), KAELIX_STRESS (default 5, a factor), KAELIX_SEED.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export KAELIX_KILL_CYCLES="${KAELIX_KILL_CYCLES:-200}"
export KAELIX_STRESS="${KAELIX_STRESS:-5}"

# One after the other: each of them is to have the whole machine.
for test in kill9 kill_transactions stress stream_stress stream_index idempotent every_size \
    full_and_trim readers idle; do
    printf '\n==> %s\n' "$test"
    cargo test --release --locked --package kaelix-wal --test "$test"
done
printf '\nNothing was lost, doubled, altered or out of order.\n'
