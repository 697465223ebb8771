//! What a report must say, besides being genuine.
//!
//! [`Policy::default`] refuses what is dangerous and asks for nothing else: see each field. The
//! same type is read from policy files ([`Policy::from_toml`]) and filled from flags of the
//! command.

mod file;
mod floors;
mod strict;
mod values;

use std::time::Duration;

pub use file::{PolicyError, TEMPLATE};
pub use floors::{FloorSet, Floors};
pub use strict::{StrictError, pinned, strict};
pub use values::{AbiVersion, OneOrMany, TcbMinimum, chip_id};

use crate::advisories::{Date, Table};
use crate::hex_bytes::HexBytes;
use crate::product::Product;
use crate::report::{FirmwareVersion, SigningKey};

/// Expectations of a report. An empty list or `None` expects nothing, unless the field says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The launch digest is one of these.
    pub measurement: Vec<HexBytes<48>>,
    /// Any guest will do: no launch digest has to be expected. Not by default.
    pub any_guest: bool,
    /// The report data is this.
    pub report_data: Option<HexBytes<64>>,
    /// A report of any time will do: no report data has to be expected. Not by default.
    pub any_time: bool,
    /// The host data is one of these.
    pub host_data: Vec<HexBytes<32>>,
    /// The family id is this.
    pub family_id: Option<HexBytes<16>>,
    /// The image id is this.
    pub image_id: Option<HexBytes<16>>,
    /// The ID block was signed by one of these keys.
    pub id_key_digest: Vec<HexBytes<48>>,
    /// The ID key was signed by one of these keys.
    pub author_key_digest: Vec<HexBytes<48>>,
    /// The VMPL is one of these; 0 by default.
    pub vmpl: Vec<u32>,
    /// Least guest SVN.
    pub min_guest_svn: Option<u32>,
    /// Bits of the guest policy.
    pub guest_policy: GuestPolicyRules,
    /// Bits of the platform info.
    pub platform: PlatformRules,
    /// Accept bits of guest policy and platform info that are not known, as newer firmware may set
    /// them. Not by default.
    pub allow_unknown_bits: bool,
    /// Least TCBs.
    pub tcb: TcbRules,
    /// Least TCBs by silicon.
    pub floors: Floors,
    /// AMD's bulletins.
    pub advisories: AdvisoryRules,
    /// Firmware versions.
    pub firmware: FirmwareRules,
    /// Mitigation vectors.
    pub mitigations: MitigationRules,
    /// The chip is one of these.
    pub chip_id: Vec<HexBytes<64>>,
    /// Accept a report signed by a VCEK in which the platform hides the chip's id. Not by default.
    pub allow_masked_chip_id: bool,
    /// The report is signed by this kind of key.
    pub signing_key: Option<SigningKey>,
    /// The key is a VLEK, and one of these cloud providers'.
    pub csp_id: Vec<String>,
    /// The product is one of these.
    pub product: Vec<Product>,
    /// The leaf certificate is not older than this: time since the start of its validity.
    pub max_certificate_age: Option<Duration>,
    /// A revocation list must be there. Not by default, for AMD's is on the network.
    pub require_crl: bool,
    /// Accept a root that is not AMD's. For tests and simulations; the verdict says so.
    pub allow_foreign_root: bool,
}

/// Bits of the guest policy: `Some` asks for that value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestPolicyRules {
    /// The host may debug the guest; must be off by default.
    pub debug: Option<bool>,
    /// The guest may have a migration agent; must be off by default.
    pub migration_agent: Option<bool>,
    /// The guest may run on cores with SMT.
    pub smt: Option<bool>,
    /// The guest runs on one socket only.
    pub single_socket: Option<bool>,
    /// CXL may be populated.
    pub cxl: Option<bool>,
    /// Memory must be encrypted with AES-256-XTS.
    pub mem_aes_256_xts: Option<bool>,
    /// RAPL must be off.
    pub rapl_disabled: Option<bool>,
    /// Ciphertext hiding must be on.
    pub ciphertext_hiding: Option<bool>,
    /// Page move and swap are off.
    pub page_swap_disabled: Option<bool>,
    /// The policy asks for at least this ABI version.
    pub min_abi: Option<AbiVersion>,
}

impl Default for GuestPolicyRules {
    fn default() -> Self {
        Self {
            debug: Some(false),
            migration_agent: Some(false),
            smt: None,
            single_socket: None,
            cxl: None,
            mem_aes_256_xts: None,
            rapl_disabled: None,
            ciphertext_hiding: None,
            page_swap_disabled: None,
            min_abi: None,
        }
    }
}

/// Bits of the platform info: `Some` asks for that value.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PlatformRules {
    /// SMT.
    pub smt: Option<bool>,
    /// Encryption of all memory.
    pub tsme: Option<bool>,
    /// ECC.
    pub ecc: Option<bool>,
    /// RAPL off.
    pub rapl_disabled: Option<bool>,
    /// Ciphertext hiding.
    pub ciphertext_hiding: Option<bool>,
    /// Alias check done.
    pub alias_check_complete: Option<bool>,
    /// IOMMU keeps devices from writing to guests.
    pub iommu_write_safe: Option<bool>,
    /// Trusted I/O.
    pub tio: Option<bool>,
}

/// Least TCBs, each on its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TcbRules {
    /// Of the TCB that the signing key was derived from.
    pub reported: TcbMinimum,
    /// Of the TCB below which the platform can't be rolled back.
    pub committed: TcbMinimum,
    /// Of the TCB at launch.
    pub launch: TcbMinimum,
    /// Of the running TCB.
    pub current: TcbMinimum,
}

/// AMD's bulletins: told of by default, and insisted on where that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdvisoryRules {
    /// Which must be fixed.
    pub require: RequireAdvisories,
    /// Another table than the built-in one.
    pub table: Option<Table>,
}

/// Which active bulletins a report must show as fixed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RequireAdvisories {
    /// None.
    #[default]
    None,
    /// Those published up to and on that day.
    Until(Date),
    /// All.
    All,
}

impl RequireAdvisories {
    /// Whether a bulletin of that day must be fixed.
    #[must_use]
    pub fn covers(&self, published: &Date) -> bool {
        match self {
            Self::None => false,
            Self::Until(day) => published <= day,
            Self::All => true,
        }
    }
}

impl std::str::FromStr for RequireAdvisories {
    type Err = String;

    /// `all`, or a day.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            day => day.parse().map(Self::Until).map_err(|error| {
                format!("{error}, or all (before a file name write --require-advisories=all)")
            }),
        }
    }
}

/// Firmware versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirmwareRules {
    /// Least version of the running firmware.
    pub min_current: Option<FirmwareVersion>,
    /// Least version of the committed firmware.
    pub min_committed: Option<FirmwareVersion>,
    /// Accept running firmware that is not committed. Not by default.
    pub allow_provisional: bool,
}

/// Mitigation vectors of reports of version 5: these bits must be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct MitigationRules {
    /// At launch.
    pub launch: Option<u64>,
    /// Now.
    pub current: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            measurement: Vec::new(),
            any_guest: false,
            report_data: None,
            any_time: false,
            host_data: Vec::new(),
            family_id: None,
            image_id: None,
            id_key_digest: Vec::new(),
            author_key_digest: Vec::new(),
            vmpl: vec![0],
            min_guest_svn: None,
            guest_policy: GuestPolicyRules::default(),
            platform: PlatformRules::default(),
            allow_unknown_bits: false,
            tcb: TcbRules::default(),
            floors: Floors::default(),
            advisories: AdvisoryRules::default(),
            firmware: FirmwareRules::default(),
            mitigations: MitigationRules::default(),
            chip_id: Vec::new(),
            allow_masked_chip_id: false,
            signing_key: None,
            csp_id: Vec::new(),
            product: Vec::new(),
            max_certificate_age: None,
            require_crl: false,
            allow_foreign_root: false,
        }
    }
}
