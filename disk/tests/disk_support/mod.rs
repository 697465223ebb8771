//! What the tests of images and disks share: QEMU's own tools, and images bent by hand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use disk::{BaseRef, ByteSize, Created, Format, create_volume};
use serde_json::Value;

/// Runs a program that must succeed; gives its standard output.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> String {
    let mut command = Command::new(program);
    command.args(args);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

/// A disk that QEMU has open, and has written to.
pub(crate) struct InUse {
    qemu: Child,
    stdin: ChildStdin,
}

impl InUse {
    pub(crate) fn new(path: &Path, format: Format) -> Self {
        let mut qemu = Command::new("qemu-io")
            .args(["-f", format.as_str()])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Once it answers it has the disk open.
        let mut stdin = qemu.stdin.take().unwrap();
        stdin.write_all(b"write -P 1 0 64k\n").unwrap();
        let mut answer = String::new();
        BufReader::new(qemu.stdout.take().unwrap())
            .read_line(&mut answer)
            .unwrap();
        Self { qemu, stdin }
    }

    pub(crate) fn close(mut self) {
        drop(self.stdin);
        self.qemu.wait().unwrap();
    }
}

/// `qemu-img`, with words split at spaces and the path at the end.
pub(crate) fn qemu_img(words: &str, path: &Path) -> String {
    run(
        "qemu-img",
        words.split(' ').map(OsStr::new).chain([path.as_os_str()]),
    )
}

/// `qemu-img check`'s findings as (corruptions, leaks), both zero for a clean image.
pub(crate) fn qemu_check(path: &Path) -> (u64, u64) {
    let output = Command::new("qemu-img")
        .args(["check", "-f", "qcow2", "--output=json"])
        .arg(path)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report["check-errors"], 0);
    let count = |key: &str| report[key].as_u64().unwrap_or(0);
    (count("corruptions"), count("leaks"))
}

pub(crate) fn qemu_info(path: &Path, format: Format) -> Value {
    let words = format!("info -f {format} --output=json");
    serde_json::from_str(&qemu_img(&words, path)).unwrap()
}

/// Runs commands of `qemu-io` ("write -P 7 0 64k"), each of which must succeed.
pub(crate) fn qemu_io(path: &Path, format: Format, commands: &[&str]) -> String {
    let mut args = vec!["-f".to_owned(), format.to_string()];
    for command in commands {
        args.extend(["-c".to_owned(), (*command).to_owned()]);
    }
    args.push(path.to_str().unwrap().to_owned());
    let output = run("qemu-io", args);
    assert!(!output.contains("failed"), "{output}");
    output
}

/// An empty QCOW2 image of ours, of 64 MiB (one L2 table's worth is 512 MiB).
pub(crate) fn empty_image() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    let size = ByteSize::from_mib(64);
    assert_eq!(
        create_volume(&path, size, Format::Qcow2).unwrap(),
        Created::New
    );
    std::fs::read(path).unwrap()
}

/// A QCOW2 image of 64 MiB with a few clusters of data, made by QEMU.
pub(crate) fn full_image() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    create_volume(&path, ByteSize::from_mib(64), Format::Qcow2).unwrap();
    qemu_io(
        &path,
        Format::Qcow2,
        &[
            "write -P 1 0 64k",
            "write -P 2 1M 192k",
            "write -P 3 63M 1M",
        ],
    );
    std::fs::read(path).unwrap()
}

pub(crate) fn put32(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put64(image: &mut [u8], at: usize, value: u64) {
    image[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Changes a word by what it was.
pub(crate) fn change64(image: &mut [u8], at: usize, change: impl FnOnce(u64) -> u64) {
    put64(image, at, change(get64(image, at)));
}

pub(crate) fn get64(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

pub(crate) fn base(path: &Path, format: Format, size: ByteSize) -> BaseRef {
    BaseRef {
        path: path.to_owned(),
        format,
        virtual_size: size,
    }
}

/// A raw file of `len` bytes of noise.
pub(crate) fn raw_noise(path: &Path, len: usize) -> PathBuf {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    let bytes: Vec<u8> = words.flatten().take(len).collect();
    std::fs::write(path, bytes).unwrap();
    path.to_owned()
}
