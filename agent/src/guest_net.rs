//! The guests' part of the host's network, and the locks that guard it.
//!
//! Three things change it: guests that come and go, their ports, and the
//! comparison with the records. A guest that comes while the network is compared
//! would be taken for nobody's, and ports that are opened from an old record would
//! undo a change: so there is one gate for the node, shared by the guests and
//! exclusive for the comparison, and one lock for the ports of each instance.
//! Callers never hold either.

use std::{
    collections::BTreeSet,
    os::fd::{BorrowedFd, OwnedFd},
};

use net::{GuestSpec, HostNet, Offloads, PortRule};
use rustix::fs::FileType;
use tokio::sync::RwLock;

use crate::{
    db::{Db, DbError, InstanceRow},
    ids::InstanceId,
    locks::Locks,
};

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum GuestNetError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The kernel's network.
    #[error("network: {0}")]
    Net(#[from] net::Error),
    /// The descriptor of a running QEMU's tap.
    #[error("the tap that QEMU holds: {0}")]
    Descriptor(std::io::Error),
}

/// The guests' part of the host's network.
pub struct GuestNet {
    net: HostNet,
    db: Db,
    /// Taken after an instance's port lock, never before.
    gate: RwLock<()>,
    ports: Locks<InstanceId>,
}

/// What a comparison with the records found.
pub struct Compared {
    /// What was repaired, and the taps that only their instances' tasks can repair.
    pub repairs: net::Repairs,
    /// The guests that the network was to have.
    pub guests: Vec<(InstanceRow, GuestSpec)>,
}

impl GuestNet {
    /// Over the host's network and the records.
    #[must_use]
    pub fn new(net: HostNet, db: Db) -> Self {
        Self {
            net,
            db,
            gate: RwLock::new(()),
            ports: Locks::default(),
        }
    }

    /// The host's network itself: for looking, not for changing.
    #[must_use]
    pub fn host(&self) -> &HostNet {
        &self.net
    }

    /// What the network makes of an instance.
    #[must_use]
    pub fn guest(&self, row: &InstanceRow) -> GuestSpec {
        GuestSpec::new(
            net::GuestIndex(row.slot),
            row.id.as_str(),
            row.network,
            self.net.spec().ipv4.as_ref(),
            row.spec.ports.clone(),
        )
    }

    /// At the agent's start: the firewall with everything that the records want.
    ///
    /// # Errors
    /// Those of the database and of the kernel.
    pub async fn start(&self) -> Result<(), GuestNetError> {
        let _gate = self.gate.write().await;
        let guests: Vec<_> = self.wanted().await?.into_iter().map(|(_, g)| g).collect();
        Ok(self.net.start(&guests).await?)
    }

    /// Lets a guest in, with the ports that are recorded now: firewall, then tap.
    ///
    /// # Errors
    /// Those of the database and of the kernel; nothing is left of the guest then.
    pub async fn admit(&self, id: &InstanceId) -> Result<OwnedFd, GuestNetError> {
        let _ports = self.ports.lock(id).await;
        let _gate = self.gate.read().await;
        let row = self.db.instance(id).await?;
        Ok(self.net.add_guest(&self.guest(&row)).await?)
    }

    /// Takes everything of a guest out of the network. Absent is fine.
    ///
    /// # Errors
    /// Those of the kernel.
    pub async fn release(&self, row: &InstanceRow) -> Result<(), GuestNetError> {
        let _gate = self.gate.read().await;
        Ok(self.net.remove_guest(&self.guest(row)).await?)
    }

    /// Ties a new tap of the guest's name to the descriptor number `tap_fd` that the
    /// process of `pidfd` holds, for a driver with these offloads.
    ///
    /// # Errors
    /// Those of the kernel.
    pub async fn reattach(
        &self,
        row: &InstanceRow,
        pidfd: BorrowedFd<'_>,
        tap_fd: i32,
        offloads: Offloads,
    ) -> Result<(), GuestNetError> {
        use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
        let _gate = self.gate.read().await;
        let tap = pidfd_getfd(pidfd, tap_fd, PidfdGetfdFlags::empty())
            .map_err(|e| GuestNetError::Descriptor(e.into()))?;
        require_tun(&tap).map_err(GuestNetError::Descriptor)?;
        let guest = self.guest(row);
        Ok(self.net.reattach_guest(&guest, tap, offloads).await?)
    }

    /// Records the ports that `change` makes of the present ones, and opens them if
    /// the guest has its part of the network now. Gives the ports and whether they
    /// are others than before. Cut off in between, the next comparison with the
    /// records does the rest. The instance's task is not asked: a guest that hangs
    /// keeps nobody from closing its ports.
    ///
    /// # Errors
    /// Those of `change`, of the database and of the kernel.
    pub async fn change_ports<E: From<GuestNetError>>(
        &self,
        id: &InstanceId,
        change: impl FnOnce(&BTreeSet<PortRule>) -> Result<BTreeSet<PortRule>, E>,
    ) -> Result<(BTreeSet<PortRule>, bool), E> {
        let _ports = self.ports.lock(id).await;
        let row = self.db.instance(id).await.map_err(GuestNetError::from)?;
        let ports = change(&row.spec.ports)?;
        if ports == row.spec.ports {
            return Ok((ports, false));
        }
        let set = async {
            // A comparison with the records sees both the record and the rules change.
            let _gate = self.gate.read().await;
            let mut spec = row.spec.clone();
            spec.ports.clone_from(&ports);
            self.db.set_spec(id, &spec).await?;
            let guest = self.guest(&row);
            Ok::<_, GuestNetError>(self.net.set_ports(&guest, &ports).await?)
        };
        set.await?;
        Ok((ports, true))
    }

    /// Compares the network with the records once and repairs it.
    ///
    /// # Errors
    /// [`GuestNetError`]; the next comparison tries again.
    pub async fn reconcile(&self) -> Result<Compared, GuestNetError> {
        // No guest comes or goes meanwhile: it would be taken for nobody's.
        let _gate = self.gate.write().await;
        let guests = self.wanted().await?;
        let specs: Vec<_> = guests.iter().map(|(_, guest)| guest.clone()).collect();
        let repairs = self.net.reconcile(&specs).await?;
        Ok(Compared { repairs, guests })
    }

    /// The guests that the network is to have now. The gate is held.
    async fn wanted(&self) -> Result<Vec<(InstanceRow, GuestSpec)>, DbError> {
        let rows = self.db.instances().await?;
        let rows = rows.into_iter().filter(|row| row.phase.has_guest_net());
        Ok(rows
            .map(|row| {
                let guest = self.guest(&row);
                (row, guest)
            })
            .collect())
    }
}

/// The device that taps are descriptors of: /dev/net/tun.
const TUN: (u32, u32) = (10, 200);

/// What comes out of a QEMU is what its guest may have put there: nothing but a tap is
/// given to the kernel in root's name.
fn require_tun(descriptor: &OwnedFd) -> std::io::Result<()> {
    let found = rustix::fs::fstat(descriptor)?;
    let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    let number = (
        rustix::fs::major(found.st_rdev),
        rustix::fs::minor(found.st_rdev),
    );
    if is_device && number == TUN {
        return Ok(());
    }
    Err(std::io::Error::other(
        "QEMU has something else where its tap was",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tap_is_taken_back() {
        for (path, good) in [("/dev/net/tun", true), ("/dev/null", false), ("/", false)] {
            let descriptor: OwnedFd = std::fs::File::open(path).unwrap().into();
            assert_eq!(require_tun(&descriptor).is_ok(), good, "{path}");
        }
    }
}
