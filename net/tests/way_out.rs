//! Where guests' packets may go, and whom else the host forwards for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]

mod world;

use std::net::{IpAddr, SocketAddr};

use net::HostSpec;
use world::{Guest, HOST, HOST4, INTERNET, INTERNET4, Namespace, World, guest_spec};

fn nat() -> HostSpec {
    HostSpec {
        ipv4: Some("172.16.0.0/12".parse().unwrap()),
        ..World::spec()
    }
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 80)
}

/// Gives the internet's namespace addresses that the host's uplink leads to.
fn serve(world: &World, addresses: &[&str]) {
    for address in addresses {
        let (length, router) = match address.parse().unwrap() {
            IpAddr::V4(_) => (32, INTERNET4),
            IpAddr::V6(_) => (128, INTERNET),
        };
        world
            .internet
            .ip(&format!("addr add {address}/{length} dev lo"));
        world
            .host
            .ip(&format!("route add {address}/{length} via {router}"));
    }
}

/// Clouds tell their machines secrets, and operators have networks of their own (M5).
#[test]
fn only_the_internet() {
    World::run(|world| async move {
        let private = [
            "10.9.9.9",
            "192.168.3.4",
            "172.20.1.1",
            "100.100.100.200", // Alibaba
            "168.63.129.16",   // Azure
            "192.0.0.192",     // Oracle
            "169.254.169.254",
            "198.18.0.7",
            "fd00:c1::a9fe:a9fe", // Oracle
            "fd00:a9fe:a9fe::1",  // Linode
            "fd00:42::42",        // Scaleway
            "fd00:ec2::254",      // Amazon
            "fd20:ce::254",       // Google
            "fc00::7",
            "2002:a00:1::1", // 6to4 of 10.0.0.1
            "64:ff9b::a00:1",
        ];
        let public = ["9.9.9.9", "2620:fe::fe"];
        serve(&world, &private);
        serve(&world, &public);
        // Neighbours of the host on its uplink.
        world.internet.ip("addr add 198.51.100.77/24 dev eth0");
        world
            .internet
            .ip("addr add 2001:db8:ffff::77/64 dev eth0 nodad");
        let neighbours = ["198.51.100.77", "2001:db8:ffff::77"];
        let _servers = [world.internet.listen("[::]:80")];

        let host = World::start(nat()).await;
        let spec = guest_spec(host.spec(), 1, &[]);
        let guest = Guest::boot(&host, &spec).await;
        for address in public.into_iter().chain([INTERNET, INTERNET4]) {
            assert!(guest.inside.reach(at(address)).is_ok(), "{address}");
        }
        for address in private.into_iter().chain(neighbours) {
            assert!(
                world.host.reach(at(address)).is_ok(),
                "the host reaches {address}"
            );
            assert!(guest.inside.connect(at(address)).is_err(), "{address}");
        }

        // One list of exceptions.
        let host = World::start(HostSpec {
            allowed_private: ["10.9.0.0/16", "fd00:42::/32", "2001:db8:ffff::77/128"]
                .map(|n| n.parse().unwrap())
                .into(),
            ..nat()
        })
        .await;
        host.reconcile(std::slice::from_ref(&spec)).await.unwrap();
        for address in ["10.9.9.9", "fd00:42::42", "2001:db8:ffff::77", "9.9.9.9"] {
            assert!(guest.inside.reach(at(address)).is_ok(), "{address}");
        }
        for address in [
            "192.168.3.4",
            "fd00:ec2::254",
            "198.51.100.77",
            "169.254.169.254",
        ] {
            assert!(guest.inside.connect(at(address)).is_err(), "{address}");
        }
    });
}

/// What the uplink's link has is looked at again and again.
#[test]
fn new_neighbours_of_the_uplink_are_closed_too() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 1, &[]);
        let guest = Guest::boot(&host, &spec).await;
        serve(&world, &["2a00:1::7"]);
        let _server = world.internet.listen("[::]:80");
        assert!(guest.inside.reach(at("2a00:1::7")).is_ok());
        world.host.ip("addr add 2a00:1::1/64 dev eth0 nodad");
        let all = [spec];
        host.reconcile(&all).await.unwrap();
        assert!(host.reconcile(&all).await.unwrap().is_clean());
        assert!(guest.inside.connect(at("2a00:1::7")).is_err());
    });
}

/// A network of the operator's behind the same host.
fn management(world: &World) -> Namespace {
    let inside = Namespace::new("mgmt");
    world.host.ip(&format!(
        "link add mgmt0 type veth peer name eth0 netns {}",
        inside.name()
    ));
    for (namespace, link, end) in [(&world.host, "mgmt0", 1), (&inside, "eth0", 9)] {
        namespace.ip(&format!("link set {link} up"));
        namespace.ip(&format!("addr add fd50::{end}/64 dev {link} nodad"));
        namespace.ip(&format!("addr add 10.50.0.{end}/24 dev {link}"));
    }
    inside.ip("-6 route add default via fd50::1");
    inside.ip("route add default via 10.50.0.1");
    world
        .internet
        .ip(&format!("route add fd50::/64 via {HOST}"));
    world
        .internet
        .ip(&format!("route add 10.50.0.0/24 via {HOST4}"));
    inside
}

/// Whoever switches forwarding on owns what follows (M4).
#[test]
fn the_host_becomes_no_router_for_others() {
    World::run(|world| async move {
        let inside = management(&world);
        let _server = inside.listen("[::]:80");
        let hidden = |world: &World| {
            ["fd50::9", "10.50.0.9"].map(|address| world.internet.connect(at(address)).is_err())
        };
        assert_eq!(hidden(&world), [true, true], "nothing is forwarded");
        let host = World::start(nat()).await;
        let guest = Guest::boot(&host, &guest_spec(host.spec(), 1, &["80"])).await;
        let _web = guest.inside.listen("[::]:80");
        assert_eq!(
            hidden(&world),
            [true, true],
            "the agent forwards for guests only"
        );
        assert!(world.internet.reach((guest.address(), 80)).is_ok());

        // The next agent finds forwarding on, and knows whose doing that is.
        let all = [guest.spec.clone()];
        let host = net::HostNet::open(nat()).await.unwrap();
        host.start(&all).await.unwrap();
        assert_eq!(hidden(&world), [true, true]);
        // An operator may say otherwise.
        let host = net::HostNet::open(HostSpec {
            forward_others: Some(true),
            ..nat()
        });
        host.await.unwrap().start(&all).await.unwrap();
        let open = ["fd50::9", "10.50.0.9"].map(|a| world.internet.reach(at(a)).is_ok());
        assert_eq!(open, [true, true]);
    });
}

/// A host that routed already goes on.
#[test]
fn a_router_stays_a_router() {
    World::run(|world| async move {
        let inside = management(&world);
        let _server = inside.listen("[::]:80");
        world.host.sh(
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; echo 1 > /proc/sys/net/ipv4/ip_forward",
        );
        let _host = World::start(nat()).await;
        for address in ["fd50::9", "10.50.0.9"] {
            assert!(world.internet.reach(at(address)).is_ok(), "{address}");
        }
        let _host = World::start(HostSpec {
            forward_others: Some(false),
            ..nat()
        })
        .await;
        for address in ["fd50::9", "10.50.0.9"] {
            assert!(world.internet.connect(at(address)).is_err(), "{address}");
        }
    });
}
