//! Why an input holds no report or no certificate.

use super::tee::OtherTee;
use super::{MAX_CERTIFICATES, MAX_INPUT, pem};
use crate::cert::CertError;
use crate::report::{REPORT_LEN, ReportError};

/// Why an input holds no report or no certificate: where was looked, and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The input is empty.
    #[error("empty input")]
    Empty,
    /// The input is too long.
    #[error("longer than {MAX_INPUT} bytes")]
    TooLong,
    /// None of the known forms; what it is instead.
    #[error("neither a report nor certificates in any form that is known: {0}")]
    Unknown(String),
    /// Shorter than a report.
    #[error("truncated: a report has {REPORT_LEN} bytes, this has {0}")]
    Truncated(usize),
    /// The report itself can't be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// What follows the report is no table of certificates.
    #[error("after the report's {REPORT_LEN} bytes: {0}")]
    AfterReport(TableError),
    /// A table of certificates is malformed.
    #[error("certificate table: {0}")]
    Table(#[from] TableError),
    /// PEM is malformed.
    #[error(transparent)]
    Pem(#[from] pem::PemError),
    /// A certificate can't be read.
    #[error("certificate: {0}")]
    Certificate(#[from] CertError),
    /// A container that can't be read.
    #[error("{form}: {reason}")]
    Container {
        /// Name of the container's form.
        form: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A value in a container that should be a report and is none.
    #[error("{form}: at {place}: {source}")]
    At {
        /// Name of the container's form.
        form: &'static str,
        /// Where in it.
        place: String,
        /// What is wrong with the value.
        source: Box<FormatError>,
    },
    /// A container without a report and without certificates.
    #[error("{form}: no report and no certificate: {looked}")]
    Nothing {
        /// Name of the container's form.
        form: &'static str,
        /// Where was looked.
        looked: String,
    },
    /// Two different reports in one input.
    #[error("two different reports, at {first} and at {second}: one at a time")]
    SeveralReports {
        /// Where one is.
        first: String,
        /// Where the other is.
        second: String,
    },
    /// Evidence of another confidential computing technology.
    #[error("evidence of {tee}, not of AMD SEV-SNP ({found})")]
    OtherTee {
        /// Which.
        tee: OtherTee,
        /// What told so.
        found: String,
    },
    /// A report where certificates were expected, or the other way round.
    #[error("this is {0}")]
    Other(&'static str),
    /// More certificates than are sensible.
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

impl FormatError {
    /// An input that is refused as a whole, whatever else is in it.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::TooMany | Self::TooLong | Self::SeveralReports { .. }
        )
    }
}

/// Why bytes are not a certificate table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The list of entries has no end.
    #[error("trailing bytes that are no certificate table (its list of entries has no end)")]
    NoEnd,
    /// An entry points outside of the table, or into the list of entries.
    #[error("entry {0} points outside of the table's data")]
    OutOfBounds(usize),
    /// Two entries share bytes.
    #[error("entries overlap")]
    Overlap,
    /// Two entries have the same known GUID.
    #[error("two entries of {0}")]
    Duplicate(String),
    /// Bytes that no entry points at are not zero.
    #[error("bytes that belong to no entry are not zero")]
    Stray,
    /// An entry's contents can't be read.
    #[error("entry {0}: {1}")]
    Content(String, Box<FormatError>),
}
