//! The agent's directories: what is a tenant's is not to be read by any other user,
//! whoever made them first and whatever the umask was; and they may be wiped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use testbed::{network, proc};
use tests::harness::bare::Host;

const SECRET: &str = "HUNTER2-TOPSECRET";

#[test]
fn nobody_else_reads_what_is_a_tenants() {
    network::alone(async || {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let host = Host::new();
        let (state, run) = (host.state().to_owned(), host.run().to_owned());
        // Else the test's own directory would keep everybody out.
        open(state.parent().unwrap(), 0o755);
        // As a service manager makes them.
        for dir in ["", "instances", "volumes", "images"] {
            fs::create_dir_all(state.join(dir)).unwrap();
            open(&state.join(dir), 0o755);
        }
        fs::create_dir(&run).unwrap();
        open(&run, 0o755);
        for dir in [&state, &run] {
            fs::write(dir.join("lock"), "").unwrap();
            open(&dir.join("lock"), 0o644);
        }

        let agent = host.start().await;
        host.import();
        let cloud_init = format!("#cloud-config\nwrite_files: [{{path: /x, content: {SECRET}}}]\n");
        let request =
            json!({ "cloud_init": cloud_init, "volumes": [{"name": "data", "size_mib": 64}] });
        agent.create("web", request).await.unwrap();
        let view = agent.reach("web", "running").await;
        let uid = uid_of(view.pid.unwrap());
        assert!(uid > 1000, "{uid}");
        all_is_closed_to(uid, &state, &run);

        // As an agent left them that did not look after modes.
        assert!(agent.terminate().await.success());
        for path in below(&state).iter().chain(&below(&run)) {
            let dir = fs::symlink_metadata(path).unwrap().is_dir();
            open(path, if dir { 0o755 } else { 0o644 });
        }
        let readable = readable_to(uid, &[&state, &run]);
        assert!(readable.len() > 10, "the test sees nothing: {readable:?}");
        let _agent = host.start().await;
        all_is_closed_to(uid, &state, &run);
    });
}

#[test]
fn a_run_directory_that_is_wiped_is_made_anew() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        let pid = view.pid;
        fs::remove_dir_all(host.run()).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while host.cli(&["status"]).is_err() {
            assert!(Instant::now() < end, "{}", agent.words());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let meta = fs::metadata(host.run()).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o711);
        assert!(agent.words().contains("was wiped"), "{}", agent.words());
        let kinds: Vec<_> = host.events().iter().map(|e| e["kind"].clone()).collect();
        assert!(kinds.contains(&json!("run-directory-lost")), "{kinds:?}");
        // The guest runs on, and is still ruled by the connection that there is.
        assert_eq!(agent.reach("web", "running").await.pid, pid);
        agent.ask("web", "stop", true).await.unwrap();
        agent.reach("web", "stopped").await;
        // Another agent is kept from the new directory as from the old one.
        let (status, words) = host.start_in_vain();
        assert!(
            !status.success() && words.contains("another agent"),
            "{words}"
        );
        agent.ask("web", "start", false).await.unwrap();
        agent.reach("web", "running").await;
    });
}

/// A polite stop does not become a hard one in silence.
#[test]
fn without_a_monitor_qemu_is_asked_to_end_by_a_signal() {
    network::alone(async || {
        let (host, agent, _) = Host::with_guest().await;
        agent.kill();
        fs::remove_dir_all(host.run()).unwrap();
        let agent = host.start().await;
        agent.ask("web", "stop", false).await.unwrap();
        agent.reach("web", "stopped").await;
        let kinds: Vec<_> = host.events().iter().map(|e| e["kind"].clone()).collect();
        assert!(kinds.contains(&json!("ended-by-signal")), "{kinds:?}");
        let words = agent.words();
        assert!(
            words.contains("SIGTERM") && !words.contains("did not quit in time"),
            "{words}"
        );
    });
}

#[test]
fn on_a_full_disk_remedies_work() {
    network::alone(async || {
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let host = Host::new();
        let state = host.state().to_owned();
        fs::create_dir_all(&state).unwrap();
        run("mount", &["--make-rprivate", "/"]);
        let target = state.display().to_string();
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=400m,mode=700", "tmpfs", &target],
        );
        let agent = host.start().await;
        host.import();
        for name in ["stopped", "deleted", "closed"] {
            agent.running(name).await;
        }
        agent.create_volume("data").await;
        let reserve = state.join("reserve");
        let end = Instant::now() + Duration::from_secs(30);
        while !reserve.exists() {
            assert!(Instant::now() < end, "{}", agent.words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Somebody else's file takes all the room that there is.
        let mut filler = fs::File::create(state.join("filler")).unwrap();
        let block = vec![1_u8; 64 << 10];
        while io::Write::write_all(&mut filler, &block).is_ok() {}
        let block = [1_u8; 4096];
        while io::Write::write_all(&mut filler, &block).is_ok() {}

        agent.set_ports("closed", &[]).await.unwrap();
        assert!(!reserve.exists(), "it was needed");
        agent.ask("stopped", "stop", true).await.unwrap();
        agent.reach("stopped", "stopped").await;
        agent.delete("deleted").await.unwrap();
        agent.gone("deleted").await;
        host.cli(&["volume", "delete", "data"]).unwrap();
        agent.kill();
        run("umount", &["--lazy", &target]);
    });
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

#[track_caller]
fn all_is_closed_to(uid: u32, state: &Path, run: &Path) {
    let secret_is_there = below(state).iter().any(|path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes())
    });
    assert!(secret_is_there, "the test looks in the wrong place");
    assert_eq!(readable_to(uid, &[state, run]), Vec::<PathBuf>::new());
    for path in below(state).iter().chain(&below(run)) {
        let meta = fs::symlink_metadata(path).unwrap();
        let expected = if path == run {
            0o711
        } else {
            meta.mode() & 0o700
        };
        assert_eq!(
            meta.mode() & 0o7777,
            expected,
            "{path:?}: {:o}",
            meta.mode()
        );
        assert_eq!(meta.uid(), 0, "{path:?}");
    }
    // Whoever can open the lock keeps the next agent from starting.
    let lock = as_user(uid, "flock")
        .arg("-n")
        .arg(run.join("lock"))
        .arg("true")
        .output()
        .unwrap();
    assert!(!lock.status.success(), "{lock:?}");
    let said = String::from_utf8_lossy(&lock.stderr);
    assert!(said.contains("ermission denied"), "{said}");
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn uid_of(pid: i32) -> u32 {
    let status = proc::status(pid);
    status["Uid"].split(' ').next().unwrap().parse().unwrap()
}

/// A program run as a guest's QEMU would run it that is not confined otherwise.
fn as_user(uid: u32, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={uid}"))
        .args(["--clear-groups", "--no-new-privs", program]);
    command
}

/// What this user can read or write, and which directories it can list.
fn readable_to(uid: u32, dirs: &[&Path]) -> Vec<PathBuf> {
    let output = as_user(uid, "find")
        .args(dirs)
        .args(["(", "-readable", "-o", "-writable", ")"])
        .args(["-not", "-type", "l", "-print"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(PathBuf::from).collect()
}

/// Everything at and below a directory.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            all.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    all
}
