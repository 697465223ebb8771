//! The firewall as a pure function: the agent's own nftables tables, of families `inet` and `arp`,
//! both of the configured name.
//!
//! They are written whole, as text, by one `nft -f -` in one transaction: at the agent's start, and
//! when somebody changed them. What changes with a guest is elements of sets alone, and goes to the
//! kernel directly ([`crate::netlink`]): no process, and a cost that does not grow with the number of
//! guests. Text rather than nft's JSON, with or without the crate `nftables`: neither can say all of
//! it (docs/architecture.md, "The packages that were asked for").
//!
//! `docs/network.md` explains each rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Display, Write as _},
};

use ipnet::IpNet;

use crate::{
    elements::{Element, Family, Set},
    guest::GuestSpec,
    spec::HostSpec,
    uplinks::{self, Uplinks},
};

/// Protocols that the agent switched the host's forwarding on for, and that therefore are forwarded
/// for guests only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GuestsOnly {
    pub(crate) ipv6: bool,
    pub(crate) ipv4: bool,
}

impl GuestsOnly {
    /// Chains whose being there says in the kernel that the agent closed a protocol.
    pub(crate) const CHAIN_IPV6: &'static str = "others_ipv6";
    pub(crate) const CHAIN_IPV4: &'static str = "others_ipv4";
}

/// What the tables are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ruleset<'a> {
    pub(crate) host: &'a HostSpec,
    pub(crate) uplinks: &'a Uplinks,
    pub(crate) guests_only: GuestsOnly,
    pub(crate) guests: &'a [GuestSpec],
    /// Whether the kernel knows timeouts of connections as objects (`CONFIG_NF_CONNTRACK_TIMEOUT`).
    pub(crate) timeouts: bool,
}

impl Ruleset<'_> {
    /// What the sets hold.
    pub(crate) fn elements(&self) -> BTreeSet<Element> {
        let uplinks = self.uplinks.names.iter().cloned().map(Element::Uplink);
        self.guests
            .iter()
            .flat_map(Element::of_guest)
            .chain(uplinks)
            .collect()
    }

    /// The whole transaction, in nft's language: the tables anew, other tables untouched.
    pub(crate) fn script(&self) -> String {
        let mut by_set: BTreeMap<Set, Vec<Element>> = BTreeMap::new();
        for element in self.elements() {
            by_set.entry(element.set()).or_default().push(element);
        }
        let table = &self.host.table;
        let mut text = String::new();
        for family in Family::ALL {
            let family = family.name();
            let _ = writeln!(
                text,
                "table {family} {table} {{}}\ndelete table {family} {table}"
            );
        }
        for family in Family::ALL {
            let _ = writeln!(text, "table {} {table} {{", family.name());
            for set in Set::ALL.into_iter().filter(|set| set.family() == family) {
                declare(&mut text, set, by_set.get(&set).map_or(&[], Vec::as_slice));
            }
            match family {
                Family::Inet => text.push_str(&self.chains()),
                Family::Arp => text.push_str(CHAINS_ARP),
            }
            text.push_str("}\n");
        }
        text
    }

    fn chains(&self) -> String {
        let (families, ways) = match self.host.ipv4 {
            Some(_) => (
                "ipv4 : goto guest4, ipv6 : goto guest6",
                "ipv4 : goto out4, ipv6 : goto out6",
            ),
            None => ("ipv6 : goto guest6", "ipv6 : goto out6"),
        };
        let mut text = format!("{DYNAMIC_SETS}{CHAINS}")
            .replace("FAMILIES", families)
            .replace("WAYS", ways)
            .replace("MTU", &uplinks::LARGEST_MTU.to_string())
            .replace("GUESTS", &self.host.prefix.guests().to_string());
        if self.timeouts {
            text.insert_str(0, TIMEOUTS);
            text = text.replace("TIMEOUT", "meta l4proto tcp ct timeout set \"guests\"");
        } else {
            text = text.replace("\t\tTIMEOUT\n", "");
        }
        if let Some(pool) = self.host.ipv4 {
            text.push_str(&CHAINS_IPV4.replace("POOL", &pool.to_string()));
        }
        let mut others = String::new();
        for (closed, family, chain) in [
            (self.guests_only.ipv6, "ipv6", GuestsOnly::CHAIN_IPV6),
            (self.guests_only.ipv4, "ipv4", GuestsOnly::CHAIN_IPV4),
        ] {
            if closed {
                let _ = writeln!(others, "\t\tmeta nfproto {family} goto {chain}");
                text.push_str(&CHAIN_OTHERS.replace("CHAIN", chain));
            }
        }
        text = text.replace("\t\tOTHERS\n", &others);
        text.push_str(&self.ways_out());
        text
    }

    /// Where guests' new connections may go.
    fn ways_out(&self) -> String {
        let allowed = IpNet::aggregate(&self.host.allowed_private);
        let mut text = String::new();
        for (ipv4, chain, selector) in [(false, "out6", "ip6 daddr"), (true, "out4", "ip daddr")] {
            if ipv4 && self.host.ipv4.is_none() {
                continue;
            }
            let of_family = |n: &&IpNet| matches!(n, IpNet::V4(_)) == ipv4;
            let allowed = list(allowed.iter().filter(of_family));
            let routers = self.uplinks.routers.iter().filter(|r| r.is_ipv4() == ipv4);
            let routers = list(routers);
            let neighbours = uplinks::neighbours(self.uplinks);
            let neighbours = list(neighbours.iter().filter(of_family));
            let closed: &[&str] = if ipv4 {
                &uplinks::CLOSED_IPV4
            } else {
                &uplinks::CLOSED_IPV6
            };
            let _ = writeln!(text, "\n\tchain {chain} {{");
            let mut rule = |networks: Option<String>, verdict| {
                if let Some(networks) = networks {
                    let _ = writeln!(text, "\t\t{selector} {networks} {verdict}");
                }
            };
            rule(allowed, "accept");
            rule(list(closed.iter()), "counter drop");
            rule((!ipv4).then(|| "!= 2000::/3".to_owned()), "counter drop");
            rule(routers, "accept");
            rule(neighbours, "counter drop");
            let _ = writeln!(text, "\t\toifname != @uplinks counter drop");
            text.push_str("\t\taccept\n\t}\n");
        }
        text
    }
}

/// An anonymous set; nothing of nothing.
fn list(items: impl Iterator<Item = impl Display>) -> Option<String> {
    let items: Vec<_> = items.map(|i| i.to_string()).collect();
    (!items.is_empty()).then(|| format!("{{ {} }}", items.join(", ")))
}

fn declare(text: &mut String, set: Set, elements: &[Element]) {
    let (name, declaration) = (set.name(), set.declaration());
    let _ = writeln!(text, "\tset {name} {{\n\t\t{declaration}");
    if !elements.is_empty() {
        let _ = write!(text, "\t\telements = {{");
        for (n, element) in elements.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\n\t\t\t{element}");
        }
        let _ = writeln!(text, "\n\t\t}}");
    }
    let _ = writeln!(text, "\t}}\n");
}

const TIMEOUTS: &str = "\tct timeout guests {
		protocol tcp
		policy = { established : 600 }
	}

";

const DYNAMIC_SETS: &str = "\tset fragments {
		type ifname;
		size 65535;
		flags dynamic,timeout;
		timeout 1m;
	}

	set pings {
		type ifname;
		size 65535;
		flags dynamic,timeout;
		timeout 1m;
	}

	set neighbours {
		type ifname;
		size 65535;
		flags dynamic,timeout;
		timeout 1m;
	}

	set connections {
		type ifname;
		size 65535;
		flags dynamic,timeout;
		timeout 1m;
	}

	set callers {
		type ifname;
		size 65535;
		flags dynamic,timeout;
		timeout 1m;
	}
";

const CHAINS: &str = "
	chain early {
		type filter hook prerouting priority -450; policy accept;
		iifname \"vmtap*\" goto guest
		iifname != \"lo\" ip6 saddr GUESTS counter drop
		iifname != \"lo\" ip6 saddr & ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0 @networks counter drop
	}

	chain guest {
		iifname . ether saddr @macs meta nfproto vmap { FAMILIES }
		counter drop
	}

	chain guest6 {
		ip6 saddr { ::, fe80::/10 } goto link_local
		ip6 saddr & ::f == :: counter drop
		iifname . ip6 saddr & ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0 != @sources counter drop
		exthdr frag exists goto fragment
		icmpv6 type echo-request fib daddr . iif type { local, anycast } goto ping
		accept
	}

	chain link_local {
		exthdr frag exists counter drop
		icmpv6 type != { nd-neighbor-solicit, nd-neighbor-advert, echo-request, echo-reply } counter drop
		meta l4proto != ipv6-icmp counter drop
		update @neighbours { iifname limit rate over 50/second burst 100 packets } counter drop
		accept
	}

	chain fragment {
		meta length > MTU counter drop
		update @fragments { iifname limit rate over 20/second burst 40 packets } counter drop
		accept
	}

	chain ping {
		update @pings { iifname limit rate over 20/second burst 40 packets } counter drop
		accept
	}

	chain prerouting {
		type filter hook prerouting priority raw - 10; policy accept;
		iifname \"vmtap*\" goto whole
	}

	chain whole {
		rt type 0 counter drop
		icmpv6 type { nd-router-advert, nd-redirect, router-renumbering } counter drop
		meta nfproto vmap { ipv4 : goto server4, ipv6 : goto server6 }
	}

	chain server6 {
		udp sport 547 counter drop
	}

	chain server4 {
		udp sport 67 counter drop
	}

	chain input {
		type filter hook input priority filter; policy accept;
		iifname \"vmtap*\" goto to_host
	}

	chain to_host {
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		ct state vmap { established : accept, invalid : drop }
		icmpv6 type echo-request fib daddr . iif type { local, anycast } accept
		icmp type echo-request fib daddr . iif type local accept
		counter drop
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname \"vmtap*\" jump from_guest
		oifname \"vmtap*\" goto to_guest
		OTHERS
	}

	chain from_guest {
		tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		ct state vmap { established : accept, related : accept, invalid : drop }
		ct status dnat counter drop
		ct status & confirmed == 0 update @connections { iifname limit rate over 500/second burst 10000 packets } counter drop
		TIMEOUT
		oifname \"vmtap*\" return
		meta nfproto vmap { WAYS }
	}

	chain to_guest {
		tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		ct state vmap { established : accept, related : accept, invalid : drop }
		meta nfproto != ipv6 counter drop
		rt type 0 counter drop
		icmpv6 type echo-request goto admit
		oifname . meta l4proto . th dport @ports goto admit
		oifname @ranged oifname . meta l4proto . th dport @ranges goto admit
		counter drop
	}

	chain admit {
		ct status & confirmed == 0 update @callers { oifname limit rate over 1000/second burst 10000 packets } counter drop
		TIMEOUT
		accept
	}
";

const CHAINS_IPV4: &str = "
	chain guest4 {
		iifname . ip saddr != @sources4 counter drop
		ip frag-off & 0x3fff != 0 goto fragment
		icmp type echo-request fib daddr . iif type local goto ping
		accept
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		iifname \"vmtap*\" ip saddr POOL oifname != \"vmtap*\" masquerade
	}
";

const CHAIN_OTHERS: &str = "
	chain CHAIN {
		ct state { established, related } accept
		counter drop
	}
";

const CHAINS_ARP: &str = "\tchain input {
		type filter hook input priority filter; policy accept;
		iifname \"vmtap*\" iifname . arp saddr ip != @senders counter drop
	}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GuestIndex;

    fn script(nat: bool, guests: u32) -> String {
        let host = HostSpec {
            ipv4: nat.then(|| "172.16.0.0/12".parse().unwrap()),
            allowed_private: if nat {
                vec![
                    "10.7.0.0/16".parse().unwrap(),
                    "fd00:7::/32".parse().unwrap(),
                ]
            } else {
                Vec::new()
            },
            ..HostSpec::new("crn_agent", "2001:db8:1:2::/64".parse().unwrap())
        };
        let plan = crate::AddressPlan::new(host.prefix).unwrap();
        let guests: Vec<_> = (0..guests)
            .map(|n| {
                let id = format!("{n:02x}deadbeefcafe");
                let network = plan.assign(&id, |_| false).unwrap();
                let ports = ["22", "443", "53/udp", "8000-8010"].map(|p| p.parse().unwrap());
                GuestSpec::new(
                    GuestIndex(n),
                    &id,
                    network,
                    host.ipv4.as_ref(),
                    ports.into(),
                )
            })
            .collect();
        let uplinks = Uplinks {
            names: ["eth0".to_owned()].into(),
            on_link: [
                "2001:db8:ffff::/64",
                "2001:db8:ffff::/56",
                "198.51.100.0/24",
                "fe80::/64",
            ]
            .map(|n| n.parse().unwrap())
            .into(),
            routers: ["2001:db8:ffff::1".parse().unwrap()].into(),
            mtu: Some(1400),
        };
        let guests_only = GuestsOnly {
            ipv6: nat,
            ipv4: nat,
        };
        Ruleset {
            host: &host,
            uplinks: &uplinks,
            guests_only,
            guests: &guests,
            timeouts: true,
        }
        .script()
    }

    #[test]
    fn without_guests() {
        insta::assert_snapshot!(script(false, 0));
    }

    #[test]
    fn two_guests_with_nat() {
        insta::assert_snapshot!(script(true, 2));
    }

    /// The rules are the same whatever the number of guests: only sets grow.
    #[test]
    fn rules_do_not_grow() {
        let rules = |guests| {
            let script = script(true, guests);
            // Elements are indented by three tabs.
            let is_rule = |line: &&str| !line.starts_with("\t\t\t") && !line.contains("elements");
            let rules = script.lines().filter(is_rule);
            rules
                .filter(|line| *line != "\t\t}")
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(rules(0), rules(1000));
    }
}
