//! Disks: the root overlay and its base image, the seed, volumes.

use serde_json::{Value, json};

use super::{
    arguments::{Builder, FdSource},
    launch::{DiskFormat, Launch},
    protection::GuestMemory,
    virtio,
};
use crate::qemu::names::{MAX_VOLUMES, VolumeNode, slot_name, volume_device_name};

/// Descriptor sets of volumes that are attached while QEMU runs start here.
pub const HOTPLUG_FDSET: u32 = 100;

/// The two block nodes of a QCOW2 volume, as `-blockdev` and `blockdev-add` take them.
#[must_use]
pub fn volume_nodes(id: &str, fdset: &str) -> [Value; 2] {
    let (format, file) = (VolumeNode::Format(id).name(), VolumeNode::File(id).name());
    [
        json!({"driver": "file", "node-name": file, "filename": fdset, "discard": "unmap"}),
        json!({"driver": "qcow2", "node-name": format, "file": file, "backing": null,
               "discard": "unmap", "detect-zeroes": "unmap"}),
    ]
}

/// The device of a volume, in the given slot for hot-pluggable devices.
#[must_use]
pub fn volume_device(id: &str, slot: usize, memory: GuestMemory) -> Value {
    let device = json!({"driver": "virtio-blk-pci", "id": volume_device_name(id),
                        "bus": slot_name(slot), "drive": VolumeNode::Format(id).name(),
                        "serial": id, "iothread": "io0"});
    virtio::device(device, memory)
}

pub(super) fn disks(b: &mut Builder, l: &Launch) {
    let memory = l.protection.memory();
    b.json("-object", &json!({"qom-type": "iothread", "id": "io0"}));
    // Many read it, and none has to ask the others: with locks any one of them could keep the
    // next from starting.
    let base = b.file(FdSource::ReadOnly(l.base.0.clone()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "base-file", "filename": base,
                "read-only": true, "auto-read-only": false, "locking": "off"}),
    );
    let mut node = json!({"driver": l.base.1.driver(), "node-name": "base", "file": "base-file",
                          "read-only": true});
    if l.base.1 == DiskFormat::Qcow2 {
        // Whatever its header says: a base image has nothing under it.
        node["backing"] = Value::Null;
    }
    b.json("-blockdev", &node);
    let root = b.file(FdSource::ReadWrite(l.root.clone()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "root-file", "filename": root,
                "discard": "unmap"}),
    );
    b.json(
        "-blockdev",
        &json!({"driver": "qcow2", "node-name": "root", "file": "root-file", "backing": "base",
                "discard": "unmap", "detect-zeroes": "unmap"}),
    );
    let device = json!({"driver": "virtio-blk-pci", "id": "root-dev", "drive": "root",
                        "bootindex": 1, "serial": "root", "iothread": "io0"});
    b.json("-device", &virtio::device(device, memory));
    if let Some(seed) = l.protection.seed() {
        let seed = b.file(FdSource::ReadOnly(seed.clone()));
        b.json(
            "-blockdev",
            &json!({"driver": "file", "node-name": "seed-file", "filename": seed,
                    "read-only": true, "auto-read-only": false}),
        );
        b.json(
            "-blockdev",
            &json!({"driver": "raw", "node-name": "seed", "file": "seed-file",
                    "read-only": true}),
        );
        let device = json!({"driver": "virtio-blk-pci", "id": "seed-dev", "drive": "seed",
                            "serial": "seed"});
        b.json("-device", &virtio::device(device, memory));
    }
    // Root ports: what sits behind one can come and go while the guest runs. No
    // I/O windows: the machine has too few of them, and virtio needs none.
    for slot in 0..MAX_VOLUMES {
        let (device, function) = (0x10 + slot / 8, slot % 8);
        b.json(
            "-device",
            &json!({"driver": "pcie-root-port", "id": slot_name(slot), "bus": "pcie.0",
                    "addr": format!("0x{device:x}.0x{function:x}"), "multifunction": function == 0,
                    "chassis": slot + 1, "slot": slot + 1, "io-reserve": 0}),
        );
    }
    for (slot, volume) in l.volumes.iter().take(MAX_VOLUMES).enumerate() {
        let fdset = b.file(FdSource::ReadWrite(volume.path.clone()));
        for node in volume_nodes(&volume.id, &fdset) {
            b.json("-blockdev", &node);
        }
        b.json("-device", &volume_device(&volume.id, slot, memory));
    }
}
