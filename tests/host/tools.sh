#!/bin/bash
# Prints the directory of cargo's additional programs. Where the machine has none, they are put
# into ~/.cache/crn-agent/tools once: as built by Astral for PyPI, held against a digest, or else
# compiled from crates.io, which takes some minutes.
#   tools.sh PROGRAM...      cargo-nextest, cargo-deny
set -euo pipefail
tools=${XDG_CACHE_HOME:-$HOME/.cache}/crn-agent/tools
declare -A version=([cargo-nextest]=0.9.148 [cargo-deny]=0.20.2)
declare -A digest=(
    [cargo-nextest]=76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968
    [cargo-deny]=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
)

# The wheel is an archive with the program in it: nothing of it runs here.
from_wheel() (
    [[ $(uname -m) == x86_64 ]] || return 1
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv" &&
        echo "astral-dev-toolchain-$1==${version[$1]} --hash=sha256:${digest[$1]}" >"$work/wanted" &&
        "$work/venv/bin/pip" --disable-pip-version-check download --quiet --no-deps \
            --only-binary :all: --require-hashes --dest "$work" --requirement "$work/wanted" &&
        python3 -m zipfile -e "$work"/*.whl "$work/wheel" &&
        install -D -m 755 "$work"/wheel/*.data/scripts/"$1" "$tools/bin/$1"
)

for program in "$@"; do
    PATH=$tools/bin:$PATH command -v "$program" >/dev/null && continue
    echo "tools: installing $program ${version[$program]} (once)" >&2
    mkdir -p "$tools"
    (
        flock 9
        [[ -x $tools/bin/$program ]] || from_wheel "$program" >&2 ||
            nice "${CARGO:-cargo}" install --quiet --locked \
                --root "$tools" --version "${version[$program]}" "$program" >&2
    ) 9>"$tools/lock"
done
echo "$tools/bin"
