//! The firewall as a pure function: one nftables table of the agent's own.
//!
//! The table is written whole, as text, by one `nft -f -` in one transaction: at the agent's start,
//! and when somebody changed it. What changes with a guest is elements of sets alone, and goes to
//! the kernel directly ([`crate::netlink`]): no process, and a cost that does not grow with the
//! number of guests. Text rather than nft's JSON: it is what operators read, it is stable over
//! versions, and the JSON is not.
//!
//! `docs/network.md` explains each rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{
    elements::{Element, Set},
    guest::GuestSpec,
    spec::HostSpec,
};

/// What the table is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ruleset<'a> {
    pub(crate) host: &'a HostSpec,
    pub(crate) uplinks: &'a BTreeSet<String>,
    pub(crate) guests: &'a [GuestSpec],
}

impl Ruleset<'_> {
    /// What the sets hold.
    pub(crate) fn elements(&self) -> BTreeSet<Element> {
        let uplinks = self.uplinks.iter().cloned().map(Element::Uplink);
        self.guests
            .iter()
            .flat_map(Element::of_guest)
            .chain(uplinks)
            .collect()
    }

    /// The whole transaction, in nft's language: the table anew, other tables untouched.
    pub(crate) fn script(&self) -> String {
        let table = &self.host.table;
        let mut by_set: BTreeMap<Set, Vec<Element>> = BTreeMap::new();
        for element in self.elements() {
            by_set.entry(element.set()).or_default().push(element);
        }
        let mut text = format!("table inet {table} {{}}\ndelete table inet {table}\n");
        let _ = writeln!(text, "table inet {table} {{");
        for (n, set) in Set::ALL.into_iter().enumerate() {
            let gap = if n == 0 { "" } else { "\n" };
            let (name, declaration) = (set.name(), set.declaration());
            let _ = writeln!(text, "{gap}\tset {name} {{\n\t\t{declaration}");
            if let Some(elements) = by_set.get(&set) {
                let _ = write!(text, "\t\telements = {{");
                for (n, element) in elements.iter().enumerate() {
                    let comma = if n == 0 { "" } else { "," };
                    let _ = write!(text, "{comma}\n\t\t\t{element}");
                }
                let _ = writeln!(text, "\n\t\t}}");
            }
            let _ = writeln!(text, "\t}}");
        }
        text.push_str(&self.chains());
        text.push_str("}\n");
        text
    }

    fn chains(&self) -> String {
        let guests = format!("{}/80", self.host.prefix.guests());
        let families = match self.host.ipv4 {
            Some(_) => "ipv4 : goto sender4, ipv6 : goto sender6",
            None => "ipv6 : goto sender6",
        };
        let mut text = CHAINS
            .replace("FAMILIES", families)
            .replace("GUESTS", &guests);
        if let Some(pool) = self.host.ipv4 {
            text.push_str(&CHAINS_IPV4.replace("POOL", &pool.to_string()));
        }
        text
    }
}

const CHAINS: &str = "
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

	chain prerouting {
		type filter hook prerouting priority raw - 10; policy accept;
		iifname \"vmtap*\" goto sender
		iifname != \"lo\" ip6 saddr GUESTS counter drop
	}

	chain sender {
		iifname . ether saddr @macs meta nfproto vmap { FAMILIES }
		counter drop
	}

	chain sender6 {
		rt type 0 counter drop
		icmpv6 type { nd-router-advert, nd-redirect, router-renumbering } counter drop
		udp sport 547 counter drop
		ip6 saddr { ::, fe80::/10 } goto link_local
		ip6 saddr & ::f == :: counter drop
		iifname . ip6 saddr & ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0 @sources accept
		counter drop
	}

	chain link_local {
		icmpv6 type != { nd-neighbor-solicit, nd-neighbor-advert, echo-request, echo-reply } counter drop
		meta l4proto != ipv6-icmp counter drop
		update @neighbours { iifname limit rate over 50/second burst 100 packets } counter drop
		accept
	}

	chain input {
		type filter hook input priority filter; policy accept;
		iifname \"vmtap*\" goto to_host
	}

	chain to_host {
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		ct state vmap { established : accept, related : accept, invalid : drop }
		icmpv6 type echo-request fib daddr . iif type { local, anycast } accept
		icmp type echo-request fib daddr . iif type local accept
		counter drop
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname \"vmtap*\" jump from_guest
		oifname \"vmtap*\" goto to_guest
	}

	chain from_guest {
		ct state vmap { established : accept, related : accept, invalid : drop }
		ct status dnat counter drop
		ip daddr 169.254.0.0/16 counter drop
		ip6 daddr { fd00:ec2::254, fd20:ce::254 } counter drop
		ct status & confirmed == 0 update @connections { iifname limit rate over 500/second burst 10000 packets } counter drop
		oifname \"vmtap*\" return
		oifname @uplinks accept
		counter drop
	}

	chain to_guest {
		ct state vmap { established : accept, related : accept, invalid : drop }
		meta nfproto != ipv6 counter drop
		rt type 0 counter drop
		icmpv6 type echo-request accept
		oifname . meta l4proto . th dport @ports accept
		oifname @ranged oifname . meta l4proto . th dport @ranges accept
		counter drop
	}
";

const CHAINS_IPV4: &str = "
	chain sender4 {
		udp sport 67 counter drop
		iifname . ip saddr @sources4 accept
		counter drop
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		iifname \"vmtap*\" ip saddr POOL oifname @uplinks masquerade
	}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GuestIndex;

    fn script(nat: bool, guests: u32) -> String {
        let host = HostSpec {
            table: "crn_agent".into(),
            uplink: None,
            ndp_proxy: false,
            ipv4: nat.then(|| "172.16.0.0/12".parse().unwrap()),
            prefix: "2001:db8:1:2::/64".parse().unwrap(),
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
        let uplinks = ["eth0".to_owned()].into();
        Ruleset {
            host: &host,
            uplinks: &uplinks,
            guests: &guests,
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
            script
                .split_once("set neighbours")
                .map(|(_, rules)| rules.to_owned())
        };
        assert_eq!(rules(0), rules(1000));
    }
}
