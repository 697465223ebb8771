//! Ten instances at once, adopted at once, deleted at once; and the host is as before.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::{collections::BTreeMap, thread};

use serde_json::Value;
use tests::harness::{Agent, BOOT_PATIENCE, Host, Snapshot, Tiny, Uplink, images};

const COUNT: usize = 10;

/// The instances' process ids by name.
fn running(agent: &Agent<'_>) -> BTreeMap<String, u64> {
    let list = agent.cli(&["instance", "list"]).unwrap();
    let list = list
        .as_array()
        .or_else(|| list["instances"].as_array())
        .unwrap()
        .clone();
    list.iter()
        .filter(|view| view["phase"] == "running")
        .map(|view| {
            (
                view["name"].as_str().unwrap().to_owned(),
                view["pid"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn ten_at_once() {
    let host = Host::new(Uplink::Routed).unwrap();
    let image = images::tiny(|line| println!("{line}")).unwrap();
    let mut agent = Agent::start(&host, &["[limits]", "vcpus = 64"]).unwrap();
    agent.import("tiny:1", &image).unwrap();
    let before = Snapshot::take(&host, Some(&agent)).unwrap();

    let each = |work: &(dyn Fn(&str) -> Value + Sync)| -> Vec<Value> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..COUNT)
                .map(|i| scope.spawn(move || work(&format!("vm-{i}"))))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    };
    let create = |name: &str| {
        agent
            .create(name, "tiny:1", &["--wait", "--timeout=900"])
            .unwrap_or_else(|e| {
                let logs = agent.cli_text(&["instance", "logs", name]);
                panic!("{e}\n{}", logs.unwrap_or_else(|e| e.to_string()))
            })
    };
    let views = each(&create);
    // Each answers at its own address.
    let addresses: BTreeMap<&str, &Value> = views
        .iter()
        .map(|v| (v["ipv6"].as_str().unwrap(), &v["name"]))
        .collect();
    assert_eq!(addresses.len(), COUNT, "{addresses:?}");
    for address in addresses.keys() {
        Tiny::connect(host.internet(), address, BOOT_PATIENCE)
            .unwrap()
            .tell("uptime")
            .unwrap();
    }
    let processes = running(&agent);
    assert_eq!(processes.len(), COUNT);

    agent.kill().unwrap();
    let took = agent.restart().unwrap();
    println!("{COUNT} running guests adopted; the agent answers {took:?} after its start");
    assert_eq!(
        running(&agent),
        processes,
        "other processes, or not all are running"
    );

    let delete = |name: &str| {
        agent
            .cli(&[
                "instance",
                "delete",
                name,
                "--force",
                "--wait",
                "--timeout",
                "300",
            ])
            .unwrap()
    };
    each(&delete);
    let differences = before.differences(&Snapshot::take(&host, Some(&agent)).unwrap());
    assert!(
        differences.is_empty(),
        "left behind:\n{}",
        differences.join("\n")
    );
    assert!(agent.terminate().unwrap().success());
}
