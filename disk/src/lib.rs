//! Disks for virtual machines: base images, QCOW2 overlays, persistent volumes, and the
//! cloud-init seed.
//!
//! - [`ImageStore`]: base images, content-addressed and read-only. [`ImageStore::pull`]
//!   downloads one, resuming and checking its digest on the way.
//! - [`inspect()`]: is a stranger's image safe to show to QEMU?
//! - [`create_overlay`], [`create_volume`], [`grow`], [`check`], [`info`]: the agent's own disks.
//! - [`export`], [`make_from`]: what a guest sees of a disk, copied into a disk of its own.
//! - [`Chain`]: which layers make up a disk; pure.
//! - [`ByteSize`], [`Digest`] and friends: units and digests as types.
//!
//! What it refuses to do: guess a format; follow a file name found inside an image; let an
//! interrupted or wrong download become an image; truncate, replace or shrink an existing disk;
//! change a disk that a QEMU has open. It runs no other program and knows nothing of instances.
//!
//! Only downloads are `async`. Everything else blocks, as file systems do: call it from
//! `spawn_blocking`.
//!
//! ```
//! use disk::{BaseRef, ByteSize, Created, Format, OverlaySpec, create_overlay, create_volume, info};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let base = dir.join("base.qcow2");
//! create_volume(&base, "2G".parse()?, Format::Qcow2)?;
//! let virtual_size = ByteSize::from_gib(2);
//! let base = BaseRef { path: base, format: Format::Qcow2, virtual_size };
//!
//! let root = dir.join("root.qcow2");
//! let spec = OverlaySpec::new(base.clone(), ByteSize::from_gib(20));
//! assert_eq!(create_overlay(&root, &spec)?, Created::New);
//! assert_eq!(create_overlay(&root, &spec)?, Created::Existed);
//! assert_eq!(info(&root, Format::Qcow2, Some(&base))?.virtual_size.to_string(), "20 GiB");
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "see `testing`")
)]

mod content;
mod digest;
mod disk;
mod error;
mod files;
mod format;
mod inspect;
mod layers;
mod lease;
mod lock;
mod qcow2;
pub mod seed;
mod space;
mod store;
mod sums;
#[cfg(feature = "testing")]
pub mod testing;
mod units;

pub use content::{Content, export, make_from, size_of};
pub use digest::{Digest, DigestError, Sha256};
pub use disk::{
    BaseRef, CheckReport, Created, DiskInfo, OverlaySpec, check, create_overlay, create_volume,
    grow, info,
};
pub use error::{Error, Flaw, Table};
pub use format::{Format, FormatError};
pub use inspect::{ImageInfo, inspect, inspect_named};
pub use layers::{Chain, ChainError, Layer, LayerName, LayerNameError, MAX_CHAIN_DEPTH};
pub use lease::{OpenFile, is_open};
pub use space::free_space;
pub use store::{
    Expected, ImageStore, Import, Progress, PullRequest, StoreOptions, StoredImage, SweepReport,
    Tuning,
};
pub use sums::SumsError;
pub use units::{ByteSize, GiB, MiB, SizeError};
