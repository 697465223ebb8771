//! What things are called inside QEMU: written by the plan and by hot-plug, read
//! back from what QEMU answers. Both directions are here.

/// Most volumes attached to one instance at a time: the machine has a root port, a
/// slot, for each.
pub const MAX_VOLUMES: usize = 16;

/// Where QEMU's object tree keeps the devices that have an id.
pub const PERIPHERAL: &str = "/machine/peripheral";

const VOLUME: &str = "vol-";
const FILE: &str = "-file";
const DEVICE: &str = "-dev";
const SLOT: &str = "slot";

/// A block node of a volume. Each volume has two: the format, and under it the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeNode<'a> {
    /// The QCOW2 node, whose size is the volume's.
    Format(&'a str),
    /// The file under it.
    File(&'a str),
}

impl<'a> VolumeNode<'a> {
    /// The node that QEMU names so, if it is a volume's.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let rest = name.strip_prefix(VOLUME)?;
        match rest.strip_suffix(FILE) {
            Some(id) => is_id(id).then_some(Self::File(id)),
            None => is_id(rest).then_some(Self::Format(rest)),
        }
    }

    /// The volume.
    #[must_use]
    pub fn id(self) -> &'a str {
        match self {
            Self::Format(id) | Self::File(id) => id,
        }
    }

    /// Its name in QEMU.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Format(id) => format!("{VOLUME}{id}"),
            Self::File(id) => format!("{VOLUME}{id}{FILE}"),
        }
    }
}

/// The id of a volume's device.
#[must_use]
pub fn volume_device_name(id: &str) -> String {
    format!("{VOLUME}{id}{DEVICE}")
}

/// The volume whose device has this id.
#[must_use]
pub fn volume_of_device(name: &str) -> Option<&str> {
    let id = name.strip_prefix(VOLUME)?.strip_suffix(DEVICE)?;
    is_id(id).then_some(id)
}

/// The name of a slot: of its root port, and of the bus behind it.
#[must_use]
pub fn slot_name(slot: usize) -> String {
    format!("{SLOT}{slot}")
}

/// The slot whose bus has this path in QEMU's object tree:
/// `/machine/peripheral/slot3/slot3`.
#[must_use]
pub fn slot_of_bus(path: &str) -> Option<usize> {
    let (_, bus) = path.rsplit_once('/')?;
    let slot = bus.strip_prefix(SLOT)?.parse().ok()?;
    // One spelling for each: not `slot+3`, not `slot03`.
    (slot < MAX_VOLUMES && slot_name(slot) == bus).then_some(slot)
}

/// Volumes' ids are hexadecimal: no id is the beginning of another node's name.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(id in "[0-9a-f]{1,16}", slot in 0..MAX_VOLUMES) {
            for node in [VolumeNode::Format(&id), VolumeNode::File(&id)] {
                let name = node.name();
                prop_assert_eq!(VolumeNode::parse(&name), Some(node));
                prop_assert_eq!(volume_of_device(&name), None);
            }
            let device = volume_device_name(&id);
            prop_assert_eq!(volume_of_device(&device), Some(id.as_str()));
            prop_assert_eq!(VolumeNode::parse(&device), None);
            let bus = format!("{PERIPHERAL}/{0}/{0}", slot_name(slot));
            prop_assert_eq!(slot_of_bus(&bus), Some(slot));
        }

        #[test]
        fn what_is_read_is_written_so(name in "(vol-)?[0-9a-f-]{0,6}(-file|-dev)?|slot[0-9]{0,3}") {
            if let Some(node) = VolumeNode::parse(&name) {
                prop_assert_eq!(node.name(), name.clone());
            }
            if let Some(id) = volume_of_device(&name) {
                prop_assert_eq!(volume_device_name(id), name.clone());
            }
            if let Some(slot) = slot_of_bus(&format!("/{name}")) {
                prop_assert_eq!(slot_name(slot), name);
            }
        }
    }

    #[test]
    fn what_is_not_a_volumes_is_told_apart() {
        for name in [
            "",
            "root",
            "vol-",
            "vol--file",
            "vol-xy",
            "net0-dev",
            "slot0",
        ] {
            assert_eq!(VolumeNode::parse(name), None, "{name}");
            assert_eq!(volume_of_device(name), None, "{name}");
        }
        for bus in [
            "/machine/q35/pcihost/pcie.0",
            "slot1",
            "/x/slot99",
            "/x/slot+1",
            "/x/slot01",
        ] {
            assert_eq!(slot_of_bus(bus), None, "{bus}");
        }
    }
}
