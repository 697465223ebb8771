//! Recognises what bytes are, whatever is around it.

use std::io::Read as _;

use super::binding::Binding;
use super::{
    Bundle, Evidence, Form, FormatError, Input, MAX_INPUT, azure, certificates, node, pem,
    protobuf, ratls, scale, table, tee, text,
};
use crate::cert::{Certificate, Crl, Role};
use crate::report::{REPORT_LEN, Report, ReportError};

/// How many containers are opened inside each other.
const MAX_DEPTH: usize = 12;
/// How many bytes are looked at in all, of all that was unpacked.
const MAX_UNPACKED: usize = 4 * MAX_INPUT;
/// Shortest text that is taken for an encoding; the smallest thing inside is a certificate.
const SHORTEST_TEXT: usize = 256;
/// Header of the message that answers a guest's request (AMD 56860, MSG_REPORT_RSP).
const MESSAGE_HEADER: usize = 32;

/// Reads one input; what it unpacks on the way is limited.
pub(super) struct Reader {
    depth: usize,
    left: usize,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            depth: 0,
            left: MAX_UNPACKED,
        }
    }

    /// What the bytes are.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Input, FormatError> {
        if bytes.is_empty() {
            return Err(FormatError::Empty);
        }
        if self.depth == MAX_DEPTH {
            let reason = format!("more than {MAX_DEPTH} containers in each other");
            return Err(FormatError::Unknown(reason));
        }
        self.left = match self.left.checked_sub(bytes.len()) {
            Some(left) => left,
            None => return Err(FormatError::TooLong),
        };
        self.depth += 1;
        let input = match text::of_bytes(bytes) {
            Some(text) => self.text(&text),
            None => self.binary(bytes),
        };
        self.depth -= 1;
        input
    }

    fn text(&mut self, text: &str) -> Result<Input, FormatError> {
        let trimmed = text.trim();
        if trimmed.starts_with(['{', '[', '"']) {
            let value = node::json(trimmed).map_err(|reason| FormatError::Container {
                form: Form::Json.name(),
                reason,
            })?;
            return self.search(&value, Form::Json);
        }
        if pem::looks_like(text.as_bytes()) {
            return self.pem(text.as_bytes());
        }
        if trimmed.starts_with("report") && trimmed.contains("measurement:") {
            return Err(FormatError::Unknown(
                "protocol buffers as text; the binary form of the same is read".to_owned(),
            ));
        }
        if trimmed.len() < SHORTEST_TEXT {
            let len = trimmed.chars().count();
            return Err(FormatError::Unknown(format!("text of {len} characters")));
        }
        let (inner, form) = text::decode(trimmed)?;
        match self.read(&inner) {
            Err(FormatError::Unknown(_)) if form == Form::Base64 => {
                let found = match text::nearly_hex(trimmed) {
                    Some(reason) => reason,
                    None => format!("base64 of {} bytes that are neither", inner.len()),
                };
                Err(FormatError::Unknown(found))
            }
            input => Ok(input?.in_form(form)),
        }
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<Input, FormatError> {
        if azure::looks_like(bytes) {
            let (report, claims) = azure::read(bytes)?;
            return Ok(Evidence {
                binding: Some(Binding::RuntimeClaims(claims)),
                form: Form::AzureHcl,
                ..Evidence::alone(Report::parse(report)?)
            }
            .into());
        }
        // No certificate is so short that its length is zero; a report of version 0x30 begins so.
        if bytes.first() == Some(&0x30) && !bytes.starts_with(&[0x30, 0, 0, 0]) {
            return self.der(bytes);
        }
        if table::looks_like(bytes) {
            return Ok(Input::Certificates(table::read(bytes)?));
        }
        if bytes.starts_with(&[0x1f, 0x8b, 8]) {
            return self.gzip(bytes);
        }
        if let Some(report) = message(bytes) {
            let mut evidence = extended(report?)?;
            evidence.form = Form::Message;
            return Ok(evidence.into());
        }
        if let Some((tee, found)) = tee::of_bytes(bytes) {
            let found = found.to_owned();
            return Err(FormatError::OtherTee { tee, found });
        }
        if let [version, 0, 0, 0, ..] = *bytes {
            if bytes.len() >= REPORT_LEN && version != 0 || bytes.len() == REPORT_LEN {
                return extended(bytes).map(Input::from);
            }
            // A short file that doesn't start as a report says nothing by its length.
            if matches!(version, 2..=5) {
                return Err(FormatError::Truncated(bytes.len()));
            }
        }
        if let Some(input) = self.container(bytes) {
            return input;
        }
        if bytes.len() == REPORT_LEN {
            return extended(bytes).map(Input::from);
        }
        let start = hex::encode(bytes.get(..8).unwrap_or(bytes));
        Err(FormatError::Unknown(format!(
            "{} bytes that begin with {start}",
            bytes.len()
        )))
    }

    /// Containers without a mark of their own: taken for one only where something is in it.
    fn container(&mut self, bytes: &[u8]) -> Option<Result<Input, FormatError>> {
        let mut nothing = None;
        let is_cbor = matches!(bytes.first(), Some(0x80..=0xdf));
        if let Some(Ok(value)) = is_cbor.then(|| node::cbor(bytes)) {
            match self.search(&value, Form::Cbor) {
                Err(error @ FormatError::Nothing { .. }) => nothing = Some(Err(error)),
                result => return Some(result),
            }
        }
        let is_message_pack = matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf));
        if let Some(Ok(value)) = is_message_pack.then(|| node::message_pack(bytes)) {
            match self.search(&value, Form::MessagePack) {
                Err(error @ FormatError::Nothing { .. }) => nothing = Some(Err(error)),
                result => return Some(result),
            }
        }
        let is_scale = bytes.first() == Some(&0);
        if let Some(Some(found)) = is_scale.then(|| scale::read(bytes)) {
            return Some(match found {
                scale::Found::Report {
                    report,
                    certificates,
                } => {
                    let named = certificates.into_iter().enumerate();
                    let named = named.map(|(i, bytes)| (format!("cert_chain[{i}]"), bytes));
                    self.parts(&report, named, Form::Scale)
                }
                scale::Found::Other(tee) => Err(FormatError::OtherTee {
                    tee,
                    found: "an attestation of dstack".to_owned(),
                }),
            });
        }
        match protobuf::read(bytes) {
            Some(protobuf::Found::Report {
                report,
                certificates,
            }) => Some(self.parts(&report, certificates, Form::Protobuf)),
            Some(protobuf::Found::Tdx) => Some(Err(FormatError::OtherTee {
                tee: tee::OtherTee::Tdx,
                found: "an attestation of go-tpm-tools".to_owned(),
            })),
            None => nothing,
        }
    }

    /// A report with certificates beside it, each under its name.
    fn parts(
        &mut self,
        report: &[u8],
        certificates: impl IntoIterator<Item = (String, Vec<u8>)>,
        form: Form,
    ) -> Result<Input, FormatError> {
        let mut evidence = extended(report)?;
        evidence.form = form;
        for (name, bytes) in certificates {
            match self.read(&bytes) {
                Ok(Input::Certificates(bundle)) => evidence.bundle.add(bundle)?,
                Ok(Input::Report(_)) => {
                    evidence.notes.push(format!("passed over {name}: a report"));
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) => evidence.notes.push(format!("passed over {name}: {error}")),
            }
        }
        Ok(evidence.into())
    }

    fn gzip(&mut self, bytes: &[u8]) -> Result<Input, FormatError> {
        let form = Form::Gzip;
        let limit = u64::try_from(self.left).unwrap_or(u64::MAX);
        let mut inner = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(bytes).take(limit);
        decoder
            .read_to_end(&mut inner)
            .map_err(|error| FormatError::Container {
                form: form.name(),
                reason: error.to_string(),
            })?;
        Ok(self.read(&inner)?.in_form(form))
    }

    fn pem(&mut self, bytes: &[u8]) -> Result<Input, FormatError> {
        let mut found = Certificates::default();
        for block in pem::blocks(bytes)? {
            match block.label.as_str() {
                "CERTIFICATE" => self.certificate(&block.der, &mut found)?,
                "X509 CRL" => found.bundle.crls.push(Crl::parse(&block.der)?),
                _ => {}
            }
        }
        if found.bundle.is_empty() && found.evidence.is_none() {
            return Err(FormatError::Other("PEM without a certificate"));
        }
        found.finish()
    }

    /// One certificate or revocation list after another, in DER.
    fn der(&mut self, bytes: &[u8]) -> Result<Input, FormatError> {
        let mut found = Certificates::default();
        for element in certificates::elements(bytes)? {
            self.certificate(element, &mut found)?;
        }
        found.finish()
    }

    /// A certificate of AMD's hierarchy, a revocation list, or a certificate with a report in it.
    fn certificate(&mut self, der: &[u8], found: &mut Certificates) -> Result<(), FormatError> {
        let parsed = Certificate::parse(der);
        let known = parsed.as_ref().ok().filter(|c| c.role() != Role::Other);
        if let Some(certificate) = known {
            found.bundle.certificates.push(certificate.clone());
            return Ok(());
        }
        if let Ok(crl) = Crl::parse(der) {
            found.bundle.crls.push(crl);
            return Ok(());
        }
        let (key, extensions) = match ratls::extensions(der) {
            Some(carrier) => carrier,
            None => {
                found.bundle.certificates.push(parsed?);
                return Ok(());
            }
        };
        for (extension, value) in extensions {
            match self.read(&value) {
                Ok(Input::Report(mut evidence)) => {
                    let other = found.evidence.as_ref();
                    if other.is_some_and(|other| other.report != evidence.report) {
                        return Err(FormatError::SeveralReports {
                            first: "one certificate".to_owned(),
                            second: key.subject,
                        });
                    }
                    evidence.form = Form::RaTls;
                    evidence.binding = Some(Binding::CertificateKey(key.carried_in(extension)));
                    found.evidence = Some(evidence);
                    return Ok(());
                }
                Err(error @ FormatError::OtherTee { .. }) => return Err(error),
                Err(error) if error.is_final() => return Err(error),
                _ => {}
            }
        }
        found.bundle.certificates.push(parsed?);
        Ok(())
    }
}

/// Certificates of one input, and a report that one of them carried.
#[derive(Default)]
struct Certificates {
    bundle: Bundle,
    evidence: Option<Box<Evidence>>,
}

impl Certificates {
    fn finish(self) -> Result<Input, FormatError> {
        match self.evidence {
            Some(mut evidence) => {
                evidence.bundle.add(self.bundle)?;
                Ok(Input::Report(evidence))
            }
            None => Ok(Input::Certificates(self.bundle)),
        }
    }
}

/// A report alone or before a table.
pub(super) fn extended(bytes: &[u8]) -> Result<Evidence, FormatError> {
    let Some((report, rest)) = bytes.split_at_checked(REPORT_LEN) else {
        return Err(FormatError::Truncated(bytes.len()));
    };
    let report = match Report::parse(report) {
        // More bytes than a report's that don't start as one are some other kind of file.
        Err(ReportError::UnknownVersion(0x100..)) if !rest.is_empty() => {
            let len = bytes.len();
            return Err(FormatError::Unknown(format!("{len} bytes")));
        }
        report => report?,
    };
    let mut evidence = Evidence::alone(report);
    if !rest.is_empty() {
        evidence.bundle = table::read(rest).map_err(FormatError::AfterReport)?;
        evidence.form = Form::Extended;
    }
    Ok(evidence)
}

/// The report in the answer to a guest's request: a status, the report's length, 24 zeros, the
/// report; zeros up to the length of the kernel's buffer may follow. `None` for bytes that are no
/// such message.
fn message(bytes: &[u8]) -> Option<Result<&[u8], FormatError>> {
    let (header, rest) = bytes.split_at_checked(MESSAGE_HEADER)?;
    let (numbers, reserved) = header.split_at_checked(8)?;
    let [s0, s1, s2, s3, length @ ..] = *numbers.first_chunk::<8>()?;
    let status = u32::from_le_bytes([s0, s1, s2, s3]);
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    // A report's policy, at this place, is never zero.
    let fits = length == REPORT_LEN || length == 0 && status != 0;
    if !fits || reserved.iter().any(|byte| *byte != 0) || rest.is_empty() {
        return None;
    }
    let refuse = |reason: String| {
        Some(Err(FormatError::Container {
            form: Form::Message.name(),
            reason,
        }))
    };
    if status != 0 {
        return refuse(format!("the firmware refused it with status {status:#x}"));
    }
    let Some((report, after)) = rest.split_at_checked(REPORT_LEN) else {
        return refuse(format!(
            "cut short: the report begins at byte {MESSAGE_HEADER} and has {} of {REPORT_LEN} bytes",
            rest.len()
        ));
    };
    Some(Ok(if after.iter().all(|byte| *byte == 0) {
        report
    } else {
        rest
    }))
}
