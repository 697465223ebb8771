//! JSON of other tools, with a report and often certificates in it.
//!
//! Read are objects with the report's bytes under one of the known names, as base64, hex or an array
//! of numbers: `{"report": …}` and `{"attestation_report": …}` of many tools, Azure's evidence in
//! trustee (`report` or `hcl_report`, `vcek`), and `{"attestation_report": {…}}` with the report field by field, as
//! the `sev` crate and thereby trustee write it. Copies of fields beside the bytes are not looked at.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Bundle, Evidence, Form, FormatError, encoded};
use crate::report::REPORT_LEN;

/// Names of a report's bytes.
const REPORT: [&str; 9] = [
    "report",
    "hcl_report",
    "attestation_report",
    "attestationReport",
    "snp_report",
    "snpReport",
    "raw_report",
    "quote",
    "outblob",
];
/// Names of certificates.
const CERTIFICATES: [&str; 15] = [
    "vcek",
    "vlek",
    "ask",
    "asvk",
    "ark",
    "crl",
    "cert_chain",
    "certChain",
    "certificate_chain",
    "certificateChain",
    "certs",
    "certificates",
    "auxblob",
    "aux_blob",
    "cert_table",
];
/// Names of objects around all of that.
const WRAPPERS: [&str; 4] = ["evidence", "attestation", "snp", "data"];
/// How deep wrappers are followed.
const MAX_DEPTH: usize = 4;

pub(super) fn looks_like(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

pub(super) fn read(bytes: &[u8]) -> Result<Evidence, FormatError> {
    let value: Unique =
        serde_json::from_slice(bytes).map_err(|error| FormatError::Json(error.to_string()))?;
    let object = value
        .0
        .as_object()
        .ok_or_else(|| FormatError::Json("no object".to_owned()))?;
    in_object(object, 0)
}

/// JSON in which no key comes twice in an object: readers differ in which of the two they take.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("{key:?} is there twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The values of an object that are reports by their names.
fn reports(object: &Map<String, Value>) -> impl Iterator<Item = (&'static str, &Value)> {
    REPORT
        .into_iter()
        .filter_map(|name| Some((name, object.get(name)?)))
        // Azure's evidence has a TPM's quote, an object, beside the report.
        .filter(|(name, value)| *name != "quote" || !value.is_object())
}

/// The wrappers in an object that have a report somewhere in them.
fn wrappers(object: &Map<String, Value>, depth: usize) -> Vec<(&'static str, &Map<String, Value>)> {
    if depth == MAX_DEPTH {
        return Vec::new();
    }
    let has_report = |inner: &Map<String, Value>| {
        reports(inner).next().is_some() || !wrappers(inner, depth + 1).is_empty()
    };
    WRAPPERS
        .into_iter()
        .filter_map(|name| Some((name, object.get(name)?.as_object()?)))
        .filter(|(_, inner)| has_report(inner))
        .collect()
}

fn in_object(object: &Map<String, Value>, depth: usize) -> Result<Evidence, FormatError> {
    let wrappers = wrappers(object, depth);
    let mut names = reports(object)
        .map(|(name, _)| name)
        .chain(wrappers.iter().map(|(name, _)| *name));
    if let (Some(name), Some(other)) = (names.next(), names.next()) {
        return Err(FormatError::Json(format!("both {name:?} and {other:?}")));
    }
    let mut evidence = match (reports(object).next(), wrappers.first()) {
        (Some((name, value)), _) => under(name, value, depth)?,
        (None, Some((_, inner))) => in_object(inner, depth + 1)?,
        (None, None) => {
            let names = REPORT.join(", ");
            return Err(FormatError::Json(format!("no report under any of {names}")));
        }
    };
    evidence.form = Form::Json;
    for name in CERTIFICATES {
        if let Some(value) = object.get(name) {
            evidence.bundle.add(certificates(value, name)?)?;
        }
    }
    Ok(evidence)
}

/// The report that is the value of a key of this name.
fn under(name: &str, value: &Value, depth: usize) -> Result<Evidence, FormatError> {
    let bytes = match value {
        Value::Object(fields) if fields.contains_key("measurement") => fields::assemble(fields)?,
        // `{"report": {"report": …, certificates}}`
        Value::Object(inner) if depth < MAX_DEPTH => return in_object(inner, depth + 1),
        value => bytes(value)
            .ok_or_else(|| FormatError::Json(format!("{name:?} is neither base64 nor hex")))?,
    };
    super::read_binary_report(&bytes)
}

/// Bytes as base64, hex or an array of numbers.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => encoded::hex(text).or_else(|| encoded::base64(text)),
        Value::Array(items) => numbers(items),
        _ => None,
    }
}

fn numbers(items: &[Value]) -> Option<Vec<u8>> {
    let byte = |item: &Value| u8::try_from(item.as_u64()?).ok();
    items.iter().map(byte).collect()
}

/// Certificates as PEM, encoded DER or an encoded table; one, or a list of them, or of objects with
/// their bytes under `data`.
fn certificates(value: &Value, name: &str) -> Result<Bundle, FormatError> {
    let bad = || FormatError::Json(format!("{name:?} holds no certificates"));
    match value {
        Value::Null => Ok(Bundle::default()),
        Value::String(text) if text.is_empty() => Ok(Bundle::default()),
        Value::String(text) if super::pem::looks_like(text.as_bytes()) => {
            super::read_pem(text.as_bytes())
        }
        Value::Array(items) if items.first().is_some_and(|item| !item.is_number()) => {
            let mut bundle = Bundle::default();
            for item in items {
                bundle.add(certificates(item, name)?)?;
            }
            Ok(bundle)
        }
        Value::Object(object) => certificates(object.get("data").ok_or_else(bad)?, name),
        value => {
            let bytes = bytes(value).ok_or_else(bad)?;
            match bytes.first() {
                None => Ok(Bundle::default()),
                Some(0x30) => super::read_der(&bytes),
                Some(_) if super::pem::looks_like(&bytes) => super::read_pem(&bytes),
                Some(_) => Ok(super::table::read(&bytes)?),
            }
        }
    }
}

/// The report field by field, as `sev` serialises it. The bytes are put together again; whether
/// they are what was signed, the signature tells.
mod fields {
    use super::{FormatError, Map, REPORT_LEN, Value, numbers};

    struct Builder<'a> {
        fields: &'a Map<String, Value>,
        bytes: Vec<u8>,
    }

    impl Builder<'_> {
        fn missing(name: &str) -> FormatError {
            FormatError::Json(format!(
                "field {name:?} of the report is missing or malformed"
            ))
        }

        fn put(&mut self, offset: usize, bytes: &[u8]) {
            // Offsets and lengths are constants of this module.
            if let Some(place) = self.bytes.get_mut(offset..offset + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }

        fn number(&mut self, name: &str, offset: usize, width: usize) -> Result<(), FormatError> {
            let value = self.fields.get(name).and_then(Value::as_u64);
            let bytes = value.ok_or_else(|| Self::missing(name))?.to_le_bytes();
            let (value, above) = bytes.split_at(width);
            if above.iter().any(|byte| *byte != 0) {
                return Err(Self::missing(name));
            }
            self.put(offset, value);
            Ok(())
        }

        fn array(&mut self, name: &str, offset: usize, len: usize) -> Result<(), FormatError> {
            let items = self.fields.get(name).and_then(Value::as_array);
            let bytes = items.and_then(|items| numbers(items));
            match bytes {
                Some(bytes) if bytes.len() == len => {
                    self.put(offset, &bytes);
                    Ok(())
                }
                _ => Err(Self::missing(name)),
            }
        }

        /// A TCB: an object of components; with `fmc` it is Turin's layout.
        fn tcb(&mut self, name: &str, offset: usize) -> Result<(), FormatError> {
            let tcb = self.fields.get(name).and_then(Value::as_object);
            let tcb = tcb.ok_or_else(|| Self::missing(name))?;
            let part = |part: &str| {
                let value = tcb.get(part).and_then(Value::as_u64);
                let value = value.and_then(|value| u8::try_from(value).ok());
                value.ok_or_else(|| Self::missing(name))
            };
            let (boot_loader, tee, snp, microcode) = (
                part("bootloader")?,
                part("tee")?,
                part("snp")?,
                part("microcode")?,
            );
            let bytes = match tcb.get("fmc") {
                None | Some(Value::Null) => [boot_loader, tee, 0, 0, 0, 0, snp, microcode],
                Some(_) => [part("fmc")?, boot_loader, tee, snp, 0, 0, 0, microcode],
            };
            self.put(offset, &bytes);
            Ok(())
        }

        fn version(&mut self, name: &str, offset: usize) -> Result<(), FormatError> {
            let version = self.fields.get(name).and_then(Value::as_object);
            for (i, part) in ["build", "minor", "major"].into_iter().enumerate() {
                let value = version.and_then(|v| v.get(part)).and_then(Value::as_u64);
                let value = value.and_then(|value| u8::try_from(value).ok());
                self.put(offset + i, &[value.ok_or_else(|| Self::missing(name))?]);
            }
            Ok(())
        }

        /// Fields of later versions: absent or null in earlier ones.
        fn optional(&mut self, name: &str, offset: usize, width: usize) -> Result<(), FormatError> {
            match self.fields.get(name) {
                None | Some(Value::Null) => Ok(()),
                Some(_) => self.number(name, offset, width),
            }
        }
    }

    pub(super) fn assemble(fields: &Map<String, Value>) -> Result<Vec<u8>, FormatError> {
        let mut b = Builder {
            fields,
            bytes: vec![0; REPORT_LEN],
        };
        for (name, offset, width) in [
            ("version", 0x000, 4),
            ("guest_svn", 0x004, 4),
            ("policy", 0x008, 8),
            ("vmpl", 0x030, 4),
            ("sig_algo", 0x034, 4),
            ("plat_info", 0x040, 8),
            ("key_info", 0x048, 4),
        ] {
            b.number(name, offset, width)?;
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
            b.array(name, offset, len)?;
        }
        for (name, offset) in [
            ("current_tcb", 0x038),
            ("reported_tcb", 0x180),
            ("committed_tcb", 0x1e0),
            ("launch_tcb", 0x1f0),
        ] {
            b.tcb(name, offset)?;
        }
        b.version("current", 0x1e8)?;
        b.version("committed", 0x1ec)?;
        b.optional("cpuid_fam_id", 0x188, 1)?;
        b.optional("cpuid_mod_id", 0x189, 1)?;
        b.optional("cpuid_step", 0x18a, 1)?;
        b.optional("launch_mit_vector", 0x1f8, 8)?;
        b.optional("current_mit_vector", 0x200, 8)?;
        let signature = fields.get("signature").and_then(Value::as_object);
        for (part, offset) in [("r", 0x2a0), ("s", 0x2e8)] {
            let items = signature
                .and_then(|s| s.get(part))
                .and_then(Value::as_array);
            match items.and_then(|items| numbers(items)) {
                Some(bytes) if bytes.len() == 72 => b.put(offset, &bytes),
                _ => return Err(Builder::missing("signature")),
            }
        }
        Ok(b.bytes)
    }
}
