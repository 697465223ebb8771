//! Where a server is: outside, or on this host and the networks behind it. A server outside must not
//! have the agent ask one inside, by a redirect or by what its name resolves to.

use std::{
    collections::HashSet,
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anybody's: the internet.
    Outside,
    /// This host's, its links', or a private network's.
    Inside,
}

/// Where an address is.
pub(super) fn of(ip: IpAddr) -> Reach {
    let inside = match ip {
        IpAddr::V4(ip) => is_inside4(ip),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(ip) => is_inside4(ip),
            None => is_inside6(ip),
        },
    };
    if inside {
        Reach::Inside
    } else {
        Reach::Outside
    }
}

fn is_inside4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 0
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        // Shared address space of carriers (RFC 6598), and of other clouds' inner services.
        || (a == 100 && b & 0xc0 == 64)
}

fn is_inside6(ip: Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_unicast_link_local()
        || ip.is_unique_local()
        || ip.is_multicast()
        // Site-local, as it was before ULA (RFC 3879).
        || first & 0xffc0 == 0xfec0
}

/// The IPv4 address that an IPv6 one stands for: mapped, 6to4, or behind the well-known prefix of
/// NAT64.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, _) => Some(v4(b, c)),
        _ => ip.to_ipv4_mapped(),
    }
}

/// A URL's host, without the brackets of an IPv6 address.
pub(super) fn host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
}

/// Whether a URL names this host as such.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = host(url);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where a URL's host is. A name that has addresses on both sides, or none that is known here (a
/// proxy may know one), is outside.
pub(super) async fn of_host(url: &Url) -> Reach {
    let host = host(url);
    if let Ok(ip) = host.parse() {
        return of(ip);
    }
    let Ok(found) = tokio::net::lookup_host((host, 0)).await else {
        return Reach::Outside;
    };
    let mut found = found.peekable();
    if found.peek().is_some() && found.all(|at| of(at.ip()) == Reach::Inside) {
        Reach::Inside
    } else {
        Reach::Outside
    }
}

/// Resolves names to addresses on one side only, so that a client connects to none but those,
/// whatever a name meant when it was looked at.
pub(super) struct Resolver {
    reach: Reach,
    /// The operator's own proxies, wherever they are.
    proxies: Arc<HashSet<String>>,
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        let names = ["http_proxy", "https_proxy", "all_proxy"];
        let names = names.iter().flat_map(|n| [n.to_string(), n.to_uppercase()]);
        let proxies = names.filter_map(|name| {
            let value = env::var(name).ok()?;
            let url = Url::parse(&value).or_else(|_| Url::parse(&format!("http://{value}")));
            Some(host(&url.ok()?).to_owned())
        });
        Resolver {
            reach,
            proxies: Arc::new(proxies.collect()),
        }
    }

    fn keep(reach: Reach, found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        found.filter(|at| of(at.ip()) == reach).collect()
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, proxies) = (self.reach, self.proxies.clone());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept: Vec<_> = if proxies.contains(name.as_str()) {
                found.collect()
            } else {
                Resolver::keep(reach, found)
            };
            if kept.is_empty() {
                return Err("none of its addresses may be connected to".into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let reach = |ip: &str| of(ip.parse().unwrap());
        for ip in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
        ] {
            assert_eq!(reach(ip), Reach::Inside, "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "169.255.0.1",
            "203.0.113.1",
            "2001:db8::1",
            "2a01:4f8::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert_eq!(reach(ip), Reach::Outside, "{ip}");
        }
    }

    #[tokio::test]
    async fn hosts_of_urls() {
        let reach = async |url: &str| of_host(&Url::parse(url).unwrap()).await;
        for url in [
            "http://localhost/x",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert_eq!(reach(url).await, Reach::Inside, "{url}");
        }
        for url in ["http://198.51.100.7/", "http://no-such-host.invalid/"] {
            assert_eq!(reach(url).await, Reach::Outside, "{url}");
        }
    }

    /// What a name meant when it was looked at does not matter: the address that is connected to
    /// is the one that was checked.
    #[tokio::test]
    async fn a_client_of_one_side_is_given_no_address_of_the_other() {
        let resolve = async |reach| {
            let name = "localhost".parse().unwrap();
            let found = Resolver::new(reach).resolve(name).await;
            found.map(Iterator::count).unwrap_or_default()
        };
        assert_eq!(resolve(Reach::Outside).await, 0);
        assert!(resolve(Reach::Inside).await > 0);
        let both = ["10.0.0.1:0", "1.1.1.1:0"].map(|at| at.parse().unwrap());
        let kept = Resolver::keep(Reach::Outside, both.into_iter());
        assert_eq!(kept, [both[1]]);
    }
}
