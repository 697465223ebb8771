//! The bit fields of a report.

use std::fmt;

/// The guest policy: what the guest's owner lets the host do (AMD 56860, guest policy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    const SMT: u64 = 1 << 16;
    const ALWAYS_ONE: u64 = 1 << 17;
    const MIGRATE_MA: u64 = 1 << 18;
    const DEBUG: u64 = 1 << 19;
    const SINGLE_SOCKET: u64 = 1 << 20;
    const CXL: u64 = 1 << 21;
    const MEM_AES_256_XTS: u64 = 1 << 22;
    const RAPL_DISABLED: u64 = 1 << 23;
    const CIPHERTEXT_HIDING: u64 = 1 << 24;
    const PAGE_SWAP_DISABLED: u64 = 1 << 25;
    const RESERVED: u64 = !((1 << 26) - 1);

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// Least ABI version the firmware must have, major and minor.
    #[must_use]
    pub fn abi_minimum(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
    /// The guest may run on cores with SMT.
    #[must_use]
    pub fn smt_allowed(self) -> bool {
        self.has(Self::SMT)
    }
    /// The guest may be given a migration agent.
    #[must_use]
    pub fn migration_agent_allowed(self) -> bool {
        self.has(Self::MIGRATE_MA)
    }
    /// The host may read and write the guest's memory by debug commands.
    #[must_use]
    pub fn debug_allowed(self) -> bool {
        self.has(Self::DEBUG)
    }
    /// The guest runs on one socket only.
    #[must_use]
    pub fn single_socket(self) -> bool {
        self.has(Self::SINGLE_SOCKET)
    }
    /// CXL devices and memory may be populated.
    #[must_use]
    pub fn cxl_allowed(self) -> bool {
        self.has(Self::CXL)
    }
    /// Memory must be encrypted with AES-256-XTS.
    #[must_use]
    pub fn mem_aes_256_xts(self) -> bool {
        self.has(Self::MEM_AES_256_XTS)
    }
    /// Running average power limit must be off.
    #[must_use]
    pub fn rapl_disabled(self) -> bool {
        self.has(Self::RAPL_DISABLED)
    }
    /// Ciphertext of DRAM must be hidden from the host.
    #[must_use]
    pub fn ciphertext_hiding(self) -> bool {
        self.has(Self::CIPHERTEXT_HIDING)
    }
    /// The host may not move or swap the guest's pages.
    #[must_use]
    pub fn page_swap_disabled(self) -> bool {
        self.has(Self::PAGE_SWAP_DISABLED)
    }
    /// Bit 17 is one.
    #[must_use]
    pub fn is_well_formed(self) -> bool {
        self.has(Self::ALWAYS_ONE)
    }
    /// Bits that have no meaning in the specification that this program knows.
    #[must_use]
    pub fn unknown_bits(self) -> u64 {
        self.0 & Self::RESERVED
    }
}

impl fmt::Display for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What the platform has switched on (AMD 56860, PLATFORM_INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    const RESERVED: u64 = !0xff;

    fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }

    /// SMT is on.
    #[must_use]
    pub fn smt(self) -> bool {
        self.has(0)
    }
    /// Transparent encryption of all memory is on.
    #[must_use]
    pub fn tsme(self) -> bool {
        self.has(1)
    }
    /// Memory has ECC.
    #[must_use]
    pub fn ecc(self) -> bool {
        self.has(2)
    }
    /// Running average power limit is off.
    #[must_use]
    pub fn rapl_disabled(self) -> bool {
        self.has(3)
    }
    /// Ciphertext of DRAM is hidden from the host.
    #[must_use]
    pub fn ciphertext_hiding(self) -> bool {
        self.has(4)
    }
    /// Memory was searched for aliased addresses since the last reset, and none was found.
    #[must_use]
    pub fn alias_check_complete(self) -> bool {
        self.has(5)
    }
    /// The IOMMU keeps devices from writing to guests' memory. Newer than revision 1.58 of the
    /// specification; real Turins set it.
    #[must_use]
    pub fn iommu_write_safe(self) -> bool {
        self.has(6)
    }
    /// Trusted I/O is on.
    #[must_use]
    pub fn tio(self) -> bool {
        self.has(7)
    }
    /// Bits that have no meaning in the specification that this program knows.
    #[must_use]
    pub fn unknown_bits(self) -> u64 {
        self.0 & Self::RESERVED
    }
}

impl fmt::Display for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The key that signed a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningKey {
    /// Versioned Chip Endorsement Key: of one chip.
    Vcek,
    /// Versioned Loaded Endorsement Key: of one cloud provider.
    Vlek,
}

impl SigningKey {
    /// The kind of that name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Vcek, Self::Vlek]
            .into_iter()
            .find(|key| key.name().eq_ignore_ascii_case(name))
    }

    /// The name the specifications use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        }
    }
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Author key, masking and signing key (the word at 0x048).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyInfo(pub u32);

impl KeyInfo {
    /// The ID key was signed by an author key.
    #[must_use]
    pub fn author_key_enabled(self) -> bool {
        self.0 & 1 != 0
    }
    /// The platform's owner had the chip's key masked: no VCEK signs reports. Its id is masked
    /// apart from that, and is zero then.
    #[must_use]
    pub fn mask_chip_key(self) -> bool {
        self.0 & 2 != 0
    }
    /// Number of the signing key: 0 VCEK, 1 VLEK, 7 none, others reserved.
    #[must_use]
    pub fn signing_key_number(self) -> u32 {
        self.0 >> 2 & 7
    }
    /// The signing key; `None` for an unsigned report and for reserved numbers.
    #[must_use]
    pub fn signing_key(self) -> Option<SigningKey> {
        match self.signing_key_number() {
            0 => Some(SigningKey::Vcek),
            1 => Some(SigningKey::Vlek),
            _ => None,
        }
    }
    /// The reserved bits are zero.
    #[must_use]
    pub fn is_well_formed(self) -> bool {
        self.0 >> 5 == 0
    }
}
