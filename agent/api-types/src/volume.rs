//! Volumes: requests and views.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Owner, phase::words};

words! {
    /// Whether a volume's file is there.
    VolumeState {
        /// Recorded; its file may not exist yet.
        Creating = "creating",
        /// Its file is being copied from one of the host.
        Importing = "importing",
        /// The file exists.
        Ready = "ready",
        /// Its instance is to lose it: as soon as the guest lets go, at the latest when
        /// QEMU ends.
        Detaching = "detaching",
        /// The file is being removed.
        Deleting = "deleting",
    }
}

words! {
    /// What a guest makes on a volume that has nothing on it, when it mounts it first.
    FileSystem {
        /// ext4: its tools are in every image.
        Ext4 = "ext4",
        /// XFS: its tools must be in the guest's image; 300 MiB at least.
        Xfs = "xfs",
        /// Btrfs: its tools must be in the guest's image; 128 MiB at least.
        Btrfs = "btrfs",
    }
}

/// A new volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// A label (RFC 1123), unique among its owner's volumes; not six or more
    /// hexadecimal digits alone, which look like an id.
    #[cfg_attr(feature = "openapi", schema(example = "data"))]
    pub name: String,
    /// Size in MiB; the configured default unless given.
    pub size_mib: Option<u64>,
    /// What its guest makes on it when it mounts it first; `ext4` unless given.
    pub file_system: Option<FileSystem>,
}

/// A new volume with the content of a file of the agent's host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportVolume {
    /// As of [`CreateVolume`].
    #[cfg_attr(feature = "openapi", schema(example = "data"))]
    pub name: String,
    /// Absolute path of the file: a QCOW2 or raw disk.
    #[cfg_attr(feature = "openapi", schema(example = "/srv/disks/data.qcow2"))]
    pub path: String,
    /// `qcow2` or `raw`; another format is refused.
    pub format: Option<String>,
    /// Size in MiB, at least the disk's; the disk's unless given.
    pub size_mib: Option<u64>,
}

/// Where a disk is copied to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Absolute path of a file on the agent's host that does not exist yet.
    #[cfg_attr(feature = "openapi", schema(example = "/srv/disks/data.qcow2"))]
    pub path: String,
}

/// A disk that was copied: QCOW2, standing alone, readable by its owner only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportView {
    /// The file.
    pub path: String,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// Bytes that the file occupies.
    pub file_size: u64,
}

/// Where a volume is attached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AttachVolume {
    /// The instance: its name or its id, which the operator may abbreviate.
    pub instance: String,
    /// Where the guest mounts it, from its next start on; only attached when absent.
    #[cfg_attr(feature = "openapi", schema(example = "/data"))]
    pub mount: Option<String>,
}

/// A new size.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// MiB; a volume only grows.
    pub size_mib: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VolumeView {
    /// Name, unique among its owner's volumes.
    pub name: String,
    /// 16 hexadecimal digits: the disk's serial number in the guest.
    pub id: String,
    /// Whose it is: `operator`, or a tenant's address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub owner: Owner,
    /// Size, MiB.
    pub size_mib: u64,
    /// Whether its file is there.
    pub state: VolumeState,
    /// What its guest makes on it if it has nothing on it. Not what is there: that is the guest's.
    pub file_system: FileSystem,
    /// Name of the instance that it is attached to.
    pub instance: Option<String>,
    /// Where that guest mounts it.
    pub mount: Option<String>,
    /// RFC 3339.
    pub created_at: String,
}
