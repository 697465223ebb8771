//! A real Debian 12 guest, from the image's download to its deletion, as its user and the operator
//! live it. One story, one guest: each boot takes most of a minute under emulation.

#![allow(
    clippy::print_stdout,
    reason = "a story of minutes tells how far it is"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::harness::{
    Agent, BOOT_PATIENCE, FileServer, Guest, Host, Key, PATIENCE, Snapshot, Uplink, images, run,
    wait_for,
};

const USER_DATA: &str = "#cloud-config
write_files:
  - path: /etc/from-user-data
    content: written by the user
    permissions: '0640'
runcmd:
  - echo once >>/root/runcmd
";

/// Says what is being shown and how long the step before took.
struct Story(Instant);

impl Story {
    fn chapter(&mut self, title: &str) {
        println!("{:6.1} s  {title}", self.0.elapsed().as_secs_f64());
    }
}

/// The image on a web server, as a distribution publishes it.
fn publish(host: &Host) -> (FileServer, Vec<String>) {
    let image = images::debian(|line| println!("{line}")).unwrap();
    let www = host.dir().join("www");
    fs::create_dir(&www).unwrap();
    symlink(&image, www.join("debian-12.qcow2")).unwrap();
    let sum = run(Command::new("sha512sum").arg(&image)).unwrap();
    // Without TLS only a digest is trusted.
    let digits = sum.split(' ').next().unwrap();
    let server = FileServer::start(host.internet(), &www).unwrap();
    let catalogue = vec![
        "[[images.catalogue]]".to_owned(),
        "name = \"debian:12\"".to_owned(),
        format!("url = \"{}\"", server.url("debian-12.qcow2")),
        format!("digest = \"sha512:{digits}\""),
    ];
    (server, catalogue)
}

#[test]
fn a_debian_guest_from_create_to_delete() {
    let mut story = Story(Instant::now());
    let host = Host::new(Uplink::Routed).unwrap();
    let (_server, catalogue) = publish(&host);
    let lines: Vec<&str> = catalogue.iter().map(String::as_str).collect();
    let key = Key::new(host.dir()).unwrap();
    let user_data = host.dir().join("user-data");
    fs::write(&user_data, USER_DATA).unwrap();
    let mut agent = Agent::start(&host, &lines).unwrap();
    story.chapter("the agent runs");

    agent.cli(&["image", "pull", "debian:12"]).unwrap();
    let before = Snapshot::take(&host, Some(&agent)).unwrap();
    story.chapter("the image is in the store");

    let created = create(&agent, &key, &user_data);
    let address = created["ipv6"].as_str().unwrap();
    let guest = host.internet().ssh(&key, address);
    guest.wait(BOOT_PATIENCE).unwrap();
    story.chapter("SSH over IPv6");
    as_ordered(&guest, &key, address);
    story.chapter("cloud-init is done, everything is as ordered");

    guest.run("echo precious >/data/file && sync").unwrap();
    let first_boot = guest.boot_id().unwrap();
    agent
        .cli(&["instance", "stop", "web", "--wait", "--timeout", "300"])
        .unwrap();
    let stopped = agent.show("web").unwrap();
    assert_eq!(
        (&stopped["phase"], &stopped["pid"]),
        (&"stopped".into(), &Value::Null)
    );
    assert!(!guest.port_open(22).unwrap(), "a stopped guest answers");
    story.chapter("stopped by its power button");

    // Another volume takes the first one's place, which moves elsewhere.
    for command in [
        "detach data",
        "create extra --size 1",
        "attach extra web --mount /data",
        "attach data web --mount /srv/pg",
    ] {
        let words: Vec<&str> = ["volume"].into_iter().chain(command.split(' ')).collect();
        agent.cli(&words).unwrap();
    }
    agent
        .cli(&["instance", "start", "web", "--wait", "--timeout", "900"])
        .unwrap();
    guest.wait(BOOT_PATIENCE).unwrap();
    assert_ne!(guest.boot_id().unwrap(), first_boot);
    swapped(&agent, &guest);
    assert_eq!(
        guest.run("cat /root/runcmd").unwrap(),
        "once\n",
        "cloud-init ran again"
    );
    story.chapter("started again, with its volumes in other places");

    firewall(&agent, &guest);
    story.chapter("port 80 opened and closed under an open session");
    agent_dies(&mut agent, &guest);
    story.chapter("the agent killed and ended, without a blip");

    let boot = guest.boot_id().unwrap();
    let qemu = agent.show("web").unwrap()["pid"].clone();
    // The session breaks with the guest.
    let _ = guest.run("systemctl reboot");
    wait_reboot(&guest, &boot);
    let view = agent.show("web").unwrap();
    assert_eq!(view["pid"], qemu, "a reboot is no new QEMU");
    assert_eq!(
        (&view["phase"], &view["restarts"]),
        (&"running".into(), &0.into())
    );
    story.chapter("rebooted from inside");

    guest.run("umount /data").unwrap();
    agent.cli(&["volume", "detach", "extra"]).unwrap();
    let boot = guest.boot_id().unwrap();
    let outer = agent.outer_pid(qemu.as_u64().unwrap()).unwrap();
    run(Command::new("kill").args(["-9", &outer.to_string()])).unwrap();
    wait_reboot(&guest, &boot);
    let view = agent.show("web").unwrap();
    assert_ne!(view["pid"], qemu);
    assert_eq!(view["phase"], "running");
    assert_eq!(guest.run("cat /srv/pg/file").unwrap(), "precious\n");
    let left = guest
        .run("! mountpoint -q /data && grep -c virtio- /etc/fstab")
        .unwrap();
    assert_eq!(left, "1\n", "a detached volume is in fstab");
    assert_prompt(&guest);
    story.chapter("QEMU killed, and started again without the detached volume");

    let _ = guest.run("systemctl poweroff");
    let view = agent.wait_phase("web", "stopped", PATIENCE * 4).unwrap();
    assert_eq!(view["desired"], "stopped", "{view}");
    // Long enough for a back-off that should not be.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(agent.show("web").unwrap()["phase"], "stopped");
    story.chapter("powered off from inside, and left so");

    agent.cli(&["instance", "delete", "web", "--wait"]).unwrap();
    agent.cli(&["volume", "delete", "data"]).unwrap();
    agent.cli(&["volume", "delete", "extra"]).unwrap();
    let differences = before.differences(&Snapshot::take(&host, Some(&agent)).unwrap());
    assert!(
        differences.is_empty(),
        "left behind:\n{}",
        differences.join("\n")
    );
    assert!(agent.terminate().unwrap().success());
    story.chapter("deleted, and the host is as before");
}

fn create(agent: &Agent<'_>, key: &Key, user_data: &Path) -> Value {
    agent
        .cli(&[
            "instance",
            "create",
            "--name",
            "web",
            "--cpu",
            "2",
            "--memory",
            "1",
            "--disk",
            "6",
            "--image",
            "debian:12",
            "--ssh-key",
            key.public(),
            "--volume",
            "data:/data:1",
            "--cloud-init",
            user_data.to_str().unwrap(),
            "--wait",
            "--timeout",
            "900",
        ])
        .unwrap()
}

/// What the user asked for is what the guest is.
fn as_ordered(guest: &Guest<'_>, key: &Key, address: &str) {
    let status = guest
        .run("cloud-init status --wait || cat /var/log/cloud-init.log")
        .unwrap();
    assert!(status.contains("status: done"), "{status}");
    let result: Value =
        serde_json::from_str(&guest.run("cat /run/cloud-init/result.json").unwrap()).unwrap();
    assert_eq!(result["v1"]["errors"], serde_json::json!([]));
    let told = |script: &str| guest.run(script).unwrap().trim().to_owned();
    assert_eq!(told("hostname"), "web");
    assert!(told("cat /root/.ssh/authorized_keys").contains(key.public()));
    assert_eq!(
        told("sshd -T | grep ^passwordauthentication"),
        "passwordauthentication no"
    );
    assert!(told("ip -6 -o address show scope global").contains(&format!("{address}/124")));
    let root: u64 = told("df --output=size -B1 / | tail -1").parse().unwrap();
    assert!(
        root > 5 << 30,
        "the root file system has {root} bytes of 6 GiB"
    );
    assert_eq!(told("findmnt -n -o FSTYPE /data"), "ext4");
    let volume: u64 = told("df --output=size -B1 /data | tail -1")
        .parse()
        .unwrap();
    assert!(volume > 900 << 20, "the volume has {volume} bytes of 1 GiB");
    assert_eq!(told("stat -c %a /etc/from-user-data"), "640");
    assert_eq!(told("cat /etc/from-user-data"), "written by the user");
    assert_eq!(told("cat /root/runcmd"), "once");
    assert_eq!(told("systemctl is-active qemu-guest-agent"), "active");
    let failed = told("systemctl --failed --plain --no-legend");
    assert_eq!(failed, "", "failed units");
}

/// The volume at /data is the new one; the old one is at /srv/pg and nowhere else.
fn swapped(agent: &Agent<'_>, guest: &Guest<'_>) {
    let volumes = agent.cli(&["volume", "list"]).unwrap();
    for (name, at) in [("extra", "/data"), ("data", "/srv/pg")] {
        let volume = volumes
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == name);
        let id = volume.unwrap()["id"].as_str().unwrap();
        let script = format!(
            "findmnt -n -o TARGET -S $(readlink -f /dev/disk/by-id/virtio-{id}); \
             awk '$1 ~ /{id}/ {{ print $2 }}' /etc/fstab"
        );
        let places = guest.run(&script).unwrap();
        assert_eq!(places, format!("{at}\n{at}\n"), "{name}");
    }
    assert_eq!(guest.run("cat /srv/pg/file").unwrap(), "precious\n");
    guest.run("! test -e /data/file").unwrap();
    // A mount by hand stays, and nothing failed on the way.
    guest
        .run("umount /data && mount /data && sleep 3 && mountpoint /data")
        .unwrap();
    let failed = guest.run("systemctl --failed --plain --no-legend").unwrap();
    assert_eq!(failed, "", "failed units");
    assert_prompt(guest);
}

/// The boot has not waited for a disk that is not there, which systemd does for 90 s.
fn assert_prompt(guest: &Guest<'_>) {
    let script = "systemctl show -p ActiveEnterTimestampMonotonic --value local-fs.target";
    let reached: u64 = guest.run(script).unwrap().trim().parse().unwrap();
    assert!(reached < 90_000_000, "local-fs.target after {reached} us");
}

/// 22 open, 80 closed with something listening, opened, closed; the open session does not notice.
fn firewall(agent: &Agent<'_>, guest: &Guest<'_>) {
    let mut session = guest.session().unwrap();
    guest
        .run("systemd-run --quiet --unit web python3 -m http.server --bind :: 80 && \
              for i in $(seq 100); do ss -Hltn sport = 80 | grep -q . && exit; sleep .3; done; exit 1")
        .unwrap();
    let open = |port| guest.port_open(port).unwrap();
    assert!(open(22));
    assert!(!open(80), "80 is open to everybody");
    agent
        .cli(&["instance", "firewall", "web", "--allow", "80"])
        .unwrap();
    assert!(open(80));
    session.alive().unwrap();
    agent
        .cli(&["instance", "firewall", "web", "--deny", "80"])
        .unwrap();
    assert!(!open(80), "80 stays open");
    session.alive().unwrap();
}

/// `kill -9`, and a graceful end: the guest runs on, the open session too.
fn agent_dies(agent: &mut Agent<'_>, guest: &Guest<'_>) {
    let mut session = guest.session().unwrap();
    let boot = guest.boot_id().unwrap();
    let qemu = agent.show("web").unwrap()["pid"].clone();
    for graceful in [false, true] {
        if graceful {
            assert!(
                agent.terminate().unwrap().success(),
                "SIGTERM is a normal end"
            );
        } else {
            agent.kill().unwrap();
        }
        session.alive().unwrap();
        assert_eq!(guest.boot_id().unwrap(), boot, "the guest needs no agent");
        agent.restart().unwrap();
        let view = agent.show("web").unwrap();
        assert_eq!(
            (&view["phase"], &view["pid"]),
            (&"running".into(), &qemu),
            "{view}"
        );
        session.alive().unwrap();
        assert_eq!(guest.boot_id().unwrap(), boot);
    }
}

fn wait_reboot(guest: &Guest<'_>, boot: &str) {
    wait_for("another boot", BOOT_PATIENCE, || {
        let now = guest.boot_id()?;
        Ok((now != boot).then_some(()))
    })
    .unwrap();
}

#[test]
fn doctor_says_what_guests_run_on() {
    let host = Host::new(Uplink::Routed).unwrap();
    let agent = Agent::start(&host, &[]).unwrap();
    // Its exit status tells whether something is missing; what it says is looked at here.
    let output = agent
        .cli_command(&["--json", "doctor"])
        .unwrap()
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = |id: &str| {
        let all = checks.as_array().unwrap();
        all.iter()
            .find(|c| c["id"] == id)
            .unwrap_or_else(|| panic!("no check {id}"))
            .clone()
    };
    let (kvm, accel) = (find("kvm"), find("accel"));
    let chosen = agent.cli(&["status"]).unwrap()["accel"]
        .as_str()
        .unwrap()
        .to_owned();
    // Real KVM is used; what is missing or emulated is not, and both say so.
    let expected = if kvm["status"] == "ok" { "kvm" } else { "tcg" };
    assert_eq!(chosen, expected, "{kvm} {accel}");
    assert!(
        accel["found"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains(expected),
        "{accel}"
    );
    if Path::new("/dev/kvm").exists() {
        // A device that is there was run and timed.
        assert!(kvm["found"].as_str().unwrap().contains("MIPS"), "{kvm}");
    }
    for id in ["qemu", "nftables"] {
        assert_eq!(find(id)["status"], "ok");
    }
}
