//! How a guest boots: firmware, and what it is given.

use std::path::{Path, PathBuf};

use crn_api_types::Firmware;
use serde_json::json;

use super::arguments::{Builder, FdSource};

/// How the guest boots.
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

/// The flash of a UEFI guest: what the machine's options say of it, none for BIOS.
pub(super) fn flash(b: &mut Builder, boot: &Boot) -> &'static str {
    let Boot::Uefi { code, vars } = boot else {
        return "";
    };
    let code = b.file(FdSource::ReadOnly(code.clone()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "uefi-code", "filename": code,
                "read-only": true, "auto-read-only": false}),
    );
    let vars = b.file(FdSource::ReadWrite(vars.clone()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "uefi-vars", "filename": vars}),
    );
    ",pflash0=uefi-code,pflash1=uefi-vars"
}
