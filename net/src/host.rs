//! The host's side: what the agent asks for, and how it is done.

use std::{collections::BTreeSet, net::Ipv6Addr, os::fd::OwnedFd, path::Path, sync::Arc};

use crate::{Error, GuestIndex, GuestSpec, Ipv4Pool, PortRule, Prefix, TapName};

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

/// The host's network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostNet {
    spec: Arc<HostSpec>,
}

#[allow(clippy::unused_async, reason = "signatures first")]
impl HostNet {
    /// Checks the specification and the host; changes nothing.
    ///
    /// # Errors
    /// Names that cannot be, an uplink that does not exist.
    pub async fn open(spec: HostSpec) -> Result<Self, Error> {
        spec.check()?;
        Ok(Self {
            spec: Arc::new(spec),
        })
    }

    /// What it was opened with.
    #[must_use]
    pub fn spec(&self) -> &HostSpec {
        &self.spec
    }

    /// At the agent's start: forwarding on, the table with all elements in one transaction. Existing taps
    /// and established connections are not disturbed.
    ///
    /// # Errors
    /// What the kernel or nft refuses.
    pub async fn start(&self, _guests: &[GuestSpec]) -> Result<(), Error> {
        Err(Error::Task("not written yet".into()))
    }

    /// Lets a guest in: firewall first, then tap, addresses, neighbours. Done twice it is as done once.
    /// The tap lives as long as a copy of the returned descriptor does: QEMU gets it.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn add_guest(&self, _guest: &GuestSpec) -> Result<OwnedFd, Error> {
        Err(Error::Task("not written yet".into()))
    }

    /// Takes away what [`Self::add_guest`] made, as far as it is there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn remove_guest(&self, _guest: &GuestSpec) -> Result<(), Error> {
        Err(Error::Task("not written yet".into()))
    }

    /// Opens and closes ports in one transaction. Established connections go on.
    ///
    /// # Errors
    /// Too many ranges, or what the kernel refuses.
    pub async fn set_ports(
        &self,
        _guest: &GuestSpec,
        _ports: &BTreeSet<PortRule>,
    ) -> Result<(), Error> {
        Err(Error::Task("not written yet".into()))
    }

    /// Compares the kernel's state with what `guests` should have, and repairs.
    ///
    /// # Errors
    /// What the kernel or nft refuses.
    pub async fn reconcile(&self, _guests: &[GuestSpec]) -> Result<Repairs, Error> {
        Err(Error::Task("not written yet".into()))
    }

    /// Tells when somebody else changes links, addresses or the agent's table.
    ///
    /// # Errors
    /// When the kernel gives no events.
    pub fn watch(&self) -> Result<Watch, Error> {
        Err(Error::Task("not written yet".into()))
    }

    /// Whether a guest's tap exists.
    #[must_use]
    pub fn tap_exists(tap: &TapName) -> bool {
        Path::new("/sys/class/net").join(tap.as_str()).exists()
    }
}

/// A stream of changes by others.
#[derive(Debug)]
pub struct Watch {}

impl Watch {
    /// Waits for the next change. After it, [`HostNet::reconcile`]. Cancel-safe. `None` when the kernel's
    /// socket is lost.
    pub async fn next(&mut self) -> Option<Change> {
        None
    }
}

/// What somebody else changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A tap is gone.
    TapGone(String),
    /// A tap, the uplink or an address changed.
    Link,
    /// The agent's table.
    Table,
    /// Events were lost: anything may have changed.
    Unknown,
}
