//! Volumes that a guest gets after its first boot; pure.
//!
//! cloud-init's own modules for file systems and mounts run once in the life of a guest, at its
//! first boot. A boothook runs at every boot (`cloudinit/handlers/boot_hook.py`), so this one does
//! for later volumes what the modules did for the first ones. At the first boot it does nothing.

use std::fmt::Write as _;

use super::{cloud_config::MOUNT_OPTIONS, spec::SeedVolume};

/// The MIME type of a boothook.
pub(super) const CONTENT_TYPE: &str = "text/cloud-boothook";

/// A disk is formatted only when blkid has looked at it and found nothing at all (status 2 of
/// blkid(8)): a missing or older blkid formats nothing. A line of fstab is written when there is
/// none of the disk for this mount point.
const HEAD: &str = r#"#cloud-boothook
#!/bin/sh
# The agent's: file systems and mounts of volumes that came after the first boot.
[ -e /var/lib/cloud/instance/sem/config_mounts ] || exit 0
volume() {
    tries=0
    while [ ! -b "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -le 50 ] || return 0
        sleep 0.1
    done
    blkid -p "$1" >/dev/null 2>&1
    [ $? -ne 2 ] || "mkfs.$3" -q -F "$1" || return 0
    awk -v disk="$1" -v at="$2" '$1 == disk && $2 == at { found = 1 } END { exit !found }' /etc/fstab || {
        sed -i "\|^$1[[:space:]]|d" /etc/fstab
        printf '%s\t%s\t%s\t%s\t0\t2\n' "$1" "$2" "$3" "$4" >>/etc/fstab
    }
    mkdir -p "$2"
    mountpoint -q "$2" || mount "$2"
}
"#;

/// The boothook for these volumes, in the order in which they are mounted.
pub(super) fn render(volumes: &[&SeedVolume]) -> String {
    let mut out = HEAD.to_owned();
    for volume in volumes {
        // Serial numbers and mount points have no character that a shell takes for more.
        let (device, mount) = (volume.device(), volume.mount.as_str());
        let fs = volume.fs.name();
        let _ = writeln!(out, "volume '{device}' '{mount}' {fs} {MOUNT_OPTIONS}");
    }
    out.push_str("exit 0\n");
    out
}
