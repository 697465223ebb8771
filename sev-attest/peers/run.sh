#!/bin/sh
# What other verifiers of SEV-SNP reports say of real evidence and of the same evidence bent, beside
# what this one says: a Markdown table on standard output.
#
# Builds snpguest and the verifier inside aleph-sdk, of fixed versions, into $CRN_CACHE/peers, or
# $XDG_CACHE_HOME/crn/peers, or ~/.cache/crn/peers: half an hour of one core, once. Needs the packages
# libssl-dev, pkg-config, xxd and libfaketime (aleph-sdk's revocation list has to be in date).
# SEV_ATTEST names our program; without it, it is built.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CRN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/crn}/peers
version=0.11.0
snpguest=$cache/snpguest-$version/bin/snpguest
aleph=$cache/aleph/debug/peer-aleph
vectors=$root/sev-attest/tests/vectors
at=2026-08-18

if [ ! -x "$snpguest" ]; then
    echo "peers: building snpguest $version" >&2
    nice cargo install --quiet snpguest --version "$version" --locked --root "$cache/snpguest-$version"
fi
if [ ! -x "$aleph" ]; then
    echo "peers: building the verifier of aleph-sdk" >&2
    (cd "$here/aleph" && CARGO_TARGET_DIR=$cache/aleph nice cargo build --quiet --locked)
fi
if [ -z "${SEV_ATTEST:-}" ]; then
    (cd "$root" && cargo build --quiet --locked -p sev-attest)
    SEV_ATTEST=$root/target/debug/sev-attest
fi
faketime=$(find /usr/lib -name libfaketime.so.1 | head -n 1)
[ -n "$faketime" ] || { echo "peers: libfaketime is missing: apt-get install libfaketime" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

said() { if "$@" >/dev/null 2>&1; then echo accepts; else echo refuses; fi; }
byte() { xxd -p -s "$1" -l "$2" "$work/report.bin" | tr -d '\n'; }
# flips a bit of the byte at an offset
flip() {
    old=$(byte "$1" 1)
    printf '%02x' $((0x$old ^ 1)) | xxd -r -p | dd of="$work/report.bin" bs=1 seek="$1" conv=notrunc status=none
}

# row NAME PRODUCT REPORT VCEK COMMAND...: bends the report with the command
row() {
    name=$1 product=$2 report=$3 vcek=$4
    shift 4
    rm -rf "$work"/*
    mkdir -p "$work/certs" "$work/cache/aleph-sdk/kds/Milan"
    cp "$vectors/$report" "$work/report.bin"
    chmod u+w "$work/report.bin"
    "$@"
    cp "$vectors/$vcek" "$work/certs/vcek.der"
    chain=$root/sev-attest/src/roots/amd-$product-ask-ark.pem
    awk -v d="$work/certs" 'BEGIN { f = d "/ask.pem" } { print > f } /END CERT/ { f = d "/ark.pem" }' "$chain"
    ours=$(said "$SEV_ATTEST" verify "$work/report.bin" --certs "$work/certs" --offline --at ${at}T00:00:00Z)
    rival=$(said "$snpguest" verify attestation -p "$product" "$work/certs" "$work/report.bin")
    both=refuses
    if [ "$(said "$snpguest" verify certs "$work/certs")" = accepts ]; then both=$rival; fi
    other=-
    if [ "$product" = milan ]; then
        # the name that aleph-sdk's cache has for what the report claims
        tcb="$((0x$(byte 384 1)))_$((0x$(byte 385 1)))_$((0x$(byte 390 1)))_$((0x$(byte 391 1)))"
        kds=$work/cache/aleph-sdk/kds/Milan
        cp "$vectors/$vcek" "$kds/vcek_$(byte 416 64)_$tcb.der"
        cp "$root/sev-attest/tests/fetch/data/crl_milan.der" "$kds/crl.der"
        other=$(XDG_CACHE_HOME=$work/cache LD_PRELOAD=$faketime FAKETIME="@$at 00:00:00" TZ=UTC \
            said "$aleph" Milan "$work/report.bin")
    fi
    echo "| $name | $ours | $rival | $both | $other |"
}

milan=az-milan-v3-report.bin milan_vcek=az-milan-v3-vcek.der
echo "| real evidence | sev-attest | snpguest attestation | and certs | aleph-sdk |"
echo "|---|---|---|---|---|"
row "Milan, version 3" milan $milan $milan_vcek true
row "Milan, version 2" milan coco-milan-report.bin coco-milan-vcek.der true
row "Genoa" genoa az-genoa-report.bin az-genoa-vcek.der true
row "a signed byte changed" milan $milan $milan_vcek flip 144
row "a byte of r changed" milan $milan $milan_vcek flip 672
row "r longer than P-384's 48 bytes" milan $milan $milan_vcek flip 732
row "s longer than P-384's 48 bytes" milan $milan $milan_vcek flip 804
row "unsigned bytes after the signature set" milan $milan $milan_vcek flip 1024
row "cut by a byte" milan $milan $milan_vcek truncate -s 1183 "$work/report.bin"
row "a byte after the report" milan $milan $milan_vcek truncate -s 1185 "$work/report.bin"
row "VCEK of another chip" milan $milan coco-milan-vcek.der true
row "VCEK of no chain" milan coco-milan-report.bin coco-milan-vcek-invalid-new.der true
[ ! -e "$vectors/gsg-milan-debug-report.bin" ] ||
    row "guest that the host may debug" milan gsg-milan-debug-report.bin gsg-milan-debug-vcek.der true
