#!/usr/bin/env bash
# Counts the instructions of each hot path (benches/hot_paths.rs) by callgrind: the same number in
# every run, whatever else the machine does.
#
#   scripts/instructions.sh         counts and prints; results go to target/benchmarks
#   scripts/instructions.sh check   and compares with docs/benchmarks; status 1 if one has grown
#   scripts/instructions.sh update  and replaces docs/benchmarks/instructions.jsonl
#
# Counts depend on the compiler: those of another one are shown, not judged.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v valgrind >/dev/null; then
    echo 'instructions.sh: valgrind is missing' >&2
    exit 69
fi

paths=(copy-64 claim-64 check-64 floor-64 append-64 append-1024 reserve-64 batch-100 stream-64
    transaction read-64 read-1024 get-64 encode view)
count=2000
folder="${KAELIX_BENCH_FOLDER:-${CARGO_TARGET_DIR:-target}/benchmarks}"
mkdir -p "$folder"
baseline=docs/benchmarks/instructions.jsonl
results="${KAELIX_BENCH_RESULTS:-$folder/instructions.jsonl}"
[[ -n ${KAELIX_BENCH_RESULTS:-} ]] || : >"$results"

binary=$(cargo bench --quiet --locked --bench hot_paths --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*hot_paths[^"]*\)".*/\1/p' | tail -n 1)
tools="$(rustc --version), $(valgrind --version)"
commit=$(git describe --always --abbrev=10 --exclude='*' --dirty=+)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for path in "${paths[@]}"; do
    valgrind --quiet --tool=callgrind --collect-atstart=no \
        --toggle-collect='*hot_paths::measured*' --callgrind-out-file="$scratch/$path" \
        "$binary" "$path" "$count" >/dev/null
    calls=$count
    [[ $path != batch-100 ]] || calls=$((count / 10))
    awk -v path="$path" -v calls="$calls" -v commit="$commit" -v tools="$tools" \
        -v time="$(date +%s)" '
        /^(totals|summary):/ { total = $2 }
        END {
            each = sprintf("%.1f", total / calls)
            printf "{\"group\":\"instructions\",\"case\":\"%s\",\"measure\":\"each call\",", path
            printf "\"unit\":\"instructions\",\"subject\":\"kaelix-wal\",\"log\":%s,", each
            printf "\"rounds\":{\"log\":[%s]},\"commit\":\"%s\",", each, commit
            printf "\"machine\":\"%s\",\"run\":\"callgrind\",\"time\":%s}\n", tools, time
            printf "%-14s %10s instructions\n", path, each >"/dev/stderr"
        }' "$scratch/$path" >>"$scratch/rows"
done
cat "$scratch/rows" >>"$results"

case "${1:-}" in
    check)
        if [[ ! -e $baseline ]]; then
            echo "There is no $baseline yet: nothing to compare with."
            exit 0
        fi
        status=0
        cargo run --quiet --release --locked --package kaelix-wal-report -- \
            compare --old "$baseline" --new "$scratch/rows" || status=$?
        if ! grep -qF "\"$tools\"" "$baseline"; then
            echo "The baseline is of other tools than $tools: not judged."
            exit 0
        fi
        exit "$status"
        ;;
    update) cp "$scratch/rows" "$baseline" ;;
    '') ;;
    *)
        echo "instructions.sh: what is $1?" >&2
        exit 64
        ;;
esac
