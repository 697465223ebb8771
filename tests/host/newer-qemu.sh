#!/bin/bash
# Prints a directory in which, as its root, QEMU of trixie-backports runs: newer than this
# machine's own. Made once from the mirror that this machine's apt uses (root, mmdebstrap; 20 s)
# and cached. Status 1 and a word where it cannot be had.
set -euo pipefail

die() { echo "newer QEMU: $*" >&2; exit 1; }

cache=${XDG_CACHE_HOME:-$HOME/.cache}/crn-agent
out=$cache/qemu-trixie-backports
mkdir -p "$cache"
exec 9>"$cache/newer-qemu.lock"
flock 9
if [[ ! -x $out/usr/bin/qemu-system-x86_64 ]]; then
    ((EUID == 0)) || die "needs root"
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing"
    # shellcheck disable=SC2016 # apt's own variable
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
        grep -m 1 '/debian/*$') || die "apt knows no Debian mirror"
    work=$(mktemp -d "$cache/newer-qemu.XXXXXX")
    # shellcheck disable=SC2064 # this very directory
    trap "rm -rf --one-file-system '$work'" EXIT
    signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
    mmdebstrap --quiet --variant=minbase --include=qemu-system-x86 \
        --aptopt='APT::Default-Release "trixie-backports"' trixie "$work/root" \
        "deb $signed $site trixie main" "deb $signed $site trixie-backports main" \
        >"$work/log" 2>&1 </dev/null || die "mmdebstrap failed: $(grep -m 1 "^E:" "$work/log")"
    mv "$work/root" "$out"
fi
echo "$out"
