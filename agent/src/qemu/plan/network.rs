//! The guest's network device.

use serde_json::json;

use super::{
    arguments::{Builder, FIRST_FD},
    launch::Launch,
    virtio,
};

/// The number of the tap's descriptor, the same in every QEMU: it is fetched back from
/// there when somebody removes the interface.
pub const TAP_FD: i32 = FIRST_FD;

pub(super) fn network(b: &mut Builder, l: &Launch) {
    b.arg("-netdev", format!("tap,id=net0,fd={TAP_FD}"));
    let device = json!({"driver": "virtio-net-pci", "id": "net0-dev", "netdev": "net0",
                        "mac": l.mac, "host_mtu": l.mtu, "romfile": ""});
    b.json("-device", &virtio::device(device, l.protection.memory()));
}
