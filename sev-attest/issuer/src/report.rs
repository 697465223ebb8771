//! Reports to be.

use sev_attest::product::{Cpuid, Product};
use sev_attest::report::FirmwareVersion;
pub use sev_attest::report::{REPORT_LEN, SIGNED_LEN};
use sev_attest::tcb::Tcb;

/// The fields of a report. What is not here is zero, or set in the bytes.
#[derive(Debug, Clone)]
pub struct ReportSpec {
    /// The product, for the layout of the TCBs; not a field of its own.
    pub product: Product,
    /// Version of the layout.
    pub version: u32,
    /// Guest SVN.
    pub guest_svn: u32,
    /// Guest policy.
    pub policy: u64,
    /// Family id.
    pub family_id: [u8; 16],
    /// Image id.
    pub image_id: [u8; 16],
    /// VMPL.
    pub vmpl: u32,
    /// Signature algorithm.
    pub signature_algorithm: u32,
    /// Platform info.
    pub platform_info: u64,
    /// The word with the kind of the signing key.
    pub key_info: u32,
    /// Report data.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// Host data.
    pub host_data: [u8; 32],
    /// ID key digest.
    pub id_key_digest: [u8; 48],
    /// Author key digest.
    pub author_key_digest: [u8; 48],
    /// Report id.
    pub report_id: [u8; 32],
    /// Running TCB.
    pub current_tcb: Tcb,
    /// Reported TCB.
    pub reported_tcb: Tcb,
    /// Committed TCB.
    pub committed_tcb: Tcb,
    /// TCB at launch.
    pub launch_tcb: Tcb,
    /// Processor, from version 3 on.
    pub cpuid: Cpuid,
    /// Chip id.
    pub chip_id: [u8; 64],
    /// Running firmware.
    pub current_version: FirmwareVersion,
    /// Committed firmware.
    pub committed_version: FirmwareVersion,
    /// Mitigations at launch, from version 5 on.
    pub launch_mitigations: u64,
    /// Mitigations now, from version 5 on.
    pub current_mitigations: u64,
}

impl ReportSpec {
    /// A sound report of a product, of version 3, or 5 for Turin, signed by a VCEK.
    #[must_use]
    pub fn new(product: Product) -> Self {
        let mut chip_id = [0; 64];
        for (i, byte) in chip_id[..product.hwid_len()].iter_mut().enumerate() {
            *byte = u8::try_from(i).unwrap() ^ 0xa5;
        }
        let tcb = Tcb {
            fmc: (product == Product::Turin).then_some(1),
            boot_loader: 4,
            tee: 1,
            snp: 24,
            microcode: 219,
        };
        let (family, model) = match product {
            Product::Milan => (0x19, 0x01),
            Product::Genoa => (0x19, 0x11),
            Product::Turin => (0x1a, 0x02),
        };
        let firmware = FirmwareVersion {
            major: 1,
            minor: 55,
            build: 40,
        };
        Self {
            product,
            version: if product == Product::Turin { 5 } else { 3 },
            guest_svn: 3,
            policy: 0x3_0000,
            family_id: [0xfa; 16],
            image_id: [0x1a; 16],
            vmpl: 0,
            signature_algorithm: 1,
            platform_info: 0x25,
            key_info: 0,
            report_data: [0x5d; 64],
            measurement: [0x3e; 48],
            host_data: [0x40; 32],
            id_key_digest: [0x1d; 48],
            author_key_digest: [0; 48],
            report_id: [0x77; 32],
            current_tcb: tcb,
            reported_tcb: tcb,
            committed_tcb: tcb,
            launch_tcb: tcb,
            cpuid: Cpuid {
                family,
                model,
                stepping: 1,
            },
            chip_id,
            current_version: firmware,
            committed_version: firmware,
            launch_mitigations: 0x3f,
            current_mitigations: 0x3f,
        }
    }

    /// The same, signed by a VLEK.
    #[must_use]
    pub fn with_vlek(mut self) -> Self {
        self.key_info = 1 << 2;
        self
    }

    /// The same in another version.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The report, unsigned.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; REPORT_LEN] {
        let mut bytes = [0; REPORT_LEN];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        let tcb = |tcb: Tcb| tcb.encode(self.product).0.to_le_bytes();
        let firmware = |v: FirmwareVersion| [v.build, v.minor, v.major];
        put(0x000, &self.version.to_le_bytes());
        put(0x004, &self.guest_svn.to_le_bytes());
        put(0x008, &self.policy.to_le_bytes());
        put(0x010, &self.family_id);
        put(0x020, &self.image_id);
        put(0x030, &self.vmpl.to_le_bytes());
        put(0x034, &self.signature_algorithm.to_le_bytes());
        put(0x038, &tcb(self.current_tcb));
        put(0x040, &self.platform_info.to_le_bytes());
        put(0x048, &self.key_info.to_le_bytes());
        put(0x050, &self.report_data);
        put(0x090, &self.measurement);
        put(0x0c0, &self.host_data);
        put(0x0e0, &self.id_key_digest);
        put(0x110, &self.author_key_digest);
        put(0x140, &self.report_id);
        put(0x160, &[0xff; 32]);
        put(0x180, &tcb(self.reported_tcb));
        if self.version >= 3 {
            let Cpuid {
                family,
                model,
                stepping,
            } = self.cpuid;
            put(0x188, &[family, model, stepping]);
        }
        put(0x1a0, &self.chip_id);
        put(0x1e0, &tcb(self.committed_tcb));
        put(0x1e8, &firmware(self.current_version));
        put(0x1ec, &firmware(self.committed_version));
        put(0x1f0, &tcb(self.launch_tcb));
        if self.version >= 5 {
            put(0x1f8, &self.launch_mitigations.to_le_bytes());
            put(0x200, &self.current_mitigations.to_le_bytes());
        }
        bytes
    }
}
