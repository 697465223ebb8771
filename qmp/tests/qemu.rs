//! The client against the real QEMU (TCG, no guest software).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qmp::qapi::qmp::query_block;
use qmp::{ClosedReason, Config, Error, Event, Events, Qmp, ResetReason, RunState, ShutdownReason};
use serde_json::{Value, json};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// A QEMU of the test's own, killed at the end.
struct Machine {
    qemu: Child,
    dir: tempfile::TempDir,
}

impl Machine {
    /// Its monitor's socket listens before it starts, as the agent does it: no client comes early.
    fn start(machine: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("qmp")).unwrap();
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
        let chardev = format!("socket,id=m,fd={},server=on,wait=off", listener.as_raw_fd());
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-machine", machine])
            .args(["-nodefaults", "-display", "none", "-S"])
            .args(["-chardev", &chardev, "-mon", "chardev=m,mode=control"])
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { qemu, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("qmp")
    }

    async fn connect(&self) -> (Qmp, Events) {
        Qmp::connect(&self.socket(), &Config::default())
            .await
            .unwrap()
    }

    /// A file of `size` bytes in the machine's directory.
    fn file(&self, name: &str, size: u64) -> File {
        let path = self.dir.path().join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        file.set_len(size).unwrap();
        file
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        _ = self.qemu.kill();
        _ = self.qemu.wait();
    }
}

/// The first event that `wanted` accepts; those before it are thrown away.
async fn find(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let search = async {
        loop {
            let event = events.next().await.expect("the event came before the end");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, search)
        .await
        .expect("the event came in time")
}

async fn raw_disk(qmp: &Qmp, file: &File, set: u32) -> String {
    let node = format!("disk{set}");
    let number = qmp.add_fd(file.as_fd(), set, "a test disk").await.unwrap();
    assert!(number > 2);
    qmp.blockdev_add(json!({
        "driver": "raw", "node-name": node,
        "file": {"driver": "file", "filename": format!("/dev/fdset/{set}")},
    }))
    .await
    .unwrap();
    node
}

async fn size_of(qmp: &Qmp, node: &str) -> i64 {
    let nodes = qmp.query_named_block_nodes().await.unwrap();
    let info = nodes
        .iter()
        .find(|n| n.node_name.as_deref() == Some(node))
        .unwrap();
    info.image.base.virtual_size
}

#[tokio::test]
async fn a_life_seen_through_the_monitor() {
    let machine = Machine::start("q35", &[]);
    let (qmp, mut events) = machine.connect().await;
    assert!(qmp.version().at_least(7, 2), "{}", qmp.version());
    assert_eq!(qmp.status().await.unwrap(), RunState::Prelaunch);

    qmp.cont().await.unwrap();
    assert_eq!(qmp.status().await.unwrap(), RunState::Running);
    let (at, event) = timeout(PATIENCE, events.next_with_time())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event, Event::Resume);
    let age = at.to_system_time().unwrap().elapsed().unwrap();
    assert!(age < PATIENCE, "{age:?}");

    qmp.stop().await.unwrap();
    assert_eq!(find(&mut events, |_| true).await, Event::Stop);
    assert_eq!(qmp.status().await.unwrap(), RunState::Paused);

    qmp.system_reset().await.unwrap();
    let reset = find(&mut events, |e| matches!(e, Event::Reset { .. })).await;
    assert_eq!(
        reset,
        Event::Reset {
            guest: false,
            reason: ResetReason::HostReset
        }
    );

    qmp.power_down().await.unwrap();
    find(&mut events, |e| *e == Event::PowerDown).await;

    let clone = qmp.clone();
    let watcher = tokio::spawn(async move { clone.closed().await });
    qmp.quit().await.unwrap();
    let shutdown = find(&mut events, |e| matches!(e, Event::Shutdown { .. })).await;
    let reason = ShutdownReason::HostQuit;
    assert_eq!(
        shutdown,
        Event::Shutdown {
            guest: false,
            reason
        }
    );
    assert_eq!(timeout(PATIENCE, events.next()).await.unwrap(), None);
    assert_eq!(watcher.await.unwrap(), ClosedReason::PeerClosed);
    let error = qmp.status().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Closed {
                reason: ClosedReason::PeerClosed,
                ..
            }
        ),
        "{error}"
    );
    assert!(qmp.quit().await.is_err());
}

#[tokio::test]
async fn a_disk_comes_by_descriptor_grows_and_goes() {
    let machine = Machine::start("q35", &["-device", "virtio-scsi-pci,id=scsi"]);
    let (qmp, mut events) = machine.connect().await;
    let file = machine.file("disk", 1 << 20);
    let node = raw_disk(&qmp, &file, 7).await;
    let sets = qmp.fd_sets().await.unwrap();
    assert_eq!((sets.len(), sets[0].fdset_id), (1, 7));
    assert_eq!(sets[0].fds[0].opaque.as_deref(), Some("a test disk"));

    let device = json!({"driver": "scsi-hd", "id": "d7", "drive": node, "bus": "scsi.0"});
    qmp.device_add(device.clone()).await.unwrap();
    let blocks = qmp.execute(query_block {}).await.unwrap();
    assert!(blocks.iter().any(|b| {
        b.inserted
            .as_ref()
            .is_some_and(|i| i.node_name.as_deref() == Some(node.as_str()))
    }));
    let again = qmp.device_add(device).await.unwrap_err();
    assert_eq!(
        again.refused_class(),
        Some(&qapi_class("GenericError")),
        "{again}"
    );

    assert_eq!(size_of(&qmp, &node).await, 1 << 20);
    qmp.block_resize(&node, 3 << 20).await.unwrap();
    assert_eq!(size_of(&qmp, &node).await, 3 << 20);
    assert_eq!(file.metadata().unwrap().len(), 3 << 20);
    let error = qmp.block_resize(&node, u64::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error}");
    let error = qmp.block_resize("no such node", 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");

    assert!(
        qmp.blockdev_del(&node).await.is_err(),
        "the device still uses it"
    );
    qmp.device_del("d7", PATIENCE).await.unwrap();
    find(
        &mut events,
        |e| matches!(e, Event::DeviceDeleted { device: Some(d), .. } if d == "d7"),
    )
    .await;
    qmp.blockdev_del(&node).await.unwrap();
    qmp.remove_fd(7).await.unwrap();
    assert!(qmp.fd_sets().await.unwrap().is_empty());
    let error = qmp.device_del("d7", PATIENCE).await.unwrap_err();
    assert_eq!(
        error.refused_class(),
        Some(&qapi_class("DeviceNotFound")),
        "{error}"
    );
}

fn qapi_class(name: &str) -> qmp::qapi::ErrorClass {
    serde_json::from_value(Value::from(name)).unwrap()
}

#[tokio::test]
async fn every_descriptor_reaches_its_own_set() {
    let machine = Machine::start("q35", &[]);
    let (qmp, _events) = machine.connect().await;
    let files: Vec<File> = (1..=12)
        .map(|n| machine.file(&format!("f{n}"), n * 65536))
        .collect();
    let tasks: Vec<_> = files
        .into_iter()
        .zip(1..)
        .map(|(file, set)| {
            let qmp = qmp.clone();
            tokio::spawn(async move {
                let node = raw_disk(&qmp, &file, set).await;
                (size_of(&qmp, &node).await, i64::from(set) * 65536)
            })
        })
        .collect();
    for task in tasks {
        let (size, want) = task.await.unwrap();
        assert_eq!(size, want);
    }
}

#[tokio::test]
async fn a_guest_that_does_not_release_a_device() {
    let machine = Machine::start("q35", &["-device", "pcie-root-port,id=rp1,slot=1"]);
    let (qmp, _events) = machine.connect().await;
    qmp.cont().await.unwrap();
    let node = raw_disk(&qmp, &machine.file("disk", 1 << 20), 1).await;
    let device = json!({"driver": "virtio-blk-pci", "id": "v1", "drive": node, "bus": "rp1"});
    qmp.device_add(device).await.unwrap();
    // The first request, and one while it is pending.
    for _ in 0..2 {
        let start = Instant::now();
        let error = qmp
            .device_del("v1", Duration::from_millis(300))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::UnplugTimeout { device, .. } if device == "v1"),
            "{error}"
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn one_client_at_a_time() {
    let machine = Machine::start("q35", &[]);
    let (first, first_events) = machine.connect().await;
    let hasty = Config {
        greeting_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let error = Qmp::connect(&machine.socket(), &hasty).await.unwrap_err();
    assert!(matches!(error, Error::GreetingTimeout { .. }), "{error}");
    assert_eq!(first.status().await.unwrap(), RunState::Prelaunch);

    // The second gets its turn as soon as the first is gone.
    let socket = machine.socket();
    let second =
        tokio::spawn(async move { Qmp::connect(&socket, &Config::default()).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    drop((first, first_events));
    let (second, _events) = timeout(PATIENCE, second).await.unwrap().unwrap();
    assert_eq!(second.status().await.unwrap(), RunState::Prelaunch);

    drop(second);
    let (third, _events) = machine.connect().await;
    assert_eq!(third.status().await.unwrap(), RunState::Prelaunch);
}

#[tokio::test]
async fn dropped_commands_do_no_harm() {
    let machine = Machine::start("q35", &[]);
    let (qmp, _events) = machine.connect().await;
    for n in 0..300 {
        let limit = Duration::from_micros(n % 60 * 10);
        _ = timeout(limit, qmp.execute_raw("query-block", Value::Null)).await;
        if n % 50 == 0 {
            assert_eq!(qmp.status().await.unwrap(), RunState::Prelaunch);
        }
    }
    assert_eq!(qmp.status().await.unwrap(), RunState::Prelaunch);
}

#[tokio::test]
async fn many_commands_at_once() {
    let machine = Machine::start("q35", &[]);
    let (qmp, _events) = machine.connect().await;
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let qmp = qmp.clone();
            tokio::spawn(async move {
                let name = format!("no-such-command-{n}");
                match qmp.execute_raw(&name, Value::Null).await.unwrap_err() {
                    // Each gets the answer to its own question.
                    Error::Refused { class, desc, .. } => {
                        assert_eq!(class, qapi_class("CommandNotFound"));
                        assert!(desc.contains(&format!("{name} ")), "{desc}");
                    }
                    error => panic!("{error}"),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_qemu_that_dies() {
    let mut machine = Machine::start("q35", &[]);
    let (qmp, mut events) = machine.connect().await;
    // Stopped by a signal it answers nothing; then it is killed under a waiting command.
    let pid = rustix::process::Pid::from_child(&machine.qemu);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let limit = Duration::from_millis(200);
    let error = qmp
        .execute_as_within::<Value>("query-status", Value::Null, limit)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let waiting = {
        let qmp = qmp.clone();
        tokio::spawn(async move { qmp.status().await.unwrap_err() })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    machine.qemu.kill().unwrap();
    let error = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(
        matches!(
            error,
            Error::Closed {
                reason: ClosedReason::PeerClosed,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        timeout(PATIENCE, qmp.closed()).await.unwrap(),
        ClosedReason::PeerClosed
    );
    assert_eq!(timeout(PATIENCE, events.next()).await.unwrap(), None);
}

#[tokio::test]
async fn no_listener_at_the_socket() {
    let config = Config::default();
    let missing = Qmp::connect(Path::new("/nonexistent/qmp"), &config)
        .await
        .unwrap_err();
    assert!(
        matches!(&missing, Error::Connect { source, .. } if source.kind() == ErrorKind::NotFound),
        "{missing}"
    );

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    drop(UnixListener::bind(&path).unwrap());
    let dead = Qmp::connect(&path, &config).await.unwrap_err();
    assert!(
        matches!(&dead, Error::Connect { source, .. }
            if source.kind() == ErrorKind::ConnectionRefused),
        "{dead}"
    );

    let far = Path::new("/").join("x".repeat(200));
    let error = Qmp::connect(&far, &config).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}
