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
    netlink::{nft::Nft, route::Observed},
    nft_program,
    obstacle::Obstacle,
    offloads::Offloads,
    port::PortRule,
    problem::Problem,
    repairs::Repairs,
    ruleset::GuestsOnly,
    spec::HostSpec,
    state::{Shared, State},
    sysctl, tap,
    uplinks::Uplinks,
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
    /// What the last comparison could not put right. Apart from the state, which is held while nft
    /// runs: whoever asks does not wait.
    problems: BlockingMutex<Vec<Problem>>,
}

impl HostNet {
    /// Checks the specification and the host; changes nothing. An uplink that does not exist yet is
    /// taken up when it comes.
    ///
    /// # Errors
    /// Names that cannot be, a kernel without nftables.
    pub async fn open(spec: HostSpec) -> Result<Self, Error> {
        spec.check()?;
        let (nft, observed) = blocking(|| {
            let nft = Nft::open().map_err(kernel("open a socket to nftables"))?;
            Ok((nft, observe()?))
        })
        .await?;
        let state = State {
            uplinks: uplinks(&spec, &observed, &Uplinks::default()),
            ..State::default()
        };
        let (nft, state) = (BlockingMutex::new(nft), Arc::new(Mutex::new(state)));
        let problems = BlockingMutex::default();
        Ok(Self(Arc::new(Inner {
            spec,
            nft,
            state,
            problems,
        })))
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

    /// At the agent's start: the tables with the elements of all guests in one transaction, then
    /// forwarding. Existing taps and established connections are not disturbed.
    ///
    /// # Errors
    /// What the kernel or nft refuses of the firewall. Settings that cannot be written are
    /// [`Self::problems`].
    pub async fn start(&self, guests: &[GuestSpec]) -> Result<(), Error> {
        guests.iter().try_for_each(GuestSpec::check)?;
        let mut state = self.0.state.lock().await;
        let observed = blocking(observe).await?;
        state.uplinks = uplinks(self.spec(), &observed, &state.uplinks);
        state.guests = guests.iter().map(|g| (g.index, g.clone())).collect();
        state.guests_only = self.guests_only().await?;
        self.write_table(&mut state).await?;
        let mut problems = Vec::new();
        self.settings(&state, &observed, &mut problems).await;
        self.set_problems(problems);
        Ok(())
    }

    /// For which protocols the host is to forward for guests only: those that it did not forward
    /// before the agent switched it on. That it was the agent the tables of an earlier start tell.
    async fn guests_only(&self) -> Result<GuestsOnly, Error> {
        let ipv4 = self.spec().ipv4.is_some();
        if let Some(others) = self.spec().forward_others {
            return Ok(GuestsOnly {
                ipv6: !others,
                ipv4: ipv4 && !others,
            });
        }
        let before = nft_program::rules(&self.spec().table).await?;
        let (ipv6_on, ipv4_on) = sysctl::forwarding();
        let closed = |chain| before.as_ref().is_some_and(|rules| rules.has_chain(chain));
        Ok(GuestsOnly {
            ipv6: !ipv6_on || closed(GuestsOnly::CHAIN_IPV6),
            ipv4: ipv4 && (!ipv4_on || closed(GuestsOnly::CHAIN_IPV4)),
        })
    }

    /// What other firewalls drop of guests' traffic, as it is now. Changes nothing.
    ///
    /// # Errors
    /// When nftables does not tell what others have.
    pub async fn obstacles(&self) -> Result<Vec<Obstacle>, Error> {
        let mut state = self.0.state.lock().await;
        self.look_at_others(&mut state).await?;
        let found = state.obstacles.iter().flat_map(|(_, _, found)| found);
        Ok(found.cloned().collect())
    }

    /// What the last comparison found and could not put right.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let problems = self.0.problems.lock();
        problems.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problems(&self, problems: Vec<Problem>) {
        let known = self.0.problems.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// What fits through the host's uplinks and a guest's link, bytes: between 1280 and 1500.
    pub async fn guests_mtu(&self) -> u32 {
        self.0.state.lock().await.uplinks.guests_mtu()
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
        let (mtu, proxying, is_new) = {
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
            let mtu = state.uplinks.guests_mtu();
            (mtu, self.proxying(&state), before.is_none())
        };
        let wanted = guest.clone();
        let made = blocking(move || {
            let descriptor = tap::create(&wanted.tap)?;
            bring_up(&wanted, mtu, &proxying)?;
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
    /// pause. `offloads` are those of the driver in the guest: with fewer it is slower until
    /// it starts anew, with more it gets packets that it does not understand.
    ///
    /// # Errors
    /// When the tap is there, or what the kernel refuses.
    pub async fn reattach_guest(
        &self,
        guest: &GuestSpec,
        descriptor: OwnedFd,
        offloads: Offloads,
    ) -> Result<(), Error> {
        let (mtu, proxying) = {
            let state = self.0.state.lock().await;
            (state.uplinks.guests_mtu(), self.proxying(&state))
        };
        let wanted = guest.clone();
        blocking(move || {
            tap::reattach(&descriptor, &wanted.tap, offloads)?;
            bring_up(&wanted, mtu, &proxying)
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
    /// All that can be repaired is, whatever else cannot: that is what [`Self::problems`] has.
    ///
    /// # Errors
    /// When the kernel does not tell what it has.
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
        let now = uplinks(self.spec(), &observed, &state.uplinks);
        if state.uplinks != now {
            let only_names = Uplinks {
                names: now.names.clone(),
                mtu: now.mtu,
                ..state.uplinks.clone()
            };
            if only_names != now {
                // What is on their links is part of the rules.
                state.rules = None;
            }
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
            mtu: state.uplinks.guests_mtu(),
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
        // Each part is carried out, whatever becomes of the others.
        let mut problems = self.found(&state, &observed);
        let mut failed = |what, error: Error| {
            let why = error.to_string();
            problems.push(Problem::Failed { what, why });
        };
        if let Err(e) = self.repair_table(&mut state, &spared, &mut repairs).await {
            failed("the firewall could not be compared", e);
        }
        let taps: Vec<_> = repairs
            .links
            .iter()
            .filter_map(|index| state.guests.get(index).map(|g| g.tap.clone()))
            .collect();
        let links = blocking(move || {
            let settings = taps.iter().flat_map(sysctl::of_tap);
            let settings = settings.map(|s| s.apply().map(drop));
            let settings = settings.fold(Ok(()), Result::and);
            route(&changes).and(settings)
        });
        if let Err(e) = links.await {
            failed(
                "not all links, addresses and neighbours could be put right",
                e,
            );
        }
        if let Err(e) = self.look_at_others(&mut state).await {
            failed("the tables of other firewalls could not be looked at", e);
        }
        repairs.sysctls = self.settings(&state, &observed, &mut problems).await;
        let obstacles = state.obstacles.iter().flat_map(|(_, _, found)| found);
        problems.extend(obstacles.cloned().map(Problem::Obstacle));
        self.set_problems(problems);
        Ok(repairs)
    }

    /// What can be seen, and only an operator can put right.
    fn found(&self, state: &State, observed: &Observed) -> Vec<Problem> {
        let mut problems = Vec::new();
        match &self.spec().uplink {
            Some(name) if !observed.links.contains_key(name) => {
                problems.push(Problem::UplinkMissing { name: name.clone() });
            }
            Some(name)
                if !observed
                    .links
                    .get(name)
                    .is_some_and(|l| observed.defaults.contains(&l.index)) =>
            {
                let uplink = Some(name.clone());
                problems.push(Problem::NoDefaultRoute { uplink });
            }
            None if observed.defaults.is_empty() => {
                problems.push(Problem::NoDefaultRoute { uplink: None });
            }
            _ => {}
        }
        let prefix = self.spec().prefix;
        let outside = |g: &&GuestSpec| !prefix.is_guests(g.network.guest());
        let guests = state.guests.values().filter(outside).map(|g| g.index);
        let guests: Vec<_> = guests.collect();
        if !guests.is_empty() {
            problems.push(Problem::OtherPrefix { prefix, guests });
        }
        problems
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

    /// Whether a guest's tap exists.
    #[must_use]
    pub fn tap_exists(tap: &TapName) -> bool {
        index(tap.as_str()).is_ok_and(|index| index.is_some())
    }

    /// Interfaces that answer for guests.
    fn proxying(&self, state: &State) -> Vec<String> {
        if self.spec().ndp_proxy {
            state.uplinks.names.iter().cloned().collect()
        } else {
            Vec::new()
        }
    }

    /// Writes the host's settings; returns those that were wrong. All are tried.
    async fn settings(
        &self,
        state: &State,
        observed: &Observed,
        problems: &mut Vec<Problem>,
    ) -> Vec<String> {
        let (spec, uplinks) = (self.spec().clone(), state.uplinks.names.clone());
        let taps = state.guests.values().map(|g| &g.tap);
        let with_ipv4 = spec.ipv4.is_some();
        // The list of links has told of most: there are many taps, each with a file for each setting.
        let wrong = taps.filter(|tap| !observed.forwards(tap.as_str(), with_ipv4));
        let taps: Vec<_> = wrong.cloned().collect();
        let written = blocking(move || {
            let listeners = match sysctl::forwarding() {
                (true, _) => BTreeSet::new(),
                _ => sysctl::listeners(sysctl::INTERFACES.as_ref()).unwrap_or_default(),
            };
            // An uplink that does not exist has no settings.
            let there = |name: &String| matches!(index(name), Ok(Some(_)));
            let uplinks = uplinks.into_iter().filter(there).collect();
            let settings = sysctl::of_host(&spec, &uplinks, &listeners, taps.into_iter());
            let (mut wrong, mut failed) = (Vec::new(), Vec::new());
            for setting in settings {
                match setting.apply() {
                    Ok(true) => wrong.push(setting.name()),
                    Ok(false) => {}
                    Err(e) => failed.push((setting.name(), e.to_string())),
                }
            }
            Ok((wrong, failed))
        });
        match written.await {
            Ok((wrong, failed)) => {
                let failed = failed.into_iter();
                problems.extend(failed.map(|(path, why)| Problem::Setting { path, why }));
                wrong
            }
            Err(e) => {
                let what = "the host's settings could not be looked at";
                let why = e.to_string();
                problems.push(Problem::Failed { what, why });
                Vec::new()
            }
        }
    }
}
