//! A host with an agent and no internet: the real program, in the network of its test
//! ([`testbed::network::alone`]), with state and run directories of its own. The test speaks
//! to the API with the typed client, sees QEMU's processes as they are numbered here, and
//! can have the agent die at a fault point.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::new_without_default,
    reason = "helpers of tests fail the test"
)]

mod agent;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crn_agent::testing::{
    cgroup::Cgroups,
    client::Client,
    config::Config,
    paths::Paths,
    qemu::{plan::socket, process},
};
use crn_api_types::InstanceView;
use rustix::process::Signal;
use serde_json::Value;
use testbed::{
    boot_sector::{self, Console},
    proc::kill,
};
use tokio::time::sleep;

pub use self::agent::Agent;
use super::agent::program;

/// Much longer than anything takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The image that all instances are layered over.
pub const IMAGE: &str = "tiny:1";

/// A process's identity: pid, and when it started.
pub type Identity = (i32, u64);

/// A host; its virtual machines are killed at the end.
pub struct Host {
    dir: tempfile::TempDir,
    config: Config,
    starts: AtomicUsize,
    /// A file system of this host's own.
    mounted: Option<String>,
}

impl Host {
    /// A host on which no agent has run yet.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        boot_sector::write_disk(&dir.path().join("tiny.raw"));
        let config = Config {
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            ..Config::default()
        };
        Self {
            dir,
            config,
            starts: AtomicUsize::new(0),
            mounted: None,
        }
    }

    /// A host with an agent that has the image.
    pub async fn with_agent() -> (Self, Agent) {
        let host = Self::new();
        let agent = host.start().await;
        host.import();
        (host, agent)
    }

    /// Gives the agent the image.
    pub fn import(&self) {
        let image = self.path("tiny.raw");
        self.cli(&["image", "import", IMAGE, &image.display().to_string()])
            .expect("the image is taken");
    }

    /// The same, its instances' directories on a small file system of their own.
    pub async fn with_little_room() -> (Self, Agent, InstanceView) {
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNS).expect("root may make mounts of its own");
        run("mount", &["--make-rprivate", "/"]);
        let mut host = Self::new();
        let instances = Paths::new(&host.config).instances();
        fs::create_dir_all(&instances).unwrap();
        let target = instances.display().to_string();
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", &target],
        );
        host.mounted = Some(target);
        let agent = host.start().await;
        host.import();
        let view = agent.running("web").await;
        (host, agent, view)
    }

    /// A host with an agent and a running guest, `web`.
    pub async fn with_guest() -> (Self, Agent, InstanceView) {
        let (host, agent) = Self::with_agent().await;
        let view = agent.running("web").await;
        (host, agent, view)
    }

    /// A path beside the agent's directories.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The agent's state directory.
    pub fn state(&self) -> &Path {
        &self.config.state_dir
    }

    /// The agent's run directory.
    pub fn run(&self) -> &Path {
        &self.config.run_dir
    }

    /// What marks this node's processes.
    pub fn mark(&self) -> String {
        Paths::new(&self.config).node_mark()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program().unwrap());
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The agent's program as it is started, its output going to a new log.
    fn serve(&self, point: Option<&str>) -> (Command, PathBuf) {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.path(&format!("agent-{number}.log"));
        let file = fs::File::create(&log).unwrap();
        let mut command = self.command();
        command.arg("serve");
        let (state, run) = (&self.config.state_dir, &self.config.run_dir);
        let late = self.path("late.qcow2");
        for setting in [
            format!("state_dir={}", state.display()),
            format!("run_dir={}", run.display()),
            "network.prefix=2001:db8::/64".into(),
            "qemu.accel=tcg".into(),
            "stop.power_button_seconds=40".into(),
            "stop.quit_seconds=4".into(),
            "limits.vcpus=1000".into(),
            format!(
                "images.catalogue=[{{name='late:1',url='file://{}'}}]",
                late.display()
            ),
        ] {
            command.arg("--set").arg(setting);
        }
        if let Some(point) = point {
            command.env("CRN_FAULT_POINT", point);
        }
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        (command, log)
    }

    /// Starts the agent and waits until it serves.
    pub async fn start(&self) -> Agent {
        self.start_at(None).await
    }

    /// Starts the agent so that it dies at a fault point.
    pub async fn start_armed(&self, point: &str) -> Agent {
        self.start_at(Some(point)).await
    }

    async fn start_at(&self, point: Option<&str>) -> Agent {
        let (mut command, log) = self.serve(point);
        let child = command.spawn().unwrap();
        let mut agent = Agent::new(child, Client::new(&self.config.socket()), log);
        let end = Instant::now() + PATIENCE;
        while agent.client.get::<Value>("/v1/status").await.is_err() {
            let gone = agent.has_ended();
            assert!(gone.is_none(), "{gone:?}: {}", agent.words());
            assert!(Instant::now() < end, "not ready: {}", agent.words());
            sleep(Duration::from_millis(10)).await;
        }
        agent
    }

    /// Starts the agent though it should refuse; how it ended, and its words.
    pub fn start_in_vain(&self) -> (ExitStatus, String) {
        let (mut command, log) = self.serve(None);
        let status = command.status().unwrap();
        (status, fs::read_to_string(log).unwrap())
    }

    /// Runs a command of the command line; its output, or its complaint.
    pub fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command();
        command.arg("--socket").arg(self.config.socket());
        let output = command.args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// The kinds of all events so far, with what they are about.
    pub fn events(&self) -> Vec<Value> {
        let text = self.cli(&["--json", "events", "-n", "1000"]).unwrap();
        let lines = text.lines().filter_map(|l| serde_json::from_str(l).ok());
        lines.collect()
    }

    /// Every QEMU of this node, by instance; several of one instance are a defect.
    pub fn machines(&self) -> BTreeMap<String, Identity> {
        while launching(&self.mark()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // While a process becomes another program, it has no command line.
        std::thread::sleep(Duration::from_millis(30));
        let mut all = BTreeMap::new();
        for found in process::scan(&self.mark(), 0..u32::MAX) {
            let Some(start) = start_ticks(found.pid) else {
                continue;
            };
            let twice = all.insert(found.instance.clone(), (found.pid, start));
            assert_eq!(twice, None, "two QEMUs of {}", found.instance);
        }
        all
    }

    /// A guest's serial console, past the agent.
    pub fn console(&self, view: &InstanceView) -> Console {
        Console::connect(&self.run_dir(view).join(socket::CONSOLE))
    }

    /// The directory of an instance's sockets.
    pub fn run_dir(&self, view: &InstanceView) -> PathBuf {
        Paths::new(&self.config).run(&view.id.parse().unwrap())
    }

    /// The directory of an instance's disks.
    pub fn disk_dir(&self, view: &InstanceView) -> PathBuf {
        Paths::new(&self.config).instance(&view.id.parse().unwrap())
    }

    /// What the agent has left on the host: files, links, addresses, routes,
    /// proxied neighbours, elements of the firewall, processes, cgroups.
    pub fn traces(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        walk(&self.config.state_dir, &mut all);
        walk(&self.config.run_dir, &mut all);
        let own = [
            "agent.db",
            "agent.db-wal",
            "agent.db-shm",
            "lock",
            "reserve",
        ];
        for name in own {
            all.remove(&self.config.state_dir.join(name).display().to_string());
        }
        all.remove(&self.config.socket().display().to_string());
        for arguments in [
            &["-o", "link"][..],
            &["-o", "address"],
            &["-6", "route", "show", "table", "all"],
            &["-6", "neigh", "show", "proxy"],
        ] {
            let text = run("ip", arguments);
            let about_taps = text.lines().filter(|l| l.contains("vmtap"));
            let kind = arguments.join(" ");
            all.extend(about_taps.map(|l| format!("ip {kind}: {l}")));
        }
        all.extend(self.elements());
        all.extend(self.machines().keys().map(|id| format!("process {id}")));
        let group = format!("crn-agent-{}", self.mark());
        let cgroups = Cgroups::discover(&group).unwrap();
        all.extend(
            cgroups
                .groups()
                .unwrap()
                .into_iter()
                .map(|g| format!("cgroup {g}")),
        );
        all
    }

    /// The elements of the firewall's sets and maps.
    pub fn elements(&self) -> BTreeSet<String> {
        let listed = run("nft", &["-s", "-j", "list", "table", "inet", "crn_agent"]);
        let listed: Value = serde_json::from_str(&listed).expect("nft speaks JSON");
        let mut all = BTreeSet::new();
        for object in listed["nftables"].as_array().unwrap() {
            for kind in ["set", "map"] {
                let set = &object[kind];
                for element in set["elem"].as_array().into_iter().flatten() {
                    all.insert(format!("nft {}: {element}", set["name"]));
                }
            }
        }
        all
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Marked with this host's own mark: started by its agents.
        for found in process::scan(&self.mark(), 0..u32::MAX) {
            kill(found.pid, Signal::KILL);
        }
        if let Some(target) = &self.mounted {
            run("umount", &["--lazy", target]);
        }
        if std::thread::panicking()
            && let Ok(entries) = fs::read_dir(self.dir.path())
        {
            for entry in entries.flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|e| e == "log") {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    eprintln!("--- {}\n{text}", path.display());
                }
            }
        }
    }
}

/// Whether some process of the node is about to be QEMU, or to end.
fn launching(mark: &str) -> bool {
    let marker = format!("guest=crn:{mark}:");
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("\0launch-vm\0") && line.contains(&marker)
    })
}

fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // A zombie is not there.
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok())?
}

fn walk(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        into.insert(path.display().to_string());
        if entry.file_type().unwrap().is_dir() {
            walk(&path, into);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    super::run(Command::new(program).args(arguments)).unwrap()
}
