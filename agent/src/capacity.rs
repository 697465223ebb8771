//! Whether the node has room: decided here and nowhere else. Pure.
//!
//! Every record counts, running or not, so that what is stopped can be started
//! again; a record counts once, in the transaction that writes it.

pub use crn_api_types::{NoRoom, Resource, Totals};

use crate::config::Limits;

/// What the node gives away altogether.
pub type Capacity = Totals;

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
            Resource::Instances,
            used.instances,
            asked.instances,
            total.instances,
        ),
        (Resource::Vcpus, used.vcpus, asked.vcpus, total.vcpus),
        (
            Resource::MemoryMib,
            used.memory_mib,
            asked.memory_mib,
            total.memory_mib,
        ),
        (
            Resource::DiskMib,
            used.disk_mib,
            asked.disk_mib,
            total.disk_mib,
        ),
    ];
    for (resource, used, asked, total) in rows {
        if asked > 0 && used.saturating_add(asked) > total {
            return Err(NoRoom {
                resource,
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
            (t(2, 0, 0, 0), t(1, 1, 1, 1), Some(Resource::Instances)),
            (t(1, 4, 0, 0), t(1, 5, 1, 1), Some(Resource::Vcpus)),
            (t(1, 1, 4000, 0), t(1, 1, 97, 1), Some(Resource::MemoryMib)),
            (t(1, 1, 1, 1), t(1, 1, 1, u64::MAX), Some(Resource::DiskMib)),
            // A node that is over its limits still takes what costs nothing of them.
            (t(3, 9, 9999, 1), t(0, 0, 0, 5), None),
        ];
        for (used, asked, missing) in table {
            assert_eq!(admit(used, asked, total).err().map(|e| e.resource), missing);
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
