#!/bin/bash
# Prints the directory of cargo's additional programs, which it installs from crates.io once, into
# ~/.cache/crn-agent/tools, where the machine has none.
#   tools.sh PROGRAM...      cargo-nextest, cargo-deny
set -euo pipefail
tools=${XDG_CACHE_HOME:-$HOME/.cache}/crn-agent/tools
declare -A version=([cargo-nextest]=0.9.143 [cargo-deny]=0.20.2)

for program in "$@"; do
    PATH=$tools/bin:$PATH command -v "$program" >/dev/null && continue
    echo "tools: installing $program ${version[$program]} (some minutes, once)" >&2
    mkdir -p "$tools"
    (
        flock 9
        [[ -x $tools/bin/$program ]] || nice "${CARGO:-cargo}" install --quiet --locked \
            --root "$tools" --version "${version[$program]}" "$program" >&2
    ) 9>"$tools/lock"
done
echo "$tools/bin"
