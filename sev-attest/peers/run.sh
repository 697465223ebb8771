#!/bin/sh
# What other verifiers of SEV-SNP reports say of real evidence, of the same evidence bent, and of
# simulated evidence, beside what this one says: compared with tests/peers/outcomes.tsv, which
# PEERS_WRITE=1 writes anew, and printed as a Markdown table.
#
# Takes snpguest from rivals.sh and builds the verifier inside aleph-sdk, of a fixed version, into $CRN_CACHE/peers, or
# $XDG_CACHE_HOME/crn/peers, or ~/.cache/crn/peers: half an hour of one core, once. aleph-sdk knows AMD's
# roots only; for simulated evidence it is built a second time, with simulated.patch, which lets it take
# the root that it is given and changes nothing else. Needs the packages libssl-dev, pkg-config, patch
# and libfaketime (aleph-sdk's revocation list has to be in date).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CRN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/crn}/peers
sdk=aleph-sdk-0.22.0
aleph=$cache/aleph/debug/peer-aleph
simulated=$cache/aleph/debug/peer-aleph-simulated

say() { echo "peers: $*" >&2; }
die() { say "$*"; exit 1; }

eval "$("$here/rivals.sh")"
if [ ! -x "$aleph" ]; then
    say "building the verifier of aleph-sdk"
    (cd "$here/aleph" && CARGO_TARGET_DIR=$cache/aleph nice cargo build --quiet --locked)
fi
if [ ! -x "$simulated" ] || [ "$here/aleph/simulated.patch" -nt "$simulated" ]; then
    say "building it for simulated evidence"
    copy=$cache/aleph-simulated
    rm -rf "$copy"
    mkdir -p "$copy"
    source=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "$sdk" | head -n 1)
    [ -n "$source" ] || die "the source of $sdk is missing from cargo's registry: cd $here/aleph && cargo fetch"
    cp -r "$source" "$copy/sdk"
    patch --quiet -d "$copy/sdk" -p1 <"$here/aleph/simulated.patch"
    cp -r "$here/aleph/src" "$here/aleph/Cargo.lock" "$copy"
    { sed 's/^name = "peer-aleph"/name = "peer-aleph-simulated"/' "$here/aleph/Cargo.toml"
      printf '\n[patch.crates-io]\naleph-sdk = { path = "sdk" }\n'; } >"$copy/Cargo.toml"
    (cd "$copy" && CARGO_TARGET_DIR=$cache/aleph nice cargo build --quiet --offline)
    touch "$simulated"
fi
faketime=$(find /usr/lib -name libfaketime.so.1 | head -n 1)
[ -n "$faketime" ] || die "libfaketime is missing: apt-get install libfaketime"

cd "$root"
SNPGUEST=$SNPGUEST PEER_ALEPH=$aleph PEER_ALEPH_SIMULATED=$simulated LIBFAKETIME=$faketime \
    cargo test --quiet --locked -p sev-attest --test peers -- --ignored >&2
awk -F '\t' '
    { printf "| %s | %s | %s | %s | %s |\n", $1, $2, $4, $5, $6 }
    NR == 1 { print "|---|---|---|---|---|" }
' sev-attest/tests/peers/outcomes.tsv
