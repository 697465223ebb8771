//! Arguments and descriptors, as they are put together.

use std::path::PathBuf;

use serde_json::Value;

use crate::qemu::sealed::SealedFile;

/// First descriptor number that is handed to QEMU.
pub const FIRST_FD: i32 = 10;

/// How a descriptor comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FdSource {
    /// An existing file, read only.
    ReadOnly(PathBuf),
    /// An existing file, to read and write.
    ReadWrite(PathBuf),
    /// A log, created when missing, written at its end.
    Append(PathBuf),
    /// A unix socket to listen on; what is in its place is replaced.
    Listen(PathBuf),
    /// The instance's tap.
    Tap,
}

/// A descriptor and its number in QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFd {
    /// Its number in QEMU.
    pub number: i32,
    /// Where it comes from.
    pub source: FdSource,
}

/// A file that QEMU opens by a path in its private root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFile {
    /// Its bytes.
    pub content: SealedFile,
    /// The path that it gets.
    pub path: PathBuf,
}

/// Where placed files are in the private root.
const PLACE: &str = "/launch";

/// Arguments so far, and the descriptors, files and devices that they name.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) args: Vec<String>,
    pub(super) fds: Vec<PlannedFd>,
    pub(super) placed: Vec<PlacedFile>,
    pub(super) devices: Vec<PathBuf>,
    sets: u32,
}

impl Builder {
    pub(super) fn arg(&mut self, option: &str, value: impl Into<String>) {
        self.args.push(option.to_owned());
        self.args.push(value.into());
    }

    pub(super) fn flag(&mut self, option: &str) {
        self.args.push(option.to_owned());
    }

    pub(super) fn json(&mut self, option: &str, value: &Value) {
        self.arg(option, value.to_string());
    }

    pub(super) fn fd(&mut self, source: FdSource) -> i32 {
        let number = FIRST_FD + i32::try_from(self.fds.len()).unwrap_or(i32::MAX - FIRST_FD);
        self.fds.push(PlannedFd { number, source });
        number
    }

    /// A descriptor set holding one file: what QEMU opens as `/dev/fdset/N`.
    pub(super) fn file(&mut self, source: FdSource) -> String {
        let number = self.fd(source);
        self.sets += 1;
        self.arg("-add-fd", format!("fd={number},set={}", self.sets));
        format!("/dev/fdset/{}", self.sets)
    }

    /// A file that QEMU opens by this path.
    pub(super) fn place(&mut self, name: &str, content: &SealedFile) -> String {
        let path = format!("{PLACE}/{name}");
        self.placed.push(PlacedFile {
            content: content.clone(),
            path: path.clone().into(),
        });
        path
    }
}
