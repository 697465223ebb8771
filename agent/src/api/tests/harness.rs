//! A node in a temporary directory that serves its API, and clients of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crn_api_types::{InstanceView, Phase};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    capacity::HostSize,
    client::Client,
    config::Config,
    db::Db,
    host::accel::Accel,
    node::{Host, Node},
    paths::Paths,
    qemu::plan::Accelerator,
};

/// A key that anybody may know.
pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ test";

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) node: Arc<Node>,
    pub(crate) socket: PathBuf,
    pub(crate) client: Client,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The word in a JSON error.
    pub(crate) fn code(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        Some(body["error"]["code"].as_str()?.to_owned())
    }
}

pub(crate) async fn node(dir: &TempDir, change: impl FnOnce(&mut Config)) -> Arc<Node> {
    let mut config = Config {
        state_dir: dir.path().join("state"),
        run_dir: dir.path().join("run"),
        ..Config::default()
    };
    config.limits.vcpus = Some(64);
    config.limits.memory_mib = Some(65_536);
    config.limits.disk_mib = Some(1 << 20);
    config.network.table = "crn_agent_api_test".into();
    config.network.ipv4_nat = false;
    config.network.prefix = Some("2001:db8:1:2::/64".into());
    change(&mut config);
    let paths = Paths::new(&config);
    for dir in [paths.instances(), paths.volumes(), paths.runs()] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let (db, _) = Db::open(&paths.database()).unwrap();
    let host = Host {
        accel: Accel {
            accelerator: Accelerator::Tcg,
            reason: "TCG as configured".into(),
            warning: false,
        },
        size: HostSize {
            cpus: 1,
            memory_mib: 1,
            disk_mib: 1,
        },
        confinement: crate::qemu::confine::Confinement::default(),
    };
    Arc::new(Node::open(config, db, host).await.unwrap())
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = node(&dir, change).await;
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(crate::api::serve(node.clone(), listener, async {
            let _ = stopped.await;
        }));
        let client = Client::new(&socket);
        Self {
            dir,
            node,
            socket,
            client,
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// Ends the server as the agent does.
    pub(crate) async fn shut_down(&mut self) {
        drop(self.stop.take());
        self.served.take().unwrap().await.unwrap();
    }

    /// An image in the store, 64 MiB, with nothing on it.
    pub(crate) async fn image(&self, name: &str) -> PathBuf {
        let file = self.dir.path().join(format!("{name}.qcow2"));
        disk::create_volume(&file, disk::ByteSize::from_mib(64), disk::Format::Qcow2).unwrap();
        let name = name.parse().unwrap();
        self.node
            .images
            .import(&name, &file, None, None, |_| ())
            .await
            .unwrap();
        file
    }

    /// A request for a small instance that is not started.
    pub(crate) fn request(name: &str) -> Value {
        json!({
            "name": name, "vcpus": 1, "memory_mib": 64, "disk_mib": 128, "image": "tiny",
            "ssh_keys": [KEY], "start": false,
        })
    }

    /// Creates an instance and waits until it is prepared.
    pub(crate) async fn instance(&self, name: &str) -> InstanceView {
        let request = Self::request(name);
        let view: InstanceView = self
            .client
            .send(hyper::Method::POST, "/v1/instances", Some(&request))
            .await
            .unwrap();
        self.settled(&view.id, "stopped").await
    }

    /// Waits for a phase.
    pub(crate) async fn settled(&self, instance: &str, phase: &str) -> InstanceView {
        for _ in 0..400 {
            let path = format!("/v1/instances/{instance}");
            let view: InstanceView = self.client.get(&path).await.unwrap();
            if view.phase.as_str() == phase {
                return view;
            }
            assert_ne!(view.phase, Phase::Failed, "{:?}", view.failure);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{instance} is not {phase}");
    }

    /// Everything that is recorded, as text.
    pub(crate) fn records(&self) -> String {
        let db = rusqlite::Connection::open(self.node.paths.database()).unwrap();
        let mut out = String::new();
        for table in ["instances", "volumes", "images", "events"] {
            let mut statement = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for i in 0..columns {
                    out.push_str(&format!("{:?}|", row.get_ref(i).unwrap()));
                }
                out.push('\n');
            }
        }
        out
    }

    /// Sends bytes as they are and reads the answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        // A server that has seen enough closes while we still write.
        let _ = stream.write_all(request).await;
        answer(&mut stream).await
    }

    /// Sends a request with a JSON body.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.raw(&request).await
    }
}

/// Reads one answer: to the end of the connection or of the announced body.
pub(crate) async fn answer(stream: &mut UnixStream) -> Answer {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let whole = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "))?;
        (body.len() >= length.parse().ok()?).then_some(())
    };
    while whole(&bytes).is_none() {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
