#!/bin/bash
# Runs every benchmark of the workspace, each beside what one would use otherwise, and writes
# docs/benchmarks.md with the machine's description. For numbers that mean something: an idle machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=docs/benchmarks.md
new=$(mktemp)
trap 'rm -f "$new"' EXIT

say() { echo "bench: $*" >&2; }

# Tables as they are, anything else as a block.
section() {
    local title=$1 text
    shift
    say "$title"
    text=$("$@")
    printf '\n## %s\n\n' "$title"
    if grep -q '^|--' <<<"$text"; then echo "$text"; else printf '```text\n%s\n```\n' "$text"; fi
}

rivals=$(sev-attest/peers/rivals.sh)
eval "$rivals"
export SNPGUEST SEV_SNP_MEASURE

cargo build --quiet --release --package crn-agent
export CRN_TEST_AGENT=$PWD/target/release/crn-agent

example() { cargo run --quiet --release --package "$1" --example "$2"; }
rows() {
    local model memory
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
    memory=$(awk '/^MemTotal:/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
    printf '| %s | %s |\n' \
        processor "$(nproc) x $model" memory "$memory" kernel "$(uname -r)" \
        QEMU "$(qemu-system-x86_64 --version | head -1)" nftables "$(nft --version)" \
        "load before the run" "$(cut -d ' ' -f 1 /proc/loadavg)"
}

{
    printf '# Benchmarks\n\nWritten by `make bench` from one run. Each number stands beside its rival'"'"'s, on the same data.\n'
    printf '\n| machine | |\n|---|---|\n'
    rows
    section "Disks, images and seeds" example disk bench_disk
    section "Network" example net bench_net
    section "Launch digests" example sev-attest bench_measure
    section "Verification of reports" example sev-attest bench_verify
    section "The agent" cargo bench --quiet --package tests --bench agent
} >"$new"
cp "$new" "$out"
cat "$out"
