//! What happens on a node.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Owner, phase::words};

words! {
    /// What happened.
    EventKind {
        /// An instance was created; data: `name`.
        Created = "created",
        /// An instance is in another phase; data: the phase, as docs/lifecycle.md has it.
        Phase = "phase",
        /// A guest's SSH server answers; data: `at`, and after a start or reboot `ms`.
        Ready = "ready",
        /// A guest's SSH server that answered does not any more; data: `since`.
        NotAnswering = "not-answering",
        /// The agent came back and found an instance's QEMU; data: `pid`.
        Adopted = "adopted",
        /// A guest rebooted; data: `guest`, `reason`.
        Rebooted = "rebooted",
        /// QEMU's monitor could not be reached: QEMU was asked to end by SIGTERM, which
        /// flushes its disks, and the guest was not shut down; data: `why`.
        EndedBySignal = "ended-by-signal",
        /// An instance is gone.
        Deleted = "deleted",
        /// An instance's open ports changed; data: `ports`.
        Ports = "ports",
        /// An instance's image cannot be had; it is tried again by itself. Data: `image`,
        /// `why`, `retry_seconds`.
        ImageUnavailable = "image-unavailable",
        /// An instance has another address, of the node's present prefix; data: `from`, `to`.
        Renumbered = "renumbered",
        /// Parts of a user's cloud-init are without effect; data: `warnings`.
        CloudInitWarnings = "cloud-init-warnings",
        /// A disk failed; data: `node`, `operation`, `action`, `reason`, `nospace`.
        DiskError = "disk-error",
        /// QEMU found a disk damaged; data: `node`, `message`, `fatal`.
        DiskDamaged = "disk-damaged",
        /// A guest that was paused goes on.
        Resumed = "resumed",
        /// A guest's kernel panicked; data: `action`.
        GuestPanicked = "guest-panicked",
        /// A guest's watchdog ran out; data: `action`, what QEMU does about it.
        Watchdog = "watchdog",
        /// An instance's tap was made again.
        TapRepaired = "tap-repaired",
        /// The host's network was changed back to what it should be; data: what.
        NetworkRepaired = "network-repaired",
        /// Something of ours that no record owns was removed; data: what.
        OrphanRemoved = "orphan-removed",
        /// Something that no record owns was found and left; data: what.
        UnknownLeftAlone = "unknown-left-alone",
        /// The run directory was wiped, and is made anew; instances that run have lost
        /// their monitors' sockets; data: `what`.
        RunDirectoryLost = "run-directory-lost",
        /// A name has an image; data: `name`, `digest`.
        Image = "image",
        /// An image lost its name, or is gone; data: `name`, `digest`.
        ImageRemoved = "image-removed",
        /// A volume was created; data: `name`, `size_mib`.
        VolumeCreated = "volume-created",
        /// An instance has a volume; data: `name`.
        VolumeAttached = "volume-attached",
        /// Nobody has the volume any more; data: `name`.
        VolumeDetached = "volume-detached",
        /// A volume is larger; data: `name`, `size_mib`.
        VolumeResized = "volume-resized",
        /// A volume is gone; data: `name`.
        VolumeDeleted = "volume-deleted",
        /// A guest ejected a volume, which its instance keeps; data: `name`.
        VolumeEjected = "volume-ejected",
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Grows by one with each event; `Last-Event-ID` of the event stream.
    pub seq: i64,
    /// RFC 3339.
    pub at: String,
    /// Who may know of it besides the operator: `operator`, or a tenant's address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub owner: Owner,
    /// The instance's id, if it concerns one.
    pub instance: Option<String>,
    /// What happened.
    pub kind: EventKind,
    /// Details.
    pub data: serde_json::Value,
}
