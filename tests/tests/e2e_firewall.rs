//! The firewall as outsiders, guests and the host see it, with small guests that do what they are
//! told, good or evil. Each evil act has a harmless twin that gets through: silence alone proves
//! nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::harness::{
    Agent, BOOT_PATIENCE, Frame, Host, MacAddress, Namespace, PATIENCE, Tiny, Uplink, images, run,
    wait_for,
};

/// Long enough for a packet that comes at all.
const SILENCE: Duration = Duration::from_secs(2);

fn create(agent: &Agent<'_>, name: &str, ports: &str) -> Value {
    let ports = ["--allowed-ports", ports];
    agent.create(name, "tiny:1", &ports).unwrap()
}

fn with_images(host: &Host) -> Agent<'_> {
    let image = images::tiny(|line| println!("{line}")).unwrap();
    let agent = Agent::start(host, &[]).unwrap();
    agent.import("tiny:1", &image).unwrap();
    agent
}

fn tiny(host: &Host, view: &Value) -> Tiny {
    Tiny::connect(
        host.internet(),
        view["ipv6"].as_str().unwrap(),
        BOOT_PATIENCE,
    )
    .unwrap()
}

fn mac(text: &str) -> MacAddress {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|b| u8::from_str_radix(b, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

/// A TCP connection from a namespace, if one comes about.
fn connect(from: &Namespace, to: Ipv6Addr, port: u16) -> Option<TcpStream> {
    let to = SocketAddr::from((to, port));
    from.enter(move || Ok(TcpStream::connect_timeout(&to, SILENCE).ok()))
        .unwrap()
}

fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    namespace
        .enter(move || Ok(TcpListener::bind(("::", port))?))
        .unwrap()
}

/// A UDP port and what arrives at it.
struct Ear(UdpSocket);

impl Ear {
    fn open(namespace: &Namespace, port: u16) -> Self {
        let socket = namespace
            .enter(move || Ok(UdpSocket::bind(("::", port))?))
            .unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        Self(socket)
    }

    fn hears(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 1500];
        match self.0.recv(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn ports_open_and_close_under_established_connections() {
    // Guests' addresses are on the cable: the host answers for them.
    let host = Host::new(Uplink::OnLink).unwrap();
    let mut agent = with_images(&host);
    let view = create(&agent, "a", "22");
    let mut a = tiny(&host, &view);
    let internet = host.internet().namespace();
    a.tell("listen 80").unwrap();

    let ping = |to: Ipv6Addr| {
        run(internet
            .net_command("ping")
            .args(["-c1", "-W5"])
            .arg(to.to_string()))
    };
    ping(a.address()).unwrap();
    assert!(
        connect(internet, a.address(), 80).is_none(),
        "80 is open to everybody"
    );

    agent
        .cli(&["instance", "firewall", "a", "--allow", "80"])
        .unwrap();
    let mut stream = connect(internet, a.address(), 80).expect("80 was opened");
    let mut echo = |word: &[u8]| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(word).unwrap();
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, word);
    };
    echo(b"opened");

    agent
        .cli(&["instance", "firewall", "a", "--deny", "80"])
        .unwrap();
    assert!(
        connect(internet, a.address(), 80).is_none(),
        "80 stays open"
    );
    echo(b"established");
    a.tell("uptime").unwrap();
    let ports = &agent.show("a").unwrap()["ports"];
    assert_eq!(ports.as_array().unwrap().len(), 1, "{ports}");

    // A restart of the agent does not touch it either.
    agent.kill().unwrap();
    echo(b"without the agent");
    assert!(
        connect(internet, a.address(), 80).is_none(),
        "80 opened when the agent died"
    );
    agent.restart().unwrap();
    echo(b"after its restart");
    assert!(connect(internet, a.address(), 80).is_none());

    flushed_rules_come_back(&host, &agent, a.address());
    echo(b"after a flush");
}

/// Somebody flushes all rules: ours come back, the others' are left alone.
fn flushed_rules_come_back(host: &Host, agent: &Agent<'_>, guest: Ipv6Addr) {
    let nft = |words: &[&str]| run(host.namespace().net_command("nft").args(words));
    nft(&["flush", "ruleset"]).unwrap();
    nft(&["add", "table", "inet", "theirs"]).unwrap();
    let internet = host.internet().namespace();
    wait_for("the rules", PATIENCE, || {
        Ok(connect(internet, guest, 80).is_none().then_some(()))
    })
    .unwrap();
    assert!(connect(internet, guest, 22).is_some(), "22 was forgotten");
    let tables = nft(&["list", "tables"]).unwrap();
    assert!(tables.contains("inet theirs"), "{tables}");
    assert!(agent.log().contains("repair"), "it is told");
}

#[test]
fn a_hostile_guest_gets_nowhere() {
    let host = Host::new(Uplink::Routed).unwrap();
    let mut agent = with_images(&host);
    let (view_a, view_b) = (create(&agent, "a", "22"), create(&agent, "b", "22"));
    let mut a = tiny(&host, &view_a);
    let mut b = tiny(&host, &view_b);
    let own = mac(&a.tell("mac").unwrap());
    let router = router_mac(&host, &mut a);
    let tap = tap_of(&host, a.address());
    let internet = host.internet();

    // Outward is free.
    let _listener = listen(internet.namespace(), 4001);
    assert_eq!(a.probe(internet.address(), 4001).unwrap(), "open");

    // The host's own services: reachable from the internet, if the operator says so, not from guests.
    let _service = listen(host.namespace(), 4002);
    assert!(connect(internet.namespace(), host.address(), 4002).is_some());
    assert_ne!(
        a.probe(host.address(), 4002).unwrap(),
        "open",
        "a guest reaches the host"
    );
    let gateway: Ipv6Addr = view_a["ipv6_network"]
        .as_str()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_ne!(
        a.probe(gateway, 4002).unwrap(),
        "open",
        "a guest reaches the host by its gateway"
    );

    // Other guests: through allowed ports only.
    b.tell("listen 8080").unwrap();
    assert_eq!(a.probe(b.address(), 22).unwrap(), "open");
    assert_ne!(
        a.probe(b.address(), 8080).unwrap(),
        "open",
        "a guest reaches another one"
    );
    agent
        .cli(&["instance", "firewall", "b", "--allow", "8080"])
        .unwrap();
    assert_eq!(a.probe(b.address(), 8080).unwrap(), "open");

    spoofed_sources(&host, &mut a, b.address(), own, router);
    dhcp_server(&host, &mut a, own, router);
    router_advertisement(&host, &mut agent, (&mut a, &mut b), own, &tap);
}

/// The host's MAC address as the guest sees it: who sends the frames of this very session.
fn router_mac(host: &Host, a: &mut Tiny) -> MacAddress {
    a.begin("capture 1500").unwrap();
    thread::sleep(Duration::from_millis(500));
    let mut other = Tiny::connect(host.internet(), &a.address().to_string(), PATIENCE).unwrap();
    other.tell("uptime").unwrap();
    let frames = a.end("capture").unwrap();
    let first = frames
        .split(' ')
        .next()
        .filter(|f| !f.is_empty())
        .expect("no frame came");
    let bytes: Vec<u8> = (12..24)
        .step_by(2)
        .map(|i| u8::from_str_radix(&first[i..i + 2], 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

/// The tap that the host routes a guest's address to.
fn tap_of(host: &Host, guest: Ipv6Addr) -> String {
    let route = run(host
        .namespace()
        .net_command("ip")
        .args(["-6", "route", "get"])
        .arg(guest.to_string()));
    let route = route.unwrap();
    let mut words = route.split_whitespace().skip_while(|w| *w != "dev").skip(1);
    words
        .next()
        .unwrap_or_else(|| panic!("no device: {route}"))
        .to_owned()
}

fn spoofed_sources(
    host: &Host,
    a: &mut Tiny,
    other: Ipv6Addr,
    own: MacAddress,
    router: MacAddress,
) {
    let internet = host.internet();
    let ear = Ear::open(internet.namespace(), 4003);
    let own_ip = a.address();
    let mut send = |mac: MacAddress, ip: Ipv6Addr, word: &[u8]| {
        let frame = Frame::udp((mac, router), (ip, internet.address()), (4003, 4003), word);
        a.send(&frame).unwrap();
    };
    let mut forged_mac = own;
    forged_mac[5] ^= 1;
    for (what, mac, ip) in [
        ("another guest's address", own, other),
        (
            "an unused address of the prefix",
            own,
            "2001:db8:1::dead".parse().unwrap(),
        ),
        (
            "an address of the internet",
            own,
            "2001:db8:ffff::77".parse().unwrap(),
        ),
        ("the host's address", own, host.address()),
        ("the unspecified address", own, Ipv6Addr::UNSPECIFIED),
        ("another MAC address", forged_mac, own_ip),
    ] {
        send(mac, ip, what.as_bytes());
        assert_eq!(ear.hears(), None, "{what} got through");
    }
    // The way was open all the time.
    send(own, own_ip, b"honest");
    assert_eq!(ear.hears().as_deref(), Some(b"honest".as_slice()));
}

fn dhcp_server(host: &Host, a: &mut Tiny, own: MacAddress, router: MacAddress) {
    let internet = host.internet();
    let ear = Ear::open(internet.namespace(), 546);
    for (port, arrives) in [(5470, true), (547, false)] {
        let ips = (a.address(), internet.address());
        a.send(&Frame::udp((own, router), ips, (port, 546), b"advertise"))
            .unwrap();
        assert_eq!(ear.hears().is_some(), arrives, "from port {port}");
    }
}

/// A host that would believe router advertisements on the guest's tap gets none.
fn router_advertisement(
    host: &Host,
    agent: &mut Agent<'_>,
    (a, b): (&mut Tiny, &mut Tiny),
    own: MacAddress,
    tap: &str,
) {
    let conf = format!("/proc/sys/net/ipv6/conf/{tap}");
    let script = format!(
        "cd {conf} && echo 2 >accept_ra && echo 1 >accept_ra_pinfo && echo 1 >accept_ra_defrtr"
    );
    run(host.namespace().command("sh").args(["-c", &script])).unwrap();
    let believed = || {
        let mut ip = host.namespace().net_command("ip");
        let routes = run(ip.args(["-6", "route", "show", "dev", tap])).unwrap();
        routes.contains("2001:db8:bad::") || routes.contains("proto ra")
    };
    let frame =
        Frame::router_advertisement((own, link_local(own)), "2001:db8:bad::".parse().unwrap());
    b.begin("capture 2500").unwrap();
    a.send(&frame).unwrap();
    let heard = b.end("capture").unwrap();
    assert!(
        !believed(),
        "the host believes a guest's router advertisement"
    );
    assert!(!heard.contains("20010db80bad"), "another guest hears it");

    // Without the rules (and the agent, which would bring them back) the very same frame is believed.
    agent.kill().unwrap();
    run(host
        .namespace()
        .net_command("nft")
        .args(["flush", "ruleset"]))
    .unwrap();
    a.send(&frame).unwrap();
    wait_for("the advertised route", PATIENCE, || {
        Ok(believed().then_some(()))
    })
    .unwrap();
    agent.restart().unwrap();
}

/// The link-local address that a MAC address makes (RFC 4291, appendix A).
fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}
