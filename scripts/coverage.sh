#!/usr/bin/env bash
# How much of the code that reads a log's bytes the fuzzing corpus reaches, on stable Rust: regions
# and lines of each file, then every line that no input reaches. Needs the component llvm-tools.
# Optional arguments: other folders or files of src/ than src/layout and src/recovery.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
if [[ ! -x $tools/llvm-cov ]] && ! rustup component add llvm-tools; then
    echo 'coverage.sh: llvm-tools is missing: rustup component add llvm-tools' >&2
    exit 1
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/coverage"
profiles=$CARGO_TARGET_DIR/profiles
rm -rf "$profiles"
# Not optimised, so that regions are what the source says; the build scripts' profiles go there too.
export RUSTFLAGS='-Cinstrument-coverage' LLVM_PROFILE_FILE="$profiles/%p-%m.profraw"
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_TEST_OPT_LEVEL=0
build=(cargo test --manifest-path fuzz/Cargo.toml --no-default-features --locked --test corpus)
"${build[@]}" --no-run
test=$("${build[@]}" --no-run 2>&1 | sed -n 's/^  Executable .*(\(.*\))$/\1/p')
[[ $test == /* ]] || test=fuzz/$test
rm -rf "$profiles"
(cd fuzz && "$test" --quiet)
"$tools/llvm-profdata" merge --sparse --output "$profiles/all" "$profiles"/*.profraw

sources=("$@")
((${#sources[@]})) || sources=(src/layout src/recovery)
sources=("${sources[@]/#/$PWD/}")
of=(--instr-profile "$profiles/all" "$test" --sources "${sources[@]}")
printf '\n%-28s %8s %8s %9s\n' file regions missed covered
"$tools/llvm-cov" export --summary-only --format=text "${of[@]}" | sed 's/{"filename"/\n&/g' |
    sed -nE 's|.*"filename":"([^"]*)".*"regions":\{"count":(.*),"covered":([0-9]+).*|\1 \2 \3|p' |
    awk -v root="$PWD/" '
        function row(name, all, got) {
            printf "%-28s %8d %8d %8.2f%%\n", name, all, all - got, all ? 100 * got / all : 100
        }
        { sub(root, "", $1); row($1, $2, $3); all += $2; got += $3 }
        END { row("in all", all, got) }'
printf '\nLines that no input reaches:\n'
"$tools/llvm-cov" export --format=lcov "${of[@]}" | awk -F '[:,]' -v root="$PWD/" '
    $1 == "SF" { file = $2; sub(root, "", file) }
    $1 == "DA" && $3 == 0 { printf "  %s:%d: ", file, $2
        for (n = 0; n < $2 && (getline text < (root file)) > 0; n++) {}
        close(root file); sub(/^ */, "", text); print text }'
