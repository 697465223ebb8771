//! Forms in which reports and certificates are handed around, recognised by content.
//!
//! Nothing here is trusted: a container only carries what is verified elsewhere.

mod encoded;
mod json;
pub mod pem;
pub mod table;

use crate::cert::{CertError, Certificate, Crl};
use crate::report::{REPORT_LEN, Report, ReportError};

/// Longest input that is read, in bytes.
pub const MAX_INPUT: usize = 4 << 20;
/// Most certificates and revocation lists that are taken from one input.
pub const MAX_CERTIFICATES: usize = 64;

/// The form of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// The bytes as the security processor writes them.
    Raw,
    /// A report followed by a table of certificates.
    Extended,
    /// Azure's report of the hardware compatibility layer, with the report inside.
    AzureHcl,
    /// Hexadecimal digits around another form.
    Hex,
    /// Base64 around another form.
    Base64,
    /// JSON with a report in it.
    Json,
}

impl Form {
    /// Name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Extended => "extended report",
            Self::AzureHcl => "Azure HCL report",
            Self::Hex => "hex",
            Self::Base64 => "base64",
            Self::Json => "JSON",
        }
    }
}

/// Certificates and revocation lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Certificates, in the order of the input.
    pub certificates: Vec<Certificate>,
    /// Revocation lists.
    pub crls: Vec<Crl>,
}

impl Bundle {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.crls.is_empty()
    }

    /// Adds all of `other`, which comes from the same input.
    ///
    /// # Errors
    /// Where that makes more than [`MAX_CERTIFICATES`]: each costs time to verify.
    fn add(&mut self, other: Self) -> Result<(), FormatError> {
        self.extend(other);
        if self.certificates.len() + self.crls.len() > MAX_CERTIFICATES {
            return Err(FormatError::TooMany);
        }
        Ok(())
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.certificates.extend(other.certificates);
        self.crls.extend(other.crls);
    }
}

/// A report with what came along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The report.
    pub report: Report,
    /// Certificates beside it.
    pub bundle: Bundle,
    /// The outermost form of the input.
    pub form: Form,
}

/// Why an input holds no report or no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The input is empty.
    #[error("empty input")]
    Empty,
    /// The input is too long.
    #[error("longer than {MAX_INPUT} bytes")]
    TooLong,
    /// None of the known forms.
    #[error(
        "neither a report (raw, hex, base64, extended or in JSON) nor certificates (PEM, DER, table)"
    )]
    Unknown,
    /// Shorter than a report.
    #[error("truncated: a report has {REPORT_LEN} bytes, this has {0}")]
    Truncated(usize),
    /// The report itself can't be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// What follows the report is no table of certificates.
    #[error("after the report's {REPORT_LEN} bytes: {0}")]
    AfterReport(table::TableError),
    /// A table of certificates is malformed.
    #[error("certificate table: {0}")]
    Table(#[from] table::TableError),
    /// PEM is malformed.
    #[error(transparent)]
    Pem(#[from] pem::PemError),
    /// A certificate can't be read.
    #[error("certificate: {0}")]
    Certificate(#[from] CertError),
    /// JSON without a report, or with one that can't be read.
    #[error("JSON: {0}")]
    Json(String),
    /// A report where certificates were expected, or the other way round.
    #[error("this is {0}")]
    Other(&'static str),
    /// More certificates than are sensible.
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// Either kind of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A report.
    Report(Box<Evidence>),
    /// Certificates.
    Certificates(Bundle),
}

/// Reads a report in any form.
///
/// # Errors
/// For anything else, with what is wrong with it.
pub fn read_report(bytes: &[u8]) -> Result<Evidence, FormatError> {
    match read(bytes)? {
        Input::Report(evidence) => Ok(*evidence),
        Input::Certificates(_) => Err(FormatError::Other("a certificate, not a report")),
    }
}

/// Reads certificates and revocation lists in any form.
///
/// # Errors
/// For anything else, with what is wrong with it.
pub fn read_certificates(bytes: &[u8]) -> Result<Bundle, FormatError> {
    match read(bytes)? {
        Input::Certificates(bundle) => Ok(bundle),
        Input::Report(_) => Err(FormatError::Other("a report, not a certificate")),
    }
}

/// Reads a report or certificates in any form.
///
/// # Errors
/// For anything else, with what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Input, FormatError> {
    match bytes.len() {
        0 => return Err(FormatError::Empty),
        len if len > MAX_INPUT => return Err(FormatError::TooLong),
        _ => {}
    }
    if json::looks_like(bytes) {
        return json::read(bytes).map(|evidence| Input::Report(Box::new(evidence)));
    }
    // Tables may hold PEM among other things; text has no zeros.
    if !bytes.contains(&0) && pem::looks_like(bytes) {
        return read_pem(bytes).map(Input::Certificates);
    }
    if let Some((inner, form)) = encoded::decode(bytes) {
        return match read_binary(&inner)? {
            Input::Report(mut evidence) => {
                evidence.form = form;
                Ok(Input::Report(evidence))
            }
            certificates @ Input::Certificates(_) => Ok(certificates),
        };
    }
    read_binary(bytes)
}

fn read_binary(bytes: &[u8]) -> Result<Input, FormatError> {
    // No certificate is so short that its length is zero; a report of version 0x30 begins so.
    if bytes.first() == Some(&0x30) && !bytes.starts_with(&[0x30, 0, 0, 0]) {
        return read_der(bytes).map(Input::Certificates);
    }
    if table::looks_like(bytes) {
        return table::read(bytes)
            .map(Input::Certificates)
            .map_err(FormatError::from);
    }
    read_binary_report(bytes).map(|evidence| Input::Report(Box::new(evidence)))
}

/// A report alone, before a table, or inside Azure's container.
fn read_binary_report(bytes: &[u8]) -> Result<Evidence, FormatError> {
    if let Some(inner) = azure_report(bytes) {
        return Ok(Evidence {
            report: Report::parse(inner)?,
            bundle: Bundle::default(),
            form: Form::AzureHcl,
        });
    }
    let Some((report, rest)) = bytes.split_at_checked(REPORT_LEN) else {
        // A short file that doesn't start as a report says nothing by its length.
        let starts_as_report = matches!(bytes, [2..=5, 0, 0, 0, ..]);
        return Err(if starts_as_report {
            FormatError::Truncated(bytes.len())
        } else {
            FormatError::Unknown
        });
    };
    let report = match Report::parse(report) {
        // More bytes than a report's that don't start as one are some other kind of file.
        Err(ReportError::UnknownVersion(0x100..)) if !rest.is_empty() => {
            return Err(FormatError::Unknown);
        }
        report => report?,
    };
    if rest.is_empty() {
        return Ok(Evidence {
            report,
            bundle: Bundle::default(),
            form: Form::Raw,
        });
    }
    Ok(Evidence {
        report,
        bundle: table::read(rest).map_err(FormatError::AfterReport)?,
        form: Form::Extended,
    })
}

/// Azure's guests find their report at byte 32 of a container that starts with `HCLA`.
fn azure_report(bytes: &[u8]) -> Option<&[u8]> {
    bytes
        .starts_with(b"HCLA")
        .then(|| bytes.get(32..32 + REPORT_LEN))
        .flatten()
}

fn read_pem(bytes: &[u8]) -> Result<Bundle, FormatError> {
    let mut bundle = Bundle::default();
    for block in pem::blocks(bytes)? {
        match block.label.as_str() {
            "CERTIFICATE" => bundle.certificates.push(Certificate::parse(&block.der)?),
            "X509 CRL" => bundle.crls.push(Crl::parse(&block.der)?),
            _ => {}
        }
    }
    if bundle.is_empty() {
        return Err(FormatError::Other("PEM without a certificate"));
    }
    Ok(bundle)
}

/// One certificate or revocation list after another, in DER.
fn read_der(mut bytes: &[u8]) -> Result<Bundle, FormatError> {
    let mut bundle = Bundle::default();
    while !bytes.is_empty() {
        if bundle.certificates.len() + bundle.crls.len() == MAX_CERTIFICATES {
            return Err(FormatError::TooMany);
        }
        let len = der_len(bytes).ok_or(FormatError::Unknown)?;
        let (one, rest) = bytes.split_at_checked(len).ok_or(FormatError::Unknown)?;
        match Certificate::parse(one) {
            Ok(certificate) => bundle.certificates.push(certificate),
            Err(error) => match Crl::parse(one) {
                Ok(crl) => bundle.crls.push(crl),
                Err(_) => return Err(error.into()),
            },
        }
        bytes = rest;
    }
    Ok(bundle)
}

/// Length of the DER element that starts here, header included.
fn der_len(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [0x30, len @ 0..=0x7f, ..] => Some(2 + usize::from(len)),
        [0x30, 0x81, a, ..] => Some(3 + usize::from(a)),
        [0x30, 0x82, a, b, ..] => Some(4 + usize::from(u16::from_be_bytes([a, b]))),
        [0x30, 0x83, a, b, c, ..] => usize::try_from(u32::from_be_bytes([0, a, b, c]))
            .ok()?
            .checked_add(5),
        _ => None,
    }
}
