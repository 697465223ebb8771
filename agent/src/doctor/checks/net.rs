//! nftables, taps and IPv6.

use super::{super::Check, super::Status::*, check};
use crate::host::{
    Device,
    network::{NetworkFacts, Prefix, Uplink},
    nft::{NftFacts, TESTED},
    run::RunError,
};

/// The program and the kernel behind it.
#[must_use]
pub fn nftables(facts: &Result<NftFacts, RunError>) -> Check {
    const NO_FIREWALL: &str = "Guests cannot be fenced in, so none is started.";
    let facts = match facts {
        Result::Ok(facts) => facts,
        Err(e) => {
            let remedy = Some("apt-get install nftables");
            return check("nftables", Missing, e.to_string(), NO_FIREWALL, remedy);
        }
    };
    let show = |(a, b, c): (u32, u32, u32)| format!("{a}.{b}.{c}");
    let version = facts.version.map_or_else(|| "unknown version".into(), show);
    match (&facts.kernel, facts.version) {
        (Err(why), _) => check(
            "nftables",
            Missing,
            format!("{version}; the kernel refuses: {why}"),
            NO_FIREWALL,
            Some("Run the doctor as root; if it still refuses: modprobe nf_tables"),
        ),
        (Result::Ok(()), Some(v)) if v >= TESTED => {
            let meaning = "Guests can be fenced in.";
            check(
                "nftables",
                Ok,
                format!("{version}, the kernel answers"),
                meaning,
                None,
            )
        }
        (Result::Ok(()), _) => check(
            "nftables",
            Degraded,
            version,
            format!(
                "The agent's rules are tested with {} and later.",
                show(TESTED)
            ),
            Some("apt-get update && apt-get install nftables"),
        ),
    }
}

/// The device that taps come from.
#[must_use]
pub fn tun(device: &Device) -> Check {
    const NO_NETWORK: &str = "Guests have no network, so none is started.";
    match device {
        Device::Usable => check(
            "tun",
            Ok,
            "can be opened",
            "Guests can have a network.",
            None,
        ),
        Device::Absent => check(
            "tun",
            Missing,
            "does not exist",
            NO_NETWORK,
            Some("modprobe tun"),
        ),
        Device::Refused { why } => check(
            "tun",
            Missing,
            format!("cannot be opened: {why}"),
            NO_NETWORK,
            Some("Run the agent as root; if it exists without a driver: modprobe tun"),
        ),
    }
}

/// Everything about IPv6.
#[must_use]
pub fn all(facts: &NetworkFacts) -> Vec<Check> {
    vec![
        ipv6(facts),
        prefix(facts),
        forwarding(facts),
        uplink(facts),
        mtu(facts),
        ndp(facts),
    ]
}

fn ipv6(facts: &NetworkFacts) -> Check {
    if facts.ipv6 {
        check("ipv6", Ok, "enabled", "Guests can have addresses.", None)
    } else {
        check(
            "ipv6",
            Missing,
            "switched off in the kernel",
            "Guests are reached by IPv6 alone.",
            Some(
                "sysctl -w net.ipv6.conf.all.disable_ipv6=0 \
                 net.ipv6.conf.default.disable_ipv6=0; look for ipv6.disable=1 in \
                 /etc/default/grub and for disable_ipv6 in /etc/sysctl.d/",
            ),
        )
    }
}

fn prefix(facts: &NetworkFacts) -> Check {
    const SET: &str = "Set prefix in section [network] of the configuration to one that your \
                       provider routes to this host, best a /64 or shorter.";
    const LONGEST: u8 = 112;
    match &facts.prefix {
        Prefix::NotConfigured => check(
            "ipv6-prefix",
            Missing,
            "not configured",
            "There is nothing that guests' addresses could come from.",
            Some(SET),
        ),
        Prefix::Invalid { why } => check(
            "ipv6-prefix",
            Missing,
            why.clone(),
            "The agent does not start.",
            Some(SET),
        ),
        Prefix::Routed { prefix, .. }
        | Prefix::OnLink { prefix, .. }
        | Prefix::Unseen { prefix }
            if prefix.length > LONGEST =>
        {
            check(
                "ipv6-prefix",
                Missing,
                format!("{prefix} is longer than a /{LONGEST}"),
                "Each guest gets a /124: there is room for fewer than 4096.",
                Some(SET),
            )
        }
        Prefix::Routed { prefix, interface } => check(
            "ipv6-prefix",
            Ok,
            format!("{prefix} is routed on this host (by {interface})"),
            "Guests get addresses of it.",
            None,
        ),
        Prefix::OnLink { prefix, .. } if facts.ndp_proxy => check(
            "ipv6-prefix",
            Ok,
            format!("{prefix} is on the uplink's link, answered by NDP proxy"),
            "Guests get addresses of it, and the router finds them by neighbour discovery.",
            None,
        ),
        Prefix::OnLink { prefix, interface } => check(
            "ipv6-prefix",
            Degraded,
            format!("{prefix} is on the link of {interface}, not routed to this host"),
            "The router looks for guests by neighbour discovery, and nobody answers for them.",
            Some(
                "Have the provider route the prefix to this host, or set ndp_proxy = true in \
                 section [network] of the configuration.",
            ),
        ),
        Prefix::Unseen { prefix } => check(
            "ipv6-prefix",
            Degraded,
            format!("{prefix} is configured; no address or route on this host shows it"),
            "That is right if the provider routes it here, and cannot be told from inside. \
             Packets to unused addresses go back to the router.",
            Some(
                "Check with the provider; from another host: tracepath6 an address of the \
                 prefix must end here. To keep unused addresses from looping: \
                 ip -6 route add unreachable <prefix>",
            ),
        ),
    }
}

fn forwarding(facts: &NetworkFacts) -> Check {
    if let (
        Some(true),
        Some(Uplink {
            name,
            forwarding: Some(false),
            ..
        }),
    ) = (facts.forwarding, &facts.uplink)
    {
        return check(
            "ipv6-forwarding",
            Degraded,
            format!("on, but off on {name}"),
            "The kernel neither forwards what comes from the uplink nor answers for guests on it. A \
             running agent puts it back within network.reconcile_seconds; something else switches \
             it off.",
            Some(&format!(
                "Look for what sets it (networkd's IPForward= and IPv6Forwarding=, /etc/sysctl.d); \
                 sysctl -w net.ipv6.conf.{name}.forwarding=1"
            )),
        );
    }
    if facts.forwarding == Some(true) {
        check(
            "ipv6-forwarding",
            Ok,
            "on",
            "Packets pass between guests and the uplink.",
            None,
        )
    } else {
        check(
            "ipv6-forwarding",
            Degraded,
            if facts.forwarding.is_some() {
                "off"
            } else {
                "unknown: the kernel has no IPv6"
            },
            "While it is off, no packet passes between guests and the uplink. The agent switches it \
             on when it starts; this keeps it on.",
            Some(
                "echo 'net.ipv6.conf.all.forwarding = 1' > /etc/sysctl.d/60-crn-agent.conf && \
                 sysctl --system",
            ),
        )
    }
}

fn uplink(facts: &NetworkFacts) -> Check {
    const NO_WAY: &str = "Guests do not reach the internet.";
    let Some(u) = &facts.uplink else {
        if let (Some(true), [first, ..]) = (facts.forwarding, facts.deaf.as_slice()) {
            let names = facts.deaf.join(", ");
            return check(
                "uplink",
                Degraded,
                format!(
                    "no default route over IPv6; {names} would learn one from router \
                     advertisements, and does not while forwarding is on (accept_ra is 1)"
                ),
                NO_WAY,
                Some(&format!(
                    "sysctl -w net.ipv6.conf.{first}.accept_ra=2, then in /etc/sysctl.d/; without \
                     router advertisements: ip -6 route add default via <router> dev <interface>"
                )),
            );
        }
        return check(
            "uplink",
            Degraded,
            "no default route over IPv6, and no uplink configured",
            NO_WAY,
            Some("Add a default route: ip -6 route add default via <router> dev <interface>"),
        );
    };
    let name = &u.name;
    let bad = |found: String, remedy: String| {
        check("uplink", Degraded, found, NO_WAY, Some(remedy.as_str()))
    };
    match u {
        Uplink { exists: false, .. } => bad(
            format!("{name} does not exist, or has no IPv6"),
            "Correct uplink in section [network] of the configuration; see: ip link".into(),
        ),
        Uplink {
            up: Some(false), ..
        } => bad(format!("{name} is down"), format!("ip link set {name} up")),
        Uplink {
            default_route: false,
            ..
        } => bad(
            format!("{name} has no default route"),
            format!("ip -6 route add default via <router> dev {name}"),
        ),
        // Documentation/networking/ip-sysctl.rst: 1 does not accept while forwarding.
        Uplink {
            advertised: true,
            accept_ra: Some(0 | 1),
            ..
        } => check(
            "uplink",
            Degraded,
            format!("{name}, whose default route comes from router advertisements"),
            "With forwarding on, the kernel stops accepting them and loses the route.",
            Some(&format!(
                "echo 'net.ipv6.conf.{name}.accept_ra = 2' >> /etc/sysctl.d/60-crn-agent.conf \
                 && sysctl --system"
            )),
        ),
        _ => check(
            "uplink",
            Ok,
            format!("{name}, with the default route"),
            "It is usable.",
            None,
        ),
    }
}

fn mtu(facts: &NetworkFacts) -> Check {
    let Some((name, mtu)) = facts.uplink.as_ref().and_then(|u| Some((&u.name, u.mtu?))) else {
        let meaning = "Guests' links have 1500 bytes until there is an uplink.";
        return check("mtu", Ok, "no uplink to look at", meaning, None);
    };
    match mtu {
        ..1280 => check(
            "mtu",
            Degraded,
            format!("{name} has {mtu} bytes"),
            "IPv6 needs 1280: no guest reaches the internet.",
            Some(&format!("ip link set {name} mtu 1500")),
        ),
        1280..1500 => check(
            "mtu",
            Ok,
            format!("{name} has {mtu} bytes"),
            "Guests' links have as many, and TCP is clamped to it.",
            None,
        ),
        _ => check(
            "mtu",
            Ok,
            format!("{name} has {mtu} bytes"),
            "Guests' links have 1500.",
            None,
        ),
    }
}

fn ndp(facts: &NetworkFacts) -> Check {
    let needed = matches!(facts.prefix, Prefix::OnLink { .. });
    let on = facts.uplink.as_ref().and_then(|u| u.proxy_ndp);
    match (facts.ndp_proxy, needed, on) {
        (true, _, Some(true)) => check(
            "ndp-proxy",
            Ok,
            "on",
            "The router finds guests by neighbour discovery.",
            None,
        ),
        (true, _, _) => {
            let name = facts
                .uplink
                .as_ref()
                .map_or("<uplink>", |u| u.name.as_str());
            check(
                "ndp-proxy",
                Degraded,
                if on.is_some() {
                    "configured, off on the uplink"
                } else {
                    "configured, no uplink"
                },
                "Until it is on, the router does not find guests.",
                Some(&format!(
                    "echo 'net.ipv6.conf.{name}.proxy_ndp = 1' >> \
                     /etc/sysctl.d/60-crn-agent.conf && sysctl --system"
                )),
            )
        }
        (false, true, _) => check(
            "ndp-proxy",
            Degraded,
            "not configured, and the prefix is on the uplink's link",
            "The router does not find guests.",
            Some("Set ndp_proxy = true in section [network] of the configuration."),
        ),
        (false, false, _) => check(
            "ndp-proxy",
            Ok,
            "not configured",
            "A routed prefix does not need it.",
            None,
        ),
    }
}
