#!/usr/bin/env bash
# Measures how appends are delayed by flushing and how group commit scales, each beside its floor,
# and draws it: scripts/latency.sh [FOLDER], by default target/latency. The report there shows the
# tables and the plots (SVG, and PNG beside it). CARGO_BENCH_DURATION sets the seconds of a round.
set -euo pipefail
cd "$(dirname "$0")/.."

folder="${1:-target/latency}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
rm -f "$folder"/*.svg "$folder"/*.png
export KAELIX_BENCH_PLOTS="$folder" CARGO_BENCH_DURATION="${CARGO_BENCH_DURATION:-0.5}"

{
    echo "# Latency and group commit"
    echo
    echo "$(uname -sr), $(nproc) cores, $(date -u +%F), commit $(git rev-parse --short HEAD)"
    for group in paced_append durable_append; do
        cargo bench --quiet --locked --bench wal_benchmarks "$group"
        for plot in "$folder/$group"*.svg; do
            echo
            echo "![$(basename "$plot" .svg)]($(basename "$plot"))"
        done
    done
} | tee "$folder/report.md"
echo "The report is $folder/report.md."
