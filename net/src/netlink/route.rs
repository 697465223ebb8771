//! Links, addresses, routes and neighbours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{IpAddr, Ipv6Addr},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Route,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
        RouteScope, RouteType, RouteVia,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Answer, Netlink};
use crate::guest::Mac;

/// Requests that the kernel gets at once; its acknowledgements must fit into the socket's buffer.
const AT_ONCE: usize = 64;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Brings a link up and gives it a MAC address and an MTU, bytes.
    Up { link: u32, mac: Mac, mtu: u32 },
    /// Gives a link an MTU, bytes.
    Mtu { link: u32, mtu: u32 },
    /// Deletes a link.
    DeleteLink { link: u32 },
    /// Gives a link an address.
    Address {
        link: u32,
        address: IpAddr,
        length: u8,
    },
    /// A route to a network that is on a link.
    Connected {
        link: u32,
        network: IpAddr,
        length: u8,
    },
    /// A neighbour whose MAC address is known for ever.
    Neighbour {
        link: u32,
        address: IpAddr,
        mac: Mac,
    },
    /// A link answers for an address.
    Proxy { link: u32, address: Ipv6Addr },
    /// A link no longer answers for an address.
    DeleteProxy { link: u32, address: Ipv6Addr },
}

impl Change {
    /// Whether an error means that it is done already.
    fn is_done(&self, error: &io::Error) -> bool {
        match self {
            Self::DeleteLink { .. } => error.raw_os_error() == Some(ENODEV),
            Self::DeleteProxy { .. } => error.kind() == io::ErrorKind::NotFound,
            Self::Connected { .. } => error.kind() == io::ErrorKind::AlreadyExists,
            _ => false,
        }
    }

    fn message(&self) -> NetlinkMessage<Route> {
        let (inner, flags) = match self {
            Self::Up { link, mac, mtu } => {
                let mut m = LinkMessage::default();
                m.header.index = *link;
                m.header.flags = LinkFlags::Up;
                m.header.change_mask = LinkFlags::Up;
                m.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
                m.attributes.push(LinkAttribute::Mtu(*mtu));
                (Route::SetLink(m), 0)
            }
            Self::Mtu { link, mtu } => {
                let mut m = LinkMessage::default();
                m.header.index = *link;
                m.attributes.push(LinkAttribute::Mtu(*mtu));
                (Route::SetLink(m), 0)
            }
            Self::DeleteLink { link } => {
                let mut m = LinkMessage::default();
                m.header.index = *link;
                (Route::DelLink(m), 0)
            }
            Self::Address {
                link,
                address,
                length,
            } => {
                let mut m = AddressMessage::default();
                m.header.family = family(*address);
                m.header.prefix_len = *length;
                m.header.index = *link;
                // Nobody else is on the link to have the address: no wait for duplicates.
                m.header.flags = AddressHeaderFlags::Permanent | AddressHeaderFlags::Nodad;
                m.header.scope = match address {
                    IpAddr::V6(a) if a.is_unicast_link_local() => AddressScope::Link,
                    _ => AddressScope::Universe,
                };
                m.attributes.push(AddressAttribute::Local(*address));
                m.attributes.push(AddressAttribute::Address(*address));
                let flags = AddressFlags::Permanent | AddressFlags::Nodad;
                m.attributes.push(AddressAttribute::Flags(flags));
                (Route::NewAddress(m), NLM_F_CREATE | NLM_F_REPLACE)
            }
            Self::Connected {
                link,
                network,
                length,
            } => {
                let mut m = RouteMessage::default();
                m.header.address_family = family(*network);
                m.header.destination_prefix_length = *length;
                m.header.table = RouteHeader::RT_TABLE_MAIN;
                m.header.protocol = RouteProtocol::Static;
                m.header.scope = RouteScope::Link;
                m.header.kind = RouteType::Unicast;
                m.attributes
                    .push(RouteAttribute::Destination(match network {
                        IpAddr::V4(a) => RouteAddress::Inet(*a),
                        IpAddr::V6(a) => RouteAddress::Inet6(*a),
                    }));
                m.attributes.push(RouteAttribute::Oif(*link));
                if network.is_ipv6() {
                    // As the one that comes with an address, so that there are not two.
                    m.attributes.push(RouteAttribute::Priority(256));
                }
                (Route::NewRoute(m), NLM_F_CREATE)
            }
            Self::Neighbour { link, address, mac } => {
                let mut m = neighbour(*link, *address);
                m.header.state = NeighbourState::Permanent;
                m.attributes
                    .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
                (Route::NewNeighbour(m), NLM_F_CREATE | NLM_F_REPLACE)
            }
            Self::Proxy { link, address } => {
                let mut m = neighbour(*link, (*address).into());
                m.header.state = NeighbourState::Permanent;
                m.header.flags = NeighbourFlags::Proxy;
                (Route::NewNeighbour(m), NLM_F_CREATE | NLM_F_REPLACE)
            }
            Self::DeleteProxy { link, address } => {
                let mut m = neighbour(*link, (*address).into());
                m.header.flags = NeighbourFlags::Proxy;
                (Route::DelNeighbour(m), 0)
            }
        };
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_ACK;
        NetlinkMessage::new(header, NetlinkPayload::InnerMessage(inner))
    }
}

/// What failed, in an error's words.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { link, mac, .. } => write!(f, "bring link {link} up as {mac}"),
            Self::Mtu { link, mtu } => write!(f, "give link {link} the MTU {mtu}"),
            Self::DeleteLink { link } => write!(f, "delete link {link}"),
            Self::Address {
                link,
                address,
                length,
            } => {
                write!(f, "give link {link} the address {address}/{length}")
            }
            Self::Connected {
                link,
                network,
                length,
            } => {
                write!(f, "route {network}/{length} to link {link}")
            }
            Self::Neighbour { link, address, mac } => {
                write!(f, "tell link {link} that {address} is at {mac}")
            }
            Self::Proxy { link, address } => write!(f, "have link {link} answer for {address}"),
            Self::DeleteProxy { link, address } => {
                write!(f, "have link {link} no longer answer for {address}")
            }
        }
    }
}

/// `ENODEV`: the link is gone.
const ENODEV: i32 = rustix::io::Errno::NODEV.raw_os_error();

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn neighbour(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut m = NeighbourMessage::default();
    m.header.family = family(address);
    m.header.ifindex = link;
    m.attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(a) => NeighbourAddress::Inet(a),
            IpAddr::V6(a) => NeighbourAddress::Inet6(a),
        }));
    m
}

/// A link of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) mac: Option<Mac>,
    /// Bytes; 0 where it has none.
    pub(crate) mtu: u32,
}

/// What the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// By name.
    pub(crate) links: BTreeMap<String, Link>,
    /// Links from which IPv6 packets are forwarded, and those from which IPv4 packets are.
    pub(crate) forwarding: [BTreeSet<u32>; 2],
    /// Link, address, length of the network.
    pub(crate) addresses: BTreeSet<(u32, IpAddr, u8)>,
    /// Link, network, length: routes to what is on the link.
    pub(crate) connected: BTreeSet<(u32, IpAddr, u8)>,
    /// Links of default routes.
    pub(crate) defaults: BTreeSet<u32>,
    /// Link, address: the routers of default routes.
    pub(crate) routers: BTreeSet<(u32, IpAddr)>,
    /// Link, bytes: MTUs of default routes themselves.
    pub(crate) default_mtus: BTreeSet<(u32, u32)>,
    /// Permanent neighbours.
    pub(crate) neighbours: BTreeSet<(u32, IpAddr, Mac)>,
    /// Link, address.
    pub(crate) proxies: BTreeSet<(u32, Ipv6Addr)>,
}

/// A connection to routing.
#[derive(Debug)]
pub(crate) struct Router(Netlink);

impl Router {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(Netlink::open(NETLINK_ROUTE)?))
    }

    /// Makes changes, in order. All are tried; the first error that means something is told.
    pub(crate) fn change(&mut self, changes: &[Change]) -> Result<(), (Change, io::Error)> {
        let mut failed = None;
        for some in changes.chunks(AT_ONCE) {
            let mut messages: Vec<_> = some.iter().map(Change::message).collect();
            let said = self
                .0
                .send(&mut messages)
                .and_then(|first| self.0.acknowledgements(first));
            let at = |n: usize| some.get(n).or(some.first()).cloned();
            let said = match said {
                Ok(said) => said,
                Err(e) => vec![(0, Some(e))],
            };
            let silent = said.len() < some.len();
            for (n, error) in said {
                let (Some(change), Some(error)) = (at(n), error) else {
                    continue;
                };
                if !change.is_done(&error) {
                    failed.get_or_insert((change, error));
                }
            }
            if let (true, Some(change)) = (silent, at(0)) {
                let error = io::Error::other("the kernel did not acknowledge every request");
                failed.get_or_insert((change, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Everything that a comparison needs.
    pub(crate) fn observe(&mut self) -> io::Result<Observed> {
        let mut proxies = NeighbourMessage::default();
        proxies.header.flags = NeighbourFlags::Proxy;
        proxies.header.family = AddressFamily::Inet6;
        let route = |family| {
            let mut m = RouteMessage::default();
            m.header.address_family = family;
            Route::GetRoute(m)
        };
        let mut observed = Observed::default();
        for request in [
            Route::GetLink(LinkMessage::default()),
            Route::GetAddress(AddressMessage::default()),
            route(AddressFamily::Inet6),
            route(AddressFamily::Inet),
            Route::GetNeighbour(NeighbourMessage::default()),
            Route::GetNeighbour(proxies),
        ] {
            self.dump(request, &mut observed)?;
        }
        Ok(observed)
    }

    fn dump(&mut self, request: Route, observed: &mut Observed) -> io::Result<()> {
        let message = NetlinkMessage::new(NetlinkHeader::default(), request.into());
        self.0.dump(message, |answer| {
            observed.take(&answer);
            Ok(())
        })
    }
}

impl Observed {
    fn forwarding(&mut self, link: u32, families: &[AfSpecUnspec]) {
        let [ipv6, ipv4] = &mut self.forwarding;
        for family in families {
            match family {
                AfSpecUnspec::Inet6(settings) => {
                    ipv6.extend(settings.iter().find_map(|s| match s {
                        AfSpecInet6::DevConf(c) if c.forwarding == 1 => Some(link),
                        _ => None,
                    }))
                }
                AfSpecUnspec::Inet(settings) => {
                    ipv4.extend(settings.iter().find_map(|s| match s {
                        AfSpecInet::DevConf(c) if c.forwarding == 1 => Some(link),
                        _ => None,
                    }))
                }
                _ => {}
            }
        }
    }

    /// Whether packets from a link are forwarded, of the families that guests have.
    pub(crate) fn forwards(&self, name: &str, with_ipv4: bool) -> bool {
        let [ipv6, ipv4] = &self.forwarding;
        let link = self.links.get(name).map(|l| l.index);
        link.is_some_and(|i| ipv6.contains(&i) && (!with_ipv4 || ipv4.contains(&i)))
    }

    /// Notes one object. One that cannot be understood is none of ours: hosts have links of every
    /// kind.
    fn take(&mut self, answer: &Answer<'_>) {
        let Ok(message) = NetlinkMessage::<Route>::deserialize(answer.bytes) else {
            return;
        };
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            return;
        };
        match message {
            Route::NewLink(m) => {
                let mut name = None;
                let mut mac = None;
                let mut mtu = 0;
                for attribute in m.attributes {
                    match attribute {
                        LinkAttribute::IfName(n) => name = Some(n),
                        LinkAttribute::Mtu(n) => mtu = n,
                        LinkAttribute::Address(a) => mac = a.try_into().ok().map(Mac),
                        LinkAttribute::AfSpecUnspec(families) => {
                            self.forwarding(m.header.index, &families);
                        }
                        _ => {}
                    }
                }
                let up = m.header.flags.contains(LinkFlags::Up);
                let link = Link {
                    index: m.header.index,
                    up,
                    mac,
                    mtu,
                };
                self.links.extend(name.map(|name| (name, link)));
            }
            Route::NewAddress(m) => {
                let mut local = None;
                let mut address = None;
                for attribute in m.attributes {
                    match attribute {
                        AddressAttribute::Local(a) => local = Some(a),
                        AddressAttribute::Address(a) => address = Some(a),
                        _ => {}
                    }
                }
                let (link, length) = (m.header.index, m.header.prefix_len);
                self.addresses
                    .extend(local.or(address).map(|a| (link, a, length)));
            }
            Route::NewRoute(m) => self.route(&m),
            Route::NewNeighbour(m) => {
                let mut address = None;
                let mut mac = None;
                for attribute in m.attributes {
                    match attribute {
                        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => {
                            address = Some(IpAddr::V4(a));
                        }
                        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => {
                            address = Some(IpAddr::V6(a));
                        }
                        NeighbourAttribute::LinkLayerAddress(a) => mac = a.try_into().ok().map(Mac),
                        _ => {}
                    }
                }
                let link = m.header.ifindex;
                if m.header.flags.contains(NeighbourFlags::Proxy) {
                    if let Some(IpAddr::V6(address)) = address {
                        self.proxies.insert((link, address));
                    }
                } else if m.header.state == NeighbourState::Permanent {
                    self.neighbours
                        .extend(address.zip(mac).map(|(a, mac)| (link, a, mac)));
                }
            }
            _ => {}
        }
    }

    fn route(&mut self, m: &RouteMessage) {
        if m.header.table != RouteHeader::RT_TABLE_MAIN || m.header.kind != RouteType::Unicast {
            return;
        }
        let is_default = m.header.destination_prefix_length == 0;
        let mut network = None;
        let mut link = None;
        let mut gateway = None;
        let mut mtu = None;
        let mut is_direct = true;
        for attribute in &m.attributes {
            match attribute {
                RouteAttribute::Destination(a) => network = address(a),
                RouteAttribute::Oif(index) => link = Some(*index),
                RouteAttribute::Gateway(a) => (gateway, is_direct) = (address(a), false),
                RouteAttribute::Via(via) => {
                    is_direct = false;
                    gateway = match via {
                        RouteVia::Inet(a) => Some(IpAddr::V4(*a)),
                        RouteVia::Inet6(a) => Some(IpAddr::V6(*a)),
                        _ => None,
                    };
                }
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|m| match m {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::MultiPath(hops) if is_default => {
                    for hop in hops {
                        self.defaults.insert(hop.interface_index);
                        let routers = hop.attributes.iter().filter_map(|a| match a {
                            RouteAttribute::Gateway(a) => address(a),
                            _ => None,
                        });
                        self.routers
                            .extend(routers.map(|r| (hop.interface_index, r)));
                    }
                }
                _ => {}
            }
        }
        let length = m.header.destination_prefix_length;
        match (network, link) {
            (_, Some(link)) if is_default => {
                self.defaults.insert(link);
                self.routers.extend(gateway.map(|g| (link, g)));
                self.default_mtus.extend(mtu.map(|mtu| (link, mtu)));
            }
            (Some(network), Some(link)) if is_direct => {
                self.connected.insert((link, network, length));
            }
            _ => {}
        }
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}
