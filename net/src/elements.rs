//! What the firewall's sets hold, as data: in nftables' text for people and for a whole table, in
//! the kernel's bytes for one guest's changes and for comparing.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use crate::{
    address::GuestNet,
    guest::{GuestSpec, Mac, TapName},
    port::{self, Proto},
};

/// Families of the agent's two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Inet,
    /// Requests for MAC addresses, which no chain of `inet` sees.
    Arp,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Inet, Self::Arp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Arp => "arp",
        }
    }
}

/// The tables' sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Set {
    Macs,
    Sources,
    Networks,
    Sources4,
    Senders,
    Ports,
    Ranges,
    Ranged,
    Uplinks,
}

impl Set {
    pub(crate) const ALL: [Self; 9] = [
        Self::Macs,
        Self::Sources,
        Self::Networks,
        Self::Sources4,
        Self::Senders,
        Self::Ports,
        Self::Ranges,
        Self::Ranged,
        Self::Uplinks,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Macs => "macs",
            Self::Sources => "sources",
            Self::Networks => "networks",
            Self::Sources4 => "sources4",
            Self::Senders => "senders",
            Self::Ports => "ports",
            Self::Ranges => "ranges",
            Self::Ranged => "ranged",
            Self::Uplinks => "uplinks",
        }
    }

    /// The family of its table.
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Senders => Family::Arp,
            _ => Family::Inet,
        }
    }

    /// Its declaration. All are hashes but `ranges`, which only guests with ranges reach.
    pub(crate) fn declaration(self) -> &'static str {
        match self {
            Self::Macs => "type ifname . ether_addr;",
            Self::Sources => "type ifname . ipv6_addr;",
            Self::Networks => "type ipv6_addr;",
            Self::Sources4 | Self::Senders => "type ifname . ipv4_addr;",
            Self::Ports => "type ifname . inet_proto . inet_service;",
            Self::Ranges => "type ifname . inet_proto . inet_service;\n\t\tflags interval;",
            Self::Ranged | Self::Uplinks => "type ifname;",
        }
    }
}

/// An element of one of the sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// Frames from this tap have this source.
    Mac(TapName, Mac),
    /// Packets from this tap have a source in this network.
    Source(TapName, GuestNet),
    /// No packet from elsewhere than its tap has a source in this network.
    Network(GuestNet),
    /// IPv4 packets from this tap have this source.
    Source4(TapName, Ipv4Addr),
    /// ARP from this tap speaks for this address.
    Sender(TapName, Ipv4Addr),
    /// An open port.
    Port(TapName, Proto, u16),
    /// Open ports, from the first to the last.
    Range(TapName, Proto, u16, u16),
    /// The guest has ranges.
    Ranged(TapName),
    /// Guests reach the internet through it.
    Uplink(String),
}

/// An element as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) set: Set,
    pub(crate) start: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
}

impl Element {
    /// All elements of a guest.
    pub(crate) fn of_guest(guest: &GuestSpec) -> BTreeSet<Self> {
        let tap = || guest.tap.clone();
        let mut all = Self::of_ports(guest);
        all.insert(Self::Mac(tap(), guest.mac));
        all.insert(Self::Source(tap(), guest.network));
        all.insert(Self::Network(guest.network));
        if let Some(ipv4) = guest.ipv4 {
            all.insert(Self::Source4(tap(), ipv4.guest));
            all.insert(Self::Sender(tap(), ipv4.guest));
        }
        all
    }

    /// Those of its open ports.
    pub(crate) fn of_ports(guest: &GuestSpec) -> BTreeSet<Self> {
        let tap = || guest.tap.clone();
        let mut all = BTreeSet::new();
        for rule in port::disjoint(&guest.ports) {
            if rule.is_single() {
                all.insert(Self::Port(tap(), rule.proto(), rule.first()));
            } else {
                all.insert(Self::Ranged(tap()));
                all.insert(Self::Range(tap(), rule.proto(), rule.first(), rule.last()));
            }
        }
        all
    }

    pub(crate) fn set(&self) -> Set {
        match self {
            Self::Mac(..) => Set::Macs,
            Self::Source(..) => Set::Sources,
            Self::Network(_) => Set::Networks,
            Self::Source4(..) => Set::Sources4,
            Self::Sender(..) => Set::Senders,
            Self::Port(..) => Set::Ports,
            Self::Range(..) => Set::Ranges,
            Self::Ranged(_) => Set::Ranged,
            Self::Uplink(_) => Set::Uplinks,
        }
    }

    /// The kernel's form: fields one after the other, each filled up to four bytes.
    pub(crate) fn key(&self) -> Key {
        let one = |interface: &str, fields: &[&[u8]]| {
            let mut key = vec![0; 16];
            for (to, from) in key.iter_mut().zip(interface.bytes()) {
                *to = from;
            }
            for field in fields {
                key.extend_from_slice(field);
                key.resize(key.len().next_multiple_of(4), 0);
            }
            key
        };
        let port = |tap: &TapName, proto: Proto, port: u16| {
            one(tap.as_str(), &[&[proto.number()], &port.to_be_bytes()])
        };
        let (start, end) = match self {
            Self::Mac(tap, mac) => (one(tap.as_str(), &[&mac.0]), None),
            Self::Source(tap, network) => (one(tap.as_str(), &[&network.gateway().octets()]), None),
            Self::Network(network) => (network.gateway().octets().to_vec(), None),
            Self::Source4(tap, address) | Self::Sender(tap, address) => {
                (one(tap.as_str(), &[&address.octets()]), None)
            }
            Self::Port(tap, proto, n) => (port(tap, *proto, *n), None),
            Self::Range(tap, proto, first, last) => {
                (port(tap, *proto, *first), Some(port(tap, *proto, *last)))
            }
            Self::Ranged(tap) => (one(tap.as_str(), &[]), None),
            Self::Uplink(name) => (one(name, &[]), None),
        };
        Key {
            set: self.set(),
            start,
            end,
        }
    }
}

/// As nftables writes it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(tap, mac) => write!(f, "\"{tap}\" . {mac}"),
            Self::Source(tap, network) => write!(f, "\"{tap}\" . {}", network.gateway()),
            Self::Network(network) => write!(f, "{}", network.gateway()),
            Self::Source4(tap, address) | Self::Sender(tap, address) => {
                write!(f, "\"{tap}\" . {address}")
            }
            Self::Port(tap, proto, port) => write!(f, "\"{tap}\" . {proto} . {port}"),
            Self::Range(tap, proto, first, last) => {
                write!(f, "\"{tap}\" . {proto} . {first}-{last}")
            }
            Self::Ranged(tap) => write!(f, "\"{tap}\""),
            Self::Uplink(name) => write!(f, "\"{name}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GuestIndex;

    #[test]
    fn a_guests_elements() {
        let guest = GuestSpec::new(
            GuestIndex(3),
            "ab",
            "2001:db8::3:1:2:30/124".parse().unwrap(),
            Some(&"172.16.0.0/12".parse().unwrap()),
            ["22", "80", "81", "53/udp"]
                .map(|p| p.parse().unwrap())
                .into(),
        );
        let text: Vec<_> = Element::of_guest(&guest)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            text,
            [
                "\"vmtap3\" . 52:ab:00:00:00:03",
                "\"vmtap3\" . 2001:db8::3:1:2:30",
                "2001:db8::3:1:2:30",
                "\"vmtap3\" . 172.16.3.2",
                "\"vmtap3\" . 172.16.3.2",
                "\"vmtap3\" . tcp . 22",
                "\"vmtap3\" . udp . 53",
                "\"vmtap3\" . tcp . 80-81",
                "\"vmtap3\"",
            ]
        );
    }

    #[test]
    fn keys_are_laid_out_as_the_kernel_has_them() {
        let tap = TapName::new(GuestIndex(3));
        let key = Element::Range(tap.clone(), Proto::Udp, 0x1234, 0x2345).key();
        let name = b"vmtap3\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(
            key.start,
            [&name[..], &[17, 0, 0, 0, 0x12, 0x34, 0, 0]].concat()
        );
        assert_eq!(
            key.end,
            Some([&name[..], &[17, 0, 0, 0, 0x23, 0x45, 0, 0]].concat())
        );
        let key = Element::Mac(tap, Mac([1, 2, 3, 4, 5, 6])).key();
        assert_eq!(key.start, [&name[..], &[1, 2, 3, 4, 5, 6, 0, 0]].concat());
        assert_eq!(Element::Uplink("x".repeat(15)).key().start.len(), 16);
    }
}
