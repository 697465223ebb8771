//! Forms in which reports and certificates are handed around, recognised by content.
//!
//! Nothing here is trusted: a container only carries what is verified elsewhere.

mod azure;
mod binding;
mod certificates;
mod error;
mod fields;
mod node;
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "see `testing`")
)]
pub(crate) mod pem;
mod protobuf;
mod ratls;
mod reader;
mod scale;
mod search;
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "see `testing`")
)]
pub(crate) mod table;
mod tee;
mod text;

pub use binding::{Binding, CertificateKey, RuntimeClaims};
pub use error::{FormatError, TableError};
pub use tee::OtherTee;

use crate::cert::{Certificate, Crl};
use crate::report::Report;

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
    /// The message in which the security processor answers a guest, with its header.
    Message,
    /// Azure's report of the hardware compatibility layer, with the report inside.
    AzureHcl,
    /// Hexadecimal digits around another form.
    Hex,
    /// A dump in hexadecimal, with offsets, around another form.
    HexDump,
    /// Base64 around another form.
    Base64,
    /// Another form, compressed.
    Gzip,
    /// JSON with a report in it.
    Json,
    /// CBOR with a report in it, as TSM reports of veraison.
    Cbor,
    /// MessagePack with a report in it, as dstack's attestations of version 1.
    MessagePack,
    /// Protocol buffers of go-sev-guest or go-tpm-tools.
    Protobuf,
    /// SCALE, as dstack's attestations of version 0.
    Scale,
    /// A certificate of TLS with a report in an extension.
    RaTls,
}

impl Form {
    /// Name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Extended => "extended report",
            Self::Message => "MSG_REPORT_RSP",
            Self::AzureHcl => "Azure HCL report",
            Self::Hex => "hex",
            Self::HexDump => "hex dump",
            Self::Base64 => "base64",
            Self::Gzip => "gzip",
            Self::Json => "JSON",
            Self::Cbor => "CBOR",
            Self::MessagePack => "MessagePack",
            Self::Protobuf => "protocol buffers",
            Self::Scale => "SCALE",
            Self::RaTls => "RA-TLS certificate",
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
    /// What came along and has to be bound by the report data.
    pub binding: Option<Binding>,
    /// The outermost form of the input.
    pub form: Form,
    /// What was passed over though it looked like a report or a certificate.
    pub notes: Vec<String>,
}

impl Evidence {
    /// A report and nothing else.
    #[must_use]
    pub fn alone(report: Report) -> Self {
        Self {
            report,
            bundle: Bundle::default(),
            binding: None,
            form: Form::Raw,
            notes: Vec::new(),
        }
    }
}

/// Either kind of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A report.
    Report(Box<Evidence>),
    /// Certificates.
    Certificates(Bundle),
}

impl Input {
    /// The same in another outermost form.
    fn in_form(mut self, form: Form) -> Self {
        if let Self::Report(evidence) = &mut self {
            evidence.form = form;
        }
        self
    }
}

impl From<Evidence> for Input {
    fn from(evidence: Evidence) -> Self {
        Self::Report(Box::new(evidence))
    }
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

/// Reads certificates and revocation lists in any form; of a report, those that came with it.
///
/// # Errors
/// For anything else, with what is wrong with it.
pub fn read_certificates(bytes: &[u8]) -> Result<Bundle, FormatError> {
    match read(bytes)? {
        Input::Certificates(bundle) => Ok(bundle),
        Input::Report(evidence) if !evidence.bundle.is_empty() => Ok(evidence.bundle),
        Input::Report(_) => Err(FormatError::Other("a report, not a certificate")),
    }
}

/// Reads a report or certificates in any form.
///
/// # Errors
/// For anything else, with what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Input, FormatError> {
    if bytes.len() > MAX_INPUT {
        return Err(FormatError::TooLong);
    }
    reader::Reader::new().read(bytes)
}
