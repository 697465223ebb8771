//! The host and the internet: two namespaces and a cable.

use std::{net::Ipv6Addr, path::Path};

use tempfile::TempDir;

use super::{Guest, Key, Namespace, Result, run};

/// The prefix that the host's guests get their addresses from.
pub const PREFIX: &str = "2001:db8:1::/64";
/// The internet's address on the cable.
const INTERNET: &str = "2001:db8:ffff::1";
/// The host's address on the cable.
const HOST: &str = "2001:db8:ffff::2";

/// How guests' packets find the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uplink {
    /// The provider routes the prefix to the host.
    Routed,
    /// The provider expects each address of the prefix on the cable: the host must answer for
    /// its guests.
    OnLink,
}

/// A host, with the internet at the other end of its uplink `eth0`.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    internet: Internet,
    uplink: Uplink,
    // Last: files go when no process holds them any more.
    dir: TempDir,
}

impl Host {
    /// A host without an agent.
    ///
    /// # Errors
    /// When namespaces cannot be made.
    pub fn new(uplink: Uplink) -> Result<Self> {
        // Sockets' paths are limited: not below a deep TMPDIR.
        let dir = TempDir::with_prefix_in("crn-test-", "/tmp")?;
        let namespace = Namespace::new()?;
        let internet = Internet(Namespace::new()?);
        let ip = |namespace: &Namespace, words: &str| {
            run(namespace.net_command("ip").args(words.split(' '))).map(drop)
        };
        let peer = internet.0.init();
        ip(
            &namespace,
            &format!("link add eth0 type veth peer name wan0 netns {peer}"),
        )?;
        ip(&namespace, &format!("address add {HOST}/64 dev eth0 nodad"))?;
        ip(&namespace, "link set eth0 up")?;
        ip(
            &internet.0,
            &format!("address add {INTERNET}/64 dev wan0 nodad"),
        )?;
        ip(&internet.0, "link set wan0 up")?;
        ip(&namespace, &format!("-6 route add default via {INTERNET}"))?;
        match uplink {
            Uplink::Routed => ip(&internet.0, &format!("-6 route add {PREFIX} via {HOST}"))?,
            Uplink::OnLink => ip(&internet.0, &format!("-6 route add {PREFIX} dev wan0"))?,
        }
        Ok(Self {
            namespace,
            internet,
            uplink,
            dir,
        })
    }

    /// The other end.
    #[must_use]
    pub fn internet(&self) -> &Internet {
        &self.internet
    }

    /// The host's namespaces.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A directory for the test's files, removed with the host.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How guests' packets find it.
    #[must_use]
    pub fn uplink(&self) -> Uplink {
        self.uplink
    }

    /// Its address on the cable.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        HOST.parse().unwrap_or(Ipv6Addr::UNSPECIFIED)
    }
}

/// Everybody else.
#[derive(Debug)]
pub struct Internet(pub(super) Namespace);

impl Internet {
    /// Its namespaces.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0
    }

    /// Its address on the cable.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        INTERNET.parse().unwrap_or(Ipv6Addr::UNSPECIFIED)
    }

    /// Somebody who reaches a guest by SSH.
    #[must_use]
    pub fn ssh<'a>(&'a self, key: &'a Key, address: &str) -> Guest<'a> {
        Guest::new(self, key, address)
    }
}
