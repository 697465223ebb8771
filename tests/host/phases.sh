#!/bin/bash
# Runs each named target of the Makefile in turn, stops at the first that fails,
# and says at the end how long each took.
set -euo pipefail
cd "$(dirname "$0")/../.."

times=()
summary() {
    local status=$?
    printf '\n'
    printf 'phase %-12s %5d s\n' "${times[@]}"
    ((status == 0)) && echo "all phases passed in $SECONDS s" || echo "failed after $SECONDS s"
}
trap summary EXIT

for phase in "$@"; do
    echo "== $phase"
    start=$SECONDS status=0
    make --no-print-directory "$phase" || status=$?
    times+=("$phase" $((SECONDS - start)))
    ((status == 0)) || exit "$status"
done
