#!/bin/sh
# Installs the programs that the benchmarks stand beside, of fixed versions, into $CRN_CACHE/peers, or
# $XDG_CACHE_HOME/crn/peers, or ~/.cache/crn/peers: minutes, once. Prints where they are, as assignments
# for a shell. Needs cargo, python3-venv and libssl-dev.
set -eu

cache=${CRN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/crn}/peers
snpguest=$cache/snpguest-0.11.0
measure=$cache/sev-snp-measure-0.0.13

say() { echo "rivals: $*" >&2; }

if [ ! -x "$snpguest/bin/snpguest" ]; then
    say "building snpguest ${snpguest##*-}"
    nice cargo install --quiet snpguest --version "${snpguest##*-}" --locked --root "$snpguest" >&2
fi
if [ ! -x "$measure/bin/sev-snp-measure" ]; then
    say "installing sev-snp-measure ${measure##*-}"
    # Debian's Python, whatever else is first on the PATH.
    /usr/bin/python3 -m venv --clear "$measure"
    "$measure/bin/pip" --quiet --disable-pip-version-check install "sev-snp-measure==${measure##*-}" >&2
fi
echo "SNPGUEST='$snpguest/bin/snpguest'"
echo "SEV_SNP_MEASURE='$measure/bin/sev-snp-measure'"
