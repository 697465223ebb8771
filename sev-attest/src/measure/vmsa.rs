//! The VMSA: a vCPU's register state at launch, one measured page per vCPU.
//!
//! Offsets are those of AMD's APM volume 2, table B-4; the values are what the virtual machine monitor
//! sets at reset and KVM adds to (`target/i386/cpu.c`, `sev_es_sync_vmsa` in Linux).

use super::cpu::CpuSignature;
use super::pages::PAGE;

/// Where the boot processor starts.
pub(super) const BSP_EIP: u32 = 0xffff_fff0;

/// The virtual machine monitor: they differ in the registers' initial values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vmm {
    /// QEMU with KVM.
    #[default]
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

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
        /// The PAT's value after reset (APM volume 2, section 7.8.2).
        const PAT: u64 = 0x0007_0406_0007_0406;
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
            Self::Ec2 => Reset {
                cs: if eip == BSP_EIP { 0x9a } else { 0x9b },
                ss: 0x92,
                tr: 0x83,
                g_pat: PAT,
                rdx: 0x600,
                mxcsr: 0,
                fcw: 0,
            },
            Self::Gce => Reset {
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
/// `features` is SEV_FEATURES (APM volume 2, section 15.36): 0x1 for SNP, 0 for SEV-ES, plus what the
/// host turns on.
#[must_use]
pub fn page(vmm: Vmm, eip: u32, cpu: CpuSignature, features: u64) -> [u8; PAGE] {
    let reset = vmm.reset(eip, cpu);
    let mut page = Page([0; PAGE]);
    let cs_base = u64::from(eip & 0xffff_0000);
    for (offset, selector, attributes, base) in [
        (0x00, 0, 0x93, 0),                // ES
        (0x10, 0xf000, reset.cs, cs_base), // CS
        (0x20, 0, reset.ss, 0),            // SS
        (0x30, 0, 0x93, 0),                // DS
        (0x40, 0, 0x93, 0),                // FS
        (0x50, 0, 0x93, 0),                // GS
        (0x60, 0, 0, 0),                   // GDTR
        (0x70, 0, 0x82, 0),                // LDTR
        (0x80, 0, 0, 0),                   // IDTR
        (0x90, 0, reset.tr, 0),            // TR
    ] {
        page.segment(offset, selector, attributes, base);
    }
    for (offset, value) in [
        (0xd0, 0x1000),                   // EFER: KVM sets SVME
        (0x148, 0x40),                    // CR4: KVM sets MCE
        (0x158, 0x10),                    // CR0
        (0x160, 0x400),                   // DR7
        (0x168, 0xffff_0ff0),             // DR6
        (0x170, 0x2),                     // RFLAGS
        (0x178, u64::from(eip & 0xffff)), // RIP
        (0x268, reset.g_pat),             // G_PAT
        (0x310, reset.rdx),               // RDX
        (0x3b0, features),                // SEV_FEATURES
        (0x3e8, 0x1),                     // XCR0
    ] {
        page.put(offset, &u64::to_le_bytes(value));
    }
    page.put(0x408, &reset.mxcsr.to_le_bytes());
    page.put(0x410, &reset.fcw.to_le_bytes());
    page.0
}

struct Page([u8; PAGE]);

impl Page {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(field) = self.0.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }

    /// Selector, attributes, limit (64 KiB everywhere), base.
    fn segment(&mut self, offset: usize, selector: u16, attributes: u16, base: u64) {
        self.put(offset, &selector.to_le_bytes());
        self.put(offset + 2, &attributes.to_le_bytes());
        self.put(offset + 4, &0xffff_u32.to_le_bytes());
        self.put(offset + 8, &base.to_le_bytes());
    }
}
