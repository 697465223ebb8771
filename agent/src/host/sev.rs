//! AMD SEV, SEV-ES and SEV-SNP: what processor, kernel and firmware offer.
//!
//! Source: AMD64 Architecture Programmer's Manual volume 3, appendix E.4.17
//! (CPUID Fn8000_001F); the kernel's Documentation/virt/kvm/api.rst.

use std::path::Path;

use serde::Serialize;

use super::{Device, device, kvm, text};

/// The device of the secure processor.
pub const DEVICE: &str = "/dev/sev";
/// First kernel whose KVM runs SEV-SNP guests.
pub const SNP_KERNEL: (u32, u32) = (6, 11);

/// CPUID Fn8000_001F.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SevCpu {
    /// Secure memory encryption.
    pub sme: bool,
    /// SEV.
    pub sev: bool,
    /// SEV-ES.
    pub sev_es: bool,
    /// SEV-SNP.
    pub sev_snp: bool,
    /// Position of the page tables' C-bit (`cbitpos`).
    pub c_bit: u32,
    /// Physical address bits that encryption takes (`reduced-phys-bits`).
    pub reduced_phys_bits: u32,
    /// VM privilege levels.
    pub vmpls: u32,
    /// Encrypted guests at a time: the number of address space ids.
    pub guests: u32,
    /// The lowest id of a guest without SEV-ES; those below are for ES and SNP.
    pub first_sev_asid: u32,
}

impl SevCpu {
    /// Decodes the leaf's registers.
    #[must_use]
    pub fn decode(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Self {
        let bit = |n: u32| eax >> n & 1 == 1;
        Self {
            sme: bit(0),
            sev: bit(1),
            sev_es: bit(3),
            sev_snp: bit(4),
            c_bit: ebx & 0x3F,
            reduced_phys_bits: ebx >> 6 & 0x3F,
            vmpls: ebx >> 12 & 0xF,
            guests: ecx,
            first_sev_asid: edx,
        }
    }

    /// This processor's, if it has the leaf.
    #[must_use]
    pub fn read() -> Option<Self> {
        const LEAF: u32 = 0x8000_001F;
        let leaf = |n| raw_cpuid::native_cpuid::cpuid_count(n, 0);
        if leaf(0x8000_0000).eax < LEAF {
            return None;
        }
        let r = leaf(LEAF);
        Some(Self::decode(r.eax, r.ebx, r.ecx, r.edx))
    }
}

/// Parameters of the module kvm_amd; `None` where they are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Module {
    /// `sev`.
    pub sev: Option<bool>,
    /// `sev_es`.
    pub sev_es: Option<bool>,
    /// `sev_snp`.
    pub sev_snp: Option<bool>,
}

impl Module {
    /// Reads `/sys/module/kvm_amd/parameters` or what is in its place.
    #[must_use]
    pub fn read(parameters: &Path) -> Self {
        let get = |name| text(&parameters.join(name)).as_deref().and_then(flag);
        Self {
            sev: get("sev"),
            sev_es: get("sev_es"),
            sev_snp: get("sev_snp"),
        }
    }
}

/// A module's flag, as different kernels print it.
#[must_use]
pub fn flag(text: &str) -> Option<bool> {
    match text.trim() {
        "Y" | "y" | "1" => Some(true),
        "N" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// The kinds of VM that KVM makes: bits of `KVM_CAP_VM_TYPES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VmTypes(pub u32);

impl VmTypes {
    /// `KVM_X86_SEV_VM`.
    #[must_use]
    pub fn sev(self) -> bool {
        self.0 >> 2 & 1 == 1
    }

    /// `KVM_X86_SEV_ES_VM`.
    #[must_use]
    pub fn sev_es(self) -> bool {
        self.0 >> 3 & 1 == 1
    }

    /// `KVM_X86_SNP_VM`.
    #[must_use]
    pub fn sev_snp(self) -> bool {
        self.0 >> 4 & 1 == 1
    }
}

/// Everything about SEV on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SevFacts {
    /// The processor's vendor: `AuthenticAMD`.
    pub vendor: String,
    /// Its features; `None` without the leaf.
    pub cpu: Option<SevCpu>,
    /// kvm_amd's parameters.
    pub module: Module,
    /// `/dev/sev`.
    pub device: Device,
    /// `KVM_CAP_VM_TYPES`; `None` when KVM cannot be asked. Kernels before 6.8 have
    /// no such capability and say 0.
    pub vm_types: Option<VmTypes>,
}

/// Gathers them. Blocks for a few small files and one request to KVM.
#[must_use]
pub fn gather() -> SevFacts {
    let vendor = raw_cpuid::CpuId::new().get_vendor_info();
    SevFacts {
        vendor: vendor.map(|v| v.as_str().to_owned()).unwrap_or_default(),
        cpu: SevCpu::read(),
        module: Module::read(Path::new("/sys/module/kvm_amd/parameters")),
        device: device(Path::new(DEVICE)),
        vm_types: kvm::vm_types(Path::new(kvm::DEVICE)).map(VmTypes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_is_decoded_as_the_manual_says() {
        // An EPYC Milan: C-bit 51, 5 address bits, 4 VMPLs, 509 guests, first SEV id 100.
        let milan = SevCpu::decode(0x0101_fd3f, 0x0000_4173, 0x1FD, 0x64);
        assert_eq!(
            milan,
            SevCpu {
                sme: true,
                sev: true,
                sev_es: true,
                sev_snp: true,
                c_bit: 51,
                reduced_phys_bits: 5,
                vmpls: 4,
                guests: 509,
                first_sev_asid: 100,
            }
        );
        let naples = SevCpu::decode(0b1111, 0x16F, 0xF, 5);
        assert!(naples.sev && naples.sev_es && !naples.sev_snp);
        assert_eq!((naples.c_bit, naples.reduced_phys_bits), (47, 5));
        let none = SevCpu::decode(0, 0, 0, 0);
        assert!(!none.sme && !none.sev && !none.sev_es && !none.sev_snp);
    }

    #[test]
    fn parameters_and_types() {
        let table = [
            ("Y\n", Some(true)),
            ("N\n", Some(false)),
            ("1", Some(true)),
            ("0", Some(false)),
        ];
        for (text, expected) in table.into_iter().chain([("", None), ("maybe", None)]) {
            assert_eq!(flag(text), expected, "{text:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sev"), "Y\n").unwrap();
        std::fs::write(dir.path().join("sev_snp"), "N\n").unwrap();
        let module = Module::read(dir.path());
        assert_eq!(
            module,
            Module {
                sev: Some(true),
                sev_es: None,
                sev_snp: Some(false)
            }
        );
        let types = VmTypes(0b1_0101);
        assert!(types.sev() && !types.sev_es() && types.sev_snp());
    }

    #[test]
    fn this_host_answers_consistently() {
        let facts = gather();
        assert!(!facts.vendor.is_empty());
        if facts.vendor == "GenuineIntel" {
            assert!(facts.cpu.is_none_or(|c| !c.sev));
        }
        assert_eq!(facts.device == Device::Absent, !Path::new(DEVICE).exists());
    }
}
