#!/bin/bash
# Parts programs from their debug information: DIR/PROGRAM is stripped, DIR/PROGRAM.debug has the
# rest, where debuggers find it by the link and the build id.
#   strip.sh DIR PROGRAM...
set -euo pipefail
cd "$1"
shift
for program in "$@"; do
    # Stripped before, and not built since.
    [[ ! $program.debug -nt $program ]] || continue
    objcopy --only-keep-debug --compress-debug-sections=zlib "$program" "$program.debug"
    chmod -x "$program.debug"
    # In a file of its own: cargo has hard links to the program.
    objcopy --strip-all --add-gnu-debuglink="$program.debug" "$program" "$program.new"
    mv "$program.new" "$program"
    touch "$program.debug"
    du --apparent-size -h "$program" "$program.debug"
done
