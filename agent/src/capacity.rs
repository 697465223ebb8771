//! Whether the node has room: decided here and nowhere else. Pure.
//!
//! Every record counts, running or not, so that what is stopped can be started
//! again; a record counts once, in the transaction that writes it.

use serde::{Deserialize, Serialize};

use crate::config::Limits;

/// What all instances and volumes together have been promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Totals {
    /// Instances.
    pub instances: u64,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Root disks and volumes, MiB.
    pub disk_mib: u64,
}

/// What the node gives away altogether.
pub type Capacity = Totals;

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this node has no room for {asked} more {what}: {used} of {total} are taken")]
pub struct NoRoom {
    /// What, with its unit.
    pub what: &'static str,
    /// How much was asked for.
    pub asked: u64,
    /// How much is taken.
    pub used: u64,
    /// How much there is.
    pub total: u64,
}

/// What the host has.
#[derive(Debug, Clone, Copy)]
pub struct HostSize {
    /// CPUs.
    pub cpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Size of the state directory's file system, MiB.
    pub disk_mib: u64,
}

/// The node's capacity: the configured limits, else what follows from the host.
#[must_use]
pub fn of(limits: &Limits, host: HostSize) -> Capacity {
    Capacity {
        instances: limits.instances,
        vcpus: limits.vcpus.unwrap_or(host.cpus.saturating_mul(4)),
        memory_mib: limits.memory_mib.unwrap_or(host.memory_mib / 10 * 9),
        // The agent's own records need room when all guests have filled theirs.
        disk_mib: limits.disk_mib.unwrap_or(host.disk_mib / 10 * 9),
    }
}

/// Admits `asked` beside `used`.
///
/// # Errors
/// [`NoRoom`] for the first thing that does not fit.
pub fn admit(used: Totals, asked: Totals, total: Capacity) -> Result<(), NoRoom> {
    let rows = [
        (
            "instances",
            used.instances,
            asked.instances,
            total.instances,
        ),
        ("vCPUs", used.vcpus, asked.vcpus, total.vcpus),
        (
            "MiB of memory",
            used.memory_mib,
            asked.memory_mib,
            total.memory_mib,
        ),
        ("MiB of disk", used.disk_mib, asked.disk_mib, total.disk_mib),
    ];
    for (what, used, asked, total) in rows {
        if asked > 0 && used.saturating_add(asked) > total {
            return Err(NoRoom {
                what,
                asked,
                used,
                total,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(instances: u64, vcpus: u64, memory_mib: u64, disk_mib: u64) -> Totals {
        Totals {
            instances,
            vcpus,
            memory_mib,
            disk_mib,
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let total = t(2, 8, 4096, 10_000);
        let table = [
            (t(0, 0, 0, 0), t(1, 8, 4096, 10_000), None),
            (t(2, 0, 0, 0), t(1, 1, 1, 1), Some("instances")),
            (t(1, 4, 0, 0), t(1, 5, 1, 1), Some("vCPUs")),
            (t(1, 1, 4000, 0), t(1, 1, 97, 1), Some("MiB of memory")),
            (t(1, 1, 1, 1), t(1, 1, 1, u64::MAX), Some("MiB of disk")),
            // A node that is over its limits still takes what costs nothing of them.
            (t(3, 9, 9999, 1), t(0, 0, 0, 5), None),
        ];
        for (used, asked, missing) in table {
            assert_eq!(admit(used, asked, total).err().map(|e| e.what), missing);
        }
    }

    #[test]
    fn the_host_decides_where_the_configuration_does_not() {
        let host = HostSize {
            cpus: 4,
            memory_mib: 10_000,
            disk_mib: 770,
        };
        let limits = Limits {
            memory_mib: Some(123),
            ..Limits::default()
        };
        assert_eq!(of(&limits, host), t(1024, 16, 123, 693));
    }
}
