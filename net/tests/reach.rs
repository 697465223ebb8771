//! The ways to guests that are options: answering for them on the uplink, and IPv4 behind NAT.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]

mod world;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use net::HostSpec;
use world::{Guest, HOST4, INTERNET, INTERNET4, PREFIX, World, guest_spec, packet};

#[test]
fn the_uplink_answers_for_guests() {
    World::run(|world| async move {
        // The provider has the whole prefix on the link, and asks for each address.
        world.internet.ip(&format!("route del {PREFIX}"));
        world
            .internet
            .ip("addr add 2001:db8:1::ff/64 dev eth0 nodad");
        world.host.ip("addr add 2001:db8:1::1/64 dev eth0 nodad");
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 3, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let _ssh = guest.inside.listen("[::]:22");
        assert!(
            world.internet.connect((guest.address(), 22)).is_err(),
            "nobody answers"
        );
        drop(guest.kill());
        host.remove_guest(&spec).await.unwrap();

        let host = World::start(HostSpec {
            ndp_proxy: true,
            ..World::spec()
        })
        .await;
        let own = host.addresses().await.unwrap();
        assert!(own.contains(&"2001:db8:1::1".parse().unwrap()), "{own:?}");
        let guest = Guest::boot(&host, &spec).await;
        let _ssh = guest.inside.listen("[::]:22");
        world.internet.ip("-6 neigh flush dev eth0");
        let start = Instant::now();
        assert!(world.internet.reach((guest.address(), 22)).is_ok());
        assert!(
            start.elapsed().as_millis() < 250,
            "the answer comes at once"
        );
        let last = spec.network.addresses().last().unwrap();
        guest
            .inside
            .ip(&format!("addr add {last}/124 dev eth0 nodad"));
        assert!(world.internet.reach((last, 22)).is_ok());
        assert!(guest.inside.pings(INTERNET));
        assert!(
            !guest.inside.pings("2001:db8:1::ff"),
            "neighbours of the host"
        );
    });
}

#[test]
fn ipv4_through_nat() {
    World::run(|world| async move {
        let pool = Some("172.16.0.0/12".parse().unwrap());
        let host = World::start(HostSpec {
            ipv4: pool,
            ..World::spec()
        })
        .await;
        let one = Guest::boot(&host, &guest_spec(host.spec(), 1, &["22"])).await;
        let two = Guest::boot(&host, &guest_spec(host.spec(), 2, &["22"])).await;
        let v4 = |guest: &Guest| guest.spec.ipv4.unwrap();
        let _ssh = two.inside.listen("0.0.0.0:22");
        let _host = world.host.listen("0.0.0.0:22");
        let web = world.internet.listen("0.0.0.0:443");

        let internet: SocketAddr = format!("{INTERNET4}:443").parse().unwrap();
        assert!(one.inside.reach(internet).is_ok());
        assert_eq!(
            web.accept().unwrap().1.ip().to_string(),
            HOST4,
            "as the host"
        );

        let at = |address: Ipv4Addr, port| one.inside.connect((address, port)).is_ok();
        assert!(!at(HOST4.parse().unwrap(), 22), "not the host");
        assert!(!at(v4(&one).gateway, 22));
        assert!(!at(v4(&two).gateway, 22));
        assert!(!at(v4(&two).guest, 22), "nor another guest");
        one.inside
            .sh(&format!("ping -c 1 -W 1 {}", v4(&one).gateway));

        // From outside there is no way in.
        world
            .internet
            .ip(&format!("route add 172.16.0.0/12 via {HOST4}"));
        assert!(world.internet.connect((v4(&two).guest, 22)).is_err());
        assert!(world.host.reach((v4(&two).guest, 22)).is_ok());

        let sink = world.internet.udp("0.0.0.0:9000");
        let mac = (one.spec.mac, one.spec.mac.host_end());
        let send = |from: Ipv4Addr, to: &str, port| {
            let ip = (from, to.parse().unwrap());
            one.send(&packet::ipv4_udp(mac, ip, (port, 9000), b"four"));
            sink.recv(&mut [0; 99]).is_ok()
        };
        assert!(send(v4(&one).guest, INTERNET4, 1));
        assert!(!send(v4(&one).guest, INTERNET4, 67), "no DHCP server");
        for forged in [v4(&two).guest, v4(&one).gateway, HOST4.parse().unwrap()] {
            assert!(!send(forged, INTERNET4, 1), "{forged}");
        }
        // What clouds tell their own machines, credentials too.
        world.internet.ip("addr add 169.254.169.254/32 dev lo");
        world
            .host
            .ip(&format!("route add 169.254.169.254 via {INTERNET4}"));
        assert!(!send(v4(&one).guest, "169.254.169.254", 1));
        world
            .host
            .ip(&format!("route del 169.254.169.254 via {INTERNET4}"));
        assert!(host.reconcile(&[]).await.unwrap().is_clean());
    });
}
