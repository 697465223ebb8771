//! What tests, benchmarks and fuzz targets of the workspace need besides the program,
//! under the names that it has inside.

/// Limits of guests.
pub mod cgroup {
    pub use crate::cgroup::{CgroupPlan, Cgroups, Removal};
}
/// The API's client.
pub mod client {
    pub use crate::client::{Client, ClientError, Lines};
}
/// The configuration.
pub mod config {
    pub use crate::config::{Config, Limits, Sources, load};
}
/// Where the agent can be killed.
pub mod fault {
    pub use crate::fault::names;
}
/// The host.
pub mod host {
    pub use crate::host::sev_capabilities;
}
/// Where files are.
pub mod paths {
    pub use crate::paths::Paths;
}
/// QEMU.
pub mod qemu {
    /// Its command line.
    pub mod plan {
        pub use crate::qemu::plan::{
            Accelerator, Boot, DirectKernel, DiskFormat, FIRST_FD, FdSource, GuestMemory,
            HOTPLUG_FDSET, Identity, Launch, LaunchPlan, NamedCpu, Open, PlacedFile, PlannedFd,
            Protection, Sev, SevHost, Snp, VolumeDisk, plan, socket, volume_device, volume_nodes,
        };
    }
    pub use crate::qemu::{
        confidential, confine, file_limit, launch, names, probe, process, sealed,
    };
}
/// Requests, checked.
pub mod spec {
    pub use crate::spec::{InstanceSpec, MAX_KEYS, MAX_PORTS, MAX_VOLUMES, check};
}
