#!/usr/bin/env bash
# crash.sh [N [SEED]]: recovers N images (default 300000; a night's worth is 1000000) of what
# crashes may leave, of random histories from a seed that it prints, a new one by default; a failure
# prints the command that replays it. Optional: KAELIX_SEED, and KAELIX_IMAGE for one image of that
# history.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export KAELIX_IMAGES="${1:-300000}"
export KAELIX_SEED="${KAELIX_SEED:-${2:-$(date +%s)}}"

printf 'Histories from seed %s on.\n' "$KAELIX_SEED"
cargo test --release --locked --package kaelix-wal --features simulation --test crash_images \
    -- --nocapture images_of_random_histories
