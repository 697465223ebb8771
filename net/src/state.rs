//! What this process has put into the firewall, and what it knows of the host; shared by whoever
//! changes it and whoever watches.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Mutex;

use crate::{
    guest::GuestSpec,
    index::GuestIndex,
    nft_program::Rules,
    obstacle::{Obstacle, Sample},
    ruleset::GuestsOnly,
    uplinks::Uplinks,
};

/// Held while the firewall is changed: nobody sees half a change.
pub(crate) type Shared = Arc<Mutex<State>>;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) guests: BTreeMap<GuestIndex, GuestSpec>,
    pub(crate) uplinks: Uplinks,
    pub(crate) guests_only: GuestsOnly,
    /// The kernel refused timeouts as objects.
    pub(crate) no_timeouts: bool,
    /// The tables' rules as nft listed them after they were written.
    pub(crate) rules: Option<Rules>,
    /// The number of nftables' last transaction, when the tables were known to be right after it.
    pub(crate) generation: Option<u32>,
    /// What others' tables stop, as it was after the transaction of this number, for this guest.
    pub(crate) obstacles: Option<(u32, Sample, Vec<Obstacle>)>,
}

impl State {
    /// The agent's own transaction changes nothing of others.
    pub(crate) fn obstacles_known_at(&mut self, before: u32, after: u32) {
        if let Some((known, _, _)) = &mut self.obstacles
            && *known == before
        {
            *known = after;
        }
    }
}
