//! Volumes: requests and views.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Owner, phase::words};

words! {
    /// Whether a volume's file is there.
    VolumeState {
        /// Recorded; its file may not exist yet.
        Creating = "creating",
        /// The file exists.
        Ready = "ready",
        /// Its instance is to lose it: as soon as the guest lets go, at the latest when
        /// QEMU ends.
        Detaching = "detaching",
        /// The file is being removed.
        Deleting = "deleting",
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
    /// Name of the instance that it is attached to.
    pub instance: Option<String>,
    /// Where that guest mounts it.
    pub mount: Option<String>,
    /// RFC 3339.
    pub created_at: String,
}
