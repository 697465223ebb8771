//! What to say on Azure, where no guest has the interfaces of SEV-SNP.
//!
//! There a paravisor stands between the guest and the security processor; it has the report made
//! when the machine starts, and leaves it in the virtual TPM.

use std::fs;
use std::path::Path;

/// The chassis asset tag of every virtual machine of Azure.
const ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// How a report is had here, where `dmi` (the kernel's `/sys/class/dmi/id`) tells of Azure.
pub(super) fn hint(dmi: &Path) -> Option<&'static str> {
    let tag = fs::read_to_string(dmi.join("chassis_asset_tag")).ok()?;
    (tag.trim() == ASSET_TAG).then_some(
        "on Azure the report of a confidential VM is in its virtual TPM: `tpm2_nvread -C o \
         0x01400001 > report.hcl`, which `verify` reads; its certificates are at \
         http://169.254.169.254/metadata/THIM/amd/certification (header `Metadata: true`), for \
         --certs",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_there() {
        let dmi = tempfile::tempdir().unwrap();
        assert_eq!(hint(dmi.path()), None);
        let tag = dmi.path().join("chassis_asset_tag");
        fs::write(&tag, "Not Specified\n").unwrap();
        assert_eq!(hint(dmi.path()), None);
        fs::write(&tag, format!("{ASSET_TAG}\n")).unwrap();
        assert!(hint(dmi.path()).unwrap().contains("0x01400001"));
    }
}
