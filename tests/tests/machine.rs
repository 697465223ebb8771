//! The hardware of a guest: it stays what it was, whatever QEMU is installed, and tells
//! when the guest panics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::time::{Duration, Instant};

use crn_agent::testing::qemu::plan::socket;
use crn_api_types::{InstanceView, WarningKind};
use qmp::Qmp;
use serde_json::{Value, json};
use testbed::network;
use tests::harness::bare::{Agent, Host, PATIENCE};
use tokio::time::sleep;

/// One that all QEMUs of these years have, and none calls `q35`.
const OLDER: &str = "pc-q35-8.2";
/// One that no QEMU has any more.
const GONE: &str = "pc-q35-0.15";

/// Which machine the instance's QEMU is, by its own account.
async fn machine(host: &Host, view: &InstanceView) -> String {
    let path = host.run_dir(view).join(socket::QMP);
    let (qmp, _events) = Qmp::connect(&path, &qmp::Config::default()).await.unwrap();
    let arguments = json!({ "path": "/machine", "property": "type" });
    let kind = qmp.execute_raw("qom-get", arguments).await.unwrap();
    let kind = kind.as_str().unwrap();
    kind.strip_suffix("-machine").unwrap().to_owned()
}

/// Changes what is recorded, while no agent runs.
fn record(host: &Host, machine: Option<&str>) {
    let db = rusqlite::Connection::open(host.state().join("agent.db")).unwrap();
    let cpu = machine.map(|_| "max");
    let sql = "UPDATE instances SET machine = ?1, cpu = ?2";
    assert_eq!(db.execute(sql, [machine, cpu]).unwrap(), 1);
}

async fn shown(agent: &Agent, wanted: &str, check: impl Fn(&InstanceView) -> bool) -> InstanceView {
    let began = Instant::now();
    loop {
        let view: InstanceView = agent.client.get("/v1/instances/web").await.unwrap();
        if check(&view) {
            return view;
        }
        assert!(began.elapsed() < PATIENCE, "{wanted}: {view:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_guest_keeps_its_machine_type() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        // A new one has what `q35` stands for, by name.
        let new = view.machine.clone().expect("recorded at the first start");
        assert!(new.starts_with("pc-q35-") && new != OLDER, "{new}");
        let cpu = match view.accel.as_deref() {
            Some("kvm") => "host",
            _ => "max",
        };
        assert_eq!(view.cpu_model.as_deref(), Some(cpu));

        // A QEMU that an agent without such records has started is asked.
        agent.kill();
        record(&host, None);
        let agent = host.start().await;
        let view = shown(&agent, "learnt", |v| v.machine.is_some()).await;
        assert_eq!(view.machine.as_deref(), Some(&*new));
        assert_eq!(view.cpu_model.as_deref(), Some(cpu));
        agent.ask("web", "stop", true).await.unwrap();
        agent.reach("web", "stopped").await;

        // One from before an upgrade of QEMU is the machine that it was.
        agent.kill();
        record(&host, Some(OLDER));
        let agent = host.start().await;
        agent.ask("web", "start", false).await.unwrap();
        let view = agent.reach("web", "running").await;
        assert_eq!(view.machine.as_deref(), Some(OLDER));
        agent.kill();
        assert_eq!(machine(&host, &view).await, OLDER);
        let agent = host.start().await;
        agent.reach("web", "running").await;
        agent.ask("web", "stop", true).await.unwrap();
        agent.reach("web", "stopped").await;

        // Where that is gone it is not made another one in silence.
        agent.kill();
        record(&host, Some(GONE));
        let agent = host.start().await;
        agent.ask("web", "start", false).await.unwrap();
        let view = shown(&agent, "refused", |v| v.failure.is_some()).await;
        let message = view.failure.unwrap().message;
        for part in [GONE, "qemu.binary", "-machine help"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(view.machine.as_deref(), Some(GONE));
        assert_eq!(host.machines().len(), 0);
        let shown: Value =
            serde_json::from_str(&host.cli(&["--json", "instance", "show", "web"]).unwrap())
                .unwrap();
        assert_eq!(shown["machine"], GONE);
    });
}

#[test]
fn a_panic_is_shown_until_the_guest_reboots() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        let mut console = host.console(&view);
        console.uptime();
        console.key('c');
        let panicked = |v: &InstanceView| {
            v.warnings
                .iter()
                .any(|w| w.kind == WarningKind::GuestPanicked)
        };
        let view = shown(&agent, "panicked", panicked).await;
        assert_eq!(view.phase, crn_api_types::Phase::Running);
        let list = host.cli(&["instance", "list"]).unwrap();
        assert!(list.contains("panicked "), "{list}");
        let told = host.events().iter().any(|e| e["kind"] == "guest-panicked");
        assert!(told, "{:?}", host.events());
        console.key('r');
        let view = shown(&agent, "rebooted", |v| !panicked(v)).await;
        assert_eq!(view.phase, crn_api_types::Phase::Running);
    });
}
