//! The IPv6 address plan: from a node's prefix and an instance's id to a /124.
//!
//! The layout is the network's own, so that an instance keeps the form of address that its users
//! know:
//!
//! | bits | 64 | 16 | 44 | 4 |
//! |---|---|---|---|---|
//! | what | the prefix's first four groups | kind of VM: 3, an instance | first 11 hex digits of the id | the guest's own |
//!
//! The network address is the host's (the guest's gateway), the next one the guest's. When two ids
//! share their first 11 digits, the later one gets the next free /124 above, from the top of the 44
//! bits on to their bottom: the same id among the same neighbours gets the same network.

use std::{collections::BTreeSet, fmt, net::Ipv6Addr, str::FromStr};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The kind of VM that the fifth group tells: an instance.
const INSTANCE: u128 = 3;
/// Hex digits of the id that are part of the address.
const ID_DIGITS: usize = 11;
const ID_BITS: u32 = 44;
/// Each of at most 65,536 guests and as many reserved addresses can take one candidate.
const CANDIDATES: u32 = 1 << 17;

fn split(text: &str, example: &'static str) -> Result<(Ipv6Addr, u8), Error> {
    let no = || Error::NotANetwork {
        text: text.chars().take(64).collect(),
        example,
    };
    let (address, length) = text.split_once('/').ok_or_else(no)?;
    if !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(no());
    }
    Ok((
        address.parse().map_err(|_| no())?,
        length.parse().map_err(|_| no())?,
    ))
}

fn mask(length: u8) -> u128 {
    u128::MAX
        .checked_shl(128u32.saturating_sub(length.into()))
        .unwrap_or(0)
}

/// Refuses what no guest can be reached at.
fn for_guests(address: Ipv6Addr, length: u8) -> Result<(), Error> {
    let kind = if address.is_multicast() {
        "multicast"
    } else if address.is_unicast_link_local() {
        "link-local"
    } else if address.to_ipv4_mapped().is_some() {
        "IPv4-mapped"
    } else if address.is_loopback() {
        "the loopback address"
    } else if address.segments()[0] == 0 {
        "in the reserved block ::/16"
    } else {
        return Ok(());
    };
    Err(Error::NotForGuests {
        network: format!("{address}/{length}"),
        kind,
    })
}

/// A node's IPv6 prefix: between /16 and /112, of addresses that guests can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: Ipv6Addr,
    length: u8,
}

impl Prefix {
    const MIN: u8 = 16;
    /// Room for 4,096 networks.
    const MAX: u8 = 112;

    /// Checks a prefix.
    ///
    /// # Errors
    /// A length out of range, bits set beyond it, or a block that guests cannot live in.
    pub fn new(address: Ipv6Addr, length: u8) -> Result<Self, Error> {
        let network = || format!("{address}/{length}");
        for_guests(address, length)?;
        if length > Self::MAX {
            return Err(Error::PrefixTooLong {
                network: network(),
                max: Self::MAX,
            });
        }
        if length < Self::MIN {
            return Err(Error::PrefixLength {
                network: network(),
                min: Self::MIN,
                max: Self::MAX,
            });
        }
        let meant = Ipv6Addr::from(address.to_bits() & mask(length));
        if meant != address {
            return Err(Error::HostBits {
                network: network(),
                meant: format!("{meant}/{length}"),
            });
        }
        Ok(Self { address, length })
    }

    /// The network address.
    #[must_use]
    pub fn address(self) -> Ipv6Addr {
        self.address
    }

    /// The length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether an address is inside.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.length) == self.address.to_bits()
    }

    /// The network in which all guests' networks are: of a prefix up to /64 the /80 of instances in
    /// its first /64, of a longer one its first /80, of one past that all of it.
    pub(crate) fn guests(self) -> Ipv6Net {
        let (address, length) = match self.length {
            ..=64 => (self.address.to_bits() | INSTANCE << 48, 80),
            65..=80 => (self.address.to_bits(), 80),
            longer => (self.address.to_bits(), longer),
        };
        Ipv6Net::new_assert(address.into(), length)
    }

    /// Whether an address is in that network.
    #[must_use]
    pub fn is_guests(self, address: Ipv6Addr) -> bool {
        self.guests().contains(&address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (address, length) = split(text, "2001:db8:1:2::/64")?;
        Self::new(address, length)
    }
}

/// A guest's IPv6 network: a /124.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestNet(Ipv6Addr);

impl GuestNet {
    /// Its length in bits.
    pub const LENGTH: u8 = 124;

    /// The network address, which the host's end of the tap has: the guest's gateway.
    #[must_use]
    pub fn gateway(self) -> Ipv6Addr {
        self.0
    }

    /// The guest's address.
    #[must_use]
    pub fn guest(self) -> Ipv6Addr {
        self.nth(1)
    }

    /// The addresses that the guest may use: all but the gateway's.
    pub fn addresses(self) -> impl Iterator<Item = Ipv6Addr> {
        (1..16).map(move |n| self.nth(n))
    }

    /// Whether an address is inside, the gateway's too.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(Self::LENGTH) == self.0.to_bits()
    }

    fn nth(self, n: u128) -> Ipv6Addr {
        Ipv6Addr::from(self.0.to_bits() | n)
    }
}

impl fmt::Display for GuestNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, Self::LENGTH)
    }
}

impl FromStr for GuestNet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (address, length) = split(text, "2001:db8::3:1234:5678:9ab0/124")?;
        let network = || format!("{address}/{length}");
        if length != Self::LENGTH {
            let (min, max) = (Self::LENGTH, Self::LENGTH);
            return Err(Error::PrefixLength {
                network: network(),
                min,
                max,
            });
        }
        for_guests(address, length)?;
        let meant = Ipv6Addr::from(address.to_bits() & mask(length));
        if meant != address {
            return Err(Error::HostBits {
                network: network(),
                meant: format!("{meant}/{length}"),
            });
        }
        Ok(Self(address))
    }
}

macro_rules! string_serde {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}
string_serde!(Prefix, GuestNet);

/// How instances' networks follow from a node's prefix.
///
/// ```
/// let plan = net::AddressPlan::new("2001:db8::/64".parse()?)?;
/// let network = plan.assign("123456789ab0c0ffee", |_| false)?;
/// assert_eq!(network.to_string(), "2001:db8::3:1234:5678:9ab0/124");
/// # Ok::<(), net::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPlan {
    prefix: Prefix,
    reserved: BTreeSet<GuestNet>,
}

impl AddressPlan {
    /// The plan of a prefix. Of one shorter than /64 the first /64 is used, as the network does. One
    /// longer than /64 has no room for the kind of VM, one longer than /80 for fewer digits of the id.
    ///
    /// # Errors
    /// None today: every [`Prefix`] has room.
    pub fn new(prefix: Prefix) -> Result<Self, Error> {
        Ok(Self {
            prefix,
            reserved: BTreeSet::new(),
        })
    }

    /// The same plan without the networks that hold the given addresses: the host's own.
    #[must_use]
    pub fn avoiding(mut self, addresses: impl IntoIterator<Item = Ipv6Addr>) -> Self {
        let network = |a: Ipv6Addr| GuestNet(Ipv6Addr::from(a.to_bits() & mask(GuestNet::LENGTH)));
        self.reserved.extend(addresses.into_iter().map(network));
        self
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// The network of the instance with an id, of which the first 11 hex digits count. `taken`
    /// tells which networks others have; while it does not change, the same id gets the same
    /// network.
    ///
    /// # Errors
    /// An id that is not hexadecimal, or more networks taken than there can be guests.
    pub fn assign(
        &self,
        id_hex: &str,
        mut taken: impl FnMut(&GuestNet) -> bool,
    ) -> Result<GuestNet, Error> {
        let not_hex = || Error::NotHex {
            id: id_hex.chars().take(80).collect(),
        };
        let digits = id_hex.get(..ID_DIGITS).ok_or_else(not_hex)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_hex());
        }
        let wanted = u64::from_str_radix(digits, 16).map_err(|_| not_hex())?;
        // Of a prefix longer than /80 fewer bits are left: those that the id begins with.
        let guests = self.prefix.guests();
        let bits = u32::from(GuestNet::LENGTH - guests.prefix_len()).min(ID_BITS);
        let wanted = wanted >> (ID_BITS - bits);
        let candidates = CANDIDATES.min(1 << bits.min(31));
        (0..candidates)
            .map(|n| (wanted + u64::from(n)) % (1 << bits))
            .map(|id| GuestNet((guests.addr().to_bits() | u128::from(id) << 4).into()))
            .find(|network| !self.reserved.contains(network) && !taken(network))
            .ok_or_else(|| Error::NoFreeNetwork {
                id: id_hex.to_owned(),
                tried: candidates,
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes() {
        for (text, expected) in [
            ("2001:db8::/64", Ok("2001:db8::/64")),
            ("2001:0DB8:0:0::/56", Ok("2001:db8::/56")),
            ("2a01:4f8:1:2::/64", Ok("2a01:4f8:1:2::/64")),
            ("fd00:1234::/48", Ok("fd00:1234::/48")),
            ("2001:db8::/80", Ok("2001:db8::/80")),
            ("2001:db8::/112", Ok("2001:db8::/112")),
            ("2001:db8::/113", Err("room for fewer than 4096")),
            ("2001:db8::/128", Err("room for fewer than 4096")),
            ("2001::/15", Err("between 16 and 112")),
            ("2001:db8::1/64", Err("the network is 2001:db8::/64")),
            ("2001:db8:0:1::/56", Err("the network is 2001:db8::/56")),
            ("fe80::/64", Err("link-local")),
            ("ff02::/64", Err("multicast")),
            ("::1/64", Err("loopback")),
            ("::/64", Err("reserved")),
            ("::/0", Err("reserved")),
            ("::ffff:10.0.0.0/104", Err("IPv4-mapped")),
            ("2001:db8::", Err("not a network")),
            ("2001:db8::/", Err("not a network")),
            ("2001:db8::/+64", Err("not a network")),
            ("2001:db8::/64/64", Err("not a network")),
            ("2001:db8::%eth0/64", Err("not a network")),
            ("10.0.0.0/8", Err("not a network")),
            ("", Err("not a network")),
        ] {
            let got = text
                .parse::<Prefix>()
                .map(|p| p.to_string())
                .map_err(|e| e.to_string());
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (Err(got), Err(part)) => assert!(got.contains(part), "{text}: {got}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    /// Small hosters give a /80 and less.
    #[test]
    fn longer_prefixes() {
        for (prefix, network) in [
            (
                "2001:db8:0:ff00::/56",
                "2001:db8:0:ff00:3:1234:5678:9ab0/124",
            ),
            ("2001:db8::/72", "2001:db8::1234:5678:9ab0/124"),
            ("2001:db8:1:2:7::/80", "2001:db8:1:2:7:1234:5678:9ab0/124"),
            ("2001:db8:1:2:7:8::/96", "2001:db8:1:2:7:8:1234:5670/124"),
            ("2001:db8:1:2:7:8:9:0/112", "2001:db8:1:2:7:8:9:1230/124"),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            let plan = AddressPlan::new(prefix).unwrap();
            let assigned = plan.assign("123456789ab0c0ffee", |_| false).unwrap();
            assert_eq!(assigned.to_string(), network);
            assert!(prefix.contains(assigned.guest()) && prefix.is_guests(assigned.guest()));
            assert!(!prefix.is_guests("2001:db9::1".parse().unwrap()));
        }
        // The smallest has an end, and begins anew before it.
        let prefix: Prefix = "2001:db8::/112".parse().unwrap();
        let plan = AddressPlan::new(prefix).unwrap();
        let last = plan.assign("fff00000000", |_| false).unwrap();
        assert_eq!(last.to_string(), "2001:db8::fff0/124");
        let next = plan.assign("fff00000000", |n| *n == last).unwrap();
        assert_eq!(next.to_string(), "2001:db8::/124");
        let error = plan.assign("fff00000000", |_| true).unwrap_err();
        assert!(error.to_string().contains("4096 candidates"), "{error}");
    }

    #[test]
    fn guests_networks() {
        let network: GuestNet = "2001:db8::3:1234:5678:9ab0/124".parse().unwrap();
        assert_eq!(network.gateway().to_string(), "2001:db8::3:1234:5678:9ab0");
        assert_eq!(network.guest().to_string(), "2001:db8::3:1234:5678:9ab1");
        assert_eq!(network.addresses().count(), 15);
        for text in [
            "2001:db8::3:1234:5678:9ab1/124",
            "2001:db8::3:1234:5678:9ab0/123",
            "2001:db8::3:1234:5678:9ab0",
            "ff02::10/124",
            "fe80::10/124",
        ] {
            assert!(text.parse::<GuestNet>().is_err(), "{text}");
        }
    }

    /// What the network's own software gives these ids.
    #[test]
    fn the_networks_own_layout() {
        let id = "deadbeefcafe00112233445566778899aabbccddeeff00112233445566778899";
        for (prefix, id, expected) in [
            ("2001:db8:1:2::/64", id, "2001:db8:1:2:3:dead:beef:caf0/124"),
            (
                "2001:db8:1:200::/56",
                id,
                "2001:db8:1:200:3:dead:beef:caf0/124",
            ),
            (
                "2001:db8:1:2::/64",
                "0000000000000000",
                "2001:db8:1:2:3::/124",
            ),
            (
                "fc00:1:2:3::/64",
                "ffffffffffff",
                "fc00:1:2:3:3:ffff:ffff:fff0/124",
            ),
            ("2001:db8::/32", "00A", ""),
            ("2001:db8::/32", "0123456789g0", ""),
            ("2001:db8::/32", "+123456789a0", ""),
            (
                "2001:db8::/32",
                "QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8",
                "",
            ),
            (
                "2001:db8::/32",
                "ABCDEF01234",
                "2001:db8::3:abcd:ef01:2340/124",
            ),
        ] {
            let plan = AddressPlan::new(prefix.parse().unwrap()).unwrap();
            let got = plan
                .assign(id, |_| false)
                .map(|n| n.to_string())
                .unwrap_or_default();
            assert_eq!(got, expected, "{prefix} {id}");
        }
    }

    #[test]
    fn collisions_go_up_and_around() {
        let plan = AddressPlan::new("2001:db8::/64".parse().unwrap()).unwrap();
        let mut taken = BTreeSet::new();
        let mut next = |id| {
            let network = plan.assign(id, |n| taken.contains(n)).unwrap();
            assert!(taken.insert(network));
            network.to_string()
        };
        assert_eq!(next("ffffffffffe0"), "2001:db8::3:ffff:ffff:ffe0/124");
        assert_eq!(next("ffffffffffe1"), "2001:db8::3:ffff:ffff:fff0/124");
        assert_eq!(next("ffffffffffe2"), "2001:db8:0:0:3::/124");
        assert_eq!(next("000000000000"), "2001:db8::3:0:0:10/124");
    }

    #[test]
    fn a_full_plan_ends_in_an_error() {
        let plan = AddressPlan::new("2001:db8::/64".parse().unwrap()).unwrap();
        let error = plan.assign("0123456789ab", |_| true).unwrap_err();
        assert!(matches!(error, Error::NoFreeNetwork { .. }), "{error}");
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        (0x2000u16..0xfdff, any::<[u16; 3]>(), 16u8..=64).prop_map(|(a, [b, c, d], length)| {
            let address = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
            Prefix::new(Ipv6Addr::from(address.to_bits() & mask(length)), length).unwrap()
        })
    }

    proptest! {
        #[test]
        fn text_and_json_come_back(prefix in any_prefix(), id in "[0-9a-f]{64}") {
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            let network = AddressPlan::new(prefix).unwrap().assign(&id, |_| false).unwrap();
            prop_assert_eq!(network.to_string().parse::<GuestNet>().unwrap(), network);
            let json = serde_json::to_string(&(prefix, network)).unwrap();
            prop_assert_eq!(serde_json::from_str::<(Prefix, GuestNet)>(&json).unwrap(), (prefix, network));
        }

        // Few digits differ, so that ids collide all the time.
        #[test]
        fn never_two_the_same_always_inside_never_the_hosts(
            prefix in any_prefix(),
            ids in prop::collection::btree_set("[0f]{2}fffffff[0-2]{2}[0-9a-f]{4}", 1..80),
            own in prop::collection::vec(("[0f]{2}fffffff[0-2]{2}", 0u128..16), 0..20),
        ) {
            let own: Vec<_> = own.iter().map(|(digits, n)| {
                let bits = u128::from_str_radix(digits, 16).unwrap() << 4;
                Ipv6Addr::from(prefix.guests().addr().to_bits() | bits | n)
            }).collect();
            let plan = AddressPlan::new(prefix).unwrap().avoiding(own.clone());
            let mut taken = BTreeMap::new();
            for id in &ids {
                let network = plan.assign(id, |n| taken.contains_key(n)).unwrap();
                prop_assert_eq!(plan.assign(id, |n| taken.contains_key(n)).unwrap(), network);
                prop_assert!(taken.insert(network, id).is_none(), "{} twice", network);
                for address in [network.gateway(), network.guest()].into_iter().chain(network.addresses()) {
                    prop_assert!(prefix.contains(address) && network.contains(address));
                    prop_assert!(!own.contains(&address));
                    prop_assert_eq!(address.segments()[4], 3);
                }
            }
        }

        #[test]
        fn any_text_is_answered(text in "[0-9a-f:/.]{0,30}") {
            if let Ok(prefix) = text.parse::<Prefix>() {
                prop_assert!(prefix.contains(prefix.address()));
            }
            if let Ok(network) = text.parse::<GuestNet>() {
                prop_assert!(network.contains(network.guest()));
            }
        }
    }
}
