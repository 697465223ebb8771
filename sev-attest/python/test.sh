#!/bin/sh
# Builds the Python wheel with maturin and holds it against the command in SEV_ATTEST_BIN, installed in an
# environment of its own. `--release` keeps the wheel as it is published, in sev-attest/python/dist.
# maturin comes from PyPI, once, into $CRN_CACHE/python, or $XDG_CACHE_HOME/crn/python, or ~/.cache/crn/python.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${CRN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/crn}/python
version=1.16.0
maturin=$cache/maturin-$version
# Debian's Python, whatever else is first on the PATH.
python=/usr/bin/python3

if [ ! -x "$maturin/bin/maturin" ]; then
    echo "python: installing maturin $version (once)" >&2
    rm -rf "$maturin.new" "$maturin"
    $python -m venv "$maturin.new"
    "$maturin.new/bin/pip" --quiet --disable-pip-version-check install "maturin==$version"
    # a venv's scripts know its path, maturin is a program
    mv "$maturin.new" "$maturin"
fi

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$maturin/bin/maturin" build --quiet --locked --manifest-path "$here/Cargo.toml" --out "$place" "$@"
$python -m venv "$place/venv"
"$place/venv/bin/pip" --quiet --disable-pip-version-check install --no-index "$place"/*.whl
"$place/venv/bin/python" -m unittest discover --start-directory "$here/tests"
case " $* " in
*" --release "*)
    mkdir -p "$here/dist"
    cp "$place"/*.whl "$here/dist/"
    ls -l "$here/dist"
    ;;
esac
