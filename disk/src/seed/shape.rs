//! Which cloud-configs cloud-init can work with beside the agent's; pure.

use super::yaml::Node;

/// Refuses a cloud-config with which cloud-init would trip over the keys that both it and the
/// agent use, and so not come to the agent's entries.
pub(super) fn check(config: &Node) -> Result<(), String> {
    let Node::Mapping(entries) = config else {
        return Err("a cloud-config is a mapping of keys to values".to_owned());
    };
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("ssh_authorized_keys", Node::Sequence(keys))
                if keys.iter().all(|key| key.text().is_some()) => {}
            ("ssh_authorized_keys", _) => {
                return Err("`ssh_authorized_keys` is not a list of strings".to_owned());
            }
            ("fs_setup", Node::Sequence(items))
                if items.iter().all(|item| matches!(item, Node::Mapping(_))) => {}
            ("fs_setup", _) => return Err("`fs_setup` is not a list of mappings".to_owned()),
            ("mounts", Node::Sequence(mounts)) if mounts.iter().all(|m| fields(m, 1, 6)) => {}
            ("mounts", _) => {
                return Err("`mounts` is not a list of lists of 1 to 6 strings".to_owned());
            }
            ("mount_default_fields", fields_) if fields(fields_, 6, 6) => {}
            ("mount_default_fields", _) => {
                return Err("`mount_default_fields` is not a list of 6 strings".to_owned());
            }
            ("device_aliases" | "disk_setup", Node::Mapping(_)) => {}
            ("device_aliases" | "disk_setup", _) => {
                return Err(format!("`{key}` is not a mapping"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn fields(node: &Node, least: usize, most: usize) -> bool {
    match node {
        Node::Sequence(items) => {
            (least..=most).contains(&items.len()) && items.iter().all(|item| item.text().is_some())
        }
        _ => false,
    }
}
