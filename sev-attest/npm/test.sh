#!/bin/sh
# Makes the npm package and holds it against the command in SEV_ATTEST_BIN, in Node. Arguments are build.sh's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
command -v node >/dev/null || { echo "npm: node is missing: apt-get install nodejs" >&2; exit 1; }
"$here/build.sh" "$@"
exec node --test "$here/test/cases.test.js"
