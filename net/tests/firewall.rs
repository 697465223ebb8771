//! The firewall as the internet and guests see it: real kernels, real packets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]

mod world;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use world::{Guest, HOST, INTERNET, PATIENCE, World, guest_spec, ports};

/// Whether a byte goes there, and one comes back.
fn works(client: &mut TcpStream, server: &mut TcpStream) -> bool {
    let pass = |from: &mut TcpStream, to: &mut TcpStream| {
        to.set_read_timeout(Some(PATIENCE)).unwrap();
        from.write_all(b"x")
            .and_then(|()| to.read_exact(&mut [0]))
            .is_ok()
    };
    pass(client, server) && pass(server, client)
}

#[test]
fn ports_open_and_close_and_established_connections_go_on() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 7, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let at = |port| SocketAddr::new(guest.address().into(), port);
        let _ssh = guest.inside.listen("[::]:22");
        let web = guest.inside.listen("[::]:80");
        let _range = guest.inside.listen("[::]:8005");
        let dns = guest.inside.udp("[::]:53");

        assert!(world.internet.reach(at(22)).is_ok(), "22 is open");
        assert!(world.internet.connect(at(80)).is_err(), "80 is closed");
        assert!(world.internet.connect(at(8005)).is_err());

        let open = ports(&["22", "80", "8000-8010", "53/udp"]);
        host.set_ports(&spec, &open).await.unwrap();
        let mut client = world.internet.reach(at(80)).expect("80 is open now");
        let mut server = web.accept().unwrap().0;
        assert!(works(&mut client, &mut server));
        assert!(world.internet.reach(at(8005)).is_ok(), "so is the range");
        assert!(
            world
                .internet
                .connect(at(8011))
                .is_err_and(|e| e.kind() == std::io::ErrorKind::TimedOut)
        );
        let query = world.internet.udp("[::]:0");
        query.send_to(b"?", at(53)).unwrap();
        assert!(dns.recv(&mut [0; 9]).is_ok());

        let spec = net::GuestSpec {
            ports: open,
            ..spec
        };
        host.set_ports(&spec, &ports(&["22"])).await.unwrap();
        assert!(
            world.internet.connect(at(80)).is_err(),
            "80 is closed again"
        );
        assert!(world.internet.connect(at(8005)).is_err());
        assert!(works(&mut client, &mut server), "the connection goes on");

        // An agent that starts anew takes nothing away either.
        let spec = net::GuestSpec {
            ports: ports(&["22"]),
            ..spec
        };
        let next = net::HostNet::open(World::spec()).await.unwrap();
        next.start(std::slice::from_ref(&spec)).await.unwrap();
        assert!(works(&mut client, &mut server));
        assert!(world.internet.reach(at(22)).is_ok());
        assert!(
            next.reconcile(std::slice::from_ref(&spec))
                .await
                .unwrap()
                .is_clean()
        );
    });
}

#[test]
fn what_guests_may_do() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let guest = Guest::boot(&host, &guest_spec(host.spec(), 1, &["22"])).await;
        let _ssh = guest.inside.listen("[::]:22");
        let _out = world.internet.listen("[::]:443");
        let internet: SocketAddr = format!("[{INTERNET}]:443").parse().unwrap();
        assert!(
            guest.inside.reach(internet).is_ok(),
            "guests reach the internet"
        );
        assert!(guest.inside.pings(INTERNET));
        assert!(
            guest.inside.pings(guest.spec.network.gateway()),
            "and their gateway"
        );
        assert!(
            world.internet.pings(guest.address()),
            "the internet may ping them"
        );
        assert!(
            world.host.reach((guest.address(), 22)).is_ok(),
            "the host reaches them"
        );
        // All of its /124 is a guest's own.
        let last = guest.spec.network.addresses().last().unwrap();
        guest
            .inside
            .ip(&format!("addr add {last}/124 dev eth0 nodad"));
        assert!(world.internet.reach((last, 22)).is_ok());
    });
}

#[test]
fn guests_do_not_reach_the_host_or_each_other() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let one = Guest::boot(&host, &guest_spec(host.spec(), 1, &["22"])).await;
        let two = Guest::boot(&host, &guest_spec(host.spec(), 2, &["22", "8080"])).await;
        let _host = world.host.listen("[::]:22");
        let sink = world.host.udp("[::]:5000");
        let _two = [22, 80, 8080].map(|port| two.inside.listen(&format!("[::]:{port}")));
        let host_address: std::net::Ipv6Addr = HOST.parse().unwrap();
        for address in [
            host_address,
            one.spec.network.gateway(),
            two.spec.network.gateway(),
        ] {
            assert!(
                one.inside.connect((address, 22)).is_err(),
                "{address} is the host's"
            );
            let udp = one.inside.udp("[::]:0");
            let _ = udp.send_to(b"?", (address, 5000));
        }
        assert!(sink.recv(&mut [0; 9]).is_err());
        assert!(!one.inside.pings(HOST), "only the gateway answers");
        assert!(!one.inside.pings(two.spec.network.gateway()));
        // The listener is there, for others.
        assert!(world.internet.reach((host_address, 22)).is_ok());

        assert!(one.inside.connect((two.address(), 80)).is_err());
        assert!(
            one.inside.reach((two.address(), 8080)).is_ok(),
            "an allowed port"
        );
        assert!(two.inside.connect((one.address(), 80)).is_err());
    });
}
