//! What somebody asks for: the specification of an instance, checked where it enters.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crn_api_types::{CreateRequest, FileSystem, Firmware};
use disk::{
    MiB,
    seed::{Filesystem, MountPoint, SshKey, UserData},
};
use net::PortRule;
use serde::{Deserialize, Serialize};

use crate::{
    config::Limits,
    ids::{IdError, Name, clip},
};

pub use crate::qemu::names::MAX_VOLUMES;

/// Most SSH keys of one instance.
pub const MAX_KEYS: usize = disk::seed::MAX_SSH_KEYS;
/// Smallest volume, in MiB.
pub const MIN_VOLUME_MIB: u64 = 64;
/// Most open ports of one instance.
pub const MAX_PORTS: usize = 1024;

/// Why a specification was refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A name or an id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A number outside of what this node allows.
    #[error("{what} must be between {min} and {max}, not {value}")]
    Range {
        /// What, with its unit.
        what: &'static str,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
        /// What was asked for.
        value: u64,
    },
    /// A volume that has no room for its file system.
    #[error("{wanted} needs a volume of at least {least} MiB, not {mib}")]
    TooSmall {
        /// The file system.
        wanted: FileSystem,
        /// Its smallest volume, MiB.
        least: u64,
        /// What was asked for.
        mib: u64,
    },
    /// More of something than an instance can have.
    #[error("{count} {what}: an instance can have {max}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// Neither a catalogue name nor a digest.
    #[error(
        "{0:?} is not an image: a name such as debian:12, or sha256: and 64 hexadecimal digits"
    )]
    Image(String),
    /// A part that another crate parses.
    #[error("{what}: {message}")]
    Part {
        /// Which part.
        what: &'static str,
        /// Why.
        message: String,
    },
    /// The same volume or mount point twice.
    #[error("{what} {value:?} is named twice")]
    Twice {
        /// What.
        what: &'static str,
        /// Which.
        value: String,
    },
}

/// How an image is named: `debian:12`, or by digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest's digits, when the image is named by digest.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.0.strip_prefix("sha256:").filter(|hex| hex.len() == 64)
    }
}

impl FromStr for ImageName {
    type Err = SpecError;
    fn from_str(s: &str) -> Result<Self, SpecError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-:".contains(&b);
        let ok = (1..=128).contains(&s.len())
            && s.bytes().all(plain)
            && s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if ok {
            Ok(Self(s.to_owned()))
        } else {
            Err(SpecError::Image(clip(s)))
        }
    }
}

impl TryFrom<String> for ImageName {
    type Error = SpecError;
    fn try_from(s: String) -> Result<Self, SpecError> {
        s.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an instance is, as the database keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory: MiB,
    /// Root disk.
    pub disk: MiB,
    /// As it was named.
    pub image: ImageName,
    /// Hostname in the guest.
    pub hostname: String,
    /// Root's keys.
    pub ssh_keys: Vec<String>,
    /// Open ports.
    pub ports: BTreeSet<PortRule>,
    /// SHA-256 of the user's cloud-init, in hexadecimal digits. Its text can be long
    /// and is kept apart: [`crate::db::Db::user_data`].
    #[serde(default)]
    pub user_data: Option<String>,
    /// Firmware.
    pub firmware: Firmware,
    /// It has a watchdog.
    #[serde(default)]
    pub watchdog: bool,
}

/// A volume to be attached, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedVolume {
    /// Name.
    pub name: Name,
    /// Where the guest mounts it.
    pub mount: Option<String>,
    /// Size if it has to be created.
    pub size: MiB,
}

/// A request that passed every check that needs no other instance.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The name, if one was given.
    pub name: Option<Name>,
    /// The specification; its hostname is empty when there is no name yet.
    pub spec: InstanceSpec,
    /// The user's cloud-init.
    pub cloud_init: Option<String>,
    /// The volumes.
    pub volumes: Vec<WantedVolume>,
    /// Start it once it is prepared.
    pub start: bool,
}

fn in_range(what: &'static str, value: u64, min: u64, max: u64) -> Result<u64, SpecError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(SpecError::Range {
            what,
            min,
            max,
            value,
        })
    }
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), SpecError> {
    if count <= max {
        Ok(())
    } else {
        Err(SpecError::TooMany { what, count, max })
    }
}

fn part<T, E: fmt::Display>(what: &'static str, r: Result<T, E>) -> Result<T, SpecError> {
    r.map_err(|e| SpecError::Part {
        what,
        message: e.to_string(),
    })
}

/// The configuration's ranges keep this within 32 bits.
fn mib_of(mib: u64) -> MiB {
    MiB(u32::try_from(mib).unwrap_or(u32::MAX))
}

/// Parses a list of port rules.
///
/// # Errors
/// When one is no rule, or there are too many.
pub fn parse_ports(ports: &[String]) -> Result<BTreeSet<PortRule>, SpecError> {
    at_most("allowed ports", ports.len(), MAX_PORTS)?;
    ports
        .iter()
        .map(|p| part("allowed port", p.parse()))
        .collect()
}

/// Parses a mount point.
///
/// # Errors
/// When it is not a path that a volume may be mounted at.
pub fn parse_mount(mount: &str) -> Result<String, SpecError> {
    part("mount point", mount.parse::<MountPoint>()).map(|m| m.to_string())
}

/// Checks a volume's size against the node's limits.
///
/// # Errors
/// [`SpecError::Range`].
pub fn volume_size(mib: u64, limits: &Limits) -> Result<MiB, SpecError> {
    in_range(
        "volume size (MiB)",
        mib,
        MIN_VOLUME_MIB,
        limits.instance_disk_mib,
    )
    .map(mib_of)
}

/// The file system as the seed knows it.
#[must_use]
pub fn file_system(wanted: FileSystem) -> Filesystem {
    match wanted {
        FileSystem::Ext4 => Filesystem::Ext4,
        FileSystem::Xfs => Filesystem::Xfs,
        FileSystem::Btrfs => Filesystem::Btrfs,
    }
}

/// Checks that a guest can make the file system on a volume of this size: it would find out at
/// its first start, where nobody looks.
///
/// # Errors
/// [`SpecError::TooSmall`].
pub fn has_room_for(wanted: FileSystem, mib: u64) -> Result<(), SpecError> {
    let least = file_system(wanted).least_mib().into();
    if mib < least {
        return Err(SpecError::TooSmall { wanted, least, mib });
    }
    Ok(())
}

/// Checks everything that can be checked without looking at other instances.
///
/// # Errors
/// [`SpecError`], naming the part.
pub fn check(
    request: CreateRequest,
    limits: &Limits,
    default_volume_mib: u64,
) -> Result<Checked, SpecError> {
    let name = request.name.map(|n| Name::of_new(&n)).transpose()?;
    at_most("SSH keys", request.ssh_keys.len(), MAX_KEYS)?;
    at_most("volumes", request.volumes.len(), MAX_VOLUMES)?;
    for key in &request.ssh_keys {
        part("SSH key", key.parse::<SshKey>())?;
    }
    if let Some(text) = &request.cloud_init {
        part("cloud-init", text.parse::<UserData>())?;
    }
    let ports = request.allowed_ports.unwrap_or_else(|| vec!["22".into()]);
    let mut names = BTreeSet::new();
    let mut mounts = BTreeSet::new();
    let mut volumes = Vec::new();
    for v in request.volumes {
        let name: Name = v.name.parse()?;
        let mount = v.mount.as_deref().map(parse_mount).transpose()?;
        if !names.insert(name.clone()) {
            return Err(SpecError::Twice {
                what: "volume",
                value: name.to_string(),
            });
        }
        if let Some(mount) = &mount
            && !mounts.insert(mount.clone())
        {
            return Err(SpecError::Twice {
                what: "mount point",
                value: mount.clone(),
            });
        }
        let size = volume_size(v.size_mib.unwrap_or(default_volume_mib), limits)?;
        volumes.push(WantedVolume { name, mount, size });
    }
    let vcpus = in_range("vcpus", request.vcpus, 1, limits.instance_vcpus)?;
    let memory = in_range(
        "memory (MiB)",
        request.memory_mib,
        64,
        limits.instance_memory_mib,
    )?;
    let disk = in_range("disk (MiB)", request.disk_mib, 64, limits.instance_disk_mib)?;
    Ok(Checked {
        spec: InstanceSpec {
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            memory: mib_of(memory),
            disk: mib_of(disk),
            image: request.image.parse()?,
            hostname: name.as_ref().map(ToString::to_string).unwrap_or_default(),
            ssh_keys: request.ssh_keys,
            ports: parse_ports(&ports)?,
            user_data: request
                .cloud_init
                .as_ref()
                .map(|text| disk::Sha256::of(text.as_bytes()).hex()),
            firmware: request.firmware,
            watchdog: request.watchdog,
        },
        cloud_init: request.cloud_init,
        name,
        volumes,
        start: request.start,
    })
}
