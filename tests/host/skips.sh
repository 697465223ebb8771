#!/bin/bash
# Holds the record of skipped tests (see tests/skip) against the list of those that may be:
# prints how many were skipped of each kind; fails when one is not allowed.
#   skips.sh RECORD
set -euo pipefail
list=$(dirname "$0")/../skips.txt
touch "$1"

unexpected=$(awk -F '\t' '
    NR == FNR { if (!/^#/ && NF) { split($0, w, " +"); allowed[w[1]] = 1 } next }
    { count[$1]++; why[$1] = $3; if (!($1 in allowed)) bad[$1] = bad[$1] "\n    " $2 ": " $3 }
    END {
        for (what in count) printf "skipped %3d x %s: %s\n", count[what], what, why[what] >"/dev/stderr"
        for (what in bad) printf "skipped though tests/skips.txt does not allow it: %s%s\n", what, bad[what]
    }' "$list" "$1")
[[ -z $unexpected ]] || { echo "$unexpected" >&2; exit 1; }
