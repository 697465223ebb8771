//! What was so at the agent's start does not stay so: uplinks, routes, settings, prefix, MTU, and
//! other firewalls. Each comparison repairs what it can and says what it could not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]

mod world;

use std::slice::from_ref;

use net::{Claim, Error, GuestIndex, HostNet, HostSpec, Problem};
use world::{Guest, INTERNET, World, guest_spec};

fn kinds(host: &HostNet) -> Vec<&'static str> {
    host.problems().iter().map(Problem::kind).collect()
}

fn uplinks(world: &World) -> String {
    let list = world.host.sh("nft -j list set inet crn_test uplinks");
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list["nftables"][1]["set"]["elem"].to_string()
}

fn second_uplink(world: &World, name: &str) {
    world.internet.ip(&format!(
        "link add {name} type veth peer name {name} netns {}",
        world.host.name()
    ));
    for (namespace, end) in [(&world.internet, 1), (&world.host, 2)] {
        namespace.ip(&format!("link set {name} up"));
        namespace.ip(&format!(
            "addr add 2001:db8:fffe::{end}/64 dev {name} nodad"
        ));
    }
}

/// The default route moves (N12).
#[test]
fn uplinks_follow_the_default_routes() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let mut watch = host.watch().unwrap();
        assert_eq!(uplinks(&world), r#"["eth0"]"#);
        second_uplink(&world, "eth1");
        world
            .internet
            .ip("route add 2001:db8:1::/80 via 2001:db8:fffe::2");
        world.host.ip("route del default via 198.51.100.1");
        world
            .host
            .ip("-6 route replace default via 2001:db8:fffe::1");
        let told = tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await;
        assert_eq!(
            told.unwrap(),
            Some(net::Change::Uplink),
            "it is noticed at once"
        );
        host.reconcile(from_ref(&spec)).await.unwrap();
        assert_eq!(uplinks(&world), r#"["eth1"]"#);
        let forwarding = "cat /proc/sys/net/ipv6/conf/eth1/forwarding";
        assert_eq!(world.host.sh(forwarding).trim(), "1");
        let _web = world.internet.listen("[::]:443");
        let at = (
            "2001:db8:fffe::1".parse::<std::net::Ipv6Addr>().unwrap(),
            443,
        );
        assert!(guest.inside.reach(at).is_ok());
        // Routes that are learnt come and go: without any the last uplink stays, and it is told.
        world.host.ip("-6 route del default");
        host.reconcile(from_ref(&spec)).await.unwrap();
        assert_eq!(uplinks(&world), r#"["eth1"]"#);
        assert_eq!(kinds(&host), ["no-uplink"]);
    });
}

/// An agent that starts before the first router advertisement (N1).
#[test]
fn the_first_router_advertisement_may_come_late() {
    World::run(|world| async move {
        world.host.ip("-6 route del default");
        world
            .host
            .sh("echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
        world
            .host
            .sh("echo 1 > /proc/sys/net/ipv6/conf/default/accept_ra");
        let _host = World::start(World::spec()).await;
        let accepts = |name: &str| {
            let file = format!("cat /proc/sys/net/ipv6/conf/{name}/accept_ra");
            world.host.sh(&file).trim().to_owned()
        };
        assert_eq!(
            (accepts("eth0").as_str(), accepts("default").as_str()),
            ("2", "2")
        );
        // From the router, to all nodes: a default route for half an hour.
        let advert = [64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let path = world::packet::Path {
            mac: (
                net::Mac([2, 0, 0, 0, 0, 1]),
                net::Mac([0x33, 0x33, 0, 0, 0, 1]),
            ),
            ip: ("fe80::1:1".parse().unwrap(), "ff02::1".parse().unwrap()),
        };
        let frame = path.icmp6(world::packet::ROUTER_ADVERT, &advert);
        world.internet.send_frame("eth0", &frame);
        let routes = || world.host.ip("-6 route show default");
        for _ in 0..50 {
            if routes().contains("fe80::1:1") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        unreachable!("no default route: {}", routes());
    });
}

/// networkd, ifupdown and sysctl.d set it for one interface (N2).
#[test]
fn forwarding_of_one_interface_is_put_back() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let _ssh = guest.inside.listen("[::]:22");
        for name in ["eth0", "vmtap1"] {
            let file = format!("/proc/sys/net/ipv6/conf/{name}/forwarding");
            world.host.sh(&format!("echo 0 > {file}"));
            let repairs = host.reconcile(from_ref(&spec)).await.unwrap();
            assert_eq!(repairs.sysctls, [file]);
            assert!(world.internet.reach((guest.address(), 22)).is_ok());
        }
    });
}

/// A configured uplink that comes late, goes, and comes back (N11); and what else is broken is
/// repaired meanwhile (N10).
#[test]
fn an_uplink_may_come_late() {
    World::run(|world| async move {
        let host = HostNet::open(HostSpec {
            uplink: Some("ppp0".into()),
            ndp_proxy: true,
            ..World::spec()
        })
        .await
        .unwrap();
        host.start(&[]).await.unwrap();
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let all = [spec.clone()];
        host.reconcile(&all).await.unwrap();
        assert_eq!(kinds(&host), ["uplink-missing"]);
        world.host.ip(&format!(
            "addr del {}/124 dev vmtap1",
            spec.network.gateway()
        ));
        world.host.sh("nft flush chain inet crn_test to_guest");
        let repairs = host.reconcile(&all).await.unwrap();
        assert_eq!((repairs.links, repairs.table), (vec![GuestIndex(1)], true));

        for _ in 0..2 {
            second_uplink(&world, "ppp0");
            host.reconcile(&all).await.unwrap();
            assert_eq!(kinds(&host), ["no-uplink"], "it has no default route yet");
            world.host.ip("-6 route add default dev ppp0 metric 2000");
            host.reconcile(&all).await.unwrap();
            assert_eq!(kinds(&host), [""; 0]);
            assert!(host.reconcile(&all).await.unwrap().is_clean());
            let file = "cat /proc/sys/net/ipv6/conf/ppp0/proxy_ndp";
            assert_eq!(world.host.sh(file).trim(), "1");
            let proxies = world.host.ip("-6 neigh show proxy dev ppp0");
            assert!(proxies.contains(&guest.address().to_string()), "{proxies}");
            world.host.ip("link del ppp0");
            host.reconcile(&all).await.unwrap();
            assert_eq!(kinds(&host), ["uplink-missing"]);
        }
    });
}

/// A setting that cannot be written costs nothing else its repair.
#[test]
fn what_cannot_be_set_is_told() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let _guest = Guest::boot(&host, &spec).await;
        // An interface without IPv6 has none of its settings.
        world.host.ip("link set eth0 mtu 1000");
        world.host.ip("link set vmtap1 down");
        let repairs = host.reconcile(from_ref(&spec)).await.unwrap();
        assert_eq!(repairs.links, [GuestIndex(1)]);
        assert!(kinds(&host).contains(&"network-setting"));
    });
}

/// The provider gives another prefix (N13).
#[test]
fn guests_of_another_prefix_are_told_and_stay_protected() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let all = [spec.clone()];
        drop(host);
        let new = HostSpec::new("crn_test", "2001:db8:7::/64".parse().unwrap());
        let host = HostNet::open(new).await.unwrap();
        host.start(&all).await.unwrap();
        assert!(host.reconcile(&all).await.unwrap().is_clean());
        assert_eq!(kinds(&host), ["other-prefix"]);
        let sink = guest.inside.udp("[::]:22");
        host.set_ports(&spec, &world::ports(&["22/udp"]))
            .await
            .unwrap();
        let address = guest.address();
        let nearby = spec.network.addresses().last().unwrap();
        world.internet.ip(&format!("addr add {nearby}/128 dev lo"));
        let forger = world.internet.udp(&format!("[{nearby}]:0"));
        forger.send_to(b"forged", (address, 22)).unwrap();
        assert!(
            sink.recv(&mut [0; 9]).is_err(),
            "the outside does not pass for a guest"
        );
        let honest = world.internet.udp("[::]:0");
        honest.send_to(b"honest", (address, 22)).unwrap();
        assert!(sink.recv(&mut [0; 9]).is_ok());
    });
}

/// A tunnel or virtual switch takes less than 1500 bytes, and nobody says so (N3).
#[test]
fn guests_have_the_mtu_of_the_path() {
    World::run(|world| async move {
        world.host.ip("link set eth0 mtu 1400");
        let host = World::start(HostSpec {
            ipv4: Some("172.16.0.0/12".parse().unwrap()),
            ..World::spec()
        })
        .await;
        assert_eq!(host.guests_mtu().await, 1400);
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        assert!(world.host.ip("link show vmtap1").contains("mtu 1400"));
        // A guest that was not told has 1500: what both sides send fits all the same.
        let (out, inward) = (
            world.internet.listen("[::]:443"),
            guest.inside.listen("[::]:22"),
        );
        let out4 = world.internet.listen("0.0.0.0:444");
        let internet: std::net::Ipv6Addr = INTERNET.parse().unwrap();
        let _one = guest.inside.reach((internet, 443)).unwrap();
        let _two = world.internet.reach((guest.address(), 22)).unwrap();
        let internet4: std::net::Ipv4Addr = world::INTERNET4.parse().unwrap();
        let _three = guest.inside.reach((internet4, 444)).unwrap();
        let _accepted = [&out, &inward, &out4].map(|l| l.accept().unwrap());
        for (side, port, header) in [
            (&world.internet, 443, 60),
            (&guest.inside, 22, 60),
            (&world.internet, 444, 40),
        ] {
            let mss = side.largest_segment(port);
            assert!(mss <= 1400 - header, "port {port}: {mss}");
        }
        // It may change.
        world.host.ip("link set eth0 mtu 1300");
        host.reconcile(from_ref(&spec)).await.unwrap();
        assert!(world.host.ip("link show vmtap1").contains("mtu 1300"));
        assert!(host.reconcile(from_ref(&spec)).await.unwrap().is_clean());
        // More than the internet's is of no use, less than IPv6's cannot be.
        for (mtu, guests) in [(9000, 1500), (1280, 1280)] {
            world.host.ip(&format!("link set eth0 mtu {mtu}"));
            host.reconcile(from_ref(&spec)).await.unwrap();
            assert_eq!(host.guests_mtu().await, guests);
        }
    });
}

/// Firewalls that come after the agent, with rules as they really have them (N4, N4b, N4c, N4d).
#[test]
fn other_firewalls_are_told() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let _guest = Guest::boot(&host, &spec).await;
        let all = [spec];
        for (what, rules, seen) in [
            (
                "firewalld: accepts by policy, rejects by its last rule",
                "table inet firewalld { chain filter_FORWARD {
                    type filter hook forward priority filter + 10; policy accept;
                    ct state { established, related } accept
                    ct status dnat accept
                    iifname \"lo\" accept
                    jump filter_FORWARD_POLICIES
                    ct state { invalid } drop
                    reject with icmpx admin-prohibited
                }
                chain filter_FORWARD_POLICIES {
                    iifname \"eth0\" oifname \"docker0\" goto allow
                    reject with icmpx admin-prohibited
                }
                chain allow { accept
                } }",
                true,
            ),
            (
                "Docker",
                "table ip6 filter { chain FORWARD {
                    type filter hook forward priority filter; policy drop;
                } }",
                true,
            ),
            (
                "by hand, without ICMPv6",
                "table inet filter { chain input {
                    type filter hook input priority filter; policy drop;
                    ct state established,related accept
                    iif lo accept
                    tcp dport 22 accept
                } }",
                true,
            ),
            (
                "by hand, with all of ICMPv6",
                "table inet filter { chain input {
                    type filter hook input priority filter; policy drop;
                    ct state established,related accept
                    iif lo accept
                    meta l4proto ipv6-icmp accept
                } }",
                false,
            ),
            (
                "a bridge's, which no routed packet meets",
                "table bridge br { chain f {
                    type filter hook forward priority 0; policy drop;
                } }",
                false,
            ),
            (
                "another hook and order",
                "table ip6 mangle { chain p {
                    type filter hook postrouting priority 200; policy accept;
                    oifname != \"eth0\" drop
                } }",
                true,
            ),
            (
                "one that blocks addresses",
                "table inet fail2ban { set bad { type ipv6_addr; flags interval;
                    elements = { 2001:db8:66::/48 } }
                chain f { type filter hook forward priority -1; policy accept;
                    ip6 saddr @bad reject
                } }",
                false,
            ),
            (
                "NAT without IPv4",
                "table ip filter { chain FORWARD {
                    type filter hook forward priority filter; policy drop;
                } }",
                false,
            ),
        ] {
            let rules = rules.replace("} }", "}\n}");
            world.host.sh(&format!("nft -f - <<'X'\n{rules}\nX"));
            assert!(host.reconcile(&all).await.unwrap().is_clean(), "{what}");
            let found = host.problems();
            assert_eq!(!found.is_empty(), seen, "{what}: {found:?}");
            assert!(
                found.iter().all(|p| p.kind() == "other-firewall"),
                "{found:?}"
            );
            let (family, table) = {
                let mut words = rules.split_whitespace().skip(1);
                (words.next().unwrap(), words.next().unwrap())
            };
            world.host.sh(&format!("nft delete table {family} {table}"));
            host.reconcile(&all).await.unwrap();
            assert_eq!(host.problems(), [], "{what}: gone");
        }
    });
}

/// One agent for a network namespace, whatever its directories are (N5).
#[test]
fn the_network_has_one_owner() {
    World::run(|world| async move {
        let first = Claim::take().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Claim::holder().unwrap(), Some(own));
        let error = Claim::take().unwrap_err();
        assert!(
            matches!(error, Error::AnotherAgent { pid } if pid == own),
            "{error}"
        );
        // Another namespace is another network.
        world.internet.run(|| Claim::take().map(drop)).unwrap();
        drop(first);
        assert_eq!(Claim::holder().unwrap(), None);
        // A child of an agent that was killed has its descriptors until it is executed.
        let status = std::process::Command::new("/usr/bin/python3")
            .arg("-c")
            .arg(
                "import os,socket,time; s=socket.socket(socket.AF_UNIX); \
                 s.bind('\\0crn-agent/network/1.0'); s.listen(); \
                 os.fork() and os._exit(0); time.sleep(0.5)",
            )
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        assert!(Claim::holder().unwrap().is_some(), "its child has it");
        drop(Claim::take().unwrap());
        // A user who is not root holds nothing up.
        let mut squatter = std::process::Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
            ])
            .arg(
                "import socket,time; s=socket.socket(socket.AF_UNIX); \
                 s.bind('\\0crn-agent/network/1.0'); s.listen(); print(flush=True); time.sleep(60)",
            )
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = squatter.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert!(!line.is_empty(), "the squatter has a name");
        let second = Claim::take();
        let _ = squatter.kill();
        let _ = squatter.wait();
        assert!(second.is_ok(), "{second:?}");
    });
}
