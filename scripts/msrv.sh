#!/usr/bin/env bash
# Checks the oldest supported Rust, as Cargo.toml states it: with that toolchain where rustup has
# it, else as far as clippy can tell.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

msrv=$(sed -n 's/^rust-version = "\([0-9.]*\)"$/\1/p' Cargo.toml)
if [[ -z $msrv ]]; then
    echo 'msrv.sh: Cargo.toml states no rust-version' >&2
    exit 1
fi

toolchain=
if command -v rustup >/dev/null; then
    toolchain=$(rustup toolchain list | awk -v msrv="$msrv" '
        $1 == msrv || index($1, msrv "-") == 1 || index($1, msrv ".") == 1 { found = $1 }
        END { print found }')
fi

if [[ -n $toolchain ]]; then
    echo "Checking everything with Rust $msrv ($toolchain)."
    rustup run "$toolchain" cargo check --workspace --all-targets --locked
else
    echo "Rust $msrv is not installed. Only what is used of the standard library is checked, by"
    echo "clippy; the language and the dependencies are not. For the whole check:"
    echo "    rustup toolchain install $msrv --profile minimal"
    cargo clippy --workspace --all-targets --locked -- -D clippy::incompatible_msrv
fi
