//! Speed of a rule-set change, and of packets through the rule set, with 1, 100 and 1,000 VMs
//! present; beside a rule set of one chain for each VM that is changed by one `nft` call for each
//! rule, after a listing of what is there, as the network's software does it today.
//!
//! `cargo build --release -p net --example bench_net`, then run it as root: it works inside network
//! namespaces of its own. It prints a fragment of Markdown. Each figure is the best of several
//! runs; packets go from one namespace through another to a third over veth pairs, 64 bytes of UDP
//! each, sent by one thread.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::needless_range_loop,
    reason = "a benchmark prints, and may stop"
)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::File,
    io::Write as _,
    net::UdpSocket,
    os::fd::AsFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use net::{AddressPlan, GuestIndex, GuestSpec, HostNet, HostSpec};

const RUNS: usize = 15;
const ROUNDS: usize = 9;
const PACKETS: usize = 10_000;
const TABLE: &str = "crn_bench";
const INTERNET: &str = "2001:db8:ffff::1";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = World::new();
    runtime.block_on(async {
        let (few, some, many) = (specs(1), specs(100), specs(1000));
        println!("### One rule-set change\n");
        println!("| change | VMs | crn-agent, ms | one `nft` call per rule, ms | ratio | with the listing before it, ms | ratio |");
        println!("|---|---|---|---|---|---|---|");
        for guests in [&few, &some, &many] {
            changes(guests).await;
        }
        println!("\n### A guest's network, tap and all\n");
        println!("| VMs | let in, ms | taken away, ms | compared, nothing to repair, ms |");
        println!("|---|---|---|---|");
        for guests in [&few, &some, &many] {
            whole(guests).await;
        }
        println!("\n### Packets through the host\n");
        println!("| packets | without rules, kpps | 1 VM, kpps | 1,000 VMs, kpps | 1,000 to 1 | rival, 1,000 VMs, kpps |");
        println!("|---|---|---|---|---|---|");
        packets(&world, &few, &many).await;
    });
}

fn specs(count: u32) -> Vec<GuestSpec> {
    let plan = AddressPlan::new(host().prefix).unwrap();
    let guest = |n: u32| {
        let id = format!("{:08x}00000000", n.wrapping_mul(0x9e37_79b9));
        let ports = ["22", "80", "443", "53/udp"].map(|p| p.parse().unwrap());
        let network = plan.assign(&id, |_| false).unwrap();
        GuestSpec::new(GuestIndex(n), &id, network, None, ports.into())
    };
    (0..count).map(guest).collect()
}

fn host() -> HostSpec {
    HostSpec {
        uplink: Some("up0".into()),
        // The bench's internet is a neighbour of the uplink, and those are closed to guests.
        allowed_private: vec![format!("{INTERNET}/128").parse().unwrap()],
        ..HostSpec::new(TABLE, "2001:db8:1::/64".parse().unwrap())
    }
}

/// The rival's rule set: chains for each VM, found by one rule after the other.
fn rival(guests: &[GuestSpec]) -> String {
    let mut text = String::from(
        "table inet rival {\nchain forward { type filter hook forward priority 0; policy drop;
        ct state established,related accept\n",
    );
    for g in guests {
        let _ = writeln!(text, "oifname \"{}\" jump vm{}", g.tap, g.index);
    }
    text.push_str("}\n");
    for g in guests {
        let _ = writeln!(text, "chain vm{} {{", g.index);
        for port in &g.ports {
            let _ = writeln!(text, "{} dport {} accept", port.proto(), port.first());
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}

async fn changes(guests: &[GuestSpec]) {
    run("nft flush ruleset");
    let host = HostNet::open(host()).await.unwrap();
    host.start(guests).await.unwrap();
    let guest = guests.last().unwrap();
    let mut open: BTreeSet<_> = guest.ports.clone();
    let mut ours = Vec::new();
    for n in 0..RUNS {
        open.insert(format!("{}", 10_000 + n * 2).parse().unwrap());
        let start = Instant::now();
        host.set_ports(guest, &open).await.unwrap();
        ours.push(start.elapsed());
    }
    let ours = ours.into_iter().min().unwrap();
    run("nft flush ruleset");
    nft(&rival(guests));
    let (mut one, mut listed) = (Vec::new(), Vec::new());
    for n in 0..RUNS {
        let rule = format!(
            "nft add rule inet rival vm{} tcp dport {} accept",
            guest.index,
            10_000 + n
        );
        let start = Instant::now();
        run(&rule);
        one.push(start.elapsed());
        let start = Instant::now();
        run("nft -j list ruleset");
        run(&rule);
        listed.push(start.elapsed());
    }
    let (one, listed) = (
        one.into_iter().min().unwrap(),
        listed.into_iter().min().unwrap(),
    );
    println!(
        "| open a port | {} | {:.3} | {:.2} | {:.0}x | {:.2} | {:.0}x |",
        guests.len(),
        ms(ours),
        ms(one),
        one.div_duration_f64(ours),
        ms(listed),
        listed.div_duration_f64(ours)
    );
}

async fn whole(guests: &[GuestSpec]) {
    run("nft flush ruleset");
    let host = HostNet::open(host()).await.unwrap();
    host.start(guests).await.unwrap();
    let mut taps = Vec::new();
    for guest in guests {
        taps.push(host.add_guest(guest).await.unwrap());
    }
    let last = guests.last().unwrap();
    let (mut into, mut away, mut same) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let start = Instant::now();
        host.remove_guest(last).await.unwrap();
        away.push(start.elapsed());
        taps.pop();
        let start = Instant::now();
        taps.push(host.add_guest(last).await.unwrap());
        into.push(start.elapsed());
        let start = Instant::now();
        assert!(host.reconcile(guests).await.unwrap().is_clean());
        same.push(start.elapsed());
    }
    let best = |times: Vec<Duration>| ms(times.into_iter().min().unwrap());
    println!(
        "| {} | {:.2} | {:.2} | {:.2} |",
        guests.len(),
        best(into),
        best(away),
        best(same)
    );
    for guest in guests {
        host.remove_guest(guest).await.unwrap();
    }
}

async fn packets(world: &World, few: &[GuestSpec], many: &[GuestSpec]) {
    // The guest whose "tap" is a veth pair; its rules are in both rule sets.
    world.guest(&few[0]);
    let address = few[0].network.guest();
    let sink = |world: &World, ns, port| {
        let socket = world.inside(ns, || UdpSocket::bind(("::", port)).unwrap());
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let (dns, web) = (sink(world, "guest", 53), sink(world, "inet", 9000));
    let from_inet = world.inside("inet", || UdpSocket::bind("[::]:4000").unwrap());
    let from_guest = world.inside("guest", || UdpSocket::bind("[::]:4000").unwrap());
    let internet: std::net::Ipv6Addr = INTERNET.parse().unwrap();
    let tests = [
        ("to an open port", &from_inet, (address, 53), Some(&dns)),
        ("from a guest", &from_guest, (internet, 9000), Some(&web)),
        ("to a closed port, dropped", &from_inet, (address, 54), None),
    ];
    let mut best = [[0f64; 4]; 3];
    for _ in 0..ROUNDS {
        for setup in 0..4 {
            run("nft flush ruleset");
            match setup {
                1 | 2 => {
                    let guests = if setup == 1 { few } else { many };
                    HostNet::open(host())
                        .await
                        .unwrap()
                        .start(guests)
                        .await
                        .unwrap();
                }
                3 => {
                    let mut last = many.to_vec();
                    // The order of rules is that of creation; this guest is in the middle.
                    last.swap(0, 500);
                    nft(&rival(&last).replace("policy drop", "policy accept"));
                }
                _ => {}
            }
            for (row, (_, from, to, sink)) in tests.iter().enumerate() {
                let rate = rate(from, *to, *sink);
                best[row][setup] = best[row][setup].max(rate);
            }
        }
    }
    for ((name, ..), [bare, one, thousand, rival]) in tests.iter().zip(best) {
        let ratio = thousand / one;
        println!("| {name} | {bare:.0} | {one:.0} | {thousand:.0} | {ratio:.2} | {rival:.0} |");
    }
}

/// Thousands of packets a second that arrive, or that are dealt with where none is to.
fn rate(from: &UdpSocket, to: (std::net::Ipv6Addr, u16), sink: Option<&UdpSocket>) -> f64 {
    let mut buffer = [0; 128];
    let mut take = || {
        let mut n = 0usize;
        while sink.is_some_and(|s| s.recv(&mut buffer).is_ok()) {
            n += 1;
        }
        n
    };
    take();
    let (mut arrived, start) = (0, Instant::now());
    for n in 0..PACKETS {
        let _ = from.send_to(&[0; 64], to);
        if n % 64 == 0 {
            arrived += take();
        }
    }
    let time = start.elapsed().as_secs_f64();
    arrived += take();
    if sink.is_some() {
        assert!(
            arrived > PACKETS / 2,
            "{arrived} of {PACKETS} packets arrive"
        );
    } else {
        arrived = PACKETS;
    }
    arrived as f64 / time / 1e3
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let done = Command::new(words[0])
        .args(&words[1..])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success(), "{command}");
}

fn nft(script: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// Namespaces: the internet, the host (where this thread is), and a guest.
struct World(u32);

impl World {
    fn new() -> Self {
        let this = Self(std::process::id());
        for end in ["inet", "host", "guest"] {
            run(&format!("ip netns add {}", this.name(end)));
            run(&format!("ip -n {} link set lo up", this.name(end)));
        }
        this.pair(
            "inet",
            "eth0",
            "up0",
            &[(INTERNET, 64)],
            &[("2001:db8:ffff::2", 64)],
        );
        run(&format!(
            "ip -n {} route add 2001:db8:1::/64 via 2001:db8:ffff::2",
            this.name("inet")
        ));
        this.enter("host");
        this
    }

    fn name(&self, end: &str) -> String {
        format!("crn-bench-{}-{end}", self.0)
    }

    fn pair(
        &self,
        end: &str,
        link: &str,
        host_link: &str,
        its: &[(&str, u8)],
        hosts: &[(&str, u8)],
    ) {
        let (end, host) = (self.name(end), self.name("host"));
        run(&format!(
            "ip -n {end} link add {link} type veth peer name {host_link} netns {host}"
        ));
        for (ns, link, addresses) in [(&end, link, its), (&host, host_link, hosts)] {
            run(&format!(
                "ip netns exec {ns} sysctl -q net.ipv6.conf.{link}.accept_dad=0"
            ));
            run(&format!("ip -n {ns} link set {link} up"));
            for (address, length) in addresses {
                run(&format!(
                    "ip -n {ns} addr add {address}/{length} dev {link} nodad"
                ));
            }
        }
    }

    fn guest(&self, guest: &GuestSpec) {
        let (address, gateway) = (
            guest.network.guest().to_string(),
            guest.network.gateway().to_string(),
        );
        self.pair(
            "guest",
            "eth0",
            guest.tap.as_str(),
            &[(&address, 124)],
            &[(&gateway, 124)],
        );
        let ns = self.name("guest");
        run(&format!("ip -n {ns} link set eth0 address {}", guest.mac));
        run(&format!("ip -n {ns} -6 route add default via {gateway}"));
    }

    fn enter(&self, end: &str) {
        let file = File::open(format!("/run/netns/{}", self.name(end))).unwrap();
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
    }

    fn inside<T: Send>(&self, end: &str, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter(end);
                    work()
                })
                .join()
                .unwrap()
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for end in ["inet", "host", "guest"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(end)])
                .status();
        }
    }
}
