//! What QEMU has of volumes: plugged in, looked at, unplugged, over its monitor.

use std::{collections::BTreeMap, os::fd::AsFd, time::Duration};

use disk::ByteSize;
use serde::Deserialize;
use serde_json::json;

use crate::{
    db::VolumeRow,
    fault,
    qemu::{
        names::{
            MAX_VOLUMES, PERIPHERAL, VolumeNode, slot_of_bus, volume_device_name, volume_of_device,
        },
        plan::{GuestMemory, HOTPLUG_FDSET, volume_device, volume_nodes},
    },
    tasks::TaskError,
    volume::Volumes,
};

/// What QEMU has of one volume.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenVolume {
    /// The size of its block node, if it has its file open.
    pub(super) bytes: Option<u64>,
    /// Whether the guest has a device of it.
    pub(super) device: bool,
}

/// What QEMU has of volumes, by their ids.
pub(super) async fn inventory(qmp: &qmp::Qmp) -> Result<BTreeMap<String, OpenVolume>, TaskError> {
    let mut all = BTreeMap::<_, OpenVolume>::new();
    for node in nodes(qmp).await? {
        if let Some(VolumeNode::Format(id)) = VolumeNode::parse(&node.name) {
            all.entry(id.to_owned()).or_default().bytes = Some(node.bytes);
        }
    }
    for plugged in plugged(qmp).await? {
        all.entry(plugged.volume).or_default().device = true;
    }
    Ok(all)
}

/// Gives a volume that is open a new size.
pub(super) async fn resize(qmp: &qmp::Qmp, id: &str, size: ByteSize) -> Result<(), TaskError> {
    let node = VolumeNode::Format(id).name();
    Ok(qmp.block_resize(&node, size.bytes()).await?)
}

/// Plugs a volume in with its recorded size, or finds it plugged.
pub(super) async fn plug(
    qmp: &qmp::Qmp,
    volumes: &Volumes,
    volume: &VolumeRow,
) -> Result<(), TaskError> {
    let id = volume.id.as_str();
    let plugged = plugged(qmp).await?;
    if plugged.iter().any(|p| p.volume == id) {
        return Ok(());
    }
    let free = (0..MAX_VOLUMES).find(|slot| plugged.iter().all(|p| p.slot != *slot));
    let slot = free.ok_or_else(|| {
        TaskError::Refused("the machine has no free slot; the next start makes room".into())
    })?;
    // What a try that was cut off left, or a device that the guest ejected.
    close(qmp, id).await?;
    let set = HOTPLUG_FDSET + u32::try_from(slot).unwrap_or(u32::MAX - HOTPLUG_FDSET);
    if qmp
        .fd_sets()
        .await?
        .iter()
        .any(|s| s.fdset_id == i64::from(set))
    {
        qmp.remove_fd(set).await?;
    }
    let file = volumes.open(volume).await?;
    let name = VolumeNode::Format(id).name();
    qmp.add_fd(file.as_fd(), set, &name).await?;
    for node in volume_nodes(id, &format!("/dev/fdset/{set}")) {
        qmp.blockdev_add(node).await?;
    }
    fault::point("opened", "attach");
    // QEMU closes the descriptors when the node goes: nothing else is to be kept.
    qmp.remove_fd(set).await?;
    Ok(qmp
        .device_add(volume_device(id, slot, GuestMemory::Open))
        .await?)
}

/// Unplugs a volume and has its file closed, or finds it unplugged.
///
/// # Errors
/// [`TaskError::Pending`] when the guest has not let go of it after `limit`.
pub(super) async fn unplug(qmp: &qmp::Qmp, id: &str, limit: Duration) -> Result<(), TaskError> {
    match qmp.device_del(&volume_device_name(id), limit).await {
        Ok(()) => {}
        Err(e) if e.refused_class() == Some(&qmp::qapi::ErrorClass::DeviceNotFound) => {}
        Err(qmp::Error::UnplugTimeout { .. } | qmp::Error::UnplugRefused { .. }) => {
            let message = "the guest has not let go of the volume: it is detached when \
                           the guest lets go, at the latest when it reboots or stops";
            return Err(TaskError::Pending(message.into()));
        }
        Err(e) => return Err(e.into()),
    }
    close(qmp, id).await
}

/// Has QEMU close a volume that no device uses.
pub(super) async fn close(qmp: &qmp::Qmp, id: &str) -> Result<(), TaskError> {
    let mut left = nodes(qmp).await?;
    // The file's node is the other's child: it goes last.
    left.sort_by_key(|n| n.name.len());
    left.retain(|n| VolumeNode::parse(&n.name).is_some_and(|n| n.id() == id));
    for node in &left {
        qmp.blockdev_del(&node.name).await?;
    }
    // QEMU keeps the descriptors that it was started with until it is told not to.
    let sets: Vec<_> = left.iter().filter_map(|n| fd_set_of(&n.file)).collect();
    for known in qmp.fd_sets().await? {
        if let Ok(set) = u32::try_from(known.fdset_id)
            && sets.contains(&set)
        {
            qmp.remove_fd(set).await?;
        }
    }
    Ok(())
}

/// The set of descriptors that a file of QEMU's is: `/dev/fdset/3`.
fn fd_set_of(file: &str) -> Option<u32> {
    file.strip_prefix("/dev/fdset/")?.parse().ok()
}

struct Node {
    name: String,
    file: String,
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
                file: n.file,
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
    let all: Vec<Child> = qmp
        .execute_as("qom-list", json!({ "path": PERIPHERAL }))
        .await?;
    let mut plugged = Vec::new();
    for (volume, path) in devices_of(&all) {
        let parent = json!({ "path": path, "property": "parent_bus" });
        match qmp.execute_as::<String>("qom-get", parent).await {
            Ok(bus) => {
                let slot = slot_of_bus(&bus).ok_or_else(|| {
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

/// One of what `qom-list` tells. QEMU's answers are typed: what a lying one adds is not kept.
#[derive(Debug, Deserialize)]
struct Child {
    name: String,
}

/// Volumes and the paths of their devices in the answer to `qom-list`. Pure.
fn devices_of(children: &[Child]) -> Vec<(String, String)> {
    let names = children.iter().map(|child| child.name.as_str());
    names
        .filter_map(|name| {
            let volume = volume_of_device(name)?;
            Some((volume.to_owned(), format!("{PERIPHERAL}/{name}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
        let read = |answer: Value| serde_json::from_value::<Vec<Child>>(answer);
        let ours = ["ab", "cd"].map(|v| (v.to_owned(), format!("{PERIPHERAL}/vol-{v}-dev")));
        let answer = read(json!(names.map(child))).unwrap();
        assert_eq!(devices_of(&answer), ours);
        for lies in [json!({ "lies": 1 }), json!([1, { "name": 2 }])] {
            assert!(read(lies).is_err());
        }
    }
}
