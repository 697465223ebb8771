//! What links, addresses and neighbours should be, and how that differs from what they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use crate::{
    GuestIndex, GuestIpv4, GuestNet, GuestSpec, Prefix, Repairs, TapName,
    netlink::route::{Change, Link, Observed},
};

/// Changes that set a new tap up.
pub(crate) fn set_up(guest: &GuestSpec, tap: u32, uplinks: &[u32]) -> Vec<Change> {
    let mut changes = vec![Change::Up {
        link: tap,
        mac: guest.mac.host_end(),
    }];
    changes.extend(addresses(guest).map(|(address, length)| Change::Address {
        link: tap,
        address,
        length,
    }));
    changes.extend(neighbours(guest).map(|address| Change::Neighbour {
        link: tap,
        address,
        mac: guest.mac,
    }));
    changes.extend(proxies(guest, uplinks).map(|(link, address)| Change::Proxy { link, address }));
    changes
}

/// Changes that take a guest away: its tap, if there is one, and what the uplinks answer for it.
pub(crate) fn take_down(guest: &GuestSpec, tap: Option<u32>, uplinks: &[u32]) -> Vec<Change> {
    let tap = tap.map(|link| Change::DeleteLink { link });
    let proxies = proxies(guest, uplinks);
    let proxies = proxies.map(|(link, address)| Change::DeleteProxy { link, address });
    tap.into_iter().chain(proxies).collect()
}

/// Addresses of the host's end of a tap.
fn addresses(guest: &GuestSpec) -> impl Iterator<Item = (IpAddr, u8)> {
    let ipv4 = guest
        .ipv4
        .map(|n| (IpAddr::V4(n.gateway), GuestIpv4::LENGTH));
    let gateway = (IpAddr::V6(guest.network.gateway()), GuestNet::LENGTH);
    [(IpAddr::V6(GuestSpec::HOST_LINK_LOCAL), 64), gateway]
        .into_iter()
        .chain(ipv4)
}

/// Networks behind a tap; routes to them come with the addresses.
fn networks(guest: &GuestSpec) -> impl Iterator<Item = (IpAddr, u8)> {
    let ipv4 = guest
        .ipv4
        .map(|n| (IpAddr::V4(n.network), GuestIpv4::LENGTH));
    let ipv6 = (IpAddr::V6(guest.network.gateway()), GuestNet::LENGTH);
    std::iter::once(ipv6).chain(ipv4)
}

/// Addresses whose MAC address is known without asking.
fn neighbours(guest: &GuestSpec) -> impl Iterator<Item = IpAddr> {
    let ipv4 = guest.ipv4.map(|n| IpAddr::V4(n.guest));
    std::iter::once(IpAddr::V6(guest.network.guest())).chain(ipv4)
}

fn proxies<'a>(
    guest: &'a GuestSpec,
    uplinks: &'a [u32],
) -> impl Iterator<Item = (u32, Ipv6Addr)> + 'a {
    uplinks
        .iter()
        .flat_map(|&link| guest.network.addresses().map(move |a| (link, a)))
}

/// What differs, and the changes that put it right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    pub(crate) repairs: Repairs,
    pub(crate) changes: Vec<Change>,
}

/// Who is to be there.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) prefix: Prefix,
    /// Links that answer for guests; none without NDP proxying.
    pub(crate) proxying: &'a [u32],
    pub(crate) guests: &'a BTreeMap<GuestIndex, GuestSpec>,
    /// Guests that somebody may be adding or removing now: theirs is left alone.
    pub(crate) spared: &'a BTreeMap<GuestIndex, GuestSpec>,
}

impl Wanted<'_> {
    /// Compares.
    pub(crate) fn diff(&self, observed: &Observed) -> Diff {
        let mut diff = Diff::default();
        for guest in self.guests.values() {
            match observed.links.get(guest.tap.as_str()) {
                None => diff.repairs.missing_taps.push(guest.index),
                Some(link) => self.link(guest, link, observed, &mut diff),
            }
        }
        self.proxies(observed, &mut diff);
        self.orphans(observed, &mut diff);
        diff
    }

    fn link(&self, guest: &GuestSpec, link: &Link, observed: &Observed, diff: &mut Diff) {
        let tap = link.index;
        let before = diff.changes.len();
        if !link.up || link.mac != Some(guest.mac.host_end()) {
            // Addresses and neighbours go with the link's state: all anew.
            diff.changes.extend(set_up(guest, tap, &[]));
        } else {
            for (address, length) in addresses(guest) {
                if !observed.addresses.contains(&(tap, address, length)) {
                    diff.changes.push(Change::Address {
                        link: tap,
                        address,
                        length,
                    });
                }
            }
            for (network, length) in networks(guest) {
                if !observed.connected.contains(&(tap, network, length)) {
                    diff.changes.push(Change::Connected {
                        link: tap,
                        network,
                        length,
                    });
                }
            }
            for address in neighbours(guest) {
                if !observed.neighbours.contains(&(tap, address, guest.mac)) {
                    diff.changes.push(Change::Neighbour {
                        link: tap,
                        address,
                        mac: guest.mac,
                    });
                }
            }
        }
        if diff.changes.len() > before {
            diff.repairs.links.push(guest.index);
        }
    }

    fn proxies(&self, observed: &Observed, diff: &mut Diff) {
        let of = |guests: &BTreeMap<_, GuestSpec>| -> BTreeSet<(u32, Ipv6Addr)> {
            guests
                .values()
                .flat_map(|g| proxies(g, self.proxying).collect::<Vec<_>>())
                .collect()
        };
        let (wanted, spared) = (of(self.guests), of(self.spared));
        for &(link, address) in wanted.difference(&observed.proxies) {
            diff.repairs.proxies_added.push(address);
            diff.changes.push(Change::Proxy { link, address });
        }
        // Whatever an operator has others answer for is none of ours.
        for &(link, address) in observed.proxies.difference(&wanted) {
            if self.prefix.is_guests(address) && !spared.contains(&(link, address)) {
                diff.repairs.proxies_removed.push(address);
                diff.changes.push(Change::DeleteProxy { link, address });
            }
        }
    }

    fn orphans(&self, observed: &Observed, diff: &mut Diff) {
        let known: BTreeSet<_> = self
            .guests
            .values()
            .chain(self.spared.values())
            .map(|g| g.tap.as_str())
            .collect();
        let taps = observed.links.range(TapName::PREFIX.to_owned()..);
        for (name, link) in taps.take_while(|(n, _)| n.starts_with(TapName::PREFIX)) {
            if !known.contains(name.as_str()) {
                diff.repairs.removed_orphans.push(name.clone());
                diff.changes.push(Change::DeleteLink { link: link.index });
            }
        }
    }
}
