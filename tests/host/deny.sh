#!/bin/bash
# Holds what the product depends on against deny.toml. Licences, duplicates and sources need no
# network; advisories need their database: where it can't be had, that is said and counted.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(tests/host/tools.sh cargo-deny)
export PATH=$PATH:$tools
cargo=${CARGO:-cargo}

$cargo deny --locked check --hide-inclusion-graph licenses bans sources
if timeout 120 $cargo deny --locked fetch db 2>/dev/null; then
    $cargo deny --locked check --disable-fetch advisories
else
    echo "skipped   1 x advisories: their database cannot be had from here"
fi
