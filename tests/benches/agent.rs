//! What the agent itself costs: time from the API call to a running QEMU beyond
//! QEMU's own start, memory, and the time to adopt running virtual machines.
//!
//! `CRN_TEST_AGENT=target/release/crn-agent cargo bench -p tests --bench agent`, as
//! root: it works in a network namespace of its own. It prints a fragment of Markdown. Guests are the tests'
//! boot sector, which rests between clock ticks, with 64 MiB each, under TCG.
//!
//! QEMU's own start is that of the same command line with the same descriptors,
//! without the agent: from its execution to the monitor's answer.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark prints, and may stop"
)]

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt, FdMapping};
use crn_agent::testing::{
    client::Lines,
    qemu::{
        confine::Confinement,
        plan::{
            Accelerator, Boot, DiskFormat, FdSource, Launch, LaunchPlan, Open, Protection, plan,
            socket,
        },
    },
};
use crn_api_types::{InstanceView, Phase};
use disk::{BaseRef, ByteSize, Format, OverlaySpec, create_overlay};
use hyper::Method;
use qmp::Qmp;
use serde_json::json;
use testbed::{boot_sector, network, proc};
use tests::harness::bare::{Agent, Host, PATIENCE};
use tokio::time::sleep;

const RUNS: usize = 15;
const MANY: usize = 50;

fn main() {
    network::alone(async || {
        start().await;
        crowd().await;
    });
}

/// One create at a time, each beside a start of QEMU alone.
async fn start() {
    let (host, agent) = Host::with_agent().await;
    let alone = Alone::new();
    let (mut ours, mut qemus, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        qemus.push(alone.start().await);
        flushes.push(flush(&host.path("flush")));
        let name = format!("web-{run}");
        let mut events = events(&agent).await;
        let began = Instant::now();
        agent.create(&name, json!({})).await.unwrap();
        // Told, not asked: questions would cost the time that is measured.
        until_running(&mut events).await;
        ours.push(began.elapsed());
        agent.delete(&name).await.unwrap();
        agent.gone(&name).await;
    }
    drop(host);
    let (ours, qemus, flushes) = (Spread::of(ours), Spread::of(qemus), Spread::of(flushes));
    println!("### From the API call to a running QEMU\n");
    println!("| | median, ms | least, ms |");
    println!("|---|---|---|");
    println!(
        "| create by the API, to the phase `running` | {:.0} | {:.0} |",
        ours.median, ours.least
    );
    println!(
        "| QEMU alone, to its monitor's answer | {:.0} | {:.0} |",
        qemus.median, qemus.least
    );
    println!(
        "| the agent's own part (aim: below 50 ms) | {:.0} | {:.0} |",
        ours.median - qemus.median,
        ours.least - qemus.least
    );
    println!(
        "| one flush to the disk that it is on record on (fsync of 4 KiB; a create has some 13) | \
         {:.1} | {:.1} |\n",
        flushes.median, flushes.least
    );
}

/// How long the disk takes to have a block for good.
fn flush(path: &Path) -> Duration {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(&[1; 4096]).unwrap();
    let began = Instant::now();
    file.sync_all().unwrap();
    began.elapsed()
}

async fn events(agent: &Agent) -> Lines {
    let body = None::<&serde_json::Value>;
    let events = agent.client.lines(Method::GET, "/v1/events", body);
    events.await.unwrap()
}

async fn until_running(events: &mut Lines) {
    let heard = async {
        while let Some(line) = events.next().await.unwrap() {
            if line.contains(r#""phase":"running""#) {
                return;
            }
        }
        panic!("the agent ended");
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
}

/// Milliseconds.
struct Spread {
    median: f64,
    least: f64,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let ms = |t: Duration| t.as_secs_f64() * 1e3;
        Self {
            median: ms(times[times.len() / 2]),
            least: ms(times[0]),
        }
    }
}

/// A QEMU with the agent's own command line and no agent.
struct Alone {
    dir: tempfile::TempDir,
    tap: OwnedFd,
    plan: LaunchPlan,
}

/// A tap in a network of its own: the agent would take it for a left-over.
fn tap() -> OwnedFd {
    let (send, receive) = std::sync::mpsc::channel();
    network::alone(async move || send.send(network::tap().await).unwrap());
    receive.recv().unwrap()
}

impl Alone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let base = path("base.raw");
        boot_sector::write_disk(&base);
        let base_ref = BaseRef {
            path: base.clone(),
            format: Format::Raw,
            virtual_size: ByteSize::from_mib(1),
        };
        let root = path("root.qcow2");
        create_overlay(&root, &OverlaySpec::new(base_ref, ByteSize::from_mib(64))).unwrap();
        fs::write(path("seed.iso"), [0; 64 << 10]).unwrap();
        let id = "ab".repeat(32);
        let plan = plan(&Launch {
            binary: "/usr/bin/qemu-system-x86_64".into(),
            marker: format!("crn:{:016x}:{id}", std::process::id()),
            uuid: "abababab-abab-abab-abab-abababababab".into(),
            vcpus: 1,
            memory_mib: 64,
            machine: "q35".into(),
            protection: Protection::None(Open {
                accel: Accelerator::Tcg,
                cpu: "max".into(),
                nested: false,
                boot: Boot::Bios,
                seed: Some(path("seed.iso")),
            }),
            root,
            base: (base, DiskFormat::Raw),
            watchdog: false,
            volumes: Vec::new(),
            mac: "02:ab:00:00:ff:00".into(),
            mtu: 1500,
            run_dir: dir.path().to_owned(),
            console_log: Some(path("console.log")),
            uid: 0,
            isolate_network: false,
            cgroup_procs: None,
            largest_file: None,
            confinement: Confinement::default(),
        });
        Self {
            dir,
            tap: tap(),
            plan,
        }
    }

    /// How long QEMU takes until its monitor has answered.
    async fn start(&self) -> Duration {
        let open = |source: &FdSource| -> Option<OwnedFd> {
            let mut options = OpenOptions::new();
            Some(match source {
                FdSource::ReadOnly(path) => options.read(true).open(path).unwrap().into(),
                FdSource::ReadWrite(path) => {
                    options.read(true).write(true).open(path).unwrap().into()
                }
                FdSource::Append(path) => {
                    options.append(true).create(true).open(path).unwrap().into()
                }
                FdSource::Listen(path) => {
                    let _ = fs::remove_file(path);
                    UnixListener::bind(path).unwrap().into()
                }
                FdSource::Tap => return None,
            })
        };
        let mappings = self.plan.fds.iter().map(|fd| FdMapping {
            parent_fd: open(&fd.source).unwrap_or_else(|| self.tap.try_clone().unwrap()),
            child_fd: fd.number,
        });
        let mappings = mappings.collect();
        let mut command = Command::new(&self.plan.binary);
        command
            .args(&self.plan.args)
            .stdin(Stdio::null())
            .fd_mappings(mappings)
            .unwrap();
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        let path = self.dir.path().join(socket::QMP);
        let answered = Qmp::connect(&path, &qmp::Config::default()).await;
        let took = began.elapsed();
        let (qmp, _events) = answered.unwrap();
        qmp.quit().await.unwrap();
        child.wait().unwrap();
        took
    }
}

/// Fifty at once: memory, and an agent that comes back to them.
async fn crowd() {
    let (host, agent) = Host::with_agent().await;
    let empty = memory(&agent);
    let names: Vec<_> = (0..MANY).map(|n| format!("web-{n}")).collect();
    let began = Instant::now();
    let requests = names.iter().map(|n| agent.create(n, json!({})));
    for created in futures::future::join_all(requests).await {
        created.unwrap();
    }
    all_run(&agent).await;
    let created = began.elapsed();
    // Their firmware is at its end, and they rest.
    for name in &names {
        host.console(&agent.show(name).await.unwrap()).uptime();
    }
    let full = memory(&agent);
    let before = host.machines();
    let mut adoptions = Vec::new();
    let mut agent = agent;
    for _ in 0..5 {
        agent.kill();
        let began = Instant::now();
        agent = host.start().await;
        all_run(&agent).await;
        connected(&agent).await;
        adoptions.push(began.elapsed());
        assert_eq!(host.machines(), before, "all are the same as before");
    }
    let returned = memory(&agent);
    let adoption = Spread::of(adoptions);
    println!("### {MANY} virtual machines\n");
    println!("| | | aim |");
    println!("|---|---|---|");
    println!(
        "| created at once, all running after | {:.1} s | |",
        created.as_secs_f64()
    );
    println!("| resident memory without instances | {empty:.1} MiB | |");
    println!("| resident memory with {MANY} that it started | {full:.1} MiB | below 30 MiB |");
    println!("| resident memory with {MANY} that it adopted | {returned:.1} MiB | below 30 MiB |");
    println!(
        "| killed and started: all {MANY} adopted, their monitors connected, median | {:.0} ms | \
         below 1,000 ms |",
        adoption.median
    );
}

async fn all_run(agent: &Agent) {
    let began = Instant::now();
    loop {
        let all: Vec<InstanceView> = agent.client.get("/v1/instances").await.unwrap();
        let running = |v: &&InstanceView| v.phase == Phase::Running && v.pid.is_some();
        if all.iter().filter(running).count() == MANY {
            return;
        }
        assert!(began.elapsed() < 4 * PATIENCE, "{}", agent.words());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the agent has a connection to each QEMU.
async fn connected(agent: &Agent) {
    let began = Instant::now();
    loop {
        let open = proc::descriptors(agent.pid());
        let sockets = open.values().filter(|t| t.starts_with("socket:")).count();
        if sockets >= MANY {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{}", agent.words());
        sleep(Duration::from_millis(2)).await;
    }
}

/// Resident memory, MiB.
fn memory(agent: &Agent) -> f64 {
    let text = proc::status(agent.pid())["VmRSS"].clone();
    let kib: f64 = text.trim_end_matches(" kB").parse().unwrap();
    kib / 1024.0
}
