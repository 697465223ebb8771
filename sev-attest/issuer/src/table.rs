//! Certificate tables of extended reports.

pub use sev_attest::testing::table::{ARK, ASK, CRL, VCEK, VLEK};

/// A table of these entries, GUIDs in the byte order of their text, contents one after another.
#[must_use]
pub fn table(entries: &[(u128, &[u8])]) -> Vec<u8> {
    let mut offset = 24 * (entries.len() + 1);
    let mut head = Vec::new();
    let mut data = Vec::new();
    for (guid, content) in entries {
        head.extend(guid.to_be_bytes());
        head.extend(u32::try_from(offset).unwrap().to_le_bytes());
        head.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        data.extend_from_slice(content);
        offset += content.len();
    }
    head.extend([0; 24]);
    head.extend(data);
    head
}
