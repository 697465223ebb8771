use super::{
    super::{net, others},
    *,
};
use crate::host::{
    Device,
    network::{NetworkFacts, Prefix, Uplink},
    nft::NftFacts,
    run::RunError,
};

#[test]
fn nftables_and_tun() {
    let facts = |version, kernel| Ok(NftFacts { version, kernel });
    for (facts, expected) in [
        (facts(Some((1, 0, 6)), Ok(())), Good),
        (facts(Some((1, 1, 3)), Ok(())), Good),
        (facts(Some((0, 9, 8)), Ok(())), Degraded),
        (facts(None, Ok(())), Degraded),
        (
            facts(Some((1, 0, 6)), Err("Operation not permitted".into())),
            Missing,
        ),
        (Err(RunError::NotFound("nft".into())), Missing),
    ] {
        assert_eq!(net::nftables(&facts).status, expected, "{facts:?}");
    }
    assert_eq!(net::tun(&Device::Usable).status, Good);
    assert_eq!(
        net::tun(&Device::Absent).remedy.as_deref(),
        Some("modprobe tun")
    );
    assert_eq!(
        net::tun(&Device::Refused { why: "x".into() }).status,
        Missing
    );
}

fn network() -> NetworkFacts {
    NetworkFacts {
        ipv6: true,
        forwarding: Some(true),
        uplink: Some(Uplink {
            name: "eth0".into(),
            exists: true,
            up: Some(true),
            default_route: true,
            advertised: false,
            accept_ra: Some(1),
            proxy_ndp: Some(false),
            forwarding: Some(true),
            mtu: Some(1400),
        }),
        deaf: Vec::new(),
        prefix: Prefix::Routed {
            prefix: "2001:db8:1:2::/64".parse().unwrap(),
            interface: "lo".into(),
        },
        ndp_proxy: false,
    }
}

#[test]
fn networks() {
    let expect = |what: &str, f: &dyn Fn(&mut NetworkFacts), expected: [Status; 6]| {
        let mut facts = network();
        f(&mut facts);
        let found: Vec<_> = net::all(&facts).iter().map(|c| c.status).collect();
        assert_eq!(found, expected, "{what}");
    };
    fn up(facts: &mut NetworkFacts) -> &mut Uplink {
        facts.uplink.as_mut().unwrap()
    }
    let prefix = "2001:db8:1:2::/64".parse().unwrap();
    let long = "2001:db8:1:2::/120".parse().unwrap();
    let on_link = || Prefix::OnLink {
        prefix,
        interface: "eth0".into(),
    };
    expect("ready", &|_| {}, [Good; 6]);
    expect(
        "off",
        &|f| f.ipv6 = false,
        [Missing, Good, Good, Good, Good, Good],
    );
    let not_prefix = [Good, Missing, Good, Good, Good, Good];
    expect(
        "no prefix",
        &|f| f.prefix = Prefix::NotConfigured,
        not_prefix,
    );
    expect(
        "bad prefix",
        &|f| f.prefix = Prefix::Invalid { why: "x".into() },
        not_prefix,
    );
    expect(
        "long prefix",
        &|f| f.prefix = Prefix::Unseen { prefix: long },
        not_prefix,
    );
    let prefix_unsure = [Good, Degraded, Good, Good, Good, Good];
    expect(
        "unseen prefix",
        &|f| f.prefix = Prefix::Unseen { prefix },
        prefix_unsure,
    );
    expect(
        "on link",
        &|f| f.prefix = on_link(),
        [Good, Degraded, Good, Good, Good, Degraded],
    );
    let proxied = |f: &mut NetworkFacts| {
        f.prefix = on_link();
        f.ndp_proxy = true;
    };
    expect(
        "proxy is off",
        &proxied,
        [Good, Good, Good, Good, Good, Degraded],
    );
    expect(
        "proxy is on",
        &|f| {
            proxied(f);
            up(f).proxy_ndp = Some(true);
        },
        [Good; 6],
    );
    let no_forwarding = [Good, Good, Degraded, Good, Good, Good];
    expect(
        "not forwarding",
        &|f| f.forwarding = Some(false),
        no_forwarding,
    );
    expect(
        "unknown forwarding",
        &|f| f.forwarding = None,
        no_forwarding,
    );
    expect(
        "not forwarding on the uplink",
        &|f| up(f).forwarding = Some(false),
        no_forwarding,
    );
    expect(
        "an MTU that IPv6 cannot use",
        &|f| up(f).mtu = Some(1000),
        [Good, Good, Good, Good, Degraded, Good],
    );
    let no_uplink = [Good, Good, Good, Degraded, Good, Good];
    expect("no uplink", &|f| f.uplink = None, no_uplink);
    expect("no such uplink", &|f| up(f).exists = false, no_uplink);
    expect("down", &|f| up(f).up = Some(false), no_uplink);
    expect("no route", &|f| up(f).default_route = false, no_uplink);
    expect("advertised", &|f| up(f).advertised = true, no_uplink);
    expect(
        "advertised and kept",
        &|f| {
            up(f).advertised = true;
            up(f).accept_ra = Some(2);
        },
        [Good; 6],
    );
}

/// The agent forwards, and an interface does not hear the router for it.
#[test]
fn the_cause_of_a_missing_default_route_is_told() {
    let facts = NetworkFacts {
        uplink: None,
        deaf: vec!["eth0".into()],
        ..network()
    };
    let checks = net::all(&facts);
    let uplink = checks.iter().find(|c| c.id == "uplink").unwrap();
    assert_eq!(uplink.status, Degraded);
    assert!(uplink.found.contains("accept_ra is 1"), "{uplink:?}");
    let remedy = uplink.remedy.as_deref().unwrap();
    assert!(
        remedy.contains("net.ipv6.conf.eth0.accept_ra=2"),
        "{remedy}"
    );
}

#[test]
fn others_with_a_hand_in_the_network() {
    let obstacle = ::net::Obstacle {
        family: "ip6".into(),
        table: "filter".into(),
        chain: "FORWARD".into(),
        hook: "forward".into(),
        traffic: ::net::Traffic::ToGuests,
        by_rule: false,
    };
    for (found, status, says) in [
        (Ok(vec![]), Good, "none"),
        (
            Ok(vec![obstacle]),
            Degraded,
            "chain FORWARD (hook forward) of table ip6 filter",
        ),
        (Err("no permission".to_owned()), Degraded, "no permission"),
    ] {
        let check = others::firewalls(&found);
        assert!(
            check.status == status && check.found.contains(says),
            "{check:?}"
        );
    }
    for (holder, own, status, says) in [
        (Ok(None), None, Good, "no agent"),
        (Ok(Some(7)), Some(7), Good, "process 7"),
        (Ok(Some(7)), None, Degraded, "process 7"),
        (Ok(Some(7)), Some(8), Degraded, "process 7"),
        (Err("x".to_owned()), Some(8), Degraded, "x"),
    ] {
        let check = others::second_agent(&others::Owner { holder, own });
        assert!(
            check.status == status && check.found.contains(says),
            "{check:?}"
        );
    }
}
