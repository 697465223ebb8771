//! CPU types by the names QEMU gives them, and their CPUID signatures.
//!
//! QEMU puts the signature (CPUID Fn0000_0001 EAX) into EDX at reset, so it is part of the measured
//! vCPU state. Only models with fixed numbers can be predicted: `host` and `max` take the host's.

use std::fmt;

use super::error::MeasureError;

/// CPUID Fn0000_0001 EAX: stepping 3:0, model 7:4, family 11:8, extended model 19:16, extended
/// family 27:20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSignature(pub u32);

impl CpuSignature {
    /// The signature of a family (to 270), model (to 255) and stepping (to 15)
    /// (AMD 25481, CPUID specification).
    ///
    /// # Errors
    /// When a number doesn't fit.
    pub fn new(family: u32, model: u32, stepping: u32) -> Result<Self, MeasureError> {
        if family > 0xf + 0xff || model > 0xff || stepping > 0xf {
            return Err(MeasureError::CpuRange {
                family,
                model,
                stepping,
            });
        }
        Ok(Self::encode(family, model, stepping))
    }

    const fn encode(family: u32, model: u32, stepping: u32) -> Self {
        let base = if family > 0xf { 0xf } else { family };
        Self((family - base) << 20 | (model >> 4) << 16 | base << 8 | (model & 0xf) << 4 | stepping)
    }

    /// The signature of a CPU type that QEMU names, as `EPYC-Milan-v2`.
    ///
    /// # Errors
    /// When the name is unknown, or has no signature of its own.
    pub fn of_type(name: &str) -> Result<Self, MeasureError> {
        CPU_TYPES
            .iter()
            .find(|cpu| cpu.name == name)
            .map(|cpu| cpu.signature)
            .ok_or_else(|| MeasureError::UnknownCpu {
                name: name.to_owned(),
                remedy: match name {
                    "host" | "max" | "base" => "it depends on the host; give --vcpu-sig or \
                                                family, model and stepping"
                        .to_owned(),
                    _ => format!("known are {}, or give --vcpu-sig", names()),
                },
            })
    }

    /// Family, model and stepping.
    #[must_use]
    pub fn parts(self) -> (u32, u32, u32) {
        let field = |shift: u32, bits: u32| (self.0 >> shift) & ((1 << bits) - 1);
        (
            field(8, 4) + field(20, 8),
            field(16, 4) << 4 | field(4, 4),
            field(0, 4),
        )
    }
}

impl fmt::Display for CpuSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A CPU type that QEMU names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuType {
    /// Name as after `-cpu`.
    pub name: &'static str,
    /// Signature that the guest sees.
    pub signature: CpuSignature,
}

/// Every EPYC model of QEMU's `builtin_x86_defs` (to 10.1), versions and aliases.
///
/// All versions of a model share its signature, because versions change features only.
pub const CPU_TYPES: &[CpuType] = &[
    cpu("EPYC", NAPLES),
    cpu("EPYC-v1", NAPLES),
    cpu("EPYC-v2", NAPLES),
    cpu("EPYC-IBPB", NAPLES),
    cpu("EPYC-v3", NAPLES),
    cpu("EPYC-v4", NAPLES),
    cpu("EPYC-v5", NAPLES),
    cpu("EPYC-Rome", ROME),
    cpu("EPYC-Rome-v1", ROME),
    cpu("EPYC-Rome-v2", ROME),
    cpu("EPYC-Rome-v3", ROME),
    cpu("EPYC-Rome-v4", ROME),
    cpu("EPYC-Rome-v5", ROME),
    cpu("EPYC-Milan", MILAN),
    cpu("EPYC-Milan-v1", MILAN),
    cpu("EPYC-Milan-v2", MILAN),
    cpu("EPYC-Milan-v3", MILAN),
    cpu("EPYC-Genoa", GENOA),
    cpu("EPYC-Genoa-v1", GENOA),
    cpu("EPYC-Genoa-v2", GENOA),
    cpu("EPYC-Turin", TURIN),
    cpu("EPYC-Turin-v1", TURIN),
];

const NAPLES: CpuSignature = CpuSignature::encode(23, 1, 2);
const ROME: CpuSignature = CpuSignature::encode(23, 49, 0);
const MILAN: CpuSignature = CpuSignature::encode(25, 1, 1);
const GENOA: CpuSignature = CpuSignature::encode(25, 17, 0);
const TURIN: CpuSignature = CpuSignature::encode(26, 0, 0);

const fn cpu(name: &'static str, signature: CpuSignature) -> CpuType {
    CpuType { name, signature }
}

/// All names, for the error text.
fn names() -> String {
    CPU_TYPES
        .iter()
        .map(|cpu| cpu.name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signatures_of_real_models() {
        for (name, signature) in [
            ("EPYC", 0x0080_0f12),
            ("EPYC-Milan", 0x00a0_0f11),
            ("EPYC-Genoa", 0x00a1_0f10),
        ] {
            assert_eq!(CpuSignature::of_type(name).unwrap().0, signature, "{name}");
        }
        assert!(
            CpuSignature::of_type("host")
                .unwrap_err()
                .to_string()
                .contains("--vcpu-sig")
        );
        assert!(CpuSignature::of_type("epyc").is_err());
    }

    proptest! {
        #[test]
        fn parts_are_the_inverse(family in 0u32..=270, model in 0u32..=255, stepping in 0u32..=15) {
            let signature = CpuSignature::new(family, model, stepping).unwrap();
            prop_assert_eq!(signature.parts(), (family, model, stepping));
        }

        #[test]
        fn numbers_that_do_not_fit_are_refused(family: u32, model: u32, stepping: u32) {
            let fits = family <= 270 && model <= 255 && stepping <= 15;
            prop_assert_eq!(CpuSignature::new(family, model, stepping).is_ok(), fits);
        }
    }
}
