//! The exact plan of a guest in the real QEMU, started by the real launcher.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crn_agent::testing::{
    cgroup::{CgroupPlan, Cgroups, Removal},
    qemu::{
        confine::Confinement,
        file_limit,
        launch::{LaunchError, launch_by},
        names::MAX_VOLUMES,
        plan::{
            Accelerator, Boot, DiskFormat, FdSource, GuestMemory, HOTPLUG_FDSET, Launch,
            LaunchPlan, Open, Protection, VolumeDisk, plan, socket, volume_device, volume_nodes,
        },
        process::{self, Process},
    },
};
use disk::{BaseRef, ByteSize, Format, OverlaySpec, create_overlay, create_volume};
use qmp::{Error, Event, Events, Qmp, ResetReason, RunState, ShutdownReason};
use serde_json::{Value, json};
use testbed::{
    boot_sector::{self, Console},
    network, proc, until,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(300);
const UID: u32 = 2_100_007;
const MIB: u64 = 1 << 20;
const ROOT: ByteSize = ByteSize::from_bytes(64 * MIB);
const VOLUME: ByteSize = ByteSize::from_bytes(16 * MIB);

/// A guest's files, in a directory that QEMU's user may not enter.
struct Files {
    dir: tempfile::TempDir,
    launch: Launch,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let base = path("base.raw");
        boot_sector::write_disk(&base);
        let base_ref = BaseRef {
            path: base.clone(),
            format: Format::Raw,
            virtual_size: ByteSize::from_bytes(MIB),
        };
        create_overlay(&path("root.qcow2"), &OverlaySpec::new(base_ref, ROOT)).unwrap();
        create_volume(&path("first.qcow2"), VOLUME, Format::Qcow2).unwrap();
        fs::write(path("seed.iso"), [0; 64 << 10]).unwrap();
        fs::create_dir(path("run")).unwrap();
        let id = "ab".repeat(32);
        let launch = Launch {
            binary: "/usr/bin/qemu-system-x86_64".into(),
            marker: format!("crn:{:08x}{:08x}:{id}", std::process::id(), next()),
            uuid: "abababab-abab-abab-abab-abababababab".into(),
            vcpus: 2,
            memory_mib: 96,
            machine: "q35".into(),
            protection: Protection::None(Open {
                accel: Accelerator::Tcg,
                cpu: "max".into(),
                nested: false,
                boot: Boot::Bios,
                seed: Some(path("seed.iso")),
            }),
            root: path("root.qcow2"),
            base: (base, DiskFormat::Raw),
            watchdog: false,
            volumes: vec![VolumeDisk {
                id: "00000000000000a1".into(),
                path: path("first.qcow2"),
            }],
            mac: "02:ab:00:00:00:07".into(),
            mtu: 1500,
            run_dir: path("run"),
            console_log: Some(path("console.log")),
            uid: UID,
            isolate_network: true,
            cgroup_procs: None,
            largest_file: Some(file_limit::longest(ROOT)),
            confinement: Confinement::default(),
        };
        Self { dir, launch }
    }

    /// What only a guest has that its host can look into.
    fn open(&mut self) -> &mut Open {
        match &mut self.launch.protection {
            Protection::None(open) => open,
            other => panic!("{other:?}"),
        }
    }

    fn console_log(&self) -> &Path {
        self.launch.console_log.as_deref().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("qemu.log")
    }
}

/// A number never given before.
fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A running QEMU, killed at the end.
struct Machine {
    files: Files,
    plan: LaunchPlan,
    process: Process,
    qmp: Qmp,
    events: Events,
}

impl Machine {
    async fn start(files: Files) -> Self {
        let plan = plan(&files.launch);
        let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
        let held = launch_by(agent, &plan, network::tap().await, &files.log()).unwrap();
        let process = held.release().await;
        let path = files.launch.run_dir.join(socket::QMP);
        let connected = Qmp::connect(&path, &qmp::Config::default()).await;
        let Ok((qmp, events)) = connected else {
            let said = fs::read_to_string(files.log()).unwrap_or_default();
            process.kill();
            panic!("{:?}: {said}", connected.err());
        };
        Self {
            files,
            plan,
            process,
            qmp,
            events,
        }
    }

    fn console(&self) -> Console {
        Console::connect(&self.files.launch.run_dir.join(socket::CONSOLE))
    }

    /// The first event that `wanted` accepts.
    async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let search = async {
            loop {
                let event = self.events.next().await.expect("QEMU lives");
                if wanted(&event) {
                    return event;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("the event comes")
    }

    async fn property(&self, device: &str, name: &str) -> Value {
        let path = format!("/machine/peripheral/{device}");
        let arguments = json!({"path": path, "property": name});
        self.qmp.execute_raw("qom-get", arguments).await.unwrap()
    }

    async fn peripherals(&self) -> BTreeSet<String> {
        let arguments = json!({"path": "/machine/peripheral"});
        let list = self.qmp.execute_raw("qom-list", arguments).await.unwrap();
        let children = list.as_array().unwrap().iter().filter(|c| {
            let kind = c["type"].as_str().unwrap();
            kind.starts_with("child<")
        });
        children
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Block nodes by name: driver, size in bytes, whether they are read only.
    async fn nodes(&self) -> BTreeMap<String, (String, i64, bool)> {
        let nodes = self.qmp.query_named_block_nodes().await.unwrap();
        nodes
            .into_iter()
            .map(|n| {
                let about = (n.drv, n.image.base.virtual_size, n.ro);
                (n.node_name.unwrap(), about)
            })
            .collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.process.kill();
    }
}

fn node(driver: &str, bytes: u64, read_only: bool) -> (String, i64, bool) {
    (driver.to_owned(), i64::try_from(bytes).unwrap(), read_only)
}

#[test]
fn a_bios_guest_lives_as_planned() {
    network::alone(async || {
        let mut machine = Machine::start(Files::new()).await;
        assert!(
            machine.qmp.version().at_least(9, 1),
            "{}",
            machine.qmp.version()
        );
        assert_eq!(machine.qmp.status().await.unwrap(), RunState::Running);
        the_process_may_do_little(&machine);
        nothing_else_of_the_host_is_opened(&machine).await;
        only_planned_descriptors_are_open(&machine);
        the_machine_is_as_planned(&machine).await;
        a_volume_comes_while_it_runs(&mut machine).await;
        console_and_guest_agent_are_served(&machine).await;
        reboots_and_power_offs_are_told_apart(&mut machine).await;
        let log = fs::read_to_string(machine.files.log()).unwrap();
        assert!(log.is_empty(), "QEMU complains: {log}");
    });
}

fn the_process_may_do_little(machine: &Machine) {
    let pid = machine.process.pid();
    let status = proc::status(pid);
    for field in ["Uid", "Gid"] {
        assert_eq!(status[field], format!("{UID} {UID} {UID} {UID}"), "{field}");
    }
    for (field, value) in [
        ("Groups", ""),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
    for kind in ["net", "ipc"] {
        let (its, ours) = (proc::namespace(pid, kind), proc::own_namespace(kind));
        assert_ne!(its, ours, "{kind}");
    }
    let core = proc::limit(pid, "Max core file size");
    assert_eq!(core, ("0".into(), "0".into()));
    assert_eq!(proc::session(pid), pid, "a session of its own");
    assert_eq!(proc::environment(pid), ["PATH=/usr/bin:/bin"]);
    let mut arguments = proc::arguments(pid);
    let program = arguments.remove(0);
    assert_eq!(Path::new(&program), machine.plan.binary);
    assert_eq!(arguments, machine.plan.args);
    // How an agent finds it again.
    let (node, id) = machine.files.launch.marker[4..].split_once(':').unwrap();
    let marked = process::scan(node, UID..UID + 1);
    assert_eq!(marked.len(), 1, "{marked:?}");
    assert_eq!((marked[0].pid, marked[0].instance.as_str()), (pid, id));
    assert_eq!(process::scan(node, 1..2), [], "not a guest's user");
}

/// What who rules QEMU could ask of it; confined.rs tries what he could do without it.
async fn nothing_else_of_the_host_is_opened(machine: &Machine) {
    let open_to_all = tempfile::tempdir().unwrap();
    fs::set_permissions(open_to_all.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let service = open_to_all.path().join("service");
    let _listens = std::os::unix::net::UnixListener::bind(&service).unwrap();
    fs::set_permissions(&service, fs::Permissions::from_mode(0o666)).unwrap();
    let written = open_to_all.path().join("written");
    let unix = json!({"type": "unix", "data": {"path": service}});
    let inet = json!({"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}});
    let socket = |address| json!({"id": "c", "backend": {"type": "socket", "data": {"addr": address, "server": false}}});
    for (command, arguments) in [
        (
            "blockdev-add",
            json!({"driver": "file", "node-name": "x", "filename": "/etc/passwd", "read-only": true}),
        ),
        (
            "chardev-add",
            json!({"id": "c", "backend": {"type": "file", "data": {"out": written}}}),
        ),
        ("chardev-add", socket(unix)),
        ("chardev-add", socket(inet)),
        (
            "chardev-add",
            json!({"id": "c", "backend": {"type": "serial", "data": {"device": "/dev/tty"}}}),
        ),
    ] {
        let refused = machine.qmp.execute_raw(command, arguments.clone()).await;
        let refused = refused.map_err(|e| e.to_string());
        assert!(refused.is_err(), "{command} {arguments}: {refused:?}");
    }
    assert!(!written.exists());
    let pid = machine.process.pid();
    for kind in ["mnt", "pid", "uts", "cgroup"] {
        let (its, ours) = (proc::namespace(pid, kind), proc::own_namespace(kind));
        assert_ne!(its, ours, "{kind}");
    }
    assert_eq!(proc::status(pid)["CapBnd"], "0000000000000000");
    let most = file_limit::longest(ROOT).to_string();
    assert_eq!(proc::limit(pid, "Max file size"), (most.clone(), most));
}

fn only_planned_descriptors_are_open(machine: &Machine) {
    let mut files: BTreeSet<String> = ["/dev/null".into()].into();
    files.insert(machine.files.log().display().to_string());
    for fd in &machine.plan.fds {
        match &fd.source {
            FdSource::ReadOnly(path) | FdSource::ReadWrite(path) | FdSource::Append(path) => {
                files.insert(path.display().to_string());
            }
            FdSource::Tap => drop(files.insert("/dev/net/tun".into())),
            FdSource::Listen(_) => {}
        }
    }
    let run = machine.files.launch.run_dir.display().to_string();
    let sockets = proc::sockets_below(&run);
    let open = proc::descriptors(machine.process.pid());
    let mut seen = BTreeSet::new();
    for (number, target) in &open {
        let known = files.contains(target) || sockets.contains(target);
        // Between QEMU's own threads.
        let own = [
            "anon_inode:[event",
            "anon_inode:[signalfd]",
            "anon_inode:[io_uring]",
        ]
        .iter()
        .any(|own| target.starts_with(own));
        assert!(known || own, "descriptor {number} is {target}: {open:#?}");
        seen.insert(target.clone());
    }
    let missing: Vec<_> = files.difference(&seen).collect();
    assert!(missing.is_empty(), "{missing:?}");

    // Who may look at what was made for it.
    let run = &machine.files.launch.run_dir;
    for file in [machine.files.console_log(), &machine.files.log()] {
        let meta = fs::metadata(file).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o600), "{file:?}");
    }
    for name in [socket::QMP, socket::QGA, socket::CONSOLE] {
        let meta = fs::metadata(run.join(name)).unwrap();
        assert_eq!(meta.uid(), 0, "{name}");
        assert_eq!(meta.mode() & 0o777, 0o600, "{name}");
    }
}

async fn the_machine_is_as_planned(machine: &Machine) {
    let (root, volume) = (ROOT.bytes(), VOLUME.bytes());
    let nodes = machine.nodes().await;
    let on_disk = |name: &str| {
        let path = machine.files.dir.path().join(name);
        fs::metadata(path).unwrap().len()
    };
    let expected = [
        ("base-file", node("file", MIB, true)),
        ("base", node("raw", MIB, true)),
        ("root-file", node("file", on_disk("root.qcow2"), false)),
        ("root", node("qcow2", root, false)),
        ("seed-file", node("file", 64 << 10, true)),
        ("seed", node("raw", 64 << 10, true)),
        (
            "vol-00000000000000a1-file",
            node("file", on_disk("first.qcow2"), false),
        ),
        ("vol-00000000000000a1", node("qcow2", volume, false)),
    ];
    let expected = expected.map(|(name, about)| (name.to_owned(), about));
    assert_eq!(nodes, BTreeMap::from(expected));

    let mut devices: BTreeSet<String> = (0..MAX_VOLUMES).map(|n| format!("slot{n}")).collect();
    for id in [
        "root-dev",
        "seed-dev",
        "serial0",
        "net0-dev",
        "balloon",
        "vol-00000000000000a1-dev",
    ] {
        devices.insert(id.into());
    }
    assert_eq!(machine.peripherals().await, devices);
    for (device, name, value) in [
        ("net0-dev", "mac", json!("02:ab:00:00:00:07")),
        ("root-dev", "serial", json!("root")),
        ("seed-dev", "serial", json!("seed")),
        (
            "vol-00000000000000a1-dev",
            "serial",
            json!("00000000000000a1"),
        ),
        ("root-dev", "discard", json!(true)),
    ] {
        let found = machine.property(device, name).await;
        assert_eq!(found, value, "{device}.{name}");
    }
    let memory = machine
        .qmp
        .execute_raw("query-memdev", Value::Null)
        .await
        .unwrap();
    assert_eq!(memory.as_array().unwrap().len(), 1);
    assert_eq!(memory[0]["size"], 96 * MIB);
    assert_eq!(
        (&memory[0]["merge"], &memory[0]["dump"]),
        (&json!(false), &json!(false))
    );
    let cpus = machine
        .qmp
        .execute_raw("query-cpus-fast", Value::Null)
        .await
        .unwrap();
    assert_eq!(cpus.as_array().unwrap().len(), 2);
    let uuid = machine
        .qmp
        .execute_raw("query-uuid", Value::Null)
        .await
        .unwrap();
    assert_eq!(uuid["UUID"], machine.files.launch.uuid);
    // Nothing to talk to QEMU by but the monitor, and nothing to see.
    let chardevs = machine
        .qmp
        .execute_raw("query-chardev", Value::Null)
        .await
        .unwrap();
    let labels: BTreeSet<_> = chardevs
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["console", "qga", "qmp"].into());
}

async fn a_volume_comes_while_it_runs(machine: &mut Machine) {
    let qmp = machine.qmp.clone();
    let id = "00000000000000b2";
    let path = machine.files.dir.path().join("second.qcow2");
    create_volume(&path, VOLUME, Format::Qcow2).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    assert!(file.as_raw_fd() > 2);
    qmp.add_fd(file.as_fd(), HOTPLUG_FDSET, id).await.unwrap();
    for node in volume_nodes(id, &format!("/dev/fdset/{HOTPLUG_FDSET}")) {
        qmp.blockdev_add(node).await.unwrap();
    }
    qmp.remove_fd(HOTPLUG_FDSET).await.unwrap();
    // The first slot is taken by the volume that was there from the start.
    let taken = qmp
        .device_add(volume_device(id, 0, GuestMemory::Open))
        .await
        .unwrap_err();
    assert!(matches!(taken, Error::Refused { .. }), "{taken}");
    qmp.device_add(volume_device(id, 1, GuestMemory::Open))
        .await
        .unwrap();
    assert_eq!(
        machine.nodes().await[&format!("vol-{id}")],
        node("qcow2", VOLUME.bytes(), false)
    );
    assert!(
        machine
            .peripherals()
            .await
            .contains(&format!("vol-{id}-dev"))
    );
    // It grows under the guest.
    let grown = 2 * VOLUME.bytes();
    qmp.block_resize(&format!("vol-{id}"), grown).await.unwrap();
    assert_eq!(
        machine.nodes().await[&format!("vol-{id}")],
        node("qcow2", grown, false)
    );
    assert!(
        qmp.blockdev_del(&format!("vol-{id}")).await.is_err(),
        "it is in use"
    );
}

async fn console_and_guest_agent_are_served(machine: &Machine) {
    let mut console = machine.console();
    let first = console.uptime();
    let second = until(PATIENCE, "the guest's clock goes on", || {
        Some(console.uptime()).filter(|now| *now > first)
    });
    assert!(second < first + 18 * 60, "{first} {second}");
    let log = fs::read_to_string(machine.files.console_log()).unwrap();
    assert!(
        log.contains("SeaBIOS") && log.contains("guest: hello"),
        "{log}"
    );
    // This guest has no agent; its channel is open all the same.
    let hasty = qmp::Config {
        greeting_timeout: Duration::from_millis(300),
        ..qmp::Config::default()
    };
    let path = machine.files.launch.run_dir.join(socket::QGA);
    let silent = qmp::Qga::connect(&path, &hasty).await.unwrap_err();
    assert!(matches!(silent, Error::GuestAgentSilent { .. }), "{silent}");
}

async fn reboots_and_power_offs_are_told_apart(machine: &mut Machine) {
    let mut console = machine.console();
    console.uptime();
    console.key('r');
    let reset = machine.event(|e| matches!(e, Event::Reset { .. })).await;
    assert_eq!(
        reset,
        Event::Reset {
            guest: true,
            reason: ResetReason::GuestReset
        }
    );
    let anew = console.after("guest: hello", PATIENCE);
    anew.expect("the guest begins anew");
    assert_eq!(machine.qmp.status().await.unwrap(), RunState::Running);

    machine.qmp.system_reset().await.unwrap();
    // SeaBIOS resets once more when it was reset softly: those are the guest's too.
    let asked = |e: &Event| matches!(e, Event::Reset { guest: false, .. });
    let reset = machine.event(asked).await;
    assert_eq!(
        reset,
        Event::Reset {
            guest: false,
            reason: ResetReason::HostReset
        }
    );
    console.uptime();

    // The guest obeys the button: its power is off, QEMU and its disks are there.
    machine.qmp.power_down().await.unwrap();
    let off = machine.event(|e| matches!(e, Event::Shutdown { .. })).await;
    assert_eq!(
        off,
        Event::Shutdown {
            guest: true,
            reason: ShutdownReason::GuestShutdown
        }
    );
    assert_eq!(machine.qmp.status().await.unwrap(), RunState::Shutdown);
    assert!(machine.process.is_alive());

    machine.qmp.quit().await.unwrap();
    timeout(PATIENCE, machine.process.exited()).await.unwrap();
    let root = machine.files.dir.path().join("root.qcow2");
    let report = disk::check(&root).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_uefi_guest_lives_as_planned() {
    network::alone(async || {
        let mut files = Files::new();
        let vars = files.dir.path().join("uefi-vars.fd");
        fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &vars).unwrap();
        files.open().boot = Boot::Uefi {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            vars,
        };
        files.open().seed = None;
        files.launch.memory_mib = 160;
        let machine = Machine::start(files).await;
        assert_eq!(machine.qmp.status().await.unwrap(), RunState::Running);
        the_process_may_do_little(&machine);
        only_planned_descriptors_are_open(&machine);
        let nodes = machine.nodes().await;
        let size = |path: &str| fs::metadata(path).unwrap().len();
        let code = node("file", size("/usr/share/OVMF/OVMF_CODE_4M.fd"), true);
        assert_eq!(nodes["uefi-code"], code);
        let vars = node("file", size("/usr/share/OVMF/OVMF_VARS_4M.fd"), false);
        assert_eq!(nodes["uefi-vars"], vars);
        assert!(!nodes.contains_key("seed"));
        // The firmware runs, and finds that a boot sector is nothing for it.
        until(PATIENCE, "the firmware speaks", || {
            let log = fs::read(machine.files.console_log()).unwrap();
            String::from_utf8_lossy(&log)
                .contains("BdsDxe")
                .then_some(())
        });
    });
}

#[test]
fn what_cannot_start_says_why() {
    network::alone(async || {
        let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
        // A file that is not there: nothing is started.
        let mut files = Files::new();
        let seed = files.dir.path().join("nowhere.iso");
        files.open().seed = Some(seed.clone());
        let refused = launch_by(
            agent,
            &plan(&files.launch),
            network::tap().await,
            &files.log(),
        );
        match refused {
            Err(LaunchError::Open { path, .. }) => {
                assert_eq!(path, seed);
            }
            other => panic!("{other:?}"),
        }
        let node = files.launch.marker[4..].split_once(':').unwrap().0;
        assert_eq!(process::scan(node, 0..u32::MAX), []);

        // A program that is not there, a cgroup that is not there, and a disk that
        // is no qcow2: the process ends, and the log says why.
        let broken = |change: fn(&mut Files)| {
            let mut files = Files::new();
            change(&mut files);
            files
        };
        let table = [
            (
                broken(|f| f.launch.binary = "/nonexistent/qemu".into()),
                "No such file",
            ),
            (
                broken(|f| f.launch.cgroup_procs = Some("/nonexistent/cgroup.procs".into())),
                "/nonexistent/cgroup.procs",
            ),
            (
                broken(|f| fs::write(&f.launch.root, [0; 65536]).unwrap()),
                "not in qcow2 format",
            ),
        ];
        for (files, why) in table {
            let plan = plan(&files.launch);
            let held = launch_by(agent, &plan, network::tap().await, &files.log()).unwrap();
            let process = held.release().await;
            timeout(PATIENCE, process.exited()).await.expect(why);
            let said = fs::read_to_string(files.log()).unwrap();
            assert!(said.contains(why), "{why}: {said}");
        }
    });
}

#[test]
fn nothing_runs_without_the_word() {
    network::alone(async || {
        let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
        let files = Files::new();
        let plan = plan(&files.launch);
        let held = launch_by(agent, &plan, network::tap().await, &files.log()).unwrap();
        let process = Process::open(held.process().pid()).unwrap();
        // As when the agent dies: the other end of its standard input is closed.
        drop(held);
        timeout(PATIENCE, process.exited()).await.unwrap();
        let said = fs::read_to_string(files.log()).unwrap();
        assert_eq!(said, "crn-agent launch-vm: the agent is gone\n");
    });
}

#[test]
fn the_process_enters_its_cgroup() {
    network::alone(async || {
        let cgroups = Cgroups::discover(&format!("crn-plan-{}", std::process::id())).unwrap();
        if let Some(why) = cgroups.unavailable() {
            skip::skip!("cgroup2", "{why}");
        }
        let limits = CgroupPlan::new(2, 96, Accelerator::Tcg);
        let applied = cgroups.prepare("guest", &limits).unwrap();
        for missing in &applied.missing {
            eprintln!("not limited: {}: {}", missing.file, missing.why);
        }
        let mut files = Files::new();
        files.launch.cgroup_procs = applied.procs;
        let machine = Machine::start(files).await;
        assert_eq!(cgroups.processes("guest").unwrap(), [machine.process.pid()]);
        machine.process.kill();
        timeout(PATIENCE, machine.process.exited()).await.unwrap();
        drop(machine);
        until(PATIENCE, "the group can be removed", || {
            matches!(
                cgroups.remove("guest"),
                Ok(Removal::Removed | Removal::Absent)
            )
            .then_some(())
        });
        assert!(cgroups.remove_root().unwrap());
    });
}

#[test]
fn a_panic_is_told_and_a_watchdog_is_there_when_asked_for() {
    network::alone(async || {
        let mut files = Files::new();
        files.launch.watchdog = true;
        files.launch.machine = "pc-q35-8.2".into();
        let mut machine = Machine::start(files).await;
        let kind = machine.property("watchdog", "type").await;
        assert_eq!(kind, "i6300esb");
        let arguments = json!({"path": "/machine", "property": "type"});
        let kind = machine.qmp.execute_raw("qom-get", arguments).await;
        assert_eq!(kind.unwrap(), "pc-q35-8.2-machine");
        let mut console = machine.console();
        console.uptime();
        console.key('c');
        let told = machine
            .event(|e| matches!(e, Event::GuestPanicked { .. }))
            .await;
        assert!(
            matches!(&told, Event::GuestPanicked { action, .. } if action == "run"),
            "{told:?}"
        );
        // What it does then is its own to say.
        console.uptime();
        assert_eq!(machine.qmp.status().await.unwrap(), RunState::Running);
    });
}
