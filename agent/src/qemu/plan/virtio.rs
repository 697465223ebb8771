//! Virtio devices: what all have in common, and those with no file and no network behind them.

use serde_json::{Value, json};

use super::{arguments::Builder, launch::Launch, protection::GuestMemory};

/// A device as a guest with this memory can use it. Where memory is private, the device
/// reaches what the guest shares alone, and says so by a feature that modern devices have.
pub(super) fn device(mut device: Value, memory: GuestMemory) -> Value {
    if memory == GuestMemory::Private {
        device["iommu_platform"] = true.into();
        device["disable-legacy"] = "on".into();
    }
    device
}

/// Entropy, and memory that the guest gives back. A guest that keeps its host out wants
/// neither: the host would know the one, and private memory cannot be given back.
pub(super) fn virtio(b: &mut Builder, l: &Launch) {
    if l.protection.memory() == GuestMemory::Private {
        return;
    }
    b.json("-object", &json!({"qom-type": "rng-builtin", "id": "rng0"}));
    b.json(
        "-device",
        &json!({"driver": "virtio-rng-pci", "rng": "rng0"}),
    );
    b.json(
        "-device",
        &json!({"driver": "virtio-balloon-pci", "id": "balloon", "deflate-on-oom": true,
                "free-page-reporting": true}),
    );
}
