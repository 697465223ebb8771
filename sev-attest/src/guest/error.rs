//! Why a guest could not get its report.

use std::path::PathBuf;

use crate::report::ReportError;

/// Why a report or key could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// Neither interface is there.
    #[error(
        "this is no SEV-SNP guest, or its kernel lacks the sev-guest driver: there is neither \
         /sys/kernel/config/tsm/report nor /dev/sev-guest"
    )]
    NotAGuest,
    /// Neither, on Azure.
    #[error("neither /sys/kernel/config/tsm/report nor /dev/sev-guest serves here: {0}")]
    Azure(&'static str),
    /// No configfs-tsm.
    #[error("{}: not there: configfs is not mounted, or the kernel lacks TSM reports", .0.display())]
    NoConfigfs(PathBuf),
    /// configfs-tsm without anything behind it.
    #[error("{}: the kernel has TSM reports but no provider of them: no confidential guest", .0.display())]
    NoProvider(PathBuf),
    /// configfs-tsm of another technology.
    #[error("reports here come from {0:?}, not from sev_guest: this is no SEV-SNP guest")]
    OtherProvider(String),
    /// Somebody else wrote to our request, each time.
    #[error("{}: changed by another process at each of {attempts} attempts", path.display())]
    Raced {
        /// The request's directory.
        path: PathBuf,
        /// Attempts.
        attempts: u32,
    },
    /// No device.
    #[error("{}: not there: this is no SEV-SNP guest, or its kernel lacks the sev-guest driver", .0.display())]
    NoDevice(PathBuf),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The security processor or the host refused.
    #[error("{request}: refused ({reason})")]
    Refused {
        /// Which request.
        request: &'static str,
        /// Why.
        reason: String,
    },
    /// The answer is not one report.
    #[error("the answer has {0} bytes, which is no report")]
    ShortReport(usize),
    /// The answer can't be read.
    #[error("the answer is no readable report: {0}")]
    Report(#[from] ReportError),
    /// The answer is to another question.
    #[error("the report has another {0} than was asked for")]
    OtherAnswer(&'static str),
    /// The host's certificates are too many.
    #[error("the host's certificate table has {0} bytes, more than is sensible")]
    TableTooLong(u32),
}
