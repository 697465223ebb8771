#!/bin/bash
# Installs what a fresh Debian machine with cargo lacks to build, test and run crn-agent.
# Idempotent: with nothing missing it changes nothing and ends within a second.
#   setup.sh          everything that `make test` needs
#   setup.sh --run    only what `make run` needs (no browser, no readers of the seed)
#   setup.sh --bench  what `make bench` needs: also what its rivals are built with
set -Eeuo pipefail

# The oldest QEMU that has SEV-SNP.
QEMU_MIN=9.1

run_packages=(
    # building: the linker of cargo, and the bundled SQLite
    gcc libc6-dev pkg-config make ca-certificates
    # the host of the VMs
    qemu-utils ovmf nftables iproute2 curl cpio
    # the guest image
    mmdebstrap debian-archive-keyring e2fsprogs xfsprogs fdisk dosfstools mtools
    # the person at the other end
    openssh-client procps util-linux
)
test_packages=(
    # compressed images, as publishers make them
    gzip bzip2 xz-utils zstd
    # the neighbour that asks whether a guest is there
    iputils-ping
    # readers of the seed that share no code with ours, and the benchmark's rival
    genisoimage xorriso cloud-image-utils
    # cloud-init's own modules are run on what we write
    python3 python3-venv python3-yaml python3-jsonschema python3-jsonpatch python3-requests
    python3-configobj python3-jinja2 python3-netifaces python3-oauthlib python3-serial
    # web pages
    chromium chromium-driver
    # the npm package of the verifier
    nodejs node-typescript
)
bench_packages=(libssl-dev)

packages=("${run_packages[@]}")
[[ ${1:-} == --run ]] || packages+=("${test_packages[@]}")
[[ ${1:-} != --bench ]] || packages+=("${bench_packages[@]}")

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }
# No end without a word.
trap 'echo "setup: line $LINENO: $BASH_COMMAND: status $?" >&2' ERR

SUDO=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || die "installing packages needs root, and there is no sudo"
    SUDO=(sudo)
fi

# shellcheck source=/dev/null
. /etc/os-release
[[ ${ID:-} == debian || " ${ID_LIKE:-} " == *" debian "* ]] ||
    die "this script knows Debian; elsewhere install these yourself: qemu-system-x86 (>= $QEMU_MIN) ${packages[*]}"

# One query for all: names of those that are not installed.
missing() {
    local installed
    installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null |
        awk '$1 ~ /^.i$/ { print $2 }') || true
    comm -23 <(printf '%s\n' "$@" | sort -u) <(sort -u <<<"$installed")
}

# Nothing where dpkg has never heard of it.
qemu_installed() {
    { dpkg-query -W -f '${db:Status-Abbrev} ${Version}' qemu-system-x86 2>/dev/null || true; } |
        awk '$1 ~ /^.i$/ { print $2 }'
}
qemu_suffices() { [[ -n $1 ]] && dpkg --compare-versions "$1" ge "1:$QEMU_MIN"; }
# The newest version that the configured sources have, and the suite that has it.
qemu_on_offer() {
    apt-cache madison qemu-system-x86 | awk '{ sub("/.*", "", $6); print $3, $6 }' | sort -rV | head -1
}

have_lists() { compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; }

# Runs apt-get with its output in a log and its progress here.
apt_get() {
    local log status=0
    log=$(mktemp)
    {
        "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q \
            -o DPkg::Lock::Timeout=900 -o Dpkg::Use-Pty=0 -o APT::Status-Fd=3 "$@" \
            </dev/null 3>&1 >&4 2>&4 | progress
    } 4>"$log" || status=$?
    if ((status)); then
        cat "$log" >&2
        rm -f "$log"
        die "apt-get $* failed"
    fi
    rm -f "$log"
}

# Reads apt's status lines: a bar on a terminal, quarters elsewhere.
progress() {
    local kind percent last=-1
    while IFS=: read -r kind _ percent _; do
        case $kind in dlstatus | pmstatus) ;; *) continue ;; esac
        [[ $kind == dlstatus ]] && kind=download || kind=install
        percent=${percent%%.*}
        [[ $percent =~ ^[0-9]+$ ]] || continue
        if [[ -t 1 ]]; then
            printf '\rsetup: %-8s %3d%% [%-25s]\033[K' "$kind" "$percent" \
                "$(printf '%*s' $((percent / 4)) '' | tr ' ' '#')"
        elif ((percent / 25 != last)); then
            last=$((percent / 25))
            echo "setup: $kind $percent%"
        fi
    done
    [[ -t 1 ]] && printf '\r\033[K'
    return 0
}

updated=
# Once is enough, unless a source was added.
update() {
    [[ -z $updated || ${1:-} == again ]] || return 0
    say "reading package lists"
    apt_get update
    updated=yes
}

# The mirror that this machine already uses, whatever file and format names it.
add_backports() {
    local codename=$VERSION_CODENAME uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    # shellcheck disable=SC2016 # apt's own variables
    uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' \
        'Identifier: Packages' |
        awk -v want="$codename" '$1 == want && $2 == "main" { print $3 }' | head -1)
    [[ -n $uri ]] ||
        die "no source of $codename/main is configured: where would backports come from?"
    say "adding $codename-backports, from the mirror of $codename"
    "${SUDO[@]}" tee /etc/apt/sources.list.d/crn-agent-backports.sources >/dev/null <<SOURCE
# Added by crn-agent's set-up: QEMU $QEMU_MIN or newer.
Types: deb
URIs: $uri
Suites: $codename-backports
Components: main
$([[ ! -e $keyring ]] || echo "Signed-By: $keyring")
SOURCE
    update again
}

main() {
    local wanted qemu suite start=$SECONDS
    mapfile -t wanted < <(missing "${packages[@]}")
    qemu=$(qemu_installed)
    # Tests fetch single packages: the lists must be there even with everything installed.
    have_lists || update
    if ! qemu_suffices "$qemu"; then
        update
        read -r qemu _ < <(qemu_on_offer) || true
        qemu_suffices "$qemu" || add_backports
        read -r qemu suite < <(qemu_on_offer) || true
        qemu_suffices "$qemu" ||
            die "QEMU $QEMU_MIN or newer is needed; the sources offer ${qemu:-none}"
        mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | grep -vx qemu-utils)
        # All of one suite, what they depend on too: QEMU refuses an older SeaBIOS.
        install --target-release "$suite" "qemu-system-x86=$qemu" "qemu-utils=$qemu"
    elif ((${#wanted[@]})) && ! apt-get -s -q --no-install-recommends install "${wanted[@]}" \
        >/dev/null 2>&1; then
        update
    fi
    ((${#wanted[@]} == 0)) || install "${wanted[@]}"
    ((SECONDS - start < 2)) || say "done in $((SECONDS - start)) s"
}

install() {
    say "installing $*"
    apt_get --no-install-recommends install "$@"
}

# Two at once would both find the same things missing.
exec 9>"${TMPDIR:-/tmp}/crn-agent-setup.$EUID.lock"
flock 9
main
