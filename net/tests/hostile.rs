//! What a hostile guest sends, and what comes of it. Each probe has a twin that differs only in
//! what is forged, and arrives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]

mod world;

use std::net::{Ipv6Addr, UdpSocket};

use net::{HostNet, Mac};
use world::{
    Guest, HOST, HOST4, INTERNET, INTERNET4, World, guest_spec, next_icmp6,
    packet::{self, Path},
};

const ALL_NODES: &str = "ff02::1";
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// From the guest to somewhere behind the host.
fn path(guest: &Guest, to: Ipv6Addr) -> Path {
    let mac = guest.spec.mac;
    Path {
        mac: (mac, mac.host_end()),
        ip: (guest.address(), to),
    }
}

fn arrives(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 2048]).is_ok()
}

async fn two_guests(host: &HostNet) -> (Guest, Guest) {
    let boot = async |n| Guest::boot(host, &guest_spec(host.spec(), n, &["22", "9000/udp"])).await;
    (boot(1).await, boot(2).await)
}

#[test]
fn forged_sources() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let (one, two) = two_guests(&host).await;
        let sink = world.internet.udp("[::]:9000");
        let neighbour = two.inside.udp("[::]:9000");
        let honest = path(&one, ip(INTERNET));
        let to_two = path(&one, two.address());
        let ports = (1, 9000);
        one.send(&honest.udp(ports, b"honest"));
        assert!(arrives(&sink));
        one.send(&to_two.udp(ports, b"honest"));
        assert!(arrives(&neighbour));

        for forged in [
            two.address().to_string(),
            one.spec.network.gateway().to_string(),
            two.spec.network.gateway().to_string(),
            HOST.into(),
            INTERNET.into(),
            "2001:db8:1::77".into(),
            "2606:4700::1111".into(),
            "fe80::77".into(),
            "fe80::1".into(),
            "::".into(),
            "::1".into(),
            "::ffff:198.51.100.2".into(),
            "ff02::1".into(),
        ] {
            for (path, sink) in [(honest, &sink), (to_two, &neighbour)] {
                let path = Path {
                    ip: (ip(&forged), path.ip.1),
                    ..path
                };
                one.send(&path.udp(ports, b"forged"));
                assert!(!arrives(sink), "{forged}");
            }
        }
        for forged in [
            two.spec.mac,
            one.spec.mac.host_end(),
            Mac([0x52, 0, 0, 0, 0, 9]),
        ] {
            one.send(
                &Path {
                    mac: (forged, honest.mac.1),
                    ..honest
                }
                .udp(ports, b"forged"),
            );
            assert!(!arrives(&sink), "{forged}");
        }
        // A priority tag before a forged source is taken off before anybody looks.
        let mut tagged = Path {
            ip: (two.address(), ip(INTERNET)),
            ..honest
        }
        .udp(ports, b"");
        tagged.splice(12..12, [0x81, 0, 0, 0]);
        one.send(&tagged);
        assert!(!arrives(&sink));

        // The outside does not pass for a guest either.
        world
            .internet
            .ip("addr add 2001:db8:1:0:3:9:9:91/128 dev lo");
        let forger = world.internet.udp("[2001:db8:1:0:3:9:9:91]:0");
        forger.send_to(b"forged", (two.address(), 9000)).unwrap();
        assert!(!arrives(&neighbour));
        let honest = world.internet.udp("[::]:0");
        honest.send_to(b"honest", (two.address(), 9000)).unwrap();
        assert!(arrives(&neighbour));
    });
}

#[test]
fn extension_headers_and_fragments_hide_nothing() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let (one, two) = two_guests(&host).await;
        let sink = world.internet.udp("[::]:9000");
        let path = path(&one, ip(INTERNET));
        let udp = path.udp_payload((1, 9000), &[7; 40]);
        for fragment in path.fragments(packet::UDP, &udp) {
            one.send(&fragment);
        }
        assert!(arrives(&sink), "fragments of an honest packet pass");
        for fragment in (Path {
            ip: (two.address(), path.ip.1),
            ..path
        })
        .fragments(packet::UDP, &udp)
        {
            one.send(&fragment);
        }
        assert!(!arrives(&sink));
        one.send(&path.routed(ip(HOST), packet::UDP, &udp));
        assert!(!arrives(&sink), "routing headers of type 0 are dropped");

        // To a closed port of the neighbour, the port in the second fragment or behind options.
        let closed = two.inside.udp("[::]:9001");
        let to_two = Path {
            ip: (one.address(), two.address()),
            ..path
        };
        let udp = to_two.udp_payload((1, 9001), &[7; 40]);
        for fragment in to_two.fragments(packet::UDP, &udp) {
            one.send(&fragment);
        }
        let options = [&[packet::UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat();
        one.send(&to_two.ipv6(60, &options));
        one.send(&to_two.ipv6(0, &options));
        assert!(!arrives(&closed));
        // And a router advertisement behind a destination option.
        let ears = two.inside.icmp6();
        let advert = [
            packet::ROUTER_ADVERT,
            0,
            0,
            0,
            64,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        one.send(&to_two.ipv6(
            60,
            &[&[packet::ICMP6, 0, 1, 4, 0, 0, 0, 0], &advert[..]].concat(),
        ));
        assert_eq!(next_icmp6(&ears, packet::ROUTER_ADVERT), None);
    });
}

#[test]
fn guests_are_no_routers_and_no_servers_of_addresses() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let (one, two) = two_guests(&host).await;
        let (host_ears, two_ears) = (world.host.icmp6(), two.inside.icmp6());
        let mac = one.spec.mac;
        let local = Path {
            mac: (mac, ALL_NODES_MAC),
            ip: (ip("fe80::7"), ip(ALL_NODES)),
        };
        let gateway = Path {
            mac: (mac, mac.host_end()),
            ip: (ip("fe80::7"), one.spec.network.gateway()),
        };

        let solicit = [
            &[0; 4][..],
            &one.spec.network.gateway().octets(),
            &[1, 1],
            &mac.0,
        ]
        .concat();
        one.send(&gateway.icmp6(packet::NEIGHBOR_SOLICIT, &solicit));
        let heard = next_icmp6(&host_ears, packet::NEIGHBOR_SOLICIT);
        assert!(heard.is_some(), "neighbours may be asked for");

        let advert = [64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7];
        let redirect = [
            [0; 4].as_slice(),
            &ip("fe80::7").octets(),
            &ip(INTERNET).octets(),
        ]
        .concat();
        let kinds = [
            (packet::ROUTER_ADVERT, &advert[..]),
            (packet::REDIRECT, &redirect),
            (138, &[0; 12]),
        ];
        for (kind, body) in kinds {
            for path in [local, gateway, path(&one, one.spec.network.gateway())] {
                one.send(&path.icmp6(kind, body));
                assert_eq!(
                    next_icmp6(&host_ears, kind),
                    None,
                    "{kind} to {}",
                    path.ip.1
                );
            }
            one.send(&path(&one, two.address()).icmp6(kind, body));
            assert_eq!(next_icmp6(&two_ears, kind), None, "{kind}");
        }
        one.send(&path(&one, two.address()).icmp6(packet::ECHO_REQUEST, &[0; 4]));
        assert!(next_icmp6(&two_ears, packet::ECHO_REQUEST).is_some());

        let client = two.inside.udp("[::]:546");
        let internet = world.internet.udp("[::]:546");
        host.set_ports(&two.spec, &world::ports(&["546/udp"]))
            .await
            .unwrap();
        for (to, client) in [(two.address(), &client), (ip(INTERNET), &internet)] {
            one.send(&path(&one, to).udp((547, 546), b"advertise"));
            assert!(!arrives(client), "no DHCPv6 server");
            one.send(&path(&one, to).udp((548, 546), b"other"));
            assert!(arrives(client));
        }
    });
}

#[test]
fn a_flood_of_neighbours_does_not_fill_the_hosts_table() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let (one, _two) = two_guests(&host).await;
        let (mac, gateway) = (one.spec.mac, one.spec.network.gateway());
        for n in 0..3000u16 {
            let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n);
            let solicit = [&[0; 4][..], &gateway.octets(), &[1, 1], &mac.0].concat();
            let path = Path {
                mac: (mac, mac.host_end()),
                ip: (from, gateway),
            };
            one.send(&path.icmp6(packet::NEIGHBOR_SOLICIT, &solicit));
        }
        let known = world.host.ip("-6 neigh show dev vmtap1").lines().count();
        assert!((50..400).contains(&known), "{known} neighbours");
    });
}

/// The host's table of connections is everybody's: one guest fills it only slowly.
#[test]
fn a_flood_of_connections_does_not_fill_the_hosts_table() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let (one, two) = two_guests(&host).await;
        let path = path(&one, ip(INTERNET));
        // One that nobody answers is one connection, however many packets it has.
        let sink = world.internet.udp("[::]:9000");
        for _ in 0..12_000 {
            one.send(&path.udp((1, 9000), b"stream"));
        }
        while arrives(&sink) {}
        for _ in 0..50 {
            one.send(&path.udp((1, 9000), b"stream"));
        }
        assert!((0..50).all(|_| arrives(&sink)));
        for n in 0..40_000u16 {
            one.send(&path.udp((10_000 + n % 200, 20_000 + n / 200), b"more"));
        }
        let count = "/proc/sys/net/netfilter/nf_conntrack_count";
        let count: u32 = world
            .host
            .sh(&format!("cat {count}"))
            .trim()
            .parse()
            .unwrap();
        assert!((9_000..20_000).contains(&count), "{count} connections");
        let _web = world.internet.listen("[::]:443");
        assert!(
            two.inside.reach((ip(INTERNET), 443)).is_ok(),
            "others are not hurt"
        );
    });
}

#[test]
fn ipv4_is_closed_without_nat() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let (one, _two) = two_guests(&host).await;
        world.host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        let sinks = [
            world.internet.udp("0.0.0.0:9000"),
            world.host.udp("0.0.0.0:9000"),
        ];
        let mac = (one.spec.mac, one.spec.mac.host_end());
        for (to, sink) in [(INTERNET4, &sinks[0]), (HOST4, &sinks[1])] {
            for from in ["198.51.100.9", HOST4, "172.16.1.2", "0.0.0.0"] {
                let ip = (from.parse().unwrap(), to.parse().unwrap());
                one.send(&packet::ipv4_udp(mac, ip, (1, 9000), b"four"));
                assert!(!arrives(sink), "{from} to {to}");
            }
        }
        // Nor does the host tell its addresses.
        one.inside.ip("addr add 198.51.100.9/24 dev eth0");
        one.inside.sh(&format!("ping -c 1 -W 1 {HOST4} || true"));
        let neighbours = one.inside.ip("-4 neigh show");
        assert!(!neighbours.contains("lladdr"), "{neighbours}");
    });
}

/// Services that others on the host publish by rewriting destinations, as container engines do.
#[test]
fn published_services_of_the_host_are_the_hosts() {
    World::run(|world| async move {
        // As container engines set it.
        world
            .host
            .sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let host = World::start(World::spec()).await;
        let (one, two) = two_guests(&host).await;
        let container = world::Namespace::new("box");
        world.host.ip(&format!(
            "link add box0 type veth peer name eth0 netns {}",
            container.name()
        ));
        for (namespace, link, address) in [
            (&world.host, "box0", "fd00:b0::1"),
            (&container, "eth0", "fd00:b0::2"),
        ] {
            namespace.ip(&format!("link set {link} up"));
            namespace.ip(&format!("addr add {address}/64 dev {link} nodad"));
        }
        container.ip("-6 route add default via fd00:b0::1");
        world.host.sh("nft -f - <<'X'
            table ip6 nat {
                chain prerouting {
                    type nat hook prerouting priority dstnat;
                    tcp dport 8088 dnat to [fd00:b0::2]:80
                }
            }\nX");
        let _service = container.listen("[::]:80");
        assert!(world.internet.reach((ip(HOST), 8088)).is_ok(), "published");
        assert!(one.inside.connect((ip(HOST), 8088)).is_err());
        assert!(
            one.inside
                .connect((one.spec.network.gateway(), 8088))
                .is_err()
        );
        assert!(
            one.inside.connect((ip("fd00:b0::2"), 80)).is_err(),
            "only uplinks lead out"
        );
        // The container is not the uplink, and open ports are open for it as for anybody.
        let _ssh = two.inside.listen("[::]:22");
        assert!(container.reach((two.address(), 22)).is_ok());
    });
}
