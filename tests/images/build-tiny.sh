#!/bin/bash
# Prints the path of a disk image (QCOW2) whose guest is up in seconds: the kernel of the Debian
# image with the given static program as its only one.
#   build-tiny.sh INIT
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/images/disk.sh
. "$here/disk.sh"

init=${1:?usage: build-tiny.sh INIT}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/crn-agent
debian=$(dirname "$(CRN_IMAGE=built "$here/build-debian.sh")")

build() {
    local out=$1 work begun=$SECONDS
    work=$(mktemp -d "$cache/build.XXXXXX")
    # shellcheck disable=SC2064 # this very directory
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/tree/{dev,proc,sys,seed} "$work/root" "$work/result"
    install -m 755 "$init" "$work/tree/init"
    cp -r "$debian/modules" "$work/tree/modules"
    (cd "$work/tree" && find . | cpio --quiet -o -H newc) >"$work/root/initrd.img"
    cp "$debian/vmlinuz" "$work/root/vmlinuz"
    make_disk "$work/root" "$work" 64 'console=ttyS0,115200 quiet nokaslr mitigations=off'
    qemu-img convert -q -f raw -O qcow2 "$work/disk.raw" "$work/result/tiny.qcow2"
    rm -rf "$out"
    mv "$work/result" "$out"
    say "small guest built in $((SECONDS - begun)) s"
}

exec 9>"$cache/lock"
flock 9
key=$(cat "$here/build-tiny.sh" "$here/disk.sh" "$init" "$debian/vmlinuz" | sha256sum | cut -c 1-16)
out=$cache/tiny-$key
[[ -e $out/tiny.qcow2 ]] || build "$out"
echo "$out/tiny.qcow2"
