//! What this process has put into the firewall, shared by whoever changes it and whoever watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::Mutex;

use crate::{guest::GuestSpec, index::GuestIndex, nft_program::Rules};

/// Held while the firewall is changed: nobody sees half a change.
pub(crate) type Shared = Arc<Mutex<State>>;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) guests: BTreeMap<GuestIndex, GuestSpec>,
    pub(crate) uplinks: BTreeSet<String>,
    /// The table's rules as nft listed them after they were written.
    pub(crate) rules: Option<Rules>,
    /// The number of nftables' last transaction, when the table was known to be right after it.
    pub(crate) generation: Option<u32>,
}
