#cloud-boothook
#!/bin/sh
# The agent's volumes: file systems, mounts and lines of fstab, made true at every boot.
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
nl='
'
# A line of fstab is the agent's by its mark, or as the agent wrote lines before they had one.
mark=comment=crn-agent
h='[0-9a-f]'
serial=$h$h$h$h$h$h$h$h$h$h$h$h$h$h$h$h
ours() {
    case ,$2, in *,$mark,*) return 0 ;; esac
    case $1 in
    /dev/disk/by-id/virtio-$serial | /dev/disk/by-id/virtio-$serial-part1) ;;
    *) return 1 ;;
    esac
    case ,$2, in
    *,x-systemd.growfs,*) return 0 ;;
    esac
    return 1
}
marked() {
    case ,$1, in *,$mark,*) return 0 ;; esac
    return 1
}
# The kernel's name of a source in fstab, if it is a disk that is there.
block() {
    case $1 in
    *=*) findfs "$(printf %s "$1" | tr -d '"')" 2>/dev/null ;;
    /dev/*) [ ! -b "$1" ] || readlink -f "$1" ;;
    esac
}
# What is mounted at a place, and its type.
source_at() { awk -v at="$1" '$2 == at { found = $1 } END { print found }' /proc/mounts; }
type_at() { awk -v at="$1" '$2 == at { found = $3 } END { print found }' /proc/mounts; }

wanted=
patience=50
# volume DISK MOUNT TYPE: a disk with nothing at all on it (status 2 of blkid) gets a file system;
# a blkid that is missing or too old formats nothing.
volume() {
    while [ ! -b "$1" ] && [ "$patience" -gt 0 ]; do
        patience=$((patience - 1))
        sleep 0.1
    done
    disk=$1
    if [ -b "$1" ]; then
        blkid -p "$1" >/dev/null 2>&1
        if [ $? -eq 2 ]; then
            case $3 in
            ext4) mkfs.ext4 -q -F "$1" ;;
            *) "mkfs.$3" -q -f "$1" ;;
            esac || echo "crn-agent: $1 for $2 has no file system: mkfs.$3 failed or is not here" >&2
        elif [ -b "$1-part1" ]; then
            disk=$1-part1
        fi
    fi
    wanted="$wanted$disk $2$nl"
}
# The disk that belongs at a place, or nothing.
disk_for() { printf %s "$wanted" | awk -v at="$1" '$2 == at { print $1 }'; }

# fstab without the agent's lines that are not right any more, and with those that are missing.
# Somebody else's line for a volume's place is made a comment, unless it mounts that volume.
settle() {
    new=/etc/.fstab.crn-agent
    [ -e /etc/fstab ] || : >/etc/fstab
    cp -p /etc/fstab "$new" || return
    : >"$new"
    stale= have=' ' changed=
    while IFS= read -r line || [ -n "$line" ]; do
        set -f
        set -- $line
        set +f
        case ${1-} in
        '' | '#'*) printf '%s\n' "$line" >>"$new"; continue ;;
        esac
        disk=$(disk_for "${2-}")
        if ours "$1" "${4-}"; then
            case $have in *" $2 "*) again=1 ;; *) again= ;; esac
            if [ "$1" = "$disk" ] && marked "$4" && [ -z "$again" ]; then
                have="$have$2 "
                printf '%s\n' "$line" >>"$new"
            else
                [ "$1" = "$disk" ] || stale="$1 $2$nl$stale"
                changed=1
            fi
        elif [ -z "$disk" ]; then
            printf '%s\n' "$line" >>"$new"
        elif [ -n "$(block "$1")" ] && [ "$(block "$1")" = "$(block "$disk")" ]; then
            have="$have$2 "
            printf '%s\n' "$line" >>"$new"
        else
            printf '# crn-agent mounts a volume there: %s\n' "$line" >>"$new"
            changed=1
        fi
    done </etc/fstab
    while read -r disk at; do
        [ -n "$at" ] || continue
        case $have in *" $at "*) continue ;; esac
        printf '%s\t%s\tauto\tdefaults,nofail,discard,x-systemd.device-timeout=10s,%s\t0\t2\n' \
            "$disk" "$at" "$mark" >>"$new"
        changed=1
    done <<END
$wanted
END
    if [ -n "$changed" ]; then
        sync
        mv -f "$new" /etc/fstab
        # systemd would end a mount that it has another source for.
        [ ! -d /run/systemd/system ] || systemctl daemon-reload
    else
        rm -f "$new"
    fi
}
# What an old line has mounted already, at a place where the volume is no longer to be.
clear_stale() {
    while read -r disk at; do
        [ -n "$at" ] || continue
        found=$(source_at "$at")
        [ -n "$found" ] || continue
        [ "$found" = "$(block "$disk")" ] || continue
        [ "$found" = "$(block "$(disk_for "$at")")" ] || umount "$at" || umount -l "$at"
    done <<END
$stale
END
}
mount_all() {
    while read -r disk at; do
        [ -n "$at" ] && [ -b "$disk" ] || continue
        mkdir -p "$at"
        [ -n "$(source_at "$at")" ] || mount "$at" || mount "$disk" "$at" || continue
        [ "$(source_at "$at")" = "$(block "$disk")" ] || continue
        # The disk may have grown. Each of these does nothing where there is nothing to do.
        case $(type_at "$at") in
        ext[234]) resize2fs "$disk" ;;
        xfs) xfs_growfs "$at" ;;
        btrfs) btrfs filesystem resize max "$at" ;;
        esac >/dev/null 2>&1
    done <<END
$wanted
END
}

