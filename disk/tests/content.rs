//! Exports, and disks made of files: QEMU's own tools judge them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use disk::{
    BaseRef, ByteSize, Content, Error, Flaw, Format, OverlaySpec, create_overlay, create_volume,
    export, info, make_from,
};
use disk_support::{InUse, base, qemu_check, qemu_io, raw_noise, run};

static GO: AtomicBool = AtomicBool::new(false);

fn p(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A base with compressed clusters, 8 MiB of them, as publishers make them.
fn compressed_base(dir: &Path, options: &str) -> BaseRef {
    let raw = raw_noise(&dir.join("raw"), 1 << 20);
    let file = std::fs::File::options().write(true).open(&raw).unwrap();
    file.set_len(8 << 20).unwrap();
    let path = dir.join("base.qcow2");
    let words = [
        "convert",
        "-c",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        options,
        p(&raw),
        p(&path),
    ];
    run("qemu-img", words);
    base(&path, Format::Qcow2, ByteSize::from_mib(8))
}

fn overlay(dir: &Path, base: BaseRef) -> Content {
    let path = dir.join("root.qcow2");
    let spec = OverlaySpec::new(base.clone(), ByteSize::from_mib(96));
    create_overlay(&path, &spec).unwrap();
    Content {
        path,
        format: Format::Qcow2,
        base: Some(base),
    }
}

fn same(a: &Path, a_format: &str, b: &Path) {
    run(
        "qemu-img",
        ["compare", "-f", a_format, "-F", "qcow2", p(a), p(b)],
    );
}

#[test]
fn what_a_guest_saw_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    let content = overlay(dir.path(), compressed_base(dir.path(), "compat=1.1"));
    let writes = [
        "write -P 1 0 4k",
        "write -P 2 512k 1M",
        "write -z 64k 128k",
        "write -P 3 90M 3M",
        "discard 91M 1M",
    ];
    qemu_io(&content.path, Format::Qcow2, &writes);
    let before = std::fs::read(&content.path).unwrap();
    let target = dir.path().join("out.qcow2");
    let mut seen = Vec::new();
    let size = export(&content, &target, &GO, |p| seen.push(p)).unwrap();
    assert_eq!(size, ByteSize::from_mib(96));
    same(&content.path, "qcow2", &target);
    assert_eq!(qemu_check(&target), (0, 0));
    info(&target, Format::Qcow2, None).unwrap();
    let meta = target.metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert!(meta.blocks() * 512 < 8 << 20, "holes stay holes");
    assert!(seen.is_sorted_by_key(|p| p.done) && seen.last().unwrap().total == Some(size));
    assert!(
        std::fs::read(&content.path).unwrap() == before,
        "it was only read"
    );
    // What is there is not touched.
    let error = export(&content, &target, &GO, |_| ()).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    // Nobody waits for it: nothing is left.
    let other = dir.path().join("other");
    let error = export(&content, &other, &AtomicBool::new(true), |_| ()).unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    assert!(!other.exists());
}

/// Who had the disk may have written its header.
#[test]
fn nothing_that_a_header_names_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let secret = raw_noise(&dir.path().join("secret"), 1 << 20);
    let content = overlay(dir.path(), compressed_base(dir.path(), "compat=1.1"));
    let target = dir.path().join("out");
    let rebase = [
        "rebase",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        p(&secret),
        p(&content.path),
    ];
    run("qemu-img", rebase);
    let error = export(&content, &target, &GO, |_| ()).unwrap_err();
    assert!(
        matches!(error.flaw(), Some(Flaw::WrongBacking { .. })),
        "{error}"
    );
    let external = dir.path().join("external.qcow2");
    let options = format!("data_file={},data_file_raw=on", p(&secret));
    let create = ["create", "-f", "qcow2", "-o", &options, p(&external), "1M"];
    run("qemu-img", create);
    let content = Content {
        path: external.clone(),
        format: Format::Qcow2,
        base: None,
    };
    export(&content, &target, &GO, |_| ()).unwrap_err();
    make_from(&external, None, None, &target, &GO, |_| ()).unwrap_err();
    assert!(!target.exists());
}

#[test]
fn what_only_qemu_reads_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let content = overlay(
        dir.path(),
        compressed_base(dir.path(), "compat=1.1,compression_type=zstd"),
    );
    let target = dir.path().join("out");
    let error = export(&content, &target, &GO, |_| ()).unwrap_err();
    assert!(error.to_string().contains("compression"), "{error}");
    assert!(!target.exists());
}

#[test]
fn a_disk_in_use_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    create_volume(&path, ByteSize::from_mib(64), Format::Qcow2).unwrap();
    let in_use = InUse::new(&path, Format::Qcow2);
    let target = dir.path().join("out");
    let content = Content {
        path: path.clone(),
        format: Format::Qcow2,
        base: None,
    };
    for result in [
        export(&content, &target, &GO, |_| ()),
        make_from(&path, None, None, &target, &GO, |_| ()),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
    }
    in_use.close();
    export(&content, &target, &GO, |_| ()).unwrap();
    same(&path, "qcow2", &target);
}

#[test]
fn disks_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_noise(&dir.path().join("raw.img"), 3 << 20);
    let file = std::fs::File::options().write(true).open(&raw).unwrap();
    file.set_len(700 << 20).unwrap();
    let made = |name: &str, size| -> (PathBuf, Result<ByteSize, Error>) {
        let target = dir.path().join(name);
        let result = make_from(&raw, None, size, &target, &GO, |_| ());
        (target, result)
    };
    let (target, size) = made("a", None);
    assert_eq!(size.unwrap(), ByteSize::from_mib(700));
    same(&raw, "raw", &target);
    assert_eq!(qemu_check(&target), (0, 0));
    assert!(target.metadata().unwrap().blocks() * 512 < 8 << 20);
    let (larger, size) = made("b", Some(ByteSize::from_gib(2)));
    assert_eq!(size.unwrap(), ByteSize::from_gib(2));
    same(&target, "qcow2", &larger);
    let (none, size) = made("c", Some(ByteSize::from_mib(64)));
    assert!(matches!(size, Err(Error::SmallerThanBase { .. })));
    assert!(!none.exists());
    // A QCOW2 file is made plain.
    let packed = compressed_base(dir.path(), "compat=0.10");
    let plain = dir.path().join("d");
    make_from(&packed.path, Some(Format::Qcow2), None, &plain, &GO, |_| ()).unwrap();
    same(&packed.path, "qcow2", &plain);
    assert_eq!(qemu_check(&plain), (0, 0));
    // A stranger's program for QEMU is judged as an image is.
    let content = overlay(dir.path(), packed);
    let error = make_from(&content.path, None, None, &none, &GO, |_| ()).unwrap_err();
    assert!(
        matches!(error.flaw(), Some(Flaw::BackingFile { .. })),
        "{error}"
    );
}
