//! What is refused comes with what to do: files that people really bring.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;

use std::path::Path;

use disk::{ByteSize, ImageStore, Import, StoreOptions, inspect};
use disk_support::{raw_noise, run};

fn p(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_format_of_others_says_how_it_becomes_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_noise(&dir.path().join("raw"), 1 << 20);
    let file = dir.path().join("file");
    for format in ["vmdk", "vdi", "vhdx", "vpc", "qed", "parallels"] {
        run(
            "qemu-img",
            ["convert", "-f", "raw", "-O", format, p(&raw), p(&file)],
        );
        let error = inspect(&std::fs::File::open(&file).unwrap(), None).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("qemu-img convert -O qcow2"),
            "{format}: {said}"
        );
        std::fs::remove_file(&file).unwrap();
    }
    // A virtual appliance is a tar archive with a disk in it.
    std::fs::write(dir.path().join("box.ovf"), "<Envelope/>").unwrap();
    run(
        "tar",
        [
            "-C",
            p(dir.path()),
            "--format=ustar",
            "-cf",
            p(&file),
            "box.ovf",
            "raw",
        ],
    );
    let error = inspect(&std::fs::File::open(&file).unwrap(), None).unwrap_err();
    assert!(error.to_string().contains("unpack it first"), "{error}");
}

#[test]
fn an_image_over_another_says_how_it_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (base, over) = (dir.path().join("base"), dir.path().join("over"));
    run("qemu-img", ["create", "-q", "-f", "qcow2", p(&base), "64M"]);
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        p(&base),
        p(&over),
    ];
    run("qemu-img", create);
    let error = inspect(&std::fs::File::open(&over).unwrap(), None).unwrap_err();
    assert!(error.to_string().contains("`qemu-img convert`"), "{error}");
}

#[test]
fn an_import_says_that_nothing_came_of_it_and_which_limit_it_met() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        max_image_size: ByteSize::from_mib(8),
        reserve: ByteSize::ZERO,
        ..StoreOptions::default()
    };
    let store = ImageStore::open_with(&dir.path().join("store"), options).unwrap();
    let raw = raw_noise(&dir.path().join("raw"), 1 << 20);
    let import = Import {
        format: None,
        expected: Some("0".repeat(64).parse().unwrap()),
    };
    let error = store.import(&raw, &import, |_| ()).unwrap_err().to_string();
    // The file is the operator's: nothing is said to have happened to it.
    assert!(error.ends_with("nothing was stored"), "{error}");
    assert!(raw.exists());

    let file = std::fs::File::options().write(true).open(&raw).unwrap();
    file.set_len(9 << 20).unwrap();
    let error = store.import(&raw, &Import::default(), |_| ()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("images.max_mib") && error.contains("holes"),
        "{error}"
    );
}
