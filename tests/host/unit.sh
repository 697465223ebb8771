#!/bin/bash
# Runs the tests of the workspace, each in a process of its own with a time limit
# (.config/nextest.toml), and the examples in the documentation; then says what was skipped, and
# fails if that was not allowed.
#   unit.sh PROFILE [ARGUMENTS FOR CARGO]
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=$1
shift
tools=$(tests/host/tools.sh cargo-nextest)
export PATH=$PATH:$tools
cargo=${CARGO:-cargo}

CRN_SKIPS=$(mktemp)
export CRN_SKIPS
trap 'rm -f "$CRN_SKIPS"' EXIT

status=0
$cargo nextest run --profile "$profile" "$@" || status=$?
# nextest has no part in these.
$cargo test --quiet --doc "$@" || status=$?
tests/host/skips.sh "$CRN_SKIPS" || status=$?
exit "$status"
