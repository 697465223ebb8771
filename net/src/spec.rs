//! What the node's configuration says of the network.

use ipnet::IpNet;

use crate::{address::Prefix, error::Error, guest::TapName, ipv4::Ipv4Pool};

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
    /// Networks that guests may reach although they are not the internet, or are the uplink's own.
    pub allowed_private: Vec<IpNet>,
    /// Whether the host forwards for others than guests. Unless given: it goes on where it did
    /// before the agent switched forwarding on.
    pub forward_others: Option<bool>,
}

impl HostSpec {
    /// A node with a prefix that is routed to it; everything else as it is by default.
    #[must_use]
    pub fn new(table: &str, prefix: Prefix) -> Self {
        Self {
            table: table.to_owned(),
            uplink: None,
            ndp_proxy: false,
            ipv4: None,
            prefix,
            allowed_private: Vec::new(),
            forward_others: None,
        }
    }

    /// Checks the names.
    ///
    /// # Errors
    /// A name that nftables or the kernel would not take.
    pub fn check(&self) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !self.table.starts_with(|c: char| c.is_ascii_lowercase())
            || !self.table.chars().all(plain)
            || self.table.len() > 31
        {
            let why = "expected at most 31 letters, digits and underscores, a small letter first";
            return bad(&self.table, "a table", why);
        }
        self.uplink.as_deref().map_or(Ok(()), Self::check_uplink)
    }

    /// Checks the name of an interface toward the internet.
    pub(crate) fn check_uplink(name: &str) -> Result<(), Error> {
        if name.is_empty() || name.len() > 15 || matches!(name, "." | "..") {
            return bad(name, "an interface", "expected 1 to 15 bytes");
        }
        let fit = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
        if !name.chars().all(fit) {
            let why = "expected letters, digits, and any of _-.@";
            return bad(name, "an interface", why);
        }
        if name.starts_with(TapName::PREFIX) {
            return bad(name, "the uplink", "names of guests' taps begin so");
        }
        Ok(())
    }
}

fn bad(name: &str, what: &'static str, why: &'static str) -> Result<(), Error> {
    Err(Error::BadName {
        name: name.to_owned(),
        what,
        why,
    })
}
