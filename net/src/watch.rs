//! Changes that others make, as the kernel tells them: repair need not wait for the next
//! comparison.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::Ipv6Addr,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage as Route,
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use crate::{
    address::GuestNet,
    guest::{GuestSpec, TapName},
    index::GuestIndex,
    netlink::{each, nft},
    state::Shared,
};

/// Groups of `linux/rtnetlink.h` and `linux/netfilter/nfnetlink.h`.
const GROUP_LINK: u32 = 1;
const GROUP_IPV6_ADDRESS: u32 = 9;
const GROUP_IPV4_ROUTE: u32 = 7;
const GROUP_IPV6_ROUTE: u32 = 11;
const GROUP_NFTABLES: u32 = 7;
/// Changes come in bursts: all of one are reported together.
const BURST: Duration = Duration::from_millis(10);

/// What somebody else changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A guest's tap is gone: its name.
    TapGone(String),
    /// A guest's tap was taken down, or lost an address or a route.
    Link,
    /// A default route came or went.
    Uplink,
    /// The agent's table. Once also after each time that the agent itself writes it whole.
    Table,
    /// Events were lost: anything may have changed.
    Unknown,
}

/// A stream of changes by others.
#[derive(Debug)]
pub struct Watch {
    state: Shared,
    /// Name of the agent's table.
    table: String,
    /// Address of the socket through which the agent changes elements.
    own_port: u32,
    routes: AsyncFd<Descriptor>,
    tables: AsyncFd<Descriptor>,
    events: Vec<Event>,
    changes: VecDeque<Change>,
}

#[derive(Debug)]
struct Descriptor(Socket);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Descriptor {
    #[allow(
        deprecated,
        reason = "its successor is unsafe; this socket keeps its descriptor"
    )]
    fn subscribed(protocol: isize, groups: &[u32]) -> io::Result<AsyncFd<Self>> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        AsyncFd::new(Self(socket))
    }

    /// Everything that is there. `None` when some was lost.
    fn receive(&self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut all = Vec::new();
        loop {
            let mut buffer = Vec::with_capacity(64 << 10);
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => all.push(buffer),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Some(all)),
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    return Ok(None);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// What a message of routing tells, before it is known whether it concerns a guest.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Gone(String),
    Down(String),
    Lost(Ipv6Addr),
    DefaultRoute,
}

impl Event {
    /// The tap of the guest that it is about, if it is about one.
    fn tap(&self, guests: &BTreeMap<GuestIndex, GuestSpec>) -> Option<String> {
        let concerns = |guest: &&GuestSpec| match self {
            Self::Gone(tap) | Self::Down(tap) => guest.tap.as_str() == tap,
            Self::Lost(address) => guest.network.contains(*address),
            Self::DefaultRoute => false,
        };
        guests.values().find(concerns).map(|g| g.tap.to_string())
    }
}

impl Watch {
    pub(crate) fn open(state: Shared, table: &str, own_port: u32) -> io::Result<Self> {
        let groups = [
            GROUP_LINK,
            GROUP_IPV6_ADDRESS,
            GROUP_IPV4_ROUTE,
            GROUP_IPV6_ROUTE,
        ];
        Ok(Self {
            state,
            table: table.to_owned(),
            own_port,
            routes: Descriptor::subscribed(NETLINK_ROUTE, &groups)?,
            tables: Descriptor::subscribed(NETLINK_NETFILTER, &[GROUP_NFTABLES])?,
            events: Vec::new(),
            changes: VecDeque::new(),
        })
    }

    /// Waits for the next change; then it is time for [`HostNet::reconcile`]. May be cancelled and
    /// called again. `None` when the kernel's sockets are lost.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Some(change);
            }
            // Nothing is read before the last wait, and nothing is forgotten before the next one.
            if self.events.is_empty() {
                tokio::select! {
                    ready = self.routes.readable() => ready.map(drop).ok()?,
                    ready = self.tables.readable() => ready.map(drop).ok()?,
                }
                sleep(BURST).await;
                self.read_routes().ok()?;
                self.read_tables().ok()?;
            }
            // Whoever removes a guest is done with it first: what it causes is no event.
            let guests = self.state.lock().await.guests.clone();
            self.judge(&guests);
        }
    }

    fn report(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push_back(change);
        }
    }

    /// What events mean, given the guests that there are.
    fn judge(&mut self, guests: &BTreeMap<GuestIndex, GuestSpec>) {
        if self.events.contains(&Event::DefaultRoute) {
            self.report(Change::Uplink);
        }
        // With a tap go its addresses and routes: that it is gone says it all.
        let (gone, other): (Vec<_>, Vec<_>) = std::mem::take(&mut self.events)
            .into_iter()
            .filter_map(|event| event.tap(guests).map(|tap| (event, tap)))
            .partition(|(event, _)| matches!(event, Event::Gone(_)));
        let gone: BTreeSet<_> = gone.into_iter().map(|(_, tap)| tap).collect();
        if other.iter().any(|(_, tap)| !gone.contains(tap)) {
            self.report(Change::Link);
        }
        for tap in gone {
            self.report(Change::TapGone(tap));
        }
    }

    fn read_routes(&mut self) -> io::Result<()> {
        let Some(messages) = take(&self.routes)? else {
            self.report(Change::Unknown);
            return Ok(());
        };
        for bytes in messages {
            each(&bytes, |message| {
                self.events.extend(event(message.into_inner()));
                Ok(true)
            })?;
        }
        Ok(())
    }

    fn read_tables(&mut self) -> io::Result<()> {
        let Some(messages) = take(&self.tables)? else {
            self.report(Change::Unknown);
            return Ok(());
        };
        let mut changed = false;
        for bytes in messages {
            each(&bytes, |message| {
                // What an event is about begins with the table's name, and ends with a zero.
                let table = nft::attribute(message.payload(), 1);
                let table = table.and_then(|t| t.strip_suffix(&[0]));
                changed |= message.port_number() != self.own_port
                    && message.message_type() != nft::NEW_GENERATION
                    && table == Some(self.table.as_bytes());
                Ok(true)
            })?;
        }
        if changed {
            self.report(Change::Table);
        }
        Ok(())
    }
}

/// Everything that a socket has; after it the socket is ready when there is more. `None` when some
/// was lost.
fn take(socket: &AsyncFd<Descriptor>) -> io::Result<Option<Vec<Vec<u8>>>> {
    let mut taken = Ok(Some(Vec::new()));
    // It is read until it has no more, which this says.
    let _ = socket.try_io(Interest::READABLE, |descriptor| {
        taken = descriptor.receive();
        Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock))
    });
    taken
}

fn event(bytes: &[u8]) -> Option<Event> {
    // What cannot be understood concerns links of other kinds.
    let message = NetlinkMessage::<Route>::deserialize(bytes).ok()?;
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        return None;
    };
    let name = |m: LinkMessage| {
        m.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::IfName(name) if name.starts_with(TapName::PREFIX) => Some(name),
            _ => None,
        })
    };
    match message {
        Route::DelLink(m) => name(m).map(Event::Gone),
        Route::NewLink(m) => {
            let (flags, change) = (m.header.flags, m.header.change_mask);
            // All bits are set when it is new: then it is not up yet.
            let down = change.contains(LinkFlags::Up) && change.bits() != u32::MAX;
            if down && !flags.contains(LinkFlags::Up) {
                name(m).map(Event::Down)
            } else {
                None
            }
        }
        Route::DelAddress(m) => m.attributes.into_iter().find_map(|a| match a {
            AddressAttribute::Address(std::net::IpAddr::V6(a)) => Some(Event::Lost(a)),
            _ => None,
        }),
        Route::NewRoute(m) | Route::DelRoute(m) if is_default(&m) => Some(Event::DefaultRoute),
        Route::DelRoute(m) if m.header.destination_prefix_length == GuestNet::LENGTH => {
            m.attributes.into_iter().find_map(|a| match a {
                RouteAttribute::Destination(RouteAddress::Inet6(a)) => Some(Event::Lost(a)),
                _ => None,
            })
        }
        _ => None,
    }
}

fn is_default(route: &RouteMessage) -> bool {
    let header = &route.header;
    header.destination_prefix_length == 0
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
}
