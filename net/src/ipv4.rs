//! Private IPv4 networks for guests that reach IPv4 through NAT.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::Error, index::GuestIndex};

/// A block of private addresses, from which each guest gets the /24 of its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Pool {
    address: Ipv4Addr,
    length: u8,
}

/// A guest's IPv4 network: a /24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestIpv4 {
    /// The network address.
    pub network: Ipv4Addr,
    /// The host's end of the tap: `.1`.
    pub gateway: Ipv4Addr,
    /// The guest's address: `.2`.
    pub guest: Ipv4Addr,
}

impl GuestIpv4 {
    /// Its length in bits.
    pub const LENGTH: u8 = 24;
}

impl Ipv4Pool {
    const MIN: u8 = 8;

    /// Checks a pool.
    ///
    /// # Errors
    /// A length not between /8 and /24, bits set beyond it, or addresses that are not private.
    pub fn new(address: Ipv4Addr, length: u8) -> Result<Self, Error> {
        let network = || format!("{address}/{length}");
        if !(Self::MIN..=GuestIpv4::LENGTH).contains(&length) {
            let (min, max) = (Self::MIN, GuestIpv4::LENGTH);
            return Err(Error::PrefixLength {
                network: network(),
                min,
                max,
            });
        }
        let meant = Ipv4Addr::from(address.to_bits() & (u32::MAX << (32 - u32::from(length))));
        if meant != address {
            return Err(Error::HostBits {
                network: network(),
                meant: format!("{meant}/{length}"),
            });
        }
        // Of RFC 1918, or of RFC 6598 between a provider and its customers.
        let private = [
            ([10, 0, 0, 0], 8),
            ([172, 16, 0, 0], 12),
            ([192, 168, 0, 0], 16),
            ([100, 64, 0, 0], 10),
        ];
        let inside = |(base, bits): ([u8; 4], u8)| {
            let mask = u32::MAX << (32 - u32::from(bits));
            length >= bits && address.to_bits() & mask == Ipv4Addr::from(base).to_bits()
        };
        if !private.into_iter().any(inside) {
            let kind = "not in a private block (10/8, 172.16/12, 192.168/16, 100.64/10)";
            return Err(Error::NotForGuests {
                network: network(),
                kind,
            });
        }
        Ok(Self { address, length })
    }

    /// The network of a guest; `None` past the pool's end.
    #[must_use]
    pub fn network(self, index: GuestIndex) -> Option<GuestIpv4> {
        let count = 1u32 << (GuestIpv4::LENGTH - self.length);
        let network = (index.0 < count).then(|| self.address.to_bits() | index.0 << 8)?;
        Some(GuestIpv4 {
            network: network.into(),
            gateway: (network | 1).into(),
            guest: (network | 2).into(),
        })
    }
}

impl fmt::Display for Ipv4Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Ipv4Pool {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let no = || Error::NotANetwork {
            text: text.chars().take(64).collect(),
            example: "172.16.0.0/12",
        };
        let (address, length) = text.split_once('/').ok_or_else(no)?;
        if !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(no());
        }
        Self::new(
            address.parse().map_err(|_| no())?,
            length.parse().map_err(|_| no())?,
        )
    }
}

impl TryFrom<String> for Ipv4Pool {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Ipv4Pool> for String {
    fn from(value: Ipv4Pool) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools() {
        for (text, ok) in [
            ("172.16.0.0/12", true),
            ("10.0.0.0/8", true),
            ("192.168.7.0/24", true),
            ("100.64.0.0/10", true),
            ("172.16.0.0/11", false),
            ("172.17.0.0/12", false),
            ("192.168.7.0/25", false),
            ("8.8.8.0/24", false),
            ("127.0.0.0/8", false),
            ("169.254.0.0/16", false),
            ("0.0.0.0/0", false),
            ("10.0.0.0/+8", false),
            ("10.0.0.0", false),
            ("", false),
        ] {
            let pool = text.parse::<Ipv4Pool>();
            assert_eq!(pool.is_ok(), ok, "{text}: {pool:?}");
            if let Ok(pool) = pool {
                assert_eq!(pool.to_string(), text);
            }
        }
    }

    #[test]
    fn each_index_has_its_own_network() {
        let pool: Ipv4Pool = "172.16.0.0/12".parse().unwrap();
        let all: std::collections::BTreeSet<_> = (0..4096)
            .map(|i| pool.network(GuestIndex(i)).unwrap())
            .collect();
        assert_eq!(all.len(), 4096);
        let last = all.last().unwrap();
        assert_eq!(last.network.to_string(), "172.31.255.0");
        assert_eq!(last.gateway.to_string(), "172.31.255.1");
        assert_eq!(last.guest.to_string(), "172.31.255.2");
        assert_eq!(pool.network(GuestIndex(4096)), None);
        assert_eq!(pool.network(GuestIndex(u32::MAX)), None);
    }
}
