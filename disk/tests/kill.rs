//! SIGKILL at any moment: nothing half-done is ever taken for whole, and what can go on does.
//!
//! Each test starts itself again as the process to be killed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;
mod pull_support;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use disk::{
    ByteSize, Created, Format, ImageStore, Import, OverlaySpec, Sha256, check, create_overlay,
    create_volume, grow, info,
};
use disk_support::{base, qemu_check, qemu_io};
use pull_support::{Reply, Server, list, noise, options, request};

const ROLE: &str = "DISK_TEST_VICTIM";
const DIR: &str = "DISK_TEST_DIR";
const ARG: &str = "DISK_TEST_ARG";

/// Starts this program as the process to be killed.
fn victim(role: &str, dir: &Path, arg: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim_process", "--ignored"])
        .env(ROLE, role)
        .env(DIR, dir)
        .env(ARG, arg)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}

/// The process to be killed.
#[test]
#[ignore = "run by `victim`"]
fn victim_process() {
    let role = std::env::var(ROLE).unwrap();
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let arg = std::env::var(ARG).unwrap();
    match role.as_str() {
        "pull" => {
            let store = ImageStore::open_with(&dir, options()).unwrap();
            let (url, digest) = arg.split_once(' ').unwrap();
            let wanted = request(url, digest.parse().unwrap());
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(store.pull(&wanted, |_| ())).unwrap();
        }
        "import" => {
            let store = ImageStore::open_with(&dir, options()).unwrap();
            store
                .import(Path::new(&arg), &Import::default(), |_| ())
                .unwrap();
        }
        "create" => {
            for n in 0.. {
                create_volume(&dir.join(format!("v{n}")), GIB, Format::Qcow2).unwrap();
                create_volume(&dir.join(format!("r{n}")), GIB, Format::Raw).unwrap();
                create_overlay(&dir.join(format!("o{n}")), &overlay(&dir)).unwrap();
            }
        }
        "grow" => {
            for n in 0.. {
                let path = dir.join(format!("g{n}"));
                create_volume(&path, GIB, Format::Qcow2).unwrap();
                // Moves the L1 table.
                grow(&path, Format::Qcow2, ByteSize::from_gib(5000)).unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

const GIB: ByteSize = ByteSize::from_gib(1);

fn overlay(dir: &Path) -> OverlaySpec {
    OverlaySpec::new(base(&dir.join("v0"), Format::Qcow2, GIB), GIB)
}

fn recorded(root: &Path) -> bool {
    let entries = std::fs::read_dir(root.join("tmp"));
    entries.is_ok_and(|mut entries| {
        entries.any(|e| e.unwrap().path().extension().is_some_and(|x| x == "json"))
    })
}

#[test]
fn a_killed_download_is_no_image_and_goes_on() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let content = noise(2 << 20, 31);
    let served = content.clone();
    let server = runtime.block_on(Server::start(move |request| {
        let pace = Duration::from_millis(8);
        Reply {
            pace,
            ..Reply::of(&served, "\"v1\"", request)
        }
    }));
    let dir = tempfile::tempdir().unwrap();
    let digest = Sha256::of(&content);
    let arg = format!("{} {digest}", server.url("/"));
    let mut kills = 0;
    // Each life may fetch a little more.
    loop {
        let before = server.sent();
        let mut child = victim("pull", dir.path(), &arg);
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            // Something of it is on record.
            if server.sent() > before + (350 << 10) && recorded(dir.path()) {
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
        kill(child);
        kills += 1;
        assert!(kills < 20, "no progress over {kills} lives");
        let store = ImageStore::open_with(dir.path(), options()).unwrap();
        assert_eq!(store.list().unwrap(), [], "killed after {kills}");
        let report = store.sweep().unwrap();
        assert_eq!(report.unknown, Vec::<PathBuf>::new());
        assert_eq!(report.resumable.len(), 1, "after {kills}");
    }
    assert!(kills >= 3, "{kills}");
    let store = ImageStore::open_with(dir.path(), options()).unwrap();
    assert_eq!(store.verify(&digest, |_| ()).unwrap().digest, digest);
    assert_eq!(list(&dir.path().join("tmp")), Vec::<PathBuf>::new());
    // Waste: what was on its way when the process died.
    let waste = server.sent() - (2 << 20);
    assert!(
        waste < kills * (1 << 20),
        "{waste} bytes wasted in {kills} kills"
    );
}

#[test]
fn a_killed_import_leaves_nothing_or_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(8 << 20, 32);
    let source = dir.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let root = dir.path().join("store");
    let mut found = 0;
    for n in 0..25_u64 {
        let child = victim("import", &root, source.to_str().unwrap());
        std::thread::sleep(Duration::from_millis(n * 8));
        kill(child);
        let store = ImageStore::open_with(&root, options()).unwrap();
        store.sweep().unwrap();
        for digest in store.list().unwrap() {
            assert_eq!(digest, Sha256::of(&content));
            store.verify(&digest, |_| ()).unwrap();
            assert!(store.remove(&digest).unwrap());
            found += 1;
        }
        assert_eq!(list(&root.join("tmp")), Vec::<PathBuf>::new(), "{n}");
        assert_eq!(list(&root.join("sha256")), Vec::<PathBuf>::new(), "{n}");
    }
    assert!(
        (1..25).contains(&found),
        "no kill hit in the middle: {found}"
    );
}

#[test]
fn a_disk_is_there_as_a_whole_or_not_at_all() {
    for n in 0..15_u64 {
        let dir = tempfile::tempdir().unwrap();
        let child = victim("create", dir.path(), "");
        std::thread::sleep(Duration::from_millis(30 + n * 7));
        kill(child);
        for path in list(dir.path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            // Whole: the same disk is found, not made.
            let created = match name.as_bytes()[0] {
                b'v' => create_volume(&path, GIB, Format::Qcow2),
                b'r' => create_volume(&path, GIB, Format::Raw),
                b'o' => create_overlay(&path, &overlay(dir.path())),
                _ => panic!("{name} was left behind"),
            };
            assert_eq!(created.unwrap(), Created::Existed, "{name}");
        }
    }
}

#[test]
fn a_disk_that_was_being_grown_is_never_corrupt() {
    let mut sizes = [0, 0];
    for n in 0..15_u64 {
        let dir = tempfile::tempdir().unwrap();
        let child = victim("grow", dir.path(), "");
        std::thread::sleep(Duration::from_millis(30 + n * 7));
        kill(child);
        for path in list(dir.path()) {
            let report = check(&path).unwrap();
            assert_eq!(report.corruptions, 0, "{report:?}");
            assert_eq!(qemu_check(&path).0, 0);
            let size = info(&path, Format::Qcow2, None).unwrap().virtual_size;
            assert!(size == GIB || size == ByteSize::from_gib(5000), "{size}");
            sizes[usize::from(size != GIB)] += 1;
            // The next attempt finishes it.
            grow(&path, Format::Qcow2, ByteSize::from_gib(5000)).unwrap();
            qemu_io(
                &path,
                Format::Qcow2,
                &["write -P 1 4999G 64k", "read -P 1 4999G 64k"],
            );
            assert_eq!(check(&path).unwrap().corruptions, 0);
        }
    }
    assert!(sizes[1] > 0, "{sizes:?}");
}
