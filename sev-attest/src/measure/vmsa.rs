//! The VMSA: a vCPU's register state at launch, one measured page per vCPU.
//!
//! Offsets are those of AMD's APM volume 2, table B-4; the values are what the virtual machine
//! monitor sets at reset and KVM adds to (`target/i386/cpu.c`, `sev_es_sync_vmsa` in Linux).

use super::cpu::CpuSignature;
use super::sha384::PAGE;

/// Where the boot processor starts.
pub(super) const BSP_EIP: u32 = 0xffff_fff0;

/// The virtual machine monitor: they differ in the registers' initial values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Vmm {
    /// QEMU with KVM.
    #[default]
    Qemu,
    /// Amazon EC2 since about April 2026, as sev-snp-measure 0.0.13 has it.
    Ec2,
    /// Amazon EC2 before: RDX is zero. As sev-snp-measure to 0.0.12 and `virtee/sev` to 8.0 have
    /// it.
    Ec2Until2026,
    /// Google Compute Engine on Milan.
    Gce,
    /// Google Compute Engine on Genoa, whose guests have 52 bits of address.
    GceGenoa,
    /// libkrun, as `virtee/sev` 8.0 has it.
    Krun,
}

impl Vmm {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Qemu,
        Self::Ec2,
        Self::Ec2Until2026,
        Self::Gce,
        Self::GceGenoa,
        Self::Krun,
    ];

    /// Name as the command line writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Ec2 => "ec2",
            Self::Ec2Until2026 => "ec2-2023",
            Self::Gce => "gce",
            Self::GceGenoa => "gce-genoa",
            Self::Krun => "krun",
        }
    }

    /// Whether the CPU's signature is among the registers. If not, its type does not count.
    #[must_use]
    pub fn measures_cpu_type(self) -> bool {
        self == Self::Qemu
    }

    /// EC2 launches the CPUID page after all other metadata.
    pub(super) fn launches_cpuid_last(self) -> bool {
        matches!(self, Self::Ec2 | Self::Ec2Until2026)
    }

    /// GCE leaves the firmware's memory unmeasured, where the others launch zero pages.
    pub(super) fn leaves_memory_unmeasured(self) -> bool {
        matches!(self, Self::Gce | Self::GceGenoa)
    }

    /// The address that VMSA pages are measured under. KVM asks for all ones, which the security
    /// processor cuts to a page and to the width of the guest's addresses.
    pub(super) fn vmsa_gpa(self) -> u64 {
        match self {
            Self::GceGenoa => 0x000f_ffff_ffff_f000,
            _ => 0x0000_ffff_ffff_f000,
        }
    }
}

/// The PAT's value after reset (APM volume 2, section 7.8.2).
const PAT: u64 = 0x0007_0406_0007_0406;

/// Segment attributes and registers in which monitors differ.
struct Reset {
    cs: u16,
    ss: u16,
    tr: u16,
    g_pat: u64,
    rdx: u64,
    mxcsr: u32,
    fcw: u16,
}

impl Vmm {
    fn reset(self, eip: u32, cpu: CpuSignature) -> Reset {
        match self {
            Self::Qemu => Reset {
                cs: 0x9b,
                ss: 0x93,
                tr: 0x8b,
                g_pat: PAT,
                rdx: u64::from(cpu.0),
                mxcsr: 0x1f80,
                fcw: 0x37f,
            },
            Self::Ec2 | Self::Ec2Until2026 | Self::Krun => Reset {
                // An EC2 guest's boot processor alone has the segment not accessed yet.
                cs: if eip == BSP_EIP || self == Self::Krun {
                    0x9a
                } else {
                    0x9b
                },
                ss: 0x92,
                tr: 0x83,
                g_pat: PAT,
                rdx: if self == Self::Ec2 { 0x600 } else { 0 },
                mxcsr: 0,
                fcw: 0,
            },
            Self::Gce | Self::GceGenoa => Reset {
                cs: 0x9b,
                ss: 0x93,
                tr: 0x8b,
                g_pat: 0x0007_0106,
                rdx: 0x600,
                mxcsr: 0,
                fcw: 0,
            },
        }
    }
}

/// The page of a vCPU that starts at `eip`.
///
/// `features` is SEV_FEATURES (APM volume 2, section 15.36): 0x1 for SNP, 0 for SEV-ES, plus what
/// the host turns on.
#[must_use]
pub fn page(vmm: Vmm, eip: u32, cpu: CpuSignature, features: u64) -> [u8; PAGE] {
    let reset = vmm.reset(eip, cpu);
    let real_mode = |selector, attributes, base| Segment {
        selector,
        attributes,
        limit: 0xffff,
        base,
    };
    let data = real_mode(0, 0x93, 0);
    let mut page = Page([0; PAGE]);
    page.segments([
        data,
        real_mode(0xf000, reset.cs, u64::from(eip & 0xffff_0000)),
        real_mode(0, reset.ss, 0),
        data,
        data,
        data,
    ]);
    page.put(0x90, &real_mode(0, reset.tr, 0).bytes());
    page.common(u64::from(eip & 0xffff), reset.rdx, features);
    page.put(0x158, &0x10u64.to_le_bytes()); // CR0
    page.put(0x268, &reset.g_pat.to_le_bytes());
    page.put(0x408, &reset.mxcsr.to_le_bytes());
    page.put(0x410, &reset.fcw.to_le_bytes());
    page.0
}

/// The page of a vCPU that QEMU starts in an SVSM at `eip`, in 32-bit protected mode.
///
/// COCONUT's QEMU, `target/i386/sev.c`. Its floating-point control word is zero, unlike that of a
/// guest without an SVSM.
pub(super) fn svsm_page(eip: u32, cpu: CpuSignature) -> [u8; PAGE] {
    let flat = |selector, attributes| Segment {
        selector,
        attributes,
        limit: u32::MAX,
        base: 0,
    };
    let data = flat(16, 0xc93);
    let gs = Segment {
        selector: 0,
        attributes: 0x93,
        limit: 0xffff,
        base: 0,
    };
    let mut page = Page([0; PAGE]);
    page.segments([data, flat(8, 0xc9b), data, data, data, gs]);
    page.put(
        0x90,
        &Segment {
            attributes: 0x8b,
            ..gs
        }
        .bytes(),
    );
    page.common(u64::from(eip), u64::from(cpu.0), 1);
    page.put(0x158, &0x11u64.to_le_bytes()); // CR0
    page.put(0x268, &PAT.to_le_bytes());
    page.put(0x408, &0x1f80u32.to_le_bytes()); // MXCSR
    page.0
}

/// A segment register.
#[derive(Clone, Copy)]
struct Segment {
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u64,
}

impl Segment {
    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let fields = self
            .selector
            .to_le_bytes()
            .into_iter()
            .chain(self.attributes.to_le_bytes())
            .chain(self.limit.to_le_bytes())
            .chain(self.base.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }
}

struct Page([u8; PAGE]);

impl Page {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(field) = self.0.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }

    /// ES, CS, SS, DS, FS and GS.
    fn segments(&mut self, segments: [Segment; 6]) {
        for (segment, offset) in segments.into_iter().zip((0..).step_by(16)) {
            self.put(offset, &segment.bytes());
        }
    }

    /// What all monitors set alike.
    fn common(&mut self, rip: u64, rdx: u64, features: u64) {
        let table = Segment {
            selector: 0,
            attributes: 0,
            limit: 0xffff,
            base: 0,
        };
        self.put(0x60, &table.bytes()); // GDTR
        self.put(
            0x70,
            &Segment {
                attributes: 0x82,
                ..table
            }
            .bytes(),
        ); // LDTR
        self.put(0x80, &table.bytes()); // IDTR
        for (offset, value) in [
            (0xd0, 0x1000),       // EFER: KVM sets SVME
            (0x148, 0x40),        // CR4: KVM sets MCE
            (0x160, 0x400),       // DR7
            (0x168, 0xffff_0ff0), // DR6
            (0x170, 0x2),         // RFLAGS
            (0x178, rip),
            (0x310, rdx),
            (0x3b0, features), // SEV_FEATURES
            (0x3e8, 0x1),      // XCR0
        ] {
            self.put(offset, &u64::to_le_bytes(value));
        }
    }
}
