#!/usr/bin/env bash
# Fuzzes a target for some seconds, from the corpus in fuzz/corpus: fuzz.sh TARGET SECONDS, or
# fuzz.sh all SECONDS for each of them in turn. A finding is left in fuzz/artifacts/TARGET, and its
# file name is printed. Needs a nightly toolchain and a C++ compiler; where they cannot be had it
# says so and succeeds, since the corpus is replayed on stable Rust by scripts/test.sh in any case.
# `cargo fuzz` works in fuzz/ too, but is not needed here.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"

target=${1:-all}
seconds=${2:-20}
targets=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' Cargo.toml)
if [[ $target != all ]]; then
    if ! grep -qx -- "$target" <<<"$targets"; then
        printf 'fuzz.sh: no target "%s"; there are: all %s\n' "$target" "${targets//$'\n'/ }" >&2
        exit 2
    fi
    targets=$target
fi

skip() {
    printf 'fuzz.sh: SKIPPED, nothing was fuzzed: %s\n' "$*"
    exit 0
}

command -v c++ >/dev/null || skip 'no C++ compiler, which libFuzzer needs'
toolchain=${KAELIX_NIGHTLY:-nightly}
if ! cargo "+$toolchain" --version >/dev/null 2>&1; then
    command -v rustup >/dev/null || skip 'no nightly Rust, and no rustup to install it'
    rustup toolchain install "$toolchain" --profile minimal || skip "no $toolchain Rust to be had"
fi

# What `cargo fuzz` builds with: coverage for the fuzzer, and the address sanitizer. A target triple
# keeps build scripts and macros out of it.
host=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS=${RUSTFLAGS//$'\n'/ }
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
cargo "+$toolchain" build --release --locked --target "$host" --bins

# What is found new goes here; the corpus in the repository only grows by hand, when minimised.
work=$CARGO_TARGET_DIR/work
for target in $targets; do
    mkdir -p "$work/$target" "artifacts/$target"
    printf '==> %s, %s s\n' "$target" "$seconds"
    log=$work/$target.log
    if ! "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=3000 -max_len=32768 -dict=dictionary -artifact_prefix="artifacts/$target/" \
        -print_final_stats=1 "$work/$target" "corpus/$target" >"$log" 2>&1; then
        grep -a -A 3 'panicked at' "$log" || true
        tail -n 60 "$log"
        printf 'fuzz.sh: %s found something; replay with\n    %s FILE\n' "$target" \
            "$CARGO_TARGET_DIR/$host/release/$target" >&2
        exit 1
    fi
    grep -aE '^(Done|stat::number_of_executed_units|stat::peak_rss_mb)' "$log"
    grep -aoE 'cov: [0-9]+ ft: [0-9]+ corp: [^ ]+' "$log" | tail -n 1
done
