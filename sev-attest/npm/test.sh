#!/bin/sh
# Makes the npm package and holds it against the command in SEV_ATTEST_BIN, in Node. Arguments are build.sh's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
command -v node >/dev/null || { echo "npm: node is missing: apt-get install nodejs" >&2; exit 1; }
"$here/build.sh" "$@"
# what an editor and a compiler make of the types
if command -v tsc >/dev/null; then
    tsc --noEmit --strict --target es2022 --module node16 "$here/test/types.ts"
else
    echo "npm: tsc is missing: apt-get install node-typescript" >&2
    exit 1
fi
exec node --test "$here/test/cases.test.js"
