//! The cloud-init seed of a VM: a NoCloud image with user-data, meta-data and network-config.
//!
//! [`build`] makes the whole ISO 9660 image (label `cidata`, Joliet and Rock Ridge) in memory,
//! without another program. The same [`SeedSpec`] gives the same bytes: there is no clock and no
//! random number in it. A seed is given to the guest as a read-only disk or CD-ROM; cloud-init
//! finds it by its label.
//!
//! In a guest that has read it: root and the image's default user have the SSH keys, passwords do
//! not open SSH, the host name is set, the root file system fills its disk, every volume has a
//! file system (made only if the disk had none) and is mounted, and the one interface has its
//! static addresses. The user's own cloud-init data runs too: lists are added to, single values
//! that the agent decides hold, and each value of the user's that loses is a [`SeedWarning`].
//!
//! No package is installed: a guest may have no way to a mirror.
//!
//! ```
//! use disk::seed::{Filesystem, NetworkSpec, SeedSpec, SeedVolume, SeedWarning, build};
//!
//! let spec = SeedSpec {
//!     instance_id: "iid-7f3a".to_owned(),
//!     hostname: "web-1".parse()?,
//!     ssh_keys: vec![
//!         "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH me".parse()?,
//!     ],
//!     network: NetworkSpec {
//!         mac: [0x52, 0x54, 0, 1, 2, 3],
//!         ipv6: ("2001:db8::2".parse()?, 64),
//!         gateway6: "2001:db8::1".parse()?,
//!         ipv4: None,
//!         nameservers: vec!["2001:db8::53".parse()?],
//!     },
//!     volumes: vec![SeedVolume {
//!         serial: "vol-data".to_owned(),
//!         mount: "/data".parse()?,
//!         fs: Filesystem::Ext4,
//!     }],
//!     user_data: Some("#cloud-config\nssh_pwauth: true\npackages: [nginx]\n".parse()?),
//! };
//! let seed = build(&spec)?;
//! assert_eq!(seed.iso, build(&spec)?.iso);
//! assert!(matches!(&seed.warnings[..], [SeedWarning::Overridden { key, .. }] if key == "ssh_pwauth"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod boothook;
mod cloud_config;
mod error;
pub mod iso9660;
mod mime;
mod names;
mod network_config;
mod ssh_key;
mod user_data;
mod yaml;

pub use error::{SeedError, SeedWarning};
pub use names::{Hostname, MountPoint};
pub use network_config::NetworkSpec;
pub use ssh_key::{MAX_KEY_LEN, SshKey};
pub use user_data::{MAX_USER_DATA, UserData};

use error::excerpt;
use iso9660::IsoFile;

/// Label by which NoCloud finds the seed.
pub const VOLUME_ID: &str = "cidata";
/// Most SSH keys of a VM.
pub const MAX_SSH_KEYS: usize = 64;
/// Most volumes of a VM.
pub const MAX_VOLUMES: usize = 16;
/// Longest serial number in bytes: `VIRTIO_BLK_ID_BYTES` (virtio 1.2 section 5.2.6).
pub const MAX_SERIAL: usize = 20;

/// What a guest is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedSpec {
    /// Identity of the VM: with another one, cloud-init takes the next boot for a first boot.
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub instance_id: String,
    /// Host name of the guest.
    pub hostname: Hostname,
    /// Keys of root and of the image's default user; at most 64.
    pub ssh_keys: Vec<SshKey>,
    /// The interface.
    pub network: NetworkSpec,
    /// Volumes to format once and mount; at most 16.
    pub volumes: Vec<SeedVolume>,
    /// The user's own cloud-init data.
    pub user_data: Option<UserData>,
}

/// A volume as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedVolume {
    /// Serial number of the virtio disk, 1 to 20 of `A-Z a-z 0-9 _ -`: the guest finds the disk
    /// at `/dev/disk/by-id/virtio-<serial>`.
    pub serial: String,
    /// Where it is mounted.
    pub mount: MountPoint,
    /// The file system it gets if it has none.
    pub fs: Filesystem,
}

impl SeedVolume {
    /// Path of the disk in the guest.
    fn device(&self) -> String {
        format!("/dev/disk/by-id/virtio-{}", self.serial)
    }
}

/// A file system that the guest makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Filesystem {
    /// ext4: there in every image, and it grows while mounted.
    #[default]
    Ext4,
}

impl Filesystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
        }
    }
}

/// A seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The image: a whole number of 2048-byte sectors.
    pub iso: Vec<u8>,
    /// What of the user's data will not be as written.
    pub warnings: Vec<SeedWarning>,
}

/// The files of a seed, before they are an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFiles {
    /// `user-data`: a cloud-config, or a MIME message if there are volumes or the user's data.
    pub user_data: String,
    /// `meta-data`: YAML.
    pub meta_data: String,
    /// `network-config`, version 2: YAML.
    pub network_config: String,
    /// As in [`Seed`].
    pub warnings: Vec<SeedWarning>,
}

/// Builds the seed image. Pure; takes well under a millisecond.
///
/// # Errors
/// [`SeedError`]: a field of `spec` is out of its bounds, two volumes get into each other's way,
/// or the user's data claims one of the agent's volumes.
pub fn build(spec: &SeedSpec) -> Result<Seed, SeedError> {
    let files = render(spec)?;
    let iso = iso9660::image(
        VOLUME_ID,
        &[
            IsoFile {
                name: "meta-data",
                data: files.meta_data.as_bytes(),
            },
            IsoFile {
                name: "network-config",
                data: files.network_config.as_bytes(),
            },
            IsoFile {
                name: "user-data",
                data: files.user_data.as_bytes(),
            },
        ],
    )?;
    Ok(Seed {
        iso,
        warnings: files.warnings,
    })
}

/// Renders the files that [`build`] puts into the image.
///
/// # Errors
/// As [`build`].
pub fn render(spec: &SeedSpec) -> Result<SeedFiles, SeedError> {
    check(spec)?;
    let mut warnings = Vec::new();
    if spec.ssh_keys.is_empty() {
        warnings.push(SeedWarning::NoSshKey);
    }
    // A mount point within another comes after it: paths in order are in that order.
    let mut volumes: Vec<&SeedVolume> = spec.volumes.iter().collect();
    volumes.sort_by(|a, b| a.mount.cmp(&b.mount));
    let lists = cloud_config::lists(spec, &volumes);
    let settings = cloud_config::settings(spec);

    let user_parts = spec.user_data.as_ref().map_or(&[][..], UserData::parts);
    for part in user_parts {
        if let Some(config) = &part.config {
            cloud_config::compare(part.number, config, spec, &mut warnings)?;
        } else if part.is_template() {
            warnings.push(SeedWarning::Unchecked { part: part.number });
        }
    }

    let whole = format!("#cloud-config\n{settings}{lists}");
    // cloud-init takes anything with this near its beginning for MIME: a key's comment may have
    // it.
    let plain = user_parts.is_empty()
        && volumes.is_empty()
        && !whole.to_ascii_lowercase().contains("mime-version:");
    let user_data = if plain {
        whole
    } else {
        let ours = |name: &str, merge: &str, body: &str| mime::Part {
            content_type: "text/cloud-config".to_owned(),
            filename: Some(name.to_owned()),
            merge_type: None,
            body: format!("#cloud-config\nmerge_how: \"{merge}\"\n{body}"),
        };
        let mut parts: Vec<mime::Part> = user_parts.iter().map(|part| part.mime.clone()).collect();
        if !lists.is_empty() {
            parts.push(ours("crn-lists.cfg", cloud_config::MERGE_LISTS, &lists));
        }
        if !volumes.is_empty() {
            parts.push(mime::Part {
                content_type: boothook::CONTENT_TYPE.to_owned(),
                filename: Some("crn-volumes.sh".to_owned()),
                merge_type: None,
                body: boothook::render(&volumes),
            });
        }
        parts.push(ours(
            "crn-settings.cfg",
            cloud_config::MERGE_SETTINGS,
            &settings,
        ));
        mime::encode(&parts)
    };
    Ok(SeedFiles {
        user_data,
        meta_data: cloud_config::meta_data(spec),
        network_config: network_config::render(&spec.network)?,
        warnings,
    })
}

fn check(spec: &SeedSpec) -> Result<(), SeedError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    let id = &spec.instance_id;
    if !(1..=64).contains(&id.len()) || !id.bytes().all(|c| plain(c) || c == b'.') {
        return Err(SeedError::InstanceId { value: excerpt(id) });
    }
    for (what, count, limit) in [
        ("SSH keys", spec.ssh_keys.len(), MAX_SSH_KEYS),
        ("volumes", spec.volumes.len(), MAX_VOLUMES),
    ] {
        if count > limit {
            return Err(SeedError::TooMany { what, count, limit });
        }
    }
    for volume in &spec.volumes {
        // No dot and no colon: cloud-init reads `x.1` as partition 1 of x, `x:y` as NFS.
        let serial = &volume.serial;
        if !(1..=MAX_SERIAL).contains(&serial.len()) || !serial.bytes().all(plain) {
            return Err(SeedError::Serial {
                value: excerpt(serial),
            });
        }
    }
    for (n, a) in spec.volumes.iter().enumerate() {
        for (m, b) in spec.volumes.iter().enumerate() {
            if n == m {
                continue;
            }
            let reason = if a.serial == b.serial {
                "they have the same serial number"
            } else if a.mount == b.mount {
                "they have the same mount point"
            } else if ["1", "p1", "-part1"]
                .iter()
                .any(|p| b.serial.strip_prefix(&a.serial) == Some(p))
            {
                // cc_mounts.py looks for a first partition by these suffixes and would not mount
                // the first volume.
                "cloud-init takes the second for a partition of the first; change a serial number"
            } else {
                continue;
            };
            return Err(SeedError::Volumes {
                first: a.serial.clone(),
                second: b.serial.clone(),
                reason,
            });
        }
    }
    Ok(())
}
