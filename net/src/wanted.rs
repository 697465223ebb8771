//! What links, addresses and neighbours should be, and how that differs from what they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use crate::{
    address::{GuestNet, Prefix},
    guest::{GuestSpec, TapName},
    index::GuestIndex,
    ipv4::GuestIpv4,
    netlink::route::{Change, Link, Observed},
    repairs::Repairs,
};

/// Changes that set a new tap up.
pub(crate) fn set_up(guest: &GuestSpec, tap: u32, mtu: u32, uplinks: &[u32]) -> Vec<Change> {
    let mut changes = vec![Change::Up {
        link: tap,
        mac: guest.mac.host_end(),
        mtu,
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
    [(LINK_LOCAL, 64), ipv6].into_iter().chain(ipv4)
}

/// `fe80::`
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));

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
    /// The MTU of taps.
    pub(crate) mtu: u32,
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
            diff.changes.extend(set_up(guest, tap, self.mtu, &[]));
        } else {
            if link.mtu != self.mtu {
                diff.changes.push(Change::Mtu {
                    link: tap,
                    mtu: self.mtu,
                });
            }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Mac, PortRule};

    const UPLINK: u32 = 2;
    const MTU: u32 = 1400;

    fn guest(index: u32) -> GuestSpec {
        let network = format!("2001:db8::3:0:0:{:x}0/124", index + 1)
            .parse()
            .unwrap();
        let pool = "172.16.0.0/12".parse().unwrap();
        let ports = ["22".parse::<PortRule>().unwrap()].into();
        GuestSpec::new(GuestIndex(index), "ab", network, Some(&pool), ports)
    }

    fn guests(range: std::ops::Range<u32>) -> BTreeMap<GuestIndex, GuestSpec> {
        range.map(|n| (GuestIndex(n), guest(n))).collect()
    }

    /// The kernel as far as a comparison goes.
    fn carry_out(observed: &mut Observed, change: &Change) {
        match change.clone() {
            Change::Up { link, mac, mtu } => {
                for l in observed.links.values_mut().filter(|l| l.index == link) {
                    (l.up, l.mac, l.mtu) = (true, Some(mac), mtu);
                }
            }
            Change::Mtu { link, mtu } => {
                for l in observed.links.values_mut().filter(|l| l.index == link) {
                    l.mtu = mtu;
                }
            }
            Change::DeleteLink { link } => {
                observed.links.retain(|_, l| l.index != link);
                observed.addresses.retain(|a| a.0 != link);
                observed.connected.retain(|a| a.0 != link);
                observed.neighbours.retain(|a| a.0 != link);
            }
            Change::Address {
                link,
                address,
                length,
            } => {
                observed.addresses.insert((link, address, length));
                let network = match address {
                    IpAddr::V4(a) => IpAddr::V4((a.to_bits() & 0xffff_ff00).into()),
                    IpAddr::V6(_) if length == 64 => LINK_LOCAL,
                    IpAddr::V6(_) => address,
                };
                observed.connected.insert((link, network, length));
            }
            Change::Connected {
                link,
                network,
                length,
            } => {
                observed.connected.insert((link, network, length));
            }
            Change::Neighbour { link, address, mac } => {
                observed.neighbours.insert((link, address, mac));
            }
            Change::Proxy { link, address } => {
                observed.proxies.insert((link, address));
            }
            Change::DeleteProxy { link, address } => {
                observed.proxies.remove(&(link, address));
            }
        }
    }

    fn tap(observed: &mut Observed, index: u32, link: u32) {
        let link = Link {
            index: link,
            up: false,
            mac: None,
            mtu: 1500,
        };
        observed
            .links
            .insert(TapName::new(GuestIndex(index)).to_string(), link);
    }

    /// A host on which these guests have been set up.
    fn host(guests: &BTreeMap<GuestIndex, GuestSpec>) -> Observed {
        let mut observed = Observed::default();
        let uplink = Link {
            index: UPLINK,
            up: true,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: 1500,
        };
        observed.links.insert("eth0".into(), uplink);
        for guest in guests.values() {
            tap(&mut observed, guest.index.0, 100 + guest.index.0);
            for change in set_up(guest, 100 + guest.index.0, MTU, &[UPLINK]) {
                carry_out(&mut observed, &change);
            }
        }
        observed
    }

    fn wanted<'a>(
        guests: &'a BTreeMap<GuestIndex, GuestSpec>,
        spared: &'a BTreeMap<GuestIndex, GuestSpec>,
    ) -> Wanted<'a> {
        let prefix = "2001:db8::/64".parse().unwrap();
        Wanted {
            prefix,
            mtu: MTU,
            proxying: &[UPLINK],
            guests,
            spared,
        }
    }

    #[test]
    fn a_host_that_is_right_needs_nothing() {
        let (all, none) = (guests(0..5), guests(0..0));
        assert_eq!(wanted(&all, &none).diff(&host(&all)), Diff::default());
        assert_eq!(wanted(&none, &none).diff(&host(&none)), Diff::default());
    }

    #[test]
    fn what_goes_with_a_guest_goes() {
        let (all, none) = (guests(0..3), guests(0..0));
        let mut observed = host(&all);
        for guest in all.values() {
            let link = observed.links[guest.tap.as_str()].index;
            for change in take_down(guest, Some(link), &[UPLINK]) {
                carry_out(&mut observed, &change);
            }
        }
        assert_eq!(observed, host(&none));
    }

    #[test]
    fn orphans_and_missing_taps() {
        let (all, some, spared) = (guests(0..4), guests(0..2), guests(2..3));
        let mut observed = host(&all);
        observed.links.remove("vmtap1");
        observed.links.insert(
            "vmtapestry".into(),
            Link {
                index: 9,
                up: true,
                mac: None,
                mtu: 1500,
            },
        );
        observed.links.insert(
            "vmta".into(),
            Link {
                index: 8,
                up: true,
                mac: None,
                mtu: 1500,
            },
        );
        let diff = wanted(&some, &spared).diff(&observed);
        assert_eq!(diff.repairs.missing_taps, [GuestIndex(1)]);
        assert_eq!(diff.repairs.removed_orphans, ["vmtap3", "vmtapestry"]);
        assert_eq!(diff.repairs.proxies_removed.len(), 15, "of guest 3 alone");
    }

    proptest! {
        /// Whatever was broken: repaired once it is right, and nobody else's is touched.
        #[test]
        fn repair_converges(
            count in 0u32..4,
            extra in 0u32..3,
            losses in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 0..12),
        ) {
            let (all, none) = (guests(0..count), guests(0..0));
            let mut observed = host(&guests(0..count + extra));
            let foreign = (UPLINK, "2001:db8::77".parse().unwrap());
            observed.proxies.insert(foreign);
            for (what, at) in losses {
                fn pick<T: Clone + Ord>(set: &mut BTreeSet<T>, at: &prop::sample::Index) {
                    if !set.is_empty() {
                        let item = set.iter().nth(at.index(set.len())).cloned();
                        set.remove(&item.unwrap());
                    }
                }
                match what {
                    0 => pick(&mut observed.addresses, &at),
                    1 => pick(&mut observed.connected, &at),
                    2 => pick(&mut observed.neighbours, &at),
                    3 => pick(&mut observed.proxies, &at),
                    _ if count > 0 => {
                        let name = TapName::new(GuestIndex(u32::try_from(at.index(4)).unwrap() % count));
                        if let Some(link) = observed.links.get_mut(name.as_str()) {
                            match what {
                                4 => link.up = false,
                                5 => link.mac = None,
                                6 => link.mtu = 1500,
                                _ => link.mac = Some(Mac([2, 0, 0, 0, 0, 9])),
                            }
                        }
                    }
                    _ => {}
                }
            }
            observed.proxies.insert(foreign);
            for change in wanted(&all, &none).diff(&observed).changes {
                carry_out(&mut observed, &change);
            }
            prop_assert_eq!(wanted(&all, &none).diff(&observed), Diff::default());
            prop_assert!(observed.proxies.remove(&foreign));
            prop_assert_eq!(observed, host(&all));
        }
    }
}
