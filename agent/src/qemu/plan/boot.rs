//! How a guest boots: firmware, and what it is given.

use std::path::{Path, PathBuf};

use crn_api_types::Firmware;
use serde_json::json;

use super::arguments::{Builder, FdSource};
use crate::qemu::sealed::SealedFile;

/// How a guest boots that its host can look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// From its disk by SeaBIOS.
    Bios,
    /// From its disk by OVMF.
    Uefi {
        /// Read-only flash.
        code: PathBuf,
        /// The instance's own copy of the variables.
        vars: PathBuf,
    },
    /// A kernel that QEMU hands to the firmware.
    DirectKernel {
        /// The firmware; SeaBIOS without one.
        firmware: Option<SealedFile>,
        /// The kernel.
        kernel: DirectKernel,
    },
}

/// A kernel that is booted without a boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectKernel {
    /// The kernel.
    pub kernel: SealedFile,
    /// The initial RAM disk.
    pub initrd: Option<SealedFile>,
    /// Its command line.
    pub cmdline: String,
}

impl Boot {
    /// The boot method for a firmware, with the files that it needs.
    #[must_use]
    pub fn new(firmware: Firmware, code: &Path, vars: &Path) -> Self {
        match firmware {
            Firmware::Bios => Self::Bios,
            Firmware::Uefi => Self::Uefi {
                code: code.to_owned(),
                vars: vars.to_owned(),
            },
        }
    }
}

/// What an open guest boots by: what the machine's options say of it.
pub(super) fn boot(b: &mut Builder, boot: &Boot) -> &'static str {
    match boot {
        Boot::Bios => "",
        Boot::Uefi { code, vars } => flash(b, code, vars),
        Boot::DirectKernel {
            firmware,
            kernel: direct,
        } => {
            measured(b, firmware.as_ref(), Some(direct));
            ""
        }
    }
}

fn flash(b: &mut Builder, code: &Path, vars: &Path) -> &'static str {
    let code = b.file(FdSource::ReadOnly(code.to_owned()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "uefi-code", "filename": code,
                "read-only": true, "auto-read-only": false, "locking": "off"}),
    );
    let vars = b.file(FdSource::ReadWrite(vars.to_owned()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "uefi-vars", "filename": vars}),
    );
    ",pflash0=uefi-code,pflash1=uefi-vars"
}

/// Firmware and kernel that QEMU reads as files. It knows no descriptors there: they are
/// placed in its private root.
pub(super) fn measured(
    b: &mut Builder,
    firmware: Option<&SealedFile>,
    direct: Option<&DirectKernel>,
) {
    if let Some(firmware) = firmware {
        let firmware = b.place("firmware", firmware);
        b.arg("-bios", firmware);
    }
    let Some(direct) = direct else { return };
    let kernel = b.place("kernel", &direct.kernel);
    b.arg("-kernel", kernel);
    if let Some(initrd) = &direct.initrd {
        let initrd = b.place("initrd", initrd);
        b.arg("-initrd", initrd);
    }
    b.arg("-append", &direct.cmdline);
}
