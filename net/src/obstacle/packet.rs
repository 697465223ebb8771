//! The packets that every guest depends on, and where they pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Traffic, tables::BaseChain};

/// A guest and an uplink of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) tap: String,
    pub(crate) uplink: String,
    pub(crate) guest: Ipv6Addr,
    pub(crate) gateway: Ipv6Addr,
    /// The guest's address behind NAT.
    pub(crate) ipv4: Option<Ipv4Addr>,
}

/// An upper layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer4 {
    Tcp { from: u16, to: u16 },
    Icmp6(&'static str),
}

/// A packet on its way.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) traffic: Traffic,
    /// Interfaces that it comes from and goes to; the host itself has none.
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) layer4: Layer4,
    pub(super) established: bool,
    pub(super) tap: String,
}

impl Packet {
    /// Whether a chain sees it. Bridges' hooks see no routed packet.
    pub(super) fn meets(&self, chain: &BaseChain) -> bool {
        let family = match chain.table.family.as_str() {
            "inet" | "netdev" => true,
            "ip" => self.source.is_ipv4(),
            "ip6" => self.source.is_ipv6(),
            _ => false,
        };
        family
            && match chain.hook.as_str() {
                "ingress" => self
                    .from
                    .as_ref()
                    .is_some_and(|i| chain.devices.contains(i)),
                "egress" => self.to.as_ref().is_some_and(|i| chain.devices.contains(i)),
                "prerouting" => self.from.is_some(),
                "input" => self.to.is_none(),
                "forward" => self.from.is_some() && self.to.is_some(),
                "output" => self.from.is_none(),
                "postrouting" => self.to.is_some(),
                _ => false,
            }
    }

    /// The interface as rules of a hook see it: an empty name where there is none.
    pub(super) fn interface(&self, incoming: bool, hook: &str) -> &str {
        let hidden = if incoming {
            matches!(hook, "output" | "egress")
        } else {
            matches!(hook, "prerouting" | "input" | "ingress")
        };
        let interface = if incoming { &self.from } else { &self.to };
        interface.as_deref().filter(|_| !hidden).unwrap_or_default()
    }
}

/// Somewhere on the internet, nobody's.
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2a0e, 0x97c0, 0, 0, 0, 0, 0, 0x1234);
const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(45, 83, 12, 34);

pub(super) fn all(sample: &Sample) -> Vec<Packet> {
    let tap = || Some(sample.tap.clone());
    let uplink = || Some(sample.uplink.clone());
    let guest = IpAddr::V6(sample.guest);
    let outside = IpAddr::V6(OUTSIDE);
    let host = IpAddr::V6(sample.gateway);
    let tcp = |from, to| Layer4::Tcp { from, to };
    let packet = |traffic, from, to, ip: (IpAddr, IpAddr), layer4, established| Packet {
        traffic,
        from,
        to,
        source: ip.0,
        destination: ip.1,
        layer4,
        established,
        tap: sample.tap.clone(),
    };
    use Traffic::{Answers, FromGuests, Host, Ipv4, NeighbourDiscovery, ToGuests};
    let (high, ssh, https) = (49_152, 22, 443);
    let link_local = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    let solicit = Layer4::Icmp6("nd-neighbor-solicit");
    let advert = Layer4::Icmp6("nd-neighbor-advert");
    let discovery = NeighbourDiscovery;
    let mut all = vec![
        packet(
            ToGuests,
            uplink(),
            tap(),
            (outside, guest),
            tcp(high, ssh),
            false,
        ),
        packet(
            FromGuests,
            tap(),
            uplink(),
            (guest, outside),
            tcp(high, https),
            false,
        ),
        packet(
            Answers,
            tap(),
            uplink(),
            (guest, outside),
            tcp(ssh, high),
            true,
        ),
        packet(
            Answers,
            uplink(),
            tap(),
            (outside, guest),
            tcp(https, high),
            true,
        ),
        packet(discovery, tap(), None, (guest, host), solicit, false),
        packet(discovery, tap(), None, (guest, link_local), advert, false),
        packet(discovery, None, tap(), (link_local, guest), solicit, false),
        packet(discovery, None, tap(), (host, guest), advert, false),
        packet(Host, None, tap(), (host, guest), tcp(high, ssh), false),
        packet(Host, tap(), None, (guest, host), tcp(ssh, high), true),
    ];
    if let Some(ipv4) = sample.ipv4 {
        let (guest, outside) = (IpAddr::V4(ipv4), IpAddr::V4(OUTSIDE4));
        all.push(packet(
            Ipv4,
            tap(),
            uplink(),
            (guest, outside),
            tcp(high, https),
            false,
        ));
        all.push(packet(
            Ipv4,
            uplink(),
            tap(),
            (outside, guest),
            tcp(https, high),
            true,
        ));
    }
    all
}
