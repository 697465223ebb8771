//! What the host's network has to do for one guest.

use std::{collections::BTreeSet, fmt, net::Ipv6Addr, str::FromStr};

use crate::{
    address::GuestNet,
    error::Error,
    index::GuestIndex,
    ipv4::{GuestIpv4, Ipv4Pool},
    port::{self, PortRule},
};

/// The name of a guest's tap on the host: `vmtap7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapName(String);

impl TapName {
    /// What all taps' names begin with. Interfaces with such names are the agent's alone.
    pub const PREFIX: &'static str = "vmtap";

    /// The tap of a guest.
    #[must_use]
    pub fn new(index: GuestIndex) -> Self {
        Self(format!("{}{index}", Self::PREFIX))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The guest's: locally administered, unicast. The index makes it unique on the host; a byte of
    /// the id makes it likely that the next guest of the same index has another one.
    #[must_use]
    pub fn guest(index: GuestIndex, id_hex: &str) -> Self {
        let id = id_hex
            .get(..2)
            .and_then(|d| u8::from_str_radix(d, 16).ok())
            .unwrap_or(0);
        let [a, b, c, d] = index.0.to_be_bytes();
        Self([0x52, id, a, b, c, d])
    }

    /// That of the host's end of the same tap: another one, and always the same, so that a guest's
    /// neighbour cache outlives a new tap.
    #[must_use]
    pub fn host_end(self) -> Self {
        let [_, id, a, b, c, d] = self.0;
        Self([0x56, id, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let no = || Error::BadName {
            name: text.chars().take(64).collect(),
            what: "an Ethernet interface",
            why: "a MAC address is six hexadecimal bytes, as in 52:00:00:00:00:01",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(no)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(no());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| no())?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or_else(no)
    }
}

/// Everything that the host's network has to know of one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    /// Its slot.
    pub index: GuestIndex,
    /// Its MAC address: frames from any other are dropped.
    pub mac: Mac,
    /// Its tap on the host.
    pub tap: TapName,
    /// Its IPv6 network.
    pub network: GuestNet,
    /// Its IPv4 network, where there is NAT.
    pub ipv4: Option<GuestIpv4>,
    /// Ports open from outside.
    pub ports: BTreeSet<PortRule>,
}

impl GuestSpec {
    /// Most ranges of ports of one guest, once those that overlap or touch are joined. Single ports
    /// are not counted.
    pub const MAX_RANGES: usize = 128;

    /// The guest with an index and an id. Without a pool, or past its end, it has no IPv4.
    #[must_use]
    pub fn new(
        index: GuestIndex,
        id_hex: &str,
        network: GuestNet,
        ipv4: Option<&Ipv4Pool>,
        ports: BTreeSet<PortRule>,
    ) -> Self {
        Self {
            index,
            mac: Mac::guest(index, id_hex),
            tap: TapName::new(index),
            network,
            ipv4: ipv4.and_then(|pool| pool.network(index)),
            ports,
        }
    }

    /// The link-local address of the host's end of every tap.
    pub const HOST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    /// Checks what types cannot.
    ///
    /// # Errors
    /// More ranges of ports than [`Self::MAX_RANGES`].
    pub fn check(&self) -> Result<(), Error> {
        let count = port::disjoint(&self.ports)
            .iter()
            .filter(|r| !r.is_single())
            .count();
        if count > Self::MAX_RANGES {
            return Err(Error::TooManyRanges {
                count,
                max: Self::MAX_RANGES,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_guest() {
        let guest = GuestSpec::new(
            GuestIndex(258),
            "deadbeefcafe",
            "2001:db8::3:dead:beef:caf0/124".parse().unwrap(),
            Some(&"172.16.0.0/12".parse().unwrap()),
            ["22".parse().unwrap()].into(),
        );
        assert_eq!(guest.tap.as_str(), "vmtap258");
        assert_eq!(guest.mac.to_string(), "52:de:00:00:01:02");
        assert_eq!(guest.mac.host_end().to_string(), "56:de:00:00:01:02");
        assert_eq!(guest.ipv4.unwrap().guest.to_string(), "172.17.2.2");
        assert!(guest.check().is_ok());
    }

    #[test]
    fn too_many_ranges() {
        let range = |n: u16| format!("{}-{}", n * 10 + 1, n * 10 + 3).parse().unwrap();
        let network = "2001:db8::3:dead:beef:caf0/124".parse().unwrap();
        let guest = |ports| GuestSpec::new(GuestIndex(0), "", network, None, ports);
        assert!(guest((0..128).map(range).collect()).check().is_ok());
        assert!(guest((0..129).map(range).collect()).check().is_err());
        let single = |n: u16| (n * 2).to_string().parse().unwrap();
        assert!(guest((1..2000).map(single).collect()).check().is_ok());
    }

    proptest! {
        #[test]
        fn addresses_are_unicast_local_and_unique(a in any::<u32>(), b in any::<u32>(), id in ".{0,8}") {
            let (x, y) = (Mac::guest(GuestIndex(a), &id), Mac::guest(GuestIndex(b), &id));
            prop_assert_eq!(a == b, x == y);
            for mac in [x, x.host_end()] {
                prop_assert_eq!(mac.0[0] & 3, 2);
                prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
            }
            prop_assert_ne!(x, x.host_end());
            // An interface's name has at most 15 bytes.
            prop_assert!(TapName::new(GuestIndex(a)).as_str().len() <= 15);
        }
    }
}
