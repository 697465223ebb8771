//! What a comparison with the kernel found wrong and put right.

use std::net::Ipv6Addr;

use crate::index::GuestIndex;

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
