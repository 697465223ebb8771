#!/bin/bash
# Prints the path of a Debian 12 cloud image (QCOW2, cloud-init, BIOS and UEFI), made if it is not
# in the cache yet.
#   CRN_IMAGE=built      built from Debian's packages (the default: tests want one boot speed)
#   CRN_IMAGE=official   the distribution's own, downloaded and checked against its sums
#   CRN_IMAGE=auto       the official one where it can be reached, else built
# With the argument `node` it is an image of a host, with what a node of this project needs besides.
# Beside a built image stand its kernel and modules, which the small guest uses.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/images/disk.sh
. "$here/disk.sh"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/crn-agent
site=https://cloud.debian.org/images/cloud/bookworm/latest
official=debian-12-genericcloud-amd64.qcow2

# The official one is not trimmed: its first boot takes longer.
download_official() {
    local dir=$cache/official
    [[ -e $dir/$official ]] && return
    mkdir -p "$dir"
    curl -fsSL --connect-timeout 3 --max-time 20 -o "$dir/sums" "$site/SHA512SUMS" || return
    say "downloading $official"
    curl -fL --connect-timeout 5 --retry 3 -C - --progress-bar -o "$dir/part" "$site/$official" ||
        return
    local sum
    sum=$(awk -v name="$official" '$2 == name { print $1 }' "$dir/sums")
    if ! sha512sum --status -c <<<"$sum  $dir/part"; then
        rm -f "$dir/part"
        say "the download does not have the sum that its publisher gives"
        return 1
    fi
    mv "$dir/part" "$dir/$official"
}

# Sources for bookworm on the mirrors that this machine uses.
sources() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' |
        awk -v host="$(. /etc/os-release; echo "$VERSION_CODENAME")" -v node="${1:-}" '
            $2 != "main" { next }
            $1 == host && !main { main = $3 }
            $1 == host "-security" && !security { security = $3 }
            END {
                if (!main) exit 1
                print "deb", main, "bookworm main"
                print "deb", main, "bookworm-updates main"
                if (security) print "deb", security, "bookworm-security main"
                if (node) print "deb", main, "bookworm-backports main"
            }'
}

packages=(
    linux-image-cloud-amd64 initramfs-tools zstd systemd-sysv dbus libpam-systemd
    cloud-init cloud-guest-utils openssh-server qemu-guest-agent
    netplan.io systemd-resolved iproute2 iputils-ping netbase
    e2fsprogs ca-certificates procps sudo less vim-tiny apt-utils
)

# What README's set-up installs on a host.
node_packages=({qemu-system-{x86,common,data},seabios}/bookworm-backports nftables)

# What differs from a plain installation: speed of the first boot, and no identity of its own.
customize() {
    local root=$1
    # Under emulation each second of the boot counts: no search for other clouds, keys of two kinds.
    cat >"$root/etc/cloud/cloud.cfg.d/90_image.cfg" <<CFG
datasource_list: [NoCloud, ConfigDrive, None]
ssh_genkeytypes: [ed25519, ecdsa]
apt_preserve_sources_list: true
CFG
    echo 'LABEL=cloudimg-root / ext4 rw,discard,errors=remount-ro 0 1' >"$root/etc/fstab"
    echo 'LANG=C.UTF-8' >"$root/etc/default/locale"
    # Each instance makes its own.
    rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
    : >"$root/etc/machine-id"
    echo localhost >"$root/etc/hostname"
    rm -f "$root/etc/resolv.conf"
    ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
    ln -sf /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"
    for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all fstrim; do
        rm -f "$root/etc/systemd/system/timers.target.wants/$timer.timer"
    done
    chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved serial-getty@ttyS0
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* \
        "$root"/var/log/*.log "$root"/var/log/apt "$root"/usr/share/locale/*
}

# The modules that a guest on virtio needs, numbered in the order in which to load them.
export_modules() {
    local root=$1 out=$2 release file count=10
    release=$(ls "$root/lib/modules")
    mkdir "$out"
    for module in virtio_pci virtio_blk virtio_net isofs button evdev; do
        chroot "$root" modprobe --set-version "$release" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        cp "$root$file" "$out/$count-$(basename "$file")"
        count=$((count + 1))
    done
}

build() {
    local out=$1 node=$2 work
    [[ -z $node ]] || packages+=("${node_packages[@]}")
    work=$(mktemp -d "$cache/build.XXXXXX")
    # shellcheck disable=SC2064 # this very directory
    trap "rm -rf '$work'" EXIT
    local begun=$SECONDS root=$work/root mib=2048
    [[ -z $node ]] || mib=3072
    say "building Debian 12${node:+, with QEMU,} from packages (once; some minutes)"
    sources "$node" >"$work/sources" || { say "no Debian source is configured on this machine"; exit 1; }
    # The initramfs holds what the disk needs and nothing else: it is read by emulated firmware.
    cat >"$work/initramfs.sh" <<'HOOK'
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
printf 'MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n' >"$1/etc/initramfs-tools/conf.d/image"
cat >"$1/etc/initramfs-tools/hooks/image" <<'SCRIPT'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk virtio_scsi sd_mod ext4 crc32c_generic crc32c_intel
SCRIPT
chmod +x "$1/etc/initramfs-tools/hooks/image"
HOOK
    local include
    include=$(IFS=,; echo "${packages[*]}")
    mmdebstrap --mode=root --variant=minbase --quiet \
        --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --include="$include" --essential-hook="sh $work/initramfs.sh \"\$1\"" \
        bookworm "$root" "$work/sources" >"$work/log" 2>&1 </dev/null ||
        { cat "$work/log" >&2; say "mmdebstrap failed"; exit 1; }
    say "packages installed after $((SECONDS - begun)) s"
    customize "$root"

    mkdir "$work/result"
    cp -L "$root/vmlinuz" "$work/result/vmlinuz"
    export_modules "$root" "$work/result/modules"

    make_disk "$root" "$work" "$mib" 'console=tty0 console=ttyS0,115200'
    qemu-img convert -q -c -f raw -O qcow2 "$work/disk.raw" "$work/result/debian-12.qcow2"
    rm -rf "$out"
    mv "$work/result" "$out"
    say "built in $((SECONDS - begun)) s: $out/debian-12.qcow2"
}

main() {
    local node=${1:-}
    mkdir -p "$cache"
    # One builder at a time; the others find its work.
    exec 9>"$cache/lock"
    flock 9
    case ${node:-${CRN_IMAGE:-built}} in
        official | auto)
            if download_official; then
                echo "$cache/official/$official"
                return
            fi
            [[ $CRN_IMAGE == auto ]] || { say "the official image cannot be had"; exit 1; }
            say "Debian's own cloud image cannot be reached"
            ;;
        built | node) ;;
        *) say "CRN_IMAGE is built, official or auto; the one argument is node"; exit 1 ;;
    esac
    local key out
    key=$(cat "$here/build-debian.sh" "$here/disk.sh" | sha256sum | cut -c 1-16)
    out=$cache/debian-12${node:+-$node}-$key
    [[ -e $out/debian-12.qcow2 ]] || build "$out" "$node"
    echo "$out/debian-12.qcow2"
}
main "$@"
