//! Images: requests and views, and the messages of long operations.

use serde::{Deserialize, Serialize};

use crate::ErrorDetail;

/// Which image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageRequest {
    /// A name, or `sha256:` and 64 digits.
    #[cfg_attr(feature = "openapi", schema(example = "debian:12"))]
    pub image: String,
}

/// An image to take into the store: a file of the agent's host, or a URL with a digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The name that the image gets.
    #[cfg_attr(feature = "openapi", schema(example = "mine:1"))]
    pub name: String,
    /// Absolute path of a file on the agent's host, which may be compressed (gzip, xz, bzip2,
    /// zstd).
    #[cfg_attr(feature = "openapi", schema(example = "/srv/images/mine.qcow2"))]
    pub path: Option<String>,
    /// Instead of a path: where it is downloaded from, `https` or `http`; needs a digest.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "https://example.org/mine.qcow2.xz")
    )]
    pub url: Option<String>,
    /// `qcow2` or `raw`; another format is refused. Without it, QCOW2 is recognised
    /// by its magic and everything else must be a plausible raw disk.
    pub format: Option<String>,
    /// The digest that the file, compressed or not, must have: `sha256:…` or `sha512:…`, or the
    /// digits alone.
    pub digest: Option<String>,
}

/// An image: one in the store, or one that could be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageView {
    /// Name, as `--image` takes it.
    pub name: String,
    /// It is in the store.
    pub stored: bool,
    /// `sha256:` and 64 digits of the file.
    pub digest: Option<String>,
    /// `qcow2` or `raw`.
    pub format: Option<String>,
    /// Bytes that a guest sees.
    pub virtual_size: Option<u64>,
    /// Bytes of the file.
    pub file_size: Option<u64>,
    /// Where it came from, or would come from.
    pub source: String,
    /// Whether its first sector has the mark of a disk that can be booted from (55 AA). Told of one
    /// that was just fetched or verified, as far as it is known; without it a guest most likely
    /// finds no bootable disk.
    #[serde(default)]
    pub boot_mark: Option<bool>,
    /// Its distribution mends it no more for everybody.
    #[serde(default)]
    pub retired: bool,
    /// How many instances are layered over it.
    pub instances: u64,
    /// RFC 3339.
    pub added_at: Option<String>,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProgressView {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

/// One message of a long operation. The last one is `done` or `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Update<T> {
    /// How far it is.
    Progress(ProgressView),
    /// It is done, and this came of it.
    Done(T),
    /// It failed.
    Error(ErrorDetail),
}
