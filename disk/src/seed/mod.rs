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
//!         mtu: None,
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

mod archive;
mod boothook;
mod cloud_config;
mod encoding;
mod error;
pub(crate) mod iso9660;
mod limits;
mod mime;
mod names;
mod network_config;
mod quote;
mod render;
mod shape;
mod spec;
mod ssh_key;
mod user_data;
mod yaml;

pub use error::{SeedError, SeedWarning};
pub use limits::MAX_USER_DATA;
pub use names::{Hostname, MountPoint};
pub use network_config::NetworkSpec;
pub use render::{Seed, SeedFiles, VOLUME_ID, build, render};
pub use spec::{Filesystem, MAX_SERIAL, MAX_SSH_KEYS, MAX_VOLUMES, SeedSpec, SeedVolume};
pub use ssh_key::{MAX_KEY_LEN, SshKey};
pub use user_data::UserData;
