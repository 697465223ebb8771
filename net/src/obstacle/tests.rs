//! Listings of nft 1.0.6: those of iptables-nft as it is loaded by Docker and in ufw's shape, others
//! written by hand.

use super::*;

fn sample(nat: bool) -> Sample {
    Sample {
        tap: "vmtap0".into(),
        uplink: "eth0".into(),
        guest: "2001:db8::3:1:2:31".parse().unwrap(),
        gateway: "2001:db8::3:1:2:30".parse().unwrap(),
        ipv4: nat.then(|| "172.16.0.2".parse().unwrap()),
    }
}

fn found(listing: &str, nat: bool) -> Vec<String> {
    let found = find(listing.as_bytes(), &sample(nat)).unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn docker() {
    let listing = include_str!("listings/docker.json");
    let ipv6 = [
        "chain FORWARD (hook forward) of table ip6 filter drops new connections to guests by policy",
        "chain FORWARD (hook forward) of table ip6 filter drops new connections of guests by policy",
        "chain FORWARD (hook forward) of table ip6 filter drops answers to and from guests by policy",
    ];
    assert_eq!(found(listing, false), ipv6);
    let ipv4 =
        "chain FORWARD (hook forward) of table ip filter drops guests' IPv4 by policy".to_owned();
    assert!(found(listing, true).contains(&ipv4));
    // What docs/network.md says to do about it.
    let listing = include_str!("listings/docker-let-through.json");
    assert_eq!(found(listing, true), [""; 0]);
}

#[test]
fn ufw() {
    let listing = include_str!("listings/ufw.json");
    let found = found(listing, false);
    assert_eq!(
        found,
        [
            "chain FORWARD (hook forward) of table ip6 filter drops new connections to guests by \
             policy",
            "chain FORWARD (hook forward) of table ip6 filter drops new connections of guests by \
             policy",
        ],
        "neighbour discovery and answers pass ufw"
    );
}

/// A base chain with one rule, made of nft's JSON.
fn one(family: &str, hook: &str, policy: &str, rules: &[&str]) -> String {
    let mut text = format!(
        r#"{{"nftables": [{{"metainfo": {{}}}},
        {{"set": {{"family": "{family}", "table": "t", "name": "s", "type": "ifname",
                   "elem": ["eth9", "vmtap0"]}}}},
        {{"map": {{"family": "{family}", "table": "t", "name": "m", "type": "ifname", "map": "verdict",
                   "elem": [["vmtap0", {{"jump": {{"target": "d"}}}}]]}}}},
        {{"chain": {{"family": "{family}", "table": "t", "name": "c", "type": "filter",
                     "hook": "{hook}", "prio": 0, "policy": "{policy}"}}}},
        {{"rule": {{"family": "{family}", "table": "t", "chain": "d", "expr": [{{"drop": null}}]}}}}"#
    );
    for rule in rules {
        text.push_str(&format!(
            r#",{{"rule": {{"family": "{family}", "table": "t", "chain": "c", "expr": [{rule}]}}}}"#
        ));
    }
    text.push_str("]}");
    text
}

/// A rule that matches a `meta` key.
fn meta(key: &str, op: &str, right: &str, verdict: &str) -> String {
    format!(
        r#"{{"match": {{"op": "{op}", "left": {{"meta": {{"key": "{key}"}}}}, "right": {right}}}}},
        {{"{verdict}": null}}"#
    )
}

#[test]
fn hooks_rules_and_orders() {
    let accept_tap = meta("iifname", "==", "\"vmtap*\"", "accept");
    let drop_tap = meta("iifname", "==", "\"vmtap0\"", "drop");
    let drop_other = meta("iifname", "==", "\"docker0\"", "drop");
    let drop_set = meta("iifname", "==", "\"@s\"", "drop");
    let not_uplink = meta("iifname", "!=", "\"eth0\"", "drop");
    let drop_mark = meta("mark", "==", "7", "drop");
    let cgroup = meta("cgroup", "==", "7", "drop");
    let vmap = r#"{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@m"}}"#;
    let state = |state: &str, verdict: &str| {
        format!(
            r#"{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": "{state}"}}}},
            {{"{verdict}": null}}"#
        )
    };
    let (all, new) = (state("new", "accept"), state("new", "reject"));
    let limited = r#"{"limit": {"rate": 5, "per": "second", "inv": true}}, {"drop": null}"#;
    for (family, hook, policy, rules, dropped) in [
        ("inet", "forward", "drop", vec![], true),
        ("ip6", "forward", "drop", vec![], true),
        ("ip", "forward", "drop", vec![], false),
        ("bridge", "forward", "drop", vec![], false),
        ("arp", "input", "drop", vec![], false),
        ("inet", "input", "drop", vec![], true),
        ("inet", "output", "drop", vec![], true),
        ("inet", "prerouting", "drop", vec![], true),
        ("inet", "postrouting", "drop", vec![], true),
        ("inet", "forward", "accept", vec![r#"{"drop": null}"#], true),
        (
            "inet",
            "forward",
            "accept",
            vec![r#"{"reject": {"type": "icmpx"}}"#],
            true,
        ),
        // The order decides.
        (
            "inet",
            "prerouting",
            "accept",
            vec![&*accept_tap, &*drop_tap],
            false,
        ),
        (
            "inet",
            "prerouting",
            "accept",
            vec![&*drop_tap, &*accept_tap],
            true,
        ),
        ("inet", "forward", "accept", vec![&*drop_other], false),
        ("inet", "forward", "accept", vec![&*drop_set], true),
        ("inet", "forward", "accept", vec![&*not_uplink], true),
        ("inet", "forward", "accept", vec![vmap], true),
        ("inet", "forward", "accept", vec![&*drop_mark], false),
        // What cannot be told is no drop.
        ("inet", "forward", "accept", vec![&*cgroup], false),
        ("inet", "forward", "accept", vec![limited], false),
        ("inet", "forward", "accept", vec![&*new], true),
        ("inet", "forward", "drop", vec![&*all], true),
        (
            "inet",
            "forward",
            "accept",
            vec![r#"{"jump": {"target": "d"}}"#],
            true,
        ),
        (
            "inet",
            "forward",
            "accept",
            vec![r#"{"jump": {"target": "c"}}"#],
            false,
        ),
        (
            "inet",
            "forward",
            "accept",
            vec![r#"{"surprise": 1}, {"drop": null}"#],
            false,
        ),
    ] {
        let listing = one(family, hook, policy, &rules);
        let found = found(&listing, false);
        assert_eq!(
            !found.is_empty(),
            dropped,
            "{family} {hook} {policy} {rules:?}: {found:?}"
        );
    }
}

#[test]
fn odd_listings() {
    for text in ["{", "[", "{\"nftables\"", "\u{0}"] {
        assert!(find(text.as_bytes(), &sample(true)).is_err(), "{text}");
    }
    for text in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"nftables": [1, {}, {"chain": 1}, {"rule": {}}]}"#,
    ] {
        assert_eq!(find(text.as_bytes(), &sample(true)).unwrap(), [], "{text}");
    }
}
