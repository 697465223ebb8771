//! What the driver in a guest takes of the work on packets, as its tap has to know it.

/// What a tap is told of the driver at its other end: how long the header before each frame is,
/// and which unfinished packets the driver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    pub(crate) header_size: i32,
    pub(crate) flags: u32,
}

/// Of `linux/if_tun.h`, with the features of virtio 1.2 (section 5.1.3) that allow them.
const FLAGS: [(&str, u32); 7] = [
    ("VIRTIO_NET_F_GUEST_CSUM", 0x01),
    ("VIRTIO_NET_F_GUEST_TSO4", 0x02),
    ("VIRTIO_NET_F_GUEST_TSO6", 0x04),
    ("VIRTIO_NET_F_GUEST_ECN", 0x08),
    ("VIRTIO_NET_F_GUEST_UFO", 0x10),
    ("VIRTIO_NET_F_GUEST_USO4", 0x20),
    ("VIRTIO_NET_F_GUEST_USO6", 0x40),
];
/// `TUN_F_CSUM`: all others need it.
const CHECKSUM: u32 = 0x01;
/// `TUN_F_USO4` and `TUN_F_USO6`, which Linux knows since 6.2.
const UDP_SEGMENTS: u32 = 0x60;

impl Offloads {
    /// What a driver has negotiated: `has` tells of a feature, by its name in the specification,
    /// whether it is on.
    #[must_use]
    pub fn negotiated(has: impl Fn(&str) -> bool) -> Self {
        // Sections 5.1.6 and 5.1.6.4: `struct virtio_net_hdr` and what is added to it.
        let header_size = if has("VIRTIO_F_VERSION_1") {
            if has("VIRTIO_NET_F_HASH_REPORT") {
                20
            } else {
                12
            }
        } else if has("VIRTIO_NET_F_MRG_RXBUF") {
            12
        } else {
            10
        };
        let on = FLAGS.iter().filter(|(name, _)| has(name));
        let flags = on.fold(0, |flags, (_, flag)| flags | flag);
        Self {
            header_size,
            flags: if flags & CHECKSUM == 0 { 0 } else { flags },
        }
    }

    /// Of a driver of which nothing is known: one of virtio 1.0 gets packets, finished ones.
    #[must_use]
    pub fn unknown() -> Self {
        Self::negotiated(|name| name == "VIRTIO_F_VERSION_1")
    }

    /// For a kernel that does not know all of the flags.
    pub(crate) fn without_udp_segments(self) -> Self {
        Self {
            flags: self.flags & !UDP_SEGMENTS,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_told_what_the_driver_negotiated() {
        let table: [(&[&str], i32, u32); 7] = [
            (&[], 10, 0),
            (&["VIRTIO_NET_F_MRG_RXBUF"], 12, 0),
            (&["VIRTIO_F_VERSION_1"], 12, 0),
            (&["VIRTIO_F_VERSION_1", "VIRTIO_NET_F_HASH_REPORT"], 20, 0),
            // Nothing without checksums (section 5.1.3.1).
            (&["VIRTIO_F_VERSION_1", "VIRTIO_NET_F_GUEST_TSO4"], 12, 0),
            (
                &[
                    "VIRTIO_F_VERSION_1",
                    "VIRTIO_NET_F_GUEST_CSUM",
                    "VIRTIO_NET_F_GUEST_TSO4",
                    "VIRTIO_NET_F_GUEST_TSO6",
                    "VIRTIO_NET_F_GUEST_ECN",
                ],
                12,
                0x0f,
            ),
            (
                &[
                    "VIRTIO_NET_F_GUEST_CSUM",
                    "VIRTIO_NET_F_GUEST_UFO",
                    "VIRTIO_NET_F_GUEST_USO4",
                    "VIRTIO_NET_F_GUEST_USO6",
                ],
                10,
                0x71,
            ),
        ];
        for (features, header_size, flags) in table {
            let told = Offloads::negotiated(|name| features.contains(&name));
            assert_eq!(told, Offloads { header_size, flags }, "{features:?}");
        }
        let older = Offloads::negotiated(|_| true).without_udp_segments();
        assert_eq!(older.flags, 0x1f);
        assert_eq!(Offloads::unknown().header_size, 12);
    }
}
