//! The firewall's half of [`HostNet`]: the table written, changed, compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv6Addr,
    sync::{Arc, PoisonError},
};

use super::{
    HostNet,
    kernel::{blocking, kernel},
};
use crate::{
    address::AddressPlan,
    elements::{Element, Key},
    error::Error,
    guest::GuestSpec,
    index::GuestIndex,
    netlink::nft::Nft,
    nft_program,
    obstacle::{self, Sample},
    repairs::Repairs,
    ruleset::Ruleset,
    state::State,
};

/// More changed elements than this are written with the whole table.
const MOST_ELEMENTS: usize = 2000;
/// How often the table is written when others change theirs at the same time.
const WRITES: usize = 5;

impl HostNet {
    /// Compares the table with what it should be, and repairs it. What `spared` guests have is left
    /// alone.
    pub(super) async fn repair_table(
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
        let listed = nft_program::rules(&self.spec().table).await?;
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
        let ruleset = self.ruleset(state, &guests);
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

    fn ruleset<'a>(&'a self, state: &'a State, guests: &'a [GuestSpec]) -> Ruleset<'a> {
        Ruleset {
            host: self.spec(),
            uplinks: &state.uplinks,
            guests_only: state.guests_only,
            guests,
            timeouts: !state.no_timeouts,
        }
    }

    /// Writes the tables, whole.
    pub(super) async fn write_table(&self, state: &mut State) -> Result<(), Error> {
        let guests: Vec<_> = state.guests.values().cloned().collect();
        let mut script = self.ruleset(state, &guests).script();
        (state.rules, state.generation) = (None, None);
        let generation = || self.nft("ask for nftables' generation", Nft::generation);
        // Somebody else's transaction in between could make theirs look like ours.
        for _ in 0..WRITES {
            let before = generation().await?;
            if let Err(error) = nft_program::apply(script.clone()).await {
                if state.no_timeouts || !matches!(error, Error::Nft { .. }) {
                    return Err(error);
                }
                // The one part that a kernel may be built without.
                state.no_timeouts = true;
                script = self.ruleset(state, &guests).script();
                if nft_program::apply(script.clone()).await.is_err() {
                    state.no_timeouts = false;
                    return Err(error);
                }
                tracing::warn!(
                    "the kernel takes no timeouts of connections: those of guests last as long as \
                     the host's: {error}"
                );
            }
            let rules = nft_program::rules(&self.spec().table).await?;
            let after = before.wrapping_add(1);
            if generation().await? == after {
                (state.rules, state.generation) = (rules, Some(after));
                state.obstacles_known_at(before, after);
                break;
            }
        }
        Ok(())
    }

    /// Looks at the tables of others, if nftables was changed by somebody else since the last time.
    pub(super) async fn look_at_others(&self, state: &mut State) -> Result<(), Error> {
        let generation = self
            .nft("ask for nftables' generation", Nft::generation)
            .await?;
        let sample = self.sample(state);
        if let Some((known, of, _)) = &state.obstacles
            && *known == generation
            && *of == sample
        {
            return Ok(());
        }
        let listing = nft_program::others(&self.spec().table).await?;
        let found = obstacle::find(&listing, &sample)?;
        state.obstacles = Some((generation, sample, found));
        Ok(())
    }

    /// A guest to look at others' tables with: one that there is, else the first that there could be.
    fn sample(&self, state: &State) -> Sample {
        let some = state.guests.values().next();
        let first = || {
            let plan = AddressPlan::new(self.spec().prefix).ok()?;
            let network = plan.assign("00000000000", |_| false).ok()?;
            let ipv4 = self.spec().ipv4.as_ref();
            Some(GuestSpec::new(
                GuestIndex(0),
                "",
                network,
                ipv4,
                BTreeSet::new(),
            ))
        };
        let guest = some.cloned().or_else(first);
        let uplink = state.uplinks.names.iter().next().cloned();
        Sample {
            tap: guest
                .as_ref()
                .map_or_else(String::new, |g| g.tap.to_string()),
            uplink: uplink.unwrap_or_else(|| "uplink".into()),
            guest: guest
                .as_ref()
                .map_or(Ipv6Addr::UNSPECIFIED, |g| g.network.guest()),
            gateway: guest
                .as_ref()
                .map_or(Ipv6Addr::UNSPECIFIED, |g| g.network.gateway()),
            ipv4: guest.and_then(|g| g.ipv4).map(|n| n.guest),
        }
    }

    /// Changes elements in one transaction; writes the table if it is not there.
    pub(super) async fn change(
        &self,
        state: &mut State,
        stale: &BTreeSet<Element>,
        wanted: &BTreeSet<Element>,
    ) -> Result<(), Error> {
        let remove = stale.difference(wanted).map(Element::key).collect();
        self.change_keys(state, remove, wanted.iter().map(Element::key).collect())
            .await
    }

    pub(super) async fn change_keys(
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
                if state.generation.is_some() {
                    state.obstacles_known_at(generation.wrapping_sub(1), generation);
                }
                Ok(())
            }
            Err(e) if e.is_not_found() => self.write_table(state).await,
            Err(e) => {
                state.generation = None;
                Err(e)
            }
        }
    }

    pub(super) async fn nft<T: Send + 'static>(
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
