#!/bin/sh
# Makes the npm package from the WebAssembly of the page: sev-attest/npm/dist, ready for `npm publish`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
dist=$here/dist
page=$root/sev-attest/web/dist
# `make web` has just built it; --built says so
[ "${1:-}" = --built ] && [ -f "$page/verify.js" ] || "$root/sev-attest/web/build.sh"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
grep -q "\"version\": \"$version\"" "$here/package.json" ||
    { echo "npm: package.json is not of version $version" >&2; exit 1; }
rm -rf "$dist"
mkdir -p "$dist"
cp "$here/package.json" "$here/index.js" "$here/index.d.ts" "$here/README.md" \
    "$root/LICENSE-MIT" "$root/LICENSE-APACHE" "$dist/"
sed 's/^globalThis.SEV_ATTEST_WASM = /export default /' "$page/verify.js" >"$dist/wasm.js"
grep -q '^export default "' "$dist/wasm.js" || { echo "npm: $page/verify.js is not as expected" >&2; exit 1; }
