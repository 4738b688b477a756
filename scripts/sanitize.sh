#!/usr/bin/env bash
# Runs tests under checkers of undefined behaviour: `sanitize.sh [thread|address|miri|valgrind]...`,
# all of them by default, in about five minutes on two cores. docs/sanitizers.md says what each can
# find. One whose tools the machine lacks is skipped, and said to be; any finding is a failure.
# Optional: KAELIX_STRESS (a factor), KAELIX_KILL_CYCLES (default 6), KAELIX_SEED.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export KAELIX_KILL_CYCLES="${KAELIX_KILL_CYCLES:-6}"
target=${CARGO_TARGET_DIR:-target}
# The layers that are arithmetic and bytes: no threads, no files.
pure=(checksum geometry layout lsn recovery::decide recovery::report wait)

skipped=()
skip() {
    printf '\n==> %s: SKIPPED, this machine lacks %s\n' "$1" "$2"
    skipped+=("$1")
}

nightly() {
    command -v rustup >/dev/null && rustup toolchain list | grep -q '^nightly'
}

# Runs the given tests under one of the compiler's sanitizers, with a target folder of its own;
# without those that try every length at every offset, which would take all of the time.
sanitized() {
    local sanitizer=$1 host
    shift
    host=$(rustc +nightly -vV | sed -n 's/^host: //p')
    local flags="--cfg wal_sanitized -Zsanitizer=$sanitizer"
    # The standard library comes compiled without it, which newer compilers want to be told.
    local told=-Cunsafe-allow-abi-mismatch=sanitizer
    if echo | rustc +nightly "$told" --print cfg - >/dev/null 2>&1; then
        flags+=" $told"
    fi
    printf '\n==> %s: %s\n' "$sanitizer" "$*"
    # With line tables alone, inlined functions have short names, which no suppression knows.
    RUSTFLAGS="${RUSTFLAGS:-} $flags" CARGO_TARGET_DIR="$target/sanitized-$sanitizer" \
        CARGO_PROFILE_DEV_DEBUG=full \
        cargo +nightly test --locked --target "$host" --package kaelix-wal "$@" -- \
        --test-threads=2 --skip small_ring
}

run_thread() {
    nightly || { skip thread 'a nightly toolchain: rustup toolchain install nightly'; return; }
    export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/scripts/tsan.supp"
    sanitized thread --test stress --test readers --test full_and_trim --test kill9
}

run_address() {
    nightly || { skip address 'a nightly toolchain: rustup toolchain install nightly'; return; }
    sanitized address --lib --test stress --test readers --test full_and_trim --test kill9
}

run_miri() {
    if ! nightly || ! cargo +nightly miri --version >/dev/null 2>&1; then
        skip miri 'Miri: rustup +nightly component add miri rust-src'
        return
    fi
    printf '\n==> miri: %s\n' "${pure[*]}"
    cargo +nightly miri test --locked --package kaelix-wal --lib -- "${pure[@]}"
}

run_valgrind() {
    command -v valgrind >/dev/null || { skip valgrind 'valgrind'; return; }
    local binary
    binary=$(cargo test --locked --package kaelix-wal --lib --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    printf '\n==> valgrind: %s\n' "${pure[*]}"
    valgrind --quiet --error-exitcode=9 --leak-check=no "$binary" --test-threads=1 "${pure[@]}"
}

if (($# == 0)); then
    set -- thread address miri valgrind
fi
for checker; do
    case $checker in
    thread | address | miri | valgrind) ;;
    *)
        printf 'sanitize.sh: %s is none of thread, address, miri, valgrind\n' "$checker" >&2
        exit 2
        ;;
    esac
done
for checker; do
    began=$SECONDS
    "run_$checker"
    printf '%s: %d s\n' "$checker" "$((SECONDS - began))"
done
printf '\nNothing was found.'
((${#skipped[@]} == 0)) || printf ' Skipped: %s.' "${skipped[*]}"
printf '\n'
