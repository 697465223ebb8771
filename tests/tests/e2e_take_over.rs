//! An upgrade: the database, the files and the running virtual machines of an older agent are
//! taken over by today's, and no guest notices.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::{fs, thread, time::Duration};

use serde_json::Value;
use tests::harness::{
    Agent, BOOT_PATIENCE, Host, PATIENCE, Snapshot, Tiny, Uplink, images, old_agent, run, wait_for,
};

/// The agent that is taken over from: the last of the first operators' release, whose records have
/// no owner.
const OLD: &str = "f97a9b4";

/// What of an instance an upgrade must leave as it is.
const LASTING: &[&str] = &[
    "id",
    "name",
    "phase",
    "pid",
    "ipv6",
    "mac",
    "vcpus",
    "memory_mib",
    "disk_mib",
    "image",
    "image_digest",
    "firmware",
    "ports",
];

fn create(agent: &Agent<'_>, name: &str, more: &[&str]) -> Value {
    let wait = ["--wait", "--timeout=900"];
    agent
        .create(name, "tiny:1", &[&wait, more].concat())
        .unwrap()
}

fn uptime(guest: &mut Tiny) -> f64 {
    guest.tell("uptime").unwrap().parse().unwrap()
}

/// A process, and when it started: the same for as long as it lives.
fn identity(agent: &Agent<'_>, view: &Value) -> (u32, String) {
    let pid = agent.outer_pid(view["pid"].as_u64().unwrap()).unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    (pid, fields.split_whitespace().nth(19).unwrap().to_owned())
}

fn take_over(end: impl FnOnce(&mut Agent<'_>)) {
    let Some(old) = old_agent::program(OLD).unwrap() else {
        skip::skip!(
            "git-history",
            "the history has no commit {OLD}: a shallow clone"
        );
    };
    let host = Host::new(Uplink::Routed).unwrap();
    let image = images::tiny(|line| println!("{line}")).unwrap();
    let mut agent = Agent::start_program(&host, &old, &[]).unwrap();
    agent.import("tiny:1", &image).unwrap();
    let empty = Snapshot::take(&host, Some(&agent)).unwrap();

    // What the old one leaves: a guest that runs, with a volume and a port of its own; one that is
    // stopped; a volume that no instance has.
    let runs = create(&agent, "runs", &["--volume=data:/data:1"]);
    create(&agent, "rests", &["--no-start"]);
    agent
        .cli(&["volume", "create", "spare", "--size=1"])
        .unwrap();
    let address = runs["ipv6"].as_str().unwrap();
    let mut guest = Tiny::connect(host.internet(), address, BOOT_PATIENCE).unwrap();
    let before = agent.show("runs").unwrap();
    let qemu = identity(&agent, &before);
    let up = uptime(&mut guest);

    end(&mut agent);
    agent.upgrade().unwrap();

    adopted(&agent, &before, &qemu);
    assert!(
        uptime(&mut guest) >= up,
        "the connection is the one from before"
    );
    repaired(&host, &agent, &mut guest);
    assert_eq!(identity(&agent, &before), qemu, "a repair restarts nothing");
    volumes(&agent);
    drop(guest);
    restarted(&host, &agent, &qemu);
    gone(&host, &agent, &empty);
}

/// The records and the virtual machine are those from before.
fn adopted(agent: &Agent<'_>, before: &Value, qemu: &(u32, String)) {
    let after = agent.wait_phase("runs", "running", PATIENCE).unwrap();
    for key in LASTING {
        assert!(!before[key].is_null(), "{key}: {before}");
        assert_eq!(after[key], before[key], "{key}: {after}");
    }
    let seconds = |view: &Value| view["uptime_seconds"].as_u64().unwrap();
    assert!(seconds(&after) >= seconds(before), "{after}");
    assert_eq!(identity(agent, &after), *qemu);
    // The old agent kept no record of it: its QEMU is asked.
    let machine = wait_for("the machine type", PATIENCE, || {
        let view = agent.show("runs")?;
        Ok(view["machine"].as_str().map(str::to_owned))
    });
    assert!(machine.unwrap().starts_with("pc-q35-"));
    let list = agent.cli(&["instance", "list"]).unwrap();
    let list = list.as_array().or_else(|| list["instances"].as_array());
    let names = list
        .unwrap()
        .iter()
        .map(|view| view["name"].as_str().unwrap());
    assert_eq!(
        names.collect::<std::collections::BTreeSet<_>>(),
        ["rests", "runs"].into()
    );
    assert_eq!(agent.show("rests").unwrap()["phase"], "stopped");
    let data = agent.cli(&["volume", "show", "data"]).unwrap();
    assert_eq!(data["instance"], before["name"], "{data}");
    let spare = agent.cli(&["volume", "show", "spare"]).unwrap();
    assert_eq!(spare["instance"], Value::Null, "{spare}");
}

/// The tap of a QEMU that the old agent started is made again, and so are the firewall's rules.
fn repaired(host: &Host, agent: &Agent<'_>, guest: &mut Tiny) {
    let command =
        |program: &str, words: &[&str]| run(host.namespace().net_command(program).args(words));
    let links = command("ip", &["-o", "link"]).unwrap();
    let tap = links
        .split_whitespace()
        .find(|word| word.starts_with("vmtap"))
        .unwrap()
        .trim_end_matches(':')
        .to_owned();
    command("ip", &["link", "delete", &tap]).unwrap();
    command("nft", &["flush", "ruleset"]).unwrap();
    wait_for("the tap", PATIENCE, || {
        Ok(command("ip", &["link", "show", &tap]).ok())
    })
    .unwrap();
    uptime(guest);
    let events = agent.cli_text(&["events", "--instance=runs"]).unwrap();
    assert!(events.contains("tap-repaired"), "{events}");
}

/// A volume that was made by the old agent is plugged into the running guest, and out again.
fn volumes(agent: &Agent<'_>) {
    agent.cli(&["volume", "attach", "spare", "runs"]).unwrap();
    let spare = agent.cli(&["volume", "show", "spare"]).unwrap();
    assert_eq!(spare["instance"], "runs", "{spare}");
}

/// Stop, start and restart of what the old agent started, and a start of what it had stopped.
fn restarted(host: &Host, agent: &Agent<'_>, qemu: &(u32, String)) {
    let reached = |name: &str| {
        let view = agent.wait_phase(name, "running", PATIENCE).unwrap();
        let address = view["ipv6"].as_str().unwrap();
        let mut guest = Tiny::connect(host.internet(), address, BOOT_PATIENCE).unwrap();
        uptime(&mut guest);
        view
    };
    agent
        .cli(&[
            "instance",
            "restart",
            "runs",
            "--force",
            "--wait",
            "--timeout=900",
        ])
        .unwrap();
    let view = reached("runs");
    assert_ne!(identity(agent, &view), *qemu);
    agent
        .cli(&["instance", "stop", "runs", "--force", "--wait"])
        .unwrap();
    for name in ["runs", "rests"] {
        agent.cli(&["instance", "start", name]).unwrap();
        reached(name);
    }
    // The disk image of the old agent is still known: one more instance is made from it.
    create(agent, "new", &[]);
    reached("new");
}

/// Everything is deleted, and the host is as before the first instance.
fn gone(host: &Host, agent: &Agent<'_>, empty: &Snapshot) {
    for name in ["runs", "rests", "new"] {
        agent
            .cli(&[
                "instance",
                "delete",
                name,
                "--force",
                "--wait",
                "--timeout=300",
            ])
            .unwrap();
    }
    for volume in ["data", "spare"] {
        agent.cli(&["volume", "delete", volume]).unwrap();
    }
    // A deleted instance's network goes with the next comparison at the latest.
    let mut left = Vec::new();
    for _ in 0..20 {
        left = empty.differences(&Snapshot::take(host, Some(agent)).unwrap());
        // Of the rules only what is a guest's counts, as the new agent's are others than the
        // old one's; and it keeps a reserve on the disk, and a place to unpack images in.
        left.retain(|line| {
            let of_a_guest = (0..10).any(|tap| line.contains(&format!("vmtap{tap}")));
            let of_the_node = ["+ file: state/reserve", "+ file: state/images/unpacked"];
            (of_a_guest || !line.contains(" nft: ")) && !of_the_node.contains(&line.as_str())
        });
        if left.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

#[test]
fn from_an_agent_that_was_stopped() {
    take_over(|agent| assert!(agent.terminate().unwrap().success()));
}

#[test]
fn from_an_agent_that_was_killed() {
    take_over(|agent| agent.kill().unwrap());
}
