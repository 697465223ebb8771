//! The host's IPv6: enabled, forwarding, its uplink, its prefix.
//!
//! Reads what the kernel shows of this network namespace in `/proc`; sends nothing.
//! The doctor takes [`NetworkFacts`] as data, so another source can fill it.

use std::{net::Ipv6Addr, path::Path, str::FromStr};

use serde::Serialize;

use super::text;

/// An IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Its address, host bits zero.
    pub address: Ipv6Addr,
    /// Its length, bits.
    pub length: u8,
}

impl Network {
    /// The network of that length around an address; lengths above 128 are 128.
    #[must_use]
    pub fn around(address: Ipv6Addr, length: u8) -> Self {
        let length = length.min(128);
        let address = Ipv6Addr::from_bits(address.to_bits() & mask(length));
        Self { address, length }
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && Self::around(other.address, self.length) == *self
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("{s:?} is not an IPv6 prefix such as 2001:db8:1:2::/64");
        let (address, length) = s.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        let length = length
            .parse()
            .ok()
            .filter(|l| *l <= 128)
            .ok_or_else(wrong)?;
        let network = Self::around(address, length);
        if network.address == address {
            Ok(network)
        } else {
            Err(format!("{s:?} has bits set beyond its length"))
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: Ipv6Addr,
    /// Its prefix length.
    pub length: u8,
    /// Its interface.
    pub interface: String,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Network,
    /// By which interface.
    pub interface: String,
    /// Unreachable, blackhole or prohibit.
    pub reject: bool,
    /// Learnt from a router advertisement.
    pub advertised: bool,
}

/// Reads `/proc/net/if_inet6`.
#[must_use]
pub fn addresses(if_inet6: &str) -> Vec<Address> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = hex_address(fields.next()?)?;
        let length = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
        let interface = fields.nth(2)?.to_owned();
        Some(Address {
            address,
            length,
            interface,
        })
    };
    if_inet6.lines().filter_map(line).collect()
}

/// Reads `/proc/net/ipv6_route`; routes of the local table to the host's own
/// addresses are left out.
#[must_use]
pub fn routes(ipv6_route: &str) -> Vec<Route> {
    // include/uapi/linux/ipv6_route.h and route.h
    const RTF_UP: u32 = 0x1;
    const RTF_REJECT: u32 = 0x200;
    const RTF_ADDRCONF: u32 = 0x4_0000;
    const RTF_LOCAL: u32 = 0x8000_0000;
    let line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[to, length, _, _, _, _, _, _, flags, interface] = fields.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let length = u8::from_str_radix(length, 16).ok()?;
        let to = Network::around(hex_address(to)?, length);
        let reject = flags & RTF_REJECT != 0;
        let usable = flags & RTF_LOCAL == 0 && (flags & RTF_UP != 0 || reject);
        // The kernel's own "no route" entry at the end of the table.
        let null = to.length == 0 && reject;
        (usable && !null).then(|| Route {
            to,
            interface: interface.to_owned(),
            reject,
            advertised: flags & RTF_ADDRCONF != 0,
        })
    };
    ipv6_route.lines().filter_map(line).collect()
}

fn hex_address(digits: &str) -> Option<Ipv6Addr> {
    (digits.len() == 32)
        .then(|| u128::from_str_radix(digits, 16).ok())?
        .map(Ipv6Addr::from_bits)
}

/// Where the node's prefix is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Prefix {
    /// None is configured.
    NotConfigured,
    /// What is configured is none.
    Invalid {
        /// Why.
        why: String,
    },
    /// An interface has an address in it: its neighbours are on the link, so guests
    /// are found only by answering neighbour solicitations for them.
    OnLink {
        /// The prefix.
        prefix: Network,
        /// The interface.
        interface: String,
    },
    /// The host has a route for it.
    Routed {
        /// The prefix.
        prefix: Network,
        /// The interface; `lo` for a reject route that keeps unused parts from looping.
        interface: String,
    },
    /// Configured, and nothing on the host shows it.
    Unseen {
        /// The prefix.
        prefix: Network,
    },
}

/// Looks for the prefix among addresses and routes. Loopback's addresses and
/// routes to single guests do not count.
#[must_use]
pub fn place(configured: Option<&str>, addresses: &[Address], routes: &[Route]) -> Prefix {
    let Some(configured) = configured else {
        return Prefix::NotConfigured;
    };
    let prefix = match configured.parse::<Network>() {
        Ok(prefix) => prefix,
        Err(why) => return Prefix::Invalid { why },
    };
    let on_link = addresses.iter().find(|a| {
        // A /128 or a /124 of a guest's gateway has no neighbours that count.
        let link = Network::around(a.address, a.length);
        a.interface != "lo" && a.length <= 64 && (link.covers(&prefix) || prefix.covers(&link))
    });
    if let Some(a) = on_link {
        return Prefix::OnLink {
            prefix,
            interface: a.interface.clone(),
        };
    }
    match routes
        .iter()
        .find(|r| r.to.length > 0 && r.to.covers(&prefix))
    {
        Some(r) => Prefix::Routed {
            prefix,
            interface: r.interface.clone(),
        },
        None => Prefix::Unseen { prefix },
    }
}

/// The interface toward the internet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// It exists.
    pub exists: bool,
    /// Its link is up; `None` when unknown.
    pub up: Option<bool>,
    /// It has the default route.
    pub default_route: bool,
    /// The default route was learnt from a router advertisement.
    pub advertised: bool,
    /// `accept_ra`: 2 goes on accepting while forwarding.
    pub accept_ra: Option<u32>,
    /// `proxy_ndp`.
    pub proxy_ndp: Option<bool>,
    /// The interface's own `forwarding`: without it the kernel neither forwards from
    /// the interface nor answers for guests on it, whatever that of `all` is.
    pub forwarding: Option<bool>,
    /// What fits through it, bytes.
    pub mtu: Option<u32>,
}

/// IPv6 on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkFacts {
    /// The kernel has IPv6 and it is not switched off.
    pub ipv6: bool,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwarding: Option<bool>,
    /// Interfaces that would follow router advertisements if they did not forward.
    pub deaf: Vec<String>,
    /// The configured uplink, else the interface of the default route.
    pub uplink: Option<Uplink>,
    /// The node's prefix.
    pub prefix: Prefix,
    /// Neighbour solicitations are to be answered on the uplink, as configured.
    pub ndp_proxy: bool,
}

/// Gathers it from `root` (normally `/`).
#[must_use]
pub fn gather(
    root: &Path,
    prefix: Option<&str>,
    uplink: Option<&str>,
    ndp_proxy: bool,
) -> NetworkFacts {
    let read = |path: String| text(&root.join(path));
    let conf = |interface: &str, key: &str| {
        let value = read(format!("proc/sys/net/ipv6/conf/{interface}/{key}"))?;
        value.trim().parse::<u32>().ok()
    };
    let addresses = addresses(&read("proc/net/if_inet6".into()).unwrap_or_default());
    let routes = routes(&read("proc/net/ipv6_route".into()).unwrap_or_default());
    let default = |r: &&Route| r.to.length == 0 && r.interface != "lo";
    let first_default = routes.iter().find(default);
    let name = uplink
        .map(str::to_owned)
        .or(first_default.map(|r| r.interface.clone()));
    // A name that could lead out of the directories is no interface's.
    let name = name.filter(|n| !n.is_empty() && n.len() < 16 && !n.contains('/') && n != "..");
    let uplink = name.map(|name| {
        let own_default = routes.iter().filter(default).find(|r| r.interface == name);
        let flags = read(format!("sys/class/net/{name}/flags"));
        let flags = flags.as_deref().and_then(|f| f.trim().strip_prefix("0x"));
        const IFF_UP: u32 = 1;
        Uplink {
            exists: root.join("proc/sys/net/ipv6/conf").join(&name).is_dir(),
            up: flags
                .and_then(|f| u32::from_str_radix(f, 16).ok())
                .map(|f| f & IFF_UP != 0),
            default_route: own_default.is_some(),
            advertised: own_default.is_some_and(|r| r.advertised),
            accept_ra: conf(&name, "accept_ra"),
            proxy_ndp: conf(&name, "proxy_ndp").map(|v| v != 0),
            forwarding: conf(&name, "forwarding").map(|v| v != 0),
            mtu: read(format!("sys/class/net/{name}/mtu")).and_then(|m| m.trim().parse().ok()),
            name,
        }
    });
    let names = std::fs::read_dir(root.join("proc/sys/net/ipv6/conf"));
    let names = names.into_iter().flatten().flatten();
    let mut deaf: Vec<_> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|n| !matches!(n.as_str(), "all" | "default" | "lo"))
        .filter(|n| !n.starts_with(net::TapName::PREFIX))
        .filter(|n| conf(n, "accept_ra") == Some(1) && conf(n, "forwarding") == Some(1))
        .collect();
    deaf.sort();
    NetworkFacts {
        deaf,
        ipv6: conf("all", "disable_ipv6") == Some(0),
        forwarding: conf("all", "forwarding").map(|v| v != 0),
        prefix: place(prefix, &addresses, &routes),
        uplink,
        ndp_proxy,
    }
}

#[cfg(test)]
mod tests;
