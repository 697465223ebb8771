//! A host with an agent: the real program, in the network of its test, with state
//! and run directories of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crn_agent::testing::{
    client::{Client, ClientError},
    config::Config,
    paths::Paths,
    qemu::{plan::socket, process},
};
use crn_api_types::{ErrorCode, InstanceView, Ports, VolumeState, VolumeView};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::guest::{self, Console};

/// Much longer than anything takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// The image that all instances are layered over.
pub(crate) const IMAGE: &str = "tiny:1";

/// A process's identity: pid, and when it started.
pub(crate) type Identity = (i32, u64);

/// A host; its virtual machines are killed at the end.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    config: Config,
    starts: AtomicUsize,
    /// A file system of this host's own.
    mounted: Option<String>,
}

impl Host {
    /// A host on which no agent has run yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        guest::write_disk(&dir.path().join("tiny.raw"));
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
    pub(crate) async fn with_agent() -> (Self, Agent) {
        let host = Self::new();
        let agent = host.start().await;
        host.import();
        (host, agent)
    }

    /// Gives the agent the image.
    pub(crate) fn import(&self) {
        let image = self.path("tiny.raw");
        self.cli(&["image", "import", IMAGE, &image.display().to_string()])
            .expect("the image is taken");
    }

    /// The same, its instances' directories on a small file system of their own.
    pub(crate) async fn with_little_room() -> (Self, Agent, InstanceView) {
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
    pub(crate) async fn with_guest() -> (Self, Agent, InstanceView) {
        let (host, agent) = Self::with_agent().await;
        let view = agent.running("web").await;
        (host, agent, view)
    }

    /// A path beside the agent's directories.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The agent's state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.config.state_dir
    }

    /// The agent's run directory.
    pub(crate) fn run(&self) -> &Path {
        &self.config.run_dir
    }

    /// What marks this node's processes.
    pub(crate) fn mark(&self) -> String {
        Paths::new(&self.config).node_mark()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crn-agent"));
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
    pub(crate) async fn start(&self) -> Agent {
        self.start_at(None).await
    }

    /// Starts the agent so that it dies at a fault point.
    pub(crate) async fn start_armed(&self, point: &str) -> Agent {
        self.start_at(Some(point)).await
    }

    async fn start_at(&self, point: Option<&str>) -> Agent {
        let (mut command, log) = self.serve(point);
        let mut agent = Agent {
            child: command.spawn().unwrap(),
            client: Client::new(&self.config.socket()),
            log,
        };
        let end = Instant::now() + PATIENCE;
        while agent.client.get::<Value>("/v1/status").await.is_err() {
            let gone = agent.child.try_wait().unwrap();
            assert!(gone.is_none(), "{gone:?}: {}", agent.words());
            assert!(Instant::now() < end, "not ready: {}", agent.words());
            sleep(Duration::from_millis(10)).await;
        }
        agent
    }

    /// Starts the agent though it should refuse; how it ended, and its words.
    pub(crate) fn start_in_vain(&self) -> (ExitStatus, String) {
        let (mut command, log) = self.serve(None);
        let status = command.status().unwrap();
        (status, fs::read_to_string(log).unwrap())
    }

    /// Runs a command of the command line; its output, or its complaint.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String, String> {
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
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.cli(&["--json", "events", "-n", "1000"]).unwrap();
        let lines = text.lines().filter_map(|l| serde_json::from_str(l).ok());
        lines.collect()
    }

    /// Every QEMU of this node, by instance; several of one instance are a defect.
    pub(crate) fn machines(&self) -> BTreeMap<String, Identity> {
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
    pub(crate) fn console(&self, view: &InstanceView) -> Console {
        Console::connect(&self.run_dir(view).join(socket::CONSOLE))
    }

    /// The directory of an instance's sockets.
    pub(crate) fn run_dir(&self, view: &InstanceView) -> PathBuf {
        Paths::new(&self.config).run(&view.id.parse().unwrap())
    }

    /// The directory of an instance's disks.
    pub(crate) fn disk_dir(&self, view: &InstanceView) -> PathBuf {
        Paths::new(&self.config).instance(&view.id.parse().unwrap())
    }

    /// What the agent has left on the host: files, links, addresses, routes,
    /// proxied neighbours, elements of the firewall, processes, cgroups.
    pub(crate) fn traces(&self) -> BTreeSet<String> {
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
        let cgroups = crn_agent::testing::cgroup::Cgroups::discover(&group).unwrap();
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
    pub(crate) fn elements(&self) -> BTreeSet<String> {
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
            kill(found.pid, rustix::process::Signal::KILL);
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

/// A running agent.
pub(crate) struct Agent {
    child: Child,
    /// A client of its API.
    pub(crate) client: Client,
    log: PathBuf,
}

impl Agent {
    /// What it wrote to its log.
    pub(crate) fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end with SIGTERM; how it ended.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        kill(self.pid(), rustix::process::Signal::TERM);
        self.ended().await
    }

    /// Waits until its fault point has killed it.
    pub(crate) async fn killed_at_its_point(mut self) {
        let status = self.ended().await;
        let killed = status.signal() == Some(9);
        assert!(killed, "{status}: {}", self.words());
    }

    async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it goes on: {}", self.words());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for an instance of the tiny guest.
    pub(crate) async fn create(
        &self,
        name: &str,
        more: Value,
    ) -> Result<InstanceView, ClientError> {
        let mut request = json!({
            "name": name, "memory_mib": 64, "disk_mib": 64, "image": IMAGE,
        });
        let fields = request.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let request = serde_json::from_value(request).unwrap();
        self.client.create(&request, None).await
    }

    /// Creates an instance and waits until it runs.
    pub(crate) async fn running(&self, name: &str) -> InstanceView {
        self.create(name, json!({})).await.unwrap();
        self.reach(name, "running").await
    }

    /// Sends a request about an instance: `start`, `stop`, `restart`.
    pub(crate) async fn ask(
        &self,
        name: &str,
        verb: &str,
        force: bool,
    ) -> Result<InstanceView, ClientError> {
        let path = format!("/v1/instances/{name}/{verb}");
        let body = (verb != "start").then(|| json!({ "force": force }));
        self.client.send(Method::POST, &path, body.as_ref()).await
    }

    /// Asks for an instance's deletion.
    pub(crate) async fn delete(&self, name: &str) -> Result<InstanceView, ClientError> {
        let path = format!("/v1/instances/{name}");
        let force = json!({ "force": true });
        self.client.send(Method::DELETE, &path, Some(&force)).await
    }

    /// Opens exactly these ports.
    pub(crate) async fn set_ports(&self, name: &str, ports: &[&str]) -> Result<Ports, ClientError> {
        let path = format!("/v1/instances/{name}/ports");
        let change = json!({ "set": ports });
        self.client.send(Method::PATCH, &path, Some(&change)).await
    }

    /// A new volume of 64 MiB.
    pub(crate) async fn create_volume(&self, name: &str) -> VolumeView {
        let request = json!({ "name": name, "size_mib": 64 });
        let created = self
            .client
            .send(Method::POST, "/v1/volumes", Some(&request));
        created.await.unwrap()
    }

    /// A volume.
    pub(crate) async fn volume(&self, name: &str) -> VolumeView {
        let path = format!("/v1/volumes/{name}");
        self.client.get(&path).await.unwrap()
    }

    /// Attaches a volume to an instance.
    pub(crate) async fn attach(&self, name: &str, to: &str) -> Result<VolumeView, ClientError> {
        let path = format!("/v1/volumes/{name}/attach");
        let body = json!({ "instance": to });
        self.client.send(Method::POST, &path, Some(&body)).await
    }

    /// Detaches a volume.
    pub(crate) async fn detach(&self, name: &str) -> Result<VolumeView, ClientError> {
        let path = format!("/v1/volumes/{name}/detach");
        self.client.send(Method::POST, &path, None::<&()>).await
    }

    /// Waits until nobody has the volume.
    pub(crate) async fn freed(&self, name: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let volume = self.volume(name).await;
            if (volume.state, &volume.instance) == (VolumeState::Ready, &None) {
                return;
            }
            assert!(Instant::now() < end, "{volume:?}: {}", self.words());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// An instance, or none.
    pub(crate) async fn show(&self, name: &str) -> Option<InstanceView> {
        match self.client.get(&format!("/v1/instances/{name}")).await {
            Ok(view) => Some(view),
            Err(ClientError::Refused(detail)) if detail.code == ErrorCode::NotFound => None,
            Err(e) => panic!("{e}: {}", self.words()),
        }
    }

    /// Waits until an instance is in a phase.
    pub(crate) async fn reach(&self, name: &str, phase: &str) -> InstanceView {
        let end = Instant::now() + PATIENCE;
        loop {
            let view = self.show(name).await.expect("the instance is on record");
            if view.phase.as_str() == phase {
                return view;
            }
            assert!(
                Instant::now() < end,
                "{name} is {} and not {phase}: {:?}: {}",
                view.step,
                view.failure,
                self.words()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until an instance is gone.
    pub(crate) async fn gone(&self, name: &str) {
        let end = Instant::now() + PATIENCE;
        while let Some(view) = self.show(name).await {
            assert!(
                Instant::now() < end,
                "{name} is {}: {}",
                view.step,
                self.words()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that this test's agents started.
pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
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

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
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
