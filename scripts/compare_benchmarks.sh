#!/usr/bin/env bash
# This tree beside a commit, on this machine, in turn:
#
#     scripts/compare_benchmarks.sh COMMIT [GROUP]...
#
# Both are built; then their benchmarks run alternately, KAELIX_BENCH_TURNS times each (default 5),
# and the report compares figure by figure, with intervals of confidence over turns and rounds. Exit
# status 1 if something is more than a tenth slower beyond the noise.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# == 0)); then
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 64
fi
commit=$(git rev-parse --verify --quiet "$1^{commit}") || {
    echo "compare_benchmarks.sh: there is no commit $1" >&2
    exit 64
}
shift
selected=("$@")
((${#selected[@]})) || selected=(concurrent_writes batch_write_throughput read_operations
    message_conversion transaction_processing idempotent_append)
groups=${selected[*]}
turns="${KAELIX_BENCH_TURNS:-5}"

target="${CARGO_TARGET_DIR:-$PWD/target}"
folder="${KAELIX_BENCH_FOLDER:-$target/benchmarks}"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
export CARGO_TARGET_DIR=$target

# Copies the program that cargo builds in this tree to $1: both trees share the target folder, and
# their programs may have the same name there.
program() {
    local binary
    binary=$(cargo bench --quiet --locked --features fuzzing --bench wal_benchmarks --no-run \
        --message-format=json |
        sed -n 's/.*"executable":"\([^"]*wal_benchmarks[^"]*\)".*/\1/p' | tail -n 1)
    cp "$binary" "$1"
}

tree=$(mktemp -d)
trap 'git worktree remove --force "$tree/base"; rm -rf "$tree"' EXIT
git worktree add --quiet --detach "$tree/base" "$commit"
if [[ ! -e $tree/base/benches/support/results.rs ]]; then
    echo "compare_benchmarks.sh: the benchmarks of $commit keep no results" >&2
    exit 65
fi
new=$tree/new old=$tree/old
program "$new"
(cd "$tree/base" && program "$old")

stamp=$(date -u +%Y%m%dT%H%M%S)
turn() {
    local which=$1 where=$2 binary=$3
    (cd "$where" && KAELIX_BENCH_RESULTS="$folder/$stamp-compare-$which.jsonl" \
        KAELIX_BENCH_TABLES=1 CARGO_BENCH_DURATION="${CARGO_BENCH_DURATION:-0.1}" \
        "$binary" --bench "${groups// /,}" >/dev/null)
}
for ((n = 1; n <= turns; n++)); do
    echo "turn $n of $turns"
    # Who goes first changes, so that neither always follows the other.
    if ((n % 2)); then
        turn old "$tree/base" "$old"
        turn new "$PWD" "$new"
    else
        turn new "$PWD" "$new"
        turn old "$tree/base" "$old"
    fi
done
cargo run --quiet --release --locked --package kaelix-wal-report -- compare \
    --old "$folder/$stamp-compare-old.jsonl" --new "$folder/$stamp-compare-new.jsonl"
