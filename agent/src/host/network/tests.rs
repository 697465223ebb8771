use std::fs;

use super::*;

const ADDRESSES: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000100020000000000000002 02 40 00 80     eth0
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
20010db8000300000000000000000001 05 7c 00 80     tap1
garbage
";

const ROUTES: &str = "\
20010db8000100020000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000002 00000000 00450003     eth0
20010db8000500000000000000000000 30 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00200200       lo
20010db8000100020000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
short line
";

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

#[test]
fn prefixes_are_parsed_strictly() {
    assert_eq!(network("2001:db8::/32").to_string(), "2001:db8::/32");
    assert_eq!(network("::/0").length, 0);
    assert_eq!(network("2001:db8::1/128").length, 128);
    for wrong in [
        "",
        "2001:db8::",
        "2001:db8::/129",
        "2001:db8::1/64",
        "10.0.0.0/8",
        "x/64",
        "/",
    ] {
        assert!(wrong.parse::<Network>().is_err(), "{wrong}");
    }
    assert!(network("2001:db8::/32").covers(&network("2001:db8:1::/48")));
    assert!(!network("2001:db8:1::/48").covers(&network("2001:db8::/32")));
    assert!(network("::/0").covers(&network("ff00::/8")));
}

#[test]
fn the_kernel_s_tables_are_read() {
    let found = addresses(ADDRESSES);
    assert_eq!(found.len(), 4);
    assert_eq!(found[3].interface, "tap1");
    assert_eq!(
        (found[3].address.to_string().as_str(), found[3].length),
        ("2001:db8:3::1", 124)
    );
    let found: Vec<_> = routes(ROUTES)
        .into_iter()
        .map(|r| format!("{} {} {} {}", r.to, r.interface, r.reject, r.advertised))
        .collect();
    assert_eq!(
        found,
        [
            "2001:db8:1:2::/64 eth0 false false",
            "::/0 eth0 false true",
            "2001:db8:5::/48 lo true false"
        ]
    );
}

#[test]
fn the_prefix_is_found_where_it_is() {
    let (a, r) = (addresses(ADDRESSES), routes(ROUTES));
    let table = [
        (None, Prefix::NotConfigured),
        (
            Some("2001:db8:1:2::/64"),
            Prefix::OnLink {
                prefix: network("2001:db8:1:2::/64"),
                interface: "eth0".into(),
            },
        ),
        (
            Some("2001:db8:5:1::/64"),
            Prefix::Routed {
                prefix: network("2001:db8:5:1::/64"),
                interface: "lo".into(),
            },
        ),
        // A guest's own gateway address and the default route say nothing.
        (
            Some("2001:db8:3::/64"),
            Prefix::Unseen {
                prefix: network("2001:db8:3::/64"),
            },
        ),
    ];
    for (configured, expected) in table {
        assert_eq!(place(configured, &a, &r), expected, "{configured:?}");
    }
    assert!(matches!(
        place(Some("nonsense"), &a, &r),
        Prefix::Invalid { .. }
    ));
}

#[test]
fn a_host_is_read_from_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, content: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    put("proc/net/if_inet6", ADDRESSES);
    put("proc/net/ipv6_route", ROUTES);
    put("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n");
    put("proc/sys/net/ipv6/conf/all/forwarding", "1\n");
    put("proc/sys/net/ipv6/conf/eth0/accept_ra", "1\n");
    put("proc/sys/net/ipv6/conf/eth0/proxy_ndp", "0\n");
    put("proc/sys/net/ipv6/conf/eth0/forwarding", "1\n");
    put("sys/class/net/eth0/mtu", "1400\n");
    put("sys/class/net/eth0/flags", "0x1003\n");
    let facts = gather(dir.path(), Some("2001:db8:1:2::/64"), None, true);
    assert!(facts.ipv6 && facts.forwarding == Some(true) && facts.ndp_proxy);
    assert_eq!(
        facts.uplink,
        Some(Uplink {
            name: "eth0".into(),
            exists: true,
            up: Some(true),
            default_route: true,
            advertised: true,
            accept_ra: Some(1),
            proxy_ndp: Some(false),
            forwarding: Some(true),
            mtu: Some(1400),
        })
    );
    assert_eq!(facts.deaf, ["eth0"]);
    let other = gather(dir.path(), None, Some("eth9"), false)
        .uplink
        .unwrap();
    assert!(!other.exists && !other.default_route && other.up.is_none());
    assert_eq!(
        gather(dir.path(), None, Some("../../etc"), false).uplink,
        None
    );
    let nothing = gather(&dir.path().join("none"), None, None, false);
    assert!(!nothing.ipv6 && nothing.uplink.is_none() && nothing.forwarding.is_none());
}

#[test]
fn this_host_can_be_read() {
    let facts = gather(Path::new("/"), None, Some("lo"), false);
    let ipv6 = Path::new("/proc/net/if_inet6").exists();
    assert_eq!(facts.forwarding.is_some(), ipv6);
    assert_eq!(facts.uplink.unwrap().exists, ipv6);
}
