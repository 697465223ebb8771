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
    prepare::{create_volume, volume_size},
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
    /// Attaches a volume, to a running guest at once.
    pub(super) async fn attach_volume(
        &mut self,
        name: &str,
        mount: Option<&str>,
    ) -> Result<(), TaskError> {
        let before = self.node.db.volume(name).await?;
        let had = before.instance.as_ref() == Some(&self.id);
        self.node
            .db
            .attach_volume(name, &self.id, mount, MAX_VOLUMES)
            .await?;
        fault::point("recorded", "attach");
        if before.state == VolumeState::Creating
            && let Err(e) = create_volume(&self.node, &before).await?
        {
            return Err(TaskError::Refused(e.message));
        }
        let Some(qmp) = self.live_monitor() else {
            return Ok(());
        };
        let result = self.plug(&qmp, &before).await;
        if let Err(e) = &result
            && !had
        {
            warn!("volume {name} cannot be attached: {e}");
            if self.unplug(&qmp, &before.id, UNPLUG_LIMIT).await.is_ok() {
                self.node.db.detach_volume(&before.id).await?;
            }
        }
        result
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
        if ports(&qmp).await?.iter().any(|p| p.holds(&volume.id)) {
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

    async fn try_match_volumes(
        &self,
        qmp: &qmp::Qmp,
        wanted: &[VolumeRow],
    ) -> Result<(), TaskError> {
        let (nodes, ports) = (nodes(qmp).await?, ports(qmp).await?);
        for volume in wanted {
            let node = nodes.iter().find(|n| n.name == node_name(&volume.id));
            match volume.state {
                VolumeState::Detaching => match self.unplug(qmp, &volume.id, UNPLUG_GLANCE).await {
                    Ok(()) => self.released(volume).await?,
                    // It is heard of when it is gone.
                    Err(TaskError::Pending(_)) => {}
                    Err(e) => return Err(e),
                },
                VolumeState::Ready => {
                    let size = volume_size(volume).bytes();
                    if !ports.iter().any(|p| p.holds(&volume.id)) {
                        info!("volume {} is attached", volume.name);
                        self.plug(qmp, volume).await?;
                    } else if let Some(node) = node.filter(|n| n.bytes < size) {
                        info!("volume {} gets its new size", volume.name);
                        qmp.block_resize(&node.name, size).await?;
                    }
                }
                VolumeState::Creating => {
                    if let Err(e) = create_volume(&self.node, volume).await? {
                        return Err(TaskError::Refused(e.message));
                    }
                    self.plug(qmp, volume).await?;
                }
                VolumeState::Deleting => {}
            }
        }
        let unwanted = nodes
            .iter()
            .filter_map(|n| volume_of(&n.name))
            .filter(|id| !wanted.iter().any(|v| v.id == *id));
        for id in unwanted {
            warn!("QEMU has volume {id}, which is not the instance's");
            self.unplug(qmp, id, UNPLUG_GLANCE).await?;
        }
        Ok(())
    }

    /// The monitor of a running guest.
    fn live_monitor(&self) -> Option<qmp::Qmp> {
        let (qmp, _) = self.vm.as_ref()?.monitor.as_ref()?;
        (self.phase == Phase::Running && qmp.closed_reason().is_none()).then(|| qmp.clone())
    }

    /// Plugs a volume in, or finds it plugged.
    async fn plug(&self, qmp: &qmp::Qmp, volume: &VolumeRow) -> Result<(), TaskError> {
        let name = node_name(&volume.id);
        let ports = ports(qmp).await?;
        if ports.iter().any(|p| p.holds(&volume.id)) {
            return Ok(());
        }
        let free = ports
            .iter()
            .filter(|p| p.device.is_none())
            .map(|p| p.slot)
            .min();
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

/// A slot for a hot-pluggable device, and what is in it.
#[derive(Debug, PartialEq, Eq)]
struct Port {
    slot: usize,
    device: Option<String>,
}

impl Port {
    fn holds(&self, volume: &str) -> bool {
        self.device.as_deref() == Some(&device_name(volume))
    }
}

async fn ports(qmp: &qmp::Qmp) -> Result<Vec<Port>, TaskError> {
    let buses = qmp.execute_raw("query-pci", Value::Null).await?;
    Ok(ports_of(&buses))
}

/// The root ports `slot0`, `slot1`, … in the answer to `query-pci`. Pure.
fn ports_of(buses: &Value) -> Vec<Port> {
    let devices = |v: &Value| v.get("devices").and_then(Value::as_array).cloned();
    let id = |v: &Value| v.get("qdev_id").and_then(Value::as_str).map(str::to_owned);
    let buses = buses.as_array().cloned().unwrap_or_default();
    let all = buses.iter().filter_map(devices).flatten();
    all.filter_map(|port| {
        let slot = id(&port)?.strip_prefix("slot")?.parse().ok()?;
        let behind = port.get("pci_bridge").and_then(devices).unwrap_or_default();
        // A device of which nothing is known takes the slot as well.
        let device = behind.first().map(|d| id(d).unwrap_or_default());
        Some(Port { slot, device })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_from_the_bus() {
        let port = |id: &str, devices: Value| {
            json!({"bus": 0, "slot": 16, "function": 0, "qdev_id": id,
                   "pci_bridge": {"bus": {"number": 1}, "devices": devices}})
        };
        let answer = json!([{"bus": 0, "devices": [
            {"bus": 0, "slot": 1, "qdev_id": "net0-dev"},
            {"bus": 0, "slot": 31, "qdev_id": ""},
            port("slot0", json!([{"bus": 1, "slot": 0, "qdev_id": "vol-ab-dev"}])),
            port("slot1", json!([])),
            port("slot2", json!([{"bus": 3, "slot": 0}])),
            {"bus": 0, "slot": 17, "qdev_id": "slot3"},
        ]}]);
        let expected = [(0, Some("vol-ab-dev")), (1, None), (2, Some("")), (3, None)];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(slot, d)| Port {
                slot,
                device: d.map(str::to_owned),
            })
            .collect();
        assert_eq!(ports_of(&answer), expected);
        assert_eq!(ports_of(&json!({"lies": 1})), []);
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
