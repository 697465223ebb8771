#!/bin/bash
# Prints the path of OVMF.amdsev.fd: the build of OVMF that measures kernel, initial RAM disk and
# command line. Of Debian's suites sid alone has it; the package is unpacked into the cache and
# never installed, from the mirror that this machine's apt uses. Status 1 and a word where it
# cannot be had.
set -euo pipefail

die() { echo "ovmf-amdsev: $*" >&2; exit 1; }

cache=${XDG_CACHE_HOME:-$HOME/.cache}/crn-agent
out=$cache/ovmf-amdsev
file=$out/usr/share/ovmf/OVMF.amdsev.fd
mkdir -p "$cache"
exec 9>"$cache/ovmf-amdsev.lock"
flock 9
if [[ ! -e $file ]]; then
    # shellcheck disable=SC2016 # apt's own variable
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
        grep -m 1 '/debian/*$') || die "apt knows no Debian mirror"
    work=$(mktemp -d "$cache/ovmf.XXXXXX")
    # shellcheck disable=SC2064 # this very directory
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/{lists/partial,archives/partial,root}
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $site sid main" >"$work/sources.list"
    : >"$work/status"
    private=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status"
        -o "Dir::Cache=$work" -o Acquire::Languages=none -o APT::Sandbox::User=root)
    apt-get "${private[@]}" update >"$work/log" 2>&1 || die "$(grep -m 1 '^E:' "$work/log")"
    (cd "$work" && apt-get "${private[@]}" download ovmf-amdsev) >"$work/log" 2>&1 ||
        die "$(grep -m 1 '^E:' "$work/log")"
    dpkg-deb -x "$work"/*.deb "$work/root"
    [[ -e $work/root/usr/share/ovmf/OVMF.amdsev.fd ]] || die "the package has no OVMF.amdsev.fd"
    rm -rf "$out"
    mv "$work/root" "$out"
fi
echo "$file"
