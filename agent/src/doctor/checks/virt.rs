//! KVM, the accelerator, QEMU and firmware.

use std::path::Path;

use super::{super::Check, super::Status::*, check, list};
use crate::{
    config::AccelSetting,
    host::{
        accel::{choose, in_words},
        firmware::{Candidate, FirmwareFacts, State, first},
        kvm::Kvm,
        qemu::{MINIMUM, QemuFacts},
        run::RunError,
    },
    qemu::plan::Accelerator,
};

const INSTALL_QEMU: &str = "echo 'deb http://deb.debian.org/debian bookworm-backports main' > \
     /etc/apt/sources.list.d/backports.list && apt-get update && \
     apt-get install -t bookworm-backports qemu-system-x86";

/// What guests could run on.
#[must_use]
pub fn kvm(kvm: &Kvm) -> Check {
    let found = in_words(kvm);
    let tcg = "Guests run by emulation (TCG), ten to fifty times slower than on the processor.";
    match kvm {
        Kvm::Hardware { .. } => check("kvm", Ok, found, "Guests run on the processor.", None),
        Kvm::Emulated { .. } => check(
            "kvm",
            Degraded,
            found,
            format!("KVM would be slower than TCG and boots no ordinary guest. {tcg}"),
            Some(
                "On a machine of your own nothing should emulate KVM: look for a hypervisor \
                 underneath with: systemd-detect-virt. In a VM, have its provider switch on \
                 nested virtualisation, or use bare metal.",
            ),
        ),
        Kvm::NoAccess => check("kvm", Degraded, found, tcg, Some("Run the agent as root.")),
        Kvm::Missing { .. } => check(
            "kvm",
            Missing,
            found,
            tcg,
            Some(
                "Switch on AMD-V (SVM) or VT-x in the firmware's set-up, then: \
                 modprobe kvm_amd || modprobe kvm_intel",
            ),
        ),
        Kvm::Broken { .. } => check(
            "kvm",
            Missing,
            found,
            tcg,
            Some("Look at the kernel's messages: dmesg | grep -i kvm"),
        ),
    }
}

/// What guests do run on.
#[must_use]
pub fn accel(requested: AccelSetting, kvm: &Kvm) -> Check {
    let decision = choose(requested, kvm);
    let fast = matches!(kvm, Kvm::Hardware { .. });
    let (status, meaning, remedy) = match (decision.accelerator, fast) {
        (Accelerator::Kvm, true) => (Ok, "Guests run at full speed.", None),
        (Accelerator::Kvm, false) => (
            Degraded,
            "Guests will not start, or crawl.",
            Some("Set accel = \"auto\" in section [qemu] of the configuration."),
        ),
        (Accelerator::Tcg, true) => (
            Degraded,
            "Guests are emulated although the processor could run them.",
            Some("Set accel = \"auto\" in section [qemu] of the configuration."),
        ),
        (Accelerator::Tcg, false) => (
            Degraded,
            "Guests work, ten to fifty times slower than on the processor. Confidential guests \
             need KVM.",
            Some("See KVM above."),
        ),
    };
    check("accel", status, decision.reason, meaning, remedy)
}

/// Version, build and SEV objects of QEMU.
#[must_use]
pub fn qemu(binary: &Path, facts: &Result<QemuFacts, RunError>) -> Vec<Check> {
    match facts {
        Result::Ok(facts) => vec![
            qemu_version(binary, facts),
            features(facts),
            sev_objects(facts),
        ],
        Err(e) => {
            let none = "No guest can run.";
            let unknown = || "QEMU did not answer".to_owned();
            vec![
                check("qemu", Missing, e.to_string(), none, Some(INSTALL_QEMU)),
                check(
                    "qemu-features",
                    Missing,
                    unknown(),
                    none,
                    Some(INSTALL_QEMU),
                ),
                check("qemu-sev", Missing, unknown(), none, Some(INSTALL_QEMU)),
            ]
        }
    }
}

fn qemu_version(binary: &Path, facts: &QemuFacts) -> Check {
    let path = binary.display();
    match facts.version {
        Some(version) if version >= MINIMUM => check(
            "qemu",
            Ok,
            format!("{version} at {path}"),
            "Guests can run.",
            None,
        ),
        Some(version) => check(
            "qemu",
            Missing,
            format!("{version} at {path}, older than {MINIMUM}"),
            "Older versions have no SEV-SNP guests, and the agent's command lines are not theirs.",
            Some(INSTALL_QEMU),
        ),
        None => check(
            "qemu",
            Missing,
            format!("{path} does not say a version: {:?}", facts.banner),
            "It is not QEMU.",
            Some("Set binary in section [qemu] of the configuration to qemu-system-x86_64."),
        ),
    }
}

fn features(facts: &QemuFacts) -> Check {
    const OBJECTS: &[&str] = &["iothread", "memory-backend-memfd", "rng-random"];
    let mut lacking: Vec<String> = OBJECTS
        .iter()
        .filter(|o| !facts.objects.contains(**o))
        .map(|o| format!("object {o}"))
        .collect();
    if !facts.machines.contains("q35") {
        lacking.push("machine q35".into());
    }
    if !facts.accelerators.contains("tcg") && !facts.accelerators.contains("kvm") {
        lacking.push("an accelerator".into());
    }
    if !facts.sandbox {
        lacking.push("seccomp (-sandbox)".into());
    }
    if lacking.is_empty() {
        let accelerators = list(facts.accelerators.iter());
        let found = format!(
            "q35, seccomp, {} objects; accelerators {accelerators}",
            OBJECTS.len()
        );
        check(
            "qemu-features",
            Ok,
            found,
            "It is built with all that guests are given.",
            None,
        )
    } else {
        check(
            "qemu-features",
            Missing,
            format!("built without {}", list(lacking)),
            "The agent's command lines name what this build does not know.",
            Some(INSTALL_QEMU),
        )
    }
}

fn sev_objects(facts: &QemuFacts) -> Check {
    let (sev, snp) = (
        facts.objects.contains("sev-guest"),
        facts.objects.contains("sev-snp-guest"),
    );
    match (sev, snp) {
        (true, true) => check(
            "qemu-sev",
            Ok,
            "sev-guest and sev-snp-guest",
            "QEMU can launch SEV, SEV-ES and SEV-SNP guests.",
            None,
        ),
        (true, false) => check(
            "qemu-sev",
            Degraded,
            "sev-guest without sev-snp-guest",
            "No SEV-SNP guests.",
            Some(INSTALL_QEMU),
        ),
        _ => check(
            "qemu-sev",
            Missing,
            "no sev-guest",
            "No confidential guests.",
            Some(INSTALL_QEMU),
        ),
    }
}

/// SeaBIOS, OVMF, and OVMF for measured launches.
#[must_use]
pub fn firmware(facts: &FirmwareFacts) -> Vec<Check> {
    let places = |all: &[Candidate]| {
        format!(
            "none of {}",
            list(all.iter().map(|c| c.path.to_string_lossy()))
        )
    };
    let bios = match first(&facts.bios) {
        Some(c) => check(
            "firmware-bios",
            Ok,
            c.path.display().to_string(),
            "Guests boot by BIOS unless they ask for UEFI.",
            None,
        ),
        None => check(
            "firmware-bios",
            Missing,
            places(&facts.bios),
            "QEMU finds no firmware: no guest boots.",
            Some("apt-get install seabios"),
        ),
    };
    let unusable: Vec<_> = facts
        .uefi
        .iter()
        .filter(|c| !matches!(c.state, State::Usable(_)))
        .map(|c| match c.state {
            State::Absent => format!("{} does not exist", c.path.display()),
            _ => format!("{} is no readable firmware image", c.path.display()),
        })
        .collect();
    let uefi = if unusable.is_empty() {
        let found = list(facts.uefi.iter().map(|c| c.path.to_string_lossy()));
        check("firmware-uefi", Ok, found, "Guests can boot by UEFI.", None)
    } else {
        check(
            "firmware-uefi",
            Missing,
            unusable.join("; "),
            "Guests that ask for UEFI are refused.",
            Some(
                "apt-get install ovmf; if it is installed, set uefi_code and uefi_vars in \
                 section [qemu] of the configuration.",
            ),
        )
    };
    let sev = match first(&facts.amd_sev) {
        Some(c) => check(
            "firmware-sev",
            Ok,
            c.path.display().to_string(),
            "A confidential guest's kernel, initrd and command line can be measured.",
            None,
        ),
        None => check(
            "firmware-sev",
            Missing,
            places(&facts.amd_sev),
            "Confidential guests with a measured kernel cannot be launched unless they bring a \
             firmware. Ordinary guests do not need it.",
            Some(
                "Debian has no such build: make edk2's OvmfPkg/AmdSev/AmdSevX64.dsc and install \
                 it as /usr/share/ovmf/OVMF.amdsev.fd.",
            ),
        ),
    };
    vec![bios, uefi, sev]
}
