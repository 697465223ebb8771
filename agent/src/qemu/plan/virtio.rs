//! Virtio devices that have no file and no network behind them.

use serde_json::json;

use super::arguments::Builder;

/// Entropy, and memory that the guest gives back.
pub(super) fn virtio(b: &mut Builder) {
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
