#!/usr/bin/env bash
# Measures, judges and draws. `scripts/run_benchmarks.sh help` lists what it can do.
#
# Results are lines of JSON in target/benchmarks (KAELIX_BENCH_FOLDER names another folder), a file
# for each run; benches/report judges and draws them. Logs are made where TMPDIR says: it should be
# on the disk that is meant.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'USAGE'
scripts/run_benchmarks.sh COMMAND

  quick          every group, short: about 2 minutes, then the verdicts
  comprehensive  every group, longer: about 10 minutes, then the verdicts
  validate       the groups that the targets are about; exit status 1 if one is missed
  latency        latency at a fixed rate and of durable appends, with plots
  throughput     appends, batches, reads, durable ingest
  stress         everything at once with too little space and memory
  ci             at most a minute: ratios to the floor, and counts of instructions
  compare COMMIT this tree beside that commit, in turn; exit status 1 if something became slower
  instructions   counts of instructions of the hot paths, by callgrind
  peers          other logs and queues beside this one
  report [FILE]  one page of HTML of the newest results, or of FILE
  trend [FILE]   adds the newest results, or FILE, to docs/benchmarks
  info           the machine, and what would spoil a measurement
  profile [WHAT] a flame graph of a hot path (append, batch, read, ...)
  criterion [GROUP]  Criterion's own measurement, with its HTML

CARGO_BENCH_DURATION sets the seconds of a measurement, TMPDIR the disk.
USAGE
}

target="${CARGO_TARGET_DIR:-target}"
folder="${KAELIX_BENCH_FOLDER:-$target/benchmarks}"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

report() {
    cargo run --quiet --release --locked --package kaelix-wal-report -- "$@"
}

new_results() {
    KAELIX_BENCH_RESULTS="$folder/$(date -u +%Y%m%dT%H%M%S)-$1.jsonl"
    export KAELIX_BENCH_RESULTS
}

newest_results() {
    local newest
    # Those of a run; what `cargo bench` adds by itself is in another file.
    newest=$(find "$folder" -maxdepth 1 -name '[0-9]*T[0-9]*-*.jsonl' | sort | tail -n 1)
    if [[ -z $newest ]]; then
        echo "run_benchmarks.sh: $folder has no results yet" >&2
        return 1
    fi
    printf '%s\n' "$newest"
}

# groups SECONDS GROUP...: the tables of these groups; CARGO_BENCH_DURATION overrides the seconds.
groups() {
    local seconds=$1
    shift
    local names=$*
    CARGO_BENCH_DURATION="${CARGO_BENCH_DURATION:-$seconds}" KAELIX_BENCH_TABLES=1 \
        cargo bench --quiet --locked --features fuzzing --bench wal_benchmarks -- "${names// /,}"
}

build() {
    cargo bench --quiet --locked --features fuzzing --bench wal_benchmarks --no-run
    cargo build --quiet --release --locked --package kaelix-wal-report
}

# In a control group of its own, if we may, so that memory can be made scarce.
stress() {
    local base=/sys/fs/cgroup group
    [[ -d $base/memory ]] && base=$base/memory
    group=$base/kaelix-bench-$$
    if mkdir "$group" 2>/dev/null && [[ -w $group/cgroup.procs ]] &&
        [[ -e $group/memory.max || -e $group/memory.limit_in_bytes ]]; then
        (
            echo "$BASHPID" >"$group/cgroup.procs"
            KAELIX_BENCH_CGROUP=$group groups "$1" comprehensive_stress
        ) && status=0 || status=$?
        rmdir "$group"
        return "$status"
    fi
    rmdir "$group" 2>/dev/null || true
    groups "$1" comprehensive_stress
}

verdicts() {
    local status=0
    printf '\n'
    report validate "$@" "$KAELIX_BENCH_RESULTS" || status=$?
    printf '\nThe results are %s.\n' "$KAELIX_BENCH_RESULTS"
    return "$status"
}

judged=(single_write_latency read_operations concurrent_writes memory_efficiency
    recovery_operations batch_write_throughput message_conversion transaction_processing
    streaming_api)

case "${1:-help}" in
    quick)
        build
        new_results quick
        groups 0.1 "${judged[@]}" append_parts scaling_model segment_rotation idempotent_append \
            back_pressure durable_throughput
        groups 0.05 paced_append durable_append persistent_memory
        stress 0.5
        # Its largest recoveries are left out: that alone is no failure.
        status=0
        verdicts || status=$?
        ((status == 2)) || exit "$status"
        ;;
    comprehensive)
        build
        new_results comprehensive
        groups 0.5 "${judged[@]}" append_parts scaling_model segment_rotation idempotent_append \
            back_pressure durable_throughput durable_append persistent_memory write_amplification \
            parity
        groups 0.25 paced_append
        stress 2
        verdicts
        ;;
    validate)
        build
        new_results validate
        groups 0.2 "${judged[@]}"
        verdicts
        ;;
    latency)
        build
        new_results latency
        KAELIX_BENCH_PLOTS=$folder groups 0.2 single_write_latency paced_append durable_append \
            read_operations
        echo "The plots are in $folder."
        ;;
    throughput)
        build
        new_results throughput
        groups 0.5 concurrent_writes scaling_model append_parts batch_write_throughput \
            read_operations durable_throughput segment_rotation
        ;;
    stress)
        build
        new_results stress
        stress 2
        ;;
    ci)
        build
        new_results ci
        groups 0.05 concurrent_writes read_operations message_conversion transaction_processing
        status=0
        verdicts --ratios || status=$?
        # That Criterion measures and draws is checked too: its figures are not.
        rm -rf "$target/criterion/message_conversion"
        CARGO_BENCH_DURATION=0.05 env -u KAELIX_BENCH_RESULTS bash scripts/run_benchmarks.sh \
            criterion message_conversion/view/64B >/dev/null
        drawn=$(find "$target/criterion/message_conversion" -name '*.svg' -print -quit)
        if [[ -z $drawn ]]; then
            echo 'Criterion drew nothing' >&2
            status=1
        fi
        if command -v valgrind >/dev/null; then
            bash scripts/instructions.sh check || status=$?
        else
            echo 'valgrind is missing: instructions were not counted'
        fi
        exit "$status"
        ;;
    compare)
        exec bash scripts/compare_benchmarks.sh "${@:2}"
        ;;
    instructions)
        exec bash scripts/instructions.sh "${@:2}"
        ;;
    peers)
        new_results peers
        cargo run --quiet --release --locked --manifest-path benches/peers/Cargo.toml -- "${@:2}"
        echo "The results are $KAELIX_BENCH_RESULTS."
        ;;
    report)
        # Peers are measured apart: their newest results are shown too.
        files=()
        if (($# > 1)); then
            files=("${@:2}")
        else
            files=("$(newest_results)")
            peers=$(find "$folder" -maxdepth 1 -name '*-peers.jsonl' | sort | tail -n 1)
            [[ -z $peers || $peers == "${files[0]}" ]] || files+=("$peers")
        fi
        report report "${files[@]}" --out "$folder/report.html"
        ;;
    trend)
        file=${2:-$(newest_results)}
        report trend "$file"
        ;;
    info)
        report info
        ;;
    profile)
        exec bash scripts/profile.sh "${@:2}"
        ;;
    criterion)
        cargo bench --locked --features fuzzing --bench wal_benchmarks -- "${@:2}"
        echo "Criterion's report is $target/criterion/report/index.html."
        ;;
    help | -h | --help)
        usage
        ;;
    *)
        usage >&2
        exit 64
        ;;
esac
