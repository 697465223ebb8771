//! The host's side: what the agent asks for, and how it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex as BlockingMutex, PoisonError},
};

use tokio::sync::Mutex;

use crate::{
    Error, GuestIndex, GuestSpec, Ipv4Pool, PortRule, Prefix, TapName,
    elements::{Element, Key},
    netlink::{
        nft::Nft,
        route::{Change, Observed, Router},
    },
    nft,
    ruleset::Ruleset,
    sysctl, tap,
    wanted::{self, Diff, Wanted},
    watch::Watch,
};

/// What the node's configuration says of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Name of the agent's nftables table (family inet).
    pub table: String,
    /// The interface toward the internet; those of the default routes unless given.
    pub uplink: Option<String>,
    /// Answer neighbour solicitations for guests on the uplink.
    pub ndp_proxy: bool,
    /// Where guests' IPv4 addresses come from; none without NAT.
    pub ipv4: Option<Ipv4Pool>,
    /// The node's IPv6 prefix.
    pub prefix: Prefix,
}

impl HostSpec {
    /// Checks the names.
    ///
    /// # Errors
    /// A name that nftables or the kernel would not take.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |name: &str, what, why| {
            Err(Error::BadName {
                name: name.to_owned(),
                what,
                why,
            })
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !self.table.starts_with(|c: char| c.is_ascii_lowercase())
            || !self.table.chars().all(plain)
            || self.table.len() > 31
        {
            let why = "expected at most 31 letters, digits and underscores, a small letter first";
            return bad(&self.table, "a table", why);
        }
        if let Some(uplink) = &self.uplink {
            if uplink.is_empty() || uplink.len() > 15 || matches!(uplink.as_str(), "." | "..") {
                return bad(uplink, "an interface", "expected 1 to 15 bytes");
            }
            if !uplink
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.@".contains(c))
            {
                let why = "expected letters, digits, and any of _-.@";
                return bad(uplink, "an interface", why);
            }
            if uplink.starts_with(crate::TapName::PREFIX) {
                return bad(uplink, "the uplink", "names of guests' taps begin so");
            }
        }
        Ok(())
    }
}

/// What a reconciliation found wrong and put right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// The table was missing or its rules were changed: it was written anew, whole.
    pub table: bool,
    /// Elements of its sets that were missing and are back.
    pub elements_added: usize,
    /// Elements that nobody owned and are gone.
    pub elements_removed: usize,
    /// Guests whose tap is gone: only whoever runs the guest can give it a new one.
    pub missing_taps: Vec<GuestIndex>,
    /// Guests whose tap had lost its state, addresses or neighbours.
    pub links: Vec<GuestIndex>,
    /// Addresses that the uplink answers for again.
    pub proxies_added: Vec<Ipv6Addr>,
    /// Addresses that it no longer answers for, as no guest has them.
    pub proxies_removed: Vec<Ipv6Addr>,
    /// Taps that belonged to no guest and are gone.
    pub removed_orphans: Vec<String>,
    /// Settings under `/proc/sys` that had been changed.
    pub sysctls: Vec<String>,
}

impl Repairs {
    /// Whether all was as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// The host's network. Cheap to clone; all copies are the same one.
///
/// Blocking system calls are made on tokio's blocking threads. Sockets are those of the network namespace of
/// the thread that calls.
#[derive(Debug, Clone)]
pub struct HostNet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spec: HostSpec,
    nft: BlockingMutex<Nft>,
    state: Mutex<State>,
}

/// What this process has put into the firewall.
#[derive(Debug, Default)]
struct State {
    guests: BTreeMap<GuestIndex, GuestSpec>,
    uplinks: BTreeSet<String>,
    /// The table's rules as nft listed them once they were written.
    rules: Option<nft::Rules>,
    /// The number of nftables' last transaction, when the table was known to be right after it.
    generation: Option<u32>,
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
        if let Some(name) = &spec.uplink {
            if !observed.links.contains_key(name) {
                return Err(Error::NoSuchInterface { name: name.clone() });
            }
        }
        let state = State {
            uplinks: uplinks(&spec, &observed),
            ..State::default()
        };
        let (nft, state) = (BlockingMutex::new(nft), Mutex::new(state));
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

    /// At the agent's start: the table with the elements of all guests in one transaction, then forwarding.
    /// Existing taps and established connections are not disturbed.
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

    /// Lets a guest in: firewall first, then tap, addresses, neighbours. The tap lives as long as a copy of
    /// the returned descriptor does: QEMU gets it. When it fails it leaves nothing behind of a guest that it
    /// was not told of before. Done again once the descriptor is closed, it is as done once.
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
            // From now on whatever is left of it is an orphan. What this process made counts, not what the
            // caller remembers.
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

    /// Opens and closes ports in one transaction. Established connections go on. A guest that is not there
    /// has none to open: [`Self::add_guest`] will be told.
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
    /// Guests are those that [`Self::start`] and [`Self::add_guest`] were told of. A guest of `guests` that is
    /// not among them is adopted if it has a tap; if not, its tap is missing, and nothing of it is removed, as
    /// it may be on its way.
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

    async fn repair_table(
        &self,
        state: &mut State,
        spared: &BTreeMap<GuestIndex, GuestSpec>,
        repairs: &mut Repairs,
    ) -> Result<(), Error> {
        let generation = self
            .nft("ask for nftables' generation", Nft::generation)
            .await?;
        if state.generation == Some(generation) {
            return Ok(());
        }
        let listed = nft::rules(&self.spec().table).await?;
        let table = self.spec().table.clone();
        let held = match &listed {
            Some(listed) if state.rules.as_ref() == Some(listed) => {
                match self
                    .nft("list elements", move |nft| nft.elements(&table))
                    .await
                {
                    Ok(held) => Some(held),
                    Err(e) if e.is_not_found() => None,
                    Err(e) => return Err(e),
                }
            }
            _ => None,
        };
        let Some(held) = held else {
            repairs.table = true;
            return self.write_table(state).await;
        };
        let guests: Vec<_> = state.guests.values().cloned().collect();
        let ruleset = Ruleset {
            host: self.spec(),
            uplinks: &state.uplinks,
            guests: &guests,
        };
        let wanted: BTreeSet<Key> = ruleset.elements().iter().map(Element::key).collect();
        let spared: BTreeSet<Key> = spared
            .values()
            .flat_map(Element::of_guest)
            .map(|e| e.key())
            .collect();
        let missing: BTreeSet<Key> = wanted.difference(&held).cloned().collect();
        let orphans: BTreeSet<Key> = held
            .difference(&wanted)
            .filter(|key| !spared.contains(key))
            .cloned()
            .collect();
        (repairs.elements_added, repairs.elements_removed) = (missing.len(), orphans.len());
        if missing.is_empty() && orphans.is_empty() {
            state.generation = Some(generation);
            return Ok(());
        }
        if missing.len() + orphans.len() > MOST_ELEMENTS {
            return self.write_table(state).await;
        }
        state.generation = Some(generation);
        self.change_keys(state, orphans, missing).await
    }

    /// Tells when somebody else removes a guest's tap, takes it down, takes its addresses or routes away, or
    /// changes the agent's table. To be called on a tokio runtime.
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
        Watch::open(self.clone(), port).map_err(kernel("subscribe to events"))
    }

    /// Looks at the guests that [`Self::add_guest`] was told of.
    pub(crate) async fn with_guests<T>(
        &self,
        look: impl FnOnce(&BTreeMap<GuestIndex, GuestSpec>) -> T,
    ) -> T {
        look(&self.0.state.lock().await.guests)
    }

    /// Chains of others that drop what the agent's table lets through: forwarding to guests does not work
    /// until they let it pass. No accept of one table overrides the drop of another.
    ///
    /// # Errors
    /// When nft does not answer.
    pub async fn obstacles(&self) -> Result<Vec<Obstacle>, Error> {
        let ipv4 = self.spec().ipv4.is_some();
        let in_the_way = |c: &nft::Chain| {
            c.hook == "forward"
                && c.policy == "drop"
                && (c.family != "ip" || ipv4)
                && !(c.family == "inet" && c.table == self.spec().table)
        };
        let chains = nft::chains().await?.into_iter().filter(in_the_way);
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

    /// Writes the table, whole.
    async fn write_table(&self, state: &mut State) -> Result<(), Error> {
        let guests: Vec<_> = state.guests.values().cloned().collect();
        let ruleset = Ruleset {
            host: self.spec(),
            uplinks: &state.uplinks,
            guests: &guests,
        };
        let script = ruleset.script();
        (state.rules, state.generation) = (None, None);
        let generation = || self.nft("ask for nftables' generation", Nft::generation);
        // Somebody else's transaction in between could make theirs look like ours.
        for _ in 0..WRITES {
            let before = generation().await?;
            nft::apply(script.clone()).await?;
            let rules = nft::rules(&self.spec().table).await?;
            if generation().await? == before.wrapping_add(1) {
                (state.rules, state.generation) = (rules, Some(before.wrapping_add(1)));
                break;
            }
        }
        Ok(())
    }

    /// Changes elements in one transaction; writes the table if it is not there.
    async fn change(
        &self,
        state: &mut State,
        stale: &BTreeSet<Element>,
        wanted: &BTreeSet<Element>,
    ) -> Result<(), Error> {
        let remove = stale.difference(wanted).map(Element::key).collect();
        self.change_keys(state, remove, wanted.iter().map(Element::key).collect())
            .await
    }

    async fn change_keys(
        &self,
        state: &mut State,
        remove: BTreeSet<Key>,
        add: BTreeSet<Key>,
    ) -> Result<(), Error> {
        let table = self.spec().table.clone();
        let changed = self.nft("change the firewall's sets", move |nft| {
            nft.change(&table, &remove, &add)?;
            nft.generation()
        });
        match changed.await {
            Ok(generation) => {
                // Only when nobody else changed anything since: then the table is still as it was.
                let known = state.generation.map(|g| g.wrapping_add(1));
                state.generation = known.filter(|known| *known == generation);
                Ok(())
            }
            Err(e) if e.is_not_found() => self.write_table(state).await,
            Err(e) => {
                state.generation = None;
                Err(e)
            }
        }
    }

    async fn nft<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Nft) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let mut nft = inner.nft.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut nft).map_err(kernel(what))
        })
        .await
    }
}

/// A chain of another table that drops what the agent's lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The table's family.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain, at the hook for forwarded packets, whose policy is to drop.
    pub chain: String,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            family,
            table,
            chain,
        } = self;
        write!(
            f,
            "chain {chain} of table {family} {table} drops forwarded packets by policy"
        )
    }
}

/// More changed elements than this are written with the whole table.
const MOST_ELEMENTS: usize = 2000;
/// How often the table is written when others change theirs at the same time.
const WRITES: usize = 5;

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel {
        what: what.into(),
        source,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::Task(e.to_string()))?
}

/// Settings, address, routes and the rest of a tap that was just made.
fn bring_up(guest: &GuestSpec, proxying: &[String]) -> Result<(), Error> {
    sysctl::of_tap(&guest.tap)
        .iter()
        .try_for_each(|s| s.apply().map(drop))?;
    let gone = || Error::NoSuchInterface {
        name: guest.tap.to_string(),
    };
    let tap = index(guest.tap.as_str())?.ok_or_else(gone)?;
    route(&wanted::set_up(guest, tap, &indices(proxying)?))
}

fn observe() -> Result<Observed, Error> {
    let observe = || Router::open()?.observe();
    observe().map_err(kernel("list links, addresses, routes and neighbours"))
}

fn route(changes: &[Change]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut router = Router::open().map_err(kernel("open a socket to routing"))?;
    let failed = router.change(changes);
    failed.map_err(|(change, source)| Error::Kernel {
        what: change.to_string(),
        source,
    })
}

/// The kernel's number of an interface; `None` when there is none of that name.
fn index(name: &str) -> Result<Option<u32>, Error> {
    use rustix::{io::Errno, net};
    let error = |e: Errno| kernel("look an interface up")(e.into());
    let kind = (
        net::AddressFamily::INET,
        net::SocketType::DGRAM,
        net::SocketFlags::CLOEXEC,
    );
    let socket = net::socket_with(kind.0, kind.1, kind.2, None).map_err(error)?;
    match net::netdevice::name_to_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(e) => Err(error(e)),
    }
}

/// Those that exist.
fn indices(names: &[String]) -> Result<Vec<u32>, Error> {
    names
        .iter()
        .filter_map(|name| index(name).transpose())
        .collect()
}

/// The interfaces toward the internet.
fn uplinks(spec: &HostSpec, observed: &Observed) -> BTreeSet<String> {
    if let Some(name) = &spec.uplink {
        return BTreeSet::from([name.clone()]);
    }
    let default = observed
        .links
        .iter()
        .filter(|(_, link)| observed.defaults.contains(&link.index));
    // Others' names may hold anything: what a specification could not name is no uplink.
    let fit = |name: &&String| {
        HostSpec {
            uplink: Some((*name).clone()),
            ..spec.clone()
        }
        .check()
        .is_ok()
    };
    default.map(|(name, _)| name).filter(fit).cloned().collect()
}
