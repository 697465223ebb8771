//! Which images have names, and where they come from.

use std::{collections::BTreeMap, path::PathBuf};

use disk::Digest;

use crate::{
    config::{CatalogueImage, Images},
    spec::{ImageName, SpecError},
};

/// A name and what the distribution publishes under it.
struct BuiltIn {
    name: &'static str,
    url: &'static str,
    /// The list of digests.
    sums: &'static str,
    /// Its distribution mends it no more for everybody.
    retired: bool,
}

/// Cloud images of the distributions: QCOW2, for x86-64, with cloud-init, booting by BIOS. Debian
/// and Ubuntu replace theirs in place; Alpine numbers them. Retired ones are still served where they
/// were.
const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "debian:10",
        url: "https://cloud.debian.org/images/cloud/buster/latest/debian-10-genericcloud-amd64.qcow2",
        sums: "https://cloud.debian.org/images/cloud/buster/latest/SHA512SUMS",
        retired: true,
    },
    BuiltIn {
        name: "debian:11",
        url: "https://cloud.debian.org/images/cloud/bullseye/latest/debian-11-genericcloud-amd64.qcow2",
        sums: "https://cloud.debian.org/images/cloud/bullseye/latest/SHA512SUMS",
        retired: true,
    },
    BuiltIn {
        name: "debian:12",
        url: "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2",
        sums: "https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS",
        retired: false,
    },
    BuiltIn {
        name: "debian:13",
        url: "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2",
        sums: "https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS",
        retired: false,
    },
    BuiltIn {
        name: "ubuntu:20.04",
        url: "https://cloud-images.ubuntu.com/releases/20.04/release/ubuntu-20.04-server-cloudimg-amd64.img",
        sums: "https://cloud-images.ubuntu.com/releases/20.04/release/SHA256SUMS",
        retired: true,
    },
    BuiltIn {
        name: "ubuntu:22.04",
        url: "https://cloud-images.ubuntu.com/releases/22.04/release/ubuntu-22.04-server-cloudimg-amd64.img",
        sums: "https://cloud-images.ubuntu.com/releases/22.04/release/SHA256SUMS",
        retired: false,
    },
    BuiltIn {
        name: "ubuntu:24.04",
        url: "https://cloud-images.ubuntu.com/releases/24.04/release/ubuntu-24.04-server-cloudimg-amd64.img",
        sums: "https://cloud-images.ubuntu.com/releases/24.04/release/SHA256SUMS",
        retired: false,
    },
    BuiltIn {
        name: "alpine:3.22",
        url: "https://dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/nocloud_alpine-3.22.4-x86_64-bios-cloudinit-r0.qcow2",
        sums: "https://dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/nocloud_alpine-3.22.4-x86_64-bios-cloudinit-r0.qcow2.sha512",
        retired: false,
    },
    BuiltIn {
        name: "alpine:3.23",
        url: "https://dl-cdn.alpinelinux.org/alpine/v3.23/releases/cloud/nocloud_alpine-3.23.4-x86_64-bios-cloudinit-r0.qcow2",
        sums: "https://dl-cdn.alpinelinux.org/alpine/v3.23/releases/cloud/nocloud_alpine-3.23.4-x86_64-bios-cloudinit-r0.qcow2.sha512",
        retired: false,
    },
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
    /// A list of digests.
    List {
        /// Its URL.
        url: String,
        /// The file's name in it, where it is another than in the image's URL.
        name: Option<String>,
    },
}

/// A named image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: ImageName,
    /// Where it comes from.
    pub origin: Origin,
    /// Its distribution mends it no more for everybody: it is there for who must have it.
    pub retired: bool,
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
        for image in BUILT_IN {
            let entry = Entry {
                retired: image.retired,
                ..entry(CatalogueImage {
                    name: image.name.to_owned(),
                    url: image.url.to_owned(),
                    sums: Some(image.sums.to_owned()),
                    sums_name: None,
                    digest: None,
                })?
            };
            entries.insert(entry.name.clone(), entry);
        }
        for image in &config.catalogue {
            let entry = entry(image.clone())?;
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
        sums_name,
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
    if sums_name.is_some() && sums.is_none() {
        return Err(place("sums_name is a name in the list of sums"));
    }
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
            sum: Sum::List {
                url: list,
                name: sums_name,
            },
        },
        (None, None, Some(digest)) => Origin::Url {
            url,
            sum: Sum::Digest(digest),
        },
        (None, ..) => return Err(place("exactly one of sums and digest is needed")),
    };
    Ok(Entry {
        name,
        origin,
        retired: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, url: &str, sums: Option<&str>, digest: Option<&str>) -> CatalogueImage {
        CatalogueImage {
            name: name.into(),
            url: url.into(),
            sums: sums.map(Into::into),
            sums_name: None,
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
                sum: Sum::List { url: list, name },
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
                list.starts_with(dir) && name.is_none(),
                "the list is beside the image: {entry:?}"
            );
            // Name, version and file belong together.
            let (system, version) = entry.name.as_str().split_once(':').unwrap();
            let file = url.rsplit_once('/').unwrap().1;
            assert!(file.contains(&format!("{system}-{version}")), "{entry:?}");
            assert!(
                file.contains("amd64") || file.contains("x86_64"),
                "{entry:?}"
            );
        }
        let marked = |retired| -> Vec<_> {
            let entries = catalogue.entries().filter(|e| e.retired == retired);
            entries.map(|e| e.name.as_str()).collect()
        };
        // What the users' page names, and what came after it.
        assert_eq!(marked(true), ["debian:10", "debian:11", "ubuntu:20.04"]);
        assert_eq!(
            marked(false),
            [
                "alpine:3.22",
                "alpine:3.23",
                "debian:12",
                "debian:13",
                "ubuntu:22.04",
                "ubuntu:24.04"
            ]
        );
    }

    #[test]
    fn a_list_may_have_another_name_for_the_image() {
        let list = image("a", "https://x/latest.qcow2", Some("https://x/sums"), None);
        let named = CatalogueImage {
            sums_name: Some("a-2026.qcow2".into()),
            ..list.clone()
        };
        let catalogue = with(vec![named]).unwrap();
        let Origin::Url { sum, .. } = &catalogue.get(&"a".parse().unwrap()).unwrap().origin else {
            panic!()
        };
        let expected = Sum::List {
            url: "https://x/sums".into(),
            name: Some("a-2026.qcow2".into()),
        };
        assert_eq!(*sum, expected);
        let alone = CatalogueImage {
            sums: None,
            sums_name: Some("x".into()),
            ..list
        };
        let error = with(vec![alone]).unwrap_err().to_string();
        assert!(error.contains("sums_name"), "{error}");
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
