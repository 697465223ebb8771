//! A small internet of network namespaces: a client, the host, and guests whose kernel is the real
//! one, each behind a tap that the crate made. All is gone when the test ends.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test uses a part of it"
)]

pub mod packet;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use net::{GuestIndex, GuestSpec, HostNet, HostSpec, TapName};
use rustix::event::{PollFd, PollFlags, poll};

pub const PREFIX: &str = "2001:db8:1::/64";
pub const INTERNET: &str = "2001:db8:ffff::1";
pub const HOST: &str = "2001:db8:ffff::2";
pub const INTERNET4: &str = "198.51.100.1";
pub const HOST4: &str = "198.51.100.2";
/// How long something that must not come is waited for.
pub const SILENCE: Duration = Duration::from_millis(300);
/// How long something that must come is.
pub const PATIENCE: Duration = Duration::from_secs(5);

static COUNT: AtomicU32 = AtomicU32::new(0);
/// A network namespace.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    pub fn new(what: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network tests need root"
        );
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let this = Self(format!("crn-net-{}-{n}-{what}", std::process::id()));
        sh(&["ip", "netns", "add", &this.0]);
        this.ip("link set lo up");
        // Nobody else has the addresses: no wait for duplicates.
        this.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
        this
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// `ip` in it.
    pub fn ip(&self, args: &str) -> String {
        let words: Vec<_> = ["ip", "-n", &self.0]
            .into_iter()
            .chain(args.split(' '))
            .collect();
        sh(&words)
    }

    /// Any program in it.
    pub fn sh(&self, script: &str) -> String {
        sh(&["ip", "netns", "exec", &self.0, "sh", "-c", script])
    }

    pub fn enter(&self) {
        let file = File::open(PathBuf::from("/run/netns").join(&self.0)).unwrap();
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
    }

    /// Does something in it: what sockets it opens stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                self.enter();
                work()
            };
            scope.spawn(inside).join().unwrap()
        })
    }

    pub fn listen(&self, address: &str) -> TcpListener {
        self.run(|| TcpListener::bind(address).unwrap())
    }

    /// Connects, or tells after a moment that there is no answer.
    pub fn connect(&self, address: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let address = address.into();
        self.run(|| TcpStream::connect_timeout(&address, SILENCE))
    }

    /// Connects, with patience for a busy machine.
    pub fn reach(&self, address: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let address = address.into();
        self.run(|| TcpStream::connect_timeout(&address, PATIENCE))
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket
    }

    /// A socket that gets every ICMPv6 message that the namespace's own stack gets.
    pub fn icmp6(&self) -> OwnedFd {
        use rustix::net::{AddressFamily, Protocol, SocketType, socket, sockopt};
        let raw = || {
            let icmp6 = Protocol::from_raw(58.try_into().unwrap());
            let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(icmp6)).unwrap();
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(SILENCE)).unwrap();
            socket
        };
        self.run(raw)
    }

    /// Sends a frame of a test's own making on a link.
    pub fn send_frame(&self, link: &str, frame: &[u8]) {
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        let program = format!(
            "import socket; s=socket.socket(socket.AF_PACKET, socket.SOCK_RAW); \
             s.bind(('{link}', 0)); s.send(bytes.fromhex('{hex}'))"
        );
        sh(&[
            "ip",
            "netns",
            "exec",
            &self.0,
            "/usr/bin/python3",
            "-c",
            &program,
        ]);
    }

    /// The largest segment, in bytes, that this side of a connection sends.
    pub fn largest_segment(&self, port: u16) -> u32 {
        let list = self.sh(&format!("ss -tinH sport = :{port}"));
        let mss = list.split_whitespace().find_map(|w| w.strip_prefix("mss:"));
        assert!(mss.is_some(), "no connection: {list}");
        mss.unwrap_or_default().parse().unwrap()
    }

    pub fn pings(&self, address: impl ToString) -> bool {
        let script = format!("ping -6 -n -c 1 -W 1 {} >/dev/null", address.to_string());
        let args = ["netns", "exec", &self.0, "sh", "-c", &script];
        Command::new("ip").args(args).status().unwrap().success()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.0])
            .stderr(Stdio::null())
            .status();
    }
}

/// The next message of a raw socket of this type, if one comes.
pub fn next_icmp6(socket: &OwnedFd, kind: u8) -> Option<Vec<u8>> {
    for _ in 0..100 {
        let mut buffer = [0; 2048];
        let (n, _) =
            rustix::net::recv(socket, &mut buffer[..], rustix::net::RecvFlags::empty()).ok()?;
        if buffer[0] == kind {
            return Some(buffer[..n].to_vec());
        }
    }
    None
}

pub fn sh(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The internet and the host. The test itself runs in the host's namespace.
#[derive(Debug)]
pub struct World {
    pub internet: Namespace,
    pub host: Namespace,
}

/// So that a test that uses one part does not drop the other before its end: closures take what
/// they use.
impl Drop for World {
    fn drop(&mut self) {}
}

impl World {
    /// Runs a test in a world of its own. The prefix is routed to the host.
    pub fn run<F: Future<Output = ()>>(test: impl FnOnce(Self) -> F + Send + 'static) {
        let inside = || {
            let (internet, host) = (Namespace::new("inet"), Namespace::new("host"));
            internet.ip(&format!(
                "link add eth0 type veth peer name eth0 netns {}",
                host.0
            ));
            for (namespace, v6, v4) in [(&internet, INTERNET, INTERNET4), (&host, HOST, HOST4)] {
                namespace.ip("link set eth0 up");
                namespace.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
                namespace.ip(&format!("addr add {v4}/24 dev eth0"));
            }
            internet.ip(&format!("route add {PREFIX} via {HOST}"));
            host.ip(&format!("-6 route add default via {INTERNET}"));
            host.ip(&format!("route add default via {INTERNET4}"));
            host.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(test(Self { internet, host }));
        };
        let done = thread::spawn(inside).join();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    }

    pub fn spec() -> HostSpec {
        HostSpec::new("crn_test", PREFIX.parse().unwrap())
    }

    /// The host with its firewall up.
    pub async fn start(spec: HostSpec) -> HostNet {
        let host = HostNet::open(spec).await.unwrap();
        host.start(&[]).await.unwrap();
        host
    }
}

pub fn ports(list: &[&str]) -> BTreeSet<net::PortRule> {
    list.iter().map(|p| p.parse().unwrap()).collect()
}

pub fn guest_spec(host: &HostSpec, index: u32, open: &[&str]) -> GuestSpec {
    let id = format!("{index:02x}deadbeefcafe00");
    let plan = net::AddressPlan::new(host.prefix).unwrap();
    let network = plan.assign(&id, |_| false).unwrap();
    GuestSpec::new(
        GuestIndex(index),
        &id,
        network,
        host.ipv4.as_ref(),
        ports(open),
    )
}

/// A guest: a namespace with a kernel's own stack, wired to the tap that QEMU would have.
#[derive(Debug)]
pub struct Guest {
    pub spec: GuestSpec,
    pub inside: Namespace,
    /// The guest's end of its tap: what is written comes to the host.
    wire: Arc<File>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    /// Lets a guest in and boots it.
    pub async fn boot(host: &HostNet, spec: &GuestSpec) -> Self {
        Self::wire(spec, host.add_guest(spec).await.unwrap())
    }

    pub fn wire(spec: &GuestSpec, tap: OwnedFd) -> Self {
        let inside = Namespace::new(&format!("vm{}", spec.index));
        let end = inside.run(|| net::testing::create_tap(&TapName::new(GuestIndex(0))).unwrap());
        inside.ip("link set vmtap0 name eth0");
        inside.ip(&format!("link set eth0 address {}", spec.mac));
        inside.ip("link set eth0 up");
        inside.ip(&format!(
            "addr add {}/124 dev eth0 nodad",
            spec.network.guest()
        ));
        inside.ip(&format!(
            "-6 route add default via {}",
            spec.network.gateway()
        ));
        if let Some(v4) = spec.ipv4 {
            inside.ip(&format!("addr add {}/24 dev eth0", v4.guest));
            inside.ip(&format!("route add default via {}", v4.gateway));
        }
        let wire = Arc::new(File::from(tap));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (wire, stop, end) = (Arc::clone(&wire), Arc::clone(&stop), File::from(end));
            thread::spawn(move || copy(&wire, &end, &stop))
        };
        Self {
            spec: spec.clone(),
            inside,
            wire,
            stop,
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> Ipv6Addr {
        self.spec.network.guest()
    }

    /// A copy of what QEMU holds.
    pub fn descriptor(&self) -> OwnedFd {
        self.wire.as_fd().try_clone_to_owned().unwrap()
    }

    /// The guest sends a frame of its own making.
    pub fn send(&self, frame: &[u8]) {
        // An empty header for virtio's offloads comes first.
        let bytes = [&[0; 10], frame].concat();
        (&*self.wire).write_all(&bytes).unwrap();
    }

    /// As when QEMU ends: the tap goes.
    pub fn kill(mut self) -> Namespace {
        self.unplug();
        let mut this = std::mem::ManuallyDrop::new(self);
        let name = std::mem::take(&mut this.inside.0);
        this.wire = Arc::new(File::open("/dev/null").unwrap());
        Namespace(name)
    }

    fn unplug(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// Carries frames between two taps until told to stop, or one is gone.
fn copy(one: &File, other: &File, stop: &AtomicBool) {
    let mut buffer = vec![0; 70_000];
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [
            PollFd::new(one, PollFlags::IN),
            PollFd::new(other, PollFlags::IN),
        ];
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        if poll(&mut fds, Some(&timeout)).is_err() {
            continue;
        }
        let ready = fds.each_ref().map(|fd| fd.revents());
        for (ready, (mut from, mut to)) in ready.into_iter().zip([(one, other), (other, one)]) {
            if ready.contains(PollFlags::IN) {
                let Ok(n) = from.read(&mut buffer) else {
                    return;
                };
                // A link that is down takes nothing.
                let _ = to.write(&buffer[..n]);
            } else if !ready.is_empty() {
                return;
            }
        }
    }
}
