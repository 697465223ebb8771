//! SEV in the processor, in KVM, and the secure processor's device.

use super::{super::Check, super::Status::*, check, list};
use crate::host::{
    Device,
    sev::{SNP_KERNEL, SevFacts},
};

/// All three.
#[must_use]
pub fn all(facts: &SevFacts) -> Vec<Check> {
    vec![cpu(facts), kvm(facts), device(facts)]
}

/// The generations that are there, oldest first, of those named.
fn generations(sev: bool, es: bool, snp: bool) -> Vec<&'static str> {
    [("SEV", sev), ("SEV-ES", es), ("SEV-SNP", snp)]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
}

fn cpu(facts: &SevFacts) -> Check {
    let Some(cpu) = facts.cpu.filter(|c| c.sev) else {
        let found = format!("{} processor without SEV in CPUID 0x8000001F", facts.vendor);
        return check(
            "sev-cpu",
            Missing,
            found,
            "No confidential guests.",
            Some(if facts.vendor == "AuthenticAMD" {
                "On an EPYC, switch on SMEE and SEV-SNP support in the firmware's set-up; in a \
                 VM, SEV can be had only from bare metal."
            } else {
                "Use a host with an AMD EPYC 7003 or later."
            }),
        );
    };
    let found = format!(
        "{}; C-bit {}, {} address bits less, {} guests, SEV ids from {}, {} VMPLs",
        list(generations(cpu.sev, cpu.sev_es, cpu.sev_snp)),
        cpu.c_bit,
        cpu.reduced_phys_bits,
        cpu.guests,
        cpu.first_sev_asid,
        cpu.vmpls
    );
    if cpu.sev_snp {
        check(
            "sev-cpu",
            Ok,
            found,
            "The processor has all three generations.",
            None,
        )
    } else {
        check(
            "sev-cpu",
            Degraded,
            found,
            "No SEV-SNP guests: memory is encrypted, its integrity is not protected.",
            Some("SEV-SNP needs an AMD EPYC 7003 or later with SNP switched on in the firmware."),
        )
    }
}

fn kvm(facts: &SevFacts) -> Check {
    let m = facts.module;
    let types = facts.vm_types;
    // KVM names the types since 6.8 (SEV, SEV-ES since 6.10); before, the module's parameters tell.
    let has = |of_types: Option<bool>, of_module: Option<bool>| {
        of_types.unwrap_or(false) || of_module.unwrap_or(false)
    };
    let sev = has(types.map(|t| t.sev()), m.sev);
    let es = has(types.map(|t| t.sev_es()), m.sev_es);
    // The parameter alone does not do: guests need KVM's own type.
    let snp = types.is_some_and(|t| t.sev_snp());
    let shown = match types {
        Some(t) => format!("VM types {:#x}", t.0),
        None => "KVM cannot be asked".into(),
    };
    let parameters = [("sev", m.sev), ("sev_es", m.sev_es), ("sev_snp", m.sev_snp)];
    let parameters: Vec<_> = parameters
        .iter()
        .filter_map(|(name, v)| v.map(|v| format!("{name}={}", if v { 'Y' } else { 'N' })))
        .collect();
    let parameters = if parameters.is_empty() {
        "no kvm_amd".to_owned()
    } else {
        parameters.join(" ")
    };
    let found = format!(
        "{} ({shown}; {parameters})",
        list(generations(sev, es, snp))
    );
    let capable = facts.cpu.is_some_and(|c| c.sev);
    let (major, minor) = SNP_KERNEL;
    match (snp, sev || es) {
        (true, _) => check("sev-kvm", Ok, found, "KVM launches SEV-SNP guests.", None),
        (false, true) => check(
            "sev-kvm",
            Degraded,
            found,
            format!("KVM launches no SEV-SNP guests; that needs kernel {major}.{minor} or later."),
            Some(
                "apt-get install -t bookworm-backports linux-image-amd64, reboot, then: \
                 echo 'options kvm_amd sev=1 sev_es=1 sev_snp=1' > /etc/modprobe.d/kvm_amd.conf \
                 && modprobe -r kvm_amd && modprobe kvm_amd",
            ),
        ),
        (false, false) => check(
            "sev-kvm",
            Missing,
            found,
            "KVM launches no confidential guests.",
            capable.then_some(
                "echo 'options kvm_amd sev=1 sev_es=1 sev_snp=1' > /etc/modprobe.d/kvm_amd.conf \
                 && modprobe -r kvm_amd && modprobe kvm_amd; then: dmesg | grep -i sev",
            ),
        ),
    }
}

fn device(facts: &SevFacts) -> Check {
    match &facts.device {
        Device::Usable => check(
            "sev-device",
            Ok,
            "can be opened",
            "Certificates and attestation can be had from the secure processor.",
            None,
        ),
        Device::Absent => check(
            "sev-device",
            Missing,
            "does not exist",
            "No confidential guests: the secure processor cannot be reached.",
            facts
                .cpu
                .is_some_and(|c| c.sev)
                .then_some("modprobe ccp; then: dmesg | grep -i ccp"),
        ),
        Device::Refused { why } => check(
            "sev-device",
            Missing,
            format!("cannot be opened: {why}"),
            "The agent cannot reach the secure processor.",
            Some("Run the agent as root."),
        ),
    }
}
