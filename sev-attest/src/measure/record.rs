//! `launch.json`: what a guest is launched from, as its host writes it down before the launch and
//! its owner recomputes it from files of his own.
//!
//! Everything that decides the launch digest, and what else a report of the guest says of its
//! launch, is in it. The host may write what it likes: what is checked is that the digest follows
//! from the rest, and the files are the owner's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};

use super::cpu::CpuSignature;
use super::error::MeasureError;
use super::guest_policy::GuestPolicy;
use super::hashes::{KernelHashes, sha256};
use super::idblock::{ID_AUTH_LEN, ID_BLOCK_LEN};
use super::launch::{Launch, LaunchDigest, Mode, Variants};
use super::ovmf::Firmware;
use super::sha384::Sha384Digest;
use crate::hex_bytes::HexBytes;

/// The format's name and version.
const FORMAT: &str = "sev-attest/launch/1";
/// Longest `launch.json`, bytes.
const MAX_LEN: usize = 1 << 20;

/// What an SEV-SNP guest is launched from by QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchRecord {
    format: String,
    /// The firmware.
    pub firmware: FileRecord,
    /// The kernel of a direct boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<KernelRecord>,
    /// How many vCPUs.
    pub vcpus: u32,
    /// Their type, as QEMU names it.
    pub vcpu_type: String,
    /// The guest policy.
    policy: String,
    /// HOST_DATA of the guest's reports.
    #[serde(serialize_with = "hex")]
    pub host_data: HexBytes<32>,
    /// The ID block that the launch is held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_block: Option<IdentityRecord>,
    /// MEASUREMENT of the guest's reports.
    #[serde(serialize_with = "hex")]
    pub launch_digest: HexBytes<48>,
}

/// A file that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    #[serde(serialize_with = "hex")]
    pub sha256: HexBytes<32>,
}

/// The kernel of a direct boot, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRecord {
    /// The kernel.
    pub kernel: FileRecord,
    /// The initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<FileRecord>,
    /// The command line.
    pub cmdline: String,
}

/// ID_BLOCK and ID_AUTH, base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityRecord {
    /// ID_BLOCK.
    pub block: String,
    /// ID_AUTH.
    pub auth: String,
    /// It is signed by an author key too.
    pub author_key: bool,
}

/// Why a `launch.json` does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It cannot be read.
    #[error("no launch.json: {0}")]
    Format(String),
    /// A file is not the one that was launched from.
    #[error("the {what} differs: launch.json has sha256 {recorded}, this file {found}")]
    File {
        /// Which.
        what: &'static str,
        /// The digest that was written down.
        recorded: HexBytes<32>,
        /// This file's.
        found: HexBytes<32>,
    },
    /// A file is given, and none was launched from.
    #[error("launch.json has no {0}")]
    NoFile(&'static str),
    /// The digest does not follow from the rest.
    #[error("the launch digest differs: launch.json has {recorded}, its inputs give {computed}")]
    Digest {
        /// As it was written down.
        recorded: HexBytes<48>,
        /// As it is.
        computed: HexBytes<48>,
    },
    /// The ID block is for another launch: the firmware would refuse it.
    #[error("the ID block {0}")]
    IdBlock(&'static str),
    /// The inputs can't be measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
}

impl LaunchRecord {
    /// A record of these inputs, with the digest that follows from them.
    ///
    /// # Errors
    /// When they cannot be launched.
    pub fn new(
        firmware: FileRecord,
        image: &Firmware,
        boot: Option<KernelRecord>,
        (vcpus, vcpu_type): (u32, &str),
        policy: GuestPolicy,
        host_data: [u8; 32],
    ) -> Result<Self, RecordError> {
        let mut record = Self {
            format: FORMAT.to_owned(),
            firmware,
            boot,
            vcpus,
            vcpu_type: vcpu_type.to_owned(),
            policy: policy.to_string(),
            host_data: HexBytes(host_data),
            id_block: None,
            launch_digest: HexBytes([0; 48]),
        };
        record.launch_digest = HexBytes(record.digest(image)?);
        Ok(record)
    }

    /// Reads one, strictly.
    ///
    /// # Errors
    /// For what is no such document, and for fields that are not known.
    pub fn parse(text: &[u8]) -> Result<Self, RecordError> {
        let refuse = |why: String| RecordError::Format(why);
        if text.len() > MAX_LEN {
            return Err(refuse(format!("longer than {MAX_LEN} bytes")));
        }
        let record: Self = serde_json::from_slice(text).map_err(|e| refuse(e.to_string()))?;
        if record.format != FORMAT {
            return Err(refuse(format!(
                "format {:?} is not {FORMAT}",
                record.format
            )));
        }
        record.policy()?;
        Ok(record)
    }

    /// As it is written.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and structs: nothing that JSON could not say.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The guest policy.
    ///
    /// # Errors
    /// When it is none.
    pub fn policy(&self) -> Result<GuestPolicy, RecordError> {
        let bits = self
            .policy
            .strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| RecordError::Format(format!("policy {:?}", self.policy)))?;
        Ok(GuestPolicy::new(bits)?)
    }

    /// The launch digest that follows from the inputs; the firmware's bytes are given.
    fn digest(&self, firmware: &Firmware) -> Result<Sha384Digest, RecordError> {
        let boots = match &self.boot {
            Some(boot) => vec![KernelHashes::from_hashes(
                boot.kernel.sha256.0,
                boot.initrd.map(|initrd| initrd.sha256.0),
                &boot.cmdline,
            )?],
            None => Vec::new(),
        };
        let variants = Variants {
            boots: &boots,
            cpus: &[CpuSignature::of_type(&self.vcpu_type)?],
            vcpus: &[self.vcpus],
        };
        let measured = Launch::new(firmware, Mode::Snp).measure(&variants)?;
        match measured.first().map(|measured| measured.digest) {
            Some(LaunchDigest::Snp(digest)) => Ok(digest),
            _ => Err(RecordError::Format("nothing to measure".to_owned())),
        }
    }

    /// Holds a file against the one that was launched from.
    ///
    /// # Errors
    /// When it is another one, by name.
    pub fn same_file(
        &self,
        what: &'static str,
        recorded: Option<FileRecord>,
        found: [u8; 32],
    ) -> Result<(), RecordError> {
        let recorded = recorded.ok_or(RecordError::NoFile(what))?.sha256;
        let found = HexBytes(found);
        match recorded == found {
            true => Ok(()),
            false => Err(RecordError::File {
                what,
                recorded,
                found,
            }),
        }
    }

    /// Whether all follows from all: this firmware is the one of the record, the digest is that of
    /// the inputs, and the ID block asks for nothing else.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self, firmware: &[u8]) -> Result<(), RecordError> {
        self.same_file("firmware", Some(self.firmware), sha256(firmware))?;
        let computed = HexBytes(self.digest(&Firmware::parse(firmware.to_vec())?)?);
        if computed != self.launch_digest {
            return Err(RecordError::Digest {
                recorded: self.launch_digest,
                computed,
            });
        }
        self.check_id_block()
    }

    /// Whether the firmware would launch this under its ID block.
    ///
    /// # Errors
    /// When it would not.
    pub fn check_id_block(&self) -> Result<(), RecordError> {
        let refuse = |why| Err(RecordError::IdBlock(why));
        let Some(id) = &self.id_block else {
            return Ok(());
        };
        let decoded = |text: &str, len| {
            let bytes = STANDARD.decode(text).ok();
            bytes.filter(|bytes| bytes.len() == len)
        };
        let (Some(block), Some(_)) = (
            decoded(&id.block, ID_BLOCK_LEN),
            decoded(&id.auth, ID_AUTH_LEN),
        ) else {
            return refuse("is not 96 and 4,096 bytes of base64");
        };
        if block.get(..48) != Some(self.launch_digest.0.as_slice()) {
            return refuse("is for another launch digest");
        }
        let policy = self.policy()?.bits().to_le_bytes();
        if block.get(0x58..) != Some(policy.as_slice()) {
            return refuse("is for another policy");
        }
        Ok(())
    }
}

fn hex<const N: usize, S: Serializer>(bytes: &HexBytes<N>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(bytes)
}
