//! The agent as a service of a booted Debian host with systemd, its unit file as it is shipped. The
//! host is a guest itself, and has a small guest of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed; a story of minutes tells how far it is"
)]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::harness::{Agent, BOOT_PATIENCE, Guest, Host, Key, Uplink, images, run, wait_for};

/// An emulated host emulates its guest: each step takes its time.
const NESTED_PATIENCE: Duration = Duration::from_secs(300);

const CONFIG: &str = r#"
[qemu]
accel = "tcg"

[network]
prefix = "2001:db8:77::/64"
uplink = "late0"
"#;

/// An interface that comes long after the network is said to be there, as of a slow switch or a VPN.
const LATE: &str = "[Unit]
[Service]
ExecStart=/bin/sh -c 'sleep 20; ip link add late0 type dummy; ip link set late0 up'
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
";

/// The host's own agent.
struct Node<'a>(&'a Guest<'a>);

impl Node<'_> {
    fn sh(&self, script: &str) -> String {
        self.0.run(script).unwrap().trim().to_owned()
    }

    fn cli(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.sh(&format!("crn-agent --json {arguments}"))).unwrap()
    }

    fn property(&self, name: &str) -> String {
        self.sh(&format!("systemctl show crn-agent --value -p {name}"))
    }

    /// The guest's QEMU, once the guest runs.
    fn running(&self) -> u64 {
        let view = wait_for("the nested guest", NESTED_PATIENCE, || {
            let text = self.0.run("crn-agent --json instance show small")?;
            let view: Value = serde_json::from_str(&text)?;
            match view["phase"] == "running" {
                true => Ok(Some(view)),
                false => Err(text.into()),
            }
        });
        view.unwrap()["pid"].as_u64().unwrap()
    }

    fn main_pid(&self) -> String {
        self.property("MainPID")
    }
}

fn chapter(began: Instant, title: &str) {
    println!("{:6.1} s  {title}", began.elapsed().as_secs_f64());
}

/// Without the debug information, which is ten times as large.
fn stripped(program: &Path, dir: &Path) -> std::path::PathBuf {
    let small = dir.join("crn-agent");
    run(Command::new("strip").arg("-o").arg(&small).arg(program)).unwrap();
    small
}

#[test]
fn a_service_of_a_booted_debian() {
    let began = Instant::now();
    let host = Host::new(Uplink::Routed).unwrap();
    let key = Key::new(host.dir()).unwrap();
    let agent = Agent::start(&host, &[]).unwrap();
    let image = images::node(|line| println!("{line}")).unwrap();
    let tiny = images::tiny(|line| println!("{line}")).unwrap();
    agent.import("debian:12", &image).unwrap();
    let create = [
        "instance",
        "create",
        "--name=host",
        "--image=debian:12",
        "--cpu=2",
        "--memory=2",
        "--disk=6",
        "--wait",
        "--timeout=900",
        "--ssh-key",
        key.public(),
    ];
    let view = agent.cli(&create).unwrap();
    let guest = host.internet().ssh(&key, view["ipv6"].as_str().unwrap());
    guest.wait(BOOT_PATIENCE).unwrap();
    chapter(began, "the host is booted");

    let node = Node(&guest);
    let write = |path: &str, text: &str| {
        let file = host.dir().join("file");
        fs::write(&file, text).unwrap();
        guest.send(&file, path, "0644").unwrap();
    };
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/systemd/crn-agent.service");
    let program = stripped(agent.program(), host.dir());
    guest
        .send(&program, "/usr/local/bin/crn-agent", "0755")
        .unwrap();
    guest
        .send(&unit, "/etc/systemd/system/crn-agent.service", "0644")
        .unwrap();
    guest.send(&tiny, "/root/tiny.qcow2", "0644").unwrap();
    write("/etc/systemd/system/late.service", LATE);
    assert_eq!(node.sh("systemd-analyze verify crn-agent.service 2>&1"), "");

    // A configuration that cannot be is tried until somebody mends it.
    write(
        "/etc/crn-agent/config.toml",
        "[network]\nprefix = \"nonsense\"\n",
    );
    node.sh("systemctl enable --quiet late crn-agent; ! systemctl start crn-agent");
    wait_for("another try", NESTED_PATIENCE, || {
        Ok((node.property("NRestarts").parse::<u32>()? > 1).then_some(()))
    })
    .unwrap();
    write("/etc/crn-agent/config.toml", CONFIG);
    wait_for("the service", NESTED_PATIENCE, || {
        Ok((node.property("ActiveState") == "active").then_some(()))
    })
    .unwrap();
    chapter(began, "a mended configuration is taken up");

    node.cli("image import tiny:1 /root/tiny.qcow2 --format qcow2");
    // Its own SSH server is not waited for: that is a guest of a guest that is emulated.
    node.cli("instance create --name small --image tiny:1 --memory 128MiB --disk 64MiB");
    let qemu = node.running();
    assert_eq!(node.sh(&format!("cat /proc/{qemu}/oom_score_adj")), "0");
    let main = node.main_pid();
    assert_eq!(node.sh(&format!("cat /proc/{main}/oom_score_adj")), "-900");
    let restarted = || node.property("ActiveState") == "active" && node.main_pid() != main;
    chapter(began, "a nested guest runs");

    node.sh("systemctl restart crn-agent");
    assert!(restarted());
    assert_eq!(node.running(), qemu);
    let main = node.main_pid();
    node.sh(&format!("kill -9 {main}"));
    wait_for("another agent", NESTED_PATIENCE, || {
        let now = node.main_pid();
        Ok((now != main && now != "0" && node.property("ActiveState") == "active").then_some(()))
    })
    .unwrap();
    assert_eq!(node.running(), qemu);
    node.sh("systemctl stop crn-agent");
    assert_eq!(
        node.sh(&format!("cat /proc/{qemu}/comm")).get(..4),
        Some("qemu")
    );
    node.sh("systemctl start crn-agent");
    assert_eq!(node.running(), qemu);
    chapter(
        began,
        "restarted, killed and stopped, and the nested guest runs on",
    );

    // The run directory is wiped, as by a careless clean-up of /run: the API's socket is made anew.
    node.sh("rm -rf /run/crn-agent/*");
    wait_for("the API", NESTED_PATIENCE, || {
        guest.run("crn-agent --json status").map(Some)
    })
    .unwrap();
    assert_eq!(node.running(), qemu);
    chapter(began, "/run was wiped");

    let boot = guest.boot_id().unwrap();
    let _ = guest.run("systemctl reboot");
    wait_for("the reboot", BOOT_PATIENCE, || {
        Ok((guest.boot_id()? != boot).then_some(()))
    })
    .unwrap();
    // The uplink is not there yet: no reason to give up, for the agent or its guests.
    wait_for("the service", NESTED_PATIENCE, || {
        Ok((node.property("ActiveState") == "active").then_some(()))
    })
    .unwrap();
    assert_eq!(node.property("NRestarts"), "0");
    let kinds = |status: &Value| -> Vec<String> {
        let warnings = status["warnings"].as_array().unwrap();
        warnings
            .iter()
            .map(|w| w["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let missing = "uplink-missing".to_owned();
    if guest.run("ip link show late0").is_err() {
        assert!(kinds(&node.cli("status")).contains(&missing));
    }
    node.running();
    wait_for("the uplink", NESTED_PATIENCE, || {
        let warnings = kinds(&node.cli("status"));
        if warnings.contains(&missing) {
            return Err(format!("{warnings:?}").into());
        }
        Ok(Some(()))
    })
    .unwrap();
    chapter(
        began,
        "after a reboot what ran runs again, and a late uplink is taken up",
    );
}
