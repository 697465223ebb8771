//! What lies between guests and the internet.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::{netlink::route::Observed, spec::HostSpec};

/// The interfaces toward the internet, and what is on their links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uplinks {
    pub(crate) names: BTreeSet<String>,
    /// Networks on their links: neighbours of the host, which guests do not reach.
    pub(crate) on_link: BTreeSet<IpNet>,
    /// The routers of the default routes, where they are named by an address that is not link-local.
    pub(crate) routers: BTreeSet<IpAddr>,
    /// What fits through all of them, in bytes.
    pub(crate) mtu: Option<u32>,
}

/// What guests have at most, whatever the uplink has: the internet's.
pub(crate) const LARGEST_MTU: u32 = 1500;
/// IPv6 needs it (RFC 8200, section 5).
const SMALLEST_MTU: u32 = 1280;

impl Uplinks {
    /// Those of a host. Without a default route those of before stay, as far as they exist: routes that
    /// are learnt come and go.
    pub(crate) fn find(spec: &HostSpec, observed: &Observed, before: &Self) -> Self {
        let names: BTreeSet<String> = match &spec.uplink {
            Some(name) => BTreeSet::from([name.clone()]),
            None => {
                let with_default = observed
                    .links
                    .iter()
                    .filter(|(_, link)| observed.defaults.contains(&link.index))
                    .map(|(name, _)| name);
                // Others' names may hold anything: what a specification could not name is no uplink.
                with_default
                    .filter(|name| HostSpec::check_uplink(name).is_ok())
                    .cloned()
                    .collect()
            }
        };
        if names.is_empty() {
            let still = |name: &&String| observed.links.contains_key(*name);
            return Self {
                names: before.names.iter().filter(still).cloned().collect(),
                ..before.clone()
            };
        }
        let links: Vec<_> = names
            .iter()
            .filter_map(|name| observed.links.get(name))
            .collect();
        let indices: BTreeSet<u32> = links.iter().map(|l| l.index).collect();
        let on_link = observed
            .connected
            .iter()
            .filter(|(link, _, _)| indices.contains(link))
            .filter_map(|&(_, network, length)| on_link(network, length))
            .collect();
        let routers = observed
            .routers
            .iter()
            .filter(|(link, _)| indices.contains(link))
            .map(|&(_, router)| router)
            .filter(|router| !matches!(router, IpAddr::V6(r) if r.is_unicast_link_local()))
            .collect();
        let mtu = links.iter().map(|l| l.mtu).filter(|mtu| *mtu > 0);
        let mtu = mtu.chain(
            observed
                .default_mtus
                .iter()
                .filter(|(link, _)| indices.contains(link))
                .map(|&(_, mtu)| mtu),
        );
        Self {
            names,
            on_link,
            routers,
            mtu: mtu.min(),
        }
    }

    /// The MTU of guests' links, in bytes: what fits through the uplinks, between 1280 and 1500.
    pub(crate) fn guests_mtu(&self) -> u32 {
        let mtu = self.mtu.unwrap_or(LARGEST_MTU);
        mtu.clamp(SMALLEST_MTU, LARGEST_MTU)
    }
}

/// A network whose addresses are neighbours; not one that is nearly everything, as on links between
/// two points.
fn on_link(network: IpAddr, length: u8) -> Option<IpNet> {
    let shortest = if network.is_ipv4() { 8 } else { 32 };
    let link_local = matches!(network, IpAddr::V6(n) if n.is_unicast_link_local());
    let network = IpNet::new(network, length).ok()?.trunc();
    (length >= shortest && !link_local).then_some(network)
}

/// IPv4 networks that are not the internet (IANA's registry of special addresses), and the one
/// address by which a cloud tells its machines their secrets outside of them: Azure's.
pub(crate) const CLOSED_IPV4: [&str; 11] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];
/// Networks inside 2000::/3 that stand for IPv4 addresses, private ones too: Teredo and 6to4.
pub(crate) const CLOSED_IPV6: [&str; 2] = ["2001::/32", "2002::/16"];

/// Networks of the uplinks' links inside the internet, without overlaps.
pub(crate) fn neighbours(uplinks: &Uplinks) -> Vec<IpNet> {
    IpNet::aggregate(&uplinks.on_link.iter().copied().collect())
}
