//! What a guest is to be told.

use super::{
    error::{SeedError, excerpt},
    names::{Hostname, MountPoint},
    network_config::NetworkSpec,
    ssh_key::SshKey,
    user_data::UserData,
};

/// Most SSH keys of a VM.
pub const MAX_SSH_KEYS: usize = 64;
/// Most volumes of a VM.
pub const MAX_VOLUMES: usize = 16;
/// Longest serial number in bytes: `VIRTIO_BLK_ID_BYTES` (virtio 1.2 section 5.2.6).
pub const MAX_SERIAL: usize = 20;

/// What a guest is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedSpec {
    /// Identity of the VM: with another one, cloud-init takes the next boot for a first boot.
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub instance_id: String,
    /// Host name of the guest.
    pub hostname: Hostname,
    /// Keys of root and of the image's default user; at most 64.
    pub ssh_keys: Vec<SshKey>,
    /// The interface.
    pub network: NetworkSpec,
    /// Volumes to format once and mount; at most 16.
    pub volumes: Vec<SeedVolume>,
    /// The user's own cloud-init data.
    pub user_data: Option<UserData>,
}

/// A volume as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedVolume {
    /// Serial number of the virtio disk, 1 to 20 of `A-Z a-z 0-9 _ -`: the guest finds the disk
    /// at `/dev/disk/by-id/virtio-<serial>`.
    pub serial: String,
    /// Where it is mounted.
    pub mount: MountPoint,
    /// The file system it gets if it has none.
    pub fs: Filesystem,
}

impl SeedVolume {
    /// Path of the disk in the guest.
    pub(super) fn device(&self) -> String {
        format!("/dev/disk/by-id/virtio-{}", self.serial)
    }
}

/// A file system that the guest makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Filesystem {
    /// ext4: its tools are in every image.
    #[default]
    Ext4,
    /// XFS; needs `mkfs.xfs` in the guest.
    Xfs,
    /// Btrfs; needs `mkfs.btrfs` in the guest.
    Btrfs,
}

impl Filesystem {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The smallest disk, in MiB, that today's tools make one on.
    #[must_use]
    pub const fn least_mib(self) -> u32 {
        match self {
            Self::Ext4 => 1,
            Self::Xfs => 300,
            Self::Btrfs => 128,
        }
    }
}

/// Refuses what no guest could be told.
pub(super) fn check(spec: &SeedSpec) -> Result<(), SeedError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    let id = &spec.instance_id;
    if !(1..=64).contains(&id.len()) || !id.bytes().all(|c| plain(c) || c == b'.') {
        return Err(SeedError::InstanceId { value: excerpt(id) });
    }
    for (what, count, limit) in [
        ("SSH keys", spec.ssh_keys.len(), MAX_SSH_KEYS),
        ("volumes", spec.volumes.len(), MAX_VOLUMES),
    ] {
        if count > limit {
            return Err(SeedError::TooMany { what, count, limit });
        }
    }
    for volume in &spec.volumes {
        // No dot and no colon: cloud-init reads `x.1` as partition 1 of x, `x:y` as NFS.
        let serial = &volume.serial;
        if !(1..=MAX_SERIAL).contains(&serial.len()) || !serial.bytes().all(plain) {
            return Err(SeedError::Serial {
                value: excerpt(serial),
            });
        }
    }
    for (n, a) in spec.volumes.iter().enumerate() {
        for (m, b) in spec.volumes.iter().enumerate() {
            if n == m {
                continue;
            }
            let reason = if a.serial == b.serial {
                "they have the same serial number"
            } else if a.mount == b.mount {
                "they have the same mount point"
            } else if ["1", "p1", "-part1"]
                .iter()
                .any(|p| b.serial.strip_prefix(&a.serial) == Some(p))
            {
                // cc_mounts.py looks for a first partition by these suffixes and would not mount
                // the first volume.
                "cloud-init takes the second for a partition of the first; change a serial number"
            } else {
                continue;
            };
            return Err(SeedError::Volumes {
                first: a.serial.clone(),
                second: b.serial.clone(),
                reason,
            });
        }
    }
    Ok(())
}
