//! `#cloud-config-archive`: parts as a list in YAML (`cloudinit/user_data.py`).

use super::{
    mime,
    yaml::{self, Node},
};

/// The parts of an archive, of the types that they name or that their text has.
///
/// # Errors
/// In words: what is no archive.
pub(super) fn parts(text: &str) -> Result<Vec<mime::Part>, String> {
    let items = match yaml::parse(text)? {
        None => return Ok(Vec::new()),
        Some(Node::Sequence(items)) => items,
        Some(_) => return Err("an archive is a list of parts".to_owned()),
    };
    items.iter().map(part).collect()
}

fn part(item: &Node) -> Result<mime::Part, String> {
    let field = |name: &str| item.get(name).and_then(Node::text);
    let Some(body) = item.text().or(field("content")) else {
        return Err("a part of an archive has no content".to_owned());
    };
    if item.get("launch-index").is_some() {
        return Err("launch-index is not supported: there is one instance".to_owned());
    }
    // Without a type, what does not say what it is is a cloud-config.
    let sniffed = ["#", "Content-Type:"]
        .iter()
        .any(|b| body.trim_start().starts_with(b));
    let content_type = match field("type") {
        Some(name) => name.to_ascii_lowercase(),
        None if sniffed => "text/plain".to_owned(),
        None => "text/cloud-config".to_owned(),
    };
    let merge = ["merge-type", "Merge-Type", "X-Merge-Type"]
        .iter()
        .find_map(|n| field(n));
    Ok(mime::Part {
        content_type,
        filename: field("filename")
            .filter(|n| mime::plain_name(n))
            .map(str::to_owned),
        merge_type: merge.map(mime::merge_type).transpose()?,
        body: body.to_owned(),
    })
}
