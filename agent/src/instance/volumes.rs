//! Volumes of a live instance: attached, detached and grown while it runs.
//!
//! What is wanted is in the database; [`Task::match_volumes`] makes QEMU have it.
//! A volume is detached from QEMU first and from the record then, so that no
//! other instance can get a file that a QEMU still has open. A guest may take its
//! time to let go of one, or never do it: the record says `detaching` until QEMU
//! tells that the device is gone, as it does at the guest's next reset, or ends.

use std::{fs::OpenOptions, os::fd::AsFd, time::Duration};

use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    TaskError,
    prepare::{create_volume, seed, volume_size},
    task::Task,
};
use crate::{
    db::{DbError, VolumeRow, VolumeState},
    fault,
    life::Phase,
    node::blocking,
    qemu::plan::{HOTPLUG_FDSET, MAX_VOLUMES, volume_device, volume_nodes},
};

/// So long a guest is waited for to let go of a volume; one that takes longer is
/// not waited for, and heard when it has.
const UNPLUG_LIMIT: Duration = Duration::from_secs(10);
/// The same, where nobody waits for the answer.
const UNPLUG_GLANCE: Duration = Duration::from_secs(1);

impl Task {
    /// Attaches a volume, to a running guest at once. What fails leaves the record as
    /// it was.
    pub(super) async fn attach_volume(
        &mut self,
        name: &str,
        mount: Option<&str>,
    ) -> Result<(), TaskError> {
        let before = self.node.db.volume(name).await?;
        self.check_seed_with(&before, mount).await?;
        self.node
            .db
            .attach_volume(name, &self.id, mount, MAX_VOLUMES)
            .await?;
        fault::point("recorded", "attach");
        let result = self.make_and_plug(&before).await;
        if let Err(e) = &result {
            warn!("volume {name} cannot be attached: {e}");
            self.take_back(&before).await?;
        }
        result
    }

    async fn make_and_plug(&self, volume: &VolumeRow) -> Result<(), TaskError> {
        if volume.state == VolumeState::Creating
            && let Err(e) = create_volume(&self.node, volume).await?
        {
            return Err(TaskError::Refused(e.message));
        }
        match self.live_monitor() {
            Some(qmp) => self.plug(&qmp, volume).await,
            None => Ok(()),
        }
    }

    /// Makes the record say what it said before a failed attachment.
    async fn take_back(&self, before: &VolumeRow) -> Result<(), TaskError> {
        let db = &self.node.db;
        if before.instance.as_ref() == Some(&self.id) {
            let (name, mount) = (before.name.as_str(), before.mount.as_deref());
            return Ok(db.attach_volume(name, &self.id, mount, MAX_VOLUMES).await?);
        }
        if let Some(qmp) = self.live_monitor()
            && self.unplug(&qmp, &before.id, UNPLUG_LIMIT).await.is_err()
        {
            // QEMU may have it: nobody else can, until it is known to be gone.
            return Ok(db.begin_detach(&before.id).await?);
        }
        Ok(db.detach_volume(&before.id).await?)
    }

    /// Refuses what the next start could not tell the guest: a mount point that is
    /// taken, by another volume or in the user's own cloud-init.
    async fn check_seed_with(
        &self,
        candidate: &VolumeRow,
        mount: Option<&str>,
    ) -> Result<(), TaskError> {
        let row = self.node.db.instance(&self.id).await?;
        let mut volumes = self.node.db.volumes_of(&self.id).await?;
        volumes.retain(|v| v.id != candidate.id && v.state != VolumeState::Detaching);
        volumes.push(VolumeRow {
            mount: mount.map(str::to_owned),
            ..candidate.clone()
        });
        let user_data = self.node.db.user_data(&self.id).await?;
        match seed(&self.node, &row, &volumes, user_data.as_deref()) {
            Ok(_) => Ok(()),
            Err(e) => Err(TaskError::Refused(e.message)),
        }
    }

    /// Detaches a volume, from a running guest when it lets go of it.
    pub(super) async fn detach_volume(&mut self, name: &str) -> Result<(), TaskError> {
        let volume = self.node.db.volume(name).await?;
        match &volume.instance {
            None => return Ok(()),
            Some(holder) if *holder != self.id => {
                let message = format!("volume {name} is attached to another instance");
                return Err(TaskError::Refused(message));
            }
            Some(_) => {}
        }
        self.node.db.begin_detach(&volume.id).await?;
        fault::point("begun", "detach");
        match self.live_monitor() {
            Some(qmp) => self.unplug(&qmp, &volume.id, UNPLUG_LIMIT).await?,
            None if self.vm.is_some() => {
                let message = "QEMU does not answer: the volume is detached when it does, at the \
                               latest when the instance stops";
                return Err(TaskError::Pending(message.into()));
            }
            None => {}
        }
        fault::point("unplugged", "detach");
        Ok(self.released(&volume).await?)
    }

    /// A volume that no QEMU has open any more is nobody's.
    async fn released(&self, volume: &VolumeRow) -> Result<(), DbError> {
        self.node.db.detach_volume(&volume.id).await?;
        info!("volume {} is detached", volume.name);
        let data = json!({ "name": volume.name.as_str() });
        let events = &self.node.events;
        events.emit(Some(&self.id), "volume-detached", data);
        Ok(())
    }

    /// Without a QEMU no guest holds what it was to let go of.
    pub(super) async fn release_volumes(&self) -> Result<(), DbError> {
        for volume in self.node.db.volumes_of(&self.id).await? {
            if volume.state == VolumeState::Detaching {
                self.released(&volume).await?;
            }
        }
        Ok(())
    }

    /// QEMU told that a device is gone.
    pub(super) async fn device_gone(&mut self, device: &str) -> Result<(), TaskError> {
        let volumes = self.node.db.volumes_of(&self.id).await?;
        let (Some(volume), Some(qmp)) = (
            volumes.iter().find(|v| device_name(&v.id) == device),
            self.live_monitor(),
        ) else {
            return Ok(());
        };
        let plugged = plugged(&qmp).await?;
        if plugged.iter().any(|p| p.volume == volume.id) {
            // Old news: it has come back since.
            return Ok(());
        }
        if volume.state == VolumeState::Detaching {
            close_nodes(&qmp, &volume.id).await?;
            return Ok(self.released(volume).await?);
        }
        // A guest may eject what it likes. That it still has the volume is the
        // user's word, and not undone by the guest's.
        warn!("the guest ejected volume {}", volume.name);
        self.tell_seldom("volume-ejected", json!({ "name": volume.name.as_str() }));
        Ok(())
    }

    /// Grows a volume; a running guest sees it at once.
    pub(super) async fn grow_volume(&mut self, name: &str, mib: u64) -> Result<(), TaskError> {
        let volume = self.node.db.volume(name).await?;
        self.node
            .db
            .grow_volume(&volume.id, mib, self.node.capacity)
            .await?;
        let volume = VolumeRow { mib, ..volume };
        let size = volume_size(&volume);
        match self.live_monitor() {
            Some(qmp) => Ok(qmp
                .block_resize(&node_name(&volume.id), size.bytes())
                .await?),
            // QEMU has it open and does not answer: it gets its size on the next
            // occasion, at the latest with the next start.
            None if self.vm.is_some() => Ok(()),
            None => {
                let path = self.node.paths.volume(&volume.id);
                blocking(move || match disk::grow(&path, disk::Format::Qcow2, size) {
                    // Not created yet: it is created with its new size.
                    Err(disk::Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound =>
                    {
                        Ok(())
                    }
                    other => Ok(other?),
                })
                .await
            }
        }
    }

    /// Makes a running QEMU have the volumes of the record, with their sizes: what
    /// a killed agent began is finished.
    pub(super) async fn match_volumes(&mut self) -> Result<Result<(), TaskError>, DbError> {
        let Some(qmp) = self.live_monitor() else {
            return Ok(Ok(()));
        };
        let wanted = self.node.db.volumes_of(&self.id).await?;
        Ok(self.try_match_volumes(&qmp, &wanted).await)
    }

    /// One volume that cannot be matched does not keep the others from it. Gives the
    /// first failure.
    async fn try_match_volumes(
        &self,
        qmp: &qmp::Qmp,
        wanted: &[VolumeRow],
    ) -> Result<(), TaskError> {
        let (nodes, plugged) = (nodes(qmp).await?, plugged(qmp).await?);
        let mut outcome = Ok(());
        for volume in wanted {
            let has = Has {
                bytes: nodes
                    .iter()
                    .find(|n| n.name == node_name(&volume.id))
                    .map(|n| n.bytes),
                device: plugged.iter().any(|p| p.volume == volume.id),
            };
            let matched = self.match_volume(qmp, volume, has).await;
            outcome = outcome.and(matched);
        }
        let unwanted = nodes
            .iter()
            .filter_map(|n| volume_of(&n.name))
            .filter(|id| !wanted.iter().any(|v| v.id == *id));
        for id in unwanted {
            warn!("QEMU has volume {id}, which is not the instance's");
            outcome = outcome.and(self.unplug(qmp, id, UNPLUG_GLANCE).await);
        }
        outcome
    }

    async fn match_volume(
        &self,
        qmp: &qmp::Qmp,
        volume: &VolumeRow,
        has: Has,
    ) -> Result<(), TaskError> {
        match volume.state {
            VolumeState::Detaching => match self.unplug(qmp, &volume.id, UNPLUG_GLANCE).await {
                Ok(()) => Ok(self.released(volume).await?),
                // It is heard of when it is gone.
                Err(TaskError::Pending(_)) => Ok(()),
                Err(e) => Err(e),
            },
            VolumeState::Creating => {
                if let Err(e) = create_volume(&self.node, volume).await? {
                    return Err(TaskError::Refused(e.message));
                }
                self.plug(qmp, volume).await
            }
            VolumeState::Ready if !has.device => {
                info!("volume {} is attached", volume.name);
                self.plug(qmp, volume).await
            }
            VolumeState::Ready => {
                let size = volume_size(volume).bytes();
                if has.bytes.is_some_and(|bytes| bytes < size) {
                    info!("volume {} gets its new size", volume.name);
                    qmp.block_resize(&node_name(&volume.id), size).await?;
                }
                Ok(())
            }
            VolumeState::Deleting => Ok(()),
        }
    }

    /// The monitor of a running guest.
    fn live_monitor(&self) -> Option<qmp::Qmp> {
        let (qmp, _) = self.vm.as_ref()?.monitor.as_ref()?;
        (self.phase == Phase::Running && qmp.closed_reason().is_none()).then(|| qmp.clone())
    }

    /// Plugs a volume in, or finds it plugged.
    async fn plug(&self, qmp: &qmp::Qmp, volume: &VolumeRow) -> Result<(), TaskError> {
        let name = node_name(&volume.id);
        let plugged = plugged(qmp).await?;
        if plugged.iter().any(|p| p.volume == volume.id) {
            return Ok(());
        }
        let free = (0..MAX_VOLUMES).find(|slot| plugged.iter().all(|p| p.slot != *slot));
        let slot = free.ok_or_else(|| {
            TaskError::Refused("the machine has no free slot; the next start makes room".into())
        })?;
        // What a try that was cut off left, or a device that the guest ejected.
        close_nodes(qmp, &volume.id).await?;
        let set = HOTPLUG_FDSET + u32::try_from(slot).unwrap_or(u32::MAX - HOTPLUG_FDSET);
        if qmp
            .fd_sets()
            .await?
            .iter()
            .any(|s| s.fdset_id == i64::from(set))
        {
            qmp.remove_fd(set).await?;
        }
        let path = self.node.paths.volume(&volume.id);
        let size = volume_size(volume);
        let file = blocking::<_, TaskError, _>(move || {
            disk::grow(&path, disk::Format::Qcow2, size)?;
            Ok(OpenOptions::new().read(true).write(true).open(&path)?)
        })
        .await?;
        qmp.add_fd(file.as_fd(), set, &name).await?;
        for node in volume_nodes(&volume.id, &format!("/dev/fdset/{set}")) {
            qmp.blockdev_add(node).await?;
        }
        fault::point("opened", "attach");
        // QEMU closes the descriptors when the node goes: nothing else is to be kept.
        qmp.remove_fd(set).await?;
        Ok(qmp.device_add(volume_device(&volume.id, slot)).await?)
    }

    /// Unplugs a volume, or finds it unplugged.
    async fn unplug(&self, qmp: &qmp::Qmp, id: &str, limit: Duration) -> Result<(), TaskError> {
        match qmp.device_del(&device_name(id), limit).await {
            Ok(()) => {}
            Err(e) if e.refused_class() == Some(&qmp::qapi::ErrorClass::DeviceNotFound) => {}
            Err(qmp::Error::UnplugTimeout { .. } | qmp::Error::UnplugRefused { .. }) => {
                let message = "the guest holds the volume (is it mounted?): it is detached when \
                               the guest lets go, at the latest when it reboots or stops";
                return Err(TaskError::Pending(message.into()));
            }
            Err(e) => return Err(e.into()),
        }
        close_nodes(qmp, id).await
    }
}

/// Has QEMU close a volume that no device uses.
async fn close_nodes(qmp: &qmp::Qmp, id: &str) -> Result<(), TaskError> {
    let mut left = nodes(qmp).await?;
    // The file's node is the other's child: it goes last.
    left.sort_by_key(|n| n.name.len());
    for node in left.iter().filter(|n| is_of(&n.name, id)) {
        qmp.blockdev_del(&node.name).await?;
    }
    Ok(())
}

fn node_name(id: &str) -> String {
    format!("vol-{id}")
}

fn device_name(id: &str) -> String {
    format!("vol-{id}-dev")
}

/// Whether a block node is one of the volume's two.
fn is_of(node: &str, id: &str) -> bool {
    node.strip_prefix("vol-")
        .and_then(|n| n.strip_prefix(id))
        .is_some_and(|n| n.is_empty() || n == "-file")
}

/// The volume whose (upper) node this is.
fn volume_of(node: &str) -> Option<&str> {
    node.strip_prefix("vol-").filter(|id| !id.contains('-'))
}

/// What QEMU has of a volume.
#[derive(Clone, Copy)]
struct Has {
    /// The size of its node.
    bytes: Option<u64>,
    /// A device that the guest sees.
    device: bool,
}

struct Node {
    name: String,
    bytes: u64,
}

async fn nodes(qmp: &qmp::Qmp) -> Result<Vec<Node>, TaskError> {
    let all = qmp.query_named_block_nodes().await?;
    Ok(all
        .into_iter()
        .filter_map(|n| {
            let bytes = u64::try_from(n.image.base.virtual_size).unwrap_or(0);
            Some(Node {
                name: n.node_name?,
                bytes,
            })
        })
        .collect())
}

/// A volume that is plugged in.
#[derive(Debug, PartialEq, Eq)]
struct Plugged {
    volume: String,
    slot: usize,
}

/// The volumes that QEMU has devices of. Asked of QEMU's own object tree: what the
/// PCI bus shows is the guest's and its firmware's to say.
async fn plugged(qmp: &qmp::Qmp) -> Result<Vec<Plugged>, TaskError> {
    let all = qmp
        .execute_raw("qom-list", json!({ "path": PERIPHERAL }))
        .await?;
    let mut plugged = Vec::new();
    for (volume, path) in devices_of(&all) {
        let parent = json!({ "path": path, "property": "parent_bus" });
        match qmp.execute_raw("qom-get", parent).await {
            Ok(bus) => {
                let slot = bus.as_str().and_then(slot_of);
                let slot = slot.ok_or_else(|| {
                    TaskError::Refused(format!("QEMU has {path} at an unknown place: {bus}"))
                })?;
                plugged.push(Plugged { volume, slot });
            }
            // Gone between the two questions.
            Err(e) if e.refused_class().is_some() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(plugged)
}

/// Where QEMU keeps the devices that have an id.
const PERIPHERAL: &str = "/machine/peripheral";

/// Volumes and the paths of their devices in the answer to `qom-list`. Pure.
fn devices_of(answer: &Value) -> Vec<(String, String)> {
    let names = answer.as_array().into_iter().flatten();
    let names = names.filter_map(|child| child.get("name")?.as_str());
    names
        .filter_map(|name| {
            let volume = name.strip_prefix("vol-")?.strip_suffix("-dev")?;
            Some((volume.to_owned(), format!("{PERIPHERAL}/{name}")))
        })
        .collect()
}

/// The number of the root port that has this bus: `/machine/peripheral/slot3/slot3`. Pure.
fn slot_of(bus: &str) -> Option<usize> {
    bus.rsplit_once('/')?.1.strip_prefix("slot")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_from_the_object_tree() {
        let child = |name: &str| json!({ "name": name, "type": "child<virtio-blk-pci>" });
        let names = [
            "type",
            "slot0",
            "vol-ab-dev",
            "net0-dev",
            "vol-cd-dev",
            "vol-ef",
        ];
        let answer = names.map(child);
        let ours = ["ab", "cd"].map(|v| (v.to_owned(), format!("{PERIPHERAL}/vol-{v}-dev")));
        assert_eq!(devices_of(&json!(answer)), ours);
        for lies in [json!({ "lies": 1 }), json!([1, { "name": 2 }])] {
            assert_eq!(devices_of(&lies), []);
        }
        let table = [
            ("/machine/peripheral/slot3/slot3", Some(3)),
            ("/machine/peripheral/slot12/slot12", Some(12)),
            ("/machine/q35/pcihost/pcie.0", None),
            ("slot1", None),
        ];
        for (bus, slot) in table {
            assert_eq!(slot_of(bus), slot, "{bus}");
        }
    }

    #[test]
    fn nodes_of_a_volume_are_told_from_those_of_another() {
        let table = [
            ("vol-ab", true),
            ("vol-ab-file", true),
            ("vol-abc", false),
            ("root", false),
        ];
        for (node, ours) in table {
            assert_eq!(is_of(node, "ab"), ours, "{node}");
        }
        assert_eq!(volume_of("vol-ab"), Some("ab"));
        assert_eq!(volume_of("vol-ab-file"), None);
    }
}
