//! The accelerator, decided once for a boot: measuring takes up to a second, and
//! the answer does not change before the next boot.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    config::{AccelSetting, Config},
    fs::write_atomically,
    host::{
        accel::{Accel, choose},
        kvm::{self, Kvm},
    },
    qemu::process::boot_id,
};

/// A measurement with what it holds for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    boot_id: String,
    agent: String,
    kvm: Kvm,
}

/// Decides what guests run on, and says why.
pub(super) async fn decide(config: &Config) -> Accel {
    let accel = if config.qemu.accel == AccelSetting::Tcg {
        // Whatever KVM is, it is not asked for.
        let kvm = Kvm::Missing {
            why: "not looked for".into(),
        };
        let reason = "TCG as configured".to_owned();
        Accel {
            reason,
            ..choose(AccelSetting::Tcg, &kvm)
        }
    } else {
        let path = config.run_dir.join("kvm.json");
        let measured = tokio::task::spawn_blocking(move || measured(&path)).await;
        let kvm = measured.unwrap_or_else(|e| Kvm::Broken {
            what: e.to_string(),
        });
        choose(config.qemu.accel, &kvm)
    };
    if accel.warning {
        warn!("accelerator: {}", accel.reason);
    } else {
        info!("accelerator: {}", accel.reason);
    }
    accel
}

fn measured(path: &PathBuf) -> Kvm {
    let boot_id = boot_id();
    let agent = env!("CARGO_PKG_VERSION").to_owned();
    let known = std::fs::read(path)
        .ok()
        .and_then(|t| serde_json::from_slice::<Measured>(&t).ok());
    if let Some(known) = known
        && known.boot_id == boot_id
        && known.agent == agent
        && device_is_as_it_was(&known.kvm)
    {
        return known.kvm;
    }
    let measured = Measured {
        boot_id,
        agent,
        kvm: kvm::probe(Path::new(kvm::DEVICE)),
    };
    if let Ok(text) = serde_json::to_vec(&measured)
        && let Err(e) = write_atomically(path, &text, 0o600)
    {
        warn!("{}: {e}", path.display());
    }
    measured.kvm
}

/// A module that was loaded or unloaded, or a changed mode, is seen without measuring.
fn device_is_as_it_was(kvm: &Kvm) -> bool {
    use crate::host::{Device, device};
    let measured = matches!(kvm, Kvm::Emulated { .. } | Kvm::Hardware { .. });
    measured && device(Path::new(kvm::DEVICE)) == Device::Usable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_holds_for_one_boot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kvm.json");
        let first = measured(&path);
        let stored: Measured = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        // A number's text may be read back as its neighbour.
        let text = serde_json::to_string(&first).unwrap();
        assert_eq!(stored.kvm, serde_json::from_str(&text).unwrap());
        if !matches!(first, Kvm::Emulated { .. } | Kvm::Hardware { .. }) {
            skip::skip!("kvm", "{first:?}");
        }
        // A stored value is taken as it is, whatever a new measurement would say.
        let told = Measured {
            kvm: Kvm::Hardware { mips: 1234.5 },
            ..stored
        };
        std::fs::write(&path, serde_json::to_vec(&told).unwrap()).unwrap();
        assert_eq!(measured(&path), told.kvm);
        let old = Measured {
            boot_id: "another".into(),
            ..told
        };
        std::fs::write(&path, serde_json::to_vec(&old).unwrap()).unwrap();
        assert_ne!(measured(&path), Kvm::Hardware { mips: 1234.5 });
    }
}
