//! What the agent says of the host, and what it is told.

use std::{fmt, net::Ipv6Addr};

use crate::{Error, GuestIndex, Ipv4Pool, Prefix};

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

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
