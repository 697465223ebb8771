//! Flags of `verify` that say what is expected, on top of a policy file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::input::{self, CliError};
use super::report_data::{self, Given, Hash, nonce};
use crate::hex_bytes::HexBytes;
use crate::policy::{self, AbiVersion, FloorSet, Floors, Policy, RequireAdvisories, TcbMinimum};
use crate::product::{Product, Silicon};
use crate::report::{FirmwareVersion, Report, SigningKey};

/// Expectations
#[derive(Debug, Args)]
#[command(next_help_heading = "Expectations")]
pub(crate) struct ExpectArgs {
    /// Policy file, as written by `policy init` and `measure --policy-out`; flags override it
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Launch digest; may be repeated, and one of them must be it
    #[arg(long, value_name = "HEX")]
    measurement: Vec<HexBytes<48>>,
    /// Let any guest do: without this, a launch digest must be expected
    #[arg(long)]
    any_guest: bool,
    /// Let a report of any time do: without this, report data must be expected
    #[arg(long)]
    any_time: bool,
    /// Report data, 64 bytes; @FILE for a file of them
    #[arg(long, value_name = "HEX", value_parser = report_data::report_data, group = "data")]
    report_data: Option<Given>,
    /// Nonce that the report data starts with, 8 to 64 bytes, zeros after it; @FILE for a file of
    /// them
    #[arg(long, value_name = "HEX", value_parser = nonce, group = "data")]
    nonce: Option<Given>,
    /// File whose hash is the report data, zeros after it
    #[arg(long, value_name = "FILE", group = "data")]
    report_data_file: Option<PathBuf>,
    /// Hash of --report-data-file; none for the file's bytes themselves
    #[arg(
        long,
        value_enum,
        default_value = "sha512",
        requires = "report_data_file"
    )]
    report_data_hash: Hash,
    /// Host data, 32 bytes, or none, which is all zero (so with the next four); may be repeated
    #[arg(long, value_name = "HEX", value_parser = HexBytes::<32>::or_none)]
    host_data: Vec<HexBytes<32>>,
    /// Family id, 16 bytes
    #[arg(long, value_name = "HEX", value_parser = HexBytes::<16>::or_none)]
    family_id: Option<HexBytes<16>>,
    /// Image id, 16 bytes
    #[arg(long, value_name = "HEX", value_parser = HexBytes::<16>::or_none)]
    image_id: Option<HexBytes<16>>,
    /// SHA-384 of the key of the ID block; may be repeated
    #[arg(long, value_name = "HEX", value_parser = HexBytes::<48>::or_none)]
    id_key_digest: Vec<HexBytes<48>>,
    /// SHA-384 of the key of the ID key; may be repeated
    #[arg(long, value_name = "HEX", value_parser = HexBytes::<48>::or_none)]
    author_key_digest: Vec<HexBytes<48>>,
    /// Least guest SVN
    #[arg(long, value_name = "NUMBER")]
    min_guest_svn: Option<u32>,
    /// Privilege level that asked for the report, 0 to 3 [default: 0]; may be repeated
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(0..=3))]
    vmpl: Vec<u32>,
    /// Bit of the guest policy: debug, migration_agent, smt, single_socket, cxl, mem_aes_256_xts,
    /// rapl_disabled, ciphertext_hiding or page_swap_disabled, with =on, =off or =any
    /// [default: debug=off, migration_agent=off]
    #[arg(long, value_name = "BIT=VALUE", value_parser = guest_bit)]
    guest_policy: Vec<(GuestBit, Option<bool>)>,
    /// Accept a guest that the host may debug
    #[arg(long)]
    allow_debug: bool,
    /// Accept a guest that may have a migration agent
    #[arg(long)]
    allow_migration_agent: bool,
    /// Least ABI version that the guest policy asks for, as 1.55
    #[arg(long, value_name = "VERSION")]
    min_abi: Option<AbiVersion>,
    /// Bit of the platform info: smt, tsme, ecc, rapl_disabled, ciphertext_hiding,
    /// alias_check_complete, iommu_write_safe or tio, with =on, =off or =any
    #[arg(long, value_name = "BIT=VALUE", value_parser = platform_bit)]
    platform: Vec<(PlatformBit, Option<bool>)>,
    /// Least reported TCB, as boot_loader=4,tee=0,snp=24,microcode=219 (fmc= too on Turin); what is
    /// left out keeps the policy file's minimum
    #[arg(long, visible_alias = "min-reported-tcb", value_name = "TCB")]
    min_tcb: Option<TcbMinimum>,
    /// Least TCBs by silicon, for reported, launch and running TCB: recommended, aleph, or one as
    /// Milan-X:microcode=68; may be repeated, and the last one of a component counts
    #[arg(long, value_name = "FLOOR", value_parser = floor)]
    tcb_floor: Vec<Floors>,
    /// Insist that AMD's bulletins are fixed: all, or those published up to a day, as 2026-02-10
    #[arg(long, value_name = "DATE", num_args = 0..=1, default_missing_value = "all")]
    require_advisories: Option<RequireAdvisories>,
    /// Table of bulletins instead of the built-in one
    #[arg(long, value_name = "FILE")]
    advisories: Option<PathBuf>,
    /// Public key that must have signed that table: FILE.sig, ECDSA P-384 with SHA-384
    #[arg(long, value_name = "PEM", requires = "advisories")]
    advisories_key: Option<PathBuf>,
    /// Accept bits of guest policy and platform info that this program does not know
    #[arg(long)]
    allow_unknown_bits: bool,
    /// Least committed TCB
    #[arg(long, value_name = "TCB")]
    min_committed_tcb: Option<TcbMinimum>,
    /// Least TCB at launch
    #[arg(long, value_name = "TCB")]
    min_launch_tcb: Option<TcbMinimum>,
    /// Least running TCB
    #[arg(long, value_name = "TCB")]
    min_current_tcb: Option<TcbMinimum>,
    /// Least version of the running firmware, as 1.55.29
    #[arg(long, value_name = "VERSION")]
    min_firmware: Option<FirmwareVersion>,
    /// Least version of the committed firmware
    #[arg(long, value_name = "VERSION")]
    min_committed_firmware: Option<FirmwareVersion>,
    /// Accept running firmware that is not committed
    #[arg(long)]
    allow_provisional: bool,
    /// Mitigations at launch that must be there, as bits
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    launch_mitigations: Option<u64>,
    /// Mitigations that must be there now, as bits
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    current_mitigations: Option<u64>,
    /// Chip id, 64 bytes (Turin: the first 8 will do); may be repeated
    #[arg(long, value_name = "HEX", value_parser = policy::chip_id)]
    chip_id: Vec<HexBytes<64>>,
    /// Accept a VCEK's report in which the platform hides the chip's id
    #[arg(long)]
    allow_masked_chip_id: bool,
    /// Kind of the signing key, vcek or vlek
    #[arg(long, value_name = "KIND", value_parser = signing_key)]
    signing_key: Option<SigningKey>,
    /// Cloud provider of a VLEK, which a VCEK's report then fails; may be repeated
    #[arg(long, value_name = "ID")]
    csp_id: Vec<String>,
    /// Product: milan, genoa or turin; may be repeated
    #[arg(long, value_name = "NAME", value_parser = product)]
    product: Vec<Product>,
    /// Greatest age of the VCEK or VLEK, in days
    #[arg(long, value_name = "DAYS")]
    max_certificate_age: Option<u32>,
    /// Don't decide without a current revocation list: from --certs, the cache or the network, not
    /// from the report's own certificates
    #[arg(long)]
    require_crl: bool,
    /// Accept a root that is not AMD's, for simulations; the verdict says so
    #[arg(long)]
    allow_foreign_root: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GuestBit {
    Debug,
    MigrationAgent,
    Smt,
    SingleSocket,
    Cxl,
    MemAes256Xts,
    RaplDisabled,
    CiphertextHiding,
    PageSwapDisabled,
}

impl GuestBit {
    const ALL: [Self; 9] = [
        Self::Debug,
        Self::MigrationAgent,
        Self::Smt,
        Self::SingleSocket,
        Self::Cxl,
        Self::MemAes256Xts,
        Self::RaplDisabled,
        Self::CiphertextHiding,
        Self::PageSwapDisabled,
    ];

    /// Name as in arguments.
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::MigrationAgent => "migration_agent",
            Self::Smt => "smt",
            Self::SingleSocket => "single_socket",
            Self::Cxl => "cxl",
            Self::MemAes256Xts => "mem_aes_256_xts",
            Self::RaplDisabled => "rapl_disabled",
            Self::CiphertextHiding => "ciphertext_hiding",
            Self::PageSwapDisabled => "page_swap_disabled",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlatformBit {
    Smt,
    Tsme,
    Ecc,
    RaplDisabled,
    CiphertextHiding,
    AliasCheckComplete,
    IommuWriteSafe,
    Tio,
}

impl PlatformBit {
    const ALL: [Self; 8] = [
        Self::Smt,
        Self::Tsme,
        Self::Ecc,
        Self::RaplDisabled,
        Self::CiphertextHiding,
        Self::AliasCheckComplete,
        Self::IommuWriteSafe,
        Self::Tio,
    ];

    /// Name as in arguments.
    fn name(self) -> &'static str {
        match self {
            Self::Smt => "smt",
            Self::Tsme => "tsme",
            Self::Ecc => "ecc",
            Self::RaplDisabled => "rapl_disabled",
            Self::CiphertextHiding => "ciphertext_hiding",
            Self::AliasCheckComplete => "alias_check_complete",
            Self::IommuWriteSafe => "iommu_write_safe",
            Self::Tio => "tio",
        }
    }
}

impl ExpectArgs {
    /// The policy file's expectations, overridden by the flags.
    pub(super) fn policy(&self) -> Result<Policy, CliError> {
        let mut policy = match &self.policy {
            None => Policy::default(),
            Some(path) => input::policy(path)?,
        };
        self.identity(&mut policy)?;
        self.bits(&mut policy)?;
        self.versions(&mut policy);
        self.tcb_worth(&mut policy)?;
        self.platform_identity(&mut policy);
        Ok(policy)
    }

    fn tcb_worth(&self, policy: &mut Policy) -> Result<(), CliError> {
        for floors in &self.tcb_floor {
            policy.floors = floors.clone().or(std::mem::take(&mut policy.floors));
        }
        if let Some(require) = &self.require_advisories {
            policy.advisories.require = require.clone();
        }
        if let Some(path) = &self.advisories {
            let table = super::advisories::read(path, self.advisories_key.as_deref())?;
            policy.advisories.table = Some(table);
        }
        policy.allow_unknown_bits |= self.allow_unknown_bits;
        Ok(())
    }

    fn identity(&self, policy: &mut Policy) -> Result<(), CliError> {
        replace(&mut policy.measurement, &self.measurement);
        replace(&mut policy.host_data, &self.host_data);
        replace(&mut policy.id_key_digest, &self.id_key_digest);
        replace(&mut policy.author_key_digest, &self.author_key_digest);
        replace(&mut policy.vmpl, &self.vmpl);
        set(&mut policy.family_id, self.family_id);
        set(&mut policy.image_id, self.image_id);
        set(&mut policy.min_guest_svn, self.min_guest_svn);
        let given = self.report_data.as_ref().or(self.nonce.as_ref());
        set(
            &mut policy.report_data,
            given.map(Given::bytes).transpose()?,
        );
        policy.any_guest |= self.any_guest;
        policy.any_time |= self.any_time;
        if let Some(path) = &self.report_data_file {
            policy.report_data = Some(self.report_data_hash.of_file(path)?);
        }
        Ok(())
    }

    /// What to say of a report whose data is not as expected, where a flag was mistaken.
    pub(super) fn hint(&self, report: &Report) -> Option<String> {
        let path = self.report_data_file.as_ref()?;
        self.report_data_hash.hint(path, &report.report_data)
    }

    /// Flags that contradict each other are refused: whichever won, one of them would not be
    /// checked.
    fn bits(&self, policy: &mut Policy) -> Result<(), CliError> {
        let mut seen = Vec::new();
        let rules = &mut policy.guest_policy;
        for &(bit, value) in &self.guest_policy {
            once(&mut seen, "--guest-policy", bit.name())?;
            let allowed = match bit {
                GuestBit::Debug => self.allow_debug.then_some("--allow-debug"),
                GuestBit::MigrationAgent => self
                    .allow_migration_agent
                    .then_some("--allow-migration-agent"),
                _ => None,
            };
            if let (Some(flag), Some(_)) = (allowed, value) {
                let name = bit.name();
                return Err(CliError::Usage(format!(
                    "--guest-policy {name}=on or {name}=off contradicts {flag}, which takes either"
                )));
            }
            *match bit {
                GuestBit::Debug => &mut rules.debug,
                GuestBit::MigrationAgent => &mut rules.migration_agent,
                GuestBit::Smt => &mut rules.smt,
                GuestBit::SingleSocket => &mut rules.single_socket,
                GuestBit::Cxl => &mut rules.cxl,
                GuestBit::MemAes256Xts => &mut rules.mem_aes_256_xts,
                GuestBit::RaplDisabled => &mut rules.rapl_disabled,
                GuestBit::CiphertextHiding => &mut rules.ciphertext_hiding,
                GuestBit::PageSwapDisabled => &mut rules.page_swap_disabled,
            } = value;
        }
        if self.allow_debug {
            rules.debug = None;
        }
        if self.allow_migration_agent {
            rules.migration_agent = None;
        }
        set(&mut rules.min_abi, self.min_abi);
        let mut seen = Vec::new();
        let rules = &mut policy.platform;
        for &(bit, value) in &self.platform {
            once(&mut seen, "--platform", bit.name())?;
            *match bit {
                PlatformBit::Smt => &mut rules.smt,
                PlatformBit::Tsme => &mut rules.tsme,
                PlatformBit::Ecc => &mut rules.ecc,
                PlatformBit::RaplDisabled => &mut rules.rapl_disabled,
                PlatformBit::CiphertextHiding => &mut rules.ciphertext_hiding,
                PlatformBit::AliasCheckComplete => &mut rules.alias_check_complete,
                PlatformBit::IommuWriteSafe => &mut rules.iommu_write_safe,
                PlatformBit::Tio => &mut rules.tio,
            } = value;
        }
        Ok(())
    }

    fn versions(&self, policy: &mut Policy) {
        for (rule, flag) in [
            (&mut policy.tcb.reported, self.min_tcb),
            (&mut policy.tcb.committed, self.min_committed_tcb),
            (&mut policy.tcb.launch, self.min_launch_tcb),
            (&mut policy.tcb.current, self.min_current_tcb),
        ] {
            if let Some(minimum) = flag {
                *rule = minimum.or(*rule);
            }
        }
        set(&mut policy.firmware.min_current, self.min_firmware);
        set(
            &mut policy.firmware.min_committed,
            self.min_committed_firmware,
        );
        policy.firmware.allow_provisional |= self.allow_provisional;
        set(&mut policy.mitigations.launch, self.launch_mitigations);
        set(&mut policy.mitigations.current, self.current_mitigations);
    }

    fn platform_identity(&self, policy: &mut Policy) {
        replace(&mut policy.chip_id, &self.chip_id);
        replace(&mut policy.csp_id, &self.csp_id);
        replace(&mut policy.product, &self.product);
        policy.allow_masked_chip_id |= self.allow_masked_chip_id;
        set(&mut policy.signing_key, self.signing_key);
        let day = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
        set(
            &mut policy.max_certificate_age,
            self.max_certificate_age.map(day),
        );
        policy.require_crl |= self.require_crl;
        policy.allow_foreign_root |= self.allow_foreign_root;
    }
}

/// A flag's list takes the place of the file's.
fn replace<T: Clone>(list: &mut Vec<T>, flag: &[T]) {
    if !flag.is_empty() {
        list.clear();
        list.extend_from_slice(flag);
    }
}

/// Refuses a bit that was seen before.
fn once(
    seen: &mut Vec<&'static str>,
    flag: &'static str,
    name: &'static str,
) -> Result<(), CliError> {
    if seen.contains(&name) {
        return Err(CliError::Usage(format!("{flag} {name} is given twice")));
    }
    seen.push(name);
    Ok(())
}

fn set<T>(rule: &mut Option<T>, flag: Option<T>) {
    if flag.is_some() {
        *rule = flag;
    }
}

fn value(text: &str) -> Result<(&str, Option<bool>), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected BIT=on, BIT=off or BIT=any")?;
    let value = match value {
        "on" | "true" | "1" => Some(true),
        "off" | "false" | "0" => Some(false),
        "any" => None,
        other => return Err(format!("{other:?} is none of on, off and any")),
    };
    Ok((name, value))
}

fn guest_bit(text: &str) -> Result<(GuestBit, Option<bool>), String> {
    let (name, value) = value(text)?;
    let name = name.replace('-', "_");
    let bit = GuestBit::ALL.into_iter().find(|bit| bit.name() == name);
    let bit = bit.ok_or_else(|| format!("{name:?} is no bit of the guest policy"))?;
    Ok((bit, value))
}

fn platform_bit(text: &str) -> Result<(PlatformBit, Option<bool>), String> {
    let (name, value) = value(text)?;
    let name = name.replace('-', "_");
    let bit = PlatformBit::ALL.into_iter().find(|bit| bit.name() == name);
    let bit = bit.ok_or_else(|| format!("{name:?} is no bit of the platform info"))?;
    Ok((bit, value))
}

/// A set of floors, or `SILICON:` and minima.
fn floor(text: &str) -> Result<Floors, String> {
    let Some((silicon, minimum)) = text.split_once(':') else {
        return text.parse().map(FloorSet::floors).map_err(|error| {
            format!("{error}, or minima for one silicon, as Milan-X:microcode=68")
        });
    };
    let silicon = Silicon::from_name(silicon).ok_or_else(|| {
        let known: Vec<&str> = Silicon::ALL.iter().map(|silicon| silicon.name()).collect();
        format!("{silicon:?} is none of {}", known.join(", "))
    })?;
    let minimum: TcbMinimum = minimum.parse()?;
    Ok(Floors(BTreeMap::from([(silicon, minimum)])))
}

fn signing_key(text: &str) -> Result<SigningKey, String> {
    SigningKey::from_name(text).ok_or_else(|| "expected vcek or vlek".to_owned())
}

fn product(text: &str) -> Result<Product, String> {
    Product::from_name(text).ok_or_else(|| "expected milan, genoa or turin".to_owned())
}

/// A number, decimal or hexadecimal with 0x.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => u64::from_str(text),
    };
    parsed.map_err(|_| "expected a number, as 63 or 0x3f".to_owned())
}
