//! Tables that the kernel has once for the host and all guests: one guest fills none of them, by any
//! path. Frames are those of a hostile guest's own making.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]

mod world;

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    time::{Duration, Instant},
};

use net::{HostNet, HostSpec};
use world::{
    Guest, HOST, INTERNET, World, guest_spec,
    packet::{self, Path},
};

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn path(guest: &Guest, to: Ipv6Addr) -> Path {
    let mac = guest.spec.mac;
    Path {
        mac: (mac, mac.host_end()),
        ip: (guest.address(), to),
    }
}

async fn boot(host: &HostNet, index: u32, open: &[&str]) -> Guest {
    Guest::boot(host, &guest_spec(host.spec(), index, open)).await
}

fn nat() -> HostSpec {
    HostSpec {
        ipv4: Some("172.16.0.0/12".parse().unwrap()),
        ..World::spec()
    }
}

fn arrives(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 9000]).is_ok()
}

fn number(world: &World, file: &str) -> u64 {
    let text = world.host.sh(&format!("cat /proc/sys/net/{file}"));
    text.trim().parse().unwrap()
}

/// Connections that the host tracks.
fn connections(world: &World) -> u64 {
    number(world, "netfilter/nf_conntrack_count")
}

/// Halves of packets wait for the other half in memory that all share (M1).
#[test]
fn halves_of_packets_do_not_stop_those_of_others() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        assert_eq!(number(&world, "netfilter/nf_conntrack_frag6_timeout"), 3);
        // A smaller memory, so that the test need not be long.
        let least = "netfilter/nf_conntrack_frag6_high_thresh";
        assert!(number(&world, least) >= 64 << 20);
        let low = "netfilter/nf_conntrack_frag6_low_thresh";
        world.host.sh(&format!(
            "cd /proc/sys/net; echo 900000 > {low}; echo 1000000 > {least}"
        ));
        let (one, two) = (boot(&host, 1, &[]).await, boot(&host, 2, &[]).await);
        let sink = world.internet.udp("[::]:9000");
        let honest = path(&two, ip(INTERNET));
        let whole = honest.udp_payload((1, 9000), &[7; 1400]);
        let two_sends = |id: u32| {
            for fragment in honest.fragments_of(packet::UDP, &whole, id, 1000) {
                two.send(&fragment);
            }
        };
        two_sends(1);
        assert!(arrives(&sink), "an honest packet in fragments passes");

        let forged = Path {
            ip: (ip("2001:db8:1:0:3:9:9:91"), ip(INTERNET)),
            ..path(&one, ip(INTERNET))
        };
        for (what, path) in [("own", path(&one, ip(INTERNET))), ("forged", forged)] {
            let half = path.udp_payload((1, 9000), &[7; 1400]);
            for id in 0..4000 {
                one.send(&path.fragments_of(packet::UDP, &half, id, 1000)[0]);
            }
            // Large halves would fill it sooner.
            let large = path.udp_payload((1, 9000), &[7; 60_000]);
            for id in 5000..5100 {
                one.send(&path.fragments_of(packet::UDP, &large, id, 50_000)[0]);
            }
            two_sends(2);
            assert!(arrives(&sink), "{what} halves");
        }
    });
}

#[test]
fn halves_of_ipv4_packets_neither() {
    World::run(|world| async move {
        let host = World::start(nat()).await;
        world
            .host
            .sh("cd /proc/sys/net/ipv4; echo 900000 > ipfrag_low_thresh");
        world
            .host
            .sh("echo 1000000 > /proc/sys/net/ipv4/ipfrag_high_thresh");
        let (one, two) = (boot(&host, 1, &[]).await, boot(&host, 2, &[]).await);
        let sink = world.internet.udp("0.0.0.0:9000");
        let to: Ipv4Addr = world::INTERNET4.parse().unwrap();
        let halves = |guest: &Guest, id: u16| {
            let mac = (guest.spec.mac, guest.spec.mac.host_end());
            let ip = (guest.spec.ipv4.unwrap().guest, to);
            packet::ipv4_udp_halves(mac, ip, (1, 9000), &[7; 1400], id)
        };
        halves(&two, 1).iter().for_each(|half| two.send(half));
        assert!(arrives(&sink));
        for id in 0..4000 {
            one.send(&halves(&one, id)[0]);
        }
        halves(&two, 2).iter().for_each(|half| two.send(half));
        assert!(arrives(&sink));
    });
}

/// Each ping with another number is a connection (M2).
#[test]
fn pings_of_the_gateway_do_not_fill_the_table_of_connections() {
    World::run(|world| async move {
        let host = World::start(nat()).await;
        let one = boot(&host, 1, &[]).await;
        let before = connections(&world);
        let gateway = one.spec.network.gateway();
        let sources: Vec<_> = one.spec.network.addresses().collect();
        for n in 0..20_000u32 {
            let path = Path {
                ip: (sources[n as usize % sources.len()], gateway),
                ..path(&one, gateway)
            };
            one.send(&path.icmp6(packet::ECHO_REQUEST, &n.to_be_bytes()));
        }
        let local = Path {
            ip: (ip("fe80::7"), ip("fe80::1")),
            ..path(&one, gateway)
        };
        for n in 0..20_000u32 {
            one.send(&local.icmp6(packet::ECHO_REQUEST, &n.to_be_bytes()));
        }
        let v4 = one.spec.ipv4.unwrap();
        for n in 0..20_000u16 {
            let mac = (one.spec.mac, one.spec.mac.host_end());
            one.send(&packet::ipv4_ping(mac, (v4.guest, v4.gateway), n));
        }
        let more = connections(&world) - before;
        assert!(more < 2000, "{more} connections");
        let answered = (0..5).any(|_| {
            std::thread::sleep(Duration::from_secs(1));
            one.inside.pings(gateway)
        });
        assert!(answered, "but pings are answered");
    });
}

/// The other way: somebody outside may be the guest's friend.
#[test]
fn a_flood_from_outside_does_not_fill_the_table_of_connections() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let one = boot(&host, 1, &["1-65535/udp"]).await;
        let two = boot(&host, 2, &["22"]).await;
        let ssh = two.inside.listen("[::]:22");
        let flood = world.internet.udp("[::]:0");
        for n in 0..40_000u16 {
            let _ = flood.send_to(b"x", (one.address(), n + 1));
        }
        let count = connections(&world);
        assert!((5_000..22_000).contains(&count), "{count} connections");
        assert!(
            world.internet.reach((two.address(), 22)).is_ok(),
            "others are reached"
        );
        drop(ssh);
    });
}

/// A connection that nobody uses any more leaves the table in minutes, not days.
#[test]
fn connections_of_guests_do_not_stay_for_days() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let one = boot(&host, 1, &["22"]).await;
        let (web, ssh) = (
            world.internet.listen("[::]:443"),
            one.inside.listen("[::]:22"),
        );
        let _out = one.inside.reach((ip(INTERNET), 443)).unwrap();
        let _in = world.internet.reach((one.address(), 22)).unwrap();
        let _accepted = (web.accept().unwrap(), ssh.accept().unwrap());
        let list = world.host.sh("cat /proc/net/nf_conntrack");
        let seconds: Vec<u64> = list
            .lines()
            .filter(|l| l.contains("ESTABLISHED"))
            .map(|l| l.split_whitespace().nth(4).unwrap().parse().unwrap())
            .collect();
        assert_eq!(seconds.len(), 2, "{list}");
        assert!(seconds.iter().all(|s| *s <= 600), "{list}");
    });
}

/// What a guest says in ARP is believed of its own address only (M3), whatever the host's settings.
#[test]
fn forged_arp_makes_no_neighbours() {
    World::run(|world| async move {
        let host = World::start(nat()).await;
        // Loose checks of sources, as Ubuntu has them: the kernel takes the larger of two settings.
        world
            .host
            .sh("echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter");
        let one = boot(&host, 1, &[]).await;
        let v4 = one.spec.ipv4.unwrap();
        let neighbours = || world.host.ip("-4 neigh show dev vmtap1").lines().count();
        let before = neighbours();
        for n in 0..3000u32 {
            let from = Ipv4Addr::from(0x0a00_0000 + n);
            one.send(&packet::arp_request(one.spec.mac, from, v4.gateway));
        }
        assert!(neighbours() <= before, "{} neighbours", neighbours());
        // Its own is answered.
        world.host.ip(&format!("neigh flush dev {}", one.spec.tap));
        assert!(
            one.inside
                .sh(&format!("ping -c 1 -W 3 {}", v4.gateway))
                .contains("1 received")
        );
    });
}

/// Nor does it fill the table of neighbours of the uplink, by asking for all of its network.
#[test]
fn no_neighbours_of_the_uplink_are_asked_for() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let one = boot(&host, 1, &[]).await;
        let neighbours = || world.host.ip("-6 neigh show dev eth0").lines().count();
        let before = neighbours();
        for n in 0..2000u16 {
            let to = Ipv6Addr::from(ip("2001:db8:ffff::1:0").to_bits() | u128::from(n));
            one.send(&path(&one, to).udp((1, 9000), b"anybody?"));
        }
        assert!(neighbours() <= before + 1, "{} neighbours", neighbours());
        let web = world.internet.listen("[::]:443");
        assert!(
            one.inside.reach((ip(INTERNET), 443)).is_ok(),
            "the router itself is reached"
        );
        drop(web);
    });
}

/// Errors about the host's own connections do not come from guests (L1).
#[test]
fn guests_do_not_set_the_hosts_path_mtu() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let one = boot(&host, 1, &["53/udp"]).await;
        let _server = world.internet.udp("[::]:9000");
        let (from, to) = (ip(HOST), ip(INTERNET));
        let client = world.host.udp(&format!("[{HOST}]:4000"));
        client.send_to(b"hello", (to, 9000)).unwrap();
        // As a router on the way would say it, but from the guest.
        let inner = Path {
            ip: (from, to),
            ..path(&one, to)
        };
        let quoted = &inner.udp((4000, 9000), b"hello")[14..];
        let body = [&1280u32.to_be_bytes()[..], quoted].concat();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            one.send(&path(&one, from).icmp6(packet::PACKET_TOO_BIG, &body));
            std::thread::sleep(Duration::from_millis(50));
        }
        let route = world.host.ip(&format!("-6 route get {INTERNET}"));
        assert!(!route.contains("mtu"), "{route}");
    });
}
