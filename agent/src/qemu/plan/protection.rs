//! What keeps a guest's host out, and all that depends on it.
//!
//! A guest is open to its host, or the processor encrypts it. What goes with the one and
//! not with the other (emulation, flash, a seed, the host's own CPU model) is inside the
//! variants, so that no pair can be written that QEMU or the processor would refuse, or
//! that would let the host in again. Sources: QEMU's qapi/qom.json and target/i386/sev.c.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sev_attest::measure::{CpuSignature, GuestPolicy, ID_AUTH_LEN, ID_BLOCK_LEN, MeasureError};

use super::{
    accelerator::Accelerator,
    arguments::Builder,
    boot::{Boot, DirectKernel},
};
use crate::qemu::sealed::SealedFile;

/// The id of QEMU's object.
const OBJECT: &str = "sev0";

/// How a guest is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Not at all: the host sees all.
    None(Open),
    /// By SEV or, where its policy says so, SEV-ES.
    Sev(Sev),
    /// By SEV-SNP.
    Snp(Snp),
}

/// A guest that its host can look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// KVM or TCG.
    pub accel: Accelerator,
    /// The CPU model.
    pub cpu: String,
    /// With KVM the guest may run guests of its own.
    pub nested: bool,
    /// What it boots by.
    pub boot: Boot,
    /// The cloud-init seed.
    pub seed: Option<PathBuf>,
}

/// What the QEMU that will run says of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SevHost {
    /// The secure processor's device.
    pub device: PathBuf,
    /// Position of the page tables' C-bit.
    pub cbitpos: u32,
    /// Address bits that the guest loses.
    pub reduced_phys_bits: u32,
}

/// A CPU model whose signature is the same on every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCpu(String);

impl NamedCpu {
    /// The model of this name.
    ///
    /// # Errors
    /// When there is none, or it is what the host has (`host`, `max`).
    pub fn new(name: &str) -> Result<Self, MeasureError> {
        CpuSignature::of_type(name)?;
        Ok(Self(name.to_owned()))
    }

    /// As QEMU calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// A guest of SEV or SEV-ES. It stays paused until its owner's secret is in its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sev {
    /// The host.
    pub host: SevHost,
    /// The CPU model.
    pub cpu: NamedCpu,
    /// The owner's policy; bit 2 asks for SEV-ES.
    pub policy: u32,
    /// The owner's session, base64.
    pub session: SealedFile,
    /// The owner's Diffie-Hellman certificate, base64.
    pub dh_cert: SealedFile,
    /// The firmware: one file, measured, without variables of its own.
    pub firmware: SealedFile,
    /// A measured kernel; without one it boots from its disk.
    pub kernel: Option<DirectKernel>,
    /// The cloud-init seed. The host's word: nothing of it is measured.
    pub seed: Option<PathBuf>,
}

/// A guest of SEV-SNP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snp {
    /// The host.
    pub host: SevHost,
    /// The CPU model: part of the launch digest.
    pub cpu: NamedCpu,
    /// The owner's policy.
    pub policy: GuestPolicy,
    /// What each report of this guest says of the host's data.
    pub host_data: [u8; 32],
    /// The owner's word on what may be launched.
    pub identity: Option<Identity>,
    /// The firmware.
    pub firmware: SealedFile,
    /// A measured kernel; without one it boots from its disk.
    pub kernel: Option<DirectKernel>,
}

/// An ID block with its authentication, as the security processor checks them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// ID_BLOCK.
    pub block: [u8; ID_BLOCK_LEN],
    /// ID_AUTH.
    pub auth: Box<[u8; ID_AUTH_LEN]>,
    /// It is signed by an author key too.
    pub author_key: bool,
}

/// Whether devices reach all of a guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestMemory {
    /// All of it.
    Open,
    /// What the guest shares with them.
    Private,
}

impl Protection {
    /// Whether devices reach all of its memory.
    #[must_use]
    pub fn memory(&self) -> GuestMemory {
        match self {
            Self::None(_) => GuestMemory::Open,
            Self::Sev(_) | Self::Snp(_) => GuestMemory::Private,
        }
    }

    /// The host's configuration of the guest, on a disk.
    #[must_use]
    pub fn seed(&self) -> Option<&PathBuf> {
        match self {
            Self::None(open) => open.seed.as_ref(),
            Self::Sev(sev) => sev.seed.as_ref(),
            Self::Snp(_) => None,
        }
    }

    /// What a reset means: QEMU 11 launches an SNP guest anew in place, QEMU 10 stops as
    /// if the guest had powered off, with the reset as its reason. A guest that waits for
    /// its owner's secret cannot be reset at all.
    pub(super) fn reboot(&self) -> &'static str {
        match self {
            Self::None(_) | Self::Snp(_) => "reset",
            Self::Sev(_) => "shutdown",
        }
    }
}

/// The object that protects the guest: what the machine's options say of it.
pub(super) fn object(b: &mut Builder, protection: &Protection) -> String {
    let (host, object) = match protection {
        Protection::None(_) => return String::new(),
        Protection::Sev(sev) => (&sev.host, sev_guest(b, sev)),
        Protection::Snp(snp) => (&snp.host, snp_guest(snp)),
    };
    let mut object = object;
    object["id"] = OBJECT.into();
    object["sev-device"] = host.device.display().to_string().into();
    object["cbitpos"] = host.cbitpos.into();
    object["reduced-phys-bits"] = host.reduced_phys_bits.into();
    b.devices.push(host.device.clone());
    b.json("-object", &object);
    format!(",confidential-guest-support={OBJECT}")
}

fn sev_guest(b: &mut Builder, sev: &Sev) -> Value {
    let session = b.place("session", &sev.session);
    let dh_cert = b.place("dh-cert", &sev.dh_cert);
    // Nothing runs before the secret is there.
    b.flag("-S");
    json!({"qom-type": "sev-guest", "policy": sev.policy, "session-file": session,
           "dh-cert-file": dh_cert, "kernel-hashes": sev.kernel.is_some()})
}

fn snp_guest(snp: &Snp) -> Value {
    let mut object = json!({"qom-type": "sev-snp-guest", "policy": snp.policy.bits(),
                            "host-data": STANDARD.encode(snp.host_data),
                            "kernel-hashes": snp.kernel.is_some()});
    if let Some(identity) = &snp.identity {
        object["id-block"] = STANDARD.encode(identity.block).into();
        object["id-auth"] = STANDARD.encode(identity.auth.as_slice()).into();
        object["author-key-enabled"] = identity.author_key.into();
    }
    object
}
