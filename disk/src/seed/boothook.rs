//! The volumes in the guest: a boothook that makes file systems, mounts and `/etc/fstab` what the
//! seed says; pure.
//!
//! cloud-init's own modules for file systems and mounts run once in the life of a guest, and only
//! ever add lines. A boothook runs at every boot (`cloudinit/handlers/boot_hook.py`), so this one
//! owns what it writes: lines of volumes that were swapped, moved or detached are replaced and
//! removed, those that an older agent left too. There is a line of fstab for each volume all the
//! same, so that it is mounted early, and where cloud-init was removed later.
//!
//! Growing is done here and not by `x-systemd.growfs`: systemd puts that before
//! `local-fs.target`, and a boot then waits for a volume that is gone, in spite of `nofail`.

use std::fmt::Write as _;

use super::spec::SeedVolume;

/// The MIME type of a boothook.
pub(super) const CONTENT_TYPE: &str = "text/cloud-boothook";

/// Everything but the volumes.
const SCRIPT: &str = include_str!("volumes.sh");

/// The boothook for these volumes, in the order in which they are mounted. Without any it removes
/// what earlier ones left.
pub(super) fn render(volumes: &[&SeedVolume]) -> String {
    let mut out = SCRIPT.to_owned();
    for volume in volumes {
        // Serial numbers and mount points have no character that a shell takes for more.
        let (device, mount) = (volume.device(), volume.mount.as_str());
        let _ = writeln!(out, "volume '{device}' '{mount}' {}", volume.fs.name());
    }
    out.push_str("settle\nclear_stale\nmount_all\nexit 0\n");
    out
}
