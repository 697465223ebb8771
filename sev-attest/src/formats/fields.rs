//! A report field by field, put together to bytes again. Whether they are the bytes that were
//! signed, the signature tells.
//!
//! The `sev` crate writes two layouts: up to version 5 with the reserved bytes as fields, from
//! version 6 on without. trustee and others hand both around.

use super::FormatError;
use super::node::Node;
use crate::report::REPORT_LEN;

/// Bytes of a report to be.
pub(super) struct Builder(Vec<u8>);

impl Builder {
    pub(super) fn new() -> Self {
        Self(vec![0; REPORT_LEN])
    }

    /// Writes a field. Offsets and lengths are the specification's, and lie inside.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Whether an object is a report in one of the two layouts.
pub(super) fn is_report(object: &Node) -> bool {
    ["version", "measurement", "report_data", "chip_id"]
        .into_iter()
        .all(|name| object.get(name).is_some())
        && ["measurement", "report_data"]
            .into_iter()
            .all(|name| matches!(object.get(name), Some(Node::List(_) | Node::Bytes(_))))
}

struct Fields<'a> {
    fields: &'a Node,
    report: Builder,
}

fn missing(name: &str) -> FormatError {
    FormatError::Unknown(format!(
        "a report field by field, whose field {name:?} is missing or malformed"
    ))
}

impl Fields<'_> {
    /// A little-endian number under the first of the names that is there.
    fn number(&mut self, names: &[&str], offset: usize, width: usize) -> Result<(), FormatError> {
        let value = names.iter().find_map(|name| self.fields.get(name));
        let refuse = || missing(names.first().copied().unwrap_or_default());
        let value = value.and_then(Node::number).ok_or_else(refuse)?;
        let bytes = value.to_le_bytes();
        let (value, above) = bytes.split_at(width);
        if above.iter().any(|byte| *byte != 0) {
            return Err(refuse());
        }
        self.report.put(offset, value);
        Ok(())
    }

    fn bytes(&mut self, name: &str, offset: usize, len: usize) -> Result<(), FormatError> {
        match self.fields.get(name).and_then(Node::bytes) {
            Some(bytes) if bytes.len() == len => {
                self.report.put(offset, &bytes);
                Ok(())
            }
            _ => Err(missing(name)),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.fields
            .get(name)
            .is_some_and(|value| *value != Node::Other)
    }

    /// A TCB: an object of components. With `_reserved` it is bytes by other names, with `fmc`
    /// Turin's layout.
    fn tcb(&mut self, name: &str, offset: usize) -> Result<(), FormatError> {
        let tcb = self.fields.get(name).ok_or_else(|| missing(name))?;
        let part = |part: &str| {
            let value = tcb.get(part).and_then(Node::number);
            let value = value.and_then(|value| u8::try_from(value).ok());
            value.ok_or_else(|| missing(&format!("{name}.{part}")))
        };
        let (boot_loader, tee, snp, microcode) = (
            part("bootloader")?,
            part("tee")?,
            part("snp")?,
            part("microcode")?,
        );
        let reserved = match tcb.get("_reserved") {
            None => [0; 4],
            Some(reserved) => reserved
                .bytes()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| missing(&format!("{name}._reserved")))?,
        };
        let [r0, r1, r2, r3] = reserved;
        let bytes = match tcb.get("fmc") {
            None | Some(Node::Other) => [boot_loader, tee, r0, r1, r2, r3, snp, microcode],
            Some(_) => [part("fmc")?, boot_loader, tee, snp, 0, 0, 0, microcode],
        };
        self.report.put(offset, &bytes);
        Ok(())
    }

    /// Version of the firmware: an object, or three fields with the name before.
    fn firmware(&mut self, name: &str, offset: usize) -> Result<(), FormatError> {
        for (i, part) in ["build", "minor", "major"].into_iter().enumerate() {
            let value = match self.fields.get(name) {
                Some(version) => version.get(part),
                None => self.fields.get(&format!("{name}_{part}")),
            };
            let value = value.and_then(Node::number);
            let value = value.and_then(|value| u8::try_from(value).ok());
            self.report
                .put(offset + i, &[value.ok_or_else(|| missing(name))?]);
        }
        Ok(())
    }
}

/// The bytes of a report that `sev` serialised.
pub(super) fn assemble(fields: &Node) -> Result<Vec<u8>, FormatError> {
    let mut f = Fields {
        fields,
        report: Builder::new(),
    };
    // Reserved bytes first: fields of later versions lie among them.
    for (name, offset, len) in [("_reserved_1", 0x188, 24), ("_reserved_4", 0x1f8, 168)] {
        if f.has(name) {
            f.bytes(name, offset, len)?;
        }
    }
    for (name, offset, width) in [
        ("_reserved_0", 0x04c, 4),
        ("_reserved_2", 0x1eb, 1),
        ("_reserved_3", 0x1ef, 1),
        ("cpuid_fam_id", 0x188, 1),
        ("cpuid_mod_id", 0x189, 1),
        ("cpuid_step", 0x18a, 1),
        ("launch_mit_vector", 0x1f8, 8),
        ("current_mit_vector", 0x200, 8),
    ] {
        if f.has(name) {
            f.number(&[name], offset, width)?;
        }
    }
    for (names, offset, width) in [
        (&["version"][..], 0x000, 4),
        (&["guest_svn"], 0x004, 4),
        (&["policy"], 0x008, 8),
        (&["vmpl"], 0x030, 4),
        (&["sig_algo"], 0x034, 4),
        (&["plat_info"], 0x040, 8),
        (&["key_info", "_author_key_en", "author_key_en"], 0x048, 4),
    ] {
        f.number(names, offset, width)?;
    }
    for (name, offset, len) in [
        ("family_id", 0x010, 16),
        ("image_id", 0x020, 16),
        ("report_data", 0x050, 64),
        ("measurement", 0x090, 48),
        ("host_data", 0x0c0, 32),
        ("id_key_digest", 0x0e0, 48),
        ("author_key_digest", 0x110, 48),
        ("report_id", 0x140, 32),
        ("report_id_ma", 0x160, 32),
        ("chip_id", 0x1a0, 64),
    ] {
        f.bytes(name, offset, len)?;
    }
    for (name, offset) in [
        ("current_tcb", 0x038),
        ("reported_tcb", 0x180),
        ("committed_tcb", 0x1e0),
        ("launch_tcb", 0x1f0),
    ] {
        f.tcb(name, offset)?;
    }
    f.firmware("current", 0x1e8)?;
    f.firmware("committed", 0x1ec)?;
    let signature = fields
        .get("signature")
        .ok_or_else(|| missing("signature"))?;
    for (part, offset, len) in [("r", 0x2a0, 72), ("s", 0x2e8, 72)] {
        match signature.get(part).and_then(Node::bytes) {
            Some(bytes) if bytes.len() == len => f.report.put(offset, &bytes),
            _ => return Err(missing(&format!("signature.{part}"))),
        }
    }
    if let Some(rest) = signature.get("_reserved").and_then(Node::bytes) {
        if rest.len() != 512 - 144 {
            return Err(missing("signature._reserved"));
        }
        f.report.put(0x330, &rest);
    }
    Ok(f.report.into_bytes())
}
