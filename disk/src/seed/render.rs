//! From what a guest is to be told to the files of its seed, and to the image with them.

use super::{
    boothook, cloud_config,
    error::{SeedError, SeedWarning},
    iso9660::{self, IsoFile},
    mime, network_config,
    spec::{self, SeedSpec, SeedVolume},
    user_data::UserData,
};

/// Label by which NoCloud finds the seed.
pub const VOLUME_ID: &str = "cidata";
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
    /// `user-data`: a MIME message of the user's parts and the agent's.
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
    spec::check(spec)?;
    let mut warnings = Vec::new();
    if spec.ssh_keys.is_empty() {
        warnings.push(SeedWarning::NoSshKey);
    }
    // A mount point within another comes after it: paths in order are in that order.
    let mut volumes: Vec<&SeedVolume> = spec.volumes.iter().collect();
    volumes.sort_by(|a, b| a.mount.cmp(&b.mount));
    let lists = cloud_config::lists(spec);
    let settings = cloud_config::settings(spec);

    let user_parts = spec.user_data.as_ref().map_or(&[][..], UserData::parts);
    for part in user_parts {
        if let Some(config) = &part.config {
            cloud_config::compare(part.number, config, spec, &mut warnings)?;
        } else if part.is_template() {
            warnings.push(SeedWarning::Unchecked { part: part.number });
        }
    }

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
    parts.push(mime::Part {
        content_type: boothook::CONTENT_TYPE.to_owned(),
        filename: Some("crn-volumes.sh".to_owned()),
        merge_type: None,
        body: boothook::render(&volumes),
    });
    let merge = cloud_config::MERGE_SETTINGS;
    parts.push(ours("crn-settings.cfg", merge, &settings));
    let user_data = mime::encode(&parts);
    Ok(SeedFiles {
        user_data,
        meta_data: cloud_config::meta_data(spec),
        network_config: network_config::render(&spec.network)?,
        warnings,
    })
}
