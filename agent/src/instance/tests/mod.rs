//! An instance's task against a scripted monitor: a process that stands for QEMU, and
//! a unix socket that answers as a test has it answer.

mod events;
mod hears;
mod volumes;
mod watched;

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crn_api_types::{CreateRequest, Owner};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
    sync::mpsc,
};

use super::spawn;
use crate::{
    api::tests::harness,
    db::{GuestHealth, InstanceRow, NewInstance, ProcessRow},
    ids::InstanceId,
    life::{Desired, Intent, Phase, Settled},
    node::Node,
    qemu::{
        plan::{TAP_FD, socket},
        process::{Process, boot_id},
    },
    spec,
    tasks::Handle,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// How a monitor behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// It accepts connections and never says a word.
    Silent,
    /// It shakes hands and answers nothing after that.
    Mute,
    /// It answers everything.
    Polite,
}

/// What a polite monitor answers and has been asked.
struct Script {
    manners: Manners,
    /// Answers by command; `{}` for all others.
    answers: BTreeMap<&'static str, Value>,
    /// The commands, with their arguments.
    asked: Vec<(String, Value)>,
    /// The pid that `quit` ends.
    pid: i32,
    /// The guest shuts down when the button is pressed.
    obeys: bool,
}

/// A process and a monitor that stand for QEMU.
struct Machine {
    node: Arc<Node>,
    id: InstanceId,
    child: Child,
    script: Arc<Mutex<Script>>,
    events: mpsc::UnboundedSender<Value>,
    task: Option<Handle>,
}

impl Machine {
    /// One that an instance in this phase has; its task is not started.
    async fn new(node: &Arc<Node>, phase: Phase, manners: Manners) -> Self {
        let id = insert(node, &phase, "debian:12").await;
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = ProcessRow {
            pid,
            start_ticks: Process::open(pid).unwrap().start_ticks(),
            boot_id: boot_id(),
            tap_fd: TAP_FD,
            accel: "tcg".into(),
            launched_at: time::OffsetDateTime::now_utc(),
            guest: GuestHealth::default(),
        };
        node.db.set_process(&id, Some(process)).await.unwrap();
        let run = node.paths.run(&id);
        std::fs::create_dir_all(&run).unwrap();
        let listener = UnixListener::bind(run.join(socket::QMP)).unwrap();
        let answers = BTreeMap::from([
            ("query-status", status("running")),
            ("query-named-block-nodes", json!([])),
            ("qom-list", json!([])),
            ("query-fdsets", json!([])),
            ("add-fd", json!({ "fdset-id": 100, "fd": 9 })),
        ]);
        let script = Arc::new(Mutex::new(Script {
            manners,
            answers,
            asked: Vec::new(),
            pid,
            obeys: true,
        }));
        let (events, said) = mpsc::unbounded_channel();
        tokio::spawn(serve(listener, script.clone(), said, events.clone()));
        Self {
            node: node.clone(),
            id,
            child,
            script,
            events,
            task: None,
        }
    }

    /// One whose task has adopted it.
    async fn adopted(node: &Arc<Node>, phase: Phase, manners: Manners) -> Self {
        let mut machine = Self::new(node, phase, manners).await;
        machine.adopt().await;
        machine
    }

    async fn adopt(&mut self) {
        let row = self.row().await;
        self.task = Some(spawn(&self.node, &row, None));
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, command: &'static str, answer: Value) {
        self.script().answers.insert(command, answer);
    }

    fn asked(&self, command: &str) -> Vec<Value> {
        let script = self.script();
        let asked = script.asked.iter().filter(|(name, _)| name == command);
        asked.map(|(_, arguments)| arguments.clone()).collect()
    }

    fn say(&self, event: &str, data: Value) {
        let event = json!({ "event": event, "data": data,
                            "timestamp": { "seconds": 1, "microseconds": 2 } });
        self.events.send(event).unwrap();
    }

    fn task(&self) -> &Handle {
        self.task.as_ref().expect("the task is started")
    }

    async fn row(&self) -> InstanceRow {
        self.node.db.instance(&self.id).await.unwrap()
    }

    async fn want(&self, desired: Desired, force: bool) {
        let intent = Intent {
            desired,
            restart: false,
            force,
        };
        let wanted = self.node.db.update_intent(&self.id, move |_| intent);
        wanted.await.unwrap();
        self.task().wake();
    }

    fn is_dead(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the task is in a phase of this name, or gone.
    async fn reach(&self, word: &str) {
        self.until(word, |machine| {
            let task = machine.node.task(&machine.id);
            let path = task.map_or("gone", |t| t.status().phase.path());
            path.split('.').next() == Some(word)
        })
        .await;
    }

    /// Waits until what is on record of the guest is so.
    async fn until_recorded(&self, what: &str, check: impl Fn(GuestHealth) -> bool) {
        let began = Instant::now();
        loop {
            let health = self.row().await.process.unwrap().guest;
            if check(health) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {health:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !check(self) {
            let at = self.node.task(&self.id).map(|task| task.status());
            assert!(began.elapsed() < PATIENCE, "{what}: {at:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The events of a kind that are on record.
    async fn told(&self, kind: &'static str) -> usize {
        // What was told last is written after what was told before.
        self.node.db.call(|_| Ok(())).await.unwrap();
        let path = self.node.paths.database();
        let sql = "SELECT count(*) FROM events WHERE kind = ?1 AND instance = ?2";
        let db = rusqlite::Connection::open(path).unwrap();
        db.query_row(sql, [kind, self.id.as_str()], |row| row.get(0))
            .unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        assert!(
            status.signal().is_some(),
            "nobody asked it to end: {status}"
        );
    }
}

fn status(state: &str) -> Value {
    json!({ "running": state == "running", "singlestep": false, "status": state })
}

/// Records an instance in a phase.
async fn insert(node: &Arc<Node>, phase: &Phase, image: &str) -> InstanceId {
    let request = json!({ "image": image, "memory_mib": 64, "disk_mib": 64 });
    let request: CreateRequest = serde_json::from_value(request).unwrap();
    let id = InstanceId::random().unwrap();
    let new = NewInstance {
        owner: Owner::Operator,
        checked: spec::check(request, &node.config.limits, 64).unwrap(),
        id: id.clone(),
        plan: node.addresses.clone(),
        capacity: node.capacity,
        slots: 64,
    };
    node.db.insert_instance(new).await.unwrap();
    let nothing = Settled {
        restart: false,
        force: false,
        guest_off: false,
    };
    node.db.set_phase(&id, phase, nothing, 0).await.unwrap();
    id
}

/// A node for many machines.
async fn node() -> (tempfile::TempDir, Arc<Node>) {
    let dir = tempfile::tempdir().unwrap();
    let node = harness::node(&dir, |_| {}).await;
    (dir, node)
}

const GREETING: &str = "{\"QMP\":{\"version\":{\"qemu\":{\"major\":10,\"minor\":0,\"micro\":2},\
                        \"package\":\"\"},\"capabilities\":[\"oob\"]}}\r\n";

/// Serves one connection after the other, as a monitor does.
async fn serve(
    listener: UnixListener,
    script: Arc<Mutex<Script>>,
    mut said: mpsc::UnboundedReceiver<Value>,
    events: mpsc::UnboundedSender<Value>,
) {
    let answer = move |command: &Value| reply(&script, command, &events);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        if answer(&json!({ "execute": "greet" })).is_some() {
            let _ = writer.write_all(GREETING.as_bytes()).await;
        }
        loop {
            let out = tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(line)) => answer(&serde_json::from_str(&line).unwrap()),
                    _ => break,
                },
                event = said.recv() => match event {
                    Some(event) => Some(event),
                    None => return,
                },
            };
            if let Some(out) = out {
                let _ = writer.write_all(format!("{out}\r\n").as_bytes()).await;
            }
        }
    }
}

/// What the monitor answers, if it does.
fn reply(
    script: &Mutex<Script>,
    command: &Value,
    events: &mpsc::UnboundedSender<Value>,
) -> Option<Value> {
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    let name = command["execute"].as_str().unwrap();
    let shakes_hands = name == "greet" || name == "qmp_capabilities";
    match script.manners {
        Manners::Silent => return None,
        Manners::Mute if !shakes_hands => return None,
        _ => {}
    }
    let arguments = command["arguments"].clone();
    script.asked.push((name.to_owned(), arguments));
    let event = |name: &str, data: Value| {
        let event = json!({ "event": name, "data": data,
                            "timestamp": { "seconds": 1, "microseconds": 2 } });
        let _ = events.send(event);
    };
    match name {
        "system_powerdown" if script.obeys => {
            script.answers.insert("query-status", status("shutdown"));
            event(
                "SHUTDOWN",
                json!({ "guest": true, "reason": "guest-shutdown" }),
            );
        }
        "quit" => kill(script.pid),
        "cont" => {
            script.answers.insert("query-status", status("running"));
        }
        _ => {}
    }
    let answer = script.answers.get(name).cloned();
    let answer = match answer {
        Some(Value::Object(fields)) if fields.contains_key("error") => {
            let mut fields = fields;
            fields.insert("id".into(), command["id"].clone());
            return Some(Value::Object(fields));
        }
        other => other.unwrap_or_else(|| json!({})),
    };
    Some(json!({ "return": answer, "id": command["id"] }))
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
}
