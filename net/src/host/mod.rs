//! The host's side: what the agent asks for, and how it is done.

mod firewall;
mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex as BlockingMutex, PoisonError},
};

use tokio::sync::Mutex;

use self::kernel::{blocking, bring_up, index, indices, kernel, observe, route, uplinks};
use crate::{
    elements::Element,
    error::Error,
    guest::{GuestSpec, TapName},
    netlink::nft::Nft,
    nft_program,
    obstacle::Obstacle,
    port::PortRule,
    repairs::Repairs,
    spec::HostSpec,
    state::{Shared, State},
    sysctl, tap,
    wanted::{self, Diff, Wanted},
    watch::Watch,
};

/// The host's network. Cheap to clone; all copies are the same one.
///
/// Blocking system calls are made on tokio's blocking threads. Sockets are those of the network
/// namespace of the thread that calls.
#[derive(Debug, Clone)]
pub struct HostNet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spec: HostSpec,
    nft: BlockingMutex<Nft>,
    state: Shared,
}

impl HostNet {
    /// Checks the specification and the host; changes nothing.
    ///
    /// # Errors
    /// Names that cannot be, an uplink that does not exist, a kernel without nftables.
    pub async fn open(spec: HostSpec) -> Result<Self, Error> {
        spec.check()?;
        let (nft, observed) = blocking(|| {
            let nft = Nft::open().map_err(kernel("open a socket to nftables"))?;
            Ok((nft, observe()?))
        })
        .await?;
        if let Some(name) = &spec.uplink
            && !observed.links.contains_key(name)
        {
            return Err(Error::NoSuchInterface { name: name.clone() });
        }
        let state = State {
            uplinks: uplinks(&spec, &observed),
            ..State::default()
        };
        let (nft, state) = (BlockingMutex::new(nft), Arc::new(Mutex::new(state)));
        Ok(Self(Arc::new(Inner { spec, nft, state })))
    }

    /// What it was opened with.
    #[must_use]
    pub fn spec(&self) -> &HostSpec {
        &self.0.spec
    }

    /// IPv6 addresses that the host has now, those of guests' gateways left out: an
    /// [`AddressPlan`](crate::AddressPlan) should avoid them.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub async fn addresses(&self) -> Result<Vec<Ipv6Addr>, Error> {
        let observed = blocking(observe).await?;
        let is_tap = |name: &str| name.starts_with(TapName::PREFIX);
        let taps: BTreeSet<_> = observed
            .links
            .iter()
            .filter(|(n, _)| is_tap(n))
            .map(|(_, l)| l.index)
            .collect();
        let own = |&(link, address, _): &(u32, IpAddr, u8)| match address {
            IpAddr::V6(address) if !taps.contains(&link) => Some(address),
            _ => None,
        };
        Ok(observed.addresses.iter().filter_map(own).collect())
    }

    /// At the agent's start: the table with the elements of all guests in one transaction, then
    /// forwarding. Existing taps and established connections are not disturbed.
    ///
    /// # Errors
    /// What the kernel or nft refuses.
    pub async fn start(&self, guests: &[GuestSpec]) -> Result<(), Error> {
        guests.iter().try_for_each(GuestSpec::check)?;
        let mut state = self.0.state.lock().await;
        let observed = blocking(observe).await?;
        state.uplinks = uplinks(self.spec(), &observed);
        state.guests = guests.iter().map(|g| (g.index, g.clone())).collect();
        self.write_table(&mut state).await?;
        self.settings(&state).await.map(drop)
    }

    /// Lets a guest in: firewall first, then tap, addresses, neighbours. The tap lives as long as a
    /// copy of the returned descriptor does: QEMU gets it. When it fails it leaves nothing behind
    /// of a guest that it was not told of before. Done again once the descriptor is closed, it is
    /// as done once.
    ///
    /// # Errors
    /// Too many ranges of ports, a tap that another process holds, what the kernel refuses.
    pub async fn add_guest(&self, guest: &GuestSpec) -> Result<OwnedFd, Error> {
        guest.check()?;
        let (proxying, is_new) = {
            let mut state = self.0.state.lock().await;
            let before = state.guests.insert(guest.index, guest.clone());
            let stale = before.as_ref().map(Element::of_guest).unwrap_or_default();
            if let Err(e) = self
                .change(&mut state, &stale, &Element::of_guest(guest))
                .await
            {
                state.guests.remove(&guest.index);
                return Err(e);
            }
            (self.proxying(&state), before.is_none())
        };
        let wanted = guest.clone();
        let made = blocking(move || {
            let descriptor = tap::create(&wanted.tap)?;
            bring_up(&wanted, &proxying)?;
            Ok(descriptor)
        })
        .await;
        if made.is_err() && is_new {
            // Not the tap: it went with its descriptor, unless it is another process's.
            if let Err(error) = self.forget(guest, false).await {
                tracing::warn!(tap = %guest.tap, %error, "a failed guest's network is not all undone");
            }
        }
        made
    }

    /// Gives the descriptor of a guest whose tap was removed by somebody a new tap of
    /// the same name. `descriptor` is the very one that QEMU holds (a copy of it, got
    /// by `pidfd_getfd`): QEMU needs not be told, and the guest sees nothing but a
    /// pause.
    ///
    /// # Errors
    /// When the tap is there, or what the kernel refuses.
    pub async fn reattach_guest(
        &self,
        guest: &GuestSpec,
        descriptor: OwnedFd,
    ) -> Result<(), Error> {
        let proxying = self.proxying(&*self.0.state.lock().await);
        let wanted = guest.clone();
        blocking(move || {
            tap::reattach(&descriptor, &wanted.tap)?;
            bring_up(&wanted, &proxying)
        })
        .await
    }

    /// Takes away what [`Self::add_guest`] made, as far as it is there.
    ///
    /// # Errors
    /// What the kernel refuses; [`Self::reconcile`] then removes the rest.
    pub async fn remove_guest(&self, guest: &GuestSpec) -> Result<(), Error> {
        self.forget(guest, true).await
    }

    async fn forget(&self, guest: &GuestSpec, with_tap: bool) -> Result<(), Error> {
        let (proxying, gone) = {
            let mut state = self.0.state.lock().await;
            // From now on whatever is left of it is an orphan. What this process made counts, not
            // what the caller remembers.
            let known = state.guests.remove(&guest.index);
            (
                self.proxying(&state),
                known.unwrap_or_else(|| guest.clone()),
            )
        };
        let elements = Element::of_guest(&gone);
        let links = blocking(move || {
            let tap = if with_tap {
                index(gone.tap.as_str())?
            } else {
                None
            };
            route(&wanted::take_down(&gone, tap, &indices(&proxying)?))
        })
        .await;
        let mut state = self.0.state.lock().await;
        let firewall = self.change(&mut state, &elements, &BTreeSet::new()).await;
        links.and(firewall)
    }

    /// Opens and closes ports in one transaction. Established connections go on. A guest that is
    /// not there has none to open: [`Self::add_guest`] will be told.
    ///
    /// # Errors
    /// Too many ranges, or what the kernel refuses.
    pub async fn set_ports(
        &self,
        guest: &GuestSpec,
        ports: &BTreeSet<PortRule>,
    ) -> Result<(), Error> {
        let new = GuestSpec {
            ports: ports.clone(),
            ..guest.clone()
        };
        new.check()?;
        let mut state = self.0.state.lock().await;
        let Some(known) = state.guests.get_mut(&guest.index) else {
            return Ok(());
        };
        let stale = Element::of_ports(known);
        known.ports.clone_from(ports);
        self.change(&mut state, &stale, &Element::of_ports(&new))
            .await
    }

    /// Compares the kernel's state with what guests should have, and repairs.
    ///
    /// Guests are those that [`Self::start`] and [`Self::add_guest`] were told of. A guest of
    /// `guests` that is not among them is adopted if it has a tap; if not, its tap is missing, and
    /// nothing of it is removed, as it may be on its way.
    ///
    /// # Errors
    /// What the kernel or nft refuses.
    pub async fn reconcile(&self, guests: &[GuestSpec]) -> Result<Repairs, Error> {
        let mut state = self.0.state.lock().await;
        let observed = blocking(observe).await?;
        let mut spared = BTreeMap::new();
        for guest in guests.iter().filter(|g| g.check().is_ok()) {
            if state.guests.contains_key(&guest.index) {
                continue;
            }
            if observed.links.contains_key(guest.tap.as_str()) {
                state.guests.insert(guest.index, guest.clone());
                state.generation = None;
            } else {
                spared.insert(guest.index, guest.clone());
            }
        }
        let now = uplinks(self.spec(), &observed);
        if state.uplinks != now {
            state.uplinks = now;
            state.generation = None;
        }
        let proxying: Vec<_> = self
            .proxying(&state)
            .iter()
            .filter_map(|name| observed.links.get(name).map(|l| l.index))
            .collect();
        let wanted = Wanted {
            prefix: self.spec().prefix,
            proxying: &proxying,
            guests: &state.guests,
            spared: &spared,
        };
        let Diff {
            mut repairs,
            changes,
        } = wanted.diff(&observed);
        repairs.missing_taps.extend(spared.keys());
        repairs.missing_taps.sort_unstable();
        self.repair_table(&mut state, &spared, &mut repairs).await?;
        repairs.sysctls = self.settings(&state).await?;
        let taps: Vec<_> = repairs
            .links
            .iter()
            .filter_map(|index| state.guests.get(index).map(|g| g.tap.clone()))
            .collect();
        blocking(move || {
            for setting in taps.iter().flat_map(sysctl::of_tap) {
                setting.apply()?;
            }
            route(&changes)
        })
        .await?;
        Ok(repairs)
    }

    /// Tells when somebody else removes a guest's tap, takes it down, takes its addresses or routes
    /// away, or changes the agent's table. To be called on a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no events.
    pub fn watch(&self) -> Result<Watch, Error> {
        let port = self
            .0
            .nft
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .port();
        let state = Arc::clone(&self.0.state);
        Watch::open(state, &self.spec().table, port).map_err(kernel("subscribe to events"))
    }

    /// Chains of others that drop what the agent's table lets through: forwarding to guests does
    /// not work until they let it pass. No accept of one table overrides the drop of another.
    ///
    /// # Errors
    /// When nft does not answer.
    pub async fn obstacles(&self) -> Result<Vec<Obstacle>, Error> {
        let ipv4 = self.spec().ipv4.is_some();
        let in_the_way = |c: &nft_program::Chain| {
            c.hook == "forward"
                && c.policy == "drop"
                && (c.family != "ip" || ipv4)
                && !(c.family == "inet" && c.table == self.spec().table)
        };
        let chains = nft_program::chains().await?.into_iter().filter(in_the_way);
        Ok(chains
            .map(|c| Obstacle {
                family: c.family,
                table: c.table,
                chain: c.name,
            })
            .collect())
    }

    /// Whether a guest's tap exists.
    #[must_use]
    pub fn tap_exists(tap: &TapName) -> bool {
        index(tap.as_str()).is_ok_and(|index| index.is_some())
    }

    /// Interfaces that answer for guests.
    fn proxying(&self, state: &State) -> Vec<String> {
        if self.spec().ndp_proxy {
            state.uplinks.iter().cloned().collect()
        } else {
            Vec::new()
        }
    }

    /// Writes the host's settings; tells which were wrong.
    async fn settings(&self, state: &State) -> Result<Vec<String>, Error> {
        let settings = sysctl::of_host(self.spec(), &state.uplinks);
        blocking(move || {
            let mut wrong = Vec::new();
            for setting in settings {
                if setting.apply()? {
                    wrong.push(setting.name());
                }
            }
            Ok(wrong)
        })
        .await
    }
}
