//! What executes a guest's instructions.

/// The accelerator, already decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The kernel's.
    Kvm,
    /// Emulation.
    Tcg,
}

/// All that the host's processor offers to guests. Of KVM alone.
pub const CPU_OF_KVM: &str = "host";
/// All that QEMU's emulation offers.
pub const CPU_OF_TCG: &str = "max";

impl Accelerator {
    /// The CPU model that new guests get.
    #[must_use]
    pub fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => CPU_OF_KVM,
            Self::Tcg => CPU_OF_TCG,
        }
    }

    /// As QEMU calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}
