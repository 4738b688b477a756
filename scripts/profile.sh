#!/usr/bin/env bash
# A flame graph of one hot path: scripts/profile.sh [PATH [COUNT]]. Without a path, of appends of
# 64 B; benches/hot_paths.rs has the others. Needs perf; inferno, which draws, is installed into the
# target folder when it is not there.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

path=${1:-append-64}
count=${2:-60000000}
target="${CARGO_TARGET_DIR:-target}"
folder="${KAELIX_BENCH_FOLDER:-$target/benchmarks}"
mkdir -p "$folder"

if ! command -v perf >/dev/null; then
    echo 'profile.sh: perf is missing. On Debian: apt-get install linux-perf.' >&2
    exit 69
fi
tools="$target/tools"
PATH="$PWD/$tools/bin:$tools/bin:$PATH"
if ! command -v inferno-flamegraph >/dev/null; then
    cargo install --quiet --locked --root "$tools" inferno
fi

binary=$(cargo bench --quiet --locked --bench hot_paths --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*hot_paths[^"]*\)".*/\1/p' | tail -n 1)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Virtual machines often have no counter of cycles; the clock is everywhere.
perf record --quiet --event cpu-clock --freq 499 --call-graph dwarf,4096 \
    --output "$scratch/data" -- "$binary" "$path" "$count"
perf script --no-inline --input "$scratch/data" 2>/dev/null |
    inferno-collapse-perf --quiet >"$scratch/stacks"
inferno-flamegraph --title "kaelix-wal: $path" "$scratch/stacks" >"$folder/flame-$path.svg"
echo "The flame graph is $folder/flame-$path.svg."
