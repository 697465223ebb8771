//! What the node's configuration says of the network.

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
            if uplink.starts_with(TapName::PREFIX) {
                return bad(uplink, "the uplink", "names of guests' taps begin so");
            }
        }
        Ok(())
    }
}
