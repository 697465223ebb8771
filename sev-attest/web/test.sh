#!/bin/sh
# Builds the page and drives it in a real Chromium (Debian's chromium and chromium-driver): what it
# says of reports is what the command says. SEV_ATTEST_SCREENSHOTS=DIR keeps pictures of it. So with the
# npm package, which has the page's WebAssembly, in Node and Chromium, and with the Python wheel.
# Arguments choose packages and features for cargo, as those that are compiled anyway.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
for tool in chromium chromedriver; do
    command -v "$tool" >/dev/null || { echo "web: $tool is missing: apt-get install chromium chromium-driver" >&2; exit 1; }
done
"$here/build.sh"
cd "$root"
cargo=${CARGO:-cargo}
[ $# -gt 0 ] || set -- -p sev-attest -p sev-attest-web
$cargo build --quiet --locked "$@" --bin sev-attest
target=$($cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
export SEV_ATTEST_BIN=$target/debug/sev-attest
"$here/../npm/test.sh" --built
"$here/../python/test.sh"
SEV_ATTEST_WEB_DIST=$here/dist SEV_ATTEST_NPM_DIST=$here/../npm/dist exec $cargo test --locked "$@" --test browser -- --ignored
