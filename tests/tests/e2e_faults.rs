//! What goes wrong on a node, as an operator sees it: `status` and `doctor` name each condition, and
//! the same ones, as long as it lasts and no longer; and what docs/operations.md says to do helps.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::harness::{
    Agent, BOOT_PATIENCE, FileServer, Host, PATIENCE, PREFIX, Tiny, Uplink, images, run, wait_for,
};

fn start<'a>(host: &'a Host, more: &[&str]) -> Agent<'a> {
    let image = images::tiny(|line| println!("{line}")).unwrap();
    let agent = Agent::start(host, more).unwrap();
    agent.import("tiny:1", &image).unwrap();
    agent
}

fn create(agent: &Agent<'_>, name: &str, image: &str) -> Value {
    let ports = ["--allowed-ports=22,80"];
    agent.create(name, image, &ports).unwrap()
}

fn connect(host: &Host, agent: &Agent<'_>, name: &str) -> Tiny {
    let view = agent.show(name).unwrap();
    let address = view["ipv6"].as_str().unwrap();
    Tiny::connect(host.internet(), address, BOOT_PATIENCE).unwrap()
}

/// On the host.
fn sh(host: &Host, script: &str) -> String {
    run(host.namespace().net_command("sh").args(["-c", script])).unwrap()
}

/// The sentences of `status`, by kinds.
fn warnings(agent: &Agent<'_>) -> Vec<(String, String)> {
    let status = agent.cli(&["status"]).unwrap();
    let list = status["warnings"].as_array().unwrap();
    let text = |w: &Value, key: &str| w[key].as_str().unwrap().to_owned();
    list.iter()
        .map(|w| (text(w, "kind"), text(w, "message")))
        .collect()
}

/// A line of `doctor`, as what was found.
fn doctor(agent: &Agent<'_>, id: &str) -> (String, String) {
    let mut command = agent.cli_command(&["--json", "doctor"]).unwrap();
    // It exits with 1 on a machine that lacks something.
    let output = command.output().unwrap();
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = checks.as_array().unwrap();
    let check = checks.iter().find(|c| c["id"] == id).unwrap();
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("status"), text("found"))
}

/// Waits until `status` names a condition, and holds `doctor` to it.
fn named(agent: &Agent<'_>, kind: &str, word: &str) {
    let message = wait_for(&format!("{kind} in status"), PATIENCE, || {
        let all = warnings(agent);
        let found = all.iter().find(|(k, m)| k == kind && m.contains(word));
        match found {
            Some((_, message)) => Ok(Some(message.clone())),
            None => Err(format!("{all:?}").into()),
        }
    })
    .unwrap();
    let (status, found) = doctor(agent, "agent");
    assert_eq!(status, "degraded", "{found}");
    assert!(found.contains(&message), "{found} does not say: {message}");
}

/// Waits until nothing is named any more.
fn nothing_named(agent: &Agent<'_>) {
    wait_for("a status without warnings", PATIENCE, || {
        let all = warnings(agent);
        let network = all.iter().filter(|(_, m)| !m.contains("not limited"));
        let left: Vec<_> = network.collect();
        match left.is_empty() {
            true => Ok(Some(())),
            false => Err(format!("{left:?}").into()),
        }
    })
    .unwrap();
    for id in ["other-firewalls", "uplink", "ipv6-forwarding"] {
        let (status, found) = doctor(agent, id);
        assert_eq!(status, "ok", "{id}: {found}");
    }
}

fn events(agent: &Agent<'_>) -> String {
    agent.cli_text(&["events"]).unwrap()
}

/// The rows of faults of the network that can be seen: N1 to N6, N10 to N13, N22.
#[test]
fn status_and_doctor_name_every_condition_and_no_other() {
    let host = Host::new(Uplink::Routed).unwrap();
    sh(&host, "ip link set eth0 mtu 1400");
    let mut agent = start(&host, &["reconcile_seconds = 1"]);
    create(&agent, "a", "tiny:1");
    let mut guest = connect(&host, &agent, "a");
    nothing_named(&agent);

    // N3: the guest has the MTU of the path, on both ends of its cable.
    let (status, found) = doctor(&agent, "mtu");
    assert!(status == "ok" && found.contains("1400"), "{found}");
    assert!(sh(&host, "ip link show vmtap0").contains("mtu 1400"));
    let qemu = agent.show("a").unwrap()["pid"].as_u64().unwrap();
    let qemu = agent.outer_pid(qemu).unwrap();
    let line = fs::read(format!("/proc/{qemu}/cmdline")).unwrap();
    assert!(String::from_utf8_lossy(&line).contains("\"host_mtu\":1400"));

    // N4, N4b, N4c: tables of others that drop what guests need, made after the agent's start.
    for (table, rules) in [
        (
            "inet firewalld",
            "chain f { type filter hook forward priority 10; policy accept; \
             ct state established,related accept; reject; }",
        ),
        (
            "ip6 filter",
            "chain FORWARD { type filter hook forward priority 0; policy drop; }",
        ),
        (
            "inet hand",
            "chain input { type filter hook input priority 0; policy drop; tcp dport 22 accept; }",
        ),
    ] {
        sh(&host, &format!("nft 'table {table} {{ {rules}; }}'"));
        named(&agent, "other-firewall", table);
        let (status, found) = doctor(&agent, "other-firewalls");
        assert!(status == "degraded" && found.contains(table), "{found}");
        sh(&host, &format!("nft delete table {table}"));
        nothing_named(&agent);
    }
    // N4d: no routed packet meets a bridge's table.
    let bridge = "chain f { type filter hook forward priority 0; policy drop; }";
    sh(&host, &format!("nft 'table bridge br {{ {bridge}; }}'"));
    thread::sleep(Duration::from_secs(3));
    nothing_named(&agent);

    // N2: a setting is put back, and told as an event.
    sh(&host, "echo 0 > /proc/sys/net/ipv6/conf/eth0/forwarding");
    wait_for("forwarding", PATIENCE, || {
        let on = sh(&host, "cat /proc/sys/net/ipv6/conf/eth0/forwarding");
        Ok((on.trim() == "1").then_some(()))
    })
    .unwrap();
    assert!(events(&agent).contains("network-repaired"));

    // N1, N12: no default route.
    let route = sh(&host, "ip -6 route show default");
    sh(&host, "ip -6 route del default");
    named(&agent, "no-uplink", "default route");
    assert_eq!(doctor(&agent, "uplink").0, "degraded");
    sh(&host, &format!("ip -6 route add {}", route.trim()));
    nothing_named(&agent);

    // N10, N11: the uplink is gone, and another thing is broken: that is repaired all the same.
    sh(
        &host,
        "echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down; \
         ip link set eth0 down; ip link set eth0 name gone0",
    );
    let address = format!("{}/128", agent.show("a").unwrap()["ipv6"].as_str().unwrap());
    sh(&host, &format!("ip -6 route del {address} || true"));
    sh(&host, "ip link set vmtap0 down");
    named(&agent, "uplink-missing", "eth0");
    assert_eq!(doctor(&agent, "uplink").0, "degraded");
    wait_for("the tap", PATIENCE, || {
        Ok(sh(&host, "ip link show vmtap0")
            .contains(",UP")
            .then_some(()))
    })
    .unwrap();
    sh(&host, "ip link set gone0 name eth0; ip link set eth0 up");
    sh(&host, &format!("ip -6 route replace {}", route.trim()));
    nothing_named(&agent);
    wait_for("the guest", PATIENCE, || guest.tell("uptime").map(Some)).unwrap();

    // N22: a tap that is put back is as fast as before.
    let before = frames_of_a_download(&host, &mut guest);
    sh(&host, "ip link del vmtap0");
    wait_for("the tap", PATIENCE, || {
        Ok(sh(&host, "ip link show vmtap0 || true")
            .contains("vmtap0")
            .then_some(()))
    })
    .unwrap();
    let after = wait_for("the guest", PATIENCE, || guest.tell("uptime").map(Some))
        .map(|_| frames_of_a_download(&host, &mut guest))
        .unwrap();
    assert!(before > 2000 && after > 2000, "{before} and {after} bytes");
    assert!(events(&agent).contains("tap-repaired"));

    // N5: a second agent, with directories of its own, refuses; `doctor` names the first.
    let (first, second) = (
        host.dir().join("config.toml"),
        host.dir().join("second.toml"),
    );
    let text = fs::read_to_string(&first).unwrap();
    let text = text
        .replace("/state\"", "/state2\"")
        .replace("/run\"", "/run2\"");
    fs::write(&second, format!("{text}table = \"crn_two\"\n")).unwrap();
    let elsewhere = |arguments: &[&str]| {
        let command = agent.cli_command(arguments).unwrap();
        let swap = |word| {
            if word == first.as_os_str() {
                second.as_os_str()
            } else {
                word
            }
        };
        let mut other = Command::new(command.get_program());
        other.args(command.get_args().map(swap));
        other.output().unwrap()
    };
    let checks = String::from_utf8(elsewhere(&["--json", "doctor"]).stdout).unwrap();
    assert!(
        checks.contains("is not the agent of this configuration"),
        "{checks}"
    );
    let output = elsewhere(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("another agent is using"),
        "{said}"
    );
    nothing_named(&agent);

    // N6: the run directory was wiped while nobody looked.
    agent.kill().unwrap();
    fs::remove_dir_all(host.dir().join("run")).unwrap();
    agent.restart().unwrap();
    named(&agent, "instances", "monitor");
    agent.cli(&["instance", "stop", "a", "--wait"]).unwrap();
    assert!(events(&agent).contains("ended-by-signal"));
    nothing_named(&agent);
    agent.cli(&["instance", "start", "a"]).unwrap();
    agent.wait_phase("a", "running", PATIENCE).unwrap();

    prefix_changed(&host, &mut agent);
}

/// How many bytes a tap's frames toward its guest have, on the average, while a megabyte is sent.
fn frames_of_a_download(host: &Host, guest: &mut Tiny) -> u64 {
    let sent = || {
        let listing = sh(host, "ip -s link show vmtap0");
        let mut after = listing.lines().skip_while(|l| !l.trim().starts_with("TX:"));
        let numbers: Vec<u64> = after
            .nth(1)
            .unwrap()
            .split_whitespace()
            .take(2)
            .map(|n| n.parse().unwrap())
            .collect();
        (numbers[0], numbers[1])
    };
    // Once is enough: it goes on listening.
    let _ = guest.tell("listen 80");
    let to = SocketAddr::from((guest.address(), 80));
    let (bytes, frames) = sent();
    host.internet()
        .namespace()
        .enter(move || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            let mut echo = stream.try_clone()?;
            let reader = thread::spawn(move || {
                let mut back = vec![0; 1 << 20];
                echo.read_exact(&mut back)
            });
            stream.write_all(&vec![7; 1 << 20])?;
            reader.join().map_err(|_| "the reader panicked")??;
            Ok(())
        })
        .unwrap();
    let (bytes_after, frames_after) = sent();
    (bytes_after - bytes) / (frames_after - frames)
}

/// N13: the prefix was changed: that is told, and an instance's next start renumbers it.
fn prefix_changed(host: &Host, agent: &mut Agent<'_>) {
    let old = agent.show("a").unwrap()["ipv6"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = host.dir().join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    let other = "2001:db8:77:1::/64";
    fs::write(&file, text.replace(PREFIX, other)).unwrap();
    run(host
        .internet()
        .namespace()
        .net_command("ip")
        .args(["-6", "route", "add", other, "via"])
        .arg(host.address().to_string()))
    .unwrap();
    agent.terminate().unwrap();
    agent.restart().unwrap();
    named(agent, "other-prefix", other);
    // Nothing is taken from it that it has.
    assert_eq!(agent.show("a").unwrap()["ipv6"], old.as_str());
    connect(host, agent, "a").tell("uptime").unwrap();

    agent.cli(&["instance", "restart", "a"]).unwrap();
    let new = wait_for("another address", PATIENCE, || {
        let view = agent.show("a")?;
        let address = view["ipv6"].as_str().unwrap_or_default().to_owned();
        Ok(address.starts_with("2001:db8:77:1:").then_some(address))
    })
    .unwrap();
    // The same id has the same place in it.
    let place = |address: &str| {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        address.segments()[4..].to_vec()
    };
    assert_eq!(place(&new), place(&old));
    connect(host, agent, "a").tell("uptime").unwrap();
    assert!(events(agent).contains("renumbered"));
    nothing_named(agent);
    let rules = sh(host, "nft list table inet crn_agent");
    assert!(!rules.contains(&old), "{rules}");
}

/// N18: told at once, by every command that shows it; tried again by itself.
#[test]
fn an_image_that_cannot_be_fetched_is_told_and_tried_again() {
    let host = Host::new(Uplink::Routed).unwrap();
    let image = images::tiny(|line| println!("{line}")).unwrap();
    let sum = run(Command::new("sha256sum").arg(&image)).unwrap();
    let digest = sum.split(' ').next().unwrap();
    let www = host.dir().join("www");
    fs::create_dir(&www).unwrap();
    let server = FileServer::start(host.internet(), &www).unwrap();
    let entry = |name: &str, file: &str, digest: &str| {
        format!(
            "[[images.catalogue]]\nname = \"{name}\"\nurl = \"{}\"\ndigest = \"sha256:{digest}\"\n",
            server.url(file)
        )
    };
    let catalogue = [
        entry("late:1", "late.qcow2", digest),
        entry("never:1", "never.qcow2", &"0".repeat(64)),
        entry("other:1", "other.qcow2", &"0".repeat(64)),
    ]
    .concat();
    let agent = Agent::start(&host, &[&catalogue]).unwrap();
    for (name, image) in [("late", "late:1"), ("never", "never:1")] {
        create(&agent, name, image);
    }
    for name in ["late", "never"] {
        let warning = wait_for("a warning", Duration::from_secs(20), || {
            let view = agent.show(name)?;
            let all = view["warnings"].as_array().cloned().unwrap_or_default();
            let found = all.into_iter().find(|w| w["kind"] == "image-unavailable");
            Ok(found)
        })
        .unwrap();
        let message = warning["message"].as_str().unwrap();
        assert!(message.contains("404"), "{message}");
        assert!(
            warning["since"].as_str().unwrap().starts_with("20"),
            "{warning}"
        );
    }
    let list = agent.cli_text(&["instance", "list"]).unwrap();
    assert_eq!(list.matches("no image").count(), 2, "{list}");
    let shown = agent.cli_text(&["instance", "show", "late"]).unwrap();
    assert!(shown.contains("404") && shown.contains("since"), "{shown}");
    named(&agent, "instances", "404");
    assert!(events(&agent).contains("image-unavailable"));

    // The publisher has it at last.
    fs::copy(&image, www.join("late.qcow2")).unwrap();
    let view = agent
        .wait_phase("late", "running", Duration::from_secs(120))
        .unwrap();
    let text = view["warnings"].to_string();
    assert!(!text.contains("image-unavailable"), "{text}");
    // Somebody helps: whoever waits goes on at once.
    agent.import("never:1", &image).unwrap();
    agent.wait_phase("never", "running", PATIENCE).unwrap();
    nothing_named(&agent);

    // What no other try can mend is a failure; mended, it is started again.
    fs::copy(&image, www.join("other.qcow2")).unwrap();
    create(&agent, "other", "other:1");
    let view = agent.wait_phase("other", "failed", PATIENCE).unwrap();
    let why = view["failure"]["message"].as_str().unwrap();
    assert!(why.contains("digest"), "{why}");
    agent.import("other:1", &image).unwrap();
    agent.cli(&["instance", "start", "other"]).unwrap();
    agent.wait_phase("other", "running", PATIENCE).unwrap();
}

/// Rows of docs/operations.md, "Recover", that are no faults of the network.
#[test]
fn what_the_recover_table_says_helps() {
    let host = Host::new(Uplink::Routed).unwrap();
    let mut agent = start(&host, &[]);
    create(&agent, "a", "tiny:1");
    agent.wait_phase("a", "running", PATIENCE).unwrap();

    // Backing off: `instance show` says why, `instance restart` tries at once.
    let killed = |agent: &Agent<'_>| {
        let pid = agent.show("a").unwrap()["pid"].as_u64().unwrap();
        let pid = agent.outer_pid(pid).unwrap().to_string();
        run(Command::new("kill").args(["-9", &pid])).unwrap();
    };
    // The pauses double from a second: the fifth is long enough to look at.
    for restarts in 1..=4 {
        killed(&agent);
        wait_for("another start", PATIENCE, || {
            let view = agent.show("a")?;
            let done = view["restarts"] == restarts && view["phase"] == "running";
            Ok((done && !view["pid"].is_null()).then_some(()))
        })
        .unwrap();
    }
    killed(&agent);
    let view = agent.wait_phase("a", "backing-off", PATIENCE).unwrap();
    let why = view["failure"]["message"].as_str().unwrap();
    assert!(why.contains("killed or crashed"), "{why}");
    agent.cli(&["instance", "restart", "a"]).unwrap();
    agent
        .wait_phase("a", "running", Duration::from_secs(10))
        .unwrap();

    let refused = |agent: &Agent<'_>, what: &str| {
        let output = agent.cli_command(&["serve"]).unwrap().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(what), "{said}");
    };
    let qemu = agent.show("a").unwrap()["pid"].clone();
    agent.terminate().unwrap();

    // A directory of somebody else's.
    let state = host.dir().join("state");
    let chown = |owner: &str| run(Command::new("chown").arg(owner).arg(&state)).unwrap();
    chown("12345");
    refused(&agent, "belongs to user");
    chown("root:");

    // A damaged database, with a copy.
    let (database, copy) = (state.join("agent.db"), host.dir().join("copy.db"));
    fs::copy(&database, &copy).unwrap();
    let mut broken = fs::read(&database).unwrap();
    broken[..4096].fill(0xff);
    fs::write(&database, broken).unwrap();
    refused(&agent, "database: ");
    fs::copy(&copy, &database).unwrap();
    // One of a newer agent's.
    let newer = rusqlite::Connection::open(&database).unwrap();
    newer.pragma_update(None, "user_version", 999).unwrap();
    drop(newer);
    refused(&agent, "database schema: ");
    fs::copy(&copy, &database).unwrap();
    agent.restart().unwrap();
    // Its machine ran on meanwhile.
    assert_eq!(agent.show("a").unwrap()["pid"], qemu);
}
