//! Disks of ours read and checked by `qcow2-rs`, an implementation that shares no line with ours
//! or with QEMU; and what keeps it out of the agent. It runs in a program of its own
//! (`disk/peers/qcow2-rs`), so that its dependencies are none of the workspace's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use disk::{ByteSize, Format, OverlaySpec, create_overlay, create_volume, grow};
use disk_support::{base, empty_image, put32, qemu_io, raw_noise};

/// The exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

/// The program that asks it, built at the first call; cargo lets one process build at a time.
fn peer() -> &'static Path {
    static PEER: OnceLock<PathBuf> = OnceLock::new();
    PEER.get_or_init(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/qcow2-rs/Cargo.toml");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer-qcow2-rs");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(&target)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        target.join("debug/peer-qcow2-rs")
    })
}

fn ask(verb: &str, image: &Path, more: &[u64]) -> Output {
    let mut command = Command::new(peer());
    command.arg(verb).arg(image);
    command.args(more.iter().map(u64::to_string));
    command.output().unwrap()
}

/// Bytes `at..at + len` as `qcow2-rs` reads them, through all backing files.
fn read(path: &Path, at: u64, len: usize) -> Vec<u8> {
    let output = ask("read", path, &[at, len as u64]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", path.display());
    assert_eq!(output.stdout.len(), len);
    output.stdout
}

fn is_clean(path: &Path) -> bool {
    ask("check", path, &[]).status.success()
}

#[test]
fn a_volume() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    create_volume(&path, ByteSize::from_gib(1), Format::Qcow2).unwrap();
    assert!(is_clean(&path));
    assert!(read(&path, 0, 64 << 10).iter().all(|&b| b == 0));
    qemu_io(&path, Format::Qcow2, &["write -P 7 600M 64k"]);
    grow(&path, Format::Qcow2, ByteSize::from_gib(3)).unwrap();
    assert!(is_clean(&path));
    assert_eq!(read(&path, 600 << 20, 64 << 10), vec![7; 64 << 10]);
}

#[test]
fn an_overlay_over_an_overlay() {
    let dir = tempfile::tempdir().unwrap();
    let size = ByteSize::from_mib(64);
    let raw = raw_noise(&dir.path().join("raw"), 1 << 20);
    let noise = std::fs::read(&raw).unwrap();
    let bottom = dir.path().join("bottom.qcow2");
    disk_support::run(
        "qemu-img",
        [
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            raw.to_str().unwrap(),
            bottom.to_str().unwrap(),
        ],
    );
    let lower = dir.path().join("lower.qcow2");
    let mib = ByteSize::from_mib(1);
    create_overlay(
        &lower,
        &OverlaySpec::new(base(&bottom, Format::Qcow2, mib), mib),
    )
    .unwrap();
    qemu_io(&lower, Format::Qcow2, &["write -P 5 64k 64k"]);
    let upper = dir.path().join("upper.qcow2");
    create_overlay(
        &upper,
        &OverlaySpec::new(base(&lower, Format::Qcow2, mib), size),
    )
    .unwrap();
    assert_eq!(read(&upper, 0, 64 << 10), noise[..64 << 10]);
    assert_eq!(read(&upper, 64 << 10, 64 << 10), vec![5; 64 << 10]);
    assert!(is_clean(&upper));
}

/// It trusts what it reads: a panic where an agent needs an answer.
#[test]
fn why_it_does_not_judge_images() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("header");
    let judged = |image: &[u8]| {
        std::fs::write(&path, image).unwrap();
        ask("header", &path, &[]).status.code()
    };
    let mut image = empty_image();
    assert_eq!(judged(&image), Some(0));
    put32(&mut image, 20, 64);
    assert_eq!(
        judged(&image),
        Some(PANICKED),
        "it learned to refuse: look at it again"
    );
    assert!(disk::testing::qcow2::Header::parse(&image).is_err());
}
