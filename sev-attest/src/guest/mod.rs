//! Reports and keys from inside a guest: by the kernel's configfs-tsm, or by `/dev/sev-guest`.
//!
//! What comes back is checked to answer the question: a report with other data or from another VMPL
//! is an error, not a report.

mod azure;
mod configfs;
mod device;
mod error;

pub use configfs::{ConfigfsTsm, Files, Tree};
pub use device::{DEVICE, Driver, Failure, SevGuest};
pub use error::GuestError;

use crate::report::{REPORT_LEN, Report};

/// What the machine calls itself.
const DMI: &str = "/sys/class/dmi/id";

/// A privilege level of a guest, 0 (most) to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vmpl(u8);

impl Vmpl {
    /// A level; `None` beyond 3.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        (level <= 3).then_some(Self(level))
    }

    /// The level as a number.
    #[must_use]
    pub fn level(self) -> u8 {
        self.0
    }
}

/// What a report is asked to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportRequest {
    /// The guest's own 64 bytes.
    pub data: [u8; 64],
    /// The level that asks, at least that of the kernel; `None` for the kernel's own where the
    /// interface tells it (configfs-tsm), else 0.
    pub vmpl: Option<Vmpl>,
    /// Whether the host's certificate table is wanted too.
    pub extended: bool,
}

/// A report as it came, and the host's certificate table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestReport {
    /// The report.
    pub report: Report,
    /// The table, unread; empty where the host gave none or it was not asked for.
    pub table: Vec<u8>,
}

impl GuestReport {
    /// The report, followed by the table: the extended form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.report.as_bytes(), self.table.as_slice()].concat()
    }

    /// Reads an answer and holds it against the request.
    fn checked(bytes: &[u8], table: Vec<u8>, request: &ReportRequest) -> Result<Self, GuestError> {
        // some kernels hand on the whole message buffer
        let (bytes, rest) = bytes
            .split_at_checked(REPORT_LEN)
            .ok_or(GuestError::ShortReport(bytes.len()))?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(GuestError::ShortReport(bytes.len() + rest.len()));
        }
        let report = Report::parse(bytes)?;
        if report.report_data != request.data {
            return Err(GuestError::OtherAnswer("report data"));
        }
        let level = request.vmpl.map(|vmpl| u32::from(vmpl.level()));
        if level.is_some_and(|level| level != report.vmpl) {
            return Err(GuestError::OtherAnswer("VMPL"));
        }
        Ok(Self { report, table })
    }
}

/// Something that can have a report made: the kernel, by one of its interfaces.
///
/// The one simulation lives with the tests; none is part of the library.
pub trait ReportProvider {
    /// Name in messages.
    fn name(&self) -> String;

    /// Has a report made.
    ///
    /// # Errors
    /// Where this is no SEV-SNP guest, or the request was refused.
    fn report(&mut self, request: &ReportRequest) -> Result<GuestReport, GuestError>;
}

/// The interface that this kernel has: configfs-tsm where it serves SEV-SNP, else the device.
///
/// # Errors
/// [`GuestError::NotAGuest`] where there is neither; why configfs-tsm does not serve where there is
/// that alone.
pub fn detect() -> Result<Box<dyn ReportProvider + Send>, GuestError> {
    let mut tsm = ConfigfsTsm::default();
    let refused = match tsm.serves() {
        Ok(()) => return Ok(Box::new(tsm)),
        Err(error) => error,
    };
    match SevGuest::open(DEVICE.as_ref()) {
        Ok(device) => Ok(Box::new(device)),
        Err(GuestError::NoDevice(_)) => match refused {
            GuestError::NoConfigfs(_) | GuestError::NoProvider(_) => {
                match azure::hint(DMI.as_ref()) {
                    Some(hint) => Err(GuestError::Azure(hint)),
                    None if matches!(refused, GuestError::NoConfigfs(_)) => {
                        Err(GuestError::NotAGuest)
                    }
                    None => Err(refused),
                }
            }
            refused => Err(refused),
        },
        Err(error) => Err(error),
    }
}

/// Root of a derived key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootKey {
    /// The chip's key, or the provider's where there is one.
    Vcek,
    /// The key that a migration agent shares between machines.
    Vmrk,
}

/// What a key is derived from, beside its root (AMD 56860, MSG_KEY_REQ). What is mixed in must be
/// the same again for the same key to come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRequest {
    /// Root.
    pub root: RootKey,
    /// GUEST_FIELD_SELECT: bit 0 guest policy, 1 image id, 2 family id, 3 measurement, 4 guest
    /// SVN, 5 TCB version.
    pub fields: u64,
    /// VMPL to mix in, at least the kernel's.
    pub vmpl: Vmpl,
    /// Guest SVN to mix in, at most that of the ID block.
    pub guest_svn: u32,
    /// TCB to mix in, at most the committed one.
    pub tcb: u64,
}

/// A derived key. It is never printed by `Debug`.
pub struct DerivedKey(pub [u8; 32]);

impl std::fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DerivedKey")
    }
}
