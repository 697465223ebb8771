//! The agent comes back to a host that is not as it left it: nobody's processes and files, a
//! rebooted host, a lost database.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::{fs, path::Path, process::Command, time::Duration};

use rusqlite::Connection;
use serde_json::Value;
use tests::harness::{
    Agent, BOOT_PATIENCE, Host, PATIENCE, Snapshot, Tiny, Uplink, images, run, wait_for,
};

fn start(host: &Host) -> Agent<'_> {
    let image = images::tiny(|line| println!("{line}")).unwrap();
    let agent = Agent::start(host, &[]).unwrap();
    agent.import("tiny:1", &image).unwrap();
    agent
}

fn create(agent: &Agent<'_>, name: &str, more: &[&str]) -> Value {
    agent.create(name, "tiny:1", more).unwrap()
}

fn database(host: &Host) -> Connection {
    let database = Connection::open(host.dir().join("state/agent.db")).unwrap();
    database.pragma_update(None, "foreign_keys", "OFF").unwrap();
    database
}

fn touch(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "somebody's").unwrap();
}

#[test]
fn what_no_record_owns_goes_and_the_rest_stays() {
    let host = Host::new(Uplink::Routed).unwrap();
    let mut agent = start(&host);
    let kept = create(&agent, "kept", &["--wait", "--timeout=900"]);
    let address = kept["ipv6"].as_str().unwrap();
    let mut guest = Tiny::connect(host.internet(), address, BOOT_PATIENCE).unwrap();
    let kept = agent.show("kept").unwrap();
    let before = Snapshot::take(&host, Some(&agent)).unwrap();

    let lost = create(&agent, "lost", &["--volume=gone:/data:1"]);
    let lost = agent
        .wait_phase(lost["name"].as_str().unwrap(), "running", PATIENCE)
        .unwrap();
    let pid = lost["pid"].as_u64().unwrap();
    agent.kill().unwrap();
    {
        let database = database(&host);
        database
            .execute("DELETE FROM instances WHERE name = 'lost'", [])
            .unwrap();
        database.execute("DELETE FROM volumes", []).unwrap();
    }
    let state = host.dir().join("state");
    let strangers = [
        state.join("instances/backup/root.qcow2"),
        state.join("volumes/notes.txt"),
        state.join(format!("instances/{}/thesis.tex", "ab".repeat(32))),
        host.dir().join("run/vm/notes"),
    ];
    strangers.iter().for_each(|path| touch(path));

    agent.restart().unwrap();
    // The network's left-overs go with the first comparison.
    wait_for("the host as it was", PATIENCE, || {
        let mut differences = before.differences(&Snapshot::take(&host, Some(&agent))?);
        let dirs = ["backup", &"ab".repeat(32)];
        differences.retain(|d| {
            let planted = strangers
                .iter()
                .any(|s| s.ends_with(d.trim_start_matches("+ file: ")));
            // It has another parent since the agent died.
            let adopted = d.contains("process: ") && d.contains(kept["id"].as_str().unwrap_or("?"));
            !planted && !adopted && !dirs.iter().any(|dir| d.ends_with(dir))
        });
        if differences.is_empty() {
            Ok(Some(()))
        } else {
            Err(differences.join("\n").into())
        }
    })
    .unwrap();
    assert!(agent.outer_pid(pid).is_err(), "the orphan runs");
    for path in &strangers {
        assert!(path.exists(), "{} was not ours to remove", path.display());
    }
    assert_eq!(agent.show("kept").unwrap()["pid"], kept["pid"]);
    guest.tell("uptime").unwrap();

    let log = agent.log();
    for word in [
        "removed: process",
        "removed: instance",
        "removed: volume",
        "left alone: ",
    ] {
        assert!(log.contains(word), "{word} is not in the log");
    }
    let kinds: Vec<String> = database(&host)
        .prepare("SELECT kind || ' ' || (data ->> 'kind') FROM events WHERE data ->> 'kind' <> ''")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for kind in [
        "orphan-removed process",
        "orphan-removed volume",
        "unknown-left-alone volume",
    ] {
        assert!(
            kinds.iter().any(|k| k == kind),
            "{kind} is not in {kinds:?}"
        );
    }
}

#[test]
fn after_a_reboot_of_the_host_what_ran_runs_again() {
    let host = Host::new(Uplink::Routed).unwrap();
    let mut agent = start(&host);
    for name in ["runs", "rests"] {
        create(&agent, name, &[]);
        agent.wait_phase(name, "running", PATIENCE).unwrap();
    }
    agent
        .cli(&["instance", "stop", "rests", "--force", "--wait"])
        .unwrap();
    let runs = agent.show("runs").unwrap();
    let qemu = agent.outer_pid(runs["pid"].as_u64().unwrap()).unwrap();
    agent.kill().unwrap();
    run(Command::new("kill").args(["-9", &qemu.to_string()])).unwrap();
    // What a reboot does: another boot id, an empty /run, no table.
    let old = "json_set(process, '$.boot_id', 'the boot before')";
    database(&host)
        .execute(&format!("UPDATE instances SET process = {old}"), [])
        .unwrap();
    fs::remove_dir_all(host.dir().join("run")).unwrap();
    run(host
        .namespace()
        .net_command("nft")
        .args(["flush", "ruleset"]))
    .unwrap();

    agent.restart().unwrap();
    let again = wait_for("the instance that ran", PATIENCE, || {
        let view = agent.show("runs")?;
        Ok((view["phase"] == "running" && view["pid"] != runs["pid"]).then_some(view))
    })
    .unwrap();
    assert_eq!(again["restarts"], 0, "a reboot is no crash: {again}");
    let address = again["ipv6"].as_str().unwrap();
    Tiny::connect(host.internet(), address, BOOT_PATIENCE)
        .unwrap()
        .tell("uptime")
        .unwrap();
    assert_eq!(agent.show("rests").unwrap()["phase"], "stopped");
}

#[test]
fn disks_whose_records_are_lost_are_not_touched_and_a_second_agent_refuses() {
    let host = Host::new(Uplink::Routed).unwrap();
    let mut agent = start(&host);
    let view = create(&agent, "dear", &["--no-start", "--wait"]);
    let root = format!(
        "state/instances/{}/root.qcow2",
        view["id"].as_str().unwrap()
    );
    let root = host.dir().join(root);
    assert!(root.exists());

    let refused = |what: &str| {
        let mut serve = agent.cli_command(&["serve"]).unwrap();
        let output = serve.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(what), "{said}");
    };
    refused("another agent is using");
    agent.cli(&["status"]).unwrap();

    agent.terminate().unwrap();
    let (database, away) = (
        host.dir().join("state/agent.db"),
        host.dir().join("agent.db"),
    );
    fs::rename(&database, &away).unwrap();
    let output = agent.cli_command(&["serve"]).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("nothing was removed"),
        "{said}"
    );
    assert!(root.exists());
    fs::rename(&away, &database).unwrap();
    agent.restart().unwrap();
    agent.cli(&["instance", "start", "dear"]).unwrap();
    agent
        .wait_phase("dear", "running", Duration::from_secs(60))
        .unwrap();
}
