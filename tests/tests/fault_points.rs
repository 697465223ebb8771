//! The agent is killed at every step of create, start, stop and delete; the next
//! one must finish what was begun, without a blip in a guest and without a trace
//! too many. Built with the feature `fault-points`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::{collections::BTreeSet, time::Duration};

use crn_agent::testing::{client::ClientError, fault, qemu::plan::socket};
use crn_api_types::{Code, ErrorCode, InstanceView, Phase, VolumeState, WarningKind};
use rustix::process::Signal;
use serde_json::json;
use testbed::{
    network,
    proc::{self, kill},
};
use tests::harness::bare::{Agent, Host, Identity, PATIENCE};

/// Points that a create passes.
const CREATE: &[&str] = &[
    "persisted:preparing.image",
    "effected:preparing.image",
    "persisted:preparing.root-disk",
    "effected:preparing.root-disk",
    "persisted:preparing.volumes",
    "effected:preparing.volumes",
    "persisted:preparing.seed",
    "effected:preparing.seed",
    "persisted:starting.launch",
    "held:starting.launch",
    "recorded:starting.launch",
    "effected:starting.launch",
    "persisted:starting.monitor",
    "effected:starting.monitor",
    "persisted:running",
];

/// Points that the start of a stopped instance passes.
const START: &[&str] = &[
    "persisted:starting.launch",
    "held:starting.launch",
    "recorded:starting.launch",
    "effected:starting.launch",
    "persisted:starting.monitor",
    "effected:starting.monitor",
    "persisted:running",
];

/// Points that a stop passes when the guest obeys.
const STOP: &[&str] = &[
    "persisted:stopping.power-button",
    "effected:stopping.power-button",
    "persisted:stopping.quit",
    "effected:stopping.quit",
    "persisted:stopping.clean-up",
    "effected:stopping.clean-up",
    "persisted:stopped",
];

/// Points that it passes besides when QEMU hangs.
const STOP_OF_A_HANGING_QEMU: &[&str] = &["persisted:stopping.kill", "effected:stopping.kill"];

/// Points that the deletion of a running instance passes.
const DELETE: &[&str] = &[
    "persisted:stopping.quit",
    "effected:stopping.clean-up",
    "persisted:stopped",
    "persisted:deleting.clean-up",
    "effected:deleting.clean-up",
    "persisted:deleting.disks",
    "effected:deleting.disks",
    "persisted:deleting.record",
    "effected:deleting.record",
];

/// Points that are passed when QEMU dies.
const CRASH: &[&str] = &[
    "persisted:stopping.clean-up",
    "effected:stopping.clean-up",
    "persisted:backing-off",
];

/// Points that a volume passes on its way into a guest and out again.
const ATTACH: &[&str] = &["recorded:attach", "opened:attach"];
const DETACH: &[&str] = &["begun:detach", "unplugged:detach"];

/// Points that are passed when the image cannot be had.
const FAIL: &[&str] = &["persisted:failed"];

#[test]
fn every_fault_point_is_tried() {
    let tried = [
        CREATE,
        START,
        STOP,
        STOP_OF_A_HANGING_QEMU,
        DELETE,
        CRASH,
        ATTACH,
        DETACH,
        FAIL,
    ];
    let tried: BTreeSet<_> = tried.concat().into_iter().map(str::to_owned).collect();
    let all: BTreeSet<_> = fault::names().into_iter().collect();
    assert_eq!(tried, all);
}

/// What a running instance adds to the host, in numbers; to be the same each time.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    elements: usize,
    other: usize,
}

/// The traces of a host in which nothing lives, and what one instance adds.
struct Reference {
    clean: BTreeSet<String>,
    running: Footprint,
}

impl Reference {
    /// Taken from one instance whose agent was not killed.
    async fn of(host: &Host, agent: &Agent) -> Self {
        let clean = host.traces();
        agent.create("reference", json!({})).await.unwrap();
        let view = agent.reach("reference", "running").await;
        host.console(&view).uptime();
        let running = Self::added(host, &clean);
        assert!(running.elements > 0 && running.other > 0, "{running:?}");
        agent.delete("reference").await.unwrap();
        agent.gone("reference").await;
        Self { clean, running }.checked(host)
    }

    fn checked(self, host: &Host) -> Self {
        self.is_clean(host);
        self
    }

    fn added(host: &Host, clean: &BTreeSet<String>) -> Footprint {
        let traces = host.traces();
        let new: Vec<_> = traces.difference(clean).collect();
        let elements = new.iter().filter(|t| t.starts_with("nft")).count();
        Footprint {
            elements,
            other: new.len() - elements,
        }
    }

    /// The host is as if there had never been an instance.
    fn is_clean(&self, host: &Host) {
        assert_eq!(
            differences(&self.clean, &host.traces()),
            Vec::<String>::new()
        );
    }

    /// One instance runs, with all that belongs to it and nothing more.
    fn runs(&self, host: &Host, view: &InstanceView) -> Identity {
        let machines = host.machines();
        assert_eq!(machines.keys().collect::<Vec<_>>(), [&view.id]);
        let identity = machines[&view.id];
        assert_eq!(view.pid, Some(identity.0));
        let added = Self::added(host, &self.clean);
        let traces = host.traces();
        let new: Vec<_> = traces.difference(&self.clean).collect();
        assert_eq!(added, self.running, "{new:#?}");
        identity
    }

    /// One instance is stopped: only its disks are there.
    fn rests(&self, host: &Host, view: &InstanceView) {
        assert_eq!(host.machines().len(), 0);
        let dir = host.disk_dir(view).display().to_string();
        let traces = host.traces();
        let more: Vec<_> = traces
            .difference(&self.clean)
            .filter(|t| !t.starts_with(&dir))
            .collect();
        assert!(more.is_empty(), "{more:#?}");
        let report = disk::check(&host.disk_dir(view).join("root.qcow2")).unwrap();
        assert_eq!(report.corruptions, 0, "{report:?}");
    }
}

fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|t| format!("gone: {t}"));
    let new = after.difference(before).map(|t| format!("left: {t}"));
    gone.chain(new).collect()
}

/// Who was there when the agent died must be who is there now.
fn unharmed(before: Option<&Identity>, after: &Identity, point: &str) {
    if let Some(before) = before {
        assert_eq!(before, after, "{point}: the guest was started twice");
    }
}

/// Whether QEMU was given the word before the agent died there.
fn launched(point: &str) -> bool {
    match point.strip_suffix("starting.launch") {
        Some(kind) => kind == "effected:",
        None => !point.contains("preparing"),
    }
}

#[test]
fn killed_while_creating() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        let reference = Reference::of(&host, &agent).await;
        agent.kill();
        for point in CREATE {
            let armed = host.start_armed(point).await;
            // The answer may be lost with the agent; the intent is not.
            let _ = armed.create("web", json!({})).await;
            armed.killed_at_its_point().await;
            let before = host.machines();
            let agent = host.start().await;
            let view = agent.reach("web", "running").await;
            let identity = reference.runs(&host, &view);
            unharmed(before.get(&view.id), &identity, point);
            assert_eq!(before.contains_key(&view.id), launched(point), "{point}");
            agent.delete("web").await.unwrap();
            agent.gone("web").await;
            reference.is_clean(&host);
            agent.kill();
        }
    });
}

#[test]
fn killed_while_starting_and_stopping() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        let reference = Reference::of(&host, &agent).await;
        let volume = json!({"volumes": [{"name": "data", "mount": "/data", "size_mib": 64}],
                            "start": false});
        agent.create("web", volume).await.unwrap();
        agent.reach("web", "stopped").await;
        agent.kill();
        // The volume's file is there from now on; it is no trace too many.
        let reference = Reference {
            clean: {
                let mut clean = host.traces();
                clean.retain(|t| !t.contains("instances/"));
                clean.union(&reference.clean).cloned().collect()
            },
            ..reference
        };
        let mut starts = START.iter().cycle();
        for point in STOP.iter().chain(STOP_OF_A_HANGING_QEMU) {
            // Every stop needs a start before it: killed at one of its points too.
            let start = starts.next().unwrap();
            let armed = host.start_armed(start).await;
            let _ = armed.ask("web", "start", false).await;
            armed.killed_at_its_point().await;
            let before = host.machines();
            let agent = host.start().await;
            let view = agent.reach("web", "running").await;
            let identity = reference.runs(&host, &view);
            unharmed(before.get(&view.id), &identity, start);
            // Up, and so with an ear for the button.
            host.console(&view).uptime();
            agent.kill();

            let armed = host.start_armed(point).await;
            armed.reach("web", "running").await;
            let hanging = STOP_OF_A_HANGING_QEMU.contains(point);
            if hanging {
                kill(identity.0, Signal::STOP);
            }
            let _ = armed.ask("web", "stop", hanging).await;
            armed.killed_at_its_point().await;
            let agent = host.start().await;
            let view = agent.reach("web", "stopped").await;
            reference.rests(&host, &view);
            agent.kill();
        }
    });
}

#[test]
fn killed_while_deleting() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        let reference = Reference::of(&host, &agent).await;
        agent.kill();
        for point in DELETE {
            let agent = host.start().await;
            agent.create("web", json!({})).await.unwrap();
            let view = agent.reach("web", "running").await;
            reference.runs(&host, &view);
            agent.kill();
            let armed = host.start_armed(point).await;
            let _ = armed.delete("web").await;
            armed.killed_at_its_point().await;
            let agent = host.start().await;
            agent.gone("web").await;
            reference.is_clean(&host);
            agent.kill();
        }
    });
}

#[test]
fn killed_when_a_guest_crashed_or_failed() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        let reference = Reference::of(&host, &agent).await;
        agent.create("web", json!({})).await.unwrap();
        let view = agent.reach("web", "running").await;
        let mut identity = reference.runs(&host, &view);
        agent.kill();
        for point in CRASH {
            let armed = host.start_armed(point).await;
            armed.reach("web", "running").await;
            kill(identity.0, Signal::KILL);
            armed.killed_at_its_point().await;
            let agent = host.start().await;
            let view = agent.reach("web", "running").await;
            let next = reference.runs(&host, &view);
            assert_ne!(next, identity, "{point}");
            identity = next;
            agent.kill();
        }
        let agent = host.start().await;
        agent.delete("web").await.unwrap();
        agent.gone("web").await;
        reference.is_clean(&host);
        agent.kill();

        for point in FAIL {
            let armed = host.start_armed(point).await;
            let _ = armed.create("late", json!({"image": "late:1"})).await;
            armed.killed_at_its_point().await;
            let agent = host.start().await;
            let view = agent.reach("late", "failed").await;
            assert!(view.failure.is_some());
            reference.is_clean(&host);
            // The image can be had after all.
            let size = disk::ByteSize::from_mib(1);
            disk::create_volume(&host.path("late.qcow2"), size, disk::Format::Qcow2).unwrap();
            agent.ask("late", "start", false).await.unwrap();
            let view = agent.reach("late", "running").await;
            assert_eq!(host.machines().len(), 1);
            assert_eq!(view.failure, None);
        }
    });
}

/// The disks that QEMU has plugged in, asked while no agent holds its monitor.
async fn plugged(host: &Host, view: &InstanceView) -> BTreeSet<String> {
    let socket = host.run_dir(view).join(socket::QMP);
    let (qmp, _events) = qmp::Qmp::connect(&socket, &qmp::Config::default())
        .await
        .unwrap();
    let disks = qmp.execute_raw("query-block", json!(null)).await.unwrap();
    let disks = disks.as_array().unwrap().iter();
    disks
        .filter_map(|disk| disk["inserted"]["node-name"].as_str())
        .filter(|node| node.starts_with("vol-"))
        .map(str::to_owned)
        .collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    match result {
        Err(ClientError::Refused(detail)) => detail.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn killed_while_attaching_and_detaching() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        let identity = host.machines()[&view.id];
        // The guest lets go of a disk only when it is reset.
        let mut console = host.console(&view);
        console.uptime();
        let mut agent = agent;
        for (n, point) in ATTACH.iter().enumerate() {
            let name = format!("data-{n}");
            let volume = agent.create_volume(&name).await;
            agent.kill();
            let armed = host.start_armed(point).await;
            armed.reach("web", "running").await;
            let _ = armed.attach(&name, "web").await;
            armed.killed_at_its_point().await;
            agent = host.start().await;
            agent.reach("web", "running").await;
            let recorded = agent.volume(&name).await;
            assert_eq!(recorded.instance.as_deref(), Some("web"), "{point}");
            // An answer to the next request: what was begun is finished before.
            agent.attach(&name, "web").await.unwrap();
            agent.kill();
            let node = format!("vol-{}", volume.id);
            assert!(plugged(&host, &view).await.contains(&node), "{point}");
            agent = host.start().await;
        }
        agent.reach("web", "running").await;
        agent.kill();
        let armed = host.start_armed("begun:detach").await;
        armed.reach("web", "running").await;
        let _ = armed.detach("data-0").await;
        armed.killed_at_its_point().await;
        agent = host.start().await;
        agent.reach("web", "running").await;
        assert_eq!(agent.volume("data-0").await.state, VolumeState::Detaching);
        console.key('r');
        agent.freed("data-0").await;
        assert_eq!(host.machines()[&view.id], identity);

        agent.ask("web", "stop", true).await.unwrap();
        agent.reach("web", "stopped").await;
        for point in DETACH {
            agent.attach("data-0", "web").await.unwrap();
            agent.kill();
            let armed = host.start_armed(point).await;
            let _ = armed.detach("data-0").await;
            armed.killed_at_its_point().await;
            agent = host.start().await;
            agent.freed("data-0").await;
        }
    });
}

#[test]
fn a_volume_that_the_guest_holds_goes_when_it_can() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        agent.create("web", json!({})).await.unwrap();
        agent
            .create("other", json!({ "start": false }))
            .await
            .unwrap();
        let view = agent.reach("web", "running").await;
        let mut console = host.console(&view);
        console.uptime();
        agent.create_volume("data").await;
        agent.attach("data", "web").await.unwrap();
        assert_eq!(refusal(agent.detach("data").await), ErrorCode::Timeout);
        let volume = agent.volume("data").await;
        assert_eq!(volume.state, VolumeState::Detaching);
        assert_eq!(volume.instance.as_deref(), Some("web"));
        // Until then nobody else gets the file that QEMU has open.
        for holder in ["web", "other"] {
            let refused = refusal(agent.attach("data", holder).await);
            assert_eq!(refused, ErrorCode::Conflict, "{holder}");
        }
        // The guest's reset lets go of it, and QEMU closes it.
        console.key('r');
        agent.freed("data").await;
        let again = console.after("guest: hello", PATIENCE);
        again.expect("its last reset is over");
        let opened = || {
            let files = proc::descriptors(view.pid.unwrap());
            files.values().filter(|f| f.contains("/volumes/")).count()
        };
        assert_eq!(opened(), 0);
        let told = host.events();
        let told = told.iter().filter(|e| e["kind"] == "volume-detached");
        assert_eq!(told.count(), 1);

        // While nobody listens, the same.
        agent.attach("data", "web").await.unwrap();
        assert_eq!(opened(), 1);
        assert_eq!(refusal(agent.detach("data").await), ErrorCode::Timeout);
        agent.kill();
        console.key('r');
        console.after("guest: hello", PATIENCE).unwrap();
        let agent = host.start().await;
        agent.freed("data").await;

        // And so does the end of QEMU.
        agent.attach("data", "web").await.unwrap();
        assert_eq!(refusal(agent.detach("data").await), ErrorCode::Timeout);
        kill(agent.show("web").await.unwrap().pid.unwrap(), Signal::KILL);
        agent.freed("data").await;
        agent.attach("data", "other").await.unwrap();
        let volume = agent.volume("data").await;
        assert_eq!(volume.instance.as_deref(), Some("other"));
        agent.detach("data").await.unwrap();
    });
}

#[test]
fn volumes_come_while_the_firmware_has_not_seen_the_bus() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        let volume = json!({"volumes": [{"name": "boot", "mount": "/boot2", "size_mib": 64}]});
        for name in ["one", "two"] {
            agent.create_volume(name).await;
        }
        agent.create("web", volume).await.unwrap();
        let view = agent.reach("web", "running").await;
        for name in ["one", "two"] {
            agent.attach(name, "web").await.unwrap();
            // Again is no change.
            agent.attach(name, "web").await.unwrap();
        }
        host.console(&view).uptime();
        agent.kill();
        assert_eq!(plugged(&host, &view).await.len(), 3);
    });
}

#[test]
fn a_qemu_that_does_not_answer_leaves_the_operator_in_charge() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        let open = host.elements();
        agent.kill();
        kill(view.pid.unwrap(), Signal::STOP);
        let agent = host.start().await;
        agent.reach("web", "running").await;
        let within = Duration::from_secs(5);
        for (ports, same) in [(&["22", "80"][..], false), (&[], false), (&["22"], true)] {
            let changed = tokio::time::timeout(within, agent.set_ports("web", ports)).await;
            changed.expect("it waits for QEMU").unwrap();
            assert_eq!(host.elements() == open, same, "{ports:?}");
        }
        // It hears of volumes as well: this one is plugged in when QEMU can.
        agent.create_volume("data").await;
        agent.attach("data", "web").await.unwrap();
        kill(view.pid.unwrap(), Signal::CONT);
        host.console(&view).uptime();
        let opened = || {
            let files = proc::descriptors(view.pid.unwrap());
            files.values().any(|file| file.contains("/volumes/"))
        };
        testbed::until(PATIENCE, "the volume", || opened().then_some(()));
    });
}

#[test]
fn a_guest_that_a_full_disk_pauses_goes_on_when_there_is_room() {
    network::alone(async || {
        let (host, agent, view) = Host::with_little_room().await;
        let mut console = host.console(&view);
        console.uptime();
        let filler = host.disk_dir(&view).parent().unwrap().join("filler");
        let full = std::fs::write(&filler, vec![1; 8 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        console.key('w');
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let view = agent.show("web").await.unwrap();
            if view.warnings.iter().any(|w| w.kind == WarningKind::Paused) {
                break;
            }
            assert!(tokio::time::Instant::now() < end, "{}", agent.words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // It is tried again meanwhile, and not told of each time.
        let written = console.after("written", Duration::from_secs(12));
        assert_eq!(written, None);
        std::fs::remove_file(&filler).unwrap();
        let written = console.after("written", PATIENCE);
        written.expect("the guest goes on");
        let told = |kind: &str| host.events().iter().filter(|e| e["kind"] == kind).count();
        testbed::until(PATIENCE, "the word", || {
            (told("resumed") == 1).then_some(())
        });
        assert_eq!(told("disk-error"), 1);
        // What the host cannot limit may still be told.
        let warnings = agent.show("web").await.unwrap().warnings;
        assert!(warnings.iter().all(|w| w.kind != WarningKind::Paused));
    });
}

#[test]
fn a_guest_that_went_off_while_nobody_listened_is_off() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        agent
            .create("web", json!({ "start": false }))
            .await
            .unwrap();
        let view = agent.reach("web", "stopped").await;
        agent.kill();
        let armed = host.start_armed("persisted:starting.monitor").await;
        let _ = armed.ask("web", "start", false).await;
        armed.killed_at_its_point().await;
        let mut console = host.console(&view);
        console.uptime();
        console.key('p');
        testbed::until(PATIENCE, "the guest's end", || {
            console.key('u');
            let up = console.after("up=", Duration::from_millis(300));
            up.is_none().then_some(())
        });
        let agent = host.start().await;
        let view = agent.reach("web", "stopped").await;
        assert!(view.stop_reason.is_some());
        assert_eq!(host.machines().len(), 0);
    });
}

#[test]
fn killed_at_rest_nobody_notices() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        let identity = host.machines()[&view.id];
        let mut console = host.console(&view);
        let mut uptime = console.uptime();
        let mut running = agent;
        for round in 0..3 {
            if round < 2 {
                running.kill();
            } else {
                // The gentle way leaves guests alone as well.
                assert_eq!(running.terminate().await.code(), Some(0));
            }
            assert_eq!(host.machines()[&view.id], identity);
            running = host.start().await;
            let view = running.reach("web", "running").await;
            assert_eq!(view.pid, Some(identity.0));
            assert_eq!(host.machines()[&view.id], identity);
            // The same guest on the same connection, and its clock went on.
            let now = console.uptime();
            assert!(now > uptime, "{now} ticks after {uptime}");
            uptime = now;
        }
        // It is the agent's again in every way.
        running.ask("web", "stop", false).await.unwrap();
        running.reach("web", "stopped").await;
    });
}

#[test]
fn a_killed_guest_is_restarted_with_pauses() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        agent.create("web", json!({})).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let view = agent.reach("web", "running").await;
            let identity = host.machines()[&view.id];
            assert!(!seen.contains(&identity));
            kill(identity.0, Signal::KILL);
            seen.push(identity);
            let waiting = agent.reach("web", "backing-off").await;
            let failure = waiting.failure.expect("why it waits");
            assert!(failure.message.contains("QEMU"), "{failure:?}");
            assert_eq!(usize::try_from(waiting.restarts).unwrap(), seen.len());
            assert!(waiting.next_start_at.is_some());
        }
        let view = agent.reach("web", "running").await;
        host.console(&view).uptime();
        // A guest that reboots really reboots, in the same QEMU.
        let identity = host.machines()[&view.id];
        let mut console = host.console(&view);
        console.uptime();
        console.key('r');
        let anew = console.after("guest: hello", PATIENCE);
        anew.expect("the guest begins anew");
        assert_eq!(host.machines()[&view.id], identity);
        // One that powers off stays stopped.
        console.key('p');
        let view = agent.reach("web", "stopped").await;
        assert!(view.stop_reason.is_some());
        assert_eq!(host.machines().len(), 0);
        agent.kill();
        let agent = host.start().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(agent.show("web").await.unwrap().phase, Phase::Stopped);
    });
}

#[test]
fn ten_at_once_come_and_go() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        let clean = host.traces();
        let names: Vec<_> = (0..10).map(|n| format!("web-{n}")).collect();
        let requests = names.iter().map(|n| agent.create(n, json!({})));
        for created in futures::future::join_all(requests).await {
            created.unwrap();
        }
        let mut addresses = BTreeSet::new();
        for name in &names {
            addresses.insert(agent.reach(name, "running").await.ipv6);
        }
        assert_eq!(addresses.len(), 10);
        assert_eq!(host.machines().len(), 10);
        let requests = names.iter().map(|n| agent.delete(n));
        for deleted in futures::future::join_all(requests).await {
            deleted.unwrap();
        }
        for name in &names {
            agent.gone(name).await;
        }
        assert_eq!(differences(&clean, &host.traces()), Vec::<String>::new());
    });
}

#[test]
fn one_agent_for_one_state_directory() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        let identity = host.machines()[&view.id];
        let (status, words) = host.start_in_vain();
        assert!(!status.success());
        assert!(words.contains("another agent"), "{words}");
        // The first one serves on.
        let view = agent.show("web").await.unwrap();
        assert_eq!(
            (view.phase.as_str(), view.pid),
            ("running", Some(identity.0))
        );
    });
}

#[test]
fn what_no_record_owns_is_removed_and_what_nobody_knows_is_told() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        let identity = host.machines()[&view.id];
        agent.kill();

        let nobody = "cd".repeat(32);
        let start = |mark: &str| {
            std::process::Command::new("/usr/bin/qemu-system-x86_64")
                .args(["-machine", "none", "-nodefaults", "-display", "none", "-S"])
                .args([
                    "-name",
                    &format!("guest=crn:{mark}:{nobody},debug-threads=on"),
                ])
                .spawn()
                .unwrap()
        };
        let mut orphan = start(&host.mark());
        let mut foreign = start("0123456789abcdef");
        let state = host.state();
        let write = |path: &str| {
            let path = state.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            path
        };
        let thesis = write("instances/thesis.tex");
        let mixed = write(&format!("instances/{}/notes.txt", "ee".repeat(32)));
        let notes = write("volumes/notes.txt");
        let disk = write(&format!("instances/{nobody}/root.qcow2"));
        let partial = write("volumes/.new-00112233445566bb-1");
        let volume = write("volumes/00112233445566bb.qcow2");

        let agent = host.start().await;
        let view = agent.reach("web", "running").await;
        assert_eq!(host.machines()[&view.id], identity);
        let gone = tokio::time::timeout(PATIENCE, async {
            while orphan.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        gone.await.expect("a QEMU that no record owns is killed");
        assert!(foreign.try_wait().unwrap().is_none(), "another node's");
        foreign.kill().unwrap();
        foreign.wait().unwrap();
        for left in [&thesis, &mixed, &notes] {
            assert!(left.exists(), "{left:?} is somebody's");
        }
        for gone in [&disk, &partial, &volume] {
            assert!(!gone.exists(), "{gone:?} is nobody's");
        }
        let told = serde_json::Value::from(host.events()).to_string();
        for word in [
            "thesis.tex",
            "notes.txt",
            &nobody,
            "00112233445566bb",
            "orphan-removed",
            "unknown-left-alone",
        ] {
            assert!(told.contains(word), "{word} is not told of: {told}");
        }
    });
}
