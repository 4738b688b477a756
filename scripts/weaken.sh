#!/usr/bin/env bash
# Weakens each memory ordering of the shipped code in turn, and breaks the code in other ways, in a
# copy; each time a model must fail. Needs python3. See the head of scripts/weaken.py.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v python3 >/dev/null || { echo 'weaken.sh: python3 is missing' >&2; exit 1; }
exec python3 scripts/weaken.py "$@"
