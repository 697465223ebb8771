//! The agent's `#cloud-config` and how the user's is held against it; pure.
//!
//! cloud-init folds the parts of its user data together in their order, each by the strategy
//! that the part itself names (`cloudinit/handlers/cloud_config.py`). So the agent's parts come
//! last, and no part of the user's has a say in how they are merged:
//!
//! 1. the user's parts, as they are;
//! 2. [`lists`]: keys, *appended* to the user's;
//! 3. [`settings`]: single values, *replacing* the user's. Each that differs is a warning.
//!
//! root gets the keys because cloud-init's ssh module gives top-level `ssh_authorized_keys` to
//! root as well as to the image's default user when `disable_root` is false. root is not listed
//! under `users`: that would lock its password with `!`, and an sshd without PAM (Alpine) then
//! refuses its keys too. The keys are also in the meta-data, which user data cannot change.
//!
//! Volumes are not in it: see [`super::boothook`].

use std::fmt::Write as _;

use super::{
    error::{SeedError, SeedWarning},
    quote::quote,
    spec::{SeedSpec, SeedVolume},
    yaml::Node,
};

/// Keys whose values the agent decides, and the values as YAML. `hostname` comes on top.
const SETTINGS: &[(&str, &str)] = &[
    ("preserve_hostname", "false"),
    ("prefer_fqdn_over_hostname", "false"),
    ("create_hostname_file", "true"),
    ("manage_etc_hosts", "\"localhost\""),
    ("disable_root", "false"),
    ("ssh_pwauth", "false"),
    ("allow_public_ssh_keys", "true"),
    (
        "growpart",
        "{mode: auto, devices: [\"/\"], ignore_growroot_disabled: false}",
    ),
    ("resize_rootfs", "true"),
    // Addresses and MTU may be others at the next boot: cloud-init (21.3 and later) then writes
    // the network's configuration anew, not only at the first.
    ("updates", "{network: {when: [boot-new-instance, boot]}}"),
];

/// Keys of user data that can keep the agent's settings from being applied.
const UNDERMINING: &[&str] = &[
    "cloud_init_modules",
    "cloud_config_modules",
    "cloud_final_modules",
    "datasource",
    "datasource_list",
    "system_info",
];

/// How the lists are merged with what is there: append, and touch nothing else.
pub(super) const MERGE_LISTS: &str = "dict(no_replace,recurse_list)+list(append)+str()";
/// How the settings are merged: replace.
pub(super) const MERGE_SETTINGS: &str = "dict(replace)+list()+str()";

/// The body of the lists, or nothing if it would be empty.
pub(super) fn lists(spec: &SeedSpec) -> String {
    let mut out = String::new();
    if !spec.ssh_keys.is_empty() {
        out.push_str("ssh_authorized_keys:\n");
        for key in &spec.ssh_keys {
            let _ = writeln!(out, "  - {}", quote(key.as_str()));
        }
    }
    out
}

/// The body of the settings.
pub(super) fn settings(spec: &SeedSpec) -> String {
    let mut out = format!("hostname: {}\n", quote(spec.hostname.as_str()));
    for (key, value) in SETTINGS {
        let _ = writeln!(out, "{key}: {value}");
    }
    out
}

/// The seed's `meta-data`.
pub(super) fn meta_data(spec: &SeedSpec) -> String {
    let mut out = format!(
        "instance-id: {}\nlocal-hostname: {}\n",
        quote(&spec.instance_id),
        quote(spec.hostname.as_str())
    );
    if !spec.ssh_keys.is_empty() {
        out.push_str("public-keys:\n");
        for key in &spec.ssh_keys {
            let _ = writeln!(out, "  - {}", quote(key.as_str()));
        }
    }
    out
}

/// Holds the user's cloud-config against the agent's: what loses is a warning.
///
/// # Errors
/// The user's config claims one of the agent's volumes or mount points.
pub(super) fn compare(
    part: usize,
    config: &Node,
    spec: &SeedSpec,
    warnings: &mut Vec<SeedWarning>,
) -> Result<(), SeedError> {
    let Node::Mapping(entries) = config else {
        return Ok(());
    };
    for (key, value) in entries {
        if let Some(ours) = overriding(key, value, spec) {
            warnings.push(SeedWarning::Overridden {
                part,
                key: key.clone(),
                ours,
            });
        } else if UNDERMINING.contains(&key.as_str()) {
            warnings.push(SeedWarning::Undermines {
                part,
                key: key.clone(),
            });
        } else if key == "network" {
            warnings.push(SeedWarning::Ignored {
                part,
                key: key.clone(),
            });
        }
        for volume in &spec.volumes {
            if let Some(what) = claimed(key, value, volume) {
                return Err(SeedError::UserData {
                    part: Some(part),
                    reason: format!(
                        "`{key}` uses {what}, which the agent sets up for volume {}; leave it out",
                        volume.serial
                    ),
                });
            }
        }
    }
    warnings.sort();
    warnings.dedup();
    Ok(())
}

/// The agent's value for `key` if it has one and the user's differs.
fn overriding(key: &str, value: &Node, spec: &SeedSpec) -> Option<String> {
    if key == "hostname" {
        let ours = spec.hostname.as_str();
        return (value.text() != Some(ours)).then(|| quote(ours));
    }
    let (_, ours) = SETTINGS.iter().find(|(name, _)| *name == key)?;
    let same = match *ours {
        "true" => value.boolean() == Some(true),
        "false" => value.boolean() == Some(false),
        ours => value.text().is_some_and(|text| quote(text) == ours),
    };
    (!same).then(|| (*ours).to_owned())
}

/// What of `volume` the user's `value` is about, if anything.
fn claimed(key: &str, value: &Node, volume: &SeedVolume) -> Option<String> {
    let device = volume.device();
    // A partition is written as <device>-part1 or, by cloud-init, <device>.1.
    let is_device = |text: &str| {
        text.strip_prefix(&device)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    };
    let found = match (key, value) {
        ("mounts", Node::Sequence(mounts)) => mounts.iter().any(|mount| match mount {
            Node::Sequence(fields) => {
                let field = |n: usize| fields.get(n).and_then(Node::text);
                if field(1).is_some_and(|at| at.trim_end_matches('/') == volume.mount.as_str()) {
                    return true;
                }
                field(0).is_some_and(is_device)
            }
            _ => false,
        }),
        ("fs_setup", Node::Sequence(items)) => items.iter().any(|item| {
            item.get("device")
                .and_then(Node::text)
                .is_some_and(is_device)
        }),
        ("disk_setup" | "device_aliases", Node::Mapping(entries)) => entries
            .iter()
            .any(|(name, value)| is_device(name) || value.text().is_some_and(is_device)),
        _ => false,
    };
    found.then(|| format!("{device} or {}", volume.mount))
}
