//! Disks of ours read and checked by `qcow2-rs`, an implementation that shares no line with ours
//! or with QEMU; and what keeps it out of the agent.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;

use std::path::Path;

use disk::{ByteSize, Format, OverlaySpec, create_overlay, create_volume, grow};
use disk_support::{base, empty_image, put32, qemu_io, raw_noise};
use qcow2_rs::{
    dev::Qcow2DevParams, helpers::Qcow2IoBuf, meta::Qcow2Header, qcow2_default_params,
    utils::qcow2_setup_dev_tokio,
};

/// Bytes `at..at + len` as `qcow2-rs` reads them, through all backing files, its check passed.
async fn read(path: &Path, at: u64, len: usize) -> Vec<u8> {
    let params = qcow2_default_params!(true, false);
    let dev = qcow2_setup_dev_tokio(path, &params).await.unwrap();
    let mut buffer = Qcow2IoBuf::<u8>::new(len);
    dev.read_at(&mut buffer, at).await.unwrap();
    buffer.to_vec()
}

async fn is_clean(path: &Path) -> bool {
    let params = qcow2_default_params!(true, false);
    qcow2_setup_dev_tokio(path, &params)
        .await
        .unwrap()
        .check()
        .await
        .is_ok()
}

#[tokio::test]
async fn a_volume() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    create_volume(&path, ByteSize::from_gib(1), Format::Qcow2).unwrap();
    assert!(is_clean(&path).await);
    assert!(read(&path, 0, 64 << 10).await.iter().all(|&b| b == 0));
    qemu_io(&path, Format::Qcow2, &["write -P 7 600M 64k"]);
    grow(&path, Format::Qcow2, ByteSize::from_gib(3)).unwrap();
    assert!(is_clean(&path).await);
    assert_eq!(read(&path, 600 << 20, 64 << 10).await, vec![7; 64 << 10]);
}

#[tokio::test]
async fn an_overlay_over_an_overlay() {
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
    assert_eq!(read(&upper, 0, 64 << 10).await, noise[..64 << 10]);
    assert_eq!(read(&upper, 64 << 10, 64 << 10).await, vec![5; 64 << 10]);
    assert!(is_clean(&upper).await);
}

/// It trusts what it reads: a panic where an agent needs an answer.
#[test]
fn why_it_does_not_judge_images() {
    let mut image = empty_image();
    assert!(Qcow2Header::from_buf(&image).is_ok());
    put32(&mut image, 20, 64);
    let judged = std::panic::catch_unwind(|| Qcow2Header::from_buf(&image).is_ok());
    assert!(judged.is_err(), "it learned to refuse: look at it again");
    assert!(disk::testing::qcow2::Header::parse(&image).is_err());
}
