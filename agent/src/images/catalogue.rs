//! Which images have names, and where they come from.

use std::{collections::BTreeMap, path::PathBuf};

use disk::Digest;

use crate::{
    config::{CatalogueImage, Images},
    spec::{ImageName, SpecError},
};

/// A name and what the distribution publishes under it: image and list of digests.
type BuiltIn = (&'static str, &'static str, &'static str);

/// Cloud images of the distributions: QCOW2, for x86-64, with cloud-init, booting
/// by BIOS. Debian and Ubuntu replace theirs in place; Alpine numbers them.
const BUILT_IN: &[BuiltIn] = &[
    (
        "debian:12",
        "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2",
        "https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS",
    ),
    (
        "debian:13",
        "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2",
        "https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS",
    ),
    (
        "ubuntu:22.04",
        "https://cloud-images.ubuntu.com/releases/22.04/release/ubuntu-22.04-server-cloudimg-amd64.img",
        "https://cloud-images.ubuntu.com/releases/22.04/release/SHA256SUMS",
    ),
    (
        "ubuntu:24.04",
        "https://cloud-images.ubuntu.com/releases/24.04/release/ubuntu-24.04-server-cloudimg-amd64.img",
        "https://cloud-images.ubuntu.com/releases/24.04/release/SHA256SUMS",
    ),
    (
        "alpine:3.22",
        "https://dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/nocloud_alpine-3.22.4-x86_64-bios-cloudinit-r0.qcow2",
        "https://dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/nocloud_alpine-3.22.4-x86_64-bios-cloudinit-r0.qcow2.sha512",
    ),
    (
        "alpine:3.23",
        "https://dl-cdn.alpinelinux.org/alpine/v3.23/releases/cloud/nocloud_alpine-3.23.4-x86_64-bios-cloudinit-r0.qcow2",
        "https://dl-cdn.alpinelinux.org/alpine/v3.23/releases/cloud/nocloud_alpine-3.23.4-x86_64-bios-cloudinit-r0.qcow2.sha512",
    ),
];

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A server.
    Url {
        /// `https`, or `http`.
        url: String,
        /// What vouches for it.
        sum: Sum,
    },
    /// A file of this host.
    File {
        /// Absolute path.
        path: PathBuf,
        /// Its digest, if it must have a certain one.
        digest: Option<Digest>,
    },
}

/// What vouches for a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sum {
    /// The digest itself.
    Digest(Digest),
    /// The URL of a list of digests.
    List(String),
}

/// A named image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: ImageName,
    /// Where it comes from.
    pub origin: Origin,
}

impl Entry {
    /// The origin as one line of text.
    #[must_use]
    pub fn source(&self) -> String {
        match &self.origin {
            Origin::Url { url, .. } => url.clone(),
            Origin::File { path, .. } => path.display().to_string(),
        }
    }
}

/// An image in the configuration that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Its name.
    #[error("images.catalogue: {0}")]
    Name(#[from] SpecError),
    /// Its digest.
    #[error("images.catalogue, {name}: {source}")]
    Digest {
        /// The image.
        name: String,
        /// Why.
        source: disk::DigestError,
    },
    /// Its place.
    #[error("images.catalogue, {name}: {reason}")]
    Place {
        /// The image.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

/// All images that have names before anything is imported.
#[derive(Debug)]
pub struct Catalogue {
    entries: BTreeMap<ImageName, Entry>,
}

impl Catalogue {
    /// The built-in images and those of the configuration, which win.
    ///
    /// # Errors
    /// [`CatalogueError`], naming the image.
    pub fn new(config: &Images) -> Result<Self, CatalogueError> {
        let mut entries = BTreeMap::new();
        let built_in = BUILT_IN.iter().map(|(name, url, sums)| CatalogueImage {
            name: (*name).to_owned(),
            url: (*url).to_owned(),
            sums: Some((*sums).to_owned()),
            digest: None,
        });
        for image in built_in.chain(config.catalogue.iter().cloned()) {
            let entry = entry(image)?;
            entries.insert(entry.name.clone(), entry);
        }
        Ok(Self { entries })
    }

    /// What a name means.
    #[must_use]
    pub fn get(&self, name: &ImageName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }
}

fn entry(image: CatalogueImage) -> Result<Entry, CatalogueError> {
    let CatalogueImage {
        name,
        url,
        sums,
        digest,
    } = image;
    let name: ImageName = name.parse()?;
    let place = |reason| CatalogueError::Place {
        name: name.to_string(),
        reason,
    };
    if name.as_str().starts_with("sha256:") {
        return Err(place("a digest is no name"));
    }
    let digest = digest
        .map(|d| d.parse::<Digest>())
        .transpose()
        .map_err(|source| CatalogueError::Digest {
            name: name.to_string(),
            source,
        })?;
    let file = url
        .strip_prefix("file://")
        .or_else(|| url.starts_with('/').then_some(&url));
    let origin = match (file, sums, digest) {
        (Some(path), None, digest) if path.starts_with('/') => Origin::File {
            path: path.into(),
            digest,
        },
        (Some(_), None, _) => return Err(place("a file's path must be absolute")),
        (Some(_), Some(_), _) => return Err(place("a file of this host has no list of sums")),
        (None, _, _) if !url.starts_with("https://") && !url.starts_with("http://") => {
            return Err(place(
                "its url is neither https, http, file:// nor an absolute path",
            ));
        }
        (None, Some(list), None) => Origin::Url {
            url,
            sum: Sum::List(list),
        },
        (None, None, Some(digest)) => Origin::Url {
            url,
            sum: Sum::Digest(digest),
        },
        (None, ..) => return Err(place("exactly one of sums and digest is needed")),
    };
    Ok(Entry { name, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, url: &str, sums: Option<&str>, digest: Option<&str>) -> CatalogueImage {
        CatalogueImage {
            name: name.into(),
            url: url.into(),
            sums: sums.map(Into::into),
            digest: digest.map(Into::into),
        }
    }

    fn with(images: Vec<CatalogueImage>) -> Result<Catalogue, CatalogueError> {
        Catalogue::new(&Images {
            catalogue: images,
            ..Images::default()
        })
    }

    #[test]
    fn built_in_images_are_whole() {
        let catalogue = with(Vec::new()).unwrap();
        assert_eq!(catalogue.entries().count(), BUILT_IN.len());
        for entry in catalogue.entries() {
            let Origin::Url {
                url,
                sum: Sum::List(list),
            } = &entry.origin
            else {
                panic!("{entry:?}")
            };
            assert!(
                url.starts_with("https://") && list.starts_with("https://"),
                "{entry:?}"
            );
            let dir = url.rsplit_once('/').unwrap().0;
            assert!(
                list.starts_with(dir),
                "the list is beside the image: {entry:?}"
            );
        }
    }

    #[test]
    fn the_configuration_wins() {
        let sha = format!("sha256:{}", "ab".repeat(32));
        let catalogue = with(vec![
            image("debian:12", "file:///srv/debian.qcow2", None, None),
            image("mine", "https://example.org/mine.qcow2", None, Some(&sha)),
            image("disk", "/srv/disk.img", None, Some(&sha)),
        ])
        .unwrap();
        let get = |name: &str| {
            catalogue
                .get(&name.parse().unwrap())
                .unwrap()
                .origin
                .clone()
        };
        let digest: Digest = sha.parse().unwrap();
        assert_eq!(
            get("debian:12"),
            Origin::File {
                path: "/srv/debian.qcow2".into(),
                digest: None
            }
        );
        assert_eq!(
            get("mine"),
            Origin::Url {
                url: "https://example.org/mine.qcow2".into(),
                sum: Sum::Digest(digest)
            }
        );
        assert_eq!(
            get("disk"),
            Origin::File {
                path: "/srv/disk.img".into(),
                digest: Some(digest)
            }
        );
        assert!(catalogue.get(&"debian:13".parse().unwrap()).is_some());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let sha = format!("sha256:{}", "ab".repeat(32));
        let table = [
            (
                image("Debian", "https://x/y", Some("https://x/s"), None),
                "Debian",
            ),
            (
                image(&sha, "https://x/y", Some("https://x/s"), None),
                "no name",
            ),
            (
                image("a", "ftp://x/y", Some("https://x/s"), None),
                "neither",
            ),
            (image("a", "srv/x.img", None, None), "neither"),
            (image("a", "file://x.img", None, None), "absolute"),
            (image("a", "/x.img", Some("https://x/s"), None), "no list"),
            (image("a", "https://x/y", None, None), "exactly one"),
            (
                image("a", "https://x/y", Some("https://x/s"), Some(&sha)),
                "exactly one",
            ),
            (image("a", "https://x/y", None, Some("sha256:1")), "digest"),
        ];
        for (image, word) in table {
            let error = with(vec![image.clone()]).unwrap_err().to_string();
            assert!(error.contains(word), "{image:?}: {error}");
        }
    }
}
